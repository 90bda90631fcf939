//! Faults that come at any moment: servers end, are cut off or stopped, disks fill, clocks are set, all sleep.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{advance, sleep};

use crate::dice::Dice;
use crate::plan::Fault;
use crate::world::World;

const HOUR_MS: i64 = 3_600_000;

/// Long sleeps of one run, so that it ends.
const SLEEPS: u32 = 2;

/// Goes on until the world is calm.
pub(crate) async fn chaos(world: Arc<World>, mut dice: Dice) {
    let mut sleeps = SLEEPS;
    loop {
        let pause = dice.within(20, 1_500);
        sleep(Duration::from_millis(pause)).await;
        let fault = dice.pick(&Fault::ALL);
        let to = world.any(&mut dice);
        let long = dice.within(50, 4_000);
        let setting = dice.pick(&[HOUR_MS, -HOUR_MS, 2_000, -2_000, 0]);
        let asleep = dice.pick(&[30, 600, 25 * 3_600]);
        if !world.has(fault) {
            continue;
        }
        let replica = &world.replicas[to];
        let name = &replica.name;
        match fault {
            Fault::Crash => replica.link.kill("at some moment"),
            Fault::Stop => replica.stop.notify_one(),
            Fault::Partition => {
                world.history.note(format!("{name} is cut off"));
                replica.link.part(true);
                sleep(Duration::from_millis(long)).await;
                replica.link.part(false);
            }
            Fault::DiskFull => {
                world.history.note("the disk is full");
                world.database.set_full(true);
                sleep(Duration::from_millis(long)).await;
                world.database.set_full(false);
            }
            Fault::ClockSet => {
                world
                    .history
                    .note(format!("the clock of {name} is off by {setting} ms"));
                replica.readings.set(setting);
                if dice.chance(500) {
                    replica.stop.notify_one();
                }
            }
            Fault::Sleep if sleeps > 0 => {
                sleeps -= 1;
                world.history.note(format!("all sleep for {asleep} s"));
                advance(Duration::from_secs(asleep)).await;
            }
            // These happen in the course of a write, on the way, or at an end.
            Fault::Sleep
            | Fault::LostAppend
            | Fault::TwiceAppended
            | Fault::SlowJournal
            | Fault::Fsync
            | Fault::Network
            | Fault::Snapshot => {}
        }
    }
}
