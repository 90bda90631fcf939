//! Times on the wire (dialects D0.5): RFC 3339 with any offset or a plain date in, UTC whole seconds with `Z` out.

use gpuquota_core::id::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

/// Reads a time; a plain date is its first instant in UTC.
#[must_use]
pub(crate) fn parse(text: &str) -> Option<Timestamp> {
    let parsed = if text.len() == 10 {
        let date: Date = text.parse().ok()?;
        date.to_zoned(TimeZone::UTC).ok()?.timestamp()
    } else if rfc3339(text.as_bytes()) {
        text.parse().ok()?
    } else {
        return None;
    };
    Some(Timestamp(parsed.as_millisecond()))
}

/// Writes a time.
#[must_use]
pub(crate) fn format(time: Timestamp) -> String {
    let time = jiff::Timestamp::from_millisecond(time.0).unwrap_or(jiff::Timestamp::MAX);
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

// The library reads more forms than RFC 3339 has: spaces, annotations, other offsets.
fn rfc3339(text: &[u8]) -> bool {
    const FORM: &[u8] = b"0000-00-00T00:00:00";
    let Some((head, rest)) = text.split_at_checked(FORM.len()) else {
        return false;
    };
    let fits = |(byte, form): (&u8, &u8)| match form {
        b'0' => byte.is_ascii_digit(),
        b'T' => matches!(byte, b'T' | b't'),
        other => byte == other,
    };
    let rest = match rest.split_first() {
        Some((b'.', fraction)) => {
            let digits = fraction.iter().take_while(|b| b.is_ascii_digit()).count();
            if !(1..=9).contains(&digits) {
                return false;
            }
            fraction.get(digits..).unwrap_or_default()
        }
        _ => rest,
    };
    let offset = match rest {
        b"Z" | b"z" => true,
        [b'+' | b'-', h1, h2, b':', m1, m2] => [h1, h2, m1, m2].iter().all(|b| b.is_ascii_digit()),
        _ => false,
    };
    head.iter().zip(FORM).all(fits) && offset
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_and_rfc_3339_are_read_and_nothing_else() {
        let out = |text: &str| parse(text).map(format);
        assert_eq!(out("2025-12-03").as_deref(), Some("2025-12-03T00:00:00Z"));
        assert_eq!(
            out("2024-12-31T23:59:59Z").as_deref(),
            Some("2024-12-31T23:59:59Z")
        );
        assert_eq!(
            out("2025-01-01T07:59:59.9+08:00").as_deref(),
            Some("2024-12-31T23:59:59Z")
        );
        for bad in [
            "",
            "2026-01-02T15:04:05Z07:00",
            "2025-02-30",
            "2025-12-03T00:00:00",
            "2025-12-03 00:00:00Z",
            "2025-12-03T24:00:00Z",
            "20251203",
            "2025-1-3",
            "2025-12-03T00:00:00Z[UTC]",
            "2025-12-03T00:00:00+0800",
            "2025-12-03T00:00:00.Z",
            "99999-01-01",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
