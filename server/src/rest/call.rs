//! One authenticated request as a handler sees it, and what a handler answers.

use std::fmt;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::body::Bytes;
use data_encoding::HEXLOWER;
use gpuquota_core::id::{OpId, Seq, Timestamp};
use gpuquota_core::{Command, Outcome};
use http::Method;
use sha2::{Digest as _, Sha256};

use super::json::invalid;
use super::kept::Kept;
use super::plan::PlanBody;
use super::query::Query;
use super::reached::Reached;
use super::reply::Reply;
use super::status::{Kind, Problem};
use super::time;
use crate::auth::{Authenticator, Limiter, Principal};
use crate::clock::Clock;
use crate::config::Dialects;
use crate::service::history::{HistoryError, Moment};
use crate::service::liveness::Liveness;
use crate::service::{Committed, Ledger, LedgerError, Origin, Receipt};

/// What handlers work with.
pub struct Api {
    /// The ledger.
    pub ledger: Ledger,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Who was heard when.
    pub liveness: Arc<Liveness>,
    /// Says whose a token or a signature is.
    pub tokens: Arc<Authenticator>,
    /// What the documents leave to the operator.
    pub dialects: Dialects,
    /// Bounds wrong tokens.
    pub limiter: Arc<Limiter>,
    /// Figures that are kept between reads.
    pub kept: Kept,
}

/// One request that may be served.
pub(super) struct Call {
    pub(super) principal: Principal,
    pub(super) request_id: String,
    /// Address that the request came from.
    pub(super) from: Option<IpAddr>,
    /// Why, in the caller's words.
    pub(super) reason: Option<String>,
    pub(super) method: Method,
    /// The route's path pattern.
    pub(super) pattern: &'static str,
    /// The request's path and query as sent.
    pub(super) target: String,
    /// The values in the path by their names in the pattern, percent-decoded once.
    pub(super) segments: Vec<(String, String)>,
    pub(super) query: Query,
    /// Where the caller reached the server.
    pub(super) reached: Reached,
    pub(super) body: Bytes,
    pub(super) idempotency_key: Option<String>,
    /// What kinds of answer the caller takes, as it says.
    pub(super) accept: Option<String>,
    /// The generation that `If-Match` names.
    pub(super) expected: Option<Seq>,
    /// Row at which the call's last write can be read, 0 before one.
    pub(super) written: AtomicU64,
}

/// What every handler returns.
pub(super) type Answer<'a> = Pin<Box<dyn Future<Output = Result<Reply, Problem>> + Send + 'a>>;
/// A handler.
pub(super) type Handler = for<'a> fn(&'a Api, &'a Call) -> Answer<'a>;

impl Call {
    /// The value in the path under this name of the pattern.
    pub(super) fn segment(&self, name: &str) -> &str {
        let mut segments = self.segments.iter();
        let found = segments.find(|(known, _)| known == name);
        found.map_or("", |(_, value)| value)
    }

    /// The value in the path under this name, validated by its own rule.
    ///
    /// # Errors
    /// When it breaks the rule.
    pub(super) fn named<T, E: fmt::Display>(
        &self,
        name: &str,
        new: fn(&str) -> Result<T, E>,
    ) -> Result<T, Problem> {
        new(self.segment(name)).map_err(|e| Problem::new(Kind::InvalidPath, e.to_string()))
    }

    /// Asks the ledger in the caller's name.
    pub(super) async fn submit(&self, api: &Api, command: Command) -> Result<Receipt, Problem> {
        let op = self.op()?;
        let fingerprint = op.is_some().then(|| self.fingerprint());
        let origin = Origin {
            actor: self.principal.actor(),
            request_id: Some(self.request_id.clone()),
            from: self.from.map(|address| address.to_string()),
            reason: self.reason.clone(),
            op,
            fingerprint,
        };
        let asked = command.subject();
        let answer = api.ledger.submit(command, origin).await;
        let receipt = answer.map_err(|error| {
            let about = asked.tenant_in(&api.ledger.read().state);
            Problem::of_ledger(error, &self.principal).about(about)
        })?;
        self.written.store(receipt.seq.0, Ordering::Relaxed);
        Ok(receipt)
    }

    /// The ledger as the caller asks for it: now, or with `as_of` as it stood after a row or at a time of the past.
    ///
    /// # Errors
    /// When `as_of` is neither, has not happened, or cannot be told.
    pub(super) async fn read(&self, api: &Api) -> Result<Arc<Committed>, Problem> {
        let now = api.ledger.read();
        let Some(text) = self.query.single("as_of")? else {
            return Ok(now);
        };
        let plain = text == "0" || !text.starts_with(['+', '0']);
        let seq = text.parse().ok().filter(|_| plain);
        let time = || time::parse(text).map(Moment::Time);
        let moment = seq.map(|seq| Moment::Seq(Seq(seq))).or_else(time);
        let rule = "must be the number of a journal row or an RFC 3339 time";
        let moment = moment.ok_or_else(|| invalid("as_of", rule))?;
        let newest = now.state.at().max(api.clock.wall());
        if matches!(moment, Moment::Time(time) if time > newest) {
            return Err(invalid("as_of", "has not come yet"));
        }
        let past = api.ledger.history().at(moment, &now).await;
        past.map_err(|error| match error {
            HistoryError::Future { .. } | HistoryError::Archived { .. } => {
                invalid("as_of", error.to_string())
            }
            HistoryError::Busy => Problem::new(Kind::Overloaded, error.to_string()),
            HistoryError::Fold(error) => {
                tracing::error!(error = %error, "the past cannot be folded");
                Problem::new(Kind::Unavailable, "the journal cannot be read; see the log")
            }
        })
    }

    /// Refuses `as_of` where it would change nothing.
    ///
    /// # Errors
    /// When it is there; `instead` says what tells of the past here.
    pub(super) fn has_no_past(&self, instead: &str) -> Result<(), Problem> {
        match self.query.single("as_of")? {
            None => Ok(()),
            Some(_) => Err(invalid("as_of", format!("is not taken here; {instead}"))),
        }
    }

    /// The moment of `as_of`, where it is a time.
    ///
    /// # Errors
    /// When it stands there twice.
    pub(super) fn past_time(&self) -> Result<Option<Timestamp>, Problem> {
        Ok(self.query.single("as_of")?.and_then(time::parse))
    }

    /// What the ledger would answer now; nothing is written.
    pub(super) fn preview(&self, api: &Api, command: &Command) -> Result<Outcome, Problem> {
        let now = api.clock.now();
        let now = now.map_err(|jump| LedgerError::Unavailable(jump.to_string()));
        let answer = now.and_then(|now| api.ledger.preview(command, now));
        answer.map_err(|error| {
            let about = command.subject().tenant_in(&api.ledger.read().state);
            Problem::of_ledger(error, &self.principal).about(about)
        })
    }

    /// Whom a change to a quota would hit; nothing is written.
    ///
    /// # Errors
    /// When it would be refused for anything else than what is in use, or the clock cannot be trusted.
    pub(super) fn plan(&self, api: &Api, command: &Command) -> Result<PlanBody, Problem> {
        let now = api.clock.now();
        let now = now.map_err(|jump| LedgerError::Unavailable(jump.to_string()));
        let state = &api.ledger.read().state;
        let preview = now.and_then(|now| Ok(state.preview(command, now)?));
        let preview = preview.map_err(|error| {
            let about = command.subject().tenant_in(state);
            Problem::of_ledger(error, &self.principal).about(about)
        })?;
        Ok(PlanBody::of(&preview, self.principal.role))
    }

    /// What the ledger answered to this very request under the caller's key, which it then repeats.
    ///
    /// # Errors
    /// When the key is none.
    pub(super) fn kept_answer(&self, api: &Api) -> Result<Option<gpuquota_core::Answer>, Problem> {
        let Some(op) = self.op()? else {
            return Ok(None);
        };
        let committed = api.ledger.read();
        let kept = committed.state.operation(&op, api.clock.wall());
        let kept = kept.filter(|kept| kept.fingerprint == self.fingerprint());
        Ok(kept.map(|kept| kept.answer.clone()))
    }

    // A key is the caller's own, and one for each kind of write.
    fn op(&self) -> Result<Option<OpId>, Problem> {
        let Some(key) = &self.idempotency_key else {
            return Ok(None);
        };
        let op = format!(
            "rest/{}/{} {}/{key}",
            self.principal.caller(),
            self.method,
            self.pattern
        );
        OpId::new(&op).map(Some).map_err(|_| key_problem())
    }

    // The same request is the same method, target, body and expectation.
    fn fingerprint(&self) -> String {
        let mut digest = Sha256::new();
        if let Some(expected) = self.expected {
            digest.update(expected.0.to_le_bytes());
        }
        for part in [
            self.method.as_str().as_bytes(),
            self.target.as_bytes(),
            &self.body,
        ] {
            digest.update((part.len() as u64).to_le_bytes());
            digest.update(part);
        }
        HEXLOWER.encode(&digest.finalize())
    }
}

pub(super) fn key_problem() -> Problem {
    Problem::new(
        Kind::InvalidField,
        "Idempotency-Key must be 1 to 255 printable characters",
    )
}
