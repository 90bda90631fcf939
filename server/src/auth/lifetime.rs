//! From when until when a token counts: `nbf`, `exp` and `expireTime`, without leeway.

use gpuquota_core::id::Timestamp;
use serde_json::Value;

use super::token::TokenError;

/// The claims that speak of time, unread.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Lifetime<'a> {
    /// Seconds.
    pub(super) exp: Option<&'a Value>,
    /// Milliseconds as text (dialects D3.1).
    pub(super) expire_time: Option<&'a Value>,
    /// Seconds.
    pub(super) nbf: Option<&'a Value>,
}

impl Lifetime<'_> {
    /// The end, when the token counts at `now`.
    pub(super) fn until(self, now: Timestamp) -> Result<Timestamp, TokenError> {
        let end = self.end()?;
        if end <= now {
            return Err(TokenError::Expired);
        }
        if let Some(begin) = self.nbf {
            let begin = begin.as_i64().ok_or(TokenError::Invalid)?;
            if begin.saturating_mul(1000) > now.0 {
                return Err(TokenError::Expired);
            }
        }
        Ok(end)
    }

    // The earlier of both; at least one must be there.
    fn end(self) -> Result<Timestamp, TokenError> {
        let exp = match self.exp {
            None => None,
            Some(value) => {
                let seconds = value
                    .as_i64()
                    .filter(|s| *s >= 0)
                    .ok_or(TokenError::Expired)?;
                Some(seconds.checked_mul(1000).ok_or(TokenError::Expired)?)
            }
        };
        let expire_time = match self.expire_time {
            None => None,
            Some(Value::String(text)) if text.bytes().all(|b| b.is_ascii_digit()) => {
                Some(text.parse::<i64>().map_err(|_| TokenError::Expired)?)
            }
            Some(_) => return Err(TokenError::Expired),
        };
        let end = [exp, expire_time].into_iter().flatten().min();
        end.map(Timestamp).ok_or(TokenError::Expired)
    }
}
