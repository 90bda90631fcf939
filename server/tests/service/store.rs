//! What every store keeps to, on both databases, and that both have one schema.

use gpuquota_core::id::{OpId, Seq, Timestamp};
use gpuquota_server::store::{self, Appended, Hash, Row, StoreError};

use crate::databases::{Base, both};
use crate::postgres::Cluster;
use crate::skip::skipped;

fn row(previous: Hash, seq: u64, op: Option<&str>, body: &str) -> Row {
    let op = op.map(|op| OpId::new(op).unwrap());
    Row::new(previous, Seq(seq), Timestamp(1), "w", op, body.into())
}

#[tokio::test]
async fn rows_come_back_byte_for_byte_and_only_the_first_writer_wins() {
    for base in both("rows come back byte for byte") {
        let store = base.store().await;
        let body = r#"{"text":"\u0000 \" ä \n 𝄞","n":1}"#;
        let first = row(Hash::EMPTY, 1, Some("op ä\"1"), body);
        let second = row(first.hash, 2, None, "{}");
        let both = [first.clone(), second.clone()];
        assert_eq!(store.append(&both).await.unwrap(), Appended::Written);
        assert_eq!(store.append(&both).await.unwrap(), Appended::Behind);
        let gap = [row(Hash::EMPTY, 9, None, "{}")];
        assert_eq!(store.append(&gap).await.unwrap(), Appended::Behind);
        store.close().await;
        let again = base.store().await;
        assert_eq!(again.rows_after(Seq(0), 10).await.unwrap(), both);
        assert_eq!(again.catch_up(Seq(0), 10).await.unwrap(), both);
        assert_eq!(
            again.rows_after(Seq(1), 10).await.unwrap(),
            std::slice::from_ref(&second)
        );
        assert_eq!(again.rows_after(Seq(0), 1).await.unwrap(), [first]);
        // One operation id, one effect: the index says so even if a decision were wrong.
        let doubled = row(second.hash, 3, Some("op ä\"1"), "{}");
        let refused = again.append(&[doubled]).await;
        assert!(
            matches!(refused, Err(StoreError::Fatal(_)) | Ok(Appended::Behind)),
            "{refused:?}"
        );
        assert_eq!(again.rows_after(Seq(0), 10).await.unwrap().len(), 2);
        again.close().await;
    }
}

#[tokio::test]
async fn case_47_a_schema_of_a_newer_program_is_refused_and_left_as_it_is() {
    for base in both("case 47") {
        base.store().await.close().await;
        base.sql("UPDATE _sqlx_migrations SET version = 9999 WHERE version = (SELECT max(version) FROM _sqlx_migrations)")
            .await;
        for opened in [
            store::open(&base.place).await.err(),
            store::open(&base.place).await.err(),
        ] {
            let text = opened.unwrap().to_string();
            assert!(
                text.contains("9999") && text.contains("newer program"),
                "{text}"
            );
        }
    }
}

/// Tables with their columns, and indexes, each as one line.
async fn sqlite_schema(base: &Base) -> Vec<String> {
    let url = format!("sqlite://{}", base.place);
    let pool = sqlx::SqlitePool::connect(&url).await.unwrap();
    let columns = "SELECT t.name || '.' || c.name || ' ' || lower(c.type) || CASE WHEN c.\"notnull\" THEN ' not null' ELSE '' END \
         || CASE WHEN c.pk THEN ' key' ELSE '' END FROM sqlite_schema AS t, pragma_table_info(t.name) AS c \
         WHERE t.type = 'table' AND t.name NOT LIKE '\\_sqlx%' ESCAPE '\\'";
    let indexes = "SELECT 'index ' || name || CASE WHEN sql LIKE 'CREATE UNIQUE%' THEN ' unique' ELSE '' END FROM sqlite_schema \
         WHERE type = 'index' AND sql IS NOT NULL";
    let mut lines: Vec<String> = Vec::new();
    for query in [columns, indexes] {
        lines.extend(sqlx::query_scalar(query).fetch_all(&pool).await.unwrap());
    }
    pool.close().await;
    lines.sort();
    lines
}

fn postgres_schema(base: &Base, cluster: &Cluster) -> Vec<String> {
    let columns = "SELECT c.table_name || '.' || c.column_name || ' ' || c.data_type \
         || CASE WHEN c.is_nullable = 'NO' THEN ' not null' ELSE '' END \
         || CASE WHEN k.column_name IS NOT NULL THEN ' key' ELSE '' END \
         FROM information_schema.columns AS c LEFT JOIN information_schema.key_column_usage AS k \
         ON k.table_name = c.table_name AND k.column_name = c.column_name AND k.constraint_name LIKE '%_pkey' \
         WHERE c.table_schema = 'public' AND c.table_name NOT LIKE '\\_sqlx%'";
    let indexes = "SELECT 'index ' || indexname || CASE WHEN indexdef LIKE 'CREATE UNIQUE%' THEN ' unique' ELSE '' END \
         FROM pg_indexes WHERE schemaname = 'public' AND indexname NOT LIKE '%_pkey'";
    let text = cluster
        .psql(base.name(), &format!("{columns}; {indexes}"))
        .unwrap();
    let types = |line: &str| line.replace(" bigint", " integer");
    let mut lines: Vec<String> = text.lines().map(types).collect();
    lines.sort();
    lines
}

#[tokio::test]
async fn both_databases_have_one_schema_made_by_the_same_steps() {
    let names = |folder: &str| {
        let folder = format!("{}/migrations/{folder}", env!("CARGO_MANIFEST_DIR"));
        let files = std::fs::read_dir(folder)
            .unwrap()
            .map(|file| file.unwrap().file_name());
        let mut names: Vec<_> = files.collect();
        names.sort();
        names
    };
    assert_eq!(names("sqlite"), names("postgres"));
    let bases = both("one schema");
    let [sqlite, postgres] = bases.as_slice() else {
        return;
    };
    sqlite.store().await.close().await;
    postgres.store().await.close().await;
    let lines = sqlite_schema(sqlite).await;
    assert!(lines.contains(&"journal.op text".to_owned()), "{lines:?}");
    assert_eq!(lines, postgres_schema(postgres, Cluster::shared().unwrap()));
}

#[tokio::test]
async fn a_database_that_is_not_fit_is_refused_with_what_to_do() {
    let cluster = match Cluster::shared() {
        Ok(cluster) => cluster,
        Err(why) => return skipped("a database that is not fit", &why),
    };
    let made = "CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0";
    cluster.psql("postgres", made).unwrap();
    let by_socket = Base::on(&cluster.socket_url("postgres"));
    by_socket.store().await.close().await;
    for (url, what) in [
        (cluster.url("latin"), "ENCODING 'UTF8'"),
        (cluster.url("nowhere"), "check the URL"),
        ("postgres://u:s3cret@127.0.0.1:1/q".into(), "check the URL"),
    ] {
        let base = Base::on(&url);
        let refused = store::open(&base.place).await.err().unwrap();
        let text = format!("{refused} {refused:?}");
        assert!(text.contains(what) && !text.contains("s3cret"), "{text}");
    }
}
