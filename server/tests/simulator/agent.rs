//! A node's agent: sessions, a spool of reports that are sent until they are acknowledged, heartbeats that compare, and
//! silence. It moves from server to server.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use gpuquota_core::command::NodeReport;
use gpuquota_core::device::{DeviceReport, LicenceState};
use gpuquota_core::event::SilenceReason;
use gpuquota_core::id::{NodeName, Seq, SessionId};
use gpuquota_core::node::NodeState;
use gpuquota_core::{Answer, Command, Denied, Outcome, State};
use tokio::time::{Instant, sleep};

use crate::checker::{Reply, What};
use crate::dice::Dice;
use crate::names::{DEVICES, TENANTS, device, node, region, tenant};
use crate::world::{Request, World};

const TRIES: u32 = 4;
/// Heartbeats in a row after which a report that the ledger lacks is sent anew.
const ASTRAY: u32 = 3;

/// A report that waits for its acknowledgement.
struct Spooled {
    number: u64,
    made: Instant,
    /// In which session, and the row that was heard of before it was read.
    read_after: Option<(SessionId, Seq)>,
    full: bool,
    devices: Vec<DeviceReport>,
}

/// One agent.
pub(crate) struct Agent {
    pub(crate) world: Arc<World>,
    pub(crate) node: NodeName,
    pub(crate) dice: Dice,
    pub(crate) server: usize,
    session: Option<SessionId>,
    /// The newest row that it heard of in its session.
    heard: Option<(SessionId, Seq)>,
    former: Vec<SessionId>,
    spool: u64,
    last: u64,
    pending: VecDeque<Spooled>,
    pub(crate) devices: Vec<DeviceReport>,
    astray: u32,
    /// Number of the last outcome that it told.
    pub(crate) outcomes: u64,
}

impl Agent {
    pub(crate) fn new(world: Arc<World>, number: usize, mut dice: Dice) -> Self {
        let devices = (0..DEVICES).map(|at| device(number, at)).collect();
        let mut agent = Self {
            server: world.any(&mut dice),
            world,
            node: node(number),
            dice,
            session: None,
            heard: None,
            former: Vec::new(),
            spool: 0,
            last: 0,
            pending: VecDeque::new(),
            devices,
            astray: 0,
            outcomes: 0,
        };
        agent.begin_spool();
        agent
    }

    /// Lives as long as operations are left.
    pub(crate) async fn run(mut self) -> Self {
        while self.world.take() {
            let thinks = self.dice.delay();
            sleep(Duration::from_millis(thinks)).await;
            match self.dice.below(100) {
                0..=48 => self.change(),
                49..=54 => self.act().await,
                55..=79 => self.heartbeat().await,
                80..=84 => self.ghost().await,
                85..=89 => self.leave(),
                90..=92 => self.goodbye().await,
                93..=96 => {
                    let long = self.dice.within(1_000, 40_000);
                    sleep(Duration::from_millis(long)).await;
                }
                _ => self.begin_spool(),
            }
            self.flush().await;
        }
        self
    }

    /// Says all it has to say, and compares; then notes what is true.
    pub(crate) async fn settle(&mut self) {
        for _ in 0..20 {
            self.flush().await;
            if self.pending.is_empty() {
                self.heartbeat().await;
            }
            if self.pending.is_empty() && self.astray == 0 && self.session.is_some() {
                let devices = holders(self.devices.iter());
                let node = self.node.to_string();
                return self.world.history.push(What::Truth { node, devices });
            }
            sleep(Duration::from_millis(100)).await;
        }
        let text = format!("{} cannot say what it has", self.node);
        self.world.history.alarm(text);
    }

    fn begin_spool(&mut self) {
        self.spool += 1;
        self.last = 0;
        self.pending.clear();
        self.report(true, self.devices.clone());
    }

    fn report(&mut self, full: bool, devices: Vec<DeviceReport>) {
        self.last += 1;
        self.pending.push_back(Spooled {
            number: self.last,
            made: Instant::now(),
            read_after: self.heard,
            full,
            devices,
        });
    }

    // Somebody starts or ends on one of its devices, or a guest gets or loses its licence. Mostly it is who has a lease.
    fn change(&mut self) {
        let at = self.dice.index(DEVICES);
        let seen = self.world.replicas[self.server].handle();
        let seen = seen.map(|handle| handle.ledger.read());
        let key = &self.devices[at].key;
        let lease = seen.as_ref().and_then(|seen| seen.state.lease_on(key));
        let lessee = lease.map(|lease| lease.terms.tenant.clone());
        let squats = self.dice.chance(150);
        let anybody = tenant(self.dice.pick(&TENANTS));
        let device = &mut self.devices[at];
        if device.licence.is_some() && self.dice.chance(400) {
            let states = [
                LicenceState::Licensed,
                LicenceState::Unlicensed,
                LicenceState::Unknown,
            ];
            device.licence = Some(self.dice.pick(&states));
        } else if !device.tenants.is_empty() && self.dice.chance(700) {
            device.tenants.pop();
        } else if let Some(name) = lessee.or_else(|| squats.then_some(anybody))
            && !device.tenants.contains(&name)
        {
            device.tenants.push(name);
            device.tenants.sort();
        }
        let changed = device.clone();
        self.report(false, vec![changed]);
    }

    pub(crate) async fn ask(&mut self, command: Command, op: Option<String>) -> Reply {
        let replica = &self.world.replicas[self.server];
        if let Some(handle) = replica.handle() {
            let now_ms = handle.clock.boot_ms();
            handle.liveness.heard(&self.node, now_ms);
        }
        let request = Request {
            caller: format!("node:{}", self.node),
            command,
            op,
            fingerprint: None,
        };
        self.world.call(&mut self.dice, self.server, &request).await
    }

    // The session, or a new one at any server.
    pub(crate) async fn session(&mut self) -> Option<SessionId> {
        if self.session.is_none() {
            self.server = self.world.any(&mut self.dice);
            let command = Command::OpenSession {
                node: self.node.clone(),
                default_region: region(),
                boot_id: "boot".into(),
                agent_version: "1".into(),
            };
            if let Some(Outcome::Session(session)) = granted(&self.ask(command, None).await) {
                self.session = Some(session);
                let server = self.world.replicas[self.server].handle();
                self.heard = server.map(|it| (session, it.ledger.read().state.seq()));
            }
        }
        self.session
    }

    pub(crate) fn leave(&mut self) {
        self.former.extend(self.session.take());
    }

    // Sends what waits, the first first, until it is acknowledged or too much goes wrong.
    async fn flush(&mut self) {
        let mut tries = TRIES;
        while let Some(first) = self.pending.front()
            && tries > 0
        {
            let age = first.made.elapsed().as_millis();
            let (number, full, devices) = (first.number, first.full, first.devices.clone());
            let read_after = first.read_after;
            let Some(session) = self.session().await else {
                tries -= 1;
                sleep(Duration::from_millis(50)).await;
                continue;
            };
            let spool = format!("{}-{}", self.node, self.spool);
            let op = format!("agent/{}/{}/{spool}/{number}", self.node, session.0);
            let command = Command::Report(NodeReport {
                node: self.node.clone(),
                session,
                spool,
                number,
                age_ms: u64::try_from(age).ok(),
                heard_at: None,
                read_after: of_session(read_after, session),
                full,
                facts: None,
                devices,
                gone: Vec::new(),
            });
            let reply = self.ask(command, Some(op)).await;
            match (granted(&reply), denied(&reply)) {
                (Some(Outcome::Reported(to)), _) => {
                    self.pending.retain(|waits| waits.number > to);
                }
                (_, Some(Denied::ReportGap { .. })) => {
                    tries -= 1;
                    self.begin_spool();
                }
                (_, Some(Denied::StaleSession)) | (None, None) => {
                    tries -= 1;
                    self.leave();
                }
                (granted, denied) => {
                    let text = format!("{} is told {granted:?} {denied:?}", self.node);
                    return self.world.history.alarm(text);
                }
            }
        }
    }

    // What the server shows against what is true, where both speak of the same report.
    async fn heartbeat(&mut self) {
        let Some(session) = self.session().await else {
            return;
        };
        let Some(seen) = self.world.replicas[self.server].read(false) else {
            return self.leave();
        };
        let Some(known) = seen.state.node(&self.node) else {
            return;
        };
        if known.state == NodeState::Silent && known.session == session {
            let command = Command::MarkHeard {
                node: self.node.clone(),
                session,
            };
            self.ask(command, None).await;
        }
        let spool = format!("{}-{}", self.node, self.spool);
        let mark = known.spool.as_ref();
        let same = mark.is_some_and(|mark| mark.spool == spool && mark.number == self.last);
        if same {
            self.astray = 0;
            if in_ledger(&seen.state, &self.node) != holders(self.devices.iter()) {
                let text = format!("{} and the ledger differ after one report", self.node);
                self.world.history.alarm(text);
            } else if seen.state.awaits(&self.node) || !known.settled {
                // Nothing has changed since: what waits for its devices may end.
                self.heard = Some((session, seen.state.seq()));
                let command = Command::Agree {
                    node: self.node.clone(),
                    session,
                    read_after: Some(seen.state.seq()),
                };
                self.ask(command, None).await;
            }
        } else if self.pending.is_empty() {
            self.astray += 1;
            if self.astray >= ASTRAY {
                self.astray = 0;
                self.begin_spool();
            }
        }
    }

    // A stream that ended long ago still speaks.
    async fn ghost(&mut self) {
        // Until a newer session is known, the last one may still speak.
        if self.former.is_empty() || self.session.is_none() {
            return;
        }
        let session = self.dice.pick(&self.former);
        let spool = format!("{}-ghost", self.node);
        let op = format!("agent/{}/{}/{spool}/1", self.node, session.0);
        let command = Command::Report(NodeReport {
            node: self.node.clone(),
            session,
            spool,
            number: 1,
            age_ms: None,
            heard_at: None,
            read_after: None,
            full: true,
            facts: None,
            devices: Vec::new(),
            gone: Vec::new(),
        });
        self.ask(command, Some(op)).await;
    }

    async fn goodbye(&mut self) {
        let Some(session) = self.session else {
            return;
        };
        let command = Command::MarkSilent {
            node: self.node.clone(),
            session,
            reason: SilenceReason::Stopped,
        };
        self.ask(command, None).await;
        self.leave();
    }
}

// What it heard in another session counts for nothing.
fn of_session(heard: Option<(SessionId, Seq)>, session: SessionId) -> Option<Seq> {
    heard.filter(|(of, _)| *of == session).map(|(_, row)| row)
}

fn answer(reply: &Reply) -> Option<Answer> {
    match reply {
        Reply::Decided { answer, .. } => serde_json::from_str(answer).ok(),
        Reply::Refused { .. } | Reply::Lost => None,
    }
}

pub(crate) fn granted(reply: &Reply) -> Option<Outcome> {
    match answer(reply)? {
        Answer::Granted(outcome) => Some(outcome),
        Answer::Denied(_) => None,
    }
}

fn denied(reply: &Reply) -> Option<Denied> {
    match answer(reply)? {
        Answer::Granted(_) => None,
        Answer::Denied(denied) => Some(denied),
    }
}

fn holders<'a>(devices: impl Iterator<Item = &'a DeviceReport>) -> BTreeMap<String, Vec<String>> {
    let row = |device: &DeviceReport| {
        let tenants = device.tenants.iter().map(ToString::to_string).collect();
        (device.key.to_string(), tenants)
    };
    devices.map(row).collect()
}

fn in_ledger(state: &State, node: &NodeName) -> BTreeMap<String, Vec<String>> {
    let devices = state.devices().filter(|(_, device)| device.node == *node);
    holders(devices.map(|(_, device)| &device.report))
}
