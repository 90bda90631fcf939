//! Addresses of others that the server asks or tells.

use http::Uri;

/// Whether what goes there goes over TLS or stays on this host. The text says what `key` must be.
pub(super) fn check(key: &str, url: &str) -> Result<(), String> {
    let rule = || {
        format!(
            "{key} must be https://HOST[:PORT]/PATH; http is for 127.0.0.1, [::1] and localhost only"
        )
    };
    let uri: Uri = url.parse().map_err(|_| rule())?;
    let (scheme, authority) = (uri.scheme_str(), uri.authority());
    let Some(authority) = authority.filter(|a| !a.as_str().contains('@') && !a.host().is_empty())
    else {
        return Err(rule());
    };
    let loopback = ["127.0.0.1", "[::1]", "localhost"].contains(&authority.host());
    match scheme {
        Some("https") => Ok(()),
        Some("http") if loopback => Ok(()),
        _ => Err(rule()),
    }
}
