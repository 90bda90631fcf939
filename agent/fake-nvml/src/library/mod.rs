//! The library behind the C functions: what every call goes through, whatever it asks.
//!
//! A call (1) reads the scenario if it changed, (2) pays its cost, (3) is refused when missing or before init,
//! (4) suffers the faults planted for it, (5) is refused when its GPU is lost, and only then (6) answers. No lock is
//! held from one step to the next, so a call that hangs hangs alone.

mod alive;
mod code;
mod devices;
mod events;
mod faults;
mod gpm;
mod source;
mod vgpus;

use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock;
use crate::scenario::{Gpu, Scenario, Vgpu};

pub(crate) use code::{Answer, Code, text as error_text};
pub(crate) use devices::{Device, bytes};
pub(crate) use events::Arrived;
pub(crate) use gpm::Activity;

use alive::Alive;
use devices::{Handles, Target};
use events::EventSets;
use faults::Faults;
use gpm::Gpm;
use source::Source;
use vgpus::VgpuNumbers;

/// A process has one NVML, however often it initialises it.
static LIBRARY: LazyLock<Library> = LazyLock::new(Library::default);

pub(crate) fn library() -> &'static Library {
    &LIBRARY
}

#[derive(Default)]
pub(crate) struct Library {
    source: Source,
    references: Mutex<u32>,
    handles: Handles,
    vgpus: VgpuNumbers,
    faults: Faults,
    pub(crate) events: EventSets,
    pub(crate) alive: Alive,
    pub(crate) gpm: Gpm,
}

impl Library {
    /// `nvmlInit*`: counts references; the first one looks up which scenario to play.
    pub(crate) fn init(&self, function: &str) -> u32 {
        let answer = || {
            if *hold(&self.references) == 0 {
                self.source.open();
            }
            let scenario = self.pay(function)?;
            let scenario = self.suffer(function, None, scenario)?;
            if scenario.init_return != 0 {
                return Err(Code(scenario.init_return));
            }
            *hold(&self.references) += 1;
            Ok(())
        };
        code::word(answer())
    }

    /// `nvmlShutdown`: the last reference forgets event sets and watched processes.
    pub(crate) fn shutdown(&self, function: &str) -> u32 {
        self.call(function, |_| {
            let mut references = hold(&self.references);
            *references = references.saturating_sub(1);
            if *references == 0 {
                self.events.clear();
                self.alive.clear();
                self.gpm.clear();
            }
            Ok(())
        })
    }

    /// A call that is about no device in particular.
    pub(crate) fn call(&self, function: &str, body: impl FnOnce(&Scenario) -> Answer) -> u32 {
        let answer = || {
            let scenario = self.enter(function)?;
            let scenario = self.suffer(function, None, scenario)?;
            body(&scenario)
        };
        code::word(answer())
    }

    /// A call with a device handle.
    pub(crate) fn device_call(
        &self,
        function: &str,
        handle: usize,
        body: impl FnOnce(&Device<'_>) -> Answer,
    ) -> u32 {
        let answer = || {
            let scenario = self.enter(function)?;
            let target = self.handles.target(handle).ok_or(Code::INVALID_ARGUMENT)?;
            let scenario = self.suffer(function, Some(&target), scenario)?;
            let device = Device::of(&scenario, &target)?;
            device.reachable()?;
            body(&device)
        };
        code::word(answer())
    }

    /// A call that gives out a handle; faults and loss are those of the device that was found.
    pub(crate) fn lookup(
        &self,
        function: &str,
        find: impl for<'a> Fn(&'a Scenario) -> Answer<Device<'a>>,
        give: impl FnOnce(usize) -> Answer,
    ) -> u32 {
        let answer = || {
            let scenario = self.enter(function)?;
            let target = find(&scenario)?.target();
            let scenario = self.suffer(function, Some(&target), scenario)?;
            find(&scenario)?.reachable()?;
            give(self.handles.handle(target))
        };
        code::word(answer())
    }

    /// The handle of a device that another call found.
    pub(crate) fn handle_of(&self, device: &Device<'_>) -> usize {
        self.handles.handle(device.target())
    }

    /// The handle of a GPU instance.
    pub(crate) fn instance_handle(&self, gpu: &Gpu, gi: u32) -> usize {
        self.handles.handle(devices::instance_target(gpu, gi))
    }

    /// A call with the handle of a GPU instance. The body sees its GPU and its id; it may be gone.
    pub(crate) fn instance_call(
        &self,
        function: &str,
        handle: usize,
        body: impl FnOnce(&Device<'_>, u32) -> Answer,
    ) -> u32 {
        let answer = || {
            let scenario = self.enter(function)?;
            let instance = self.handles.target(handle).ok_or(Code::INVALID_ARGUMENT)?;
            let (target, gi) = instance.of_instance().ok_or(Code::INVALID_ARGUMENT)?;
            let scenario = self.suffer(function, Some(&target), scenario)?;
            let device = Device::of(&scenario, &target)?;
            device.reachable()?;
            body(&device, gi)
        };
        code::word(answer())
    }

    /// A call about a vGPU instance; one that ended is not found.
    pub(crate) fn vgpu_call(
        &self,
        function: &str,
        number: u32,
        body: impl FnOnce(&Gpu, &Vgpu) -> Answer,
    ) -> u32 {
        let answer = || {
            let scenario = self.enter(function)?;
            let uuid = self.vgpus.uuid(number)?;
            let target = vgpus::find(&scenario, &uuid).map(vgpus::target);
            let scenario = self.suffer(function, target.as_ref(), scenario)?;
            let (gpu, vgpu) = vgpus::find(&scenario, &uuid).ok_or(Code::NOT_FOUND)?;
            if gpu.lost {
                return Err(Code::GPU_IS_LOST);
            }
            body(gpu, vgpu)
        };
        code::word(answer())
    }

    /// The number of a vGPU instance.
    pub(crate) fn vgpu_number(&self, vgpu: &Vgpu) -> u32 {
        self.vgpus.number(&vgpu.uuid)
    }

    /// The scenario as it is now, for calls that wait.
    pub(crate) fn current(&self) -> Answer<Arc<Scenario>> {
        self.source.current().ok_or(Code::DRIVER_NOT_LOADED)
    }

    fn enter(&self, function: &str) -> Answer<Arc<Scenario>> {
        if *hold(&self.references) == 0 {
            return Err(Code::UNINITIALIZED);
        }
        self.pay(function)
    }

    fn pay(&self, function: &str) -> Answer<Arc<Scenario>> {
        let scenario = self.current()?;
        clock::spend(Duration::from_micros(scenario.call_cost_us));
        if scenario.missing_symbols.iter().any(|name| name == function) {
            return Err(Code::FUNCTION_NOT_FOUND);
        }
        Ok(scenario)
    }

    /// Plays the faults; afterwards the scenario may be another one.
    fn suffer(
        &self,
        function: &str,
        target: Option<&Target>,
        scenario: Arc<Scenario>,
    ) -> Answer<Arc<Scenario>> {
        let hits = self.faults.hits(function, target, &scenario);
        if hits.is_empty() {
            return Ok(scenario);
        }
        for fault in &hits {
            faults::play(fault, || self.source.current())?;
        }
        self.current()
    }
}

/// A thread that panicked while it held one of our locks left nothing half done: they guard plain tables.
fn hold<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
