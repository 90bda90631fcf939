//! The commands `quiesce` and `resume`: they ask the agent that runs with a directory.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use super::{Answer, LONGEST_LINE, Request, SOCKET};
use crate::state::StateFolder;

/// Longer than the agent takes for anything.
const PATIENCE: Duration = Duration::from_secs(15);

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

/// Asks the agent that runs with this state directory; `None` when none runs, so that nothing of it is open.
///
/// # Errors
/// When it cannot be asked, or cannot do it.
pub fn ask(state: &Path, request: &Request) -> Result<Option<Answer>, ControlError> {
    let socket = state.join(SOCKET);
    let unreachable = |source| ControlError::Unreachable {
        socket: socket.display().to_string(),
        source,
    };
    let stream = match UnixStream::connect(&socket) {
        Ok(stream) => stream,
        Err(error) if is_absence(&error) && !StateFolder::is_held(state) => return Ok(None),
        Err(error) => return Err(unreachable(error)),
    };
    let line = exchange(stream, request).map_err(unreachable)?;
    let answer: Answer = serde_json::from_slice(&line)?;
    match answer {
        Answer { done: true, .. } => Ok(Some(answer)),
        Answer {
            error: Some(error), ..
        } => Err(ControlError::Refused(error)),
        Answer { open, .. } => Err(ControlError::Open(open)),
    }
}

fn is_absence(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
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
