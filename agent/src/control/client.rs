//! The commands `quiesce` and `resume`: they ask the agent that runs with a directory, and leave the order for the next one where none
//! does.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use super::quiet::Quiet;
use super::{Answer, LONGEST_LINE, Request, SOCKET};
use crate::clock::boottime_ms;
use crate::state::{StateFolder, enter_folder};

/// Longer than the agent takes for anything.
const PATIENCE: Duration = Duration::from_secs(15);
/// An agent that starts holds its folder so long before it listens, at most: looks, and the pause between two.
const START_LOOKS: u32 = 40;
const START_LOOK: Duration = Duration::from_millis(50);

/// Why the agent was not asked, or could not do it.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The socket.
    #[error(
        "cannot reach the agent at {socket}: {source} (run this as root or as the agent's user)"
    )]
    Unreachable {
        /// Which.
        socket: String,
        /// Why.
        source: io::Error,
    },
    /// No answer within the time.
    #[error(
        "the agent has not answered in time; unless it had begun already, the order is withdrawn with this command: ask again"
    )]
    Late,
    /// The order could not be left for the next agent.
    #[error(
        "no agent runs with {state}, and the order cannot be kept there for one that starts: {source}"
    )]
    Unkept {
        /// The state directory.
        state: String,
        /// Why.
        source: io::Error,
    },
    /// The answer is none.
    #[error("the agent's answer is not understood: {0}")]
    Answer(#[from] serde_json::Error),
    /// It says no.
    #[error("the agent refuses: {0}")]
    Refused(String),
    /// Something of it is stuck in the driver.
    #[error("the driver does not let go of the agent's processes {pids:?}; end what hangs in it, or reboot", pids = .0)]
    Open(Vec<u32>),
}

/// What came of an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The agent that runs obeyed.
    Obeyed(Answer),
    /// None runs; one that starts obeys.
    Kept(Quiet),
    /// None runs, and `resume` found an order (true) or none.
    Forgotten(bool),
}

/// Gives the order to the agent that runs with this state directory; where none runs, keeps it for one that starts.
///
/// # Errors
/// When the agent cannot be asked or cannot do it, or the order cannot be kept.
pub fn order(state: &Path, request: &Request, boot_id: &str) -> Result<Outcome, ControlError> {
    if let Some(answer) = ask(state, request)? {
        return Ok(Outcome::Obeyed(answer));
    }
    let unkept = |source| ControlError::Unkept {
        state: state.display().to_string(),
        source,
    };
    let outcome = match request.clone().within_limits() {
        Request::Quiesce { for_ms, reason } => {
            let quiet = Quiet::begin(boot_id.to_owned(), for_ms, reason, boottime_ms());
            let kept = enter_folder(state).map_err(io::Error::other);
            kept.and_then(|()| quiet.save(state)).map_err(unkept)?;
            Outcome::Kept(quiet)
        }
        Request::Resume => Outcome::Forgotten(Quiet::clear(state).map_err(unkept)?),
    };
    // An agent that starts listens before it looks for what was kept: one that came too early to see it is reached now.
    Ok(ask(state, request)?.map_or(outcome, Outcome::Obeyed))
}

/// Asks the agent that runs with this state directory; `None` when none runs, so that nothing of it is open.
fn ask(state: &Path, request: &Request) -> Result<Option<Answer>, ControlError> {
    let socket = state.join(SOCKET);
    let unreachable = |source| ControlError::Unreachable {
        socket: socket.display().to_string(),
        source,
    };
    let Some(stream) = connect(state, &socket).map_err(unreachable)? else {
        return Ok(None);
    };
    let line = match exchange(stream, request) {
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
            ) =>
        {
            return Err(ControlError::Late);
        }
        line => line.map_err(unreachable)?,
    };
    let answer: Answer = serde_json::from_slice(&line)?;
    match answer {
        Answer { done: true, .. } => Ok(Some(answer)),
        Answer {
            error: Some(error), ..
        } => Err(ControlError::Refused(error)),
        Answer { open, .. } => Err(ControlError::Open(open)),
    }
}

/// `None` when no agent holds the folder. One that holds it and does not listen may have just started.
fn connect(state: &Path, socket: &Path) -> io::Result<Option<UnixStream>> {
    let mut left = START_LOOKS;
    loop {
        match UnixStream::connect(socket) {
            Ok(stream) => return Ok(Some(stream)),
            Err(error) if !is_absence(&error) => return Err(error),
            Err(_) if !StateFolder::is_held(state) => return Ok(None),
            Err(error) if left == 0 => return Err(error),
            Err(_) => left -= 1,
        }
        std::thread::sleep(START_LOOK);
    }
}

fn is_absence(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::ConnectionRefused
    )
}

fn exchange(mut stream: UnixStream, request: &Request) -> io::Result<Vec<u8>> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    let mut answer = Vec::new();
    BufReader::new(stream)
        .take(LONGEST_LINE)
        .read_until(b'\n', &mut answer)?;
    Ok(answer)
}
