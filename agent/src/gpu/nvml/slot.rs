//! One GPU as the reader keeps it between passes, and the calls that make one row of a reading.

use nvml_wrapper::Device;
use nvml_wrapper::enum_wrappers::device::GpuVirtualizationMode;

use super::activity::Activities;
use super::ask::{Asker, Got};
use super::facts::Facts;
use super::figures::{self, GRAPHICS, INSTANCE_MEMORY_V2, MEMORY_V2, MPS, UTILIZATION};
use super::gauges::{self, Lacks};
use super::mig::{Instance, Mig};
use super::processes::{self, Listed};
use super::usage::Usage;
use super::vgpu::Vgpus;
use crate::gpu::raw::ProcessBuffer;
use crate::gpu::raw::usage::UsageBuffer;
use crate::gpu::reading::{Doubt, Glow, GpuProcess, GpuReading, Health, Memory, MigReading};

#[derive(Debug)]
pub(super) struct Slot<'n> {
    device: Device<'n>,
    /// The row without what changes from pass to pass.
    facts: GpuReading,
    slow: Facts,
    mig: Mig<'n>,
    vgpus: Vgpus,
    usage: Usage<'n>,
    activities: Activities<'n>,
    lacking: u8,
    lacking_gauges: Lacks,
    /// It is a vGPU, seen from within the virtual machine.
    guest: bool,
    /// `lacking` is known from a pass before.
    settled: bool,
    /// Instances that processes were seen on although no walk finds them; not a reason to walk again.
    puzzling: Vec<(u32, u32)>,
}

impl<'n> Slot<'n> {
    /// A GPU seen for the first time. Without a bus id it cannot be addressed, and is none.
    pub(super) fn new(
        asker: &mut Asker<'_>,
        device: Device<'n>,
        uuid: String,
        index: u32,
    ) -> Option<Self> {
        let pci = asker
            .ask("nvmlDeviceGetPciInfo_v3", || device.pci_info())
            .value()?;
        let name = asker.ask("nvmlDeviceGetName", || device.name()).value();
        let minor = asker
            .ask("nvmlDeviceGetMinorNumber", || device.minor_number())
            .value();
        let facts = GpuReading {
            uuid,
            pci_bus_id: pci.bus_id,
            index,
            minor,
            name,
            health: Health::Ok,
            ..GpuReading::default()
        };
        let slow = Facts::new(asker, &device, &facts.pci_bus_id);
        Some(Self {
            device,
            facts,
            slow,
            mig: Mig::default(),
            vgpus: Vgpus::default(),
            usage: Usage::default(),
            activities: Activities::default(),
            lacking: 0,
            lacking_gauges: Lacks::default(),
            guest: false,
            settled: false,
            puzzling: Vec::new(),
        })
    }

    pub(super) fn uuid(&self) -> &str {
        &self.facts.uuid
    }

    pub(super) fn pci(&self) -> &str {
        &self.facts.pci_bus_id
    }

    pub(super) fn index(&self) -> u32 {
        self.facts.index
    }

    /// The same GPU under a new handle or index.
    pub(super) fn readdress(&mut self, device: Device<'n>, index: u32) {
        self.device = device;
        self.facts.index = index;
    }

    /// The next look asks everything about the instances, and what was measured before it is of another epoch.
    pub(super) fn expect_another_layout(&mut self) {
        self.mig.thorough = true;
        self.usage.forget();
    }

    /// Modes and instances anew.
    pub(super) fn look(&mut self, asker: &mut Asker<'_>, retry_lacking: bool) {
        if retry_lacking {
            self.lacking = 0;
            self.lacking_gauges = Lacks::default();
            self.settled = false;
            self.puzzling.clear();
            self.vgpus.retry();
            self.mig.retry();
            self.usage.retry();
            self.activities.retry();
            self.slow.refresh(asker, &self.device);
        }
        self.vgpus.look();
        self.look_at_mode(asker);
        let before = self.facts.mig_enabled;
        match asker.ask("nvmlDeviceGetMigMode", || self.device.mig_mode()) {
            Got::Value(mode) => self.facts.mig_enabled = Some(mode.current == 1),
            Got::Lacking => self.facts.mig_enabled = Some(false),
            Got::Unknown => {}
        }
        if before != self.facts.mig_enabled {
            self.lacking = 0;
            self.lacking_gauges = Lacks::default();
            self.settled = false;
            // Changing the mode may give the GPU another device node.
            let minor = asker.ask("nvmlDeviceGetMinorNumber", || self.device.minor_number());
            self.facts.minor = minor.value().or(self.facts.minor);
        }
        if self.facts.mig_enabled == Some(true) {
            if self.mig.look(asker, &self.device) {
                self.usage.forget();
                self.activities.forget();
            }
        } else {
            self.mig.forget();
            self.usage.forget();
        }
    }

    /// Whether it is cut into vGPUs. Of another mode nothing more is asked, so what it costs is one call a look.
    fn look_at_mode(&mut self, asker: &mut Asker<'_>) {
        let mode = asker.ask("nvmlDeviceGetVirtualizationMode", || {
            self.device.virtualization_mode()
        });
        let host = match mode {
            Got::Value(GpuVirtualizationMode::HostVgpu | GpuVirtualizationMode::HostVsga) => true,
            Got::Value(
                GpuVirtualizationMode::Bare
                | GpuVirtualizationMode::PassThrough
                | GpuVirtualizationMode::Vgpu,
            )
            | Got::Lacking => false,
            Got::Unknown => return,
        };
        self.guest = matches!(mode, Got::Value(GpuVirtualizationMode::Vgpu));
        self.facts.vgpu_host = Some(host);
    }

    /// One row; with `more`, also what few ask for.
    pub(super) fn read(
        &mut self,
        asker: &mut Asker<'_>,
        buffer: &mut ProcessBuffer,
        usage: &mut UsageBuffer,
        more: bool,
    ) -> GpuReading {
        let mut row = self.facts.clone();
        row.memory = self.memory(asker);
        let before = self.lacking;
        row.glow = figures::glow(asker, &self.device, &mut self.lacking);
        // In MIG mode there is no utilisation, so losing it means that the GPU was switched over.
        let switched = self.settled && self.lacking & !before & UTILIZATION != 0;
        self.read_holders(asker, buffer, &mut row);
        let mut memories = self.instance_memories(asker);
        let outdated = switched || self.outdated(&memories, row.processes.as_deref());
        if outdated && !asker.over() {
            self.look(asker, false);
            row.mig_enabled = self.facts.mig_enabled;
            row.vgpu_host = self.facts.vgpu_host;
            row.minor = self.facts.minor;
            // Ids of instances are given again: who stood on the old ones must not be found on the new ones.
            self.read_holders(asker, buffer, &mut row);
            memories = self.instance_memories(asker);
        }
        self.ask_more(asker, &mut row, more);
        self.remember(&memories, row.processes.as_deref());
        self.settled = true;
        row.instances = self.rows(&memories);
        self.ask_usage(asker, usage, &mut row);
        // Not told how it is cut, it must not pass for one that is whole.
        let unknown_cut = self.facts.mig_enabled.zip(self.facts.vgpu_host).is_none();
        if unknown_cut || self.facts.mig_enabled == Some(true) && self.mig.uncertain {
            row.doubts.push(Doubt::Instances);
            asker.stale = true;
        }
        if asker.lost {
            row.health = Health::Lost;
            row.memory = None;
            row.glow = Glow::default();
            row.gauges = None;
            row.activities = Vec::new();
            row.processes = None;
            row.vgpus = None;
            row.doubts = Vec::new();
        } else {
            row.facts = self.slow.news();
        }
        row
    }

    /// Who is on it: processes, and vGPUs on a host.
    fn read_holders(
        &mut self,
        asker: &mut Asker<'_>,
        buffer: &mut ProcessBuffer,
        row: &mut GpuReading,
    ) {
        row.doubts.clear();
        let listed = self.processes(asker, buffer);
        let guessed = listed.as_ref().is_some_and(|listed| listed.guessed);
        if guessed {
            row.doubts.push(Doubt::ProcessRows);
        }
        // A word of another field could be taken for somebody's pid.
        row.processes = listed.filter(|_| !guessed).map(|listed| listed.processes);
        let nameless = |process: &GpuProcess| process.pid.is_none();
        if row.processes.iter().flatten().any(nameless) {
            row.doubts.push(Doubt::NamelessProcesses);
        }
        row.vgpus = None;
        if self.facts.vgpu_host == Some(true) {
            let gis = self.mig.gpu_instances();
            row.vgpus = self.vgpus.read(asker, &self.device, &gis);
            if self.vgpus.may_be_more() {
                row.doubts.push(Doubt::Vgpus);
            }
        }
    }

    fn rows(&self, memories: &[Option<Memory>]) -> Vec<MigReading> {
        let row = |(instance, memory): (&Instance<'_>, &Option<Memory>)| MigReading {
            memory: *memory,
            ..instance.row()
        };
        self.mig.instances.iter().zip(memories).map(row).collect()
    }

    fn ask_more(&mut self, asker: &mut Asker<'_>, row: &mut GpuReading, more: bool) {
        if !more {
            self.activities.forget();
            return;
        }
        row.gauges = Some(gauges::read(
            asker,
            &self.device,
            &mut self.lacking_gauges,
            self.guest,
        ));
        let mut places: Vec<Option<u32>> = match self.facts.mig_enabled {
            Some(true) => self.mig.instances.iter().map(|own| Some(own.gi)).collect(),
            Some(false) | None => vec![None],
        };
        places.sort_unstable();
        places.dedup();
        let nvml = self.device.nvml();
        row.activities = self.activities.read(asker, nvml, &self.device, &places);
    }

    /// How busy the processes keep it, where there are some.
    fn ask_usage(&mut self, asker: &mut Asker<'_>, usage: &mut UsageBuffer, row: &mut GpuReading) {
        let Some(processes) = &mut row.processes else {
            return;
        };
        if row.mig_enabled != Some(true) {
            // On a host the list is of the programs that run its vGPUs; and one who is sampled may stand on a list that is lacking.
            let compared = row.vgpu_host != Some(true) && self.lacking & (GRAPHICS | MPS) == 0;
            let of = &mut self.usage;
            if of.of_processes(asker, usage, &self.device, processes, compared) {
                row.doubts.push(Doubt::Pids);
            }
            return;
        }
        let busy = |gi: u32| processes.iter().any(|process| process.gi == Some(gi));
        self.usage.keep(busy);
        let mut asked: Vec<(u32, Option<u32>)> = Vec::new();
        for instance in row
            .instances
            .iter_mut()
            .filter(|instance| busy(instance.gi))
        {
            let gi = instance.gi;
            let known = asked.iter().find(|(other, _)| *other == gi);
            instance.sm_percent = match known {
                Some((_, percent)) => *percent,
                None => asker.on_instances(|asker| {
                    let nvml = self.device.nvml();
                    self.usage.of_instance(asker, nvml, &self.device, gi)
                }),
            };
            asked.push((gi, instance.sm_percent));
        }
    }

    fn memory(&mut self, asker: &mut Asker<'_>) -> Option<Memory> {
        figures::memory(asker, &self.device, &mut self.lacking, MEMORY_V2)
    }

    /// Memory of each instance, in their order; asked once for a GPU instance, whose compute instances share it.
    fn instance_memories(&mut self, asker: &mut Asker<'_>) -> Vec<Option<Memory>> {
        asker.on_instances(|asker| self.read_instance_memories(asker))
    }

    fn read_instance_memories(&mut self, asker: &mut Asker<'_>) -> Vec<Option<Memory>> {
        let mut memories: Vec<Option<Memory>> = Vec::with_capacity(self.mig.instances.len());
        for (at, instance) in self.mig.instances.iter().enumerate() {
            let twin = self
                .mig
                .instances
                .iter()
                .take(at)
                .position(|other| other.gi == instance.gi);
            let shared = twin.and_then(|twin| memories.get(twin).copied());
            memories.push(shared.unwrap_or_else(|| {
                figures::memory(
                    asker,
                    &instance.device,
                    &mut self.lacking,
                    INSTANCE_MEMORY_V2,
                )
            }));
        }
        memories
    }

    /// Whether the instances that are known cannot be those that are there.
    fn outdated(&self, memories: &[Option<Memory>], processes: Option<&[GpuProcess]>) -> bool {
        let resized =
            |(instance, memory): (&Instance<'_>, &Option<Memory>)| match (instance.total, memory) {
                (Some(before), Some(now)) => before != now.total,
                // Known once and refused now: destroyed. Never known: new, or not readable at all.
                (before, _) => before.is_some(),
            };
        self.mig.instances.iter().zip(memories).any(resized)
            || self
                .strangers(processes)
                .any(|place| !self.puzzling.contains(&place))
    }

    fn remember(&mut self, memories: &[Option<Memory>], processes: Option<&[GpuProcess]>) {
        for (instance, memory) in self.mig.instances.iter_mut().zip(memories) {
            instance.total = memory.map(|memory| memory.total);
        }
        self.puzzling = self.strangers(processes).collect();
    }

    /// Where processes stand that no known instance explains.
    fn strangers<'p>(
        &self,
        processes: Option<&'p [GpuProcess]>,
    ) -> impl Iterator<Item = (u32, u32)> + use<'p, '_, 'n> {
        let places = processes
            .unwrap_or_default()
            .iter()
            .filter_map(|process| process.gi.zip(process.ci));
        places.filter(|(gi, ci)| {
            !self
                .mig
                .instances
                .iter()
                .any(|own| own.gi == *gi && own.ci == *ci)
        })
    }

    fn processes(&mut self, asker: &mut Asker<'_>, buffer: &mut ProcessBuffer) -> Option<Listed> {
        match processes::on(asker, buffer, &self.device, &mut self.lacking) {
            Got::Value(found) => Some(found),
            Got::Lacking if self.facts.mig_enabled == Some(true) => {
                let (instances, lacking) = (&self.mig.instances, &mut self.lacking);
                asker.on_instances(|asker| processes::on_each(asker, buffer, instances, lacking))
            }
            Got::Lacking | Got::Unknown => None,
        }
    }
}
