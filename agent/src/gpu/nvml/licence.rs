//! What NVML's answers say of a vGPU's licence. Pure.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use nvml_wrapper::enum_wrappers::vgpu::VgpuLicenseState as State;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::struct_wrappers::vgpu::{VgpuLicenseExpiry, VgpuLicenseInfo};

use crate::gpu::reading::Licence;

/// `NVML_GRID_LICENSE_EXPIRY_VALID`: only then the date is one.
const VALID: u8 = 2;

/// What one question about a licence gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// The state, and when the licence ends in seconds since 1970.
    State(Licence, Option<i64>),
    /// The vGPU ended.
    Gone,
    /// This driver does not have the call.
    NoSuchCall,
}

/// The answer of `nvmlVgpuInstanceGetLicenseInfo_v2`.
pub(super) fn told_by_info(answer: Result<VgpuLicenseInfo, NvmlError>) -> Result<Told, NvmlError> {
    let info = match answer {
        Ok(info) => info,
        Err(error) => return of_error(error),
    };
    let licence = match (info.is_licensed, info.state) {
        (true, _) => Licence::Licensed,
        (
            false,
            State::Unlicensed | State::UnlicensedRestricted | State::UnlicensedUnrestricted,
        ) => Licence::Unlicensed,
        // The last would contradict itself.
        (false, State::Unknown | State::Uninitialized | State::Licensed) => Licence::Unknown,
    };
    let expires_at_s = Some(info.expiry)
        .filter(|expiry| info.is_licensed && expiry.status == VALID)
        .and_then(seconds);
    Ok(Told::State(licence, expires_at_s))
}

/// The answer of `nvmlVgpuInstanceGetLicenseStatus`.
pub(super) fn told_by_flag(answer: Result<bool, NvmlError>) -> Result<Told, NvmlError> {
    match answer {
        Ok(true) => Ok(Told::State(Licence::Licensed, None)),
        Ok(false) => Ok(Told::State(Licence::Unlicensed, None)),
        Err(error) => of_error(error),
    }
}

fn of_error(error: NvmlError) -> Result<Told, NvmlError> {
    match error {
        // Here it is the guest's driver that is not loaded, not the host's.
        NvmlError::DriverNotLoaded => Ok(Told::State(Licence::Unknown, None)),
        NvmlError::NotFound => Ok(Told::Gone),
        NvmlError::FailedToLoadSymbol(_) | NvmlError::FunctionNotFound => Ok(Told::NoSuchCall),
        error => Err(error),
    }
}

/// The driver gives UTC. `None` when it is no date since 1970.
fn seconds(at: VgpuLicenseExpiry) -> Option<i64> {
    let small = |part: u8| i8::try_from(part).ok();
    let date = DateTime::new(
        i16::try_from(at.year).ok()?,
        small(at.month)?,
        small(at.day)?,
        small(at.hour)?,
        small(at.min)?,
        small(at.sec)?,
        0,
    );
    let seconds = TimeZone::UTC.to_timestamp(date.ok()?).ok()?.as_second();
    Some(seconds).filter(|seconds| *seconds >= 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn date(year: u16, month: u8, day: u8, hour: u8) -> VgpuLicenseExpiry {
        VgpuLicenseExpiry {
            year,
            month,
            day,
            hour,
            min: 0,
            sec: 0,
            status: VALID,
        }
    }

    fn info(is_licensed: bool, state: State, expiry: VgpuLicenseExpiry) -> Told {
        let info = VgpuLicenseInfo {
            is_licensed,
            expiry,
            state,
        };
        told_by_info(Ok(info)).unwrap()
    }

    #[test]
    fn a_licence_is_what_the_guest_said_and_the_date_only_where_it_is_one() {
        let end = date(2027, 6, 30, 12);
        let licensed = |at| Told::State(Licence::Licensed, at);
        let cases = [
            (true, State::Licensed, end, licensed(Some(1_814_356_800))),
            (
                true,
                State::Licensed,
                VgpuLicenseExpiry { status: 0, ..end },
                licensed(None),
            ),
            (
                true,
                State::Licensed,
                VgpuLicenseExpiry { status: 4, ..end },
                licensed(None),
            ),
            (true, State::Licensed, date(2027, 2, 29, 0), licensed(None)),
            (
                false,
                State::Unlicensed,
                end,
                Told::State(Licence::Unlicensed, None),
            ),
            (
                false,
                State::UnlicensedRestricted,
                end,
                Told::State(Licence::Unlicensed, None),
            ),
            (
                false,
                State::Uninitialized,
                end,
                Told::State(Licence::Unknown, None),
            ),
            (
                false,
                State::Unknown,
                end,
                Told::State(Licence::Unknown, None),
            ),
            (
                false,
                State::Licensed,
                end,
                Told::State(Licence::Unknown, None),
            ),
        ];
        for (is_licensed, state, expiry, expected) in cases {
            assert_eq!(
                info(is_licensed, state, expiry),
                expected,
                "{state:?} {expiry:?}"
            );
        }
    }

    #[test]
    fn an_error_is_the_guests_the_instances_or_the_drivers() {
        let unknown = Told::State(Licence::Unknown, None);
        for (error, expected) in [
            (NvmlError::DriverNotLoaded, Some(unknown)),
            (NvmlError::NotFound, Some(Told::Gone)),
            (NvmlError::FunctionNotFound, Some(Told::NoSuchCall)),
            (NvmlError::NotSupported, None),
            (NvmlError::GpuLost, None),
        ] {
            let text = error.to_string();
            assert_eq!(told_by_flag(Err(error)).ok(), expected, "{text}");
        }
        let licensed = Told::State(Licence::Licensed, None);
        assert_eq!(told_by_flag(Ok(true)).unwrap(), licensed);
    }

    #[test]
    fn dates_are_seconds_since_1970() {
        for (expiry, expected) in [
            (date(1970, 1, 1, 0), Some(0)),
            (date(2000, 2, 29, 1), Some(951_786_000)),
            (date(2026, 11, 22, 0), Some(1_795_305_600)),
            (date(9999, 12, 30, 0), Some(253_402_128_000)),
            (date(2100, 2, 29, 0), None),
            (date(1969, 12, 31, 0), None),
            (date(2026, 13, 1, 0), None),
            (date(2026, 0, 1, 0), None),
            (date(2026, 4, 31, 0), None),
            (date(2026, 1, 1, 24), None),
        ] {
            assert_eq!(seconds(expiry), expected, "{expiry:?}");
        }
    }
}
