//! Human-readable sizes and times in the words of the Go tool.

use cluster_api::Time;

/// Formats a size in powers of 1000 with two digits: `83 MB`, `1.2 GB`.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    if count < 10 {
        return format!("{count} B");
    }
    let power = count.ilog(1000);
    let unit = UNITS[power as usize];
    // Tenths of the unit, rounded.
    let scale = 1000_u128.pow(power);
    let tenths = (u128::from(count) * 20 / scale).div_ceil(2);
    if tenths < 100 {
        return format!("{}.{} {unit}", tenths / 10, tenths % 10);
    }
    // Like Go, which rounds the tenths again, half to even.
    let (whole, rest) = (tenths / 10, tenths % 10);
    let up = rest > 5 || (rest == 5 && whole % 2 == 1);
    format!("{} {unit}", whole + u128::from(up))
}

/// Formats a distance in time: `27 seconds from now`, `3 weeks ago`.
pub(crate) fn relative(then: Time, now: Time) -> String {
    const SECOND: i128 = 1_000_000_000;
    const MINUTE: i128 = 60 * SECOND;
    const HOUR: i128 = 60 * MINUTE;
    const DAY: i128 = 24 * HOUR;
    const WEEK: i128 = 7 * DAY;
    const MONTH: i128 = 30 * DAY;
    const YEAR: i128 = 12 * MONTH;
    /// Upper bound in nanoseconds, text, and divisor of the count in the text (0: no count).
    const STEPS: [(i128, &str, i128); 16] = [
        (SECOND, "now", 0),
        (2 * SECOND, "1 second", 0),
        (MINUTE, "seconds", SECOND),
        (2 * MINUTE, "1 minute", 0),
        (HOUR, "minutes", MINUTE),
        (2 * HOUR, "1 hour", 0),
        (DAY, "hours", HOUR),
        (2 * DAY, "1 day", 0),
        (WEEK, "days", DAY),
        (2 * WEEK, "1 week", 0),
        (MONTH, "weeks", WEEK),
        (2 * MONTH, "1 month", 0),
        (YEAR, "months", MONTH),
        (18 * MONTH, "1 year", 0),
        (2 * YEAR, "2 years", 0),
        (37 * YEAR, "years", YEAR),
    ];
    let distance = now.unix_nanos() - then.unix_nanos();
    let (far, direction) = (distance.abs(), if distance < 0 { "from now" } else { "ago" });
    match STEPS.iter().find(|(below, _, _)| far < *below) {
        Some((_, "now", _)) => "now".to_owned(),
        Some((_, text, 0)) => format!("{text} {direction}"),
        Some((_, unit, of)) => format!("{} {unit} {direction}", far / of),
        None => format!("a long while {direction}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_match_go_humanize() {
        for (count, text) in [
            (0, "0 B"),
            (9, "9 B"),
            (10, "10 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (1049, "1.0 kB"),
            (1050, "1.1 kB"),
            (9_950, "10 kB"),
            (82_854_982, "83 MB"),
            (10_500, "10 kB"),
            (11_500, "12 kB"),
            (999_999, "1000 kB"),
            (9_998_765_433, "10 GB"),
            (u64::MAX, "18 EB"),
        ] {
            assert_eq!(bytes(count), text, "{count}");
        }
    }

    #[test]
    fn times_match_go_humanize() {
        let now = Time::from_unix(1_800_000_000);
        for (seconds, text) in [
            (0, "now"),
            (1, "1 second from now"),
            (27, "27 seconds from now"),
            (-60, "1 minute ago"),
            (-3_599, "59 minutes ago"),
            (7_200, "2 hours from now"),
            (-86_400 * 6, "6 days ago"),
            (-86_400 * 29, "4 weeks ago"),
            (-86_400 * 360 * 3, "3 years ago"),
            (-86_400 * 360 * 40, "a long while ago"),
        ] {
            assert_eq!(relative(now.plus_nanos(seconds * 1_000_000_000), now), text);
        }
    }
}
