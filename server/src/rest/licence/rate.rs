//! Rates of use: whole numbers all the way, so that no comparison and no rounding meets a floating point.

use std::cmp::Ordering;

/// Digits of a threshold at most, so that every product here fits.
const MOST_DIGITS: usize = 18;

/// So many of so many. Of none, the rate is 0 (dialects D4.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Rate {
    /// In use.
    pub(super) used: u64,
    /// Of so many.
    pub(super) max: u64,
}

impl Rate {
    /// Percent, rounded half up to two decimals (dialects D4.4).
    #[must_use]
    pub(super) fn percent(self) -> f64 {
        let (used, max) = (u128::from(self.used), u128::from(self.max));
        let hundredths = (used * 20_000 + max).checked_div(2 * max).unwrap_or(0);
        // Up to fifteen digits, the nearest floating point number is written with the very same digits.
        hundredths.min(999_999_999_999_999) as f64 / 100.0
    }

    /// What is left.
    #[must_use]
    pub(super) fn remaining(self) -> u64 {
        self.max.saturating_sub(self.used)
    }

    /// Compares exactly.
    #[must_use]
    pub(super) fn compare(self, other: Self) -> Ordering {
        let (left, right) = (self.fraction(), other.fraction());
        (left.0 * right.1).cmp(&(right.0 * left.1))
    }

    /// Whether it reaches a threshold, exactly.
    #[must_use]
    pub(super) fn at_least(self, threshold: Threshold) -> bool {
        let (used, max) = self.fraction();
        used * threshold.scale >= threshold.digits * max
    }

    fn fraction(self) -> (u128, u128) {
        match self.max {
            0 => (0, 1),
            max => (self.used.into(), max.into()),
        }
    }
}

/// A fraction from 0 on: 0.8 is 80 percent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Threshold {
    digits: u128,
    scale: u128,
}

impl Threshold {
    /// From which on a quota is shown as highly used (dialects D4.14).
    pub(super) const HIGH: Self = Self {
        digits: 9,
        scale: 10,
    };

    /// Reads decimal text such as `0.8`, `1` or `+1.25`.
    #[must_use]
    pub(super) fn parse(text: &str) -> Option<Self> {
        let text = text.strip_prefix('+').unwrap_or(text);
        let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
        let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
        if !digits(whole) || !digits(decimals) || whole.len() + decimals.len() == 0 {
            return None;
        }
        let (whole, decimals) = (
            whole.trim_start_matches('0'),
            decimals.trim_end_matches('0'),
        );
        if whole.len() + decimals.len() > MOST_DIGITS {
            return None;
        }
        let number = format!("0{whole}{decimals}").parse().ok()?;
        let scale = 10_u128.pow(u32::try_from(decimals.len()).ok()?);
        Some(Self {
            digits: number,
            scale,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn percent(used: u64, max: u64) -> String {
        serde_json::to_string(&Rate { used, max }.percent()).unwrap()
    }

    // Digits of used/max by long division, and whether something is left after them.
    fn long_division(used: u64, max: u64, decimals: usize) -> (String, bool) {
        let mut rest = used % max;
        let mut digits = (used / max).to_string();
        for _ in 0..decimals {
            rest *= 10;
            digits.push(char::from(b'0' + u8::try_from(rest / max).unwrap()));
            rest %= max;
        }
        (digits, rest > 0)
    }

    #[test]
    fn the_documents_rates() {
        for (used, max, written) in [
            (75, 100, "75.0"),
            (0, 200, "0.0"),
            (1, 3, "33.33"),
            (2, 3, "66.67"),
            (1, 8, "12.5"),
            (1, 800, "0.13"),
            (1, 20_000, "0.01"),
            (1, 20_001, "0.0"),
            (5, 0, "0.0"),
            (300, 100, "300.0"),
            (2_147_483_647, 1, "214748364700.0"),
        ] {
            assert_eq!(percent(used, max), written, "{used}/{max}");
        }
    }

    #[test]
    fn thresholds_are_decimal_text() {
        for good in [
            "0",
            "0.8",
            "1",
            "1.2",
            "+0.5",
            ".5",
            "1.",
            "00.10",
            "123456789012345678",
        ] {
            assert!(Threshold::parse(good).is_some(), "{good}");
        }
        for bad in [
            "",
            ".",
            "+",
            "-1",
            "-0",
            "NaN",
            "inf",
            "1e1",
            "1E-1",
            "0x1",
            "0,8",
            " 1",
            "1 ",
            "1_0",
            "++1",
            "1.2.3",
            "٣",
            "0.1234567890123456789",
        ] {
            assert!(Threshold::parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn a_threshold_is_reached_by_exactly_itself() {
        for (used, max, text) in [
            (4, 5, "0.8"),
            (100, 100, "1"),
            (9, 10, "0.90"),
            (6, 5, "1.2"),
        ] {
            let threshold = Threshold::parse(text).unwrap();
            assert!(Rate { used, max }.at_least(threshold), "{text}");
            assert!(
                !Rate {
                    used: used * 1000 - 1,
                    max: max * 1000
                }
                .at_least(threshold),
                "{text}"
            );
        }
        assert!(Rate { used: 9, max: 10 }.at_least(Threshold::HIGH));
        assert!(
            !Rate {
                used: 899,
                max: 1000
            }
            .at_least(Threshold::HIGH)
        );
    }

    #[test]
    fn of_nothing_the_rate_is_nothing() {
        let none = Rate { used: 7, max: 0 };
        assert!(none.at_least(Threshold::parse("0.00").unwrap()));
        assert!(!none.at_least(Threshold::parse("0.000000000000000001").unwrap()));
        assert_eq!(none.compare(Rate { used: 0, max: 9 }), Ordering::Equal);
    }

    proptest! {
        #[test]
        fn percents_are_those_of_long_division(used in 0..=2_147_483_647_u64, max in 1..=2_147_483_647_u64) {
            // Half up: the third decimal of the percentage decides.
            let (digits, _) = long_division(used * 100, max, 3);
            let thousandths: u64 = digits.parse().unwrap();
            let hundredths = (thousandths + 5) / 10;
            let written = format!("{}.{:02}", hundredths / 100, hundredths % 100);
            let written = written.strip_suffix('0').unwrap_or(&written);
            prop_assert_eq!(percent(used, max), written);
        }

        #[test]
        fn thresholds_are_compared_as_long_division_says(
            used in 0..5000_u64, max in 1..5000_u64, whole in 0..3_u32, decimals in "[0-9]{0,12}", near: bool,
        ) {
            let (exact, more) = long_division(used, max, decimals.len());
            let mut text = format!("{whole}.{decimals}");
            if near {
                // The very digits of the rate: reached, whatever follows them.
                let at = exact.len() - decimals.len();
                text = format!("{}.{}", &exact[..at], &exact[at..]);
            }
            let asked: u128 = text.replace('.', "").parse().unwrap();
            let exact: u128 = exact.parse().unwrap();
            let threshold = Threshold::parse(&text).unwrap();
            prop_assert_eq!(Rate { used, max }.at_least(threshold), exact >= asked, "{} {}", text, more);
        }

        #[test]
        fn one_more_digit_decides(used in 1..5000_u64, max in 1..5000_u64) {
            let (exact, more) = long_division(used, max, 12);
            let above: u128 = exact.parse::<u128>().unwrap() + 1;
            let text = format!("{}.{:012}", above / 1_000_000_000_000, above % 1_000_000_000_000);
            prop_assert!(!Rate { used, max }.at_least(Threshold::parse(&text).unwrap()), "{} {}", text, more);
        }

        #[test]
        fn rates_compare_as_their_digits_do(a in 0..99_u64, b in 0..99_u64, c in 1..99_u64, d in 1..99_u64) {
            // Fractions with denominators below 100 differ within four decimals, or are equal.
            let digits = |used, max| long_division(used, max, 4).0.parse::<u64>().unwrap();
            let ordering = Rate { used: a, max: c }.compare(Rate { used: b, max: d });
            prop_assert_eq!(ordering, digits(a, c).cmp(&digits(b, d)));
        }
    }
}
