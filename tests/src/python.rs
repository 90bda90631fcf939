//! Published clients: Python programs in the environment that `tests/run` makes from `tests/python/requirements.txt`.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::repository;
use crate::skip::skipped;

const VARIABLE: &str = "GPUQUOTA_TEST_PYTHON";

/// That environment.
#[derive(Clone, Debug)]
pub struct Python {
    interpreter: PathBuf,
}

impl Python {
    /// Says aloud that `test` was left out where there is none.
    #[must_use]
    pub fn found(test: &str) -> Option<Self> {
        let Some(interpreter) = std::env::var_os(VARIABLE) else {
            let why = format!(
                "{VARIABLE} names no Python with the published clients; tests/run makes one"
            );
            skipped(test, &why);
            return None;
        };
        Some(Self {
            interpreter: interpreter.into(),
        })
    }

    /// A program of the environment by its name.
    #[must_use]
    pub fn program(&self, name: &str) -> Command {
        let folder = self.interpreter.parent().unwrap();
        client(&folder.join(name), None)
    }

    /// The interpreter, trusting this authority.
    #[must_use]
    pub fn interpreter(&self, ca: Option<&Path>) -> Command {
        client(&self.interpreter, ca)
    }

    /// Runs a script of `tests/python` that reads one JSON text and writes one.
    #[must_use]
    pub fn run(&self, script: &str, asked: &Value) -> Value {
        let mut command = self.interpreter(None);
        command.arg(repository::root().join("tests/python").join(script));
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(asked.to_string().as_bytes()).unwrap();
        drop(stdin);
        let output = child.wait_with_output().unwrap();
        let (out, err) = (
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        );
        assert!(output.status.success(), "{script}: {out}{err}");
        serde_json::from_str(&out).unwrap_or_else(|e| panic!("{script}: {e}: {out}{err}"))
    }
}

/// A client program that nothing in this process's environment changes, such as a proxy; it trusts `ca` where it is said.
#[must_use]
pub fn client(program: &Path, ca: Option<&Path>) -> Command {
    let mut command = Command::new(program);
    let path = std::env::var_os("PATH").unwrap_or_default();
    command
        .env_clear()
        .env("PATH", path)
        .env("HOME", "/nonexistent");
    command
        .env("LANG", "C.UTF-8")
        .env("PYTHONDONTWRITEBYTECODE", "1");
    if let Some(ca) = ca {
        command.env("REQUESTS_CA_BUNDLE", ca);
        command.env("CURL_CA_BUNDLE", ca);
    }
    command
}
