//! Whether a GPU's MIG layout is still the one it was. Pure. The same UUIDs are not the same instances: they come back when
//! an identical layout is made anew, and with another profile in the same place.

use super::reading::{GpuReading, MigReading};

/// Whether `now` is cut otherwise than `before`, both of the same GPU: another mode, device node, or set of instances, or an
/// instance with another profile or place. What one of the two could not tell makes no difference.
#[must_use]
pub(super) fn changed(before: &GpuReading, now: &GpuReading) -> bool {
    let mode = differ(before.mig_enabled, now.mig_enabled);
    let was_cut = before.mig_enabled == Some(true) || now.mig_enabled == Some(true);
    let minor = was_cut && differ(before.minor, now.minor);
    mode || minor || recut(&before.instances, &now.instances)
}

/// The instances alone, whatever their order.
#[must_use]
pub(super) fn recut(before: &[MigReading], now: &[MigReading]) -> bool {
    let same = |a: &MigReading, b: &MigReading| {
        (a.gi, a.ci, &a.uuid) == (b.gi, b.ci, &b.uuid)
            && !differ(a.profile.as_ref(), b.profile.as_ref())
            && !differ(a.placement, b.placement)
    };
    // Of two equally long sets without doubles one holds the other when they are equal.
    before.len() != now.len() || !now.iter().all(|b| before.iter().any(|a| same(a, b)))
}

fn differ<T: PartialEq>(before: Option<T>, now: Option<T>) -> bool {
    match (before, now) {
        (Some(before), Some(now)) => before != now,
        (None, _) | (_, None) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::reading::{Memory, Placement};

    fn gpu(instances: &[(u32, u32, &str, u32)]) -> GpuReading {
        let instance = |(gi, ci, profile, start): &(u32, u32, &str, u32)| MigReading {
            uuid: format!("MIG-{gi}-{ci}"),
            gi: *gi,
            ci: *ci,
            profile: Some((*profile).to_owned()),
            placement: Some(Placement {
                start: *start,
                size: 1,
            }),
            ..MigReading::default()
        };
        GpuReading {
            mig_enabled: Some(true),
            minor: Some(3),
            instances: instances.iter().map(instance).collect(),
            ..GpuReading::default()
        }
    }

    type Change = fn(&mut GpuReading);

    #[test]
    fn rule_09_a_layout_is_profiles_places_compute_instances_and_the_node() {
        let before = gpu(&[
            (7, 0, "1g.10gb", 0),
            (8, 0, "1g.10gb", 1),
            (8, 1, "1g.10gb", 1),
        ]);
        let changes: [(Change, bool); 11] = [
            (|_| {}, false),
            (|gpu| gpu.instances.reverse(), false),
            (
                |gpu| {
                    gpu.instances[0].memory = Some(Memory {
                        total: 1,
                        reserved: None,
                        free: 1,
                        used: 0,
                    })
                },
                false,
            ),
            (|gpu| gpu.instances[0].profile = None, false),
            (|gpu| gpu.instances[0].placement = None, false),
            (
                |gpu| gpu.instances[1].profile = Some("1g.10gb+me".to_owned()),
                true,
            ),
            (
                |gpu| gpu.instances[1].placement = Some(Placement { start: 2, size: 1 }),
                true,
            ),
            (|gpu| gpu.instances[2].ci = 2, true),
            (|gpu| gpu.instances[2].uuid = "MIG-x".to_owned(), true),
            (|gpu| drop(gpu.instances.pop()), true),
            (|gpu| gpu.minor = Some(4), true),
        ];
        for (at, (change, expected)) in changes.into_iter().enumerate() {
            let mut now = before.clone();
            change(&mut now);
            assert_eq!(changed(&before, &now), expected, "change {at}");
            assert_eq!(changed(&now, &before), expected, "change {at}, back");
        }
        let mut off = gpu(&[]);
        let on = off.clone();
        off.mig_enabled = Some(false);
        assert!(changed(&off, &on) && changed(&on, &off));
        off.minor = Some(9);
        let mut other = off.clone();
        other.minor = None;
        assert!(!changed(&off, &other));
    }
}
