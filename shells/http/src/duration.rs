//! Durations in Go's notation: `1h30m0s`, `1.5s`, `300ms`.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

const MICROSECOND: u64 = 1_000;
const MILLISECOND: u64 = 1_000_000;
const SECOND: u64 = 1_000_000_000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;

/// Signed duration in nanoseconds, up to about 292 years.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GoDuration(i64);

impl GoDuration {
    /// Zero duration.
    pub const ZERO: Self = Self(0);

    /// Creates a duration from nanoseconds.
    pub const fn from_nanos(nanos: i64) -> Self {
        Self(nanos)
    }

    /// Returns the duration in nanoseconds.
    pub const fn as_nanos(self) -> i64 {
        self.0
    }

    /// Creates a duration from seconds, saturating.
    pub const fn from_secs(seconds: i64) -> Self {
        Self(seconds.saturating_mul(1_000_000_000))
    }

    /// Creates a duration from milliseconds, saturating.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis.saturating_mul(1_000_000))
    }

    /// Converts to the standard library's type; `None` if negative.
    pub fn to_std(self) -> Option<Duration> {
        u64::try_from(self.0).ok().map(Duration::from_nanos)
    }
}

impl From<Duration> for GoDuration {
    /// Saturates at the longest duration.
    fn from(duration: Duration) -> Self {
        Self(i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX))
    }
}

impl fmt::Debug for GoDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for GoDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total = self.0.unsigned_abs();
        if self.0 < 0 {
            f.write_str("-")?;
        }
        match total {
            0 => f.write_str("0s"),
            1..MICROSECOND => write!(f, "{total}ns"),
            MICROSECOND..MILLISECOND => decimal(f, total, MICROSECOND, "µs"),
            MILLISECOND..SECOND => decimal(f, total, MILLISECOND, "ms"),
            SECOND.. => {
                if total >= HOUR {
                    write!(f, "{}h", total / HOUR)?;
                }
                if total >= MINUTE {
                    write!(f, "{}m", total % HOUR / MINUTE)?;
                }
                decimal(f, total % MINUTE, SECOND, "s")
            }
        }
    }
}

/// Writes `nanos` in `unit` with the necessary decimals.
fn decimal(f: &mut fmt::Formatter<'_>, nanos: u64, unit: u64, name: &str) -> fmt::Result {
    write!(f, "{}", nanos / unit)?;
    let part = nanos % unit;
    if part != 0 {
        // One decimal for each power of ten below the unit.
        let width = unit.ilog10() as usize;
        let decimals = format!("{part:0width$}");
        write!(f, ".{}", decimals.trim_end_matches('0'))?;
    }
    f.write_str(name)
}

/// Error of parsing a duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseDurationError {
    /// Malformed, or out of range.
    #[error("time: invalid duration {0:?}: write it as in \"1h30m\" or \"500ms\"")]
    Invalid(String),
    /// A number without a unit.
    #[error("time: missing unit in duration {0:?}: add one of ns, us, ms, s, m, h")]
    MissingUnit(String),
    /// Unknown unit.
    #[error("time: unknown unit {unit:?} in duration {text:?}: use one of ns, us, ms, s, m, h")]
    UnknownUnit {
        /// Unknown unit, as written.
        unit: String,
        /// Complete text.
        text: String,
    },
}

impl FromStr for GoDuration {
    type Err = ParseDurationError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || ParseDurationError::Invalid(text.to_owned());
        let (negative, mut rest) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            Some(_) | None => (false, text),
        };
        if rest == "0" {
            return Ok(Self::ZERO);
        }
        if rest.is_empty() {
            return Err(invalid());
        }
        let mut total: u64 = 0;
        while !rest.is_empty() {
            let (nanos, after) = component(text, rest)?;
            total = total
                .checked_add(nanos)
                .filter(|sum| *sum <= 1 << 63)
                .ok_or_else(invalid)?;
            rest = after;
        }
        if negative {
            return Ok(Self(0_i64.checked_sub_unsigned(total).ok_or_else(invalid)?));
        }
        i64::try_from(total).map(Self).map_err(|_| invalid())
    }
}

/// Parses one number with its unit at the start of `rest`; returns nanoseconds and the remainder.
fn component<'a>(text: &str, rest: &'a str) -> Result<(u64, &'a str), ParseDurationError> {
    let invalid = || ParseDurationError::Invalid(text.to_owned());
    let (whole, after) = split_digits(rest);
    let (part, after) = match after.strip_prefix('.') {
        Some(decimals) => split_digits(decimals),
        None => ("", after),
    };
    if whole.is_empty() && part.is_empty() {
        return Err(invalid());
    }
    let end = after
        .find(|c: char| c == '.' || c.is_ascii_digit())
        .unwrap_or(after.len());
    let (name, after) = after.split_at(end);
    let unit = match name {
        "" => return Err(ParseDurationError::MissingUnit(text.to_owned())),
        "ns" => 1,
        // Both micro signs, U+00B5 and U+03BC.
        "us" | "\u{b5}s" | "\u{3bc}s" => MICROSECOND,
        "ms" => MILLISECOND,
        "s" => SECOND,
        "m" => MINUTE,
        "h" => HOUR,
        unknown => {
            return Err(ParseDurationError::UnknownUnit {
                unit: unknown.to_owned(),
                text: text.to_owned(),
            });
        }
    };
    let whole = if whole.is_empty() {
        0
    } else {
        whole.parse::<u64>().map_err(|_| invalid())?
    };
    let nanos = whole.checked_mul(unit).ok_or_else(invalid)?;
    Ok((nanos.checked_add(part_of(part, unit)).ok_or_else(invalid)?, after))
}

fn split_digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

/// Returns `0.decimals` of `unit`, rounded down. No unit needs more than eighteen decimals.
fn part_of(decimals: &str, unit: u64) -> u64 {
    let digits: u128 = decimals
        .bytes()
        .take(18)
        .fold(0, |sum, b| sum * 10 + u128::from(b - b'0'));
    let scale = 10_u128.pow(u32::try_from(decimals.len().min(18)).unwrap_or(18));
    u64::try_from(digits * u128::from(unit) / scale).unwrap_or(0)
}

impl Serialize for GoDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for GoDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_are_written_as_go_writes_them() {
        for (nanos, text) in [
            (0, "0s"),
            (1, "1ns"),
            (1_100, "1.1µs"),
            (2_200_000, "2.2ms"),
            (3_300_000_000, "3.3s"),
            (100_000_000, "100ms"),
            (60_000_000_000, "1m0s"),
            (245_000_000_000, "4m5s"),
            (245_001_000_000, "4m5.001s"),
            (3_600_000_000_000, "1h0m0s"),
            (-90_000_000_000, "-1m30s"),
            (i64::MAX, "2562047h47m16.854775807s"),
            (i64::MIN, "-2562047h47m16.854775808s"),
        ] {
            assert_eq!(GoDuration::from_nanos(nanos).to_string(), text);
            assert_eq!(text.parse(), Ok(GoDuration::from_nanos(nanos)));
        }
    }

    #[test]
    fn durations_that_go_accepts_are_accepted() {
        for (text, nanos) in [
            ("0", 0),
            ("+5s", 5_000_000_000),
            ("-.5s", -500_000_000),
            ("1.s", 1_000_000_000),
            ("1h15m30.918273645s", 4_530_918_273_645),
            ("5us", 5_000),
            ("5\u{3bc}s", 5_000),
            ("1.9ns", 1),
            ("3s2h", 7_203_000_000_000),
        ] {
            assert_eq!(text.parse(), Ok(GoDuration::from_nanos(nanos)), "{text}");
        }
    }

    #[test]
    fn durations_that_go_refuses_are_refused() {
        for text in [
            "",
            "3",
            "-",
            "s",
            ".",
            "-.",
            ".s",
            "+.s",
            "1d",
            "1h 2m",
            "9223372036854775808ns",
            "3000000h",
        ] {
            assert!(text.parse::<GoDuration>().is_err(), "{text}");
        }
        let unknown = "1d".parse::<GoDuration>().unwrap_err().to_string();
        assert!(unknown.contains("unknown unit \"d\""), "{unknown}");
    }

    proptest! {
        #[test]
        fn every_duration_reads_back(nanos in any::<i64>()) {
            let duration = GoDuration::from_nanos(nanos);
            prop_assert_eq!(duration.to_string().parse(), Ok(duration));
        }

        #[test]
        fn no_text_panics(text in "[-+]?[0-9.]{0,25}(h|m|s|ms|µs|x){0,2}[0-9.]{0,3}\\PC{0,2}") {
            let _ = text.parse::<GoDuration>();
        }
    }
}
