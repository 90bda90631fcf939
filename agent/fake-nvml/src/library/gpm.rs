//! GPM samples: buffers that a program allocates, fills twice and compares.

use std::collections::HashMap;
use std::sync::Mutex;

use super::{Answer, Code, hold};

/// What was going on when a buffer was filled.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Activity {
    /// GPU, and the instance with its profile: samples of two layouts do not belong together.
    pub(crate) of: String,
    pub(crate) sm_percent: u32,
    pub(crate) tensor_percent: u32,
    pub(crate) memory_percent: u32,
}

#[derive(Default)]
pub(crate) struct Gpm {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// `None`: allocated and not filled yet.
    samples: HashMap<usize, Option<Activity>>,
    allocated: usize,
}

const FIRST_SAMPLE: usize = 0x6700_0000;

impl Gpm {
    pub(crate) fn allocate(&self) -> usize {
        let mut state = hold(&self.state);
        state.allocated += 1;
        let number = FIRST_SAMPLE + state.allocated * 0x40;
        state.samples.insert(number, None);
        number
    }

    pub(crate) fn free(&self, number: usize) -> Answer {
        let freed = hold(&self.state).samples.remove(&number);
        freed.map(drop).ok_or(Code::INVALID_ARGUMENT)
    }

    pub(crate) fn fill(&self, number: usize, activity: Activity) -> Answer {
        let mut state = hold(&self.state);
        let sample = state.samples.get_mut(&number);
        *sample.ok_or(Code::INVALID_ARGUMENT)? = Some(activity);
        Ok(())
    }

    pub(crate) fn read(&self, number: usize) -> Answer<Activity> {
        let state = hold(&self.state);
        let sample = state.samples.get(&number).ok_or(Code::INVALID_ARGUMENT)?;
        sample.clone().ok_or(Code::INVALID_ARGUMENT)
    }

    pub(super) fn clear(&self) {
        hold(&self.state).samples.clear();
    }
}
