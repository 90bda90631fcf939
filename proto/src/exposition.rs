//! What a Prometheus scrape is answered: metric families built for one scrape, in the text exposition format.
//!
//! A family without rows is left out: unknown is absent, never 0.

use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{Encoder as _, TextEncoder};

/// `Content-Type` of the text format.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Families in the order in which they were begun.
#[derive(Debug, Default)]
pub struct Families(Vec<MetricFamily>);

/// Rows of one family.
#[derive(Debug)]
pub struct Rows<'a>(&'a mut MetricFamily);

impl Families {
    /// Begins a family of gauges.
    pub fn gauge(&mut self, name: &str, help: &str) -> Rows<'_> {
        self.family(name, help, MetricType::GAUGE)
    }

    /// Begins a family of counters; the name ends in `_total`.
    pub fn counter(&mut self, name: &str, help: &str) -> Rows<'_> {
        self.family(name, help, MetricType::COUNTER)
    }

    /// The text exposition format, version 0.0.4.
    ///
    /// # Errors
    /// When a family is not one that the encoder can write.
    pub fn text(mut self) -> Result<Vec<u8>, prometheus::Error> {
        self.0.retain(|family| !family.get_metric().is_empty());
        let mut text = Vec::with_capacity(8192);
        TextEncoder::new().encode(&self.0, &mut text)?;
        Ok(text)
    }

    fn family(&mut self, name: &str, help: &str, kind: MetricType) -> Rows<'_> {
        let mut family = MetricFamily::default();
        family.set_name(name.to_owned());
        family.set_help(help.to_owned());
        family.set_field_type(kind);
        let index = self.0.len();
        self.0.push(family);
        Rows(&mut self.0[index])
    }
}

impl Rows<'_> {
    /// Adds a row.
    pub fn row(&mut self, labels: &[(&str, &str)], value: f64) -> &mut Self {
        let mut metric = Metric::default();
        let pair = |(name, value): &(&str, &str)| {
            let mut pair = LabelPair::default();
            pair.set_name((*name).to_owned());
            pair.set_value((*value).to_owned());
            pair
        };
        metric.set_label(labels.iter().map(pair).collect());
        if self.0.get_field_type() == MetricType::COUNTER {
            let mut counter = Counter::default();
            counter.set_value(value);
            metric.set_counter(counter);
        } else {
            let mut gauge = Gauge::default();
            gauge.set_value(value);
            metric.set_gauge(gauge);
        }
        self.0.mut_metric().push(metric);
        self
    }

    /// Adds the only row of a family without labels.
    pub fn value(&mut self, value: f64) {
        self.row(&[], value);
    }
}

/// 1 or 0.
#[must_use]
pub fn truth(is: bool) -> f64 {
    f64::from(u8::from(is))
}
