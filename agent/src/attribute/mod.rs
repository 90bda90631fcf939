//! Whose a process is, by rules over what the kernel says. The tenant never comes from an environment, a command line or a
//! process name: whoever runs on a GPU can write those.

mod config;
mod observe;
mod pattern;
mod rules;
mod users;
mod vm;

pub use config::{AttributionConfig, ConfigError, Rule};
pub use observe::{Found, Names, Observer, observe};
pub use pattern::PatternError;
pub(crate) use pattern::is_tenant_name;
pub use rules::{Attributor, Evidence};
pub use vm::{VmRule, VmRuleError, VmRules};
