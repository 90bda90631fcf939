//! Where a PostgreSQL database is and how to log in. Its password is never shown.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr as _;

use sqlx::ConnectOptions as _;
use sqlx::postgres::{PgConnectOptions, PgSslMode};

/// Parameters of a URL that are understood; any other is a mistake, and what is misspelt could be a password.
const PARAMETERS: [&str; 11] = [
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
    "application_name",
];
const PROGRAM: &str = "gpuquota-server";

/// A PostgreSQL database with what is needed to log in.
#[derive(Clone)]
pub struct Address(PgConnectOptions);

/// A URL that is no address of a database. Nothing of the URL is in the text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Not a URL of PostgreSQL.
    #[error(
        "the database's URL must be like postgres://USER@HOST:5432/DATABASE?sslmode=verify-full, \
         other characters than letters, digits and -._~ in its parts percent-encoded"
    )]
    Malformed,
    /// A parameter that is not known.
    #[error("the database's URL has an unknown parameter; known are {}", PARAMETERS.join(", "))]
    Parameter,
}

impl Address {
    /// Reads `postgres://USER:PASSWORD@HOST:PORT/DATABASE?PARAMETERS`. What is not given comes from the usual environment
    /// variables, the password also from the file PGPASSFILE or ~/.pgpass. Over a network the server's certificate and
    /// name are checked unless `sslmode` says otherwise.
    ///
    /// # Errors
    /// When it is no such URL.
    pub fn parse(url: &str) -> Result<Self, AddressError> {
        if !["postgres://", "postgresql://"]
            .iter()
            .any(|scheme| url.starts_with(scheme))
        {
            return Err(AddressError::Malformed);
        }
        let (_, query) = url.split_once('?').unwrap_or((url, ""));
        let keys: Vec<_> = form_urlencoded::parse(query.as_bytes())
            .map(|(key, _)| key)
            .collect();
        if keys.iter().any(|key| !PARAMETERS.contains(&&**key)) {
            return Err(AddressError::Parameter);
        }
        let options = PgConnectOptions::from_str(url).map_err(|_| AddressError::Malformed)?;
        let mut options = options
            .application_name(PROGRAM)
            .disable_statement_logging();
        let chosen =
            keys.iter().any(|key| key == "sslmode") || std::env::var_os("PGSSLMODE").is_some();
        if !chosen && !local(&options) {
            options = options.ssl_mode(PgSslMode::VerifyFull);
        }
        Ok(Self(options))
    }

    /// Whether a URL holds a password.
    #[must_use]
    pub fn names_password(url: &str) -> bool {
        let (before, query) = url.split_once('?').unwrap_or((url, ""));
        let (_, authority) = before.split_once("://").unwrap_or(("", before));
        let user = authority.rsplit_once('@').map_or("", |(user, _)| user);
        user.contains(':')
            || form_urlencoded::parse(query.as_bytes()).any(|(key, _)| key == "password")
    }

    /// Whether somebody on the way could read along or answer in the server's place.
    #[must_use]
    pub fn unprotected(&self) -> bool {
        !local(&self.0) && !matches!(self.0.get_ssl_mode(), PgSslMode::VerifyFull)
    }

    pub(super) fn host(&self) -> &str {
        self.0.get_host()
    }

    /// Whether nothing is said to a server without TLS.
    pub(super) fn encrypted(&self) -> bool {
        match self.0.get_ssl_mode() {
            PgSslMode::Require | PgSslMode::VerifyCa | PgSslMode::VerifyFull => true,
            PgSslMode::Disable | PgSslMode::Allow | PgSslMode::Prefer => false,
        }
    }

    pub(super) fn options(&self) -> &PgConnectOptions {
        &self.0
    }
}

// A socket in the file system, or this very machine.
fn local(options: &PgConnectOptions) -> bool {
    let host = options.get_host();
    options.get_socket().is_some()
        || host.starts_with('/')
        || host == "localhost"
        || host
            .trim_matches(['[', ']'])
            .parse()
            .is_ok_and(|ip: IpAddr| ip.is_loopback())
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let options = &self.0;
        let database = options.get_database().unwrap_or(options.get_username());
        match options.get_socket() {
            Some(socket) => write!(f, "postgres://{}/{database}", socket.display()),
            None => write!(
                f,
                "postgres://{}:{}/{database}",
                options.get_host(),
                options.get_port()
            ),
        }
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_found_and_never_shown() {
        for (url, holds) in [
            ("postgres://u:s3cret@db.example/q", true),
            ("postgres://u@db.example/q?password=s3cret", true),
            ("postgres://u@db.example:5432/q", false),
            ("postgres://u@db.example/q?sslmode=require", false),
        ] {
            assert_eq!(Address::names_password(url), holds, "{url}");
            let address = Address::parse(url).unwrap();
            let shown = format!("{address} {address:?}");
            assert!(!shown.contains("s3cret"), "{shown}");
            assert!(shown.contains("db.example:5432/q"), "{shown}");
        }
        for bad in [
            "postgres://u@h/q?pasword=s3cret",
            "postgres://u:s3cret?x@h/q",
            "postgres://u:s3cret@h:port/q",
            "mysql://u:s3cret@h/q",
            "s3cret",
            "",
        ] {
            let refused = Address::parse(bad).unwrap_err();
            assert!(
                !format!("{refused} {refused:?}").contains("s3cret"),
                "{bad}"
            );
        }
    }

    #[test]
    fn over_a_network_the_server_is_checked_unless_told_otherwise() {
        for (url, unprotected) in [
            ("postgres://u@db.example/q", false),
            ("postgres://u@db.example/q?sslmode=verify-full", false),
            ("postgres://u@db.example/q?sslmode=require", true),
            ("postgres://u@db.example/q?sslmode=disable", true),
            ("postgres://u@127.0.0.1/q", false),
            ("postgres://u@[::1]/q", false),
            ("postgres://u@localhost/q?sslmode=disable", false),
            ("postgres://u@%2Frun%2Fpostgresql/q", false),
        ] {
            let address = Address::parse(url).unwrap();
            assert_eq!(address.unprotected(), unprotected, "{url}");
        }
    }
}
