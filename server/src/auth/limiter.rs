//! Wrong tokens are answered, but not without end: each address has a budget of failures. And each caller that is no
//! admin has a budget of writes: what it writes is kept.
//!
//! Only failures are counted by address, so whoever holds a valid token is served from the same one all the while.

use std::net::IpAddr;
use std::num::NonZeroU32;

use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};

/// Failures of one address a second, where the configuration does not say otherwise.
pub(crate) const PER_SECOND: NonZeroU32 = NonZeroU32::new(5).unwrap();
/// Failures of one address at once, where the configuration does not say otherwise.
pub(crate) const BURST: NonZeroU32 = NonZeroU32::new(50).unwrap();

/// Writes of one caller a second.
const WRITES_PER_SECOND: NonZeroU32 = NonZeroU32::new(20).unwrap();
/// Writes of one caller at once.
const WRITES_BURST: NonZeroU32 = NonZeroU32::new(200).unwrap();

/// Failures by address, writes by caller.
#[derive(Debug)]
pub struct Limiter {
    failures: DefaultKeyedRateLimiter<IpAddr>,
    writes: DefaultKeyedRateLimiter<String>,
}

impl Default for Limiter {
    fn default() -> Self {
        Self::new(PER_SECOND, BURST)
    }
}

impl Limiter {
    /// So many failures of one address a second, and so many at once.
    #[must_use]
    pub fn new(per_second: NonZeroU32, burst: NonZeroU32) -> Self {
        let writes = Quota::per_second(WRITES_PER_SECOND).allow_burst(WRITES_BURST);
        Self {
            failures: RateLimiter::keyed(Quota::per_second(per_second).allow_burst(burst)),
            writes: RateLimiter::keyed(writes),
        }
    }

    /// Counts one write of a caller; `false` when it has used up its budget.
    #[must_use]
    pub fn write(&self, caller: &str) -> bool {
        self.writes.check_key(&caller.to_owned()).is_ok()
    }

    /// Counts one failure; `false` when the address has used up its budget.
    #[must_use]
    pub fn count(&self, address: IpAddr) -> bool {
        self.failures.check_key(&network(address)).is_ok()
    }

    /// Drops whoever has the whole budget again, so that memory follows the present, not the past.
    pub fn forget_idle(&self) {
        self.failures.retain_recent();
        self.failures.shrink_to_fit();
        self.writes.retain_recent();
        self.writes.shrink_to_fit();
    }
}

/// The address that is bounded: one IPv6 customer has a whole /64 to choose from.
pub(crate) fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => IpAddr::V4(v4),
            None => IpAddr::V6((v6.to_bits() & !u128::from(u64::MAX)).into()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_23_an_address_that_only_fails_runs_out_and_others_do_not() {
        let limiter = Limiter::default();
        let bad: IpAddr = "2001:db8::1".parse().unwrap();
        let neighbour: IpAddr = "2001:db8::ffff".parse().unwrap();
        let other: IpAddr = "192.0.2.1".parse().unwrap();
        let allowed = (0..1000).filter(|_| limiter.count(bad)).count();
        assert!((50..100).contains(&allowed), "{allowed}");
        assert!(!limiter.count(neighbour));
        assert!(limiter.count(other));
    }

    #[test]
    fn a_caller_that_only_writes_runs_out_and_others_do_not() {
        let limiter = Limiter::default();
        let allowed = (0..1000).filter(|_| limiter.write("one")).count();
        assert!((200..300).contains(&allowed), "{allowed}");
        assert!(limiter.write("another"));
    }

    #[test]
    fn the_operator_sets_the_budget() {
        let limiter = Limiter::new(NonZeroU32::MIN, NonZeroU32::new(3).unwrap());
        let address: IpAddr = "192.0.2.1".parse().unwrap();
        let allowed = [(); 5].map(|()| limiter.count(address));
        assert_eq!(allowed, [true, true, true, false, false]);
    }
}
