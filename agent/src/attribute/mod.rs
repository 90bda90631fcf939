//! Whose a process is, by rules over what the kernel says. The tenant never comes from an environment, a command line or a
//! process name: whoever runs on a GPU can write those.

mod config;
mod creators;
mod names;
mod observe;
mod observer;
mod pattern;
mod rule;
mod rules;
mod users;
mod vm;

pub use config::AttributionConfig;
pub use creators::{
    Creators, CreatorsConfig, Facts, Granted, Known, KubeletTable, Patience, PodPlace,
    RuntimeTable, SlurmTable, granted,
};
pub use names::{NameKind, NamedId};
pub use observe::{Found, Names, observe};
pub use observer::Observer;
pub use pattern::PatternError;
pub(crate) use pattern::is_tenant_name;
pub use rule::{ConfigError, Rule};
pub use rules::{Attributor, Evidence, HostNames};
pub use vm::{VmRule, VmRuleError, VmRules};
