//! Sharing devices among things that hold them: nodes, GPUs, islands and NUMA nodes are all bins.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

/// Something that holds free devices.
#[derive(Clone, Copy)]
pub(super) struct Bin<T> {
    /// What it is. Between bins that are equal in the rest the lesser one wins; it is compared only then.
    pub(super) item: T,
    /// Nothing uses it yet, and it is better left so.
    pub(super) opens: bool,
    /// Most devices that may be taken.
    pub(super) holds: u32,
    /// Free devices, those included that may not be taken: what is not taken of them is left over.
    pub(super) free: u32,
}

/// Shares of the fewest bins, among those of the fewest that open, among those (greedily) of the least left over.
///
/// All that there is, when that is less than `need`.
pub(super) fn fewest<T: Copy + Ord>(bins: &[Bin<T>], need: u32) -> Vec<(T, u32)> {
    let sufficient = bins.iter().filter(|bin| bin.holds >= need);
    if let Some(best) = sufficient.min_by_key(|bin| (bin.opens, bin.free, bin.item)) {
        return if need > 0 {
            vec![(best.item, need)]
        } else {
            Vec::new()
        };
    }
    let mut sorted = holding(bins);
    sorted.sort_unstable_by_key(|bin| (Reverse(bin.holds), bin.free, bin.item));
    let all = sums(&sorted);
    let need = all.last().map_or(0, |sum| u64::from(need).min(*sum));
    let count = all.partition_point(|sum| *sum < need);

    let (opening, used): (Vec<_>, Vec<_>) = sorted.into_iter().partition(|bin| bin.opens);
    let (opening_sums, used_sums) = (sums(&opening), sums(&used));
    let excess = |opened: usize| {
        let sum = opening_sums.get(opened)? + used_sums.get(count.checked_sub(opened)?)?;
        sum.checked_sub(need)
    };
    let least = (0..=count).find_map(|opened| Some((opened, excess(opened)?)));
    let (opened, mut slack) = least.unwrap_or_default();

    let mut chosen = tighten(opening, opened, &mut slack);
    chosen.extend(tighten(used, count - opened, &mut slack));
    chosen.sort_unstable_by_key(|bin| (bin.opens, Reverse(bin.holds), bin.item));
    let mut rest = need;
    let shares = chosen.into_iter().map(|bin| {
        let share = u32::try_from(rest).map_or(bin.holds, |rest| rest.min(bin.holds));
        rest -= u64::from(share);
        (bin.item, share)
    });
    shares.collect()
}

/// The first `count` bins of `sorted`, from the last to the first exchanged for the one that leaves least, as far as
/// `slack`, by which all chosen ones together hold too much, allows.
fn tighten<T: Copy + Ord>(sorted: Vec<Bin<T>>, count: usize, slack: &mut u64) -> Vec<Bin<T>> {
    let mut chosen = sorted;
    let mut others: BTreeMap<u32, BTreeSet<(u32, T)>> = BTreeMap::new();
    for bin in chosen.split_off(count) {
        others
            .entry(bin.holds)
            .or_default()
            .insert((bin.free, bin.item));
    }
    for bin in chosen.iter_mut().rev() {
        let least = u64::from(bin.holds).saturating_sub(*slack);
        let least = u32::try_from(least).unwrap_or(u32::MAX);
        let fitting = others.range(least..);
        let fitting = fitting.filter_map(|(holds, bins)| Some((*bins.first()?, *holds)));
        let Some(((free, item), holds)) = fitting.min() else {
            continue;
        };
        if free < bin.free {
            others.entry(holds).or_default().remove(&(free, item));
            others
                .entry(bin.holds)
                .or_default()
                .insert((bin.free, bin.item));
            *slack = *slack + u64::from(holds) - u64::from(bin.holds);
            (bin.holds, bin.free, bin.item) = (holds, free, item);
        }
    }
    chosen
}

/// Shares of as many bins as there are devices, at most `most`, and as even as they allow; among those of the fewest
/// bins that open, among those of the least left over.
///
/// Nothing, when so many bins hold less than `need`.
pub(super) fn even<T: Copy + Ord>(bins: &[Bin<T>], need: u32, most: usize) -> Vec<(T, u32)> {
    let mut sorted = holding(bins);
    sorted.sort_unstable_by_key(|bin| Reverse(bin.holds));
    let most = usize::try_from(need).unwrap_or(usize::MAX).min(most);
    let Some(mut loads) = even_loads(sorted.iter().take(most).map(|bin| bin.holds), need) else {
        return Vec::new();
    };
    // What can carry a load can carry each lesser one, so the best bin for the largest load is never one that a lesser
    // load needs more.
    let mut shares = Vec::with_capacity(loads.len());
    let mut waiting = sorted.into_iter().peekable();
    let mut fitting = BinaryHeap::new();
    while let Some(load) = loads.pop() {
        while let Some(bin) = waiting.next_if(|bin| bin.holds >= load) {
            fitting.push(Reverse((bin.opens, bin.free, bin.item)));
        }
        shares.extend(fitting.pop().map(|Reverse((_, _, item))| (item, load)));
    }
    shares
}

/// `need` laid evenly on bins that hold so many, the largest first; ascending.
fn even_loads(
    largest_first: impl DoubleEndedIterator<Item = u32> + ExactSizeIterator,
    need: u32,
) -> Option<Vec<u32>> {
    let (mut rest, mut bins) = (need, u32::try_from(largest_first.len()).ok()?);
    let mut loads = Vec::with_capacity(largest_first.len());
    for holds in largest_first.rev() {
        let load = rest.checked_div(bins)?.min(holds);
        loads.push(load);
        rest -= load;
        bins -= 1;
    }
    (rest == 0).then_some(loads)
}

fn holding<T: Copy>(bins: &[Bin<T>]) -> Vec<Bin<T>> {
    bins.iter().filter(|bin| bin.holds > 0).copied().collect()
}

/// What none, the first one, the first two, … hold.
fn sums<T>(bins: &[Bin<T>]) -> Vec<u64> {
    let mut sum = 0;
    let running = bins.iter().map(|bin| {
        sum += u64::from(bin.holds);
        sum
    });
    std::iter::once(0).chain(running).collect()
}
