//! The programs that deny device nodes to a control group: their instructions, made here. Pure.
//!
//! A program of type `BPF_PROG_TYPE_CGROUP_DEVICE` is asked at each open and mknod of a device below its group, and every
//! program of the group and of those above has to allow it (Documentation/admin-guide/cgroup-v2.rst, "Device controller"). One
//! allows all but a list, the other all but whole drivers' nodes, of which a list is allowed.

use std::collections::BTreeSet;

/// A character device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Number {
    /// Of its driver.
    pub(super) major: u32,
    /// Of the node.
    pub(super) minor: u32,
}

/// Devices in one list at most: 16 GPUs with 7 instances each stay below.
pub(super) const MOST: usize = 256;

/// One instruction (`struct bpf_insn` of linux/bpf.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(super) struct Instruction {
    code: u8,
    /// Destination in the lower half, source in the upper.
    registers: u8,
    offset: i16,
    immediate: i32,
}

// Codes by the names of linux/bpf.h and linux/bpf_common.h.
const LDX_W: u8 = 0x61;
const AND32_K: u8 = 0x54;
const MOV64_K: u8 = 0xb7;
const JEQ_K: u8 = 0x15;
const JNE32_K: u8 = 0x56;
const EXIT: u8 = 0x95;
/// `BPF_DEVCG_DEV_CHAR`.
const CHARACTER: i32 = 2;

const fn op(code: u8, to: u8, from: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction {
        code,
        registers: to | (from << 4),
        offset,
        immediate,
    }
}

/// The program that denies these; `None` for more devices than [`MOST`], or numbers that no device has.
pub(super) fn program(denied: &BTreeSet<Number>) -> Option<Vec<Instruction>> {
    enclosure(&BTreeSet::new(), denied, &BTreeSet::new())
}

/// The program that denies these, and all of these drivers besides, but what is allowed; `None` as above, counted together.
pub(super) fn enclosure(
    allowed: &BTreeSet<Number>,
    denied: &BTreeSet<Number>,
    majors: &BTreeSet<u32>,
) -> Option<Vec<Instruction>> {
    if allowed.len() + denied.len() + majors.len() > MOST {
        return None;
    }
    // `struct bpf_cgroup_dev_ctx`: access in the upper and type in the lower half of the first word, major, minor.
    let mut code = vec![
        op(LDX_W, 2, 1, 0, 0),
        op(LDX_W, 3, 1, 4, 0),
        op(LDX_W, 4, 1, 8, 0),
        op(AND32_K, 2, 0, 0, 0xffff),
    ];
    // A block device has its numbers for itself.
    code.extend([
        op(JEQ_K, 2, 0, 2, CHARACTER),
        op(MOV64_K, 0, 0, 0, 1),
        op(EXIT, 0, 0, 0, 0),
    ]);
    for (numbers, verdict) in [(allowed, 1), (denied, 0)] {
        for number in numbers {
            code.extend([
                op(JNE32_K, 3, 0, 3, i32::try_from(number.major).ok()?),
                op(JNE32_K, 4, 0, 2, i32::try_from(number.minor).ok()?),
                op(MOV64_K, 0, 0, 0, verdict),
                op(EXIT, 0, 0, 0, 0),
            ]);
        }
    }
    for major in majors {
        code.extend([
            op(JNE32_K, 3, 0, 2, i32::try_from(*major).ok()?),
            op(MOV64_K, 0, 0, 0, 0),
            op(EXIT, 0, 0, 0, 0),
        ]);
    }
    code.extend([op(MOV64_K, 0, 0, 0, 1), op(EXIT, 0, 0, 0, 0)]);
    Some(code)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What the kernel would do with it.
    fn allows(code: &[Instruction], kind: u32, access: u32, number: Number) -> bool {
        let context = [(access << 16) | kind, number.major, number.minor];
        let mut registers = [0u64; 11];
        let mut at = 0usize;
        for _ in 0..=code.len() {
            let Instruction {
                code: what,
                registers: pair,
                offset,
                immediate,
            } = code[at];
            let (to, from) = (usize::from(pair & 15), usize::from(pair >> 4));
            let skip = usize::try_from(offset).unwrap_or(0);
            at += 1;
            let value = u64::from(immediate.cast_unsigned());
            match what {
                LDX_W => {
                    assert_eq!(from, 1);
                    registers[to] = context[skip / 4].into();
                }
                AND32_K => registers[to] = registers[to] & value & 0xffff_ffff,
                MOV64_K => registers[to] = value,
                JEQ_K if registers[to] == value => at += skip,
                JNE32_K if registers[to] & 0xffff_ffff != value => at += skip,
                JEQ_K | JNE32_K => {}
                EXIT => return registers[0] == 1,
                other => panic!("{other:#x}"),
            }
        }
        panic!("no end");
    }

    fn number() -> impl Strategy<Value = Number> {
        (0..4u32, 0..6u32).prop_map(|(major, minor)| Number { major, minor })
    }

    proptest! {
        #[test]
        fn rule_17_it_denies_every_access_to_what_is_listed_and_nothing_else(
            denied in proptest::collection::btree_set(number(), 0..12),
            asked in number(),
            access in 0..8u32,
        ) {
            let code = program(&denied).unwrap();
            prop_assert_eq!(allows(&code, 2, access, asked), !denied.contains(&asked));
            // A block device with the same numbers is another device.
            prop_assert!(allows(&code, 1, access, asked));
        }

        #[test]
        fn rule_17_what_is_enclosed_gets_what_is_allowed_and_nothing_else_of_these_drivers(
            allowed in proptest::collection::btree_set(number(), 0..8),
            denied in proptest::collection::btree_set(number(), 0..8),
            majors in proptest::collection::btree_set(0..4u32, 0..3),
            asked in number(),
            access in 0..8u32,
        ) {
            let code = enclosure(&allowed, &denied, &majors).unwrap();
            let kept_out = denied.contains(&asked) || majors.contains(&asked.major);
            prop_assert_eq!(allows(&code, 2, access, asked), allowed.contains(&asked) || !kept_out);
            prop_assert!(allows(&code, 1, access, asked));
        }
    }

    #[test]
    fn a_list_that_is_too_long_is_refused() {
        let many = |count: u32| {
            (0..count)
                .map(|minor| Number { major: 195, minor })
                .collect()
        };
        assert!(program(&many(256)).is_some());
        assert!(program(&many(257)).is_none());
        assert!(enclosure(&many(100), &many(156), &BTreeSet::new()).is_some());
        assert!(enclosure(&many(100), &many(156), &BTreeSet::from([195])).is_none());
    }
}
