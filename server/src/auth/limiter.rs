//! Wrong tokens are answered, but not without end: each address has a budget of failures.
//!
//! Only failures are counted, so whoever holds a valid token is served from the same address all the while.

use std::net::IpAddr;
use std::num::NonZeroU32;

use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};

/// Failures of one address a second, where the configuration does not say otherwise.
pub(crate) const PER_SECOND: NonZeroU32 = NonZeroU32::new(5).unwrap();
/// Failures of one address at once, where the configuration does not say otherwise.
pub(crate) const BURST: NonZeroU32 = NonZeroU32::new(50).unwrap();

/// Failures by address.
#[derive(Debug)]
pub struct FailureLimiter(DefaultKeyedRateLimiter<IpAddr>);

impl Default for FailureLimiter {
    fn default() -> Self {
        Self::new(PER_SECOND, BURST)
    }
}

impl FailureLimiter {
    /// So many failures of one address a second, and so many at once.
    #[must_use]
    pub fn new(per_second: NonZeroU32, burst: NonZeroU32) -> Self {
        let quota = Quota::per_second(per_second).allow_burst(burst);
        Self(RateLimiter::keyed(quota))
    }

    /// Counts one failure; `false` when the address has used up its budget.
    #[must_use]
    pub fn count(&self, address: IpAddr) -> bool {
        self.0.check_key(&network(address)).is_ok()
    }

    /// Drops addresses that have their whole budget again, so that memory follows the present, not the past.
    pub fn forget_idle(&self) {
        self.0.retain_recent();
        self.0.shrink_to_fit();
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
        let limiter = FailureLimiter::default();
        let bad: IpAddr = "2001:db8::1".parse().unwrap();
        let neighbour: IpAddr = "2001:db8::ffff".parse().unwrap();
        let other: IpAddr = "192.0.2.1".parse().unwrap();
        let allowed = (0..1000).filter(|_| limiter.count(bad)).count();
        assert!((50..100).contains(&allowed), "{allowed}");
        assert!(!limiter.count(neighbour));
        assert!(limiter.count(other));
    }

    #[test]
    fn the_operator_sets_the_budget() {
        let limiter = FailureLimiter::new(NonZeroU32::MIN, NonZeroU32::new(3).unwrap());
        let address: IpAddr = "192.0.2.1".parse().unwrap();
        let allowed = [(); 5].map(|()| limiter.count(address));
        assert_eq!(allowed, [true, true, true, false, false]);
    }
}
