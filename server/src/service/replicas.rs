//! Which of the servers that share a journal live, by what each says in the database every few seconds.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::store::Store;

/// Between two signs of life.
const BEAT: Duration = Duration::from_secs(2);

/// The servers that are there, as one of them knows it.
pub struct Replicas {
    store: Arc<dyn Store>,
    writer: String,
    lapse_ms: u64,
    /// Age of each server's last sign at the time of our own.
    ages_ms: HashMap<String, u64>,
    /// Since when our own signs go through without a break, and the last of them, by the boot clock.
    steady: Option<(u64, u64)>,
}

impl Replicas {
    /// Those on `store`, of which this one is called `writer`. One that says nothing for `lapse`, or for three beats where
    /// that is longer, is gone.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, writer: &str, lapse: Duration) -> Self {
        Self {
            store,
            writer: writer.to_owned(),
            lapse_ms: ms(lapse.max(3 * BEAT)),
            ages_ms: HashMap::new(),
            steady: None,
        }
    }

    /// Says that this one lives, if it is time to, and hears the others.
    pub async fn beat(&mut self, now_ms: u64) {
        if self
            .steady
            .is_some_and(|(_, last)| now_ms.saturating_sub(last) < ms(BEAT))
        {
            return;
        }
        match self.store.beat(&self.writer).await {
            Ok(beats) => {
                let ages = beats.into_iter().map(|beat| (beat.writer, beat.age_ms));
                self.ages_ms = ages.collect();
                let unbroken =
                    |(_, last): &(u64, u64)| now_ms.saturating_sub(*last) < self.lapse_ms / 2;
                let since = self
                    .steady
                    .filter(unbroken)
                    .map_or(now_ms, |(since, _)| since);
                self.steady = Some((since, now_ms));
            }
            Err(error) => {
                tracing::debug!(error = %error, "cannot say that this server lives");
                self.steady = None;
            }
        }
    }

    /// Whether a server is gone. Only who was itself heard all the time may say so: while the database was away, nobody was.
    #[must_use]
    pub fn lapsed(&self, writer: &str, now_ms: u64) -> bool {
        let steady = |(since, _)| now_ms.saturating_sub(since) >= self.lapse_ms;
        self.steady.is_some_and(steady)
            && self
                .ages_ms
                .get(writer)
                .is_none_or(|age| *age >= self.lapse_ms)
    }
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Appended, Base, Beat, Row, StoreError};
    use async_trait::async_trait;
    use gpuquota_core::id::Seq;
    use std::sync::Mutex;

    /// Says what it was told of "other"; `None`: it is not reached.
    struct Told(Mutex<Option<u64>>);

    #[async_trait]
    impl Store for Told {
        async fn rows_after(&self, _: Seq, _: u32) -> Result<Vec<Row>, StoreError> {
            Ok(Vec::new())
        }
        async fn append(&self, _: &[Row]) -> Result<Appended, StoreError> {
            Ok(Appended::Behind)
        }
        async fn beat(&self, _: &str) -> Result<Vec<Beat>, StoreError> {
            let age_ms = self.0.lock().unwrap();
            let age_ms = age_ms.ok_or(StoreError::Unavailable(sqlx::Error::PoolClosed))?;
            let writer = "other".to_owned();
            Ok(vec![Beat { writer, age_ms }])
        }
        async fn last(&self) -> Result<Option<Row>, StoreError> {
            Ok(None)
        }
        async fn base(&self) -> Result<Option<Base>, StoreError> {
            Ok(None)
        }
        async fn put_base(&self, _: &Base) -> Result<(), StoreError> {
            Ok(())
        }
        async fn drop_archived(&self, _: &Base) -> Result<u64, StoreError> {
            Ok(0)
        }
        async fn close(&self) {}
    }

    #[tokio::test]
    async fn a_server_is_gone_only_to_one_that_was_heard_all_the_time() {
        let store = Arc::new(Told(Mutex::new(Some(0))));
        let mut replicas = Replicas::new(store.clone(), "me", Duration::from_secs(10));
        let told = |age| *store.0.lock().unwrap() = age;
        replicas.beat(0).await;
        assert!(!replicas.lapsed("other", 0));
        assert!(!replicas.lapsed("unheard of", 9_999));
        for now in (2..=12).map(|s| s * 1000) {
            replicas.beat(now).await;
        }
        assert!(replicas.lapsed("unheard of", 12_000));
        assert!(!replicas.lapsed("other", 12_000), "it lives");
        told(Some(10_000));
        replicas.beat(14_000).await;
        assert!(replicas.lapsed("other", 14_000));
        // The database was away for everybody: nobody is accused before it had time to come back.
        told(None);
        replicas.beat(16_000).await;
        told(Some(60_000));
        for now in (18..28).map(|s| s * 1000) {
            replicas.beat(now).await;
            assert!(!replicas.lapsed("other", now), "at {now}");
        }
        replicas.beat(28_000).await;
        assert!(replicas.lapsed("other", 28_000));
        // So it is for one that was itself stopped for a while.
        replicas.beat(48_000).await;
        assert!(!replicas.lapsed("other", 48_000));
    }
}
