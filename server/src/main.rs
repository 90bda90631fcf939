//! `gpuquota-server`.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::bail;
use clap::Parser as _;
use gpuquota_server::auth::Role;
use gpuquota_server::auth::token::{Grant, TokenKey};
use gpuquota_server::cli::{Ban, Cli, Command, Journal, LoadExamples, Migrate, Serve, Token};
use gpuquota_server::clock::{Clock as _, SystemClock};
use gpuquota_server::config::Config;
use gpuquota_server::examples::{self, Caller};
use gpuquota_server::journal::{self, archive, backup, export, rebuild, restore, verify};
use gpuquota_server::service::Origin;
use gpuquota_server::{init, join_token, migrate, rotate, run, telemetry};
use http::Method;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

// Requests are answered by other threads than decide them; glibc's allocator makes such threads wait for each other.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    match command(Cli::parse().command).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("gpuquota-server: {error:#}");
            ExitCode::from(journal::exit_status(&error))
        }
    }
}

async fn command(command: Command) -> anyhow::Result<()> {
    let now = SystemClock::default().wall();
    match command {
        Command::Init(args) => {
            let mut hosts = args.hosts;
            for host in ["localhost", "127.0.0.1", "::1"] {
                if !hosts.iter().any(|known| known == host) {
                    hosts.push(host.to_owned());
                }
            }
            init::init(&args.dir, &hosts, now).await
        }
        Command::Serve(args) => serve(args).await,
        Command::Token(args) => {
            println!("{}", token(&args, now)?);
            Ok(())
        }
        Command::IssueAgent(args) => {
            init::issue_agent(&args.dir, &args.node, &args.out, args.days, now)
        }
        Command::JoinToken(args) => {
            let made = join_token::join_token(&args.dir, &args.node).await?;
            println!("{}", made.token);
            eprintln!("{}", made.how);
            Ok(())
        }
        Command::Ban(args) => ban(args).await,
        Command::Ca(command) => {
            println!("{}", rotate::rotate(command, now).await?);
            Ok(())
        }
        Command::LoadExamples(args) => load_examples(args).await,
        Command::RetireNode(args) => {
            forget(
                &args.dir,
                &format!("nodes/{}", args.node),
                args.force,
                args.reason,
            )
            .await?;
            println!("node {} is forgotten", args.node);
            Ok(())
        }
        Command::ForgetGpu(args) => {
            forget(
                &args.dir,
                &format!("gpus/{}", args.gpu),
                args.force,
                args.reason,
            )
            .await?;
            println!("GPU {} may be reported by any node now", args.gpu);
            Ok(())
        }
        Command::Journal(command) => {
            // With the rows themselves on standard output, what was done is told beside them.
            let beside =
                matches!(&command, Journal::Export { out, .. } if out.as_os_str() == STDOUT);
            let done = look_after(command).await?;
            if beside {
                eprintln!("{done}");
            } else {
                println!("{done}");
            }
            Ok(())
        }
        Command::Migrate(Migrate::SqliteToPostgres { dir, url_file }) => {
            println!("{}", migrate::sqlite_to_postgres(&dir, &url_file).await?);
            Ok(())
        }
        Command::Backup(args) => {
            let done = backup::backup(&args.dir, &args.out, args.with_secrets, now).await?;
            println!("{done}");
            Ok(())
        }
        Command::Restore(args) => {
            let clock = Arc::new(SystemClock::default());
            let done = restore::restore(
                &args.dir,
                &args.from,
                args.incarnation,
                clock,
                Origin::operator(args.reason),
            )
            .await?;
            println!("{done}");
            Ok(())
        }
    }
}

const STDOUT: &str = "-";

async fn look_after(command: Journal) -> anyhow::Result<String> {
    let clock = Arc::new(SystemClock::default());
    match command {
        Journal::Verify { dir, file } => verify::verify(dir.as_deref(), &file).await,
        Journal::Export { dir, from, to, out } => {
            let out = (out.as_os_str() != STDOUT).then_some(out);
            export::export(&dir, from, to, out.as_deref()).await
        }
        Journal::Rebuild {
            dir, check: true, ..
        } => rebuild::check(&dir).await,
        Journal::Rebuild { dir, reason, .. } => {
            rebuild::rebuild(&dir, clock, Origin::operator(reason)).await
        }
        Journal::NewIncarnation {
            dir,
            incarnation,
            reason,
        } => restore::begin(&dir, incarnation, clock, Origin::operator(reason)).await,
        Journal::Archive {
            dir,
            before,
            out,
            reason,
        } => archive::archive(&dir, before, &out, clock, Origin::operator(reason)).await,
    }
}

fn token(args: &Token, now: gpuquota_core::id::Timestamp) -> anyhow::Result<String> {
    if args.role != Role::Admin && args.tenants.is_empty() && args.projects.is_empty() {
        bail!(
            "a {} token needs --tenant or --project; without one it could do nothing",
            args.role
        );
    }
    let tokens = Config::read(&args.dir)?.tokens;
    let key = TokenKey::read(&tokens.key, tokens.algorithm)?;
    let grant = Grant {
        subject: args.subject.clone(),
        role: args.role,
        tenants: args.tenants.iter().cloned().collect(),
        projects: args.projects.iter().cloned().collect(),
        user: args.user.clone(),
        container: args.container.clone(),
    };
    let id = uuid::Uuid::new_v4().to_string();
    Ok(key.issue(&grant, &id, now, args.ttl)?)
}

async fn load_examples(args: LoadExamples) -> anyhow::Result<()> {
    let caller = match (args.dir, args.url, args.token) {
        (Some(dir), _, _) => Caller::of_dir(&dir).await?,
        (None, Some(url), Some(token)) => {
            let token = match token.as_str() {
                "-" => std::io::read_to_string(std::io::stdin())?.trim().to_owned(),
                _ => token,
            };
            Caller::of_url(&url, token, args.ca.as_deref())?
        }
        _ => bail!("give --dir, or --url and --token"),
    };
    let loaded = examples::load(&caller).await;
    caller.close().await;
    loaded
}

async fn ban(args: Ban) -> anyhow::Result<()> {
    let (kind, name) = match (&args.node, &args.serial) {
        (Some(node), _) => ("node", node.to_string()),
        (None, Some(serial)) => ("serial", serial.as_str().to_owned()),
        (None, None) => bail!("say --node or --serial"),
    };
    let caller = Caller::of_dir(&args.dir).await?.because(args.reason);
    let done = if args.lift {
        let path = format!("/api/v1/bans?{kind}={name}");
        caller.call(&Method::DELETE, &path, None).await
    } else {
        let body = serde_json::json!({ kind: name });
        caller
            .call(&Method::POST, "/api/v1/bans", Some(&body))
            .await
    };
    caller.close().await;
    done?;
    let what = if args.lift {
        "accepted again"
    } else {
        "refused from now on"
    };
    println!("{kind} {name} is {what}");
    Ok(())
}

async fn forget(dir: &Path, what: &str, force: bool, reason: Option<String>) -> anyhow::Result<()> {
    let caller = Caller::of_dir(dir).await?.because(reason);
    let path = format!("/api/v1/{what}?force={force}");
    let answer = caller.call(&Method::DELETE, &path, None).await;
    caller.close().await;
    answer.map(drop)
}

async fn serve(args: Serve) -> anyhow::Result<()> {
    let mut config = Config::read(&args.dir)?;
    config.rest.listen = args.rest.unwrap_or(config.rest.listen);
    config.agents.listen = args.agents.unwrap_or(config.agents.listen);
    config.metrics.listen = args.metrics.unwrap_or(config.metrics.listen);
    telemetry::start(&config.log)?;
    let stop = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stopping = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping");
        stopping.cancel();
    });
    run::serve(&args.dir, config, stop).await
}
