//! Points in time in Go's notation.

use jiff::civil::{Date, DateTime};
use jiff::{SignedDuration, Timestamp};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

/// Seconds from 0001-01-01T00:00:00Z to 1970-01-01T00:00:00Z.
const ZERO_UNIX_SECONDS: i64 = -62_135_596_800;

/// Start of 1970, the reference of `Time::seconds`.
const EPOCH: DateTime = DateTime::constant(1970, 1, 1, 0, 0, 0, 0);

/// A point in time with the offset it was written in: RFC 3339 with up to nine decimals.
///
/// The zero time, `0001-01-01T00:00:00Z`, means "not set". The offset is kept because listings show times
/// as the peer wrote them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time {
    seconds: i64,
    nanos: u32,
    offset_seconds: i32,
}

impl Time {
    /// Go's zero time: "not set".
    pub const ZERO: Self = Self {
        seconds: ZERO_UNIX_SECONDS,
        nanos: 0,
        offset_seconds: 0,
    };

    /// Returns the time of the system clock, in UTC.
    pub fn now() -> Self {
        Self::from(Timestamp::now())
    }

    /// Creates a time from seconds since 1970 in UTC, clamped to the years 0 to 9999.
    pub fn from_unix(seconds: i64) -> Self {
        Self::from_unix_nanos(i128::from(seconds) * 1_000_000_000)
    }

    /// Creates a time from nanoseconds since 1970 in UTC, clamped to the years 0 to 9999.
    pub fn from_unix_nanos(nanos: i128) -> Self {
        const YEAR_0: i64 = -62_167_219_200;
        const YEAR_9999_END: i64 = 253_402_300_799;
        let whole = nanos.div_euclid(1_000_000_000);
        match i64::try_from(whole) {
            Ok(seconds) if (YEAR_0..=YEAR_9999_END).contains(&seconds) => {
                let part = nanos.rem_euclid(1_000_000_000);
                Self {
                    seconds,
                    nanos: u32::try_from(part).unwrap_or(0),
                    offset_seconds: 0,
                }
            }
            _ if whole < 0 => Self {
                seconds: YEAR_0,
                nanos: 0,
                offset_seconds: 0,
            },
            _ => Self {
                seconds: YEAR_9999_END,
                nanos: 999_999_999,
                offset_seconds: 0,
            },
        }
    }

    /// Returns whether this is the zero time.
    pub fn is_zero(&self) -> bool {
        self.seconds == ZERO_UNIX_SECONDS && self.nanos == 0
    }

    /// Returns seconds since 1970, rounded down.
    pub fn unix_seconds(&self) -> i64 {
        self.seconds
    }

    /// Returns nanoseconds since 1970.
    pub fn unix_nanos(&self) -> i128 {
        i128::from(self.seconds) * 1_000_000_000 + i128::from(self.nanos)
    }

    /// Adds nanoseconds, keeping the offset.
    #[must_use]
    pub fn plus_nanos(&self, nanos: i64) -> Self {
        let moved = Self::from_unix_nanos(self.unix_nanos() + i128::from(nanos));
        Self {
            offset_seconds: self.offset_seconds,
            ..moved
        }
    }

    /// Formats the local date and time to the second: `2006-01-02 15:04:05`.
    pub fn date_and_time(&self) -> String {
        self.civil().strftime("%Y-%m-%d %H:%M:%S").to_string()
    }

    /// Returns the local date and time. Not by `jiff::Timestamp`, whose range ends a day before 9999 does.
    fn civil(&self) -> DateTime {
        let local = self.seconds.saturating_add(i64::from(self.offset_seconds));
        // An offset can move the first and last day out of range: clamp.
        let nearest = if local < 0 { DateTime::MIN } else { DateTime::MAX };
        EPOCH
            .checked_add(SignedDuration::from_secs(local))
            .unwrap_or(nearest)
    }
}

impl Default for Time {
    fn default() -> Self {
        Self::ZERO
    }
}

impl From<Timestamp> for Time {
    fn from(at: Timestamp) -> Self {
        Self::from_unix_nanos(at.as_nanosecond())
    }
}

impl fmt::Debug for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::ZERO {
            return f.write_str("0001-01-01T00:00:00Z");
        }
        let local = self.civil();
        // Written by hand: listings of a million pins have two million times.
        let mut text = *b"0000-00-00T00:00:00.000000000";
        put_digits(&mut text[0..4], local.year().unsigned_abs().into());
        for (at, value) in [
            (5, local.month()),
            (8, local.day()),
            (11, local.hour()),
            (14, local.minute()),
            (17, local.second()),
        ] {
            put_digits(&mut text[at..at + 2], value.unsigned_abs().into());
        }
        let text: &[u8] = if self.nanos == 0 {
            &text[..19]
        } else {
            put_digits(&mut text[20..], self.nanos);
            let zeros = text.iter().rev().take_while(|digit| **digit == b'0').count();
            &text[..text.len() - zeros]
        };
        f.write_str(std::str::from_utf8(text).map_err(|_| fmt::Error)?)?;
        if self.offset_seconds == 0 {
            return f.write_str("Z");
        }
        let sign = if self.offset_seconds < 0 { '-' } else { '+' };
        let minutes = self.offset_seconds.unsigned_abs() / 60;
        write!(f, "{sign}{:02}:{:02}", minutes / 60, minutes % 60)
    }
}

/// Writes the last decimal digits of a number, as many as there is room for.
fn put_digits(out: &mut [u8], mut value: u32) {
    for digit in out.iter_mut().rev() {
        *digit = b'0' + u8::try_from(value % 10).unwrap_or(0);
        value /= 10;
    }
}

/// Error of parsing an RFC 3339 time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("parsing time {0:?}: expected RFC 3339, as in \"2026-01-02T15:04:05Z\"")]
pub struct ParseTimeError(String);

impl FromStr for Time {
    type Err = ParseTimeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text).ok_or_else(|| ParseTimeError(text.to_owned()))
    }
}

/// Parses `YYYY-MM-DDTHH:MM:SS[.decimals](Z|±HH:MM)` like Go's `time.Parse`: the hour may have one digit, the
/// decimals may follow a comma, and an offset may have 24 hours and 60 minutes.
fn parse(text: &str) -> Option<Time> {
    let (date, rest) = text.split_once('T')?;
    let (hour, rest) = rest.split_once(':')?;
    let (head, rest) = rest.split_at_checked(5)?;
    let (b, clock) = (date.as_bytes(), head.as_bytes());
    if b.len() != 10 || b[4] != b'-' || b[7] != b'-' || clock[2] != b':' || hour.len() > 2 {
        return None;
    }
    let date = Date::new(
        i16::try_from(digits(date.get(0..4)?)?).ok()?,
        small(date.get(5..7)?)?,
        small(date.get(8..10)?)?,
    );
    let (minute, second) = (small(head.get(0..2)?)?, small(head.get(3..5)?)?);
    let time = jiff::civil::Time::new(small(hour)?, minute, second, 0);
    let (nanos, zone) = decimals(rest)?;
    let offset_seconds = offset(zone)?;
    let local = DateTime::from_parts(date.ok()?, time.ok()?).duration_since(EPOCH);
    Some(Time {
        seconds: local.as_secs() - i64::from(offset_seconds),
        nanos,
        offset_seconds,
    })
}

fn digits(text: &str) -> Option<u32> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

fn small(text: &str) -> Option<i8> {
    i8::try_from(digits(text)?).ok()
}

/// Parses the fraction of a second; returns nanoseconds and the remainder. Decimals beyond nine are dropped.
fn decimals(text: &str) -> Option<(u32, &str)> {
    let Some(after) = text.strip_prefix(['.', ',']) else {
        return Some((0, text));
    };
    let end = after.find(|c: char| !c.is_ascii_digit())?;
    let mut nine: String = after[..end].chars().take(9).collect();
    if nine.is_empty() {
        return None;
    }
    while nine.len() < 9 {
        nine.push('0');
    }
    Some((digits(&nine)?, &after[end..]))
}

fn offset(zone: &str) -> Option<i32> {
    if zone == "Z" {
        return Some(0);
    }
    let b = zone.as_bytes();
    if b.len() != 6 || b[3] != b':' {
        return None;
    }
    let (hours, minutes) = (digits(zone.get(1..3)?)?, digits(zone.get(4..6)?)?);
    if hours > 24 || minutes > 60 {
        return None;
    }
    let seconds = i32::try_from(hours * 3600 + minutes * 60).ok()?;
    match b[0] {
        b'+' => Some(seconds),
        b'-' => Some(-seconds),
        _ => None,
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl JsonSchema for Time {
    fn schema_name() -> Cow<'static, str> {
        "Time".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "format": "date-time",
            "description": "RFC 3339; `0001-01-01T00:00:00Z` stands for none.",
        })
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Option::<std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.map_or(Ok(Self::ZERO), |text| text.parse().map_err(de::Error::custom))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_zero_time_is_written_as_go_writes_it() {
        assert_eq!(Time::ZERO.to_string(), "0001-01-01T00:00:00Z");
        assert!("0001-01-01T00:00:00Z".parse::<Time>().unwrap().is_zero());
    }

    #[test]
    fn decimals_and_offsets_survive() {
        for text in [
            "2026-05-11T10:00:00Z",
            "2026-05-11T10:00:00.5Z",
            "2026-05-11T10:00:00.000000001+02:00",
            "2026-05-11T10:00:00.120034-09:30",
        ] {
            assert_eq!(text.parse::<Time>().unwrap().to_string(), text);
        }
        let summer: Time = "2026-05-11T10:00:00+02:00".parse().unwrap();
        assert_eq!(summer.date_and_time(), "2026-05-11 10:00:00");
        assert_eq!(
            summer.unix_seconds(),
            "2026-05-11T08:00:00Z".parse::<Time>().unwrap().unix_seconds()
        );
    }

    #[test]
    fn years_0_to_9999_are_read_at_every_offset() {
        for text in [
            "9999-12-31T23:59:59Z",
            "9999-12-31T23:59:59.999999999Z",
            "9999-12-30T23:00:00Z",
            "9999-12-31T23:59:59-14:00",
            "9999-12-31T23:59:59+14:00",
            "0000-01-01T00:00:00Z",
            "0000-01-01T00:00:00+14:00",
            "0000-01-01T00:00:00-14:00",
        ] {
            assert_eq!(text.parse::<Time>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn loose_forms_are_read_as_go_reads_them() {
        for (loose, strict) in [
            ("2026-05-11T1:00:00Z", "2026-05-11T01:00:00Z"),
            ("2026-05-11T01:00:00,25Z", "2026-05-11T01:00:00.25Z"),
            (
                "2026-05-11T01:00:00.1234567891Z",
                "2026-05-11T01:00:00.123456789Z",
            ),
            ("2026-05-11T01:00:00+00:00", "2026-05-11T01:00:00Z"),
            ("2026-05-11T01:00:00+24:60", "2026-05-11T01:00:00+25:00"),
        ] {
            assert_eq!(loose.parse::<Time>().unwrap().to_string(), strict);
        }
    }

    #[test]
    fn anything_but_rfc_3339_is_refused() {
        for text in [
            "",
            "now",
            "2026-05-11",
            "2026-05-11T10:00:00",
            "2026-05-11 10:00:00Z",
            "2026-02-30T10:00:00Z",
            "2026-05-11T25:00:00Z",
            "2026-05-11T10:00:00.Z",
            "2026-05-11T10:00:00+2:00",
            "+026-05-11T10:00:00Z",
            "10000-01-01T00:00:00Z",
            "2026-05-11T10:00:60Z",
            "2026-05-11T10:00:00+25:00",
            "2026-05-11T010:00:00Z",
            "2026-05-11t10:00:00z",
            "2026-05-11T10:00:00Zé",
            "ééééééééééééééééééééé",
        ] {
            assert!(text.parse::<Time>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_time_reads_back(
            seconds in -62_167_219_200_i64..253_402_300_799,
            part in 0_i128..1_000_000_000,
        ) {
            let time = Time::from_unix_nanos(i128::from(seconds) * 1_000_000_000 + part);
            prop_assert_eq!(time.to_string().parse::<Time>().unwrap(), time);
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,40}") {
            let _ = text.parse::<Time>();
        }

        #[test]
        fn no_number_panics(nanos in any::<i128>(), by in any::<i64>()) {
            let _ = Time::from_unix_nanos(nanos).plus_nanos(by).to_string();
        }
    }
}
