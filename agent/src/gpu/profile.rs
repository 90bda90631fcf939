//! MIG profile names, from what NVML says of an instance. Pure.

/// What `nvmlDeviceGetAttributes_v2` says of a MIG device.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slices {
    /// Slices of the GPU instance.
    pub(super) gpu: u32,
    /// Slices of the compute instance.
    pub(super) compute: u32,
    /// Framebuffer of the GPU instance, MiB.
    pub(super) memory_mib: u64,
}

/// The profile at the end of a MIG device's name, e.g. `1g.10gb` of `NVIDIA A100-SXM4-80GB MIG 1g.10gb`.
#[must_use]
pub(super) fn from_name(name: &str) -> Option<&str> {
    let (_, profile) = name.rsplit_once(" MIG ")?;
    is_profile(profile).then_some(profile)
}

/// The profile's name by its sizes. A suffix such as `+me` cannot be known this way.
#[must_use]
pub(super) fn from_slices(slices: Slices) -> Option<String> {
    if slices.gpu == 0 || slices.memory_mib == 0 {
        return None;
    }
    // NVIDIA rounds: 9,728 MiB is called 10gb, 20,096 MiB 20gb.
    let gigabytes = slices.memory_mib.saturating_add(512) / 1024;
    let of = slices.gpu;
    Some(if slices.compute == 0 || slices.compute == of {
        format!("{of}g.{gigabytes}gb")
    } else {
        format!("{}c.{of}g.{gigabytes}gb", slices.compute)
    })
}

/// `[Nc.]Ng.Ngb[+text]`
fn is_profile(text: &str) -> bool {
    let (sizes, extra) = text.split_once('+').unwrap_or((text, "x"));
    let mut parts = sizes.split('.').peekable();
    let number = |part: Option<&str>, unit: &str| {
        part.and_then(|part| part.strip_suffix(unit))
            .is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()))
    };
    if number(parts.peek().copied(), "c") {
        parts.next();
    }
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'.';
    number(parts.next(), "g")
        && number(parts.next(), "gb")
        && parts.next().is_none()
        && !extra.is_empty()
        && extra.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_end_with_the_profile() {
        for (name, profile) in [
            ("NVIDIA A100-SXM4-80GB MIG 1g.10gb", Some("1g.10gb")),
            ("NVIDIA H100 80GB HBM3 MIG 1c.3g.40gb", Some("1c.3g.40gb")),
            ("NVIDIA A100-SXM4-40GB MIG 1g.5gb+me", Some("1g.5gb+me")),
            ("NVIDIA A100-SXM4-80GB", None),
            ("NVIDIA X MIG g.gb", None),
            ("NVIDIA X MIG 1g.10gb+", None),
            ("NVIDIA X MIG 1g.10gb/../x", None),
        ] {
            assert_eq!(from_name(name), profile, "{name}");
        }
    }

    #[test]
    fn sizes_are_rounded_as_nvidia_rounds_them() {
        let name = |gpu, compute, memory_mib| {
            from_slices(Slices {
                gpu,
                compute,
                memory_mib,
            })
        };
        assert_eq!(name(1, 1, 9_728).as_deref(), Some("1g.10gb"));
        assert_eq!(name(3, 3, 20_096).as_deref(), Some("3g.20gb"));
        assert_eq!(name(3, 1, 40_448).as_deref(), Some("1c.3g.40gb"));
        assert_eq!(name(0, 0, 9_728), None);
    }
}
