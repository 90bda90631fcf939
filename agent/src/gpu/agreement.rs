//! Whether two answers of the driver mean the same processes: the list of a GPU, and the samples of how busy they keep it. Pure.
//!
//! A driver was seen that names processes by the pids of their container in one answer and by the host's in another
//! (Project-HAMi/HAMi-core#112, driver 560). Which answer is right cannot be told from them, so neither names anybody.
//!
//! A sample of a pid that is on no list proves nothing by itself: the process may have ended before the list was asked for, or begun
//! after it. What is counted are passes that bring a sample of it that shows work and is newer than the list of the pass before,
//! while none of these lists names it. At the third such pass the first sample came in before the last but one list was asked for,
//! and the third was taken after that list was complete. So the process worked before and after a list that does not name it, and
//! that list and the samples do not speak of the same pids. What could look the same by chance is a pid that is given again between
//! two passes, twice in a row and each time to a process of this GPU; and a process that lets go of the GPU and takes it again around
//! each list. Either ends with the next list that names it.

use super::usage::Sample;

/// Passes in a row after which a pid is proven to be missing from the list.
const PASSES: u32 = 3;
/// A process at work has a sample each sixth of a second; after so long without one it has stopped, microseconds.
const PAUSE_US: u64 = 2_000_000;

/// What is known of one GPU from pass to pass.
#[derive(Debug, Default)]
pub(super) struct Agreement {
    /// When the list of the pass before was complete, microseconds since 1970; `None`: nothing to compare with.
    listed_us: Option<u64>,
    /// Ascending.
    strangers: Vec<Stranger>,
    contradicted: bool,
    /// Pids of the list that a sample has named since they were contradicted, ascending.
    confirmed: Vec<u32>,
}

/// A pid at work that no list names.
#[derive(Clone, Copy, Debug)]
struct Stranger {
    pid: u32,
    passes: u32,
    at_us: u64,
}

impl Agreement {
    /// One pass: the pids of the list and the newest sample of each process since the pass before, both in ascending order of pids,
    /// and a moment between the two answers, microseconds since 1970.
    pub(super) fn compare(&mut self, listed: &[u32], samples: &[Sample], now_us: u64) {
        let before = self.listed_us.replace(now_us);
        let is_listed = |pid: u32| listed.binary_search(&pid).is_ok();
        let known = std::mem::take(&mut self.strangers);
        let Some(before) = before else { return };
        let at_work = |sample: &&Sample| sample.sm > 0 || sample.memory > 0;
        let newer = |sample: &&Sample| sample.at_us > before && !is_listed(sample.pid);
        for sample in samples.iter().filter(at_work).filter(newer) {
            let passes = find(&known, sample.pid).map_or(0, |it| it.passes);
            self.strangers.push(Stranger {
                pid: sample.pid,
                passes: passes.saturating_add(1),
                at_us: sample.at_us,
            });
        }
        // Passes can be closer together than samples.
        let paused = |it: &Stranger| it.at_us.saturating_add(PAUSE_US) < before;
        let again = |it: &Stranger| find(&self.strangers, it.pid).is_some();
        let waiting = |it: &Stranger| !again(it) && !paused(it) && !is_listed(it.pid);
        let waiting: Vec<_> = known.into_iter().filter(waiting).collect();
        self.strangers.extend(waiting);
        self.strangers.sort_unstable_by_key(|it| it.pid);
        self.contradicted |= self.strangers.iter().any(|it| it.passes >= PASSES);
        self.confirm(listed, samples);
    }

    /// A list that was contradicted counts again when a sample has named each of its pids and none names another.
    fn confirm(&mut self, listed: &[u32], samples: &[Sample]) {
        if !self.contradicted {
            return;
        }
        let named = |pid: &u32| samples.binary_search_by_key(pid, |it| it.pid).is_ok();
        let was = std::mem::take(&mut self.confirmed);
        let both = |pid: &u32| was.binary_search(pid).is_ok() || named(pid);
        self.confirmed = listed.iter().copied().filter(both).collect();
        if self.strangers.is_empty() && !listed.is_empty() && self.confirmed == listed {
            self.contradicted = false;
            self.confirmed.clear();
        }
    }

    /// A pass that compares nothing: no process is listed, or one without a pid, which may be whom a sample names; or it has no samples.
    pub(super) fn skip(&mut self) {
        self.listed_us = None;
        self.strangers.clear();
    }

    /// The list and the samples do not speak of the same pids.
    pub(super) fn is_contradicted(&self) -> bool {
        self.contradicted
    }
}

fn find(strangers: &[Stranger], pid: u32) -> Option<&Stranger> {
    let at = strangers.binary_search_by_key(&pid, |it| it.pid).ok()?;
    strangers.get(at)
}

#[cfg(test)]
mod tests;
