//! A real Prometheus that scrapes what a test tells it to.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::program::{Running, free_port};

/// A Prometheus that runs, and its HTTP API.
#[derive(Debug)]
pub struct Prometheus {
    address: String,
    client: reqwest::Client,
    _process: Running,
}

impl Prometheus {
    /// Starts one in `home` that scrapes every 500 ms; `jobs` are the entries of `scrape_configs`.
    #[must_use]
    pub fn start(home: &Path, jobs: &str) -> Self {
        let config = home.join("prometheus.yml");
        let text = format!(
            "global: {{scrape_interval: 500ms, scrape_timeout: 500ms}}\nscrape_configs:\n{jobs}"
        );
        std::fs::write(&config, text).unwrap();
        let address = format!("127.0.0.1:{}", free_port());
        let mut command = Command::new("prometheus");
        command.arg(format!("--config.file={}", config.display()));
        command.arg(format!(
            "--storage.tsdb.path={}",
            home.join("tsdb").display()
        ));
        command.arg(format!("--web.listen-address={address}"));
        Self {
            address,
            client: reqwest::Client::builder().no_proxy().build().unwrap(),
            _process: Running::start("prometheus", &mut command),
        }
    }

    /// Labels and value of each row that a query gives now.
    ///
    /// # Errors
    /// When nobody answers, or what was answered instead.
    pub async fn ask(&self, query: &str) -> Result<Vec<(Value, String)>, String> {
        let answer = self.get(&format!("query?query={}", encoded(query))).await?;
        let rows = answer["data"]["result"]
            .as_array()
            .ok_or_else(|| answer.to_string())?;
        let value = |row: &Value| row["value"][1].as_str().unwrap_or("").to_owned();
        Ok(rows
            .iter()
            .map(|row| (row["metric"].clone(), value(row)))
            .collect())
    }

    /// What Grafana's `label_values(SERIES, LABEL)` gives.
    ///
    /// # Errors
    /// When nobody answers, or what was answered instead.
    pub async fn label_values(&self, series: &str, label: &str) -> Result<Vec<String>, String> {
        let path = format!("label/{label}/values?match%5B%5D={}", encoded(series));
        let answer = self.get(&path).await?;
        let values = answer["data"]
            .as_array()
            .ok_or_else(|| answer.to_string())?;
        let text = |value: &Value| value.as_str().unwrap_or("").to_owned();
        Ok(values.iter().map(text).collect())
    }

    async fn get(&self, path: &str) -> Result<Value, String> {
        let url = format!("http://{}/api/v1/{path}", self.address);
        let answer = self.client.get(url).send().await;
        let answer = answer.map_err(|error| error.to_string())?;
        answer.json().await.map_err(|error| error.to_string())
    }
}

/// Percent-encoded, whatever it is.
fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}
