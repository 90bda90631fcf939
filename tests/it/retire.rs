//! A node that is no more is retired, and a GPU that moved to another node is taken over there: by the commands, beside
//! a running server with real agents.

use std::process::Command;

use gpuquota_tests::node::Node;
use gpuquota_tests::program::{output, program};
use gpuquota_tests::quota::{GPU, purchase};
use gpuquota_tests::server::Server;
use gpuquota_tests::wait::{SOON, until};

fn forget(server: &Server, args: &[&str]) -> (bool, String) {
    let mut command = Command::new(program("gpuquota-server"));
    command.args(args).arg("--dir").arg(&server.dir);
    let output = output(&mut command);
    let text = [output.stdout, output.stderr].concat();
    (
        output.status.success(),
        String::from_utf8_lossy(&text).into_owned(),
    )
}

async fn devices(server: &Server, node: &str, expected: usize) {
    let admin = server.admin();
    until(
        &format!("{node} has {expected} devices"),
        SOON,
        async || {
            let listed = admin.get("/api/v1/nodes").await.json();
            let nodes = listed["nodes"].as_array().unwrap();
            let found = nodes.iter().find(|row| row["name"] == node);
            match found.map(|row| row["devices"].as_array().unwrap().len()) {
                Some(count) if count == expected => Ok(()),
                other => Err(format!("{other:?}")),
            }
        },
    )
    .await;
}

#[tokio::test]
async fn a_gpu_moves_to_another_node_and_the_empty_one_is_retired() {
    let server = Server::start().await;
    let admin = server.admin();
    admin.put("a", purchase("default", 4)).await.expect_done();
    let mut old = Node::start(&server, "n1", "h100x1").await;
    let mut new = Node::start(&server, "n2", "h100x1").await;
    devices(&server, "n1", 1).await;
    devices(&server, "n2", 1).await;
    let uuid = old.uuid(0);

    // While its node is heard, the ledger believes that the GPU is there.
    let (done, said) = forget(&server, &["forget-gpu", "--gpu", &uuid]);
    assert!(!done && said.contains("is heard"), "{said}");
    old.stop().await;

    // The card now sits in the other node, which may not speak for it yet.
    let moved = uuid.clone();
    new.stop().await;
    new.edit(|scenario| {
        scenario.gpus[0].uuid = moved;
        Ok(())
    });
    new.run().await;
    let refused = "belongs to node n1";
    until("the claim is refused", SOON, async || {
        let log = new.process().log();
        match log.iter().any(|line| line.contains(refused)) {
            true => Ok(()),
            false => Err(format!("{log:?}")),
        }
    })
    .await;
    let (done, said) = forget(&server, &["forget-gpu", "--gpu", &uuid]);
    assert!(done && said.contains(&uuid), "{said}");
    devices(&server, "n1", 0).await;
    until("the other node has it", SOON, async || {
        let node = admin.node("n2").await;
        let found = &node["devices"][0]["device"];
        if *found == uuid {
            Ok(())
        } else {
            Err(node.to_string())
        }
    })
    .await;

    let (done, said) = forget(
        &server,
        &["retire-node", "--node", "n1", "--reason", "sold"],
    );
    assert!(done && said.contains("n1 is forgotten"), "{said}");
    let listed = admin.get("/api/v1/nodes").await.json();
    assert!(!listed.to_string().contains("\"n1\""), "{listed}");
    let audit = admin.get("/api/v1/audit").await.json();
    assert!(audit.to_string().contains("\"reason\":\"sold\""), "{audit}");
    let (done, said) = forget(&server, &["retire-node", "--node", "n1"]);
    assert!(!done && said.contains("there is no node n1"), "{said}");
    // An agent that comes back after all is a new node, once the operator says that it is there.
    let body = serde_json::json!({"region": "default"});
    let declared = admin.json("PUT", "/api/v1/nodes/n1", &body).await;
    assert_eq!(declared.status, 200, "{}", declared.text);
    old.edit(|scenario| {
        scenario.gpus.clear();
        Ok(())
    });
    old.run().await;
    devices(&server, "n1", 0).await;
    assert_eq!(admin.quotas().await.used("a", "flexible", GPU), 0);
}
