//! Utilisation: of processes in one call instead of two, and of GPU instances between two samples of one epoch.
#![expect(unsafe_code, reason = "calls into a C library")]

use std::mem;
use std::os::raw::c_uint;
use std::ptr;

use nvml_wrapper::error::{NvmlError, nvml_sym, nvml_try};
use nvml_wrapper::{Device, Nvml};
use nvml_wrapper_sys::bindings::{
    nvmlGpmMetricId_t_NVML_GPM_METRIC_SM_UTIL, nvmlGpmMetricsGet_t, nvmlGpmSample_t,
    nvmlProcessUtilizationSample_t, nvmlReturn_enum_NVML_ERROR_INSUFFICIENT_SIZE,
    nvmlReturn_enum_NVML_SUCCESS,
};

use crate::gpu::usage::Sample;

/// `NVML_GPM_METRICS_GET_VERSION`
const METRICS_VERSION: u32 = 1;
/// Rows that are asked for at first: six a second for a handful of processes.
const ROWS: usize = 64;
const MOST_ROWS: usize = 16_384;

// As in nvml.h 12.9 (the fake's header test compares the same bindings with it).
const _: () = assert!(size_of::<nvmlProcessUtilizationSample_t>() == 32);
const _: () = assert!(mem::offset_of!(nvmlGpmMetricsGet_t, metrics) == 24);
const _: () = assert!(size_of::<nvmlGpmMetricsGet_t>() == 24 + 210 * 40);

const NO_ROW: nvmlProcessUtilizationSample_t = nvmlProcessUtilizationSample_t {
    pid: 0,
    timeStamp: 0,
    smUtil: 0,
    memUtil: 0,
    encUtil: 0,
    decUtil: 0,
};

/// The buffer of utilisation samples, kept between calls.
#[derive(Debug)]
pub(in crate::gpu) struct UsageBuffer {
    rows: Vec<nvmlProcessUtilizationSample_t>,
}

impl Default for UsageBuffer {
    fn default() -> Self {
        Self {
            rows: vec![NO_ROW; ROWS],
        }
    }
}

impl UsageBuffer {
    /// `nvmlDeviceGetProcessUtilization`: samples after `since_us`. "Not found" is none.
    pub(in crate::gpu) fn list(
        &mut self,
        device: &Device<'_>,
        since_us: u64,
    ) -> Result<Vec<Sample>, NvmlError> {
        let lib = device.nvml().lib();
        let call = nvml_sym(lib.nvmlDeviceGetProcessUtilization.as_ref())?;
        for _ in 0..3 {
            let room = self.rows.len();
            let mut count = c_uint::try_from(room).unwrap_or(c_uint::MAX);
            // SAFETY: the handle is used while `device` borrows the initialised library; `count` says how many rows the
            // buffer has, and both outlive the call.
            let code = unsafe {
                call(
                    device.handle(),
                    self.rows.as_mut_ptr(),
                    &raw mut count,
                    since_us,
                )
            };
            let counted = usize::try_from(count).unwrap_or(usize::MAX);
            if code == nvmlReturn_enum_NVML_ERROR_INSUFFICIENT_SIZE {
                let wanted = counted.max(room).saturating_mul(2);
                if wanted > MOST_ROWS {
                    break;
                }
                self.rows.resize(wanted, NO_ROW);
                continue;
            }
            return match nvml_try(code) {
                Ok(()) => Ok(self.rows.iter().take(counted).map(sample).collect()),
                Err(NvmlError::NotFound) => Ok(Vec::new()),
                Err(error) => Err(error),
            };
        }
        Err(NvmlError::InsufficientSize(None))
    }
}

fn sample(row: &nvmlProcessUtilizationSample_t) -> Sample {
    Sample {
        pid: row.pid,
        at_us: row.timeStamp,
        sm: row.smUtil,
        memory: row.memUtil,
    }
}

/// A buffer for one GPM sample.
#[derive(Debug)]
pub(in crate::gpu) struct GpmSample<'n> {
    nvml: &'n Nvml,
    raw: nvmlGpmSample_t,
}

impl<'n> GpmSample<'n> {
    /// `nvmlGpmSampleAlloc`. A driver that could not free it again is asked for none.
    pub(in crate::gpu) fn allocate(nvml: &'n Nvml) -> Result<Self, NvmlError> {
        nvml_sym(nvml.lib().nvmlGpmSampleFree.as_ref())?;
        let call = nvml_sym(nvml.lib().nvmlGpmSampleAlloc.as_ref())?;
        let mut raw: nvmlGpmSample_t = ptr::null_mut();
        // SAFETY: `nvml` is initialised; the answer's place outlives the call.
        nvml_try(unsafe { call(&raw mut raw) })?;
        Ok(Self { nvml, raw })
    }

    /// `nvmlGpmMigSampleGet`: what the GPU instance did so far.
    pub(in crate::gpu) fn fill(&mut self, device: &Device<'_>, gi: u32) -> Result<(), NvmlError> {
        let call = nvml_sym(self.nvml.lib().nvmlGpmMigSampleGet.as_ref())?;
        // SAFETY: handle and sample are of the library that both borrow; the sample was allocated and not freed.
        nvml_try(unsafe { call(device.handle(), gi, self.raw) })
    }

    /// `nvmlGpmSampleGet`: what the whole GPU did so far.
    pub(in crate::gpu) fn fill_whole(&mut self, device: &Device<'_>) -> Result<(), NvmlError> {
        let call = nvml_sym(self.nvml.lib().nvmlGpmSampleGet.as_ref())?;
        // SAFETY: handle and sample are of the library that both borrow; the sample was allocated and not freed.
        nvml_try(unsafe { call(device.handle(), self.raw) })
    }

    /// `nvmlGpmMetricsGet`: percent of the SMs that were busy from `before` to this sample.
    pub(in crate::gpu) fn sm_percent_since(&self, before: &Self) -> Result<f64, NvmlError> {
        let [percent] = self.metrics_since(before, [nvmlGpmMetricId_t_NVML_GPM_METRIC_SM_UTIL])?;
        percent.ok_or(NvmlError::NoData)
    }

    /// `nvmlGpmMetricsGet`: these metrics from `before` to this sample, `None` for one that this GPU does not have.
    pub(in crate::gpu) fn metrics_since<const N: usize>(
        &self,
        before: &Self,
        metrics: [u32; N],
    ) -> Result<[Option<f64>; N], NvmlError> {
        let call = nvml_sym(self.nvml.lib().nvmlGpmMetricsGet.as_ref())?;
        // SAFETY: the struct is numbers and pointers, for which zeroes are values.
        let mut asked: Box<nvmlGpmMetricsGet_t> = Box::new(unsafe { mem::zeroed() });
        asked.version = METRICS_VERSION;
        asked.sample1 = before.raw;
        asked.sample2 = self.raw;
        for (place, metric) in asked.metrics.iter_mut().zip(metrics) {
            place.metricId = metric;
            asked.numMetrics += 1;
        }
        // SAFETY: both samples were allocated by this library and are not freed; the struct has the layout that its version
        // names (asserted above) and outlives the call.
        nvml_try(unsafe { call(&raw mut *asked) })?;
        let mut values = [None; N];
        for (value, metric) in values.iter_mut().zip(&asked.metrics) {
            if metric.nvmlReturn == nvmlReturn_enum_NVML_SUCCESS {
                *value = Some(metric.value);
            }
        }
        Ok(values)
    }
}

impl Drop for GpmSample<'_> {
    fn drop(&mut self) {
        if let Ok(call) = nvml_sym(self.nvml.lib().nvmlGpmSampleFree.as_ref()) {
            // SAFETY: allocated by this library, which is still loaded, and freed here only.
            let _ = unsafe { call(self.raw) };
        }
    }
}
