//! A scrape: the text exposition format, read strictly enough to find values by name and labels.

use std::collections::BTreeMap;
use std::net::SocketAddr;

/// Rows of one answer.
#[derive(Clone, Debug)]
pub struct Scrape {
    /// The whole text.
    pub text: String,
    rows: Vec<(String, BTreeMap<String, String>, f64)>,
}

impl Scrape {
    /// Scrapes `http://ADDRESS/metrics`.
    ///
    /// # Errors
    /// When nobody answers, or not with 200.
    pub async fn of(address: SocketAddr) -> Result<Self, String> {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let answer = client.get(format!("http://{address}/metrics")).send().await;
        let answer = answer.map_err(|e| format!("{e:?}"))?;
        let status = answer.status();
        let text = answer.text().await.map_err(|e| e.to_string())?;
        if status != 200 {
            return Err(format!("{status}: {text}"));
        }
        Ok(Self::parse(text))
    }

    fn parse(text: String) -> Self {
        let lines = text
            .lines()
            .filter(|line| !line.starts_with('#') && !line.is_empty());
        let rows = lines.map(row).collect();
        Self { text, rows }
    }

    /// The only row of this name that has these labels.
    #[must_use]
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let found: Vec<f64> = self.matching(name, labels).collect();
        assert!(
            found.len() <= 1,
            "{name}{labels:?} is not one row: {}",
            self.text
        );
        found.first().copied()
    }

    /// Sum of all rows of this name that have these labels; 0 when there are none.
    #[must_use]
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.matching(name, labels).sum()
    }

    fn matching(&self, name: &str, labels: &[(&str, &str)]) -> impl Iterator<Item = f64> {
        self.rows
            .iter()
            .filter(move |(row, of_row, _)| {
                let has =
                    |(key, value): &(&str, &str)| of_row.get(*key).is_some_and(|v| v == value);
                row == name && labels.iter().all(has)
            })
            .map(|(_, _, value)| *value)
    }
}

fn row(line: &str) -> (String, BTreeMap<String, String>, f64) {
    let (series, value) = line
        .rsplit_once(' ')
        .unwrap_or_else(|| panic!("no row: {line}"));
    let value = value.parse().unwrap_or_else(|_| panic!("no value: {line}"));
    let Some((name, labels)) = series.split_once('{') else {
        return (series.to_owned(), BTreeMap::new(), value);
    };
    let labels = labels
        .strip_suffix('}')
        .unwrap_or_else(|| panic!("no labels: {line}"));
    // No label value in these tests contains a comma between quotes.
    let pairs = labels.split("\",").filter_map(|pair| {
        let (key, value) = pair.split_once("=\"")?;
        Some((key.to_owned(), value.trim_end_matches('"').to_owned()))
    });
    (name.to_owned(), pairs.collect(), value)
}
