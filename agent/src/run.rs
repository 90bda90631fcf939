//! The loop: sample, observe, tell, show. Everything else waits for what it leaves behind.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rand::Rng as _;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tokio_util::sync::CancellationToken;

use crate::act::{Acting, Acts, Neighbours};
use crate::attribute::{self, Observer};
use crate::clock::{boottime_ms, unix_s};
use crate::config::Config;
use crate::control::quiet::Quiet;
use crate::control::server::{Order, listen};
use crate::enforce::cgroup_root;
use crate::enforce::client::Enforcer;
use crate::events::ledger::Now;
use crate::events::sentinel::Sentinel;
use crate::exec::figures::Figures;
use crate::facts::{boot_id, host_name};
use crate::gpu::leaf::Leaf;
use crate::gpu::sampler::{Sampler, SamplerConfig};
use crate::leased::Leased;
use crate::metrics::dcgm::Dcgm;
use crate::metrics::http;
use crate::metrics::snapshot::{Board, Pass, Ways};
use crate::notify::Manager;
use crate::observation::Observation;
use crate::openers::keeper::{EVERY_MS, Keeper};
use crate::state::gpus::GpuKeeper;
use crate::state::{StateError, StateFolder};
use crate::uplink::outbox::Good;

mod granted;
mod leasing;
mod orders;
mod telling;

use granted::ask_kubelet;
use leasing::Leasing;
use telling::Telling;

/// A sample takes at most this many call deadlines.
const SAMPLE_DEADLINES: u32 = 4;
/// The worker gets this long to end by itself when the agent stops.
const WORKER_DEADLINE: Duration = Duration::from_millis(3500);
/// The uplink gets this long to flush and say goodbye; it keeps shorter ones itself.
const UPLINK_DEADLINE: Duration = Duration::from_secs(4);
/// The step that is being taken gets this long to end.
const STEP_DEADLINE: Duration = Duration::from_secs(3);
/// Users of a directory service that answers are known before the first look.
const NAMES_DEADLINE: Duration = Duration::from_secs(5);

/// Why the agent cannot run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The state folder is another agent's or another user's.
    #[error(transparent)]
    State(#[from] StateError),
    /// A rule of attribution is unclear.
    #[error(transparent)]
    Attribution(#[from] attribute::ConfigError),
    /// The metrics address is taken or not ours.
    #[error("cannot listen on {address} for metrics: {source}")]
    Listen {
        /// Which address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The kernel does not tell which boot this is, or gives no signals.
    #[error("the kernel refuses what the agent needs: {0}")]
    Kernel(#[from] io::Error),
}

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// When it cannot start. Once it runs, nothing but a signal ends it.
pub async fn run(config: Config) -> Result<(), RunError> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let state = StateFolder::open(&config.state)?;
    let leased = Arc::<Leased>::default();
    let observer = Observer::new(&config.attribution, Some(state.path()))?;
    let mut observer = observer.with_leased(Arc::clone(&leased));
    observer.names_asked(NAMES_DEADLINE).await;
    let listener = TcpListener::bind(config.metrics)
        .await
        .map_err(|source| RunError::Listen {
            address: config.metrics,
            source,
        })?;
    // The port may have been left to the kernel.
    let address = listener.local_addr()?;
    let boot_id = boot_id()?;
    let stop = CancellationToken::new();
    let mut uplink = None;
    let (seen, to_be_judged) = watch::channel(None);
    let exec = Arc::<Figures>::default();
    let neighbours = Neighbours::new(
        config.attribution.clone(),
        state.path(),
        Arc::clone(&leased),
        cgroup_root(),
    );
    let telling = config.uplink.map(|target| {
        let (spool, to) = (config.spool, target.clone());
        let (telling, task) = Telling::start(to, &state, &boot_id, spool, &stop);
        uplink = Some(task);
        let leasing = Leasing {
            exec: config.exec,
            attribution: config.attribution.clone(),
            enforcer: config.enforcement.socket.clone(),
            target: &target,
            dialogue: Arc::clone(&telling.dialogue),
            seen: to_be_judged.clone(),
            state: state.path(),
            proc_root: config.proc_root.clone(),
            boot_id: &boot_id,
            leased,
            figures: Arc::clone(&exec),
        };
        leasing.start(&stop);
        telling
    });
    let acts = Arc::<Acts>::default();
    let (stop_acting, mut acted) = (CancellationToken::new(), None);
    if let Some(telling) = &telling {
        let acting = Acting {
            hands: Enforcer::new(config.enforcement.socket.clone()),
            config: config.enforcement,
            dialogue: Arc::clone(&telling.dialogue),
            seen: to_be_judged,
            boot_id: boot_id.clone(),
            state: state.path().to_owned(),
            proc_root: config.proc_root.clone(),
            neighbours,
            figures: Arc::clone(&acts),
        };
        acted = Some(tokio::spawn(acting.run(stop_acting.clone())));
    }
    let reporting = telling.as_ref().map(|telling| Ways {
        outbox: Arc::clone(&telling.outbox),
        dialogue: Arc::clone(&telling.dialogue),
        acts,
        exec,
        status: Arc::clone(&telling.status),
    });
    let pass_deadline = config.call_deadline * SAMPLE_DEADLINES;
    let board = Arc::new(Board::new(config.interval, pass_deadline, reporting));
    tracing::info!(metrics.address = %address, standalone = telling.is_none(), "agent runs");
    let server = http::Server {
        board: Arc::clone(&board),
        token: config.metrics_token,
        dcgm: Dcgm {
            host: host_name(),
            host_label: config.dcgm_host_label,
        },
    };
    let scrapes = tokio::spawn(server.run(listener, stop.clone()));
    if let Some(socket) = config.attribution.creators.kubelet.pod_resources {
        tokio::spawn(ask_kubelet(socket, Arc::clone(&board), stop.clone()));
    }
    let orders = listen(state.path(), stop.clone());
    let quiet = Quiet::load(state.path(), &boot_id, boottime_ms());

    let mut watch = Watch {
        sampler: Sampler::start(SamplerConfig {
            nvml_library: config.nvml_library,
            proc_root: config.proc_root.clone(),
            call_deadline: config.call_deadline,
            leaf: Leaf::settle_or_say(),
            ..SamplerConfig::default()
        }),
        sentinel: Sentinel::start(config.kernel_log.as_deref()),
        openers: Keeper::new(&config.proc_root, EVERY_MS),
        observer,
        previous: None,
        good: None,
        board,
        telling,
        manager: Manager::default(),
        quiet: None,
        gpus: GpuKeeper::new(state.path(), &boot_id),
        state: state.path().to_owned(),
        boot_id,
        seen,
    };
    if let Some(quiet) = quiet {
        watch.quiesce(quiet).await;
    }
    tokio::select! {
        () = watch.go_round(config.interval, orders) => {}
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("agent stops");
    watch.manager.stopping();
    // A step that has begun ends, and what came of it is told before the stream ends.
    stop_acting.cancel();
    if let Some(acted) = acted {
        let _ = tokio::time::timeout(STEP_DEADLINE, acted).await;
    }
    stop.cancel();
    let flushed = async {
        if let Some(uplink) = uplink {
            let _ = tokio::time::timeout(UPLINK_DEADLINE, uplink).await;
        }
    };
    let ended = tokio::time::timeout(WORKER_DEADLINE, watch.sampler.shutdown());
    let _ = tokio::join!(flushed, ended, scrapes);
    Ok(())
}

struct Watch {
    sampler: Sampler,
    sentinel: Sentinel,
    openers: Keeper,
    observer: Observer,
    previous: Option<Arc<Observation>>,
    good: Option<Good>,
    board: Arc<Board>,
    telling: Option<Telling>,
    manager: Manager,
    /// While the driver is to be left alone.
    quiet: Option<Quiet>,
    gpus: GpuKeeper,
    state: PathBuf,
    boot_id: String,
    /// Readings for whoever acts by them.
    seen: watch::Sender<Option<Arc<Observation>>>,
}

impl Watch {
    // The first pass at once, the others at a phase of their own, so that nodes started together do not stay in step.
    async fn go_round(&mut self, interval: Duration, mut orders: mpsc::Receiver<Order>) {
        let board = Arc::clone(&self.board);
        let passes = async {
            let phase = rand::rng().random_range(Duration::ZERO..interval);
            let mut next = interval_at(Instant::now() + phase, interval);
            next.set_missed_tick_behavior(MissedTickBehavior::Skip);
            let mut first = true;
            loop {
                let pass = async {
                    if !std::mem::take(&mut first) {
                        next.tick().await;
                    }
                    self.pass().await;
                };
                // A pass that hangs must not keep whoever wants the driver closed waiting: it is given up.
                let order = tokio::select! {
                    biased;
                    Some(order) = orders.recv() => order,
                    () = pass => continue,
                };
                self.obey(order).await;
                first = true;
            }
        };
        tokio::select! {
            () = passes => {}
            () = keep_alive(&board) => {}
        }
    }

    async fn pass(&mut self) {
        let over = |quiet: &Quiet| boottime_ms() >= quiet.until_boottime_ms;
        if self.quiet.as_ref().is_some_and(over) {
            self.resume();
        }
        let telling = self.telling.as_ref();
        let read_after = telling.and_then(|telling| telling.outbox.heard());
        let asked = boottime_ms();
        self.sampler.want_more(self.board.more_wanted(asked));
        let collected = self.sampler.sample(asked).await;
        let now = boottime_ms();
        let clocks = Now {
            boottime_ms: now,
            unix_s: unix_s(),
        };
        let trouble = self
            .sentinel
            .pass(&mut self.sampler, self.previous.as_deref(), clocks);
        if collected.reading.is_some() {
            self.good = Some(Good {
                at_boottime_ms: now,
                read_after,
            });
        }
        let mut observation = self
            .observer
            .observe(collected, self.previous.as_deref(), now);
        let open_nodes = self
            .openers
            .mind(&mut observation, &mut self.observer, now)
            .await;
        let unnamed = self.sampler.unnamed();
        self.gpus.mind(&observation, !unnamed.is_empty());
        if let Some(telling) = &mut self.telling {
            let unidentified = self.sampler.stats().unidentified;
            telling.tell(&observation, unidentified, self.good);
        }
        let connected = self.telling.as_ref().map(|t| t.status.connected());
        self.manager
            .passed(&observation.nvml, observation.devices.len(), connected);
        let observation = Arc::new(observation);
        self.previous = Some(Arc::clone(&observation));
        self.seen.send_replace(Some(Arc::clone(&observation)));
        self.board.post(Pass {
            observation: Some(observation),
            good_at_boottime_ms: self.good.map(|good| good.at_boottime_ms),
            ended_boottime_ms: boottime_ms(),
            sampler: self.sampler.stats(),
            unnamed: self.sampler.unnamed().to_vec(),
            trouble,
            open_nodes,
            unresolved: self.observer.unresolved(),
        });
    }
}

// A pass may take long when the driver hangs, which no restart would cure; passes that end no more are another matter.
async fn keep_alive(board: &Board) {
    let Some(period) = Manager::watchdog_interval() else {
        return std::future::pending().await;
    };
    let mut ticks = tokio::time::interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if board.view(boottime_ms()).alive {
            Manager::alive();
        }
    }
}
