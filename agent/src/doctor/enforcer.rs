//! Whether the privileged half answers, and what it can do on this node.

use super::node::found;
use super::{Finding, Grade};
use crate::config::Config;
use crate::enforce::client::{AskError, Enforcer};
use crate::enforce::protocol::{Order, Reply};
use crate::policy::Mode;

/// And whether device rules keep programs off GPUs here; `None`: cannot be told.
pub(super) async fn examine(config: Option<&Config>) -> (Option<Finding>, Option<bool>) {
    let Some(config) = config else {
        return (None, None);
    };
    let socket = config.enforcement.socket.clone();
    let answer = Enforcer::new(socket).order(&Order::Can).await;
    let denies = denies(config.enforcement.most, &answer);
    (Some(graded(answer)), denies)
}

fn denies(most: Mode, answer: &Result<Reply, AskError>) -> Option<bool> {
    match answer {
        _ if most < Mode::Restrict => Some(false),
        Ok(Reply::Able { restrict, .. }) => Some(*restrict),
        Err(AskError::Away { .. }) => Some(false),
        Ok(_) | Err(_) => None,
    }
}

fn graded(answer: Result<Reply, AskError>) -> Finding {
    let id = "enforcer";
    match answer {
        Ok(Reply::Able {
            signal: true,
            restrict: true,
            enclose: true,
            ..
        }) => found(
            id,
            Grade::Ok,
            "signals verified processes, denies device nodes to control groups, and encloses commands under leases",
        ),
        Ok(Reply::Able {
            signal,
            restrict,
            lacking,
            ..
        }) => {
            let can = match (signal, restrict) {
                (true, true) => "does all but commands under leases (gpuquota-agent exec)",
                (true, false) => "signals only",
                (false, _) => "can do little",
            };
            found(id, Grade::Warn, format!("{can}: {}", lacking.join("; ")))
                .advise("mend what it lacks; until then the agent reports and does not do it")
        }
        // Only root and the agent's user are answered otherwise.
        Ok(other) => found(id, Grade::Unknown, format!("does not tell: {other:?}"))
            .advise("run doctor as the agent's user"),
        Err(error @ AskError::Away { .. }) => found(
            id,
            Grade::Warn,
            format!("not there, so that violations are reported and nothing is done: {error}"),
        )
        .advise("start gpuquota-enforcer.socket, or set `most = \"warn\"` in [enforcement]; run doctor as the agent's user"),
        Err(error) => found(id, Grade::Warn, error.to_string())
            .advise("see journalctl --unit=gpuquota-enforcer"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn able(signal: bool, restrict: bool, enclose: bool) -> Result<Reply, AskError> {
        Ok(Reply::Able {
            signal,
            restrict,
            enclose,
            lacking: vec!["no bpf file system".to_owned()],
        })
    }

    #[test]
    fn case_77_a_half_that_cannot_act_is_named_with_what_it_lacks() {
        assert_eq!(graded(able(true, true, true)).grade, Grade::Ok);
        for partly in [
            able(true, true, false),
            able(true, false, false),
            able(false, false, true),
        ] {
            let finding = graded(partly);
            assert_eq!(finding.grade, Grade::Warn);
            assert!(finding.found.contains("no bpf file system"));
        }
        let refused = Reply::Refused {
            detail: String::new(),
        };
        let refused = Ok(refused);
        for (most, answer, expected) in [
            (Mode::Warn, &able(true, true, true), Some(false)),
            (Mode::Restrict, &able(true, true, false), Some(true)),
            (Mode::Evict, &able(true, false, true), Some(false)),
            (Mode::Evict, &refused, None),
        ] {
            assert_eq!(denies(most, answer), expected, "{most:?} {answer:?}");
        }
        assert_eq!(graded(refused).grade, Grade::Unknown);
    }

    #[tokio::test]
    async fn case_77_nobody_at_the_socket_is_no_failure() {
        let nowhere = Enforcer::new("/nonexistent/enforcer.sock".into());
        let finding = graded(nowhere.order(&Order::Can).await);
        assert_eq!(finding.grade, Grade::Warn);
        assert!(finding.advice.unwrap().contains("gpuquota-enforcer.socket"));
    }
}
