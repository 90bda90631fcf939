//! Figures of running programs: CPU time, memory, answers.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::Failure;

/// A program and its children.
pub(crate) fn family(pid: u32) -> Result<Vec<u32>, Failure> {
    let mut pids = vec![pid];
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let children = fs::read_to_string(task?.path().join("children"))?;
        for child in children.split_whitespace() {
            pids.push(child.parse()?);
        }
    }
    Ok(pids)
}

/// CPU time of all threads, or of those with this name. Exact, where `/proc/PID/stat` counts hundredths of a second.
pub(crate) fn cpu(pid: u32, named: Option<&str>) -> Result<Duration, Failure> {
    let mut total = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let task = task?.path();
        let name = fs::read_to_string(task.join("comm"))?;
        if named.is_some_and(|named| named != name.trim_end()) {
            continue;
        }
        let line = fs::read_to_string(task.join("schedstat"))?;
        let first = line.split_whitespace().next().ok_or("no schedstat")?;
        total += first.parse::<u64>()?;
    }
    Ok(Duration::from_nanos(total))
}

/// Its part of memory, KiB.
pub(crate) fn pss_kib(pid: u32) -> Result<u64, Failure> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    Ok(number.ok_or("no Pss")?.parse()?)
}

#[expect(clippy::disallowed_methods, reason = "a benchmark measures")]
fn now() -> Instant {
    Instant::now()
}

/// The median and the 99th percentile of so many scrapes, each over a connection of its own, and the size of one.
pub(crate) fn scrapes(
    address: SocketAddr,
    path: &str,
    times: usize,
) -> Result<(Duration, Duration, usize), Failure> {
    let mut took = Vec::with_capacity(times);
    let mut answer = Vec::new();
    for _ in 0..times {
        answer.clear();
        let begun = now();
        let mut stream = TcpStream::connect(address)?;
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        )?;
        stream.read_to_end(&mut answer)?;
        took.push(begun.elapsed());
    }
    took.sort_unstable();
    let at = |part: usize| took.get(times * part / 100).copied();
    let (Some(median), Some(p99)) = (at(50), at(99)) else {
        return Err("no scrape".into());
    };
    Ok((median, p99, answer.len()))
}

/// One answer, if it comes whole within this.
pub(crate) fn scrape(address: SocketAddr, path: &str, within: Duration) -> Result<String, Failure> {
    let end = now() + within;
    let mut stream = TcpStream::connect_timeout(&address, within)?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = Vec::new();
    let mut part = [0; 16 << 10];
    loop {
        let left = end.saturating_duration_since(now());
        if left.is_zero() {
            return Err("no answer in time".into());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut part)? {
            0 => break,
            read => answer.extend_from_slice(part.get(..read).unwrap_or_default()),
        }
    }
    let text = String::from_utf8(answer)?;
    let (head, body) = text.split_once("\r\n\r\n").ok_or("no answer")?;
    if !head.contains(" 200 ") {
        return Err(head.into());
    }
    Ok(body.to_owned())
}

/// Processes and threads started since boot.
pub(crate) fn forks() -> Result<u64, Failure> {
    let text = fs::read_to_string("/proc/stat")?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("processes "));
    Ok(line.ok_or("no count of forks")?.trim().parse()?)
}
