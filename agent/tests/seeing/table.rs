//! FAULTS.md names the tests of each fault class and of each rule, and all of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
}

/// What a test's name claims: `fault_m_rule_12_...` is `m` and `12`.
fn claims(name: &str) -> BTreeSet<String> {
    let words: Vec<&str> = name.split('_').collect();
    let claim = |pair: &[&str]| match pair {
        ["fault", letter] if letter.len() == 1 => Some((*letter).to_owned()),
        ["rule", number] => Some(number.parse::<u32>().ok()?.to_string()),
        _ => None,
    };
    words.windows(2).filter_map(claim).collect()
}

#[test]
fn each_fault_and_rule_of_the_table_names_its_tests_and_each_such_test_stands_in_it() {
    let agent = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for folder in ["src", "tests", "fake-nvml/src", "fake-nvml/tests"] {
        sources(&agent.join(folder), &mut files);
    }
    let functions: BTreeSet<String> = files
        .iter()
        .map(|file| fs::read_to_string(file).unwrap())
        .flat_map(|text| {
            let names = text.split("fn ").skip(1);
            let names = names.filter_map(|rest| Some(rest.split_once('(')?.0.to_owned()));
            names.collect::<Vec<_>>()
        })
        .collect();
    let table = fs::read_to_string(agent.join("FAULTS.md")).unwrap();
    let mut rows: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in table.lines().filter(|line| line.starts_with("| ")) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let key = cells[1].trim_matches(['(', ')']).to_owned();
        if key == "---" || key.len() > 2 {
            continue;
        }
        let tests: BTreeSet<String> = cells[3]
            .split('`')
            .skip(1)
            .step_by(2)
            .map(str::to_owned)
            .collect();
        assert!(
            !tests.is_empty() || !cells[4].is_empty(),
            "{key}: neither a test nor a reason"
        );
        for test in &tests {
            assert!(functions.contains(test), "{key}: there is no test {test}");
        }
        assert!(
            rows.insert(key.clone(), tests).is_none(),
            "{key} stands there twice"
        );
    }
    let expected = ('a'..='o').map(|letter| letter.to_string());
    let expected: BTreeSet<String> = expected
        .chain((1..=20).map(|rule| rule.to_string()))
        .collect();
    assert_eq!(rows.keys().cloned().collect::<BTreeSet<_>>(), expected);
    for test in &functions {
        for claim in claims(test) {
            let row = rows
                .get(&claim)
                .unwrap_or_else(|| panic!("{test} claims {claim}"));
            assert!(
                row.contains(test),
                "{test} does not stand in the row {claim}"
            );
        }
    }
}
