//! Which header of a request carries its credential: each dialect reads its own and no other (dialects D0.8, D2.2).

use http::HeaderMap;
use http::header::AUTHORIZATION;

use super::routes::Dialect;
use super::status::{Kind, Problem};
use crate::auth::SIGNATURE_SCHEME;

/// Where a dialect's callers put their token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Carrier {
    /// `Authorization: Bearer TOKEN`.
    Bearer,
    /// `X-Auth-Token: TOKEN`; without it a signature in `Authorization`.
    XAuthToken,
    /// `token: TOKEN`.
    Token,
}

/// What the caller shows. Never logged.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Credential<'a> {
    /// A token.
    Token(&'a str),
    /// A signature over the whole request, body included.
    Signature,
}

impl Dialect {
    /// Where callers of this dialect put their token.
    pub(super) fn carrier(self) -> Carrier {
        match self {
            Self::GpuQuota | Self::Licence | Self::Native => Carrier::Bearer,
            Self::Workspace | Self::QuotaSet => Carrier::XAuthToken,
            Self::Instance => Carrier::Token,
        }
    }
}

impl Carrier {
    /// What a 401 says in `WWW-Authenticate`, where the header is HTTP's own.
    pub(super) fn challenge(self) -> Option<&'static str> {
        match self {
            Self::Bearer => Some("Bearer"),
            Self::XAuthToken | Self::Token => None,
        }
    }

    fn missing(self) -> Problem {
        let rule = match self {
            Self::Bearer => "send a token as `Authorization: Bearer TOKEN`",
            Self::XAuthToken => {
                "send a token as `X-Auth-Token: TOKEN`, or sign the request with an access key"
            }
            Self::Token => "send a token as `token: TOKEN`",
        };
        Problem::new(Kind::NoCredential, rule)
    }
}

/// The credential in the one header that counts.
pub(super) fn credential(headers: &HeaderMap, carrier: Carrier) -> Result<Credential<'_>, Problem> {
    let missing = || carrier.missing();
    match carrier {
        Carrier::Bearer => {
            let value = once(headers, AUTHORIZATION.as_str(), carrier)?.ok_or_else(missing)?;
            let (scheme, token) = value.split_once(' ').ok_or_else(missing)?;
            if !scheme.eq_ignore_ascii_case("bearer") {
                return Err(missing());
            }
            bare(token, carrier)
        }
        Carrier::Token => bare(
            once(headers, "token", carrier)?.ok_or_else(missing)?,
            carrier,
        ),
        Carrier::XAuthToken => {
            if let Some(token) = once(headers, "x-auth-token", carrier)? {
                return bare(token, carrier);
            }
            let value = once(headers, AUTHORIZATION.as_str(), carrier)?.ok_or_else(missing)?;
            match value.split_once(' ') {
                Some((SIGNATURE_SCHEME, _)) => Ok(Credential::Signature),
                _ => Err(missing()),
            }
        }
    }
}

fn bare(token: &str, carrier: Carrier) -> Result<Credential<'_>, Problem> {
    match token.trim() {
        "" => Err(carrier.missing()),
        token => Ok(Credential::Token(token)),
    }
}

fn once<'a>(
    headers: &'a HeaderMap,
    name: &str,
    carrier: Carrier,
) -> Result<Option<&'a str>, Problem> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        let text = format!("send one {name} header");
        return Err(Problem::new(Kind::InvalidCredential, text));
    }
    value.to_str().map(Some).map_err(|_| carrier.missing())
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    const CARRIERS: [Carrier; 3] = [Carrier::Bearer, Carrier::XAuthToken, Carrier::Token];
    const SIGNED: &str = "SDK-HMAC-SHA256 Access=a, SignedHeaders=host;x-sdk-date, Signature=00";

    fn headers(list: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            )
        };
        list.iter().map(pair).collect()
    }

    // What each of the three reads: the token, `~` for a signature, or the kind of its refusal.
    fn read(list: &[(&'static str, &'static str)]) -> [String; 3] {
        let headers = headers(list);
        CARRIERS.map(|carrier| match credential(&headers, carrier) {
            Ok(Credential::Token(token)) => token.to_owned(),
            Ok(Credential::Signature) => "~".into(),
            Err(problem) => format!("{:?}", problem.kind),
        })
    }

    #[test]
    fn case_21_each_dialect_reads_its_own_header_and_no_other() {
        const NONE: &str = "NoCredential";
        assert_eq!(read(&[]), [NONE; 3]);
        assert_eq!(read(&[("authorization", "bearer t")]), ["t", NONE, NONE]);
        assert_eq!(read(&[("x-auth-token", "t")]), [NONE, "t", NONE]);
        assert_eq!(read(&[("token", "t")]), [NONE, NONE, "t"]);
        assert_eq!(read(&[("authorization", SIGNED)]), [NONE, "~", NONE]);
        let all = [
            ("authorization", "Bearer 1"),
            ("x-auth-token", "2"),
            ("token", "3"),
        ];
        assert_eq!(read(&all), ["1", "2", "3"]);
        // X-Auth-Token decides when it is there, even when it is nothing.
        let both = [("authorization", SIGNED), ("x-auth-token", "t")];
        assert_eq!(read(&both)[1], "t");
        let empty = [("authorization", SIGNED), ("x-auth-token", " ")];
        assert_eq!(read(&empty)[1], NONE);
    }

    #[test]
    fn case_15_a_repeated_credential_header_is_refused() {
        const TWICE: &str = "InvalidCredential";
        for (name, value, reader) in [
            ("authorization", "Bearer t", 0),
            ("x-auth-token", "t", 1),
            ("authorization", SIGNED, 1),
            ("token", "t", 2),
        ] {
            assert_eq!(
                read(&[(name, value), (name, value)])[reader],
                TWICE,
                "{name}"
            );
        }
        for (name, value, reader) in [
            ("authorization", "Bearer", 0),
            ("authorization", "Basic YTpi", 0),
            ("token", "", 2),
        ] {
            assert_eq!(read(&[(name, value)])[reader], "NoCredential", "{value}");
        }
    }
}
