//! The holder digest: what a heartbeat says of a node's whole holder set in 32 bytes.
//!
//! Both sides compute it over what decides (which devices exist, their kind, model and health, who holds them), so a
//! row that was lost, or a server restored from a backup, shows as a difference and heals by a full report.

use sha2::{Digest as _, Sha256};

/// One device as the digest sees it. `key` is the device's text form, `tenants` in ascending order.
#[derive(Clone, Copy, Debug)]
pub struct DigestRow<'a, T> {
    /// Text form of the device key, unique on the node.
    pub key: &'a str,
    /// `gpu`, `mig` or `vgpu`.
    pub kind: &'a str,
    /// What quotas call the device.
    pub gpu_model: &'a str,
    /// `ok`, `lost`, `hung` or `unknown`.
    pub health: &'a str,
    /// A GPU in MIG mode.
    pub partitioned: bool,
    /// At least one process without a tenant.
    pub unattributed: bool,
    /// Tenants that hold it, ascending.
    pub tenants: &'a [T],
    /// `licensed`, `unlicensed` or `unknown` of a vGPU; `None` where nothing was said of it.
    pub licence: Option<&'a str>,
}

/// Digest of rows given in ascending order of `key`.
#[derive(Debug, Default)]
pub struct HolderDigest(Sha256);

impl HolderDigest {
    /// Adds the next device.
    pub fn push<T: AsRef<str>>(&mut self, row: DigestRow<'_, T>) {
        for text in [row.key, row.kind, row.gpu_model, row.health] {
            self.text(text);
        }
        self.0
            .update([u8::from(row.partitioned), u8::from(row.unattributed)]);
        self.0.update((row.tenants.len() as u64).to_le_bytes());
        for tenant in row.tenants {
            self.text(tenant.as_ref());
        }
        // Only where there is one, so that a node without vGPUs has the digest that older programs compute. No key has a
        // colon, so this is never taken for the next row.
        if let Some(licence) = row.licence {
            self.text("licence:");
            self.text(licence);
        }
    }

    /// The 32 bytes that a heartbeat carries.
    #[must_use]
    pub fn finish(self) -> Vec<u8> {
        self.0.finalize().to_vec()
    }

    // Length first, so that no two lists of texts share their bytes.
    fn text(&mut self, text: &str) {
        self.0.update((text.len() as u64).to_le_bytes());
        self.0.update(text.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(tenants: &[&str], health: &str) -> Vec<u8> {
        licensed(tenants, health, None)
    }

    fn licensed(tenants: &[&str], health: &str, licence: Option<&str>) -> Vec<u8> {
        let mut digest = HolderDigest::default();
        digest.push(DigestRow {
            key: "GPU-1",
            kind: "gpu",
            gpu_model: "nvidia.com/gpu",
            health,
            partitioned: false,
            unattributed: false,
            tenants,
            licence,
        });
        digest.finish()
    }

    #[test]
    fn differs_in_whatever_decides() {
        let base = digest(&["a", "bc"], "ok");
        assert_eq!(base, digest(&["a", "bc"], "ok"));
        assert_ne!(base, digest(&["ab", "c"], "ok"));
        assert_ne!(base, digest(&["a"], "ok"));
        assert_ne!(base, digest(&["a", "bc"], "lost"));
        assert_ne!(base, HolderDigest::default().finish());
        let licences = [None, Some("licensed"), Some("unlicensed")];
        let [none, licensed, unlicensed] = licences.map(|of| licensed(&["a"], "ok", of));
        assert!(none != licensed && licensed != unlicensed && none != unlicensed);
    }

    /// What agents and servers without vGPUs compute; an older program on the other side must find the same.
    #[test]
    fn without_a_licence_it_is_as_it_always_was() {
        assert_eq!(
            data_encoding::HEXLOWER.encode(&digest(&["a", "bc"], "ok")),
            "80e2eca5a95e9eac0243b5fd127b75a3329397269764e7e1053eca6596858bc3"
        );
    }
}
