//! What the agent and its worker process say to each other: one line of JSON each way.
//!
//! The agent writes `sample` or `sample more`; the worker answers with one [`Answer`]. The worker's watchdog may write
//! `Hung` in between, and before each of them may stand `News`.
//! End of file on the worker's standard input ends the worker.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::event::News;
use super::reading::{NvmlState, Reading};

/// The request for one pass over NVML.
pub const SAMPLE: &[u8] = b"sample\n";
/// The same with the figures that few ask for.
pub const SAMPLE_MORE: &[u8] = b"sample more\n";

/// Longest answer that the agent accepts, bytes. 8 GPUs with 1,000 processes each stay far below.
pub const ANSWER_LIMIT: u64 = 16 * 1024 * 1024;

/// A line from the worker.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// One pass succeeded, perhaps with GPUs that are marked lost.
    Reading {
        /// What was seen.
        reading: Reading,
        /// GPUs that NVML counts but does not give a handle for, so that not even their UUID is known.
        unidentified: u32,
        /// The newest NVML return code other than success and "not supported"; `None` when all went well.
        code: Option<u32>,
        /// NVML calls that this pass made.
        calls: u64,
    },
    /// NVML as a whole does not answer; the worker ends after this.
    Failed {
        /// Why.
        state: NvmlState,
        /// NVML's return code, where there was one.
        code: Option<u32>,
    },
    /// The call in progress passed its deadline. The worker may be stuck for ever.
    Hung {
        /// C name of the function.
        call: String,
        /// The GPU it was about; `None` for calls about the node.
        target: Option<Target>,
    },
    /// Another library lies on disk than the worker has loaded; sent before an answer, again and again.
    Outdated {
        /// What is different.
        what: String,
    },
    /// What the driver told by itself; sent before another answer.
    News(News),
    /// The worker turns to this GPU. Sent only with `--announce`, to find a GPU that crashes the library.
    On {
        /// Which.
        target: Target,
    },
}

/// How a GPU is addressed on the worker's command line.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// PCI bus id, e.g. `00000000:18:00.0`; upper or lower case.
    Pci(String),
    /// NVML index, written `#3`: for a GPU that hung before it told its bus id.
    Index(u32),
}

impl Target {
    /// Whether a GPU with these is meant.
    #[must_use]
    pub fn is(&self, pci: &str, index: u32) -> bool {
        match self {
            Self::Pci(own) => own.eq_ignore_ascii_case(pci),
            Self::Index(own) => *own == index,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pci(pci) => f.write_str(pci),
            Self::Index(index) => write!(f, "#{index}"),
        }
    }
}

/// The text is neither a PCI bus id nor `#` and an index.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is neither a PCI bus id such as 00000000:18:00.0 nor #INDEX")]
pub struct NoTarget(String);

impl FromStr for Target {
    type Err = NoTarget;

    fn from_str(text: &str) -> Result<Self, NoTarget> {
        let refuse = || NoTarget(text.to_owned());
        if let Some(index) = text.strip_prefix('#') {
            return index.parse().map(Self::Index).map_err(|_| refuse());
        }
        let plain = |b: u8| b.is_ascii_hexdigit() || b == b':' || b == b'.';
        if text.contains(':') && text.len() <= 16 && text.bytes().all(plain) {
            return Ok(Self::Pci(text.to_owned()));
        }
        Err(refuse())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_survive_the_command_line() {
        for text in ["00000000:18:00.0", "#7"] {
            assert_eq!(text.parse::<Target>().unwrap().to_string(), text);
        }
        for text in ["", "7", "#", "#-1", "--only", "18:00.0; rm", "GPU-1"] {
            assert!(text.parse::<Target>().is_err(), "{text}");
        }
        assert!(Target::Pci("00000000:AB:00.0".into()).is("00000000:ab:00.0", 9));
    }

    #[test]
    fn an_answer_is_one_line() {
        let answer = Answer::Failed {
            state: NvmlState::Broken("two\nlines".into()),
            code: Some(999),
        };
        let text = serde_json::to_string(&answer).unwrap();
        assert!(!text.contains('\n'));
        assert!(matches!(
            serde_json::from_str(&text).unwrap(),
            Answer::Failed { state: NvmlState::Broken(detail), code: Some(999) } if detail == "two\nlines"
        ));
    }
}
