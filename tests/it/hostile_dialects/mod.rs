//! Reliability cases 14 to 35 on every dialect, all on one server, whose memory stays under a stated cap.

mod bodies;
mod paths;
mod queries;
mod tokens;

use gpuquota_tests::dialect::stock;
use gpuquota_tests::server::Server;
use gpuquota_tests::skip::measured;

/// What the server may have used at most in all of this.
const MEMORY_CAP_KIB: u64 = 160 * 1024;

#[tokio::test]
async fn cases_14_to_35_on_every_dialect_change_nothing_and_stay_under_the_cap() {
    let mut server = Server::start().await;
    stock(&server).await;
    let before = server.fingerprint().await;

    tokens::case_14_no_token_and_what_is_no_token(&server).await;
    tokens::case_15_16_forged_and_ended_tokens(&server).await;
    tokens::case_17_a_foreign_thing_answers_like_nothing(&server).await;
    tokens::case_19_a_tenant_administrator_sets_nothing(&server).await;
    tokens::case_21_another_dialects_header(&server).await;
    bodies::case_24_bodies_without_bound(&server).await;
    bodies::case_24_one_byte_after_the_other(&server).await;
    bodies::case_25_what_is_not_the_json_that_is_meant(&server).await;
    bodies::case_26_numbers_that_are_none(&server).await;
    queries::case_27_pages_and_parameters(&server).await;
    paths::case_28_paths(&server).await;
    paths::case_30_a_forged_host(&server).await;
    paths::case_31_line_breaks(&server).await;
    queries::case_32_methods(&server).await;
    queries::case_35_sql_and_regular_expressions(&server).await;
    tokens::case_23_a_flood_of_wrong_tokens(&server).await;
    assert_eq!(server.fingerprint().await, before);

    bodies::case_20_fields_that_the_server_keeps(&server).await;
    tokens::case_22_a_revoked_token(&server).await;
    assert!(server.process().lives());
    let peak = server.process().memory_kib("VmHWM");
    measured(
        "hostile requests to every dialect",
        format!("peak of {peak} KiB"),
    );
    assert!(peak < MEMORY_CAP_KIB, "{peak} KiB");
}
