//! How the API describes what is chosen of enforcement.

use gpuquota_core::enforcement::MOST_WINDOWS;
use serde_json::json;
use utoipa::openapi::schema::{
    AdditionalProperties, ArrayBuilder, ObjectBuilder, OneOfBuilder, Type,
};

const MODES: [&str; 4] = ["observe", "warn", "restrict", "evict"];
const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
const LONGEST_S: i64 = 365 * 24 * 60 * 60;

fn words(words: &[&str]) -> ObjectBuilder {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .enum_values(Some(words.to_vec()))
}

fn whole(least: i64, most: i64, description: &str) -> ObjectBuilder {
    ObjectBuilder::new()
        .schema_type(Type::Integer)
        .minimum(Some(least))
        .maximum(Some(most))
        .description(Some(description))
}

fn object() -> ObjectBuilder {
    ObjectBuilder::new()
        .schema_type(Type::Object)
        .additional_properties(Some(AdditionalProperties::FreeForm(false)))
}

// On days of each week, or once.
fn window() -> OneOfBuilder {
    let days = ArrayBuilder::new()
        .items(words(&DAYS))
        .min_items(Some(1))
        .max_items(Some(DAYS.len()));
    let start = ObjectBuilder::new()
        .schema_type(Type::String)
        .pattern(Some("^(?:[01][0-9]|2[0-3]):[0-5][0-9]$"))
        .description(Some("When it begins, UTC."));
    let weekly = object()
        .property("days", days)
        .required("days")
        .property("start", start)
        .required("start")
        .property("minutes", whole(1, 10_080, "How long it is."))
        .required("minutes");
    let time = |example: &str| {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .pattern(Some("^20[0-9]{2}-(?:0[1-9]|1[0-2])-(?:0[1-9]|1[0-9]|2[0-8])T(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]Z$"))
            .examples([json!(example)])
    };
    let once = object()
        .property("from", time("2026-12-01T20:00:00Z"))
        .required("from")
        .property("until", time("2026-12-01T22:00:00Z"))
        .required("until");
    OneOfBuilder::new().item(weekly).item(once)
}

/// What one place says.
pub(super) fn one() -> ObjectBuilder {
    let windows = ArrayBuilder::new()
        .items(window())
        .max_items(Some(MOST_WINDOWS))
        .description(Some("Times in which nothing above warn happens."));
    object()
        .property("mode", words(&MODES).description(Some("How far.")))
        .required("mode")
        .property(
            "grace_seconds",
            whole(0, LONGEST_S, "To the first step above warn; 60."),
        )
        .property(
            "term_grace_seconds",
            whole(0, LONGEST_S, "From SIGTERM to SIGKILL; 30."),
        )
        .property("windows", windows)
}

/// What one place says, or that it says nothing.
pub(super) fn one_or_null() -> OneOfBuilder {
    let null = ObjectBuilder::new().schema_type(Type::Null);
    OneOfBuilder::new().item(one()).item(null)
}

/// What is said for the whole ledger.
pub(super) fn all() -> ObjectBuilder {
    let guard = object()
        .property(
            "processes",
            whole(
                0,
                i64::from(u32::MAX),
                "Processes of a tenant that are ended in one minute over all nodes; 8.",
            ),
        )
        .required("processes")
        .property(
            "percent",
            whole(
                1,
                100,
                "So much of a tenant's devices is acted upon in that minute; 50.",
            ),
        )
        .required("percent")
        .description(Some("What is beyond waits for a person."));
    object()
        .property(
            "enforcement",
            one().description(Some("How far where neither quota, tenant nor region says.")),
        )
        .property(
            "unattributed",
            words(&MODES).description(Some("About processes of nobody; observe.")),
        )
        .property(
            "policy_valid_seconds",
            whole(
                1,
                LONGEST_S,
                "How long an agent that is cut off acts by the last policy; 600.",
            ),
        )
        .property("guard", guard)
}
