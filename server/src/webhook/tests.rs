//! A real listener that refuses at first.

use std::sync::Mutex;

use axum::Router;
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};

use super::*;

type Came = Arc<Mutex<Vec<(Option<String>, Value)>>>;

// Answers these, then 204.
async fn listener(answers: Vec<u16>) -> (String, Came) {
    let came = Came::default();
    let book = Arc::clone(&came);
    let answers = Arc::new(Mutex::new(answers.into_iter()));
    let hear = async move |headers: HeaderMap, body: String| {
        let bearer = headers
            .get(AUTHORIZATION)
            .map(|it| it.to_str().unwrap().to_owned());
        let body = serde_json::from_str(&body).unwrap();
        book.lock().unwrap().push((bearer, body));
        let status = answers.lock().unwrap().next().unwrap_or(204);
        StatusCode::from_u16(status).unwrap()
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook?of=gpu", listener.local_addr().unwrap());
    let router = Router::new().fallback(hear);
    tokio::spawn(async move { axum::serve(listener, router).await });
    (url, came)
}

fn held(tenant: &str) -> Notice {
    Notice::StepsHeld {
        node: "n".into(),
        tenant: Some(tenant.into()),
        processes: 9,
        devices: 1,
        of: 1,
        at: "2026-11-23T00:00:00Z".into(),
    }
}

async fn until(figure: &AtomicU64, value: u64) {
    let wait = async {
        while figure.load(Ordering::Relaxed) != value {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), wait)
        .await
        .unwrap();
}

#[tokio::test]
async fn events_come_in_order_with_the_token_and_again_after_a_refusal() {
    let (url, came) = listener(vec![500]).await;
    let dir = tempfile::tempdir().unwrap();
    let token = dir.path().join("token");
    std::fs::write(&token, "secret-of-the-hook\n").unwrap();
    let config = Webhook {
        url,
        token_file: Some(token),
        ca_file: None,
    };
    let (notices, teller) = webhook(&config).unwrap();
    assert!(notices.wanted() && !Notices::default().wanted());
    notices.put(held("a"));
    notices.put(held("b"));
    let stop = CancellationToken::new();
    let task = tokio::spawn(teller.run(stop.clone()));
    until(&notices.figures.told, 2).await;
    notices.put(held("c"));
    until(&notices.figures.told, 3).await;
    let came = std::mem::take(&mut *came.lock().unwrap());
    let events = |at: usize| came[at].1["events"].as_array().unwrap().clone();
    let tenants = |at| {
        events(at)
            .iter()
            .map(|it| it["tenant"].clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(came.len(), 3);
    assert_eq!(
        (tenants(0), tenants(1), tenants(2)),
        (vec![json!("a"), json!("b")], tenants(0), vec![json!("c")])
    );
    assert_eq!(events(0)[0]["event"], "steps_held");
    let bearer = Some("Bearer secret-of-the-hook".to_owned());
    assert!(came.iter().all(|(with, _)| *with == bearer));
    stop.cancel();
    task.await.unwrap();
    assert_eq!(notices.figures.lost.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn what_has_no_room_is_counted_and_holds_nobody_up() {
    let config = Webhook {
        url: "http://127.0.0.1:1/".into(),
        token_file: None,
        ca_file: None,
    };
    let (notices, _teller) = webhook(&config).unwrap();
    for _ in 0..WAITING + 3 {
        notices.put(held("a"));
    }
    assert_eq!(notices.figures.lost.load(Ordering::Relaxed), 3);
}
