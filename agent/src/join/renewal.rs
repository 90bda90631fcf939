//! The next certificate, asked for at half the life of this one, with a new key. The session goes over to it by itself,
//! because its files have changed; while the server is away this tries again, and the agent goes on as it is.

use std::time::Duration;

use gpuquota_proto::pinned::Pin;
use rand::Rng as _;
use rcgen::KeyPair;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::trust::{Wanted, signer};
use super::{Given, JoinError, call, holds, pair, put, request};
use crate::clock::unix_s;
use crate::config::ConfigError;
use crate::uplink::dial::{Credentials, DialError, Server, own_identity};

/// The files are looked at this often: somebody else may renew them, too.
const LOOK: Duration = Duration::from_secs(60);
/// Where in a certificate's life the next one is asked for, in thousandths: nodes that joined together do not ask together.
const SHARE: std::ops::RangeInclusive<i64> = 450..=550;
/// Longest and shortest wait after a failure, milliseconds, and the one after the certificate's end: the server will
/// refuse, unless this node's clock is wrong.
const WAIT_BOUNDS_MS: (i64, i64) = (250, 600_000);
const WAIT_ENDED_MS: i64 = 60_000;

/// Validity of a certificate, milliseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    from_ms: i64,
    to_ms: i64,
}

impl Span {
    fn due_ms(self, share: i64) -> i64 {
        let life = self.to_ms.saturating_sub(self.from_ms).max(0);
        self.from_ms.saturating_add(life / 1000 * share)
    }

    // An eighth of what is left, so that there are several tries whatever the life.
    fn wait_ms(self, now_ms: i64) -> i64 {
        match self.to_ms.saturating_sub(now_ms) {
            ..=0 => WAIT_ENDED_MS,
            left => (left / 8).clamp(WAIT_BOUNDS_MS.0, WAIT_BOUNDS_MS.1),
        }
    }
}

/// Keeps the node's certificate young.
#[derive(Debug)]
pub struct Renewal {
    /// Who signs.
    pub server: Server,
    /// Whose files are replaced.
    pub credentials: Credentials,
    /// Whose certificate the server wants the node to have.
    pub wanted: watch::Receiver<Option<Wanted>>,
}

impl Renewal {
    /// Renews until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut share = rand::rng().random_range(SHARE);
        let mut not_before_ms = i64::MIN;
        let mut last_reason: Option<String> = None;
        let mut asked: Option<(Pin, i64)> = None;
        loop {
            let now_ms = now_ms();
            let wanted = *self.wanted.borrow_and_update();
            asked = self.asked(wanted, asked, now_ms);
            let span = self.span();
            let due_ms = span.map_or(i64::MAX, |span| span.due_ms(share).max(not_before_ms));
            let due_ms = asked.map_or(due_ms, |(_, at)| due_ms.min(at));
            if due_ms > now_ms {
                let wait = u64::try_from(due_ms.saturating_sub(now_ms)).unwrap_or(u64::MAX);
                tokio::select! {
                    () = tokio::time::sleep(Duration::from_millis(wait).min(LOOK)) => continue,
                    Ok(()) = self.wanted.changed() => continue,
                    () = stop.cancelled() => return,
                }
            }
            let renewed = tokio::select! {
                renewed = self.renew() => renewed,
                () = stop.cancelled() => return,
            };
            match renewed {
                Ok(()) => {
                    tracing::info!("the node has a new certificate");
                    last_reason = None;
                    share = rand::rng().random_range(SHARE);
                    // One that is old when it is made, by a clock that is wrong, is not renewed without end.
                    not_before_ms = now_ms.saturating_add(self.wait_ms(now_ms));
                    asked = asked.map(|(signer, _)| (signer, not_before_ms));
                }
                Err(error) => {
                    let reason = error.to_string();
                    if last_reason.as_ref() != Some(&reason) {
                        tracing::warn!(reason, "the certificate is not renewed yet");
                    }
                    last_reason = Some(reason);
                    let bound = self.wait_ms(now_ms);
                    let wait = rand::rng().random_range(bound / 2..=bound);
                    not_before_ms = now_ms.saturating_add(wait);
                    asked = asked.map(|(signer, _)| (signer, not_before_ms));
                }
            }
        }
    }

    // When to ask for a certificate of another signer: a moment of this node's own, once for each signer.
    fn asked(
        &self,
        wanted: Option<Wanted>,
        before: Option<(Pin, i64)>,
        now_ms: i64,
    ) -> Option<(Pin, i64)> {
        let wanted = wanted?;
        if signer(&self.credentials.files) == Some(wanted.signer) {
            return None;
        }
        let before = before.filter(|(signer, _)| *signer == wanted.signer);
        before.or_else(|| {
            let within = i64::try_from(wanted.within.as_millis()).unwrap_or(i64::MAX);
            let wait = rand::rng().random_range(0..=within);
            Some((wanted.signer, now_ms.saturating_add(wait)))
        })
    }

    fn wait_ms(&self, now_ms: i64) -> i64 {
        self.span()
            .map_or(WAIT_ENDED_MS, |span| span.wait_ms(now_ms))
    }

    fn span(&self) -> Option<Span> {
        let own = own_identity(&self.credentials.files, &self.credentials.forms.node).ok()?;
        Some(Span {
            from_ms: own.not_before_unix_s.saturating_mul(1000),
            to_ms: own.not_after_unix_s.saturating_mul(1000),
        })
    }

    async fn renew(&self) -> Result<(), JoinError> {
        let (files, key) = (&self.credentials.files, KeyPair::generate()?);
        let answer = call::renew(&self.server, &self.credentials, request(&key)?).await?;
        let given = Given::check(&answer, &key, None)?;
        if given.node != self.credentials.node {
            let (expected, found) = (self.credentials.node.clone(), given.node);
            return Err(ConfigError::from(DialError::OtherNode { expected, found }).into());
        }
        // The authorities first: what the certificate goes with is there before it.
        if !holds(&files.ca, &given.trust) {
            put(&files.ca, given.trust.as_bytes())?;
        }
        pair::replace(files, &key, &given.chain).map_err(|source| JoinError::File {
            path: files.certificate.clone(),
            source,
        })
    }
}

fn now_ms() -> i64 {
    unix_s().saturating_mul(1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_asked_for_at_half_the_life_and_again_several_times_before_the_end() {
        for life_s in [10, 3600, 7 * 86_400, 825 * 86_400] {
            let span = Span {
                from_ms: 0,
                to_ms: life_s * 1000,
            };
            let mut at = span.due_ms(500);
            assert!((at - span.to_ms / 2).abs() <= 500, "{life_s}");
            assert!(span.due_ms(*SHARE.start()) < at && at < span.due_ms(*SHARE.end()));
            let mut tries = 0;
            while at < span.to_ms && tries < 1000 {
                assert!(span.wait_ms(at) <= 600_000);
                at += span.wait_ms(at);
                tries += 1;
            }
            assert!(tries >= 8, "{tries} in {life_s} s");
            assert_eq!(span.wait_ms(span.to_ms), WAIT_ENDED_MS);
        }
    }
}
