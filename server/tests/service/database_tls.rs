//! PostgreSQL by TLS: only a server with a certificate of the given authority, for the name in the URL, is spoken to.

use std::fs;
use std::path::Path;

use gpuquota_server::store::postgres::{Address, PostgresStore};
use gpuquota_server::store::{Store as _, StoreError};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};

use crate::postgres::Cluster;
use crate::skip::skipped;

/// An authority and its certificate.
struct Authority(Issuer<'static, KeyPair>, String);

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self(Issuer::new(params, key), pem)
    }

    // Certificate and key of a server that is reached by its address alone.
    fn server(&self) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::IpAddress([127, 0, 0, 1].into())];
        let certificate = params.signed_by(&key, &self.0).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    fn file(&self, dir: &Path, name: &str) -> String {
        let path = dir.join(name);
        fs::write(&path, &self.1).unwrap();
        path.display().to_string()
    }
}

async fn refusal(url: &str) -> String {
    match PostgresStore::open(&Address::parse(url).unwrap()).await {
        Err(StoreError::Open { reason, .. }) => reason,
        Err(other) => unreachable!("{other:?}"),
        Ok(_) => unreachable!("{url} is accepted"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_is_spoken_to_only_by_its_own_authority_and_name() {
    let what = "PostgreSQL by TLS";
    let (own, other) = (Authority::new(), Authority::new());
    let (certificate, key) = own.server();
    let (cluster, plain) = match Cluster::start_with_tls(&certificate, &key) {
        Ok(cluster) => (cluster, Cluster::shared().unwrap()),
        Err(why) => return skipped(what, &why),
    };
    let dir = tempfile::tempdir().unwrap();
    let (right, wrong) = (
        own.file(dir.path(), "own.crt"),
        other.file(dir.path(), "other.crt"),
    );
    let url = cluster.database();
    let full = |url: &str, root: &str| format!("{url}?sslmode=verify-full&sslrootcert={root}");

    let by_name = url.replace("127.0.0.1", "localhost");
    for (url, why, what_to_do) in [
        // Of the same name, but not the same.
        (full(&url, &wrong), "BadSignature", "?sslrootcert=FILE"),
        (
            format!("{url}?sslmode=verify-full"),
            "UnknownIssuer",
            "?sslrootcert=FILE",
        ),
        (
            full(&by_name, &right),
            "localhost",
            "by a name that its certificate has",
        ),
        (full(&url, "/nowhere/ca.crt"), "No such file", "sslrootcert"),
        (
            full(&plain.database(), &right),
            "does not support TLS",
            "ssl = on",
        ),
    ] {
        let refused = refusal(&url).await;
        assert!(
            refused.contains(why) && refused.contains(what_to_do),
            "{refused}"
        );
    }
    // Not one of them came in, in the open or otherwise.
    let connected = |of: &str| {
        let count = format!(
            "SELECT count(*) FROM pg_stat_activity LEFT JOIN pg_stat_ssl USING (pid) \
             WHERE application_name = 'gpuquota-server' AND {of}"
        );
        cluster.psql("postgres", &count).unwrap()
    };
    let log = fs::read_to_string(cluster.log()).unwrap();
    assert_eq!(connected("true"), "0");
    assert!(!log.contains("application_name=gpuquota-server"), "{log}");

    let address = Address::parse(&full(&url, &right)).unwrap();
    let store = PostgresStore::open(&address).await.unwrap();
    assert!(store.last().await.unwrap().is_none());
    assert_ne!(connected("ssl"), "0");
    assert_eq!(connected("NOT ssl"), "0");
    store.close().await;
}
