//! What the rules of attribution need of the node, and what they leave to others to choose.

use crate::attribute::{AttributionConfig, Attributor};

use super::{About, Finding, Grade};
use crate::config::Config;

/// Asks the host's databases for each user and group that a rule names, each with a deadline.
pub(super) async fn examine(config: Option<&Config>) -> Vec<Finding> {
    let Some(config) = config else {
        return Vec::new();
    };
    // A rule that is unclear is a finding of its own.
    let Ok(attributor) = Attributor::new(&config.attribution) else {
        return Vec::new();
    };
    let names = attributor.unresolved();
    let asked = move || {
        let unknown = |name: &crate::attribute::NamedId| name.look_up().is_none();
        names
            .into_iter()
            .filter(unknown)
            .map(|name| name.to_string())
    };
    let unknown: Option<Vec<String>> =
        (tokio::task::spawn_blocking(move || asked().collect()).await).ok();
    vec![names_known(unknown), ids_in_containers(&config.attribution)]
}

fn names_known(unknown: Option<Vec<String>>) -> Finding {
    let id = "names";
    let found = |grade, text| Finding::new(id, About::Precondition, grade, text);
    match unknown {
        None => found(Grade::Unknown, "they could not be asked for".to_owned()),
        Some(unknown) if unknown.is_empty() => found(
            Grade::Ok,
            "users and groups of the rules are known".to_owned(),
        ),
        Some(unknown) => found(
            Grade::Warn,
            format!(
                "this host does not know {}: what these rules may be about is nobody's",
                unknown.join(", ")
            ),
        )
        .advise("make them, bring the directory service back, or take the rules out; the agent asks again each minute"),
    }
}

fn ids_in_containers(config: &AttributionConfig) -> Finding {
    let id = "ids_in_containers";
    let rules = config.rules.iter().zip(1..);
    let numbers = rules.filter(|(rule, _)| rule.also_in_containers);
    let numbers: Vec<String> = numbers
        .map(|(_, number): (_, u32)| number.to_string())
        .collect();
    if numbers.is_empty() {
        let text = "no rule believes users and groups inside containers";
        return Finding::new(id, About::Bypass, Grade::Ok, text);
    }
    let text = format!(
        "attribution rule {} has also_in_containers: who may make containers can choose whose they are",
        numbers.join(", ")
    );
    Finding::new(id, About::Bypass, Grade::Warn, text)
        .advise("rules by pod_namespace, container_label or slice, and not by user or group, for containers")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rule_18_rules_that_leave_the_choice_to_others_are_told() {
        let config = |flag| {
            let rule = "[[rule]]\nuid = 1\ntenant = \"a\"\n";
            toml::from_str::<AttributionConfig>(&format!("{rule}{rule}{flag}")).unwrap()
        };
        assert_eq!(ids_in_containers(&config("")).grade, Grade::Ok);
        let open = ids_in_containers(&config("also_in_containers = true"));
        assert!(open.grade == Grade::Warn && open.found.contains("rule 2"));
        assert_eq!(names_known(Some(Vec::new())).grade, Grade::Ok);
        let lacks = names_known(Some(vec!["user ann".to_owned()]));
        assert!(lacks.grade == Grade::Warn && lacks.found.contains("user ann"));
    }
}
