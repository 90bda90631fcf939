//! Usage as CSV (RFC 4180): a header, lines that end with CR LF, and quotes where they are needed.
//!
//! Models and regions are free text, and spreadsheets take a cell that begins with = + - or @ for a formula: such a cell
//! gets an apostrophe in front, which they take for "this is text".

use super::wire::{Row, UsageBody};

const COLUMNS: [&str; 11] = [
    "from",
    "to",
    "open",
    "tenant",
    "region",
    "gpu_model",
    "class",
    "node",
    "device",
    "milliseconds",
    "seconds",
];

/// Writes the rows of this page, and in the end a row `wall` for the whole answer where the caller may see it.
pub(super) fn written(body: &UsageBody) -> String {
    let mut text = line(COLUMNS.iter().map(|column| (*column).to_owned()));
    for row in &body.usage {
        text.push_str(&line(cells(row)));
    }
    if let Some(wall) = body.totals.wall {
        let row = Row {
            from: body.from.clone(),
            to: body.to.clone(),
            open: body.open,
            class: Some("wall".into()),
            milliseconds: wall,
            seconds: wall / 1000,
            ..Row::default()
        };
        text.push_str(&line(cells(&row)));
    }
    text
}

fn cells(row: &Row) -> impl Iterator<Item = String> {
    let of = |text: &Option<String>| text.clone().unwrap_or_default();
    [
        row.from.clone(),
        row.to.clone(),
        row.open.to_string(),
        of(&row.tenant),
        of(&row.region),
        of(&row.gpu_model),
        of(&row.class),
        of(&row.node),
        of(&row.device),
        row.milliseconds.to_string(),
        row.seconds.to_string(),
    ]
    .into_iter()
}

fn line(cells: impl Iterator<Item = String>) -> String {
    let cells = cells.map(|text| cell(&text)).collect::<Vec<_>>();
    cells.join(",") + "\r\n"
}

fn cell(text: &str) -> String {
    let formula = text.starts_with(['=', '+', '-', '@', '\t', '\r']);
    let text = if formula {
        format!("'{text}")
    } else {
        text.to_owned()
    };
    if text.contains(['"', ',', '\r', '\n']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_is_quoted_where_it_must_be_and_is_never_a_formula() {
        for (text, written) in [
            ("H100 80GB", "H100 80GB"),
            ("a,b", "\"a,b\""),
            ("13\" rack", "\"13\"\" rack\""),
            (
                "=HYPERLINK(\"x\",\"y\")",
                "\"'=HYPERLINK(\"\"x\"\",\"\"y\"\")\"",
            ),
            ("@SUM(A1)", "'@SUM(A1)"),
            ("-1", "'-1"),
            ("+1", "'+1"),
            ("华东-1", "华东-1"),
        ] {
            assert_eq!(cell(text), written);
        }
    }
}
