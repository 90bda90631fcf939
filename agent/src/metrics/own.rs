//! What the agent itself uses, by the names every Prometheus client library has for it.

use std::fs;

use gpuquota_proto::exposition::Families;

/// Clock ticks a second of `/proc/PID/stat` on every Linux that userspace sees.
const TICKS_PER_SECOND: f64 = 100.0;

/// Adds the families; one that the kernel does not tell is left out.
pub(super) fn add(families: &mut Families) {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    if let Some(ticks) = cpu_ticks(&read("/proc/self/stat")) {
        families
            .counter(
                "process_cpu_seconds_total",
                "User and system CPU time of the agent, without its worker process.",
            )
            .value(ticks as f64 / TICKS_PER_SECOND);
    }
    if let Some(kib) = resident_kib(&read("/proc/self/status")) {
        families
            .gauge(
                "process_resident_memory_bytes",
                "Resident memory of the agent, without its worker process.",
            )
            .value(kib as f64 * 1024.0);
    }
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        families
            .gauge("process_open_fds", "Open file descriptors of the agent.")
            .value(open.count() as f64);
    }
}

// User and system time. Fields count from the last parenthesis, because the name before it may hold anything.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace().skip(14 - 3);
    let mut next = || fields.next()?.parse::<u64>().ok();
    Some(next()? + next()?)
}

fn resident_kib(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_behind_an_odd_name() {
        let stat = "7 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15";
        assert_eq!(cpu_ticks(stat), Some(11 + 12));
        assert_eq!(cpu_ticks("junk"), None);
        assert_eq!(resident_kib("Name:\tx\nVmRSS:\t    7 kB\n"), Some(7));
        assert_eq!(resident_kib("VmSize: 1 kB"), None);
    }
}
