//! Joining by a one-use token, with the real programs (cases 8 to 10).

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use gpuquota_proto::agent_v1::agent_client::AgentClient;
use gpuquota_proto::agent_v1::joining_client::JoiningClient;
use gpuquota_proto::agent_v1::{JoinRequest, RenewRequest};
use gpuquota_proto::identity::peer_identity;
use gpuquota_tests::mtls::{Papers, channel, joiner};
use gpuquota_tests::node::Node;
use gpuquota_tests::program::program;
use gpuquota_tests::server::{QUICK, Server};
use gpuquota_tests::wait::{SOON, until, wall_ms};
use rcgen::{CertificateParams, KeyPair, SanType};
use tonic::Code;

/// A join token, and the key by which its bearer knows the server.
pub(crate) struct Token {
    token: String,
    pin: String,
}

// `join-token` beside the running server: the token alone on standard output, and how to use it beside that.
pub(crate) fn join_token(server: &Server, node: &str) -> Token {
    let mut command = Command::new(program("gpuquota-server"));
    command.args(["join-token", "--node", node, "--dir"]);
    let output = command.arg(&server.dir).output().unwrap();
    let (token, how) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{how}");
    let token = token.strip_suffix('\n').unwrap().to_owned();
    assert_eq!(token.len(), 43, "not only a token: {token:?}");
    assert!(!how.contains(&token), "a secret in a command line: {how}");
    let pin = how
        .split_whitespace()
        .find(|word| word.starts_with("sha256:"));
    Token {
        pin: pin.unwrap().to_owned(),
        token,
    }
}

pub(crate) fn join(server: &Server, dir: &Path, token: &Token) -> Output {
    let mut command = Command::new(program("gpuquota-agent"));
    let url = format!("https://localhost:{}", server.agents.port());
    command.args(["join", "--token", "-", "--server", &url]);
    command.args(["--ca-hash", &token.pin, "--dir"]).arg(dir);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    writeln!(stdin, "{}", token.token).unwrap();
    drop(stdin);
    child.wait_with_output().unwrap()
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn refused(output: &Output, why: &str) {
    let said = text(&output.stderr);
    assert!(!output.status.success(), "it joined");
    assert!(said.contains(why), "{said}");
}

// A node that has everything but its identity.
fn node_without(server: &Server, name: &str) -> Node {
    let node = Node::new(server, name, "h100x1");
    for name in ["ca.crt", "agent.crt", "agent.key"] {
        std::fs::remove_file(node.dir.join(name)).unwrap();
    }
    node
}

/// A node that joined, not started.
pub(crate) fn joined(server: &Server, name: &str) -> Node {
    let node = node_without(server, name);
    let joined = join(server, &node.dir, &join_token(server, name));
    assert!(joined.status.success(), "{}", text(&joined.stderr));
    node
}

fn folder(server: &Server, name: &str) -> PathBuf {
    server.home().join(name)
}

#[tokio::test]
async fn case_8_a_node_joins_with_its_token_and_reports_and_the_token_is_used_up() {
    let server = Server::with(QUICK).await;
    let token = join_token(&server, "n1");
    let mut node = node_without(&server, "n1");
    let joined = join(&server, &node.dir, &token);
    assert!(joined.status.success(), "{}", text(&joined.stderr));
    assert_eq!(text(&joined.stdout), "this is node n1 now\n");
    use std::os::unix::fs::PermissionsExt as _;
    let key = std::fs::metadata(node.dir.join("agent.key")).unwrap();
    assert_eq!(key.permissions().mode() & 0o777, 0o600);
    node.run().await;
    node.up(&server.admin()).await;

    // A node already; and from another folder, which has another key.
    refused(&join(&server, &node.dir, &token), "this is a node already");
    let thief = folder(&server, "thief");
    refused(&join(&server, &thief, &token), "does not count");
    assert!(!thief.join("agent.crt").exists());
    // An answer that was lost is given again to the key that asked.
    std::fs::remove_file(node.dir.join("agent.crt")).unwrap();
    let again = join(&server, &node.dir, &token);
    assert!(again.status.success(), "{}", text(&again.stderr));
    until("the agent goes over to it", SOON, async || {
        match server.admin().node("n1").await {
            node if node["state"] == "up" && node["settled"] == true => Ok(()),
            node => Err(node.to_string()),
        }
    })
    .await;
    // Whoever reads what the server keeps has no token, used or not.
    let kept = std::fs::read(server.ledger()).unwrap();
    assert!(!text(&kept).contains(&token.token));
}

#[tokio::test]
async fn case_9_a_token_makes_its_own_node_whatever_the_folder_says() {
    let server = Server::start().await;
    let token = join_token(&server, "n1");
    let dir = folder(&server, "other");
    std::fs::create_dir(&dir).unwrap();
    let config = format!(
        "server = \"https://localhost:{}\"\nnode = \"n2\"\n",
        server.agents.port()
    );
    std::fs::write(dir.join("agent.toml"), config).unwrap();
    let joined = join(&server, &dir, &token);
    refused(&joined, "names node n1, not n2");
    assert!(!dir.join("agent.crt").exists());
}

#[tokio::test]
async fn case_8_of_agents_that_use_one_token_at_once_one_becomes_the_node() {
    let server = Server::start().await;
    let token = join_token(&server, "n1");
    let dirs = ["a", "b", "c", "d"].map(|name| folder(&server, name));
    let done: Vec<Output> = std::thread::scope(|scope| {
        let joining = dirs.each_ref();
        let joining = joining.map(|dir| scope.spawn(|| join(&server, dir, &token)));
        joining.map(|one| one.join().unwrap()).into()
    });
    let won = done.iter().filter(|output| output.status.success());
    assert_eq!(won.count(), 1, "{done:?}");
    let without = |dir: &&PathBuf| !dir.join("agent.crt").exists();
    let lost: Vec<&PathBuf> = dirs.iter().filter(without).collect();
    assert_eq!(lost.len(), 3);
    // One that came while another was served may be told to try again, which does not help it.
    for dir in lost {
        refused(&join(&server, dir, &token), "does not count");
    }
    // Whoever watches the log sees that somebody tried.
    let log = server.process.as_ref().map(|process| process.log());
    let told = |line: &String| line.contains("a join token that does not count");
    assert!(log.is_some_and(|log| log.iter().any(told)));
}

#[tokio::test]
async fn a_packages_settings_are_left_alone_and_what_they_lack_is_said() {
    let server = Server::start().await;
    let (dir, settings) = (folder(&server, "state"), folder(&server, "agent.toml"));
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(&settings, "interval = \"1s\"\n").unwrap();
    std::os::unix::fs::symlink(&settings, dir.join("agent.toml")).unwrap();
    let joined = join(&server, &dir, &join_token(&server, "n1"));
    let said = text(&joined.stderr);
    assert!(joined.status.success(), "{said}");
    let line = format!("server = \"https://localhost:{}\"", server.agents.port());
    assert!(
        said.contains(&line) && said.contains(settings.to_str().unwrap()),
        "{said}"
    );
    assert_eq!(
        std::fs::read_to_string(&settings).unwrap(),
        "interval = \"1s\"\n"
    );
    assert!(dir.join("agent.toml").is_symlink());
}

#[tokio::test]
async fn a_wrong_pin_ends_the_connection_before_the_token_is_sent() {
    let server = Server::start().await;
    let good = join_token(&server, "n1");
    let wrong = Token {
        token: good.token.clone(),
        pin: format!("sha256:{}", "0".repeat(64)),
    };
    let dir = folder(&server, "a");
    refused(&join(&server, &dir, &wrong), "the token was not sent");
    // It was not: with the right pin it still counts, from the key that is there and from no other first.
    let joined = join(&server, &folder(&server, "b"), &good);
    assert!(joined.status.success(), "{}", text(&joined.stderr));
}

#[tokio::test]
async fn case_9_a_token_ends_and_a_server_without_the_authoritys_key_signs_nothing() {
    let edits = [("join_token_life = \"10m\"", "join_token_life = \"1s\"")];
    let server = Server::with(&edits).await;
    let token = join_token(&server, "n1");
    let made = wall_ms();
    until("the token ends", SOON, async || match wall_ms() - made {
        1100.. => Ok(()),
        ms => Err(format!("{ms} ms old")),
    })
    .await;
    let dir = folder(&server, "late");
    refused(&join(&server, &dir, &token), "does not count");

    let other = Server::start().await;
    let token = join_token(&other, "n1");
    std::fs::remove_file(other.dir.join("ca.key")).unwrap();
    refused(
        &join(
            &other,
            &dir,
            &Token {
                pin: token.pin,
                token: token.token,
            },
        ),
        "your own authority",
    );
    let mut command = Command::new(program("gpuquota-server"));
    command.args(["join-token", "--node", "n1", "--dir"]);
    refused(
        &command.arg(&other.dir).output().unwrap(),
        "your own authority",
    );
}

/// A signing request that asks for this name, or for none.
pub(crate) fn request(name: Option<&str>) -> Vec<u8> {
    let names = name.map(|name| SanType::URI(name.try_into().unwrap()));
    let mut params = CertificateParams::default();
    params.subject_alt_names = names.into_iter().collect();
    let request = params.serialize_request(&KeyPair::generate().unwrap());
    request.unwrap().der().to_vec()
}

#[tokio::test]
async fn cases_1_and_10_a_node_renews_itself_only_and_a_joiner_may_only_join() {
    let few = [
        ("wrong_burst = 50", "wrong_burst = 3"),
        ("wrong_per_second = 5", "wrong_per_second = 1"),
    ];
    let server = Server::with(&few).await;
    let papers = Papers::read(&server.issue_agent("n1"), "agent");
    let line = channel(server.agents, &server.dir, Some(&papers)).await;
    let mut node = JoiningClient::new(line.unwrap());
    let other = node.renew(RenewRequest {
        csr_der: request(Some("spiffe://gpuquota/node/n2")),
    });
    assert_eq!(other.await.unwrap_err().code(), Code::InvalidArgument);
    let renewed = node.renew(RenewRequest {
        csr_der: request(None),
    });
    let renewed = renewed.await.unwrap().into_inner();
    assert_eq!(peer_identity(&renewed.chain[0]).unwrap().node, "n1");
    let junk = node.renew(RenewRequest {
        csr_der: b"junk".to_vec(),
    });
    assert_eq!(junk.await.unwrap_err().code(), Code::InvalidArgument);

    let naked = joiner(server.agents, &server.dir).await.unwrap();
    let mut stranger = JoiningClient::new(naked.clone());
    let answer = stranger.renew(RenewRequest {
        csr_der: request(None),
    });
    assert_eq!(answer.await.unwrap_err().code(), Code::Unauthenticated);
    let session = AgentClient::new(naked.clone());
    let answer = session.clone().session(tokio_stream::empty()).await;
    assert_eq!(answer.unwrap_err().code(), Code::Unauthenticated);
    // Wrong tokens are answered, but not without end.
    let mut codes = Vec::new();
    for number in 0..30 {
        let answer = stranger.join(JoinRequest {
            token: format!("guess-{number}"),
            csr_der: request(None),
        });
        codes.push(answer.await.unwrap_err().code());
    }
    assert_eq!(codes.first(), Some(&Code::PermissionDenied));
    assert!(codes.contains(&Code::ResourceExhausted), "{codes:?}");
}
