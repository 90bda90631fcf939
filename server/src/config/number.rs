//! Numbers and run times of the file, in their ranges.

use gpuquota_core::id::LARGEST_NUMBER;
use gpuquota_core::limit::Limit;
use serde::Deserialize;

use crate::run_time;

/// Names something: 1..=2147483647.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "i64")]
pub(super) struct Number(u32);

/// Counts hosts: 0..=2147483647, or -1 for unlimited.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "i64")]
pub(super) struct HostCount(Limit);

/// `unlimited` or `D-HH:MM:SS`.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct RunTime(Option<u64>);

/// Seconds: `LEAST`..=31536000, a year of 365 days.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "i64")]
pub(super) struct Seconds<const LEAST: u64>(u64);

impl<const LEAST: u64> Seconds<LEAST> {
    pub(super) fn get(self) -> u64 {
        self.0
    }
}

impl<const LEAST: u64> TryFrom<i64> for Seconds<LEAST> {
    type Error = String;
    fn try_from(number: i64) -> Result<Self, Self::Error> {
        let range = LEAST..=365 * 24 * 60 * 60;
        let seconds = u64::try_from(number).ok();
        seconds
            .filter(|seconds| range.contains(seconds))
            .map(Self)
            .ok_or_else(|| format!("seconds, a number from {LEAST} to {}", range.end()))
    }
}

impl Number {
    pub(super) fn get(self) -> u32 {
        self.0
    }
}

impl HostCount {
    pub(super) fn limit(self) -> Limit {
        self.0
    }
}

impl RunTime {
    pub(super) fn seconds(self) -> Option<u64> {
        self.0
    }
}

fn up_to_largest(number: i64) -> Option<u32> {
    let number = u32::try_from(number).ok();
    number.filter(|number| *number <= LARGEST_NUMBER)
}

impl TryFrom<i64> for Number {
    type Error = &'static str;
    fn try_from(number: i64) -> Result<Self, Self::Error> {
        let number = up_to_largest(number).filter(|number| *number > 0);
        number.map(Self).ok_or("a number from 1 to 2147483647")
    }
}

impl TryFrom<i64> for HostCount {
    type Error = &'static str;
    fn try_from(number: i64) -> Result<Self, Self::Error> {
        if number == -1 {
            return Ok(Self(Limit::Unlimited));
        }
        let number = up_to_largest(number).map(Limit::Finite);
        number
            .map(Self)
            .ok_or("a number from 0 to 2147483647, or -1 for unlimited")
    }
}

impl TryFrom<String> for RunTime {
    type Error = &'static str;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        run_time::parse(&text)
            .map(Self)
            .ok_or("unlimited or D-HH:MM:SS")
    }
}
