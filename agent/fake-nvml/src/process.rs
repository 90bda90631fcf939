//! Real processes: what `/proc` says about a pid.

use std::fs;

/// What identifies a process beyond its reusable pid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) state: char,
    pub(crate) start_time: u64,
}

impl Stat {
    /// A zombie has closed its files and so holds no GPU memory any more.
    pub(crate) fn holds_resources(self) -> bool {
        !matches!(self.state, 'Z' | 'X' | 'x')
    }
}

pub(crate) fn stat(pid: u32) -> Option<Stat> {
    parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The start time of a live process in clock ticks since boot (field 22 of `/proc/PID/stat`); `None` when the pid does
/// not exist or is a zombie.
pub fn start_time(pid: u32) -> Option<u64> {
    stat(pid)
        .filter(|stat| stat.holds_resources())
        .map(|stat| stat.start_time)
}

/// The command line's first word, as `nvmlSystemGetProcessName` gives it.
pub(crate) fn name(pid: u32) -> Option<String> {
    let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let first = line.split(|byte| *byte == 0).next().unwrap_or_default();
    Some(String::from_utf8_lossy(first).into_owned())
}

/// The command name stands in parentheses and may itself hold spaces and parentheses, so fields count from the last one.
fn parse(text: &str) -> Option<Stat> {
    let (_, rest) = text.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    let start_time = fields.nth(18)?.parse().ok()?;
    Some(Stat { state, start_time })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_name_with_parentheses_does_not_shift_the_fields() {
        let line = "7 (a) Z (b) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4242 20 21";
        assert_eq!(
            parse(line),
            Some(Stat {
                state: 'S',
                start_time: 4242
            })
        );
    }

    #[test]
    fn this_process_is_alive_and_pid_zero_is_not() {
        assert!(start_time(std::process::id()).is_some());
        assert_eq!(start_time(0), None);
    }
}
