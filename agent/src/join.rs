//! `join` and what follows it: the key is made here and never leaves; the certificate comes from the server.
//!
//! The key is on disk before anything is sent, so an answer that is lost on the way is asked for again with the same key.
//! The certificate is the last file to be written: a folder that has it is a node.

mod call;
pub mod pair;
pub mod renewal;
pub mod trust;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use gpuquota_proto::agent_v1::JoinAnswer;
use gpuquota_proto::form::NodeForm;
use gpuquota_proto::identity::{IdentityError, peer_identity};
use gpuquota_proto::pinned::Pin;
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::CertificateDer;
use tonic::codegen::http::Uri;

use crate::clock::unix_s;
use crate::config::{ConfigError, JoinFiles, join_files};
use crate::state::{FolderError, enter_folder, write_whole};
use crate::uplink::dial::{DialError, Server, own_identity};

/// Longest join token that is read, in bytes.
const LONGEST_TOKEN: usize = 256;
/// Certificates in a chain, and authorities beside it, at most.
const MOST_CERTIFICATES: usize = 8;

/// What `join` was told.
#[derive(Debug)]
pub struct JoinOptions {
    /// Address of the server, `https://HOST:PORT`.
    pub server: String,
    /// The token.
    pub token: String,
    /// Of the authority's public key.
    pub pin: Pin,
    /// The agent's directory.
    pub dir: PathBuf,
}

/// Why the node did not join.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// A node already.
    #[error("{0} has not ended: this is a node already; to join anew, take that certificate away")]
    Joined(PathBuf),
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// No address.
    #[error("--server must look like https://HOST:PORT")]
    Server,
    /// No token.
    #[error(
        "the token must be 1 to {LONGEST_TOKEN} visible ASCII characters, as `gpuquota-server join-token` prints it"
    )]
    Token,
    /// The directory cannot be used.
    #[error("{path}: {source}", path = .path.display())]
    Folder {
        /// Which.
        path: PathBuf,
        /// What happened.
        source: FolderError,
    },
    /// A file cannot be read or written.
    #[error("{path}: {source}", path = .path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What happened.
        source: io::Error,
    },
    /// The key cannot be made or read.
    #[error("the key: {0}")]
    Key(#[from] rcgen::Error),
    /// The server is not the one that was meant, or cannot be reached.
    #[error("no connection to the server: {0}; the token was not sent")]
    Connection(String),
    /// The same, where nothing secret would have been sent.
    #[error("no connection to the server: {0}")]
    Unreached(String),
    /// The server says no.
    #[error("the server refuses: {0}")]
    Refused(String),
    /// The server's answer is none.
    #[error("the server's answer cannot be used: {0}")]
    Answer(&'static str),
    /// The certificate names nobody.
    #[error("the server's answer cannot be used: {0}")]
    Identity(#[from] IdentityError),
}

/// What `join` made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    /// The node that this is now.
    pub node: String,
    /// What is left for the operator to do, for a person.
    pub left: Option<String>,
}

/// Joins: afterwards `run --dir` reports as the node that this returns. An agent that runs with a certificate that has
/// ended goes over to the new one by itself.
///
/// # Errors
/// With what to do; whatever was made stays and is used the next time.
pub async fn join(options: &JoinOptions) -> Result<Joined, JoinError> {
    let server = server(&options.server).ok_or(JoinError::Server)?;
    let token = options.token.trim();
    if !(1..=LONGEST_TOKEN).contains(&token.len()) || !token.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(JoinError::Token);
    }
    enter_folder(&options.dir).map_err(|source| JoinError::Folder {
        path: options.dir.clone(),
        source,
    })?;
    let JoinFiles {
        files,
        node: expected,
        server: configured,
    } = join_files(&options.dir)?;
    let valid = |end: i64| end > unix_s();
    match own_identity(&files, &NodeForm::default()) {
        Ok(own) if valid(own.not_after_unix_s) => {
            return Err(JoinError::Joined(files.certificate));
        }
        Err(_) if files.certificate.exists() => return Err(JoinError::Joined(files.certificate)),
        Ok(_) | Err(_) => {}
    }
    pair::mend(&files);
    let key = own_key(&files.key)?;
    let answer = call::join(&server, options.pin, token, request(&key)?).await?;
    let given = Given::check(&answer, &key, Some(options.pin))?;
    if let Some(expected) = expected.filter(|expected| *expected != given.node) {
        let found = given.node;
        return Err(ConfigError::from(DialError::OtherNode { expected, found }).into());
    }
    let config = options.dir.join("agent.toml");
    let mut left = None;
    if !config.exists() {
        let text = format!(
            "# All other settings: gpuquota-agent config --print-default\nserver = \"{}\"\nnode = \"{}\"\n",
            options.server, given.node
        );
        put(&config, text.as_bytes())?;
    } else if configured.as_ref() != Some(&options.server) {
        let path = fs::canonicalize(&config).unwrap_or(config);
        left = Some(format!(
            "{} names {}: put server = \"{}\" there, above its first table",
            path.display(),
            configured.as_deref().unwrap_or("no server"),
            options.server
        ));
    }
    put(&files.ca, given.trust.as_bytes())?;
    put(&files.certificate, given.chain.as_bytes())?;
    Ok(Joined {
        node: given.node,
        left,
    })
}

fn server(text: &str) -> Option<Server> {
    // It stands in a TOML string.
    let plain = text
        .bytes()
        .all(|b| b.is_ascii_graphic() && !b"\"\\".contains(&b));
    text.parse::<Uri>().ok().filter(|_| plain)?;
    crate::config::parse_server(text)
}

// The one from before, where an answer was lost.
fn own_key(path: &Path) -> Result<KeyPair, JoinError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(KeyPair::from_pem(&text)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let key = KeyPair::generate()?;
            put(path, key.serialize_pem().as_bytes())?;
            Ok(key)
        }
        Err(source) => Err(JoinError::File {
            path: path.to_owned(),
            source,
        }),
    }
}

// The server takes nothing from it but the key.
fn request(key: &KeyPair) -> Result<Vec<u8>, JoinError> {
    let request = CertificateParams::default().serialize_request(key)?;
    Ok(request.der().to_vec())
}

/// An answer that fits the key.
struct Given {
    node: String,
    /// PEM, leaf first.
    chain: String,
    /// PEM: the authorities to trust from now on.
    trust: String,
}

impl Given {
    fn check(answer: &JoinAnswer, key: &KeyPair, pin: Option<Pin>) -> Result<Self, JoinError> {
        if answer.chain.len() > MOST_CERTIFICATES || answer.trust.len() > MOST_CERTIFICATES {
            return Err(JoinError::Answer("too many certificates"));
        }
        let leaf = answer.chain.first();
        let leaf = leaf.ok_or(JoinError::Answer("no certificate"))?;
        let identity = peer_identity(leaf)?;
        let own = rcgen::PublicKeyData::subject_public_key_info(key);
        if Pin::of(leaf) != Ok(Pin::of_key(&own)) {
            return Err(JoinError::Answer("the certificate is for another key"));
        }
        let pinned = |pin| answer.trust.iter().any(|der| Pin::of(der) == Ok(pin));
        if answer.trust.is_empty() || !pin.is_none_or(pinned) {
            return Err(JoinError::Answer("the pinned authority is not in it"));
        }
        Ok(Self {
            node: identity.node,
            chain: pem(&answer.chain),
            trust: pem(&answer.trust),
        })
    }
}

fn pem(certificates: &[Vec<u8>]) -> String {
    let text = |der: &Vec<u8>| gpuquota_proto::tls::pem(&CertificateDer::from(der.as_slice()));
    certificates.iter().map(text).collect()
}

// As it would be written; `None` where it cannot be read.
fn pem_of_file(path: &Path) -> Option<String> {
    let certificates = gpuquota_proto::tls::chain(path).ok()?;
    let ders: Vec<Vec<u8>> = certificates.iter().map(|der| der.to_vec()).collect();
    Some(pem(&ders))
}

// Whether the file holds just these authorities, in whatever order: another order is no reason for another connection.
fn holds(path: &Path, trust: &str) -> bool {
    fn sorted(text: &str) -> Vec<&str> {
        let mut all: Vec<&str> = text
            .split_inclusive("-----END CERTIFICATE-----\n")
            .collect();
        all.sort_unstable();
        all
    }
    pem_of_file(path).is_some_and(|there| sorted(&there) == sorted(trust))
}

fn put(path: &Path, bytes: &[u8]) -> Result<(), JoinError> {
    write_whole(path, bytes).map_err(|source| JoinError::File {
        path: path.to_owned(),
        source,
    })
}
