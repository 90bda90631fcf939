//! The table of reliability cases names tests that exist, and all of them.

use std::collections::{BTreeMap, BTreeSet};

use gpuquota_tests::repository::{root, sources};

/// Between them are those of tokens and dialects.
const CASES: [std::ops::RangeInclusive<u32>; 2] = [1..=13, 36..=77];

// The numbers at the beginning of a test's name: `case_42_and_49_kill...` has two.
fn numbers(name: &str) -> Vec<u32> {
    let parts = name
        .strip_prefix("case_")
        .into_iter()
        .flat_map(|rest| rest.split('_'));
    let parts = parts.filter(|part| *part != "and");
    parts.map_while(|part| part.parse().ok()).collect()
}

#[test]
fn each_case_of_the_table_names_tests_that_exist_and_each_such_test_stands_in_it() {
    let functions: BTreeSet<String> = sources()
        .iter()
        .flat_map(|(_, text)| text.split("fn ").skip(1))
        .filter_map(|rest| Some(rest.split_once('(')?.0.to_owned()))
        .collect();
    let table = std::fs::read_to_string(root().join("tests/CASES.md")).unwrap();
    let mut named: BTreeMap<u32, BTreeSet<String>> = BTreeMap::new();
    for line in table.lines() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let Some(number) = cells.get(1).and_then(|cell| cell.parse().ok()) else {
            continue;
        };
        let tests = cells[3]
            .split('`')
            .skip(1)
            .step_by(2)
            .map(ToOwned::to_owned);
        let known = named.insert(number, tests.collect());
        assert!(known.is_none(), "case {number} stands there twice");
    }
    let expected: Vec<u32> = CASES.into_iter().flatten().collect();
    assert_eq!(named.keys().copied().collect::<Vec<_>>(), expected);
    for (number, tests) in &named {
        assert!(!tests.is_empty(), "case {number} has no test");
        for test in tests {
            assert!(
                functions.contains(test),
                "case {number}: there is no test {test}"
            );
        }
    }
    for test in &functions {
        for number in numbers(test) {
            let row = named.get(&number);
            let stands = row.is_none_or(|tests| tests.contains(test));
            assert!(stands, "{test} does not stand in the row of case {number}");
        }
    }
}
