//! Bodies that are none: refused with 400, nothing changed, the server alive and small (cases 20, 25, 31, 35).

use gpuquota_tests::quota::{GPU, purchase, quota, with};
use gpuquota_tests::rest::Rest;
use gpuquota_tests::server::Server;
use serde_json::json;

fn nested(depth: usize) -> String {
    let deep = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    format!(r#"{{"region":"TW","quota_source":"purchase","gpu_model":"g","num":1,"x":{deep}}}"#)
}

async fn put(admin: &Rest, body: impl Into<reqwest::Body>) -> gpuquota_tests::rest::Answer {
    let json = [("content-type", "application/json")];
    admin.send("PUT", "/api/v1/quotas/a", &json, body).await
}

#[tokio::test]
async fn case_25_what_is_not_the_json_that_is_meant_is_400() {
    let mut server = Server::start().await;
    let admin = server.admin();
    put(&admin, nested(31)).await.expect_done();
    let before = server.fingerprint().await;
    let good = purchase("TW", 1).to_string();
    let open = &good[..good.len() - 1];
    let many_keys: String = (0..6300).map(|n| format!(",\"k{n}\":0")).collect();
    assert!((60_000..65_536 - good.len()).contains(&many_keys.len()));
    let texts: Vec<Vec<u8>> = vec![
        nested(32).into(),
        "[".repeat(60_000).into(),
        "{\"a\":".repeat(12_000).into(),
        format!(r#"{open},"num":1}}"#).into(),
        format!(r#"{open},"x":{{"y":1,"y":1}}}}"#).into(),
        format!(r#"{open},"region":"US"}}"#).into(),
        format!(r#"{open},"reg\u0069on":"US"}}"#).into(),
        format!(r#"{open},"x":"\ud800"}}"#).into(),
        format!("\u{feff}{good}").into(),
        [open.as_bytes(), b",\"x\":\"\xff\"}"].concat(),
        format!(r#"{open},"x":NaN}}"#).into(),
        format!(r#"{open},"x":Infinity}}"#).into(),
        format!(r#"{open},"x":1e400}}"#).into(),
        format!(r#"{open},"x":01}}"#).into(),
        format!("{open},}}").into(),
        format!("{good} {good}").into(),
        format!("{good}\0").into(),
        format!("// {good}").into(),
        open.into(),
        "[]".into(),
        "null".into(),
        "\"text\"".into(),
        "region=TW&num=1".into(),
        b"\xff\xfe{\0}\0".to_vec(),
    ];
    for text in texts {
        let answer = put(&admin, text.clone()).await;
        assert_eq!(
            answer.status,
            400,
            "{} {answer:?}",
            String::from_utf8_lossy(&text[..text.len().min(200)])
        );
        answer.expect_code(400, 1);
        assert!(answer.text.len() < 1000, "{answer:?}");
    }
    put(&admin, "").await.expect_code(400, 2);
    assert_eq!(server.fingerprint().await, before);
    // Many keys are merely many unknown fields (D0.9), within the bound of the body.
    put(&admin, format!("{open}{many_keys}}}"))
        .await
        .expect_done();
    put(&admin, format!("{good}{}", " ".repeat(65_537 - good.len())))
        .await
        .expect_code(413, 1);
    put(&admin, format!("{good}{}", " ".repeat(65_536 - good.len())))
        .await
        .expect_done();
    assert!(server.process().lives());
    assert!(server.process().memory_kib("VmHWM") < 160 * 1024);
}

#[tokio::test]
async fn case_31_line_breaks_and_markup_in_values_stay_values() {
    let mut server = Server::start().await;
    let admin = server.admin();
    let before = server.fingerprint().await;
    for region in [
        "T\r\nW",
        "T\nX-Evil: 1",
        "\u{0}",
        " TW",
        "TW\u{7f}",
        "T\u{85}W",
    ] {
        admin
            .put("a", purchase(region, 1))
            .await
            .expect_code(400, 3);
        admin
            .put("a", quota("TW", "assign", region, 1))
            .await
            .expect_code(400, 3);
    }
    assert_eq!(server.fingerprint().await, before);
    // Free text that is no line break is kept as it is, also in the metrics.
    let odd = r#"<b>"a\b",{x="1"} 1 # '; DROP TABLE journal; --"#;
    admin
        .put("a", quota(odd, "assign", odd, 1))
        .await
        .expect_done();
    let quotas = admin.quotas().await;
    assert_eq!(quotas.0[0].details[0]["region"], odd);
    assert_eq!(quotas.0[0].model, odd);
    let scrape = server.scrape().await;
    let escaped = odd.replace('\\', "\\\\").replace('"', "\\\"");
    assert!(
        scrape.text.contains(&format!("region=\"{escaped}\"")),
        "{}",
        scrape.text
    );
    for line in server.process().log() {
        assert!(
            !line.starts_with("X-Evil") && !line.starts_with('W'),
            "{line}"
        );
    }
}

#[tokio::test]
async fn case_20_fields_that_the_server_keeps_cannot_be_written() {
    let server = Server::start().await;
    let admin = server.admin();
    let mut body = purchase("TW", 3);
    for (field, value) in [
        ("used_count", json!(2)),
        ("total_count", json!(9)),
        ("count", json!(9)),
        ("tenant_name", json!("b")),
        ("created_at", json!("2020-01-01")),
        ("is_active", json!(false)),
        ("limit", json!(-1)),
        ("quota_id", json!(1)),
    ] {
        body = with(body, field, value);
    }
    admin.put("a", body).await.expect_done();
    let quotas = admin.quotas().await;
    let row = quotas.row("a", "flexible", GPU).unwrap();
    assert_eq!((row.used, row.total, quotas.0.len()), (0, 3, 1));
}
