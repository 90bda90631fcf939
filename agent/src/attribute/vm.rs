//! Virtual machines and their tenants. Pure.
//!
//! A VM is named by what the driver says of the vGPU that it holds: a UUID that the hypervisor's operator gave it, which
//! nothing inside the VM can change. A VM that no entry names belongs to nobody.

use serde::Deserialize;

use super::pattern::{Pattern, PatternError, is_tenant_name};
use crate::observation::{Owner, Reason, Source};

/// One entry `[[attribution.vm]]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VmRule {
    /// The VM's UUID or id, or a pattern of it: `{tenant}` stands for the tenant's name and `*` for anything.
    pub vm: String,
    /// Whose it is, where the pattern does not say.
    pub tenant: Option<String>,
}

/// Why an entry is refused. `number` counts the entries from 1.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VmRuleError {
    /// A bad pattern.
    #[error("attribution vm {number}: {source}")]
    Pattern {
        /// Which entry.
        number: usize,
        /// What is wrong.
        source: PatternError,
    },
    /// No tenant can be called so.
    #[error(
        "attribution vm {number}: {name:?} is no tenant name (1 to 255 of A-Z a-z 0-9 . _ @ -)"
    )]
    TenantName {
        /// Which entry.
        number: usize,
        /// The name.
        name: String,
    },
}

/// The checked entries, in their order.
#[derive(Clone, Debug, Default)]
pub struct VmRules(Vec<(Pattern, Option<String>)>);

impl VmRules {
    /// Checks the entries.
    ///
    /// # Errors
    /// When one is unclear.
    pub fn new(rules: &[VmRule]) -> Result<Self, VmRuleError> {
        let checked = rules.iter().zip(1..).map(|(rule, number)| {
            if let Some(name) = rule.tenant.as_ref().filter(|name| !is_tenant_name(name)) {
                let name = name.clone();
                return Err(VmRuleError::TenantName { number, name });
            }
            let pattern = Pattern::vm(&rule.vm, rule.tenant.is_some())
                .map_err(|source| VmRuleError::Pattern { number, source })?;
            Ok((pattern, rule.tenant.clone()))
        });
        checked.collect::<Result<_, _>>().map(Self)
    }

    /// Whose the VM is; `None` is one that the driver does not name. The first entry that fits decides.
    #[must_use]
    pub fn owner(&self, vm: Option<&str>) -> Owner {
        let Some(vm) = vm else {
            return Owner::Unattributed(Reason::VmUnknown);
        };
        // Nothing is unescaped here: no sign of a VM's name is an escape.
        let named = |(pattern, tenant): &(Pattern, Option<String>)| {
            let captured = pattern.fit(vm)?;
            Some(captured.map_or_else(|| tenant.clone(), |name| Some(name.to_owned())))
        };
        let name = self.0.iter().find_map(named).flatten();
        match name.filter(|name| is_tenant_name(name)) {
            Some(name) => Owner::Tenant {
                name,
                source: Source::Vm,
            },
            None => Owner::Unattributed(Reason::NoRule),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(vm: &str, tenant: Option<&str>) -> VmRule {
        VmRule {
            vm: vm.to_owned(),
            tenant: tenant.map(str::to_owned),
        }
    }

    const UUID: &str = "5e0d3c9a-0d9f-4d5c-8a41-1f0f7c2b9e11";

    #[test]
    fn the_first_entry_that_fits_the_whole_name_decides() {
        let rules = VmRules::new(&[
            rule("5E0D3C9A-0D9F-4D5C-8A41-1F0F7C2B9E11", Some("a")),
            rule("5e0d3c9a-*", Some("b")),
            rule("17", Some("c")),
            rule("team-{tenant}.vm-*", None),
            rule("of-{tenant}", None),
        ]);
        let rules = rules.unwrap();
        let other = UUID.replace("11", "12");
        let longer = format!("{UUID}0");
        for (vm, tenant) in [
            (UUID, Some("a")),
            (other.as_str(), Some("b")),
            (longer.as_str(), Some("b")),
            ("17", Some("c")),
            ("170", None),
            ("117", None),
            ("team-x.vm-3", Some("x")),
            ("of-y", Some("y")),
            ("of-", None),
            ("team-..vm-3", None),
            ("steam-x.vm-3", None),
            ("", None),
        ] {
            assert_eq!(rules.owner(Some(vm)).tenant(), tenant, "{vm}");
        }
        assert_eq!(rules.owner(Some("x")), Owner::Unattributed(Reason::NoRule));
        assert_eq!(rules.owner(None), Owner::Unattributed(Reason::VmUnknown));
        assert_eq!(VmRules::default().owner(Some(UUID)).tenant(), None);
    }

    #[test]
    fn what_is_unclear_is_refused_with_the_entry() {
        for (vm, tenant) in [
            ("", Some("a")),
            (UUID, None),
            (UUID, Some("../a")),
            ("{tenant}", Some("a")),
            ("*-{tenant}", None),
            ("a/b", Some("a")),
            (r"a\x2db", Some("a")),
        ] {
            let error = VmRules::new(&[rule("17", Some("a")), rule(vm, tenant)]).unwrap_err();
            assert!(error.to_string().contains("vm 2"), "{vm} {error}");
        }
    }
}
