//! One container whose answer is of no use, beside one whose answer is.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixListener;

use super::*;
use crate::process::workload::workload;

fn container(digit: &str) -> Container {
    let text = format!("0::/docker/{}\n", digit.repeat(64));
    workload(text.as_bytes()).container.unwrap()
}

/// Anybody who labels a container beyond all measure, or names it so that the answer is not understood, hides it and nothing else.
#[tokio::test]
async fn rule_08_an_answer_without_end_is_about_its_container_alone() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("docker.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let server = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = [0; 2048];
            let length = stream.read(&mut head).await.unwrap();
            let request = String::from_utf8_lossy(&head[..length]).into_owned();
            let id = request.split('/').nth(2).unwrap_or_default().to_owned();
            let label = match id.chars().next() {
                Some('a') => "x".repeat(2 << 20),
                Some('b') => "\u{1}".to_owned(),
                _ => "team-a".to_owned(),
            };
            let body =
                format!("{{\"Id\":\"{id}\",\"Config\":{{\"Labels\":{{\"t\":\"{label}\"}}}}}}");
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
            let _ = stream.write_all((head + &body).as_bytes()).await;
        }
    });
    let config = CreatorsConfig {
        docker: RuntimeTable {
            socket: Some(socket),
            trust_labels: true,
        },
        ..CreatorsConfig::default()
    };
    // A runtime that does not answer is left alone for longer than this test may take.
    let hour = Duration::from_secs(3600);
    let patience = Patience {
        request: Duration::from_secs(20),
        command: hour,
        pause: (hour, hour),
    };
    let resolver = Resolver::new(&config, &[Made::ContainerLabel("t".to_owned())], patience);
    resolver.look(boottime_ms());
    let [huge, strange, good] = ["a", "b", "c"].map(container);
    for one in [&huge, &strange, &good] {
        assert_eq!(resolver.container(one).unwrap(), Err(Reason::Pending));
    }
    resolver.settled(Duration::from_secs(20)).await;
    for one in [&huge, &strange] {
        let unreadable = Err(Reason::AnswerUnreadable);
        assert_eq!(resolver.container(one).unwrap(), unreadable);
    }
    let told = resolver.container(&good).unwrap().unwrap();
    assert_eq!(told.labels["t"], "team-a");
    server.abort();
}
