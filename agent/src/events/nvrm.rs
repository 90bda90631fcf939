//! What NVIDIA's kernel module writes into the kernel log when a GPU fails. Pure.
//!
//! A record is as `/dev/kmsg` gives it (Documentation/ABI/testing/dev-kmsg): `PRIORITY,SEQUENCE,MICROSECONDS,FLAGS;text`, and lines
//! that begin with a space belong to the record before. The module's lines are, by its open sources,
//! `NVRM: Xid (PCI:0000:18:00 GPU-I:05 GPU-CI:00): 31, pid=…, name=…, …` with the parts from GPU-I on only under MIG, on older
//! drivers without `PCI:`, and `NVRM: GPU 0000:18:00.0: GPU has fallen off the bus.`

use crate::gpu::pci::PciAddress;

/// What one record tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// Which GPU.
    pub gpu: PciAddress,
    /// Which XID; `None` for a line without one.
    pub xid: Option<u64>,
    /// GPU instance that it is about.
    pub gi: Option<u32>,
    /// Compute instance that it is about.
    pub ci: Option<u32>,
    /// Host pid of the process that the module says it is about.
    pub pid: Option<u32>,
    /// It fell off the bus.
    pub fell_off: bool,
}

const FELL_OFF: &str = "has fallen off the bus";
/// The XID that says the same.
const XID_FELL_OFF: u64 = 79;

/// Reads one record. What a program wrote into the log itself (`/dev/kmsg` marks it by another facility than the kernel's)
/// is never believed.
#[must_use]
pub fn parse(record: &str) -> Option<Trouble> {
    let (head, text) = record.split_once(';')?;
    let priority: u64 = head.split(',').next()?.parse().ok()?;
    let facility = priority >> 3;
    if facility != 0 {
        return None;
    }
    let said = text.lines().next()?.strip_prefix("NVRM: ")?;
    match said.strip_prefix("Xid (") {
        Some(rest) => xid(rest),
        None => fallen(said),
    }
}

fn xid(rest: &str) -> Option<Trouble> {
    let (place, rest) = rest.split_once("): ")?;
    let mut place = place.split(' ');
    let gpu = place.next()?;
    let gpu = gpu.strip_prefix("PCI:").unwrap_or(gpu).parse().ok()?;
    let (mut gi, mut ci) = (None, None);
    for part in place {
        match part.split_once(':')? {
            ("GPU-I", id) => gi = Some(id.parse().ok()?),
            ("GPU-CI", id) => ci = Some(id.parse().ok()?),
            _ => {}
        }
    }
    let length = rest.bytes().take_while(u8::is_ascii_digit).count();
    let (number, rest) = rest.split_at_checked(length)?;
    let number = number.parse().ok()?;
    Some(Trouble {
        gpu,
        xid: Some(number),
        gi,
        ci,
        pid: pid_behind(rest),
        // The text behind the number holds the name of a process, which anybody chooses.
        fell_off: number == XID_FELL_OFF,
    })
}

/// `, pid=1234,` right behind the number: what comes after it, the process chooses. `'<unknown>'` is none.
fn pid_behind(rest: &str) -> Option<u32> {
    let rest = rest.strip_prefix(", pid=")?;
    let (pid, _) = rest.split_once(',').unwrap_or((rest, ""));
    let pid = pid.trim_matches('\'');
    let digits = pid.bytes().all(|b| b.is_ascii_digit());
    pid.parse().ok().filter(|pid| digits && *pid > 0)
}

fn fallen(said: &str) -> Option<Trouble> {
    let (gpu, rest) = said.strip_prefix("GPU ")?.split_once(": ")?;
    if !rest.contains(FELL_OFF) {
        return None;
    }
    let gpu = gpu.strip_prefix("at PCI:").unwrap_or(gpu).parse().ok()?;
    Some(Trouble {
        gpu,
        xid: None,
        gi: None,
        ci: None,
        pid: None,
        fell_off: true,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GPU: PciAddress = PciAddress {
        domain: 0,
        bus: 0x3b,
        device: 0,
    };

    #[test]
    fn rule_12_the_lines_of_the_driver_are_understood() {
        let trouble = |xid, gi, ci, fell_off| {
            Some(Trouble {
                gpu: GPU,
                xid,
                gi,
                ci,
                pid: None,
                fell_off,
            })
        };
        let by = |pid, trouble: Option<Trouble>| {
            Some(Trouble {
                pid: Some(pid),
                ..trouble?
            })
        };
        for (text, expected) in [
            (
                "NVRM: Xid (PCI:0000:3b:00): 13, pid='<unknown>', name=<unknown>, Graphics SM Warp Exception",
                trouble(Some(13), None, None, false),
            ),
            (
                "NVRM: Xid (0000:3b:00): 14, Channel 00000001",
                trouble(Some(14), None, None, false),
            ),
            (
                "NVRM: Xid (PCI:0000:3b:00 GPU-I:05): 94, pid=7194, Contained: CE User Channel (0x9)",
                by(7194, trouble(Some(94), Some(5), None, false)),
            ),
            (
                "NVRM: Xid (PCI:0000:3b:00 GPU-I:01 GPU-CI:02): 31, pid=9, name=GPU has fallen off the bus",
                by(9, trouble(Some(31), Some(1), Some(2), false)),
            ),
            (
                "NVRM: Xid (PCI:0000:3b:00): 79, GPU has fallen off the bus.\n SUBSYSTEM=pci\n DEVICE=+pci:0000:3b:00.0",
                trouble(Some(79), None, None, true),
            ),
            (
                "NVRM: GPU 0000:3b:00.0: GPU has fallen off the bus.",
                trouble(None, None, None, true),
            ),
            ("NVRM: GPU 0000:3b:00.0: RmInitAdapter failed!", None),
            ("NVRM: Xid (PCI:0000:3b:00): soon", None),
            ("eth0: NVRM: Xid (PCI:0000:3b:00): 79", None),
            ("NVRM: Xid (PCI:GPU): 79,", None),
        ] {
            assert_eq!(
                parse(&format!("3,339,5140900,-;{text}")),
                expected,
                "{text}"
            );
        }
    }

    /// Only what stands where the module writes it is a pid; what a process calls itself is none.
    #[test]
    fn a_pid_is_what_stands_right_behind_the_number() {
        let pid = |text: &str| {
            let record = format!("3,1,1,-;NVRM: Xid (PCI:0000:3b:00): 31{text}");
            parse(&record).unwrap().pid
        };
        assert_eq!(pid(", pid=7, name=x"), Some(7));
        assert_eq!(pid(", pid='7', name=x"), Some(7));
        for none in [
            "",
            ", pid='<unknown>', name=, pid=7,",
            ", name=x, pid=7, y",
            ", pid=0, name=x",
            ", pid=+7, name=x",
            ", pid=7x, name=x",
            ", pid=99999999999, name=x",
            " pid=7,",
        ] {
            assert_eq!(pid(none), None, "{none}");
        }
    }

    #[test]
    fn what_a_program_wrote_into_the_log_is_no_evidence() {
        let text = "NVRM: Xid (PCI:0000:3b:00): 79, GPU has fallen off the bus.";
        assert!(parse(&format!("6,1,1,-;{text}")).is_some());
        // LOG_USER, which the kernel gives whatever claims to be its own.
        assert_eq!(parse(&format!("14,1,1,-;{text}")), None);
        assert_eq!(parse(text), None);
    }

    proptest! {
        #[test]
        fn no_record_makes_it_fall_over(record in ".{0,300}", tail in "[ -~]{0,80}") {
            let _ = parse(&record);
            let _ = parse(&format!("3,1,1,-;NVRM: Xid ({tail}"));
            let _ = parse(&format!("3,1,1,-;NVRM: GPU {tail}"));
        }

        /// Whatever a process is called, it changes neither the number nor the GPU.
        #[test]
        fn the_name_of_a_process_changes_nothing(name in "[ -~]{0,60}", xid in 0_u64..1000) {
            let found = parse(&format!("3,1,1,-;NVRM: Xid (PCI:0000:3b:00): {xid}, pid=1, name={name}, x")).unwrap();
            prop_assert_eq!((found.gpu, found.xid, found.gi, found.pid), (GPU, Some(xid), None, Some(1)));
        }
    }
}
