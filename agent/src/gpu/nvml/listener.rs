//! The thread that waits for driver events: XIDs, changes of the MIG layout and what newer drivers add.
//!
//! It has a gate of its own, so that a wait that hangs or fails is a matter of the events and never of the readings. It
//! registers whole GPUs only, the ones that are read; NVML tells their instances' events with the ids.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device, Nvml};
use nvml_wrapper_sys::bindings as sys;

use super::code;
use crate::gpu::bulletin::Bulletin;
use crate::gpu::event::{Ear, EventsState, Happening};
use crate::gpu::gate::Gate;
use crate::gpu::protocol::Target;
use crate::gpu::raw::events::{EventSet, RawEvent, address, shutdown, supported};

/// How long one wait for an event takes at most: the worker's end waits for it.
pub(in crate::gpu) const WAIT_MS: u32 = 500;
/// How long a GPU that could not be registered is left alone.
const AGAIN: Duration = Duration::from_secs(60);
/// First and longest pause after a failure.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// Events in a row after which the thread rests, so that a storm takes no processor.
const IN_A_ROW: u32 = 64;
const REST: Duration = Duration::from_millis(50);

const WANTED: u64 = (sys::nvmlEventTypeXidCriticalError
    | sys::nvmlEventMigConfigChange
    | sys::nvmlEventTypeSingleBitEccErrorStorm
    | sys::nvmlEventTypeDramRetirementEvent
    | sys::nvmlEventTypeDramRetirementFailure
    | sys::nvmlEventTypeNonFatalPoisonError
    | sys::nvmlEventTypeFatalPoisonError
    | sys::nvmlEventTypeGpuUnavailableError
    | sys::nvmlEventTypeGpuRecoveryAction) as u64;
const XID: u64 = sys::nvmlEventTypeXidCriticalError as u64;
const MIG_CHANGE: u64 = sys::nvmlEventMigConfigChange as u64;

/// What the thread is to do.
#[derive(Debug, Default)]
pub(in crate::gpu) struct Orders {
    orders: Mutex<Order>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Order {
    /// UUID and PCI bus id of the GPUs that are read.
    gpus: Vec<(String, String)>,
    version: u64,
    stop: bool,
    ended: bool,
}

impl Orders {
    /// The GPUs that are read now.
    pub(in crate::gpu) fn watch<'g>(&self, gpus: impl Iterator<Item = (&'g str, &'g str)> + Clone) {
        let mut order = self.lock();
        let mut known = order.gpus.iter();
        let mut same = |(uuid, pci)| known.next().is_some_and(|(u, p)| u == uuid && p == pci);
        if gpus.clone().all(&mut same) && known.next().is_none() {
            return;
        }
        order.gpus = gpus
            .map(|(uuid, pci)| (uuid.to_owned(), pci.to_owned()))
            .collect();
        order.version += 1;
        self.changed.notify_all();
    }

    /// Ends the thread; `false` when it does not come back in time.
    pub(in crate::gpu) fn stop(&self, within: Duration) -> bool {
        let mut order = self.lock();
        order.stop = true;
        self.changed.notify_all();
        let ended = self
            .changed
            .wait_timeout_while(order, within, |order| !order.ended);
        ended.unwrap_or_else(PoisonError::into_inner).0.ended
    }

    /// Sleeps until there are other orders than `version` (`None`: than now); `true` when they are to stop.
    fn rest(&self, pause: Duration, version: Option<u64>) -> bool {
        let order = self.lock();
        let version = version.unwrap_or(order.version);
        let same = |order: &mut Order| !order.stop && order.version == version;
        let order = self.changed.wait_timeout_while(order, pause, same);
        order.unwrap_or_else(PoisonError::into_inner).0.stop
    }

    fn end(&self) {
        self.lock().ended = true;
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Order> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a session with the driver ended.
enum End {
    Stopped,
    Failed(&'static str, NvmlError),
}

/// Listens until it is told to stop.
pub(in crate::gpu) fn listen(nvml: &'static Nvml, gate: &Gate, orders: &Orders, news: &Bulletin) {
    let listener = Listener {
        nvml,
        gate,
        orders,
        news,
    };
    let mut pause = PAUSES.0;
    loop {
        let heard = news.heard();
        match listener.session() {
            End::Stopped => break,
            End::Failed(call, error) => {
                news.set_state(EventsState::Failing {
                    call: call.to_owned(),
                    code: code(&error),
                });
                pause = if news.heard() > heard {
                    PAUSES.0
                } else {
                    (pause * 2).min(PAUSES.1)
                };
                if orders.rest(pause, None) {
                    break;
                }
            }
        }
    }
    orders.end();
}

struct Listener<'o> {
    nvml: &'static Nvml,
    gate: &'o Gate,
    orders: &'o Orders,
    news: &'o Bulletin,
}

/// A GPU in the set.
struct Registered {
    uuid: String,
    handle: usize,
    /// It has events at all.
    speaks: bool,
}

impl Listener<'_> {
    fn session(&self) -> End {
        self.gate.aim(None);
        let set = match self
            .gate
            .call("nvmlEventSetCreate", || EventSet::create(self.nvml))
        {
            Ok(set) => set,
            Err(error) => return self.without(error),
        };
        let end = self.serve(&set);
        self.gate.aim(None);
        self.gate.call("nvmlEventSetFree", || set.free());
        end
    }

    /// A library without event sets is left alone until the worker ends.
    fn without(&self, error: NvmlError) -> End {
        if !matches!(
            error,
            NvmlError::FailedToLoadSymbol(_)
                | NvmlError::FunctionNotFound
                | NvmlError::NotSupported
        ) {
            return End::Failed("nvmlEventSetCreate", error);
        }
        self.news.set_state(EventsState::Unsupported);
        while !self.orders.rest(AGAIN, None) {}
        End::Stopped
    }

    fn serve(&self, set: &EventSet) -> End {
        let mut registered: Vec<Registered> = Vec::new();
        let mut version = None;
        let mut in_a_row = 0;
        let mut waits = 0_u32;
        let mut state = EventsState::Starting;
        loop {
            let order = {
                let order = self.orders.lock();
                if order.stop {
                    return End::Stopped;
                }
                let missing = registered.len() < order.gpus.len();
                let again = missing
                    && Duration::from_millis(u64::from(waits) * u64::from(WAIT_MS)) >= AGAIN;
                let now = order.version;
                (version != Some(now) || again).then(|| (order.gpus.clone(), now))
            };
            if let Some((gpus, now)) = order {
                version = Some(now);
                waits = 0;
                state = self.register(set, &gpus, &mut registered);
            }
            if !registered.iter().any(|gpu| gpu.speaks) {
                if self.orders.rest(AGAIN, version) {
                    return End::Stopped;
                }
                version = None;
                continue;
            }
            match self.gate.call("nvmlEventSetWait_v2", || set.wait(WAIT_MS)) {
                Ok(None) => {
                    in_a_row = 0;
                    waits = waits.saturating_add(1);
                }
                Ok(Some(event)) => {
                    self.note(event, &registered);
                    in_a_row += 1;
                    if in_a_row >= IN_A_ROW {
                        in_a_row = 0;
                        self.orders.rest(REST, version);
                    }
                }
                // Also when one GPU is lost: the next set has the others.
                Err(error) => return End::Failed("nvmlEventSetWait_v2", error),
            }
            self.news.set_state(state.clone());
        }
    }

    fn register(
        &self,
        set: &EventSet,
        gpus: &[(String, String)],
        registered: &mut Vec<Registered>,
    ) -> EventsState {
        let mut ears = BTreeMap::new();
        registered.retain(|known| gpus.iter().any(|(uuid, _)| *uuid == known.uuid));
        for (uuid, pci) in gpus {
            if registered.iter().any(|known| known.uuid == *uuid) {
                continue;
            }
            self.gate.aim(Some(Target::Pci(pci.clone())));
            // One that does not answer is shown by the readings; its events are asked for again later.
            match self.register_one(set, uuid, pci) {
                Ok(gpu) => registered.push(gpu),
                Err((call, error)) => {
                    let (call, code) = (call.to_owned(), code(&error));
                    ears.insert(uuid.clone(), Ear::Failed { call, code });
                }
            }
        }
        self.gate.aim(None);
        let failed = !ears.is_empty();
        let ear = |gpu: &Registered| match gpu.speaks {
            true => Ear::Registered,
            false => Ear::Unsupported,
        };
        ears.extend(registered.iter().map(|gpu| (gpu.uuid.clone(), ear(gpu))));
        let state = match registered.iter().any(|gpu| gpu.speaks) {
            true if failed => EventsState::Partly,
            true => EventsState::Listening,
            false if failed || ears.is_empty() => EventsState::Starting,
            false => EventsState::Unsupported,
        };
        self.news.set_gpus(state.clone(), ears);
        state
    }

    fn register_one(
        &self,
        set: &EventSet,
        uuid: &str,
        pci: &str,
    ) -> Result<Registered, (&'static str, NvmlError)> {
        let of = |call| move |error| (call, error);
        let find = "nvmlDeviceGetHandleByPciBusId_v2";
        let device: Device<'static> = self
            .gate
            .call(find, || self.nvml.device_by_pci_bus_id(pci))
            .map_err(of(find))?;
        let kinds = match self
            .gate
            .call("nvmlDeviceGetSupportedEventTypes", || supported(&device))
        {
            Ok(kinds) => kinds & WANTED,
            // A driver that cannot say has XIDs, if anything.
            Err(NvmlError::FailedToLoadSymbol(_) | NvmlError::FunctionNotFound) => XID,
            Err(NvmlError::NotSupported) => 0,
            Err(error) => return Err(("nvmlDeviceGetSupportedEventTypes", error)),
        };
        let mut speaks = kinds != 0;
        if speaks {
            match self
                .gate
                .call("nvmlDeviceRegisterEvents", || set.register(&device, kinds))
            {
                Ok(()) => {}
                Err(NvmlError::NotSupported | NvmlError::FailedToLoadSymbol(_)) => speaks = false,
                Err(error) => return Err(("nvmlDeviceRegisterEvents", error)),
            }
        }
        let handle = address(&device);
        Ok(Registered {
            uuid: uuid.to_owned(),
            handle,
            speaks,
        })
    }

    fn note(&self, event: RawEvent, registered: &[Registered]) {
        let what = match event.kind {
            XID => Happening::Xid(event.data),
            MIG_CHANGE => Happening::MigChange,
            other => Happening::Other(other),
        };
        let gpu = registered.iter().find(|gpu| gpu.handle == event.device);
        self.news
            .add(gpu.map_or("", |gpu| &gpu.uuid), what, event.gi, event.ci);
    }
}

/// Frees nothing and calls nothing but the driver's own end.
pub(in crate::gpu) fn close(nvml: &'static Nvml, gate: &Gate) {
    gate.call("nvmlShutdown", || shutdown(nvml));
}
