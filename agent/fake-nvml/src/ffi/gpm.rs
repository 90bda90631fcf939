//! GPM: how busy a GPU or a GPU instance was between two samples. Hopper and later.
#![expect(unsafe_code, reason = "exports C symbols")]

use std::ffi::c_uint;

use nvml_wrapper_sys::bindings as sys;

use crate::library::{Activity, Answer, Code, Device, library};
use crate::scenario::{Architecture, Process};

use super::boundary::{Handle, Out};
use super::{calls, device_calls};

/// `NVML_GPM_METRICS_GET_VERSION` and `NVML_GPM_SUPPORT_VERSION`.
const VERSION: u32 = 1;

/// What comes of two samples of different layouts: nothing that is true, and nothing that shows it.
const NONSENSE: f64 = 99.0;

device_calls! {
    fn nvmlGpmQueryDeviceSupport(device, support: Out<sys::nvmlGpmSupport_t>) {
        if support.get()?.version != VERSION {
            return Err(Code::VERSION_MISMATCH);
        }
        support.put(sys::nvmlGpmSupport_t { version: VERSION, isSupportedDevice: u32::from(supported(device)) })
    }

    fn nvmlGpmSampleGet(device, sample: Handle) {
        supported(device).then_some(()).ok_or(Code::NOT_SUPPORTED)?;
        let gpu = device.whole()?;
        library().gpm.fill(sample.number(), activity(device, gpu.uuid.clone(), |_| true))
    }

    fn nvmlGpmMigSampleGet(device, gi: c_uint, sample: Handle) {
        supported(device).then_some(()).ok_or(Code::NOT_SUPPORTED)?;
        let gpu = device.whole()?;
        if !gpu.mig_enabled() {
            return Err(Code::NOT_SUPPORTED);
        }
        let mig = gpu.mig.iter().find(|mig| mig.gi == gi).ok_or(Code::INVALID_ARGUMENT)?;
        let of = format!("{}/{gi}/{}/{:?}", gpu.uuid, mig.instance_profile(), mig.placement);
        library().gpm.fill(sample.number(), activity(device, of, |process| process.gi == Some(gi)))
    }
}

calls! {
    fn nvmlGpmSampleAlloc(_scenario, sample: Out<Handle>) {
        sample.check()?;
        sample.put(Handle::from_number(library().gpm.allocate()))
    }

    fn nvmlGpmSampleFree(_scenario, sample: Handle) {
        library().gpm.free(sample.number())
    }

    fn nvmlGpmMetricsGet(_scenario, metrics: Out<sys::nvmlGpmMetricsGet_t>) {
        let mut asked = metrics.get()?;
        if asked.version != VERSION {
            return Err(Code::VERSION_MISMATCH);
        }
        let count = usize::try_from(asked.numMetrics).map_err(|_| Code::INVALID_ARGUMENT)?;
        let wanted = asked.metrics.get_mut(..count).ok_or(Code::INVALID_ARGUMENT)?;
        let sample = |sample: sys::nvmlGpmSample_t| library().gpm.read(sample.addr());
        let (before, now) = (sample(asked.sample1)?, sample(asked.sample2)?);
        for metric in wanted {
            let value = between(&before, &now, metric.metricId);
            metric.nvmlReturn = value.map_or_else(|Code(code)| code, |_| sys::nvmlReturn_enum_NVML_SUCCESS);
            metric.value = value.unwrap_or(0.0);
        }
        metrics.put(asked)
    }
}

fn supported(device: &Device<'_>) -> bool {
    match device.gpu.architecture {
        Some(Architecture::Hopper | Architecture::Blackwell) => true,
        Some(
            Architecture::Pascal
            | Architecture::Volta
            | Architecture::Turing
            | Architecture::Ampere
            | Architecture::Ada,
        )
        | None => false,
    }
}

fn activity(device: &Device<'_>, of: String, here: impl Fn(&Process) -> bool) -> Activity {
    let running = device.processes(here);
    let sum = |percent: fn(&Process) -> Option<u32>| {
        let known = running.iter().filter_map(|process| percent(process));
        known.fold(0_u32, u32::saturating_add)
    };
    Activity {
        of,
        sm_percent: sum(|process| process.sm_percent),
        tensor_percent: sum(|process| process.tensor_percent),
        memory_percent: sum(|process| process.memory_percent),
    }
}

fn between(before: &Activity, now: &Activity, metric: u32) -> Answer<f64> {
    let middle = |of: fn(&Activity) -> u32| {
        let same = before.of == now.of;
        let middle = f64::midpoint(f64::from(of(before)), f64::from(of(now)));
        if same { middle } else { NONSENSE }
    };
    match metric {
        sys::nvmlGpmMetricId_t_NVML_GPM_METRIC_GRAPHICS_UTIL
        | sys::nvmlGpmMetricId_t_NVML_GPM_METRIC_SM_UTIL => Ok(middle(|at| at.sm_percent)),
        sys::nvmlGpmMetricId_t_NVML_GPM_METRIC_ANY_TENSOR_UTIL => {
            Ok(middle(|at| at.tensor_percent))
        }
        sys::nvmlGpmMetricId_t_NVML_GPM_METRIC_DRAM_BW_UTIL => Ok(middle(|at| at.memory_percent)),
        _ => Err(Code::NOT_SUPPORTED),
    }
}
