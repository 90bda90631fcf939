//! Reads what `/metrics` answers (Prometheus text format 0.0.4).

/// All samples of one scrape.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scrape(Vec<Sample>);

/// One line.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Sample {
    name: String,
    labels: Vec<(String, String)>,
    /// Its value.
    pub(crate) value: f64,
}

impl Sample {
    /// A label's value, empty when it is not there.
    pub(crate) fn label(&self, name: &str) -> &str {
        let found = self.labels.iter().find(|(known, _)| known == name);
        found.map_or("", |(_, value)| value)
    }
}

impl Scrape {
    /// Reads the text; lines that are no samples are left out.
    pub(crate) fn parse(text: &str) -> Self {
        Self(text.lines().filter_map(sample).collect())
    }

    /// The samples of one name.
    pub(crate) fn named(&self, name: &str) -> impl Iterator<Item = &Sample> {
        self.0.iter().filter(move |sample| sample.name == name)
    }

    /// The value with exactly these labels, at least.
    pub(crate) fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let fits = |sample: &&Sample| labels.iter().all(|(name, v)| sample.label(name) == *v);
        self.named(name).find(fits).map(|sample| sample.value)
    }
}

fn sample(line: &str) -> Option<Sample> {
    if line.starts_with('#') || line.is_empty() {
        return None;
    }
    let name_end = line.find(['{', ' '])?;
    let (name, rest) = line.split_at(name_end);
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(rest) => labels(rest)?,
        None => (Vec::new(), rest),
    };
    let value = rest.split_whitespace().next()?.parse().ok()?;
    Some(Sample {
        name: name.to_owned(),
        labels,
        value,
    })
}

type Labels = Vec<(String, String)>;

fn labels(mut rest: &str) -> Option<(Labels, &str)> {
    let mut labels = Vec::new();
    loop {
        rest = rest.trim_start_matches([',', ' ']);
        if let Some(after) = rest.strip_prefix('}') {
            return Some((labels, after));
        }
        let (name, quoted) = rest.split_once("=\"")?;
        let mut value = String::new();
        let mut characters = quoted.char_indices();
        loop {
            match characters.next()? {
                (end, '"') => {
                    rest = quoted.get(end + 1..)?;
                    break;
                }
                (_, '\\') => match characters.next()?.1 {
                    'n' => value.push('\n'),
                    other => value.push(other),
                },
                (_, other) => value.push(other),
            }
        }
        labels.push((name.to_owned(), value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_read_with_escapes_and_infinity() {
        let text = "# HELP a b\na 1\nb{x=\"1,}\\\"\\n\",y=\"z\"} +Inf 17\nbroken{x=\"\nc{} 0.5\n";
        let scrape = Scrape::parse(text);
        assert_eq!(scrape.0.len(), 3);
        assert_eq!(scrape.value("a", &[]), Some(1.0));
        assert_eq!(scrape.value("b", &[("y", "z")]), Some(f64::INFINITY));
        assert_eq!(scrape.named("b").next().unwrap().label("x"), "1,}\"\n");
        assert_eq!(scrape.value("b", &[("y", "other")]), None);
        assert_eq!(scrape.value("c", &[]), Some(0.5));
    }
}
