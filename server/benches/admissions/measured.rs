//! What a run gave: how many answers in which time, and how long each took.

use std::time::Duration;

pub(crate) struct Measured {
    latencies: Vec<Duration>,
    time: Duration,
}

impl Measured {
    pub(crate) fn of(mut latencies: Vec<Duration>, time: Duration) -> Self {
        latencies.sort_unstable();
        Self { latencies, time }
    }

    pub(crate) fn answers(&self) -> u64 {
        self.latencies.len() as u64
    }

    fn rate(&self) -> f64 {
        self.latencies.len() as f64 / self.time.as_secs_f64()
    }

    fn percentile(&self, percent: usize) -> f64 {
        let at = self.latencies.len() * percent / 100;
        let latency = self.latencies.get(at).copied().unwrap_or_default();
        latency.as_secs_f64() * 1000.0
    }

    pub(crate) fn line(&self, what: &str, ceiling: Option<&Self>) {
        let ratio = ceiling.map_or_else(String::new, |ceiling| {
            format!("   {:.2} x", self.rate() / ceiling.rate())
        });
        println!(
            "  {what:<36} {:>8.0}/s   p50 {:>7.2} ms   p99 {:>7.2} ms{ratio}",
            self.rate(),
            self.percentile(50),
            self.percentile(99)
        );
    }
}
