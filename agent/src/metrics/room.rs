//! The connections of the listener. Whoever is on the node can open as many as it likes, so a place is never kept by waiting: when all
//! are taken, whoever has been silent longest makes room, and who has just asked is the last to go.

use std::sync::{Mutex, PoisonError};

use tokio_util::sync::CancellationToken;

/// Places. A silent connection costs little more than its descriptor, and a scraper that asks before so many others have come is heard.
const PLACES: usize = 256;
/// Answers on their way at a time: each may be large, and a reader may be slow.
const ANSWERS: usize = 32;
/// A reader has so long to take its answer before it counts as silent, milliseconds.
const READING_MS: u64 = 2000;

#[derive(Debug, Default)]
pub(super) struct Room {
    guests: Mutex<Vec<Guest>>,
}

#[derive(Debug)]
struct Guest {
    end: CancellationToken,
    /// When it came, or asked last.
    heard_ms: u64,
    asked: bool,
}

impl Guest {
    /// Whether it waits for an answer that was given just now.
    fn is_reading(&self, now_ms: u64) -> bool {
        self.asked && now_ms.saturating_sub(self.heard_ms) < READING_MS
    }
}

impl Room {
    /// Takes a new connection in, which is to end when `end` is cancelled, and sees the one off that has to make room for it.
    pub(super) fn enter(&self, end: CancellationToken, now_ms: u64) {
        let mut guests = self.guests.lock().unwrap_or_else(PoisonError::into_inner);
        if guests.len() >= PLACES {
            guests.retain(|guest| !guest.end.is_cancelled());
        }
        if guests.len() >= PLACES {
            see_off(&mut guests, |guest| {
                (guest.is_reading(now_ms), guest.heard_ms)
            });
        }
        guests.push(Guest {
            end,
            heard_ms: now_ms,
            asked: false,
        });
    }

    /// Notes that the connection with this `end` asked for something.
    pub(super) fn asks(&self, end: &CancellationToken, now_ms: u64) {
        let mut guests = self.guests.lock().unwrap_or_else(PoisonError::into_inner);
        guests.retain(|guest| !guest.end.is_cancelled());
        let Some(at) = guests.iter().position(|guest| guest.end == *end) else {
            return;
        };
        let mut own = guests.remove(at);
        if guests.iter().filter(|guest| guest.asked).count() >= ANSWERS {
            see_off(&mut guests, |guest| (!guest.asked, guest.heard_ms));
        }
        own.heard_ms = now_ms;
        own.asked = true;
        guests.push(own);
    }
}

fn see_off(guests: &mut Vec<Guest>, rank: impl Fn(&Guest) -> (bool, u64)) {
    let first = guests
        .iter()
        .enumerate()
        .min_by_key(|(_, guest)| rank(guest));
    if let Some((at, _)) = first {
        guests.remove(at).end.cancel();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enter(room: &Room, now_ms: u64) -> CancellationToken {
        let end = CancellationToken::new();
        room.enter(end.clone(), now_ms);
        end
    }

    #[test]
    fn case_66_the_silent_go_before_those_who_ask_and_the_oldest_first() {
        let room = Room::default();
        let scraper = enter(&room, 0);
        let silent: Vec<_> = (1..PLACES as u64).map(|at| enter(&room, at)).collect();
        room.asks(&scraper, 300);
        let newer = enter(&room, 301);
        assert!(silent[0].is_cancelled() && !silent[1].is_cancelled() && !scraper.is_cancelled());
        // An answer that nobody takes does not keep its place for ever.
        let much_later = 300 + READING_MS;
        let all: Vec<_> = (0..PLACES).map(|_| enter(&room, much_later)).collect();
        assert!(scraper.is_cancelled() && newer.is_cancelled() && !all[0].is_cancelled());
        // Of those who ask, the oldest goes when there are too many; who has ended holds no place.
        for end in &all[..ANSWERS] {
            room.asks(end, much_later + 1);
        }
        all[1].cancel();
        room.asks(&all[ANSWERS], much_later + 2);
        assert!(!all[0].is_cancelled());
        room.asks(&all[ANSWERS + 1], much_later + 2);
        assert!(all[0].is_cancelled() && !all[2].is_cancelled());
        assert!(room.guests.lock().unwrap().len() <= PLACES);
    }
}
