//! A process of its own for each test, with its own scenario and its own copy of the library.
//!
//! NVML is one per process and finds its scenario through the environment, so a test runs itself again as a child.

use std::env;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, Output};

use gpuquota_fake_nvml::link::{How, link};
use gpuquota_fake_nvml::scenario::{Process, Scenario, ScenarioError};
use gpuquota_fake_nvml::{SCENARIO_VARIABLE, file, preset};
use nvml_wrapper::Nvml;

const FOLDER_VARIABLE: &str = "GPUQUOTA_FAKE_NVML_TEST";

pub(crate) struct Stage {
    pub(crate) scenario: PathBuf,
    pub(crate) library: PathBuf,
}

/// Runs `body` as test `name` on the node `preset`, in a process of its own.
pub(crate) fn play(name: &str, preset: &str, body: impl FnOnce(&Stage)) {
    if let Some(output) = play_through(name, preset, body) {
        assert!(
            output.status.success(),
            "{}{}",
            text(&output.stdout),
            text(&output.stderr)
        );
    }
}

/// As [`play`] for a body that kills its process: the signal that it died of.
pub(crate) fn play_to_death(name: &str, preset: &str, body: impl FnOnce(&Stage)) -> Option<i32> {
    play_through(name, preset, body).map(|output| output.status.signal().unwrap_or(0))
}

fn play_through(name: &str, preset: &str, body: impl FnOnce(&Stage)) -> Option<Output> {
    if let Some(folder) = env::var_os(FOLDER_VARIABLE) {
        let folder = PathBuf::from(folder);
        body(&Stage {
            scenario: folder.join("scenario.toml"),
            library: folder.join("libnvidia-ml.so.1"),
        });
        return None;
    }
    let folder = tempfile::tempdir().unwrap();
    let scenario = folder.path().join("scenario.toml");
    file::write(&scenario, &preset::build(preset, name).unwrap()).unwrap();
    link(folder.path(), How::Copy).unwrap();
    let output = Command::new(env::current_exe().unwrap())
        .args([name, "--exact", "--nocapture"])
        .env(FOLDER_VARIABLE, folder.path())
        .env(SCENARIO_VARIABLE, &scenario)
        .output()
        .unwrap();
    Some(output)
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

impl Stage {
    pub(crate) fn nvml(&self) -> Nvml {
        Nvml::builder()
            .lib_path(self.library.as_os_str())
            .init()
            .unwrap()
    }

    pub(crate) fn edit(&self, change: impl FnOnce(&mut Scenario)) {
        let edited = file::edit(&self.scenario, |scenario| {
            change(scenario);
            Ok::<(), ScenarioError>(())
        });
        edited.unwrap();
    }

    pub(crate) fn now(&self) -> Scenario {
        file::read(&self.scenario).unwrap()
    }

    /// Starts a real process and puts it on a GPU.
    pub(crate) fn run_on(&self, gpu: &str, describe: impl FnOnce(&mut Process)) -> Running {
        let child = Command::new("sleep").arg("600").spawn().unwrap();
        let mut process = Process::new(gpu, child.id());
        describe(&mut process);
        self.edit(|scenario| scenario.add_process(process).unwrap());
        Running(child)
    }
}

/// A process that ends with the test.
pub(crate) struct Running(Child);

impl Running {
    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }

    pub(crate) fn end(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
