//! Random moments that can be had again.

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use crate::skip::measured;

/// A random generator for `what`, whose seed is said aloud; a seed of the past comes back through `GPUQUOTA_SEED`.
#[must_use]
pub fn random(what: &str) -> StdRng {
    let given = std::env::var("GPUQUOTA_SEED").ok();
    let seed: u64 = given.map_or_else(|| rand::rng().random(), |text| text.parse().unwrap());
    measured(&format!("seed of {what}"), seed);
    StdRng::seed_from_u64(seed)
}
