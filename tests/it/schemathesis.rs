//! schemathesis, a published checker of HTTP interfaces, against the server's own OpenAPI document.

use std::process::Command;
use std::time::Duration;

use gpuquota_tests::program::{output, program, succeed};
use gpuquota_tests::python::Python;
use gpuquota_tests::repository;
use gpuquota_tests::server::Server;
use gpuquota_tests::skip::measured;
use gpuquota_tests::wait::now;

/// Far above what it takes; it is bounded by the number of examples.
const MOST: Duration = Duration::from_secs(400);

#[tokio::test]
async fn the_server_does_what_its_openapi_document_says() {
    let Some(python) = Python::found("schemathesis") else {
        return;
    };
    // All its wrong credentials come from one address.
    let server = Server::with(&[("wrong_burst = 50", "wrong_burst = 1000000")]).await;
    let mut examples = Command::new(program("gpuquota-server"));
    examples.arg("load-examples").arg("--url");
    examples.arg(format!("http://{}", server.rest));
    succeed(examples.args(["--token", server.admin_token()]));
    let document = server.admin().get("/openapi.json").await;
    assert_eq!(document.status, 200, "{document:?}");
    let paths = document.json()["paths"].as_object().unwrap().clone();
    let methods = ["get", "put", "post", "patch", "delete"];
    // It leaves out the one that it reads the document from.
    let operations = paths
        .values()
        .flat_map(|path| path.as_object().unwrap().keys())
        .filter(|key| methods.contains(&key.as_str()))
        .count()
        - 1;
    let folder = repository::root().join("tests/python");
    let mut st = python.program("st");
    // It leaves its notes where it runs.
    st.current_dir(server.home());
    st.arg("--config-file")
        .arg(folder.join("schemathesis.toml"));
    st.env("GPUQUOTA_TOKEN", server.admin_token());
    st.env("SCHEMATHESIS_HOOKS", folder.join("schemathesis_hooks.py"));
    st.arg("run");
    st.arg(format!("http://{}/openapi.json", server.rest));
    let begin = now();
    let ended = output(&mut st);
    let took = begin.elapsed();
    let said = [ended.stdout, ended.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(ended.status.success(), "{said}");
    // All of the document was looked at, and more than once.
    let all = format!("Selected: {operations}/{operations}");
    assert!(said.contains(&all), "not {all}: {said}");
    assert!(said.contains(&format!("Tested: {operations}")), "{said}");
    assert!(took < MOST, "{took:?}");
    let cases = said.lines().find(|line| line.contains(" generated, "));
    measured(
        "schemathesis",
        format!("{}, {} s", cases.unwrap().trim(), took.as_secs()),
    );
}
