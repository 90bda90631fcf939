//! A client: asks, repeats under the same operation id when no answer came, and sometimes comes back to an old one.

use std::sync::Arc;
use std::time::Duration;

use gpuquota_core::State;
use gpuquota_core::id::Timestamp;
use gpuquota_server::clock::Readings as _;
use tokio::time::sleep;

use crate::checker::Reply;
use crate::commands::{Ground, draw};
use crate::dice::Dice;
use crate::world::{Request, World, fingerprint};

const TRIES: u32 = 6;

/// One client.
pub(crate) struct Client {
    world: Arc<World>,
    name: String,
    dice: Dice,
    /// The server that it mostly asks.
    home: usize,
    asked: Vec<Request>,
}

impl Client {
    pub(crate) fn new(world: Arc<World>, number: usize, mut dice: Dice) -> Self {
        Self {
            home: world.any(&mut dice),
            world,
            name: format!("client:{number}"),
            dice,
            asked: Vec::new(),
        }
    }

    /// Asks as long as operations are left.
    pub(crate) async fn run(mut self) {
        while self.world.take() {
            // Several that think for no time at all ask at once.
            let thinks = self.dice.delay();
            sleep(Duration::from_millis(thinks)).await;
            let request = self.request();
            self.pursue(request).await;
        }
    }

    fn request(&mut self) -> Request {
        let again = self.dice.chance(120) && !self.asked.is_empty();
        let other_body = again && self.dice.chance(300);
        if again {
            let at = self.dice.index(self.asked.len());
            let mut request = self.asked[at].clone();
            if other_body {
                let command = self.draw();
                request.fingerprint = Some(fingerprint(&command));
                request.command = command;
            }
            return request;
        }
        let command = self.draw();
        let keyed = self.dice.chance(800);
        let request = Request {
            caller: self.name.clone(),
            op: keyed.then(|| format!("{}/{}", self.name, self.asked.len())),
            fingerprint: keyed.then(|| fingerprint(&command)),
            command,
        };
        if keyed {
            self.asked.push(request.clone());
        }
        request
    }

    // From what its server shows, however old that is.
    fn draw(&mut self) -> gpuquota_core::Command {
        let replica = &self.world.replicas[self.home];
        let seen = replica.read(false);
        let nothing = State::default();
        let mut ground = Ground {
            dice: &mut self.dice,
            state: seen.as_ref().map_or(&nothing, |seen| &seen.state),
            now: Timestamp(replica.readings.wall_ms()),
        };
        draw(&mut ground)
    }

    /// Asks until it is decided, as far as a repetition can do no harm.
    async fn pursue(&mut self, request: Request) {
        let mut to = self.home;
        for turn in 1..=TRIES {
            let reply = self.world.call(&mut self.dice, to, &request).await;
            match reply {
                Reply::Decided { .. } => return,
                Reply::Refused { .. } | Reply::Lost if request.op.is_none() => return,
                Reply::Refused { .. } | Reply::Lost => {}
            }
            let wait = self.dice.within(10, 100 * u64::from(turn));
            sleep(Duration::from_millis(wait)).await;
            if self.dice.chance(500) {
                to = self.world.any(&mut self.dice);
                self.home = to;
            }
        }
    }
}
