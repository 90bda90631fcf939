//! One GPU of eight hangs in every call while an exporter runs.

use std::thread;
use std::time::Duration;

use gpuquota_fake_nvml::file;
use gpuquota_fake_nvml::scenario::{Action, Fault, Scenario};

use crate::Failure;
use crate::figures::scrape;
use crate::others::{PROGRAMS, rows, temperatures};
use crate::site::{Places, Site};

/// The hang is there for so long before anything is judged: longer than every deadline of the agent.
const SETTLED: Duration = Duration::from_secs(15);
const SCRAPES: usize = 20;
const PATIENCE: Duration = Duration::from_secs(1);
/// A temperature that another GPU has only after the hang began, degrees Celsius.
const CHANGED: u32 = 93;
/// Which one hangs.
const HANGS: &str = "3";

/// A table of how each stands it.
pub(crate) fn compare(scenario: &Scenario) -> Result<(), Failure> {
    let hangs = scenario.gpus.get(scenario.gpu_index(HANGS)?);
    let hangs = hangs.ok_or("no such GPU")?.uuid.as_str();
    println!("8 full GPUs, one hangs");
    println!(
        "  {:18}{:>22}{:>22}{:>24}{:>10}",
        "", "answers within 1 s", "another GPU is fresh", "GPUs with temperature", "is named"
    );
    for program in PROGRAMS {
        let mut site = Site::new(scenario.clone(), Places::Few)?;
        let Some(running) = program.start(&mut site)? else {
            continue;
        };
        let ask = || scrape(running.address, program.path(), PATIENCE);
        // What is asked rarely has to be wanted first.
        let mut before = 0;
        for _ in 0..10 {
            before = ask().map_or(0, |text| rows(&text));
            if before >= 8 {
                break;
            }
            thread::sleep(Duration::from_millis(500));
        }
        file::edit(&site.scenario, |scenario| {
            let fault = Fault {
                gpu: Some(HANGS.to_owned()),
                ..Fault::new("*", Action::Hang)
            };
            scenario.add_fault(fault)
        })?;
        thread::sleep(SETTLED);
        file::edit(&site.scenario, |scenario| {
            scenario.gpu_mut("0")?.temperature_c = Some(CHANGED);
            Ok(())
        })?;
        let (mut answered, mut last) = (0, String::new());
        for _ in 0..SCRAPES {
            if let Ok(text) = ask() {
                answered += 1;
                last = text;
            }
            thread::sleep(Duration::from_millis(250));
        }
        let value = |row: &str| {
            row.rsplit(' ')
                .next()
                .and_then(|value| value.parse::<f64>().ok())
        };
        let fresh = temperatures(&last).any(|row| value(row) == Some(f64::from(CHANGED)));
        let own = scrape(running.address, "/metrics", PATIENCE).unwrap_or_default();
        // A count says that one hangs, and not which.
        let marked = own
            .lines()
            .any(|row| row.contains("hung") && row.contains(hangs) && value(row) == Some(1.0));
        let yes = |is: bool| if is { "yes" } else { "no" };
        println!(
            "  {:18}{:>22}{:>22}{:>24}{:>10}",
            program.name(),
            format!("{answered} of {SCRAPES}"),
            yes(fresh),
            format!("{before}, then {}", rows(&last)),
            yes(marked)
        );
    }
    Ok(())
}
