//! Why a server could not be reached, in words that say what to do.

use std::error::Error as _;
use std::io;

use rustls::CertificateError::{
    BadSignature, Expired, ExpiredContext, NotValidForName, NotValidForNameContext, NotValidYet,
    NotValidYetContext, UnknownIssuer,
};

use super::address::Address;

/// The error with what to do. Nothing of the URL but host and port is in it.
pub(super) fn unreachable_server(error: &sqlx::Error, address: &Address) -> String {
    let advice = match (error, tls(error)) {
        (_, Some(rustls::Error::InvalidCertificate(wrong))) => certificate(wrong, address.host()),
        (_, Some(_)) => "TLS with the server fails; see its log, and that host and port are right".into(),
        (sqlx::Error::Tls(_), None) if address.encrypted() => {
            "nothing was sent in the open. Switch TLS on in the database (ssl = on), and see that sslrootcert, sslcert and \
             sslkey name PEM files"
                .into()
        }
        (sqlx::Error::Io(missing), None) if missing.kind() == io::ErrorKind::NotFound => {
            "see that the files that sslrootcert, sslcert and sslkey name, or the socket, are there".into()
        }
        (_, None) => "check the URL, that PostgreSQL runs there, and that the user may log in".to_owned(),
    };
    format!("{error}; {advice}")
}

fn certificate(wrong: &rustls::CertificateError, host: &str) -> String {
    match wrong {
        // An authority of the same name signed it, but not with this key.
        UnknownIssuer | BadSignature => {
            "the database's certificate is of an authority that is not known here: name the file with the right one in the URL, \
             ?sslrootcert=FILE; should it be the right one already, somebody answers in the database's place"
                .into()
        }
        NotValidForName | NotValidForNameContext { .. } => format!(
            "the database's certificate is for another name than {host}: name it in the URL by a name that its certificate \
             has, or give it one for {host}"
        ),
        Expired | ExpiredContext { .. } => "renew the database's certificate, and check this machine's clock".into(),
        NotValidYet | NotValidYetContext { .. } => {
            "check this machine's clock and the date from which the database's certificate is valid".into()
        }
        _ => "the database's certificate is not accepted; give it another one".into(),
    }
}

// Where rustls says no, sqlx passes on what the handshake's socket said.
fn tls(error: &sqlx::Error) -> Option<&rustls::Error> {
    let sqlx::Error::Io(error) = error else {
        return error.source()?.downcast_ref();
    };
    error.get_ref()?.downcast_ref()
}
