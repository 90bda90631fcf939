//! Both databases, so that a test says once what holds on each.

use std::sync::Arc;

use gpuquota_server::store::postgres::Address;
use gpuquota_server::store::{self, Place, Store};
use tempfile::TempDir;

use crate::postgres::Cluster;
use crate::skip::skipped;

/// An empty database and a directory for what stands beside it.
pub(crate) struct Base {
    pub(crate) dir: TempDir,
    pub(crate) place: Place,
    name: String,
}

/// One base on each database; where there is no PostgreSQL the test says so.
pub(crate) fn both(what: &str) -> Vec<Base> {
    let mut bases = vec![Base::sqlite()];
    bases.extend(Base::postgres(what));
    bases
}

impl Base {
    fn sqlite() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::File(dir.path().join("ledger.db"));
        Self {
            dir,
            place,
            name: String::new(),
        }
    }

    pub(crate) fn postgres(what: &str) -> Option<Self> {
        let cluster = match Cluster::shared() {
            Ok(cluster) => cluster,
            Err(why) => {
                skipped(&format!("{what} on PostgreSQL"), &why);
                return None;
            }
        };
        Some(Self::on(&cluster.database()))
    }

    /// On a database by its URL.
    pub(crate) fn on(url: &str) -> Self {
        let name = url.rsplit('/').next().unwrap().to_owned();
        Self {
            dir: tempfile::tempdir().unwrap(),
            place: Place::Database(Address::parse(url).unwrap()),
            name,
        }
    }

    pub(crate) async fn store(&self) -> Arc<dyn Store> {
        store::open(&self.place).await.unwrap()
    }

    /// The database's URL.
    pub(crate) fn url(&self) -> String {
        Cluster::shared().unwrap().url(&self.name)
    }

    /// The database's name on its server.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Statements behind the server's back.
    pub(crate) async fn sql(&self, statements: &'static str) {
        match &self.place {
            Place::File(path) => {
                let url = format!("sqlite://{}", path.display());
                let other = sqlx::SqlitePool::connect(&url).await.unwrap();
                sqlx::query(statements).execute(&other).await.unwrap();
                other.close().await;
            }
            Place::Database(_) => {
                let cluster = Cluster::shared().unwrap();
                cluster.psql(&self.name, statements).unwrap();
            }
        }
    }
}
