//! The system manager of this host, asked over the system bus to make a scope (org.freedesktop.systemd1(5)).

use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::timeout;
use zbus::{Connection, Variant};

/// Connecting and an answer take at most this long, together.
const PATIENCE: Duration = Duration::from_secs(5);
const NAME: &str = "org.freedesktop.systemd1";
const PATH: &str = "/org/freedesktop/systemd1";
const INTERFACE: &str = "org.freedesktop.systemd1.Manager";

/// Starts a scope with this one process in this slice; the manager moves it soon after. Called where blocking is allowed.
///
/// # Errors
/// With why not, and what to do.
pub(super) fn start_scope(scope: &str, slice: &str, pid: u32) -> Result<(), String> {
    let description = format!("A command under a lease of gpuquota ({scope})");
    let properties = [
        ("Description", Variant::from(description)),
        ("Slice", Variant::from(slice.to_owned())),
        ("PIDs", Variant::from(vec![pid])),
        // A command that ended badly leaves no failed unit behind.
        ("CollectMode", Variant::from("inactive-or-failed")),
    ];
    let none: [(&str, Vec<(&str, Variant<'_>)>); 0] = [];
    let body = (scope, "fail", &properties[..], &none[..]);
    ask("StartTransientUnit", &body)
}

/// Whether the manager answers here; the text says why not.
pub(super) fn answers() -> Result<(), String> {
    ask("GetUnit", &("-.slice",))
}

fn ask<B>(method: &str, body: &B) -> Result<(), String>
where
    B: serde::Serialize + zbus::DynamicType + Sync,
{
    let runtime = Handle::try_current().map_err(|error| error.to_string())?;
    let asked = async {
        let bus = Connection::system().await?;
        bus.call_method(Some(NAME), PATH, Some(INTERFACE), method, body)
            .await
    };
    match runtime.block_on(async { timeout(PATIENCE, asked).await }) {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(format!(
            "systemd does not do {method} over the system bus (is dbus installed and running?): {error}"
        )),
        Err(_) => Err(format!(
            "systemd does not answer {method} over the system bus"
        )),
    }
}
