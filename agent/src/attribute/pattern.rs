//! Patterns of the names of slices, units, virtual machines, and of what those who made a workload call it. Pure.
//!
//! A pattern is a name with at most one `{tenant}`, and in all others `*` for any text. Where both stand, `{tenant}` comes first and
//! takes the shortest text that fits, so that whoever chooses what `*` stands for cannot choose the tenant.

use crate::process::cgroup::unescape;

/// Placeholder of the tenant's name.
const TENANT: &str = "{tenant}";

/// Why a pattern is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// Not a unit name at all.
    #[error("{0:?} does not end with {1}")]
    Kind(String, &'static str),
    /// The tenant is neither named nor captured, or both.
    #[error("{0:?} needs either {{tenant}} in it or tenant = \"…\" beside it")]
    Tenant(String),
    /// Two placeholders cannot be told apart.
    #[error("{0:?} has more than one {{tenant}}")]
    Twice(String),
    /// `*` could swallow a part of the tenant's name.
    #[error("in {0:?} a * must come after {{tenant}}, and not directly")]
    Star(String),
    /// systemd's slices nest, so a wildcard would cross borders.
    #[error("{0:?}: a slice takes no *")]
    SliceStar(String),
    /// Names of units and VMs hold no other signs.
    #[error("{0:?} is empty or holds a sign that no such name has")]
    Sign(String),
}

/// A checked pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pattern {
    before: String,
    /// Texts after the placeholder, between the stars; `None` when there is no placeholder, then `before` is the whole.
    after: Option<Vec<String>>,
    /// Without a placeholder: the texts between the stars.
    whole: Vec<String>,
    /// Upper and lower case are the same.
    any_case: bool,
}

impl Pattern {
    /// Checks a pattern of a slice.
    pub(super) fn slice(text: &str, fixed_tenant: bool) -> Result<Self, PatternError> {
        if text.contains('*') {
            return Err(PatternError::SliceStar(text.to_owned()));
        }
        if !text.ends_with(".slice") {
            return Err(PatternError::Kind(text.to_owned(), ".slice"));
        }
        Self::new(text, fixed_tenant)
    }

    /// Checks a pattern of a service or scope.
    pub(super) fn unit(text: &str, fixed_tenant: bool) -> Result<Self, PatternError> {
        if ![".service", ".scope"]
            .iter()
            .any(|kind| text.ends_with(kind))
        {
            return Err(PatternError::Kind(text.to_owned(), ".service or .scope"));
        }
        Self::new(text, fixed_tenant)
    }

    /// Checks a pattern of a VM's UUID or id. UUIDs are written in either case, so it does not matter where the tenant is
    /// not taken from the name.
    pub(super) fn vm(text: &str, fixed_tenant: bool) -> Result<Self, PatternError> {
        if text.is_empty() || text.contains('\\') {
            return Err(PatternError::Sign(text.to_owned()));
        }
        let mut pattern = Self::new(text, fixed_tenant)?;
        if fixed_tenant {
            for literal in &mut pattern.whole {
                literal.make_ascii_lowercase();
            }
            pattern.any_case = true;
        }
        Ok(pattern)
    }

    /// Checks a pattern of a name or label that systemd does not write, so that no sign is an escape.
    pub(super) fn plain(text: &str, fixed_tenant: bool) -> Result<Self, PatternError> {
        if text.is_empty() || text.contains('\\') {
            return Err(PatternError::Sign(text.to_owned()));
        }
        Self::new(text, fixed_tenant)
    }

    fn new(text: &str, fixed_tenant: bool) -> Result<Self, PatternError> {
        let refuse = |error: fn(String) -> PatternError| Err(error(text.to_owned()));
        let literal = text.replace(TENANT, "");
        if !literal
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b":-_.\\@*".contains(&b))
        {
            return refuse(PatternError::Sign);
        }
        let stars = |text: &str| text.split('*').map(str::to_owned).collect::<Vec<_>>();
        let Some((before, after)) = text.split_once(TENANT) else {
            if !fixed_tenant {
                return refuse(PatternError::Tenant);
            }
            return Ok(Self {
                before: String::new(),
                after: None,
                whole: stars(text),
                any_case: false,
            });
        };
        if fixed_tenant {
            return refuse(PatternError::Tenant);
        }
        if after.contains(TENANT) {
            return refuse(PatternError::Twice);
        }
        if before.contains('*') || after.starts_with('*') {
            return refuse(PatternError::Star);
        }
        Ok(Self {
            before: before.to_owned(),
            after: Some(stars(after)),
            whole: Vec::new(),
            any_case: false,
        })
    }

    /// Whether a name fits, and the tenant it names: `Some(None)` where the rule names the tenant.
    pub(super) fn fit<'n>(&self, name: &'n str) -> Option<Option<&'n str>> {
        let Some(after) = &self.after else {
            let fits = if self.any_case {
                glob(&self.whole, &name.to_ascii_lowercase())
            } else {
                glob(&self.whole, name)
            };
            return fits.then_some(None);
        };
        let rest = name.strip_prefix(self.before.as_str())?;
        let inner = rest.char_indices().map(|(at, _)| at).skip(1);
        let ends = inner.chain((!rest.is_empty()).then_some(rest.len()));
        let fitting = |at: &usize| rest.get(*at..).is_some_and(|tail| glob(after, tail));
        let at = ends.into_iter().find(fitting)?;
        rest.get(..at).map(Some)
    }
}

/// Whether `text` is these literals in this order with anything between them.
fn glob(literals: &[String], text: &str) -> bool {
    let Some((first, others)) = literals.split_first() else {
        return false;
    };
    let Some(mut rest) = text.strip_prefix(first.as_str()) else {
        return false;
    };
    let Some((last, middle)) = others.split_last() else {
        return rest.is_empty();
    };
    for literal in middle {
        match rest
            .find(literal.as_str())
            .and_then(|at| rest.get(at + literal.len()..))
        {
            Some(tail) => rest = tail,
            None => return false,
        }
    }
    rest.ends_with(last.as_str())
}

/// The tenant's name in a captured text: systemd's escapes undone, and then only what a tenant may be called.
pub(super) fn tenant_name(captured: &str) -> Option<String> {
    unescape(captured).filter(|name| is_tenant_name(name))
}

/// 1 to 255 of `[A-Za-z0-9._@-]`, and neither `.` nor `..`.
#[must_use]
pub(crate) fn is_tenant_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"._@-".contains(&b);
    (1..=255).contains(&name.len()) && name.bytes().all(plain) && name != "." && name != ".."
}

/// What the server takes as the name of a model: 1 to 253 characters, none of them control, no blanks at the ends.
pub(super) fn is_model_name(name: &str) -> bool {
    (1..=253).contains(&name.chars().count())
        && !name.contains(char::is_control)
        && name.trim() == name
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn captured(pattern: &str, name: &str) -> Option<String> {
        let pattern = if pattern.ends_with(".slice") {
            Pattern::slice(pattern, false)
        } else {
            Pattern::unit(pattern, false)
        };
        pattern.unwrap().fit(name)?.map(str::to_owned)
    }

    #[test]
    fn the_placeholder_takes_the_shortest_text() {
        for (pattern, name, tenant) in [
            ("tenant-{tenant}.slice", "tenant-a.slice", Some("a")),
            ("tenant-{tenant}.slice", "tenant.slice", None),
            ("tenant-{tenant}.slice", "tenant-.slice", None),
            ("tenant-{tenant}.slice", "xtenant-a.slice", None),
            ("{tenant}-gpu.slice", "a-gpu.slice", Some("a")),
            (
                "gpu-job-{tenant}@*.service",
                "gpu-job-a@7.service",
                Some("a"),
            ),
            (
                "gpu-job-{tenant}@*.service",
                "gpu-job-a@b@7.service",
                Some("a"),
            ),
            (
                "gpu-job-{tenant}@*.service",
                "gpu-job-a@.service",
                Some("a"),
            ),
            (
                "gpu-job-{tenant}@*.service",
                "gpu-job-@a@7.service",
                Some("@a"),
            ),
            ("gpu-job-{tenant}@*.service", "gpu-job-a@7.scope", None),
            ("job-{tenant}-*-x*.scope", "job-a-b-c-xy.scope", Some("a")),
            (
                "job-{tenant}.service",
                "job-a.service.service",
                Some("a.service"),
            ),
        ] {
            assert_eq!(
                captured(pattern, name).as_deref(),
                tenant,
                "{pattern} {name}"
            );
        }
        let fixed = Pattern::unit("render-*.service", true).unwrap();
        assert_eq!(fixed.fit("render-7.service"), Some(None));
        assert_eq!(fixed.fit("render.service"), None);
        assert_eq!(
            Pattern::slice("a.slice", true).unwrap().fit("a.slice"),
            Some(None)
        );
        assert_eq!(
            Pattern::slice("a.slice", true).unwrap().fit("a-b.slice"),
            None
        );
    }

    #[test]
    fn patterns_that_would_let_somebody_else_choose_are_refused() {
        use PatternError as E;
        let slice = |text: &str| Pattern::slice(text, false).unwrap_err();
        let unit = |text: &str| Pattern::unit(text, false).unwrap_err();
        assert!(matches!(slice("tenant-*.slice"), E::SliceStar(_)));
        assert!(matches!(slice("tenant-{tenant}"), E::Kind(..)));
        assert!(matches!(slice("tenant.slice"), E::Tenant(_)));
        assert!(matches!(slice("{tenant}-{tenant}.slice"), E::Twice(_)));
        assert!(matches!(slice("a/{tenant}.slice"), E::Sign(_)));
        assert!(matches!(unit("job-*-{tenant}.service"), E::Star(_)));
        assert!(matches!(unit("job-{tenant}*.service"), E::Star(_)));
        assert!(matches!(unit("job-{tenant}.slice"), E::Kind(..)));
        assert!(matches!(
            Pattern::unit("job-{tenant}.service", true),
            Err(E::Tenant(_))
        ));
    }

    #[test]
    fn only_what_a_tenant_may_be_called_comes_out() {
        assert_eq!(tenant_name(r"my\x2dteam").as_deref(), Some("my-team"));
        for bad in [
            "",
            ".",
            "..",
            r"a\x2fb",
            r"a\x00",
            "a b",
            r"\x2e\x2e",
            "ä",
            &"a".repeat(256),
        ] {
            assert_eq!(tenant_name(bad), None, "{bad}");
        }
        assert!(tenant_name(&"a".repeat(255)).is_some());
    }

    #[test]
    fn a_model_is_called_what_the_server_takes() {
        assert!(is_model_name("nvidia.com/gpu") && is_model_name("NVIDIA L4"));
        for bad in ["", " ", "a ", "\ta", "a\nb", &"a".repeat(254)] {
            assert!(!is_model_name(bad), "{bad:?}");
        }
    }

    proptest! {
        /// What an instance is called never changes the tenant.
        #[test]
        fn the_instance_never_names_the_tenant(instance in "[ -~]{0,40}") {
            let name = format!("gpu-job-a@{instance}.service");
            let found = captured("gpu-job-{tenant}@*.service", &name);
            prop_assert_eq!(found.as_deref(), Some("a"));
        }
    }
}
