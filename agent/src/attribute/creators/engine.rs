//! Docker Engine's API, which Podman speaks as well: `GET /containers/ID/json`.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;

use http_body_util::{BodyExt as _, Empty, LengthLimitError, Limited};
use hyper::body::Bytes;
use hyper::header::HOST;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::{Map, Value};
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use super::cache::{Facts, Key};
use super::{Creator, Patience, labels_wanted, socket};
use crate::observation::Reason;

/// Longest answer that is read, bytes; that of a container is some 10 KiB.
const ANSWER_LIMIT: usize = 1 << 20;

#[derive(Debug)]
pub(super) struct Engine {
    socket: PathBuf,
    labels: Arc<BTreeSet<String>>,
    patience: Patience,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Inspected {
    id: String,
    #[serde(default)]
    name: String,
    config: Option<Map<String, Value>>,
}

impl Engine {
    pub(super) fn new(socket: PathBuf, labels: Arc<BTreeSet<String>>, patience: Patience) -> Self {
        Self {
            socket,
            labels,
            patience,
        }
    }

    async fn get(&self, id: &str) -> Result<(StatusCode, Bytes), Box<dyn Error + Send + Sync>> {
        let stream = socket::connect(&self.socket).await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let _connection = AbortOnDropHandle::new(tokio::spawn(connection));
        let request = Request::get(format!("/containers/{id}/json"))
            .header(HOST, "localhost")
            .body(Empty::<Bytes>::new())?;
        let answer = sender.send_request(request).await?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), ANSWER_LIMIT);
        Ok((status, body.collect().await?.to_bytes()))
    }
}

impl Creator for Engine {
    const NAME: &'static str = "container engine";

    async fn tell(&mut self, key: &Key) -> Result<Facts, Reason> {
        let Key::Container(container) = key else {
            return Err(Reason::ContainerUnknown);
        };
        let id = container.id.as_str();
        let answer = timeout(self.patience.request, self.get(id)).await;
        match answer {
            Ok(Ok((StatusCode::OK, body))) => facts(&body, id, &self.labels),
            Ok(Ok((StatusCode::NOT_FOUND, _))) => Err(Reason::ContainerUnknown),
            Ok(Ok((status, _))) => {
                tracing::debug!(%status, "the container engine refuses");
                Err(Reason::RuntimeUnreachable)
            }
            // Whoever makes a container can give it any labels; that is no fault of the engine, nor of the others.
            Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Reason::AnswerUnreadable),
            Ok(Err(error)) => {
                tracing::debug!(%error, "the container engine does not answer");
                Err(Reason::RuntimeUnreachable)
            }
            Err(_) => Err(Reason::RuntimeUnreachable),
        }
    }
}

pub(super) fn facts(body: &[u8], id: &str, wanted: &BTreeSet<String>) -> Result<Facts, Reason> {
    let unreadable = Reason::AnswerUnreadable;
    // A list would do for serde as well.
    if !body.trim_ascii_start().starts_with(b"{") {
        return Err(unreadable);
    }
    let found: Inspected = serde_json::from_slice(body).map_err(|_| unreadable)?;
    if found.id != id {
        return Err(Reason::ContainerUnknown);
    }
    let labels = found.config.and_then(|mut config| config.remove("Labels"));
    let labels: Option<BTreeMap<String, String>> =
        serde_json::from_value(labels.unwrap_or_default()).map_err(|_| unreadable)?;
    Ok(Facts {
        // The API writes a slash before it.
        name: Some(found.name.trim_start_matches('/').to_owned()),
        labels: labels_wanted(labels.unwrap_or_default(), wanted),
        ..Facts::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "3f4e5d6c7b8a99887766554433221100ffeeddccbbaa00112233445566778899";

    #[test]
    fn an_answer_about_another_container_is_none() {
        let none = BTreeSet::new();
        let body = format!(r#"{{"Id":"{ID}","Name":"/x","Config":{{"Labels":null}}}}"#);
        assert_eq!(
            facts(body.as_bytes(), ID, &none).unwrap().name.as_deref(),
            Some("x")
        );
        let list = format!(r#"["{ID}","/x",{{"Labels":null}}]"#);
        let answers = [list, body.replace(r#"{"Labels":null}"#, "[{}]")];
        for answer in answers {
            let found = facts(answer.as_bytes(), ID, &none);
            assert_eq!(found, Err(Reason::AnswerUnreadable), "{answer}");
        }
        let other = ID.replace('3', "4");
        assert_eq!(
            facts(body.as_bytes(), &other, &none),
            Err(Reason::ContainerUnknown)
        );
    }
}
