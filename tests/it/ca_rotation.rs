//! One authority follows another beside a running server, with agents that report all the while (case 12).

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use gpuquota_proto::pinned::Pin;
use gpuquota_proto::tls::chain;
use gpuquota_tests::mtls::Papers;
use gpuquota_tests::node::Node;
use gpuquota_tests::program::program;
use gpuquota_tests::server::{QUICK, Server};
use gpuquota_tests::session::{Session, full, gpu, hello};
use gpuquota_tests::wait::{SOON, until};
use tokio::task::JoinHandle;
use tonic::Code;

use crate::joining::{join, join_token, joined, text};

// What it printed, on either side.
fn ca(server: &Server, args: &[&str]) -> Result<String, String> {
    let mut command = Command::new(program("gpuquota-server"));
    command.arg("ca").args(args).arg("--dir").arg(&server.dir);
    let output = command.output().unwrap();
    match output.status.success() {
        true => Ok(text(&output.stdout)),
        false => Err(text(&output.stderr)),
    }
}

fn pins(server: &Server) -> Vec<String> {
    let trusted = chain(&server.dir.join("ca.crt")).unwrap();
    let pin = |der: &_| Pin::of(der).unwrap().to_string();
    trusted.iter().map(|der| pin(der)).collect()
}

// Until each of these nodes has a certificate of the one that signs, and trusts exactly these.
async fn settled(server: &Server, nodes: &[&Node], signer: &str, trusted: &[String]) {
    let mut trusted = trusted.to_vec();
    trusted.sort();
    until("the nodes have what they need", SOON, async || {
        let listed = server.admin().get("/api/v1/authority/nodes").await.json();
        for node in nodes {
            let rows = listed["nodes"].as_array().unwrap();
            let row = rows.iter().find(|row| row["node"] == node.name.as_str());
            let row = row.ok_or_else(|| listed.to_string())?;
            let trusts = row["trusts"].as_array().ok_or_else(|| listed.to_string())?;
            let mut trusts: Vec<&str> = trusts.iter().filter_map(|it| it.as_str()).collect();
            trusts.sort_unstable();
            if row["certificate_by"] != signer || trusts != trusted {
                return Err(format!("{signer} {trusted:?} {listed}"));
            }
        }
        Ok(())
    })
    .await;
}

// Reports without a pause over one stream: each of them must be taken.
struct Load {
    stop: Arc<AtomicBool>,
    task: JoinHandle<(Session, u64)>,
}

impl Load {
    fn on(mut session: Session) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let ended = stop.clone();
        let task = tokio::spawn(async move {
            let mut number = 0;
            while !ended.load(Ordering::Relaxed) {
                number += 1;
                session.acked(full(number, vec![gpu("GPU-9", &[])])).await;
            }
            (session, number)
        });
        Self { stop, task }
    }

    async fn end(self) -> (Session, u64) {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.unwrap()
    }
}

#[tokio::test]
async fn case_12_an_authority_follows_another_under_load_and_back_at_each_step() {
    let server = Server::with(QUICK).await;
    let (mut one, mut two) = (joined(&server, "n1"), joined(&server, "n2"));
    one.run().await;
    two.run().await;
    one.up(&server.admin()).await;
    two.up(&server.admin()).await;
    let papers = Papers::read(&server.issue_agent("n3"), "agent");
    let session = Session::open(&server, &papers, hello("n3")).await.unwrap();
    let old = pins(&server).remove(0);
    // The third one is an agent of an older version: it hears of nothing, and says nothing of its own accord.
    let load = Load::on(session);
    let both = [&one, &two];
    settled(&server, &both, &old, std::slice::from_ref(&old)).await;

    let within = ["--renew-within", "1s"];
    let step = |name: &'static str| ca(&server, &[&[name][..], &within].concat());
    assert!(step("trust").unwrap_err().contains("ca prepare"));
    let said = step("prepare").unwrap();
    assert!(said.contains("used for nothing"), "{said}");
    assert_eq!(pins(&server), [old.as_str()]);
    step("rollback").unwrap();
    step("prepare").unwrap();
    assert!(step("issue").unwrap_err().contains("ca trust"));

    step("trust").unwrap();
    let trusted = pins(&server);
    let new = trusted[1].clone();
    settled(&server, &both, &old, &trusted).await;
    step("rollback").unwrap();
    settled(&server, &both, &old, std::slice::from_ref(&old)).await;
    step("trust").unwrap();
    settled(&server, &both, &old, &trusted).await;

    // A node that is not ready is named, and stops it.
    let refused = step("issue").unwrap_err();
    assert!(refused.contains("n3 did not say"), "{refused}");
    let early = join_token(&server, "n4");
    let forced = ca(&server, &[&["issue", "--force"][..], &within].concat());
    forced.unwrap();
    // Killed before or in the middle of its renewal.
    two.process().kill9();
    two.process = None;
    two.run().await;
    settled(&server, &[&one, &two], &new, &trusted).await;
    // Whoever knows the key of either one joins.
    for (name, token) in [("n4", early), ("n5", join_token(&server, "n5"))] {
        let dir = server.home().join(format!("joined-{name}"));
        let done = join(&server, &dir, &token);
        assert!(done.status.success(), "{}", text(&done.stderr));
    }
    let scrape = server.scrape().await;
    let phase = |phase| scrape.value("gpuquota_ca_rotation_phase", &[("phase", phase)]);
    assert_eq!((phase("issuing"), phase("trusted")), (Some(1.0), Some(0.0)));
    let with_new = scrape.value("gpuquota_authority_nodes", &[("authority", &new)]);
    assert_eq!(with_new, Some(2.0));

    // All the way back, and on again.
    let both = [&one, &two];
    step("rollback").unwrap();
    settled(&server, &both, &old, &trusted).await;
    // They have certificates of the new one, although they have not shown them yet.
    let refused = step("rollback").unwrap_err();
    let named = ["n4", "n5"].map(|node| format!("{node} has a certificate of the new"));
    assert!(named.iter().all(|it| refused.contains(it)), "{refused}");
    ca(&server, &["rollback", "--force"]).unwrap();
    settled(&server, &both, &old, std::slice::from_ref(&old)).await;
    step("trust").unwrap();
    settled(&server, &both, &old, &trusted).await;
    ca(&server, &[&["issue", "--force"][..], &within].concat()).unwrap();
    settled(&server, &both, &new, &trusted).await;

    let refused = step("finish").unwrap_err();
    let named = refused.contains("n3 has a certificate of the old authority");
    assert!(named && !refused.contains("n1"), "{refused}");
    let shown = ca(&server, &["show"]).unwrap();
    assert!(
        shown.contains("phase: issuing") && shown.contains("n3"),
        "{shown}"
    );
    // Until here its stream was never cut, and each of its reports was taken.
    let (mut session, reports) = load.end().await;
    assert!(reports > 20, "{reports}");
    ca(&server, &["finish", "--force", "--reason", "ticket 9"]).unwrap();
    assert_eq!(session.end().await, Code::Unauthenticated);
    settled(&server, &both, &new, std::slice::from_ref(&new)).await;
    // The old authority is refused: a certificate of it opens nothing any more.
    let again = Session::open(&server, &papers, hello("n3")).await;
    assert!(again.is_err(), "{again:?}");
    assert!(step("rollback").unwrap_err().contains("no way back"));
    assert!(!server.dir.join("ca-rotation/old-ca.key").exists());
    let state = std::fs::read_to_string(server.dir.join("ca-rotation/state.json")).unwrap();
    assert!(state.contains("ticket 9"), "{state}");
    for node in [&mut one, &mut two] {
        node.up(&server.admin()).await;
        let log = node.process().log();
        let says = |text: &str| log.iter().filter(|line| line.contains(text)).count();
        assert!(says("going over to a new connection") >= 2, "{log:?}");
        assert_eq!(says("no session with the server"), 0, "{log:?}");
        assert_eq!(says("is refused"), 0, "{log:?}");
    }
}
