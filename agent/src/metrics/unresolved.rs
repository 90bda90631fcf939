//! Rows about users and groups of attribution rules whose ids are not known.

use std::collections::BTreeSet;

use gpuquota_proto::exposition::Families;

use crate::attribute::NamedId;

pub(super) fn add(families: &mut Families, names: &BTreeSet<NamedId>) {
    let mut rows = families.gauge(
        "gpuquota_unresolved_names",
        "1 for each user or group that an attribution rule names and this host does not know; processes that the rule may be about are nobody's.",
    );
    for name in names {
        rows.row(&[("kind", name.kind.as_str()), ("name", &name.name)], 1.0);
    }
}
