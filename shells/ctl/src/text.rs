//! Text output, byte for byte as the Go tool prints it, because scripts parse it.

/// Appends one formatted line. Writing to memory cannot fail.
macro_rules! line {
    ($out:expr, $($arg:tt)*) => {
        let _ = write!($out, $($arg)*);
        $out.end_line();
    };
}

mod moves;

use crate::human;
use cluster_api::terminal::Escaping;
use cluster_api::{
    AddedOutput, Alert, BandwidthByProtocol, Caller, Credential, CredentialCreated, CredentialUsage, Event,
    GlobalPinInfo, GlobalRepoGc, GlobalScrub, HealthSummary, Id, Metric, Pin, PinMode, Problem, Scrub,
    ScrubCycle, Time, Transfer, Version,
};
use std::fmt::{self, Write};

pub(crate) use self::moves::{drain_progress, rebalance_progress};

/// Lines of text. Values written into a line are escaped, so that they cannot end it or control the terminal.
#[derive(Debug, Default)]
pub(crate) struct Lines(Escaping<String>);

impl Lines {
    /// Ends the current line.
    pub(crate) fn end_line(&mut self) {
        self.0.0.push('\n');
    }

    /// Returns all lines, each with its line feed.
    pub(crate) fn into_string(self) -> String {
        self.0.0
    }
}

impl Write for Lines {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.write_str(text)
    }
}

/// Values with a text form of one or more lines.
pub(crate) trait Text {
    /// Appends the lines to `out`. Relative times count from `now`.
    fn text(&self, out: &mut Lines, now: Time);
}

impl<T: Text> Text for Vec<T> {
    fn text(&self, out: &mut Lines, now: Time) {
        self.iter().for_each(|item| item.text(out, now));
    }
}

impl Text for String {
    fn text(&self, out: &mut Lines, _: Time) {
        line!(out, "{self}");
    }
}

impl Text for Version {
    fn text(&self, out: &mut Lines, _: Time) {
        line!(out, "{}", self.version);
    }
}

impl Text for Credential {
    fn text(&self, out: &mut Lines, _: Time) {
        let expires = time_or(self.expire_at, "never");
        let _ = write!(out, "{} | {} | {}", self.name, self.id, self.scopes.join(","));
        let _ = write!(
            out,
            " | Created: {} | Expires: {expires}",
            self.created.date_and_time()
        );
        if self.requests_per_second > 0 {
            let _ = write!(out, " | At most {} requests per second", self.requests_per_second);
        }
        if self.max_pins > 0 {
            let _ = write!(out, " | At most {} pins", self.max_pins);
        }
        if self.max_bytes > 0 {
            let _ = write!(out, " | Uploads of at most {} bytes", self.max_bytes);
        }
        out.end_line();
    }
}

impl Text for CredentialCreated {
    fn text(&self, out: &mut Lines, now: Time) {
        self.credential.text(out, now);
        line!(out, "Token: {}", self.token);
    }
}

impl Text for CredentialUsage {
    fn text(&self, out: &mut Lines, _: Time) {
        let _ = write!(out, "Pins: {}", self.pins);
        if let Some(bytes) = self.bytes {
            let _ = write!(out, " | Uploads: {bytes} bytes");
        }
        out.end_line();
    }
}

impl Text for Caller {
    fn text(&self, out: &mut Lines, _: Time) {
        let name = if self.name.is_empty() {
            "no credentials needed"
        } else {
            &self.name
        };
        line!(out, "{name} | {}", self.scopes.join(","));
    }
}

impl Text for Event {
    fn text(&self, out: &mut Lines, _: Time) {
        let _ = write!(out, "{} | {} | {}", self.id, self.time, self.kind.to_uppercase());
        let named = [
            &self.cid,
            &self.name,
            &self.peername,
            &self.peer,
            &self.metric,
            &self.status,
        ];
        for field in named.into_iter().filter(|field| !field.is_empty()) {
            let _ = write!(out, " | {field}");
        }
        if !self.error.is_empty() {
            let _ = write!(out, ": {}", self.error);
        }
        out.end_line();
    }
}

impl Text for AddedOutput {
    fn text(&self, out: &mut Lines, _: Time) {
        line!(out, "added {} {}", self.cid, self.name);
    }
}

impl Text for Id {
    fn text(&self, out: &mut Lines, _: Time) {
        if !self.error.is_empty() {
            line!(out, "{} | ERROR: {}", self.id, self.error);
            return;
        }
        // -1 if the peer lists no peers, not even itself; as in the Go tool.
        let others = i64::try_from(self.cluster_peers.len()).unwrap_or(i64::MAX) - 1;
        line!(out, "{} | {} | Sees {others} other peers", self.id, self.peername);
        line!(out, "  > Addresses:");
        for address in sorted(&self.addresses) {
            line!(out, "    - {address}");
        }
        if !self.ipfs.error.is_empty() {
            line!(out, "  > IPFS ERROR: {}", self.ipfs.error);
            return;
        }
        line!(out, "  > IPFS: {}", self.ipfs.id);
        for address in sorted(&self.ipfs.addresses) {
            line!(out, "    - {address}");
        }
    }
}

/// Describes the progress of a transfer.
fn fetched(transfer: &Transfer, now: Time) -> String {
    let total = match transfer.total_bytes {
        0 => String::new(),
        total => format!(" of at most {}", human::bytes(total)),
    };
    format!(
        "Fetched: {}{total}, {} blocks held, last progress {}",
        human::bytes(transfer.bytes),
        transfer.blocks,
        human::relative(transfer.updated, now)
    )
}

impl Text for GlobalPinInfo {
    fn text(&self, out: &mut Lines, now: Time) {
        if self.name.is_empty() {
            line!(out, "{}:", self.cid);
        } else {
            line!(out, "{} | {}:", self.cid, self.name);
        }
        for (peer, info) in &self.peer_map {
            let name = name_or_id(&info.peername, peer);
            let status = info.status.as_str().to_uppercase();
            let _ = write!(out, "    > {name:<20} : {status}");
            if !info.error.is_empty() {
                let _ = write!(out, ": {}", info.error);
            }
            let (since, attempts, priority) = (info.timestamp, info.attempt_count, info.priority_pin);
            let _ = write!(out, " | {since} | Attempts: {attempts} | Priority: {priority}");
            if !info.retry_at.is_zero() {
                let _ = write!(out, " | Next attempt: {}", human::relative(info.retry_at, now));
            }
            if let Some(transfer) = &info.transfer {
                let _ = write!(out, " | {}", fetched(transfer, now));
            }
            out.end_line();
        }
    }
}

impl Text for Pin {
    fn text(&self, out: &mut Lines, _: Time) {
        let options = &self.options;
        let kind = self.pin_type.as_str().to_uppercase();
        let direct = if options.mode == PinMode::Direct {
            "-DIRECT"
        } else {
            ""
        };
        let _ = write!(out, "{} | {} | {kind}{direct} | ", self.cid, options.name);
        if self.is_everywhere() {
            let _ = out.write_str("Repl. Factor: -1 | Allocations: [everywhere]");
        } else {
            let (min, max) = (options.replication_factor_min, options.replication_factor_max);
            let peers = sorted(&self.allocations).join(" ");
            let _ = write!(out, "Repl. Factor: {min}--{max} | Allocations: [{peers}]");
        }
        let _ = match self.max_depth {
            0 => write!(out, " | Direct"),
            -1 => write!(out, " | Recursive"),
            depth => write!(out, " | Recursive-{depth}"),
        };
        let metadata = if options.metadata.is_empty() { "no" } else { "yes" };
        let (expiry, added) = (
            time_or(options.expire_at, "∞"),
            time_or(self.timestamp, "unknown"),
        );
        line!(out, " | Metadata: {metadata} | Exp: {expiry} | Added: {added}");
    }
}

impl Text for Metric {
    fn text(&self, out: &mut Lines, now: Time) {
        let weight = u64::try_from(self.weight).unwrap_or(0);
        let value = match self.name.as_str() {
            "freespace" if weight > 0 => human::bytes(weight),
            _ => self.value.clone(),
        };
        let expires = human::relative(Time::from_unix_nanos(self.expire.into()), now);
        line!(
            out,
            "{} | {}: {value} | Expires in: {expires}",
            self.peer,
            self.name
        );
    }
}

impl Text for Alert {
    fn text(&self, out: &mut Lines, now: Time) {
        let expired = human::relative(Time::from_unix_nanos(self.metric.expire.into()), now);
        let triggered = human::relative(self.triggered_at, now);
        let (peer, name) = (&self.metric.peer, &self.metric.name);
        line!(
            out,
            "{peer}: {name}. Expired at: {expired}. Triggered at: {triggered}"
        );
    }
}

impl Text for HealthSummary {
    fn text(&self, out: &mut Lines, _: Time) {
        for Problem {
            severity,
            peername,
            peer,
            problem,
        } in &self.problems
        {
            let name = match (peername.as_str(), peer.as_str()) {
                ("", "") => "cluster",
                ("", id) => id,
                (name, _) => name,
            };
            line!(out, "{} | {name} | {problem}", severity.to_uppercase());
        }
        if self.healthy {
            line!(out, "HEALTHY | {} peers, no problems", self.peers);
        }
    }
}

impl Text for BandwidthByProtocol {
    fn text(&self, out: &mut Lines, _: Time) {
        for (protocol, traffic) in self {
            let received = human::bytes(u64::try_from(traffic.total_in).unwrap_or(0));
            let sent = human::bytes(u64::try_from(traffic.total_out).unwrap_or(0));
            let (rate_in, rate_out) = (traffic.rate_in, traffic.rate_out);
            let _ = write!(out, "{protocol:>25}: In: {received:>7}. Out: {sent:>7}.");
            line!(out, " RateIn: {rate_in:.2}B/s. RateOut: {rate_out:.2}B/s");
        }
    }
}

impl Text for GlobalRepoGc {
    fn text(&self, out: &mut Lines, _: Time) {
        for (peer, result) in &self.peer_map {
            let name = name_or_id(&result.peername, peer);
            if result.error.is_empty() {
                line!(out, "{name:<15}");
            } else {
                line!(out, "{name:<15} | ERROR: {}", result.error);
            }
            line!(out, "  > CIDs:");
            for key in &result.keys {
                if key.error.is_empty() {
                    line!(out, "    - {}", key.key.as_deref().unwrap_or_default());
                } else {
                    line!(out, "    - ERROR: {}", key.error);
                }
            }
            if let Some(freed) = result.freed_bytes {
                line!(out, "  > Freed: {}", human::bytes(freed));
            }
        }
    }
}

impl Text for GlobalScrub {
    fn text(&self, out: &mut Lines, now: Time) {
        for (peer, scrub) in &self.peer_map {
            scrub_lines(name_or_id(&scrub.peername, peer), scrub, out, now);
        }
    }
}

fn scrub_lines(name: &str, scrub: &Scrub, out: &mut Lines, now: Time) {
    let _ = write!(out, "{name:<15} | {}", scrub.state);
    if scrub.state != "unreachable" {
        let _ = write!(out, " | {}% of the time", scrub.fraction * 100.0);
    }
    if !scrub.next.is_zero() {
        let _ = write!(out, " | next {}", human::relative(scrub.next, now));
    }
    if !scrub.error.is_empty() {
        let _ = write!(out, " | ERROR: {}", scrub.error);
    }
    out.end_line();
    let counts = |cycle: &ScrubCycle| {
        format!(
            "{} blocks, {}, {} damaged, {} pins incomplete",
            cycle.blocks,
            human::bytes(cycle.bytes),
            cycle.damaged,
            cycle.incomplete
        )
    };
    if let Some(cycle) = &scrub.cycle {
        line!(
            out,
            "  > Cycle: since {}: {} of {} on disk",
            cycle.since.date_and_time(),
            counts(cycle),
            human::bytes(scrub.repository_bytes)
        );
    }
    if let Some(last) = &scrub.last {
        line!(
            out,
            "  > Last: {} to {}: {}",
            last.since.date_and_time(),
            last.ended.date_and_time(),
            counts(last)
        );
    }
    if scrub.mended_blocks + scrub.mended_pins > 0 {
        line!(
            out,
            "  > Mended since the start: {} blocks, {} pins",
            scrub.mended_blocks,
            scrub.mended_pins
        );
    }
    if scrub.unmended_blocks + scrub.unmended_pins > 0 {
        line!(
            out,
            "  > NOT MENDED: {} blocks, {} pins: {}",
            scrub.unmended_blocks,
            scrub.unmended_pins,
            scrub.unmended.join(" ")
        );
    }
}

fn name_or_id<'a>(name: &'a str, id: &'a str) -> &'a str {
    if name.is_empty() { id } else { name }
}

fn sorted(texts: &[String]) -> Vec<&str> {
    let mut sorted: Vec<_> = texts.iter().map(String::as_str).collect();
    sorted.sort_unstable();
    sorted
}

fn time_or(time: Time, otherwise: &str) -> String {
    if time.is_zero() {
        otherwise.to_owned()
    } else {
        time.date_and_time()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(value: serde_json::Result<impl Text>) -> String {
        let mut out = Lines::default();
        value.unwrap().text(&mut out, Time::from_unix(1_800_000_000));
        out.into_string()
    }

    #[test]
    fn an_id_lists_sorted_addresses() {
        let id = serde_json::from_str::<Id>(
            r#"{"id":"Qa","peername":"n","addresses":["/b","/a"],"cluster_peers":["Qa","Qb"],
                "ipfs":{"id":"Qi","addresses":["/y","/x"]}}"#,
        );
        let expected = "Qa | n | Sees 1 other peers\n  > Addresses:\n    - /a\n    - /b\n\
                        \x20 > IPFS: Qi\n    - /x\n    - /y\n";
        assert_eq!(text(id), expected);
    }

    #[test]
    fn ids_show_their_errors() {
        let dead = serde_json::from_str::<Id>(r#"{"id":"Qa","error":"gone"}"#);
        assert_eq!(text(dead), "Qa | ERROR: gone\n");
        let no_ipfs = serde_json::from_str::<Id>(r#"{"id":"Qa","ipfs":{"error":"down"}}"#);
        assert_eq!(
            text(no_ipfs),
            "Qa |  | Sees -1 other peers\n  > Addresses:\n  > IPFS ERROR: down\n"
        );
    }

    #[test]
    fn a_status_lists_peers_by_id_and_names_them() {
        let info = serde_json::from_str::<GlobalPinInfo>(
            r#"{"cid":"Qa","name":"n","peer_map":{
                "Qz":{"peername":"first","status":"pinned","timestamp":"2026-05-11T10:00:00.5Z",
                    "attempt_count":2},
                "Qb":{"status":"pin_error","error":"no","timestamp":"0001-01-01T00:00:00Z",
                    "priority_pin":true}}}"#,
        );
        let expected = "Qa | n:\n\
            \x20   > Qb                   : PIN_ERROR: no | 0001-01-01T00:00:00Z | \
            Attempts: 0 | Priority: true\n\
            \x20   > first                : PINNED | 2026-05-11T10:00:00.5Z | \
            Attempts: 2 | Priority: false\n";
        assert_eq!(text(info), expected);
    }

    #[test]
    fn pins_show_allocations_mode_and_expiry() {
        let everywhere = serde_json::from_str::<Pin>(
            r#"{"cid":"Qa","name":"a&b","type":"pin","replication_factor_min":-1,"replication_factor_max":-1,
                "max_depth":-1,"metadata":{"k":"v"},"timestamp":"2026-11-22T20:09:39Z"}"#,
        );
        let expected = "Qa | a&b | PIN | Repl. Factor: -1 | Allocations: [everywhere] | Recursive | \
                        Metadata: yes | Exp: ∞ | Added: 2026-11-22 20:09:39\n";
        assert_eq!(text(everywhere), expected);
        let direct = serde_json::from_str::<Pin>(
            r#"{"cid":"Qa","type":"clusterdag-pin","mode":"direct","replication_factor_min":1,
                "replication_factor_max":2,"allocations":["Qc","Qb"],"max_depth":0,
                "expire_at":"2027-01-01T00:00:00+02:00"}"#,
        );
        let expected = "Qa |  | CLUSTERDAG-PIN-DIRECT | Repl. Factor: 1--2 | Allocations: [Qb Qc] | Direct | \
                        Metadata: no | Exp: 2027-01-01 00:00:00 | Added: unknown\n";
        assert_eq!(text(direct), expected);
        let shard = serde_json::from_str::<Pin>(r#"{"cid":"Qa","type":"shard-pin","max_depth":1}"#);
        assert!(text(shard).contains("| SHARD-PIN | Repl. Factor: 0--0 | Allocations: [] | Recursive-1 |"));
    }

    #[test]
    fn credentials_show_scopes_expiry_and_limit() {
        let ci = r#"{"id":"00000000000000ab","name":"ci","scopes":["pin","add"],
                     "created":"2026-11-22T20:09:39Z""#;
        let plain = serde_json::from_str::<Credential>(&format!("{ci}}}"));
        let expected = "ci | 00000000000000ab | pin,add | Created: 2026-11-22 20:09:39 | Expires: never\n";
        assert_eq!(text(plain), expected);
        let limited = format!(r#"{ci},"expire_at":"2027-01-01T00:00:00Z","requests_per_second":5}}"#);
        let created = format!(r#"{{"credential":{limited},"token":"icc_x","required":true}}"#);
        let expected = "ci | 00000000000000ab | pin,add | Created: 2026-11-22 20:09:39 | \
                        Expires: 2027-01-01 00:00:00 | At most 5 requests per second\nToken: icc_x\n";
        assert_eq!(
            text(serde_json::from_str::<CredentialCreated>(&created)),
            expected
        );
    }

    #[test]
    fn usage_shows_pins_and_bytes_if_these_are_limited() {
        let pins = serde_json::from_str::<CredentialUsage>(r#"{"pins":3}"#);
        assert_eq!(text(pins), "Pins: 3\n");
        let both = serde_json::from_str::<CredentialUsage>(r#"{"pins":0,"bytes":1234}"#);
        assert_eq!(text(both), "Pins: 0 | Uploads: 1234 bytes\n");
    }

    #[test]
    fn metrics_and_alerts_show_relative_times() {
        let metric = r#"{"name":"freespace","peer":"Qa","value":"x","weight":55000000000,
                         "expire":1800000027000000000"#;
        let value = serde_json::from_str::<Metric>(&format!("{metric}}}"));
        assert_eq!(
            text(value),
            "Qa | freespace: 55 GB | Expires in: 27 seconds from now\n"
        );
        let alert = serde_json::from_str::<Vec<Alert>>(&format!(
            "[{metric},\"triggered_at\":\"2027-01-15T07:00:00Z\"}}]"
        ));
        let expected = "Qa: freespace. Expired at: 27 seconds from now. Triggered at: 1 hour ago\n";
        assert_eq!(text(alert), expected);
    }

    #[test]
    fn bandwidth_and_garbage_collection_are_aligned() {
        let bandwidth = serde_json::from_str::<BandwidthByProtocol>(
            r#"{"/ipfs/id/1.0.0":{"total_in":1234,"total_out":5,"rate_in":0.125,"rate_out":3}}"#,
        );
        let expected =
            "           /ipfs/id/1.0.0: In:  1.2 kB. Out:     5 B. RateIn: 0.12B/s. RateOut: 3.00B/s\n";
        assert_eq!(text(bandwidth), expected);
        let gc = serde_json::from_str::<GlobalRepoGc>(
            r#"{"peer_map":{"Qa":{"peername":"c","keys":[{"key":"Qk"},{"key":null,"error":"e"}],
                "freed_bytes":1234},"Qb":{"error":"down"}}}"#,
        );
        let expected = "c              \n  > CIDs:\n    - Qk\n    - ERROR: e\n  > Freed: 1.2 kB\n\
                        Qb              | ERROR: down\n  > CIDs:\n";
        assert_eq!(text(gc), expected);
    }

    #[test]
    fn scrubs_show_what_was_checked_and_what_is_not_mended() {
        let scrubs = serde_json::from_str::<GlobalScrub>(
            r#"{"peer_map":{"Qa":{"peername":"a","state":"running","fraction":0.25,"repository_bytes":5000000,
                "cycle":{"since":"2026-09-30T10:00:00Z","blocks":7,"bytes":1234,"damaged":2,"incomplete":1},
                "last":{"since":"2026-08-30T10:00:00Z","ended":"2026-08-30T11:00:00Z","blocks":9},
                "mended_blocks":2,"unmended_pins":1,"unmended":["Qx"]},
                "Qb":{"state":"unreachable","error":"down"}}}"#,
        );
        let expected = "a               | running | 25% of the time\n  \
                        > Cycle: since 2026-09-30 10:00:00: 7 blocks, 1.2 kB, 2 damaged, 1 pins incomplete \
                        of 5.0 MB on disk\n  \
                        > Last: 2026-08-30 10:00:00 to 2026-08-30 11:00:00: 9 blocks, 0 B, 0 damaged, 0 \
                        pins incomplete\n  > Mended since the start: 2 blocks, 0 pins\n  \
                        > NOT MENDED: 0 blocks, 1 pins: Qx\nQb              | unreachable | ERROR: down\n";
        assert_eq!(text(scrubs), expected);
    }

    #[test]
    fn added_files_versions_and_names_take_one_line() {
        let added = serde_json::from_str::<AddedOutput>(r#"{"cid":"Qa","name":"a b"}"#);
        assert_eq!(text(added), "added Qa a b\n");
        assert_eq!(
            text(serde_json::from_str::<Version>(r#"{"version":"1.1.6"}"#)),
            "1.1.6\n"
        );
        assert_eq!(
            text(serde_json::from_str::<Vec<String>>(r#"["ping","tag"]"#)),
            "ping\ntag\n"
        );
    }

    /// Prints every type with foreign strings that contain a line feed, an escape sequence, a C1 control and
    /// a bidirectional control.
    #[test]
    fn values_cannot_forge_lines_or_control_the_terminal() {
        const BAD: &str = r"x\n\u001b[2J\u009b31m\u202e";
        fn check(lines: usize, shown: &str) {
            assert_eq!(shown.matches('\n').count(), lines, "{shown:?}");
            assert!(
                !shown
                    .lines()
                    .any(|line| line.contains(cluster_api::terminal::is_control)),
                "{shown:?}"
            );
            assert!(shown.contains(r"x\n\u001b[2J\u009b31m\u202e"), "{shown:?}");
        }
        fn bad<T: serde::de::DeserializeOwned>(json: &str) -> serde_json::Result<T> {
            serde_json::from_str(&json.replace("BAD", BAD))
        }
        check(1, &text(bad::<String>(r#""BAD""#)));
        check(1, &text(bad::<Version>(r#"{"version":"BAD"}"#)));
        check(1, &text(bad::<AddedOutput>(r#"{"cid":"Qa","name":"BAD"}"#)));
        check(1, &text(bad::<Id>(r#"{"id":"Qa","error":"BAD"}"#)));
        check(
            4,
            &text(bad::<Id>(
                r#"{"id":"BAD","peername":"BAD","addresses":["BAD"],"ipfs":{"id":"BAD"}}"#,
            )),
        );
        check(3, &text(bad::<Id>(r#"{"id":"Qa","ipfs":{"error":"BAD"}}"#)));
        check(
            2,
            &text(bad::<GlobalPinInfo>(
                r#"{"cid":"Qa","name":"BAD","peer_map":{"BAD":{"peername":"BAD","status":"pin_error",
                    "error":"BAD"}}}"#,
            )),
        );
        check(
            1,
            &text(bad::<Pin>(
                r#"{"cid":"Qa","name":"BAD","allocations":["BAD"],"replication_factor_min":1,
                    "replication_factor_max":1}"#,
            )),
        );
        check(
            1,
            &text(bad::<Metric>(r#"{"name":"BAD","peer":"BAD","value":"BAD"}"#)),
        );
        check(1, &text(bad::<Alert>(r#"{"name":"BAD","peer":"BAD"}"#)));
        check(1, &text(bad::<BandwidthByProtocol>(r#"{"BAD":{"total_in":1}}"#)));
        check(
            4,
            &text(bad::<GlobalRepoGc>(
                r#"{"peer_map":{"Qa":{"peername":"BAD","error":"BAD","keys":[{"key":"BAD"},
                    {"key":null,"error":"BAD"}]}}}"#,
            )),
        );
    }
}
