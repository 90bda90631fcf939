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
use std::mem::MaybeUninit;
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
            self.words.fill(MARK);
            let room = self.words.len() / LARGEST_ROW;
            let mut count = c_uint::try_from(room).unwrap_or(c_uint::MAX);
            // SAFETY: the buffer has 32 bytes for each of `count` rows, is aligned to 8, and outlives the call.
            let code = unsafe { call(handle, &raw mut count, self.words.as_mut_ptr().cast()) };
            let rows = usize::try_from(count).unwrap_or(usize::MAX);
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
mod tests {
    use super::*;

    /// What a driver with rows of `size` words leaves in the buffer.
    fn driver(size: usize, pids: &[u32]) -> Vec<u64> {
        let mut words = vec![MARK; 64 * LARGEST_ROW];
        for (row, pid) in words.chunks_exact_mut(size).zip(pids) {
            // The upper half of the first word is padding that a driver may leave alone.
            row[0] = (MARK & 0xFFFF_FFFF_0000_0000) | u64::from(*pid);
            row[1] = 4096;
            if size > 2 {
                row[2] = (7_u64 << 32) | 1;
            }
            if size > 3 {
                row[3] = 0;
            }
        }
        words
    }

    fn read(words: &[u64], rows: usize) -> Option<(Layout, Vec<Row>)> {
        let mut read = Vec::new();
        let layout = decode(words, rows, |row| read.push(row)).ok()?;
        Some((layout, read))
    }

    #[test]
    fn rows_of_16_24_and_32_bytes_are_told_apart() {
        for (size, gi, ci) in [
            (2, None, None),
            (3, Some(1), Some(7)),
            (4, Some(1), Some(7)),
        ] {
            for pids in [&[1000][..], &[1000, 0, 1002], &[1, 2, 3, 4, 5, 6, 7]] {
                let rows = read(&driver(size, pids), pids.len()).unwrap();
                let expected = pids.iter().map(|pid| Row {
                    pid: Some(*pid).filter(|pid| *pid != 0),
                    gi,
                    ci,
                    used_memory_bytes: Some(4096),
                });
                let expected = (Layout::Proven, expected.collect::<Vec<_>>());
                assert_eq!(rows, expected, "{size} words");
            }
        }
    }

    #[test]
    fn rule_04_the_drivers_with_wrong_rows_are_known() {
        for (version, expected) in [
            ("535.43", true),
            ("535.54.03", true),
            ("535.98", true),
            ("535.104.05", false),
            ("535", false),
            ("550.54.15", false),
            ("junk", false),
        ] {
            assert_eq!(misleads(version), expected, "{version}");
        }
    }

    #[test]
    fn what_no_layout_explains_is_refused() {
        let mut words = driver(3, &[1000, 1001]);
        words[9] = 1;
        assert_eq!(
            read(&words, 2).map(|(layout, rows)| (layout, rows.len())),
            Some((Layout::Guessed, 2)),
            "scribble behind sensible rows"
        );
        // Three rows of 24 bytes and what stands behind them are as long as three of 32.
        words = driver(3, &[1000, 1001, 1002]);
        words[11] = 1;
        let told = read(&words, 3).map(|(layout, rows)| (layout, rows[2].pid));
        assert_eq!(told, Some((Layout::Guessed, Some(1002))));
        words = driver(2, &[1000, u32::MAX]);
        assert_eq!(read(&words, 2), None, "no such pid");
        let mut words = driver(4, &[1000, 1001, 1002]);
        words[20] = 1;
        assert_eq!(read(&words, 3), None, "scribble behind rows of 32 bytes");
        assert_eq!(read(&[MARK; 8], 2), None, "nothing written at all");
        assert_eq!(read(&driver(3, &[1, 2]), usize::MAX), None);
        assert_eq!(read(&[MARK; 8], 0), Some((Layout::Proven, Vec::new())));
    }
}
