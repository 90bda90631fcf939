//! What a Prometheus scrape is answered: metric families written for one scrape, in the text exposition format or in
//! OpenMetrics.
//!
//! Rows are written as they come, so that a scrape of many thousands costs little more than its text. A family without
//! rows is left out: unknown is absent, never 0.

use std::fmt::Write as _;

use subtle::ConstantTimeEq as _;

/// `Content-Type` of the text format.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// `Content-Type` of OpenMetrics.
pub const CONTENT_TYPE_OPENMETRICS: &str =
    "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// In which of the two formats families are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// The text exposition format, version 0.0.4.
    #[default]
    Text,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl Format {
    /// The better one for a scrape with this `Accept` header (RFC 9110, section 12.5.1): OpenMetrics only where it is asked
    /// for by name and not liked less than text.
    #[must_use]
    pub fn wanted(accept: Option<&[u8]>) -> Self {
        let accept = accept.and_then(|accept| std::str::from_utf8(accept).ok());
        let (mut open, mut text) = (0.0_f32, 0.0_f32);
        for range in accept.unwrap_or_default().split(',') {
            let mut parts = range.split(';').map(str::trim);
            let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
            let parameters = || parts.clone().filter_map(|part| part.split_once('='));
            let value = |name| parameters().find(|(key, _)| key.eq_ignore_ascii_case(name));
            let quality = value("q").map_or(1.0, |(_, q)| q.parse().unwrap_or(0.0));
            let ours = value("version").is_none_or(|(_, version)| version == "1.0.0");
            match kind.as_str() {
                "application/openmetrics-text" if ours => open = open.max(quality),
                "text/plain" => text = text.max(quality),
                _ => {}
            }
        }
        if open > 0.0 && open >= text {
            Self::OpenMetrics
        } else {
            Self::Text
        }
    }

    /// Its `Content-Type`.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Text => CONTENT_TYPE,
            Self::OpenMetrics => CONTENT_TYPE_OPENMETRICS,
        }
    }
}

/// A family has a name that Prometheus does not read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} names no metric")]
pub struct Misnamed(String);

/// Families in the order in which they were begun.
#[derive(Debug, Default)]
pub struct Families {
    text: String,
    format: Format,
    misnamed: Option<String>,
}

/// The labels of a row as they are written, for rows of several families.
#[derive(Debug)]
pub struct Labels(String);

impl Labels {
    /// Writes names and values down.
    #[must_use]
    pub fn new(labels: &[(&str, &str)]) -> Self {
        let mut text = String::new();
        write_labels(&mut text, labels);
        Self(text)
    }
}

/// Rows of one family.
#[derive(Debug)]
pub struct Rows<'a> {
    text: &'a mut String,
    name: String,
    /// What stands before the first row.
    head: Option<String>,
}

impl Families {
    /// None yet, to be written in this format.
    #[must_use]
    pub fn new(format: Format) -> Self {
        Self {
            format,
            ..Self::default()
        }
    }

    /// Begins a family of gauges.
    pub fn gauge(&mut self, name: &str, help: &str) -> Rows<'_> {
        self.family(name, help, "gauge")
    }

    /// Begins a family of counters; the name ends in `_total`.
    pub fn counter(&mut self, name: &str, help: &str) -> Rows<'_> {
        self.family(name, help, "counter")
    }

    /// All of it.
    ///
    /// # Errors
    /// When a family has a name that Prometheus does not read.
    pub fn text(mut self) -> Result<Vec<u8>, Misnamed> {
        if self.format == Format::OpenMetrics {
            self.text.push_str("# EOF\n");
        }
        match self.misnamed {
            None => Ok(self.text.into_bytes()),
            Some(name) => Err(Misnamed(name)),
        }
    }

    fn family(&mut self, name: &str, help: &str, kind: &str) -> Rows<'_> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b':';
        if !name.bytes().all(plain) || name.bytes().next().is_none_or(|b| b.is_ascii_digit()) {
            self.misnamed = Some(name.to_owned());
        }
        // In OpenMetrics a family of counters is called without the ending of its rows, and quotes are escaped.
        let (family, quoted) = match self.format {
            Format::Text => (name, false),
            Format::OpenMetrics if kind == "counter" => {
                (name.strip_suffix("_total").unwrap_or(name), true)
            }
            Format::OpenMetrics => (name, true),
        };
        let mut head = format!("# HELP {family} ");
        escape(&mut head, help, quoted);
        head.push_str("\n# TYPE ");
        head.push_str(family);
        head.push(' ');
        head.push_str(kind);
        head.push('\n');
        Rows {
            text: &mut self.text,
            name: name.to_owned(),
            head: Some(head),
        }
    }
}

impl Rows<'_> {
    /// Adds a row.
    pub fn row(&mut self, labels: &[(&str, &str)], value: f64) -> &mut Self {
        self.begin();
        write_labels(self.text, labels);
        self.end(value)
    }

    /// Adds a row whose labels are written down already.
    pub fn labelled(&mut self, labels: &Labels, value: f64) -> &mut Self {
        self.begin();
        self.text.push_str(&labels.0);
        self.end(value)
    }

    fn begin(&mut self) {
        if let Some(head) = self.head.take() {
            self.text.push_str(&head);
        }
        self.text.push_str(&self.name);
    }

    fn end(&mut self, value: f64) -> &mut Self {
        self.text.push(' ');
        // Writing to a text cannot fail.
        let _ = match value {
            f64::INFINITY => self.text.write_str("+Inf"),
            f64::NEG_INFINITY => self.text.write_str("-Inf"),
            value => write!(self.text, "{value}"),
        };
        self.text.push('\n');
        self
    }

    /// Adds the only row of a family without labels.
    pub fn value(&mut self, value: f64) {
        self.row(&[], value);
    }
}

fn write_labels(text: &mut String, labels: &[(&str, &str)]) {
    for (at, (name, value)) in labels.iter().enumerate() {
        text.push(if at == 0 { '{' } else { ',' });
        text.push_str(name);
        text.push_str("=\"");
        escape(text, value, true);
        text.push('"');
    }
    if !labels.is_empty() {
        text.push('}');
    }
}

fn escape(text: &mut String, raw: &str, quoted: bool) {
    if !raw.bytes().any(|b| matches!(b, b'\\' | b'\n' | b'"')) {
        return text.push_str(raw);
    }
    for c in raw.chars() {
        match c {
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '"' if quoted => text.push_str("\\\""),
            other => text.push(other),
        }
    }
}

/// Whether a scrape with this `Authorization` header may see the metrics: always where no token is asked for. The time it
/// takes does not depend on how much of a token is right.
#[must_use]
pub fn admits(token: Option<&str>, authorization: Option<&[u8]>) -> bool {
    let Some(token) = token else {
        return true;
    };
    authorization
        .and_then(|value| value.strip_prefix(b"Bearer "))
        .is_some_and(|given| given.ct_eq(token.as_bytes()).into())
}

/// 1 or 0.
#[must_use]
pub fn truth(is: bool) -> f64 {
    f64::from(u8::from(is))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scrape_is_escaped_complete_and_without_empty_families() {
        let mut families = Families::default();
        families.gauge("empty", "Nothing.");
        let mut rows = families.gauge("a_b", "Says \"x\\y\"\nand more.");
        rows.row(&[("one", "q\"\\\n{ä}"), ("two", "")], 0.5);
        rows.labelled(&Labels::new(&[("one", "2")]), f64::INFINITY)
            .row(&[], f64::NAN);
        families.counter("c_total", "Counts.").value(3e6);
        let text = String::from_utf8(families.text().unwrap()).unwrap();
        let expected = [
            r#"# HELP a_b Says "x\\y"\nand more."#,
            "# TYPE a_b gauge",
            r#"a_b{one="q\"\\\n{ä}",two=""} 0.5"#,
            r#"a_b{one="2"} +Inf"#,
            "a_b NaN",
            "# HELP c_total Counts.",
            "# TYPE c_total counter",
            "c_total 3000000\n",
        ];
        assert_eq!(text, expected.join("\n"));
        families = Families::default();
        families.gauge("1 bad", "").value(1.0);
        assert!(families.text().is_err());
    }

    #[test]
    fn openmetrics_ends_and_names_counters_without_their_ending() {
        let mut families = Families::new(Format::OpenMetrics);
        families
            .counter("c_total", "Counts \"x\".")
            .row(&[("a", "1")], 2.0);
        families.gauge("g", "Gauges.").value(0.5);
        let text = String::from_utf8(families.text().unwrap()).unwrap();
        let expected = [
            r#"# HELP c Counts \"x\"."#,
            "# TYPE c counter",
            r#"c_total{a="1"} 2"#,
            "# HELP g Gauges.",
            "# TYPE g gauge",
            "g 0.5",
            "# EOF\n",
        ];
        assert_eq!(text, expected.join("\n"));
    }

    #[test]
    fn openmetrics_is_for_who_asks_for_it() {
        let prometheus = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
            application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        for (accept, format) in [
            (prometheus, Format::OpenMetrics),
            ("application/openmetrics-text", Format::OpenMetrics),
            (
                "Application/OpenMetrics-Text; Version=1.0.0",
                Format::OpenMetrics,
            ),
            ("application/openmetrics-text; version=0.0.1", Format::Text),
            ("application/openmetrics-text; q=0", Format::Text),
            (
                "application/openmetrics-text; q=0.4, text/plain; q=0.5",
                Format::Text,
            ),
            ("*/*", Format::Text),
            ("text/plain", Format::Text),
            ("", Format::Text),
            ("application/openmetrics-text; q=x,;;=,", Format::Text),
        ] {
            assert_eq!(Format::wanted(Some(accept.as_bytes())), format, "{accept}");
        }
        assert_eq!(Format::wanted(None), Format::Text);
        assert_eq!(Format::wanted(Some(b"\xff")), Format::Text);
    }
}
