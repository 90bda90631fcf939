//! Where the caller reached the server: the scheme, host and port for links in answers (dialects D4.7).
//!
//! A host is the caller's own text. It stands in an answer only when it is the listener's or the configuration names it;
//! headers that proxies add are not read.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use http::header::HOST;
use http::request::Parts;
use http::uri::Scheme;
use http::{HeaderValue, Uri, Version};

use super::status::{Kind, Problem};
use crate::config::Dialects;

/// Which listener took a connection; every request on it carries this as an extension.
#[derive(Clone, Copy, Debug)]
pub struct Endpoint {
    /// The listener's address.
    pub bound: SocketAddr,
    /// The server's end of the connection; the same, unless the listener is bound to all addresses.
    pub local: SocketAddr,
}

impl Endpoint {
    // Hosts by which the listener itself is known.
    fn hosts(self) -> Vec<String> {
        let plain =
            |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
        let (bound, local) = (plain(self.bound), plain(self.local));
        let mut hosts = vec![bound.to_string(), local.to_string()];
        if bound.ip().is_loopback() || bound.ip().is_unspecified() {
            let loopback = [
                IpAddr::from(Ipv4Addr::LOCALHOST),
                Ipv6Addr::LOCALHOST.into(),
            ];
            let named = loopback.map(|ip| SocketAddr::new(ip, bound.port()).to_string());
            hosts.extend(named);
            hosts.push(format!("localhost:{}", bound.port()));
        }
        hosts
    }
}

/// What one request says of it.
#[derive(Clone, Debug)]
pub(super) struct Reached {
    scheme: Scheme,
    endpoint: Option<Endpoint>,
    version: Version,
    target: Uri,
    host: Option<HeaderValue>,
    several_hosts: bool,
}

impl Reached {
    /// Reads a request's head; nothing is judged yet.
    #[must_use]
    pub(super) fn by(parts: &Parts) -> Self {
        let mut hosts = parts.headers.get_all(HOST).iter();
        Self {
            scheme: parts.extensions.get().cloned().unwrap_or(Scheme::HTTP),
            endpoint: parts.extensions.get().copied(),
            version: parts.version,
            target: parts.uri.clone(),
            host: hosts.next().cloned(),
            several_hosts: hosts.next().is_some(),
        }
    }

    /// The query as sent.
    #[must_use]
    pub(super) fn query(&self) -> &str {
        self.target.query().unwrap_or_default()
    }

    /// The address that was called, absolute and without its query.
    ///
    /// # Errors
    /// When the host that was called is none of ours.
    pub(super) fn address(&self, dialects: &Dialects) -> Result<String, Problem> {
        let host = self.host(dialects)?;
        let path = self.target.path();
        Ok(match &dialects.public_url {
            Some(url) => format!("{url}{path}"),
            None => format!("{}://{host}{path}", self.scheme),
        })
    }

    fn host(&self, dialects: &Dialects) -> Result<String, Problem> {
        if self.several_hosts {
            return Err(refused("send one Host header"));
        }
        // RFC 9112, 3.2.2: a host in the request line wins over the header.
        let called = match (self.target.authority(), &self.host) {
            (Some(authority), _) => authority.as_str(),
            (None, Some(host)) => host.to_str().unwrap_or_default(),
            (None, None) => match self.endpoint {
                Some(endpoint) if self.version < Version::HTTP_11 => {
                    return Ok(shortened(&endpoint.local.to_string(), &self.scheme));
                }
                _ => return Err(refused("send a Host header")),
            },
        };
        let of_listener = self.endpoint.into_iter().flat_map(Endpoint::hosts);
        let shown = shortened(called, &self.scheme);
        let known = of_listener
            .chain(dialects.hosts.iter().cloned())
            .any(|host| shortened(&host, &self.scheme) == shown);
        if known || is_public(dialects, called) {
            return Ok(shown);
        }
        Err(refused(
            "this host is not one of the server's; its operator can name it in dialects.hosts",
        ))
    }
}

fn is_public(dialects: &Dialects, called: &str) -> bool {
    let uri: Option<Uri> = dialects
        .public_url
        .as_ref()
        .and_then(|url| url.parse().ok());
    uri.as_ref().is_some_and(|uri| {
        let scheme = uri.scheme().unwrap_or(&Scheme::HTTP);
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        shortened(authority, scheme) == shortened(called, scheme)
    })
}

// Host and port without the scheme's own port, in lower case.
fn shortened(host: &str, scheme: &Scheme) -> String {
    let own = if *scheme == Scheme::HTTPS {
        ":443"
    } else {
        ":80"
    };
    let mut host = host.to_ascii_lowercase();
    if let Some(bare) = host.strip_suffix(own) {
        host.truncate(bare.len());
    }
    host
}

fn refused(message: &str) -> Problem {
    Problem::new(Kind::InvalidField, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reached(head: http::request::Builder, endpoint: Option<(&str, &str)>) -> Reached {
        let (mut parts, ()) = head.body(()).unwrap().into_parts();
        if let Some((bound, local)) = endpoint {
            let (bound, local) = (bound.parse().unwrap(), local.parse().unwrap());
            parts.extensions.insert(Endpoint { bound, local });
        }
        Reached::by(&parts)
    }

    fn get(target: &str) -> http::request::Builder {
        http::Request::get(target)
    }

    #[test]
    fn case_30_a_host_counts_only_when_it_is_the_listeners_or_configured() {
        let ours = Dialects {
            hosts: vec!["quota.example:8080".into(), "Plain.example".into()],
            ..Dialects::default()
        };
        let loopback = Some(("127.0.0.1:8080", "127.0.0.1:8080"));
        let everywhere = Some(("0.0.0.0:8080", "10.0.0.5:8080"));
        let outside = Some(("10.0.0.5:8080", "10.0.0.5:8080"));
        let mapped = Some(("[::]:80", "[::ffff:10.0.0.5]:80"));
        for (at, host, counts) in [
            (loopback, "127.0.0.1:8080", true),
            (loopback, "LocalHost:8080", true),
            (loopback, "[::1]:8080", true),
            (loopback, "localhost", false),
            (loopback, "localhost:8081", false),
            (loopback, "localhost.:8080", false),
            (loopback, "quota.example:8080", true),
            (loopback, "quota.example", false),
            (loopback, "plain.example:80", true),
            (loopback, "evil.example", false),
            (loopback, "127.0.0.1:8080@evil.example", false),
            (loopback, "", false),
            (everywhere, "10.0.0.5:8080", true),
            (everywhere, "localhost:8080", true),
            (everywhere, "10.0.0.6:8080", false),
            (outside, "10.0.0.5:8080", true),
            (outside, "localhost:8080", false),
            (mapped, "10.0.0.5", true),
            (mapped, "10.0.0.5:80", true),
            (None, "127.0.0.1:8080", false),
        ] {
            let address = reached(get("/a?b").header("host", host), at).address(&ours);
            let text = shortened(host, &Scheme::HTTP);
            let expected = counts.then(|| format!("http://{text}/a"));
            assert_eq!(address.clone().ok(), expected, "{host} {at:?}");
            if let Err(problem) = address {
                assert!(!problem.message.contains("evil"), "{host}");
            }
        }
    }

    #[test]
    fn the_request_line_wins_http_1_0_needs_no_host_and_two_hosts_are_refused() {
        let ours = Dialects::default();
        let at = Some(("127.0.0.1:80", "127.0.0.1:80"));
        let forged = get("http://evil.example/a").header("host", "localhost");
        assert!(reached(forged, at).address(&ours).is_err());
        let absolute = get("http://localhost/a").header("host", "evil.example");
        let address = reached(absolute, at).address(&ours);
        assert_eq!(address.as_deref(), Ok("http://localhost/a"));
        assert!(reached(get("/a"), at).address(&ours).is_err());
        let old = || get("/a").version(Version::HTTP_10);
        let address = reached(old(), at).address(&ours);
        assert_eq!(address.as_deref(), Ok("http://127.0.0.1/a"));
        assert!(reached(old(), None).address(&ours).is_err());
        let two = get("/a")
            .header("host", "localhost")
            .header("host", "localhost");
        assert!(reached(two, at).address(&ours).is_err());
    }

    #[test]
    fn scheme_and_public_address_make_the_link() {
        let mut ours = Dialects::default();
        let at = Some(("127.0.0.1:443", "127.0.0.1:443"));
        let https = |host: &str| get("/a").extension(Scheme::HTTPS).header("host", host);
        let address = reached(https("localhost:443"), at).address(&ours);
        assert_eq!(address.as_deref(), Ok("https://localhost/a"));
        ours.public_url = Some("https://Quota.example".into());
        for host in ["quota.example", "quota.example:443", "127.0.0.1:443"] {
            let address = reached(https(host), at).address(&ours);
            assert_eq!(address.as_deref(), Ok("https://Quota.example/a"), "{host}");
        }
        assert!(reached(https("evil.example"), at).address(&ours).is_err());
        let proxied = get("/a").header("host", "quota.example");
        let at = Some(("127.0.0.1:8080", "127.0.0.1:8080"));
        let address = reached(proxied, at).address(&ours);
        assert_eq!(address.as_deref(), Ok("https://Quota.example/a"));
        let forwarded = get("/a")
            .header("host", "127.0.0.1:8080")
            .header("x-forwarded-host", "evil.example")
            .header("forwarded", "host=evil.example;proto=https");
        ours.public_url = None;
        let address = reached(forwarded, at).address(&ours);
        assert_eq!(address.as_deref(), Ok("http://127.0.0.1:8080/a"));
    }
}
