//! Lines as any user of the host can send them.

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::fuzz;

const FIELDS: [&str; 6] = [
    "tenant",
    "gpus",
    "model",
    "cpu_cores",
    "memory_bytes",
    "token",
];

fn any_key() -> impl Strategy<Value = String> {
    prop_oneof![
        12 => prop::sample::select(&FIELDS[..]).prop_map(str::to_owned),
        1 => Just("Gpus".to_owned()),
        1 => Just("uid".to_owned()),
        1 => "\\PC{0,12}",
    ]
}

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        2 => Just(Value::Null),
        1 => any::<bool>().prop_map(Value::from),
        4 => any::<u32>().prop_map(Value::from),
        2 => any::<i64>().prop_map(Value::from),
        1 => any::<u64>().prop_map(Value::from),
        1 => any::<f64>().prop_map(Value::from),
        4 => "[a-z\"\\\\\u{0}-\u{20}\u{7f}\u{2028}]{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 8, 3, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..3).prop_map(Value::from),
            btree_map("[a-z]{0,6}", inner, 0..3).prop_map(|map| map.into_iter().collect()),
        ]
    })
}

fn any_object() -> impl Strategy<Value = Value> {
    let gpus = prop_oneof![
        9 => any::<u32>().prop_map(|gpus| Some(Value::from(gpus))),
        1 => Just(None),
    ];
    let rest = btree_map(any_key(), any_value(), 0..5);
    (rest, gpus).prop_map(|(mut map, gpus)| {
        map.extend(gpus.map(|gpus| ("gpus".to_owned(), gpus)));
        map.into_iter().collect()
    })
}

/// Whether it is what an asking may be, said without the code that reads it.
fn is_an_asking(object: &Value) -> bool {
    let fits = |(key, value): (&String, &Value)| {
        let number = |most: u64| value.as_u64().is_some_and(|number| number <= most);
        match key.as_str() {
            "gpus" => number(u64::from(u32::MAX)),
            "cpu_cores" => value.is_null() || number(u64::from(u32::MAX)),
            "memory_bytes" => value.is_null() || number(u64::MAX),
            "tenant" | "model" | "token" => value.is_null() || value.is_string(),
            _ => false,
        }
    };
    let fields = object.as_object().unwrap();
    fields.contains_key("gpus") && fields.iter().all(fits)
}

/// What is read, and nothing else; a refusal is one line that the other end can read.
fn read(line_of_a_user: &[u8]) -> Option<Value> {
    match asking(line_of_a_user) {
        Ok(ask) => {
            let token = ask.token.as_deref().filter(|token| token.len() > 8);
            assert!(token.is_none_or(|token| !format!("{ask:?}").contains(token)));
            Some(serde_json::to_value(ask).unwrap())
        }
        Err(refused) => {
            let said = line(&refused).unwrap();
            let ends = said.iter().filter(|byte| **byte == b'\n').count();
            assert_eq!((ends, said.last()), (1, Some(&b'\n')));
            assert!(said.len() < 4096, "{} bytes", said.len());
            assert_eq!(serde_json::from_slice::<Answer>(&said).unwrap(), refused);
            assert!(matches!(refused, Answer::Refused { .. }));
            None
        }
    }
}

proptest! {
    #![proptest_config(fuzz::config())]

    #[test]
    fn an_asking_is_read_as_it_is_written_and_nothing_else_is_one(object in any_object()) {
        let expected = is_an_asking(&object).then(|| {
            let fields = object.as_object().unwrap().clone();
            let said = fields.into_iter().filter(|(_, value)| !value.is_null());
            said.collect::<Value>()
        });
        prop_assert_eq!(read(object.to_string().as_bytes()), expected);
    }

    #[test]
    fn no_line_is_too_strange_to_be_refused(
        object in any_object(),
        at in any::<prop::sample::Index>(),
        bytes in vec(any::<u8>(), 0..40),
        cut in any::<bool>(),
    ) {
        let mut text = object.to_string().into_bytes();
        let place = at.index(text.len());
        let end = if cut { text.len() } else { text.len().min(place + bytes.len()) };
        text.splice(place..end, bytes.iter().copied());
        // Whatever was made of it: if it is read at all, it is read once more as the same.
        if let Some(ask) = read(&text) {
            prop_assert_eq!(read(ask.to_string().as_bytes()), Some(ask));
        }
        read(&bytes);
    }
}

#[test]
fn a_line_of_any_length_and_depth_gets_a_short_answer() {
    let most = usize::try_from(LONGEST_LINE).unwrap();
    for strange in [
        format!("{{\"{}\": 1}}", "x".repeat(most - 8)),
        format!("{{\"gpus\": \"{}\"}}", "\u{1F600}".repeat(most / 8)),
        format!("{{\"{}\": 1}}", "\\u0001".repeat(most / 8)),
        "[".repeat(most),
        format!("{{\"gpus\": {}", "[".repeat(most - 16)),
        "9".repeat(most),
        "{\"gpus\": 1, \"gpus\": 2}".to_owned(),
        String::new(),
    ] {
        assert_eq!(read(strange.as_bytes()), None, "{}", strange.len());
    }
}
