//! Run times on the wire (dialects D3.5): `unlimited` or `D-HH:MM:SS`.

const DAY_S: u64 = 24 * 60 * 60;
const UNLIMITED: &str = "unlimited";

/// Writes seconds; `None` is unlimited.
#[must_use]
pub(crate) fn format(seconds: Option<u64>) -> String {
    let Some(seconds) = seconds else {
        return UNLIMITED.to_owned();
    };
    let (days, rest) = (seconds / DAY_S, seconds % DAY_S);
    let (hours, minutes, seconds) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{days}-{hours:02}:{minutes:02}:{seconds:02}")
}

/// Reads a run time of less than 100,000 days; `None` when it is none.
#[must_use]
pub(crate) fn parse(text: &str) -> Option<Option<u64>> {
    if text == UNLIMITED {
        return Some(None);
    }
    let (days, clock) = text.split_once('-')?;
    let number = |text: &str, most: usize| {
        let digits = (1..=most).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
        text.parse::<u64>().ok().filter(|_| digits)
    };
    let parts: Vec<&str> = clock.split(':').collect();
    let [hours, minutes, seconds] = parts.as_slice() else {
        return None;
    };
    let two = |text: &str, below: u64| {
        number(text, 2).filter(|number| text.len() == 2 && *number < below)
    };
    let (hours, minutes, seconds) = (two(hours, 24)?, two(minutes, 60)?, two(seconds, 60)?);
    Some(Some(
        number(days, 5)? * DAY_S + hours * 3600 + minutes * 60 + seconds,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_time_survives_its_text_and_others_are_refused() {
        for seconds in [
            None,
            Some(0),
            Some(59),
            Some(86_399),
            Some(93_784),
            Some(8_639_999_999),
        ] {
            assert_eq!(parse(&format(seconds)), Some(seconds));
        }
        assert_eq!(format(Some(93_784)), "1-02:03:04");
        for bad in [
            "",
            "Unlimited",
            "1",
            "1-2:03:04",
            "1-24:00:00",
            "1-00:60:00",
            "-1-00:00:00",
            "1-00:00",
            "100000-00:00:00",
            "1-00:00:00:00",
            "+1-00:00:00",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
