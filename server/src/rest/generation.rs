//! `If-Match`: the generation that a caller read, in the form in which `ETag` told it.

use gpuquota_core::Command;
use gpuquota_core::id::Seq;
use gpuquota_core::object::Object;
use http::HeaderMap;
use http::header::IF_MATCH;

use super::call::{Api, Call};
use super::status::{Kind, Problem};
use crate::service::Receipt;

/// What a write of one thing made of it.
pub(super) struct Written {
    pub(super) receipt: Receipt,
    /// Its generation. `None`: it is no more, or somebody has written it again and the answer is not about that.
    pub(super) generation: Option<Seq>,
}

impl Call {
    /// Refuses where `If-Match` names another generation than the thing has now.
    ///
    /// # Errors
    /// When it has changed, or is no more.
    pub(super) fn expects(&self, api: &Api, object: &Object) -> Result<(), Problem> {
        let now = api.ledger.read().state.generation(object);
        match self.expected {
            Some(expected) if now != Some(expected) => Err(Problem::new(
                Kind::Changed,
                format!(
                    "the {} has changed since it was read; read it again and decide anew",
                    object.word()
                ),
            )),
            Some(_) | None => Ok(()),
        }
    }

    /// Asks the ledger to write one thing, over the generation alone that `If-Match` names.
    pub(super) async fn write(
        &self,
        api: &Api,
        object: Object,
        command: Command,
    ) -> Result<Written, Problem> {
        let command = match self.expected {
            None => command,
            Some(expected) => Command::IfUnchanged {
                object: object.clone(),
                expected,
                command: Box::new(command),
            },
        };
        let receipt = self.submit(api, command).await?;
        let generation = api.ledger.read().state.generation(&object);
        let generation = generation.filter(|generation| *generation <= receipt.seq);
        Ok(Written {
            receipt,
            generation,
        })
    }
}

/// The generation that a write is to replace. `*` asks for none in particular.
///
/// # Errors
/// When the header names none of ours, which are numbers.
pub(super) fn expected(headers: &HeaderMap) -> Result<Option<Seq>, Problem> {
    let mut values = headers.get_all(IF_MATCH).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    let text = value.to_str().unwrap_or_default();
    let number = text.strip_prefix('"').and_then(|it| it.strip_suffix('"'));
    let plain = number.filter(|it| it.bytes().all(|b| b.is_ascii_digit()));
    match (text, plain.and_then(|it| it.parse().ok()), values.next()) {
        ("*", _, None) => Ok(None),
        (_, Some(seq), None) => Ok(Some(Seq(seq))),
        _ => Err(Problem::new(
            Kind::InvalidField,
            "If-Match must be * or the one ETag of an answer, quotes included",
        )),
    }
}
