//! NVML calls that nvml-wrapper lacks or makes in an unsafe way, over its own bindings.
//!
//! The process list is the dangerous one: drivers between 535.43 and 535.98 write 32 bytes a row from the same symbol that
//! writes 24 elsewhere, and 16 were seen too. A caller that assumes 24 gets its heap overwritten. Here the buffer has room for
//! the largest row, is filled with a mark, and the size of a row is read off from where the mark ends.
#![expect(unsafe_code, reason = "calls into a C library")]

pub(super) mod device;
pub(super) mod events;
pub(super) mod mig;
pub(super) mod nvlink;
pub(super) mod usage;
pub(super) mod vgpu;

use std::ffi::{CStr, c_char};
use std::mem::{MaybeUninit, offset_of};
use std::os::raw::c_uint;

use nvml_wrapper::Device;
use nvml_wrapper::error::{NvmlError, nvml_sym, nvml_try};
use nvml_wrapper_sys::bindings::{
    nvmlDevice_t, nvmlMemory_t, nvmlProcessInfo_t, nvmlReturn_enum_NVML_ERROR_INSUFFICIENT_SIZE,
    nvmlReturn_t,
};

use super::reading::{Memory, ProcessKind};

/// Largest row that any driver is known to write, in words of 8 bytes.
const LARGEST_ROW: usize = 4;
/// `nvmlProcessInfo_t` of nvml.h, likewise.
const USUAL_ROW: usize = 3;
/// No driver numbers its instances further.
const INSTANCES: u32 = 64;
/// No field of a row can be this: its halves are no pid, no instance id, and as bytes it is beyond any framebuffer.
const MARK: u64 = 0xA5C3_A5C3_A5C3_A5C3;
/// Rows that are asked for at first.
const ROWS: usize = 64;
/// More rows than this are no answer.
const MOST_ROWS: usize = 65_536;
/// `NVML_VALUE_NOT_AVAILABLE` as 64 bits.
const NOT_AVAILABLE: u64 = u64::MAX;
/// GPU and compute instance id of a process that is on no MIG instance.
const NO_INSTANCE: u32 = u32::MAX;
/// Linux' highest pid (`PID_MAX_LIMIT`, proc(5)).
const HIGHEST_PID: u32 = 4_194_304;

// As in nvml.h 12.9; the wrapper's bindings come without layout tests.
const _: () = assert!(
    size_of::<nvmlProcessInfo_t>() == USUAL_ROW * size_of::<u64>()
        && offset_of!(nvmlProcessInfo_t, pid) == 0
        && offset_of!(nvmlProcessInfo_t, usedGpuMemory) == 8
        && offset_of!(nvmlProcessInfo_t, gpuInstanceId) == 16
        && offset_of!(nvmlProcessInfo_t, computeInstanceId) == 20
);
const _: () = assert!(
    size_of::<nvmlMemory_t>() == 24
        && offset_of!(nvmlMemory_t, total) == 0
        && offset_of!(nvmlMemory_t, free) == 8
        && offset_of!(nvmlMemory_t, used) == 16
);

type ListCall =
    unsafe extern "C" fn(nvmlDevice_t, *mut c_uint, *mut nvmlProcessInfo_t) -> nvmlReturn_t;

/// One row as the driver wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Row {
    /// `None`: it is listed as 0, a process that the driver does not name.
    pub(super) pid: Option<u32>,
    pub(super) gi: Option<u32>,
    pub(super) ci: Option<u32>,
    pub(super) used_memory_bytes: Option<u64>,
}

/// How sure the size of the rows is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// What was written is exactly so many rows, and each of them makes sense.
    Proven,
    /// More was written; the rows make sense as the usual 24 bytes.
    Guessed,
}

/// Why there is no process list.
#[derive(Debug, thiserror::Error)]
pub(super) enum ListError {
    #[error(transparent)]
    Nvml(#[from] NvmlError),
    /// Neither 16, 24 nor 32 bytes a row explain what was written.
    #[error("the driver wrote {words} words for {rows} processes, which no known layout explains")]
    Layout { rows: usize, words: usize },
}

impl From<ListError> for NvmlError {
    fn from(error: ListError) -> Self {
        match error {
            ListError::Nvml(error) => error,
            ListError::Layout { .. } => Self::Unknown,
        }
    }
}

/// Whether this driver is one of 535.43 to 535.98, whose process rows are not what their header says. They are read all the same,
/// but are no ground for taking anything from anybody.
pub(super) fn misleads(driver_version: &str) -> bool {
    let mut parts = driver_version.split('.').map(str::parse::<u32>);
    let (branch, release) = (parts.next(), parts.next());
    matches!((branch, release), (Some(Ok(535)), Some(Ok(43..=98))))
}

/// The buffer of the process lists, kept between calls.
#[derive(Debug)]
pub(super) struct ProcessBuffer {
    words: Vec<u64>,
}

impl Default for ProcessBuffer {
    fn default() -> Self {
        Self {
            words: vec![MARK; ROWS * LARGEST_ROW],
        }
    }
}

impl ProcessBuffer {
    /// All processes of one list on this device, in one call unless there are more than ever before.
    pub(super) fn list(
        &mut self,
        device: &Device<'_>,
        kind: ProcessKind,
        each: impl FnMut(Row),
    ) -> Result<Layout, ListError> {
        let call = list_call(device, kind)?;
        // SAFETY: the handle is used while `device` borrows the initialised library.
        let handle = unsafe { device.handle() };
        for _ in 0..3 {
            let room = self.words.len() / LARGEST_ROW;
            // SAFETY: `call` is of the library that the handle is of, and initialised.
            let (code, rows) = unsafe { ask(call, handle, &mut self.words) };
            if code == nvmlReturn_enum_NVML_ERROR_INSUFFICIENT_SIZE {
                // What it wants may grow meanwhile, so a quarter is added.
                let wanted = rows.max(room).saturating_add(rows / 4 + 16);
                if wanted > MOST_ROWS {
                    break;
                }
                self.words.resize(wanted * LARGEST_ROW, MARK);
                continue;
            }
            nvml_try(code)?;
            return decode(&self.words, rows, each);
        }
        Err(NvmlError::InsufficientSize(None).into())
    }
}

/// One call that fills `words`: what the driver answers, and how many rows it says there are. It is told of no more rows than there
/// is room for at the largest size.
///
/// # Safety
///
/// `call` may be made with `handle`, and writes at most 32 bytes for each row that it is given.
unsafe fn ask(call: ListCall, handle: nvmlDevice_t, words: &mut [u64]) -> (nvmlReturn_t, usize) {
    words.fill(MARK);
    let mut count = c_uint::try_from(words.len() / LARGEST_ROW).unwrap_or(c_uint::MAX);
    // SAFETY: as the caller promises; the buffer has 32 bytes for each of `count` rows, is aligned to 8, and outlives the call.
    let code = unsafe { call(handle, &raw mut count, words.as_mut_ptr().cast()) };
    (code, usize::try_from(count).unwrap_or(usize::MAX))
}

/// A text that ends within its array; all of it if it does not.
fn text(chars: &[c_char]) -> String {
    let bytes: Vec<u8> = chars.iter().map(|c| c.to_ne_bytes()[0]).collect();
    let ended = CStr::from_bytes_until_nul(&bytes).map(CStr::to_bytes);
    String::from_utf8_lossy(ended.unwrap_or(&bytes)).into_owned()
}

/// `_v3` where it exists; `_v2`, of the same layout, on drivers before 510 and on 535.98.
fn list_call(device: &Device<'_>, kind: ProcessKind) -> Result<ListCall, NvmlError> {
    let lib = device.nvml().lib();
    let (newer, older) = match kind {
        ProcessKind::Compute => (
            &lib.nvmlDeviceGetComputeRunningProcesses_v3,
            &lib.nvmlDeviceGetComputeRunningProcesses_v2,
        ),
        ProcessKind::Graphics => (
            &lib.nvmlDeviceGetGraphicsRunningProcesses_v3,
            &lib.nvmlDeviceGetGraphicsRunningProcesses_v2,
        ),
        ProcessKind::Mps => (
            &lib.nvmlDeviceGetMPSComputeRunningProcesses_v3,
            &lib.nvmlDeviceGetMPSComputeRunningProcesses_v2,
        ),
    };
    nvml_sym(newer.as_ref())
        .or_else(|_| nvml_sym(older.as_ref()))
        .copied()
}

fn decode(words: &[u64], rows: usize, mut each: impl FnMut(Row)) -> Result<Layout, ListError> {
    if rows == 0 {
        return Ok(Layout::Proven);
    }
    let written = words
        .iter()
        .rposition(|word| *word != MARK)
        .map_or(0, |last| last + 1);
    let fits = |size: usize| rows.checked_mul(size).is_some_and(|all| all <= words.len());
    let all = |size: usize, sound: fn(&Row) -> bool| {
        let read = words.chunks_exact(size).take(rows).map(row);
        fits(size)
            && read
                .into_iter()
                .all(|row| row.is_some_and(|row| sound(&row)))
    };
    let exact = |size: &usize| rows.checked_mul(*size) == Some(written);
    let (size, layout) = match (2..=LARGEST_ROW).find(exact) {
        Some(size) if all(size, sensible) => (size, Layout::Proven),
        // A driver that scribbles behind the last row is believed if every row makes sense as the usual 24 bytes.
        _ if all(USUAL_ROW, |row| sensible(row) && row.pid.is_some()) => {
            (USUAL_ROW, Layout::Guessed)
        }
        _ => {
            return Err(ListError::Layout {
                rows,
                words: written,
            });
        }
    };
    words
        .chunks_exact(size)
        .take(rows)
        .filter_map(row)
        .for_each(&mut each);
    Ok(layout)
}

fn row(words: &[u64]) -> Option<Row> {
    let [pid, memory, instances @ ..] = words else {
        return None;
    };
    let instance = |half: usize| {
        let halves = halves(*instances.first()?);
        halves.get(half).copied().filter(|id| *id != NO_INSTANCE)
    };
    Some(Row {
        pid: Some(halves(*pid)[0]).filter(|pid| *pid != 0),
        gi: instance(0),
        ci: instance(1),
        used_memory_bytes: Some(*memory).filter(|bytes| *bytes != NOT_AVAILABLE),
    })
}

/// It can be a row of a process list: a pid that there can be, and instances only as they are numbered.
fn sensible(row: &Row) -> bool {
    let instances = match (row.gi, row.ci) {
        (Some(gi), Some(ci)) => gi < INSTANCES && ci < INSTANCES,
        (Some(gi), None) => gi < INSTANCES,
        (None, None) => true,
        (None, Some(_)) => false,
    };
    row.pid.is_none_or(|pid| pid <= HIGHEST_PID) && instances
}

/// The two 32-bit fields that share a word, in the order in which C lays them out.
fn halves(word: u64) -> [u32; 2] {
    let [a, b, c, d, e, f, g, h] = word.to_ne_bytes();
    [
        u32::from_ne_bytes([a, b, c, d]),
        u32::from_ne_bytes([e, f, g, h]),
    ]
}

/// `nvmlDeviceGetGpuInstanceId` of a MIG device.
pub(super) fn gpu_instance_id(device: &Device<'_>) -> Result<u32, NvmlError> {
    let call = nvml_sym(device.nvml().lib().nvmlDeviceGetGpuInstanceId.as_ref())?;
    let mut id: c_uint = NO_INSTANCE;
    // SAFETY: the handle is used while `device` borrows the initialised library; `id` outlives the call.
    nvml_try(unsafe { call(device.handle(), &raw mut id) })?;
    Ok(id)
}

/// `nvmlDeviceGetComputeInstanceId` of a MIG device.
pub(super) fn compute_instance_id(device: &Device<'_>) -> Result<u32, NvmlError> {
    let call = nvml_sym(device.nvml().lib().nvmlDeviceGetComputeInstanceId.as_ref())?;
    let mut id: c_uint = NO_INSTANCE;
    // SAFETY: the handle is used while `device` borrows the initialised library; `id` outlives the call.
    nvml_try(unsafe { call(device.handle(), &raw mut id) })?;
    Ok(id)
}

/// `nvmlDeviceGetMemoryInfo`, for drivers before 510, which have no `_v2`.
pub(super) fn memory_v1(device: &Device<'_>) -> Result<Memory, NvmlError> {
    let call = nvml_sym(device.nvml().lib().nvmlDeviceGetMemoryInfo.as_ref())?;
    let mut memory = MaybeUninit::<nvmlMemory_t>::zeroed();
    // SAFETY: the handle is used while `device` borrows the initialised library; `memory` outlives the call.
    nvml_try(unsafe { call(device.handle(), memory.as_mut_ptr()) })?;
    // SAFETY: three integers, for which zero is a value.
    let memory = unsafe { memory.assume_init() };
    Ok(Memory {
        total: memory.total,
        reserved: None,
        free: memory.free,
        used: memory.used,
    })
}

#[cfg(test)]
mod guard;
#[cfg(test)]
mod tests;
