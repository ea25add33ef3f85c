//! Logging to the standard error in the Go peer's format: time, level, facility, place and message, with
//! tabs between, or one JSON object per line.
//!
//! A facility is a name for a part of the program, the Go peer's where it has that part. Code that logs
//! with `target: "restapi"` belongs to that facility whatever its module; other code belongs to its
//! module's ([`FACILITIES`]).

mod json;

use std::fmt::{self, Write};
use std::io::IsTerminal;
use std::str::FromStr;

use cluster_api::terminal::Escaping;
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

/// Facilities with their modules, special ones after the general ones that contain them.
pub const FACILITIES: [(&str, &[&str]); 14] = [
    ("cluster", &["ipfs_cluster_service", "cluster_core"]),
    ("config", &["ipfs_cluster_service::config"]),
    (
        "service",
        &["ipfs_cluster_service::cli", "ipfs_cluster_service::demo"],
    ),
    ("raft", &["cluster_core::raft", "raft"]),
    ("store", &["ipfs_cluster_service::store", "fjall", "lsm_tree"]),
    ("swarm", &["ipfs_cluster_service::net", "libp2p"]),
    (
        "restapi",
        &["ipfs_cluster_service::http", "axum", "hyper", "tower_http"],
    ),
    ("restapilog", &["restapilog"]),
    ("pinsvcapi", &["ipfs_cluster_service::http::pinning_service"]),
    ("ipfsproxy", &["ipfs_cluster_service::http::proxy"]),
    ("ipfshttp", &["cluster_ipfs::kubo"]),
    ("embedded", &["cluster_ipfs"]),
    ("pintracker", &[]),
    ("monitor", &[]),
];

/// Prefixes of our modules.
const OURS: [&str; 3] = ["ipfs_cluster_service", "cluster_core", "cluster_ipfs"];

/// Returns the facility of a log target.
fn facility(target: &str) -> &str {
    let all = FACILITIES
        .iter()
        .flat_map(|(name, modules)| modules.iter().map(move |module| (*name, *module)));
    let of_target = all.filter(|(_, module)| target.starts_with(module));
    match of_target.max_by_key(|(_, module)| module.len()) {
        Some((name, _)) => name,
        None => target.split("::").next().unwrap_or(target),
    }
}

/// Log level of the whole program and of single facilities: `info,restapi:debug`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Levels {
    everything: LevelFilter,
    facilities: Vec<(String, LevelFilter)>,
    /// True if libraries log more than errors.
    libraries: bool,
}

impl Levels {
    /// Everything, libraries included.
    pub fn debug() -> Self {
        Self {
            everything: LevelFilter::DEBUG,
            facilities: Vec::new(),
            libraries: true,
        }
    }

    fn targets(&self) -> Targets {
        let libraries = if self.libraries {
            self.everything
        } else {
            LevelFilter::WARN
        };
        let mut targets = Targets::new().with_default(libraries.min(self.everything));
        for name in OURS.into_iter().chain(FACILITIES.iter().map(|(name, _)| *name)) {
            targets = targets.with_target(name, self.everything);
        }
        for (name, level) in &self.facilities {
            targets = targets.with_target(name.as_str(), *level);
            let modules = FACILITIES.iter().filter(|(facility, _)| facility == name);
            for module in modules.flat_map(|(_, modules)| *modules) {
                targets = targets.with_target(*module, *level);
            }
        }
        targets
    }
}

/// Parses a level by any of its names in Go ipfs-cluster 1.1.6 and 0.0.12.
fn level(name: &str) -> Result<LevelFilter, String> {
    match name.trim().to_lowercase().as_str() {
        "trace" => Ok(LevelFilter::TRACE),
        "debug" => Ok(LevelFilter::DEBUG),
        "info" | "notice" => Ok(LevelFilter::INFO),
        "warn" | "warning" => Ok(LevelFilter::WARN),
        "error" | "critical" | "dpanic" | "panic" | "fatal" => Ok(LevelFilter::ERROR),
        _ => Err(format!(
            "{name:?} is no log level: use error, warn, info, debug or trace"
        )),
    }
}

impl FromStr for Levels {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut levels = Self {
            everything: LevelFilter::INFO,
            facilities: Vec::new(),
            libraries: false,
        };
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            match part.split_once(':') {
                None => levels.everything = level(part)?,
                Some(("*", all)) => levels.everything = level(all)?,
                Some((name, its)) => {
                    let name = known(name.trim())?;
                    levels.facilities.push((name.to_owned(), level(its)?));
                }
            }
        }
        Ok(levels)
    }
}

/// Facilities of the Go peer that are part of a larger one here.
const OTHER_NAMES: [(&str, &str); 11] = [
    ("adder", "restapi"),
    ("allocator", "cluster"),
    ("balanced", "cluster"),
    ("diskinfo", "monitor"),
    ("libp2p-raft", "raft"),
    ("metrics", "monitor"),
    ("optracker", "pintracker"),
    ("p2p-gorpc", "swarm"),
    ("pinqueue", "monitor"),
    ("pubsubmon", "monitor"),
    ("swarm2", "swarm"),
];

fn known(name: &str) -> Result<&str, String> {
    let same = OTHER_NAMES.iter().find(|(other, _)| *other == name);
    let name = same.map_or(name, |(_, ours)| *ours);
    let names = FACILITIES.map(|(name, _)| name);
    if names.contains(&name) {
        return Ok(name);
    }
    Err(format!(
        "{name:?} is no part of the program: use one of {}",
        names.join(", ")
    ))
}

/// Format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// For people, with colours on a terminal.
    Human,
    /// For people, without colours.
    Plain,
    /// For programs.
    Json,
}

/// Starts logging to the standard error. Only the first call has an effect.
pub fn start(levels: &Levels, format: Format) {
    let registry = tracing_subscriber::registry().with(levels.targets());
    // A closed standard error must not end the daemon, so failures to log are ignored.
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .log_internal_errors(false);
    let started = match format {
        Format::Json => registry.with(layer.event_format(json::Objects)).try_init(),
        Format::Human | Format::Plain => {
            let colours = format == Format::Human && std::io::stderr().is_terminal();
            registry.with(layer.event_format(Lines { colours })).try_init()
        }
    };
    // Already started, by a test in the same process for instance.
    drop(started);
}

/// Returns the time of a log line.
fn now() -> String {
    jiff::Timestamp::now()
        .strftime("%Y-%m-%dT%H:%M:%S%.3fZ")
        .to_string()
}

/// Formats the lines for people.
struct Lines {
    colours: bool,
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        ctx: &FmtContext<'_, S, N>,
        mut out: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let about = event.metadata();
        write!(out, "{}\t", now())?;
        let level = *about.level();
        if self.colours {
            write!(out, "\x1b[{}m{level}\x1b[0m\t", colour(level))?;
        } else {
            write!(out, "{level}\t")?;
        }
        write!(out, "{}\t", facility(about.target()))?;
        if let (Some(file), Some(line)) = (about.file(), about.line()) {
            write!(out, "{}:{line}\t", short(file))?;
        }
        let mut message = String::new();
        ctx.format_fields(Writer::new(&mut message), event)?;
        // A message may contain text from other peers, which must not look like a line of ours.
        write!(Escaping(&mut out), "{message}")?;
        writeln!(out)
    }
}

fn colour(level: Level) -> u8 {
    match level {
        Level::ERROR => 31,
        Level::WARN => 33,
        Level::INFO => 34,
        Level::DEBUG | Level::TRACE => 35,
    }
}

/// Returns the last two parts of a path, as in the Go peer.
fn short(file: &str) -> &str {
    let mut slashes = file.rmatch_indices('/').map(|(at, _)| at);
    match slashes.nth(1) {
        Some(at) => &file[at + 1..],
        None => file,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enabled(levels: &Levels, target: &str, level: Level) -> bool {
        levels.targets().would_enable(target, &level)
    }

    #[test]
    fn the_level_names_of_go_are_accepted() {
        let levels: Levels = "warning,restapi:debug, ipfshttp:error,libp2p-raft:info"
            .parse()
            .unwrap();
        for (target, level, logged) in [
            ("ipfs_cluster_service::driver", Level::WARN, true),
            ("ipfs_cluster_service::driver", Level::INFO, false),
            ("cluster", Level::WARN, true),
            ("restapi", Level::DEBUG, true),
            ("ipfs_cluster_service::http::pins", Level::DEBUG, true),
            ("cluster_ipfs::kubo::pins", Level::WARN, false),
            ("cluster_ipfs::bitswap", Level::WARN, true),
            ("raft", Level::INFO, true),
            ("libp2p_swarm", Level::WARN, true),
            ("libp2p_swarm", Level::INFO, false),
        ] {
            assert_eq!(enabled(&levels, target, level), logged, "{target} {level}");
        }
        assert!(enabled(&Levels::debug(), "libp2p_swarm", Level::DEBUG));
        assert!(!enabled(&"error".parse().unwrap(), "libp2p_swarm", Level::WARN));
        assert_eq!("".parse::<Levels>(), "info".parse());
        assert_eq!("*:debug".parse::<Levels>(), "debug".parse());
    }

    /// A writer that keeps its output.
    #[derive(Clone, Default)]
    struct Kept(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

    impl std::io::Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn foreign_text_forges_no_line_in_either_format() {
        let name = "x\u{1b}[2J\n2026-01-01T00:00:00.000Z\tERROR\u{9b}31m\u{202e}";
        for json in [false, true] {
            let kept = Kept::default();
            let writer = kept.clone();
            let layer = tracing_subscriber::fmt::layer().with_writer(move || writer.clone());
            let registry = tracing_subscriber::registry();
            let log = || tracing::warn!(name, "peer {name} said {name:?}");
            if json {
                let layer = layer.event_format(json::Objects);
                tracing::subscriber::with_default(registry.with(layer), log);
            } else {
                let layer = layer.event_format(Lines { colours: false });
                tracing::subscriber::with_default(registry.with(layer), log);
            }
            let written = String::from_utf8(kept.0.lock().unwrap().clone()).unwrap();
            let line = written.strip_suffix('\n').unwrap();
            let is_control = |c: char| c != '\t' && cluster_api::terminal::is_control(c);
            assert!(!line.contains(is_control), "{line:?}");
            assert!(line.contains("[2J") && line.contains("202e"), "{line:?}");
        }
    }

    #[test]
    fn unknown_levels_and_facilities_are_named() {
        assert_eq!(
            "loud".parse::<Levels>(),
            Err("\"loud\" is no log level: use error, warn, info, debug or trace".to_owned())
        );
        let error = "info,restapis:debug".parse::<Levels>().unwrap_err();
        assert!(error.starts_with("\"restapis\" is no part of the program: use one of cluster, config"));
    }

    #[test]
    fn every_module_has_a_facility() {
        for (target, name) in [
            ("ipfs_cluster_service::net::swarm", "swarm"),
            ("ipfs_cluster_service::driver", "cluster"),
            ("ipfs_cluster_service::http::proxy::add", "ipfsproxy"),
            ("cluster_ipfs::kubo", "ipfshttp"),
            ("cluster_ipfs::store", "embedded"),
            ("restapi", "restapi"),
            ("some_library::inside", "some_library"),
        ] {
            assert_eq!(facility(target), name);
        }
        assert_eq!(short("shells/service/src/driver.rs"), "src/driver.rs");
        assert_eq!(short("driver.rs"), "driver.rs");
    }
}
