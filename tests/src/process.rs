//! Programs that are run to their end, and waiting for what must come true.

use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long anything may take before it counts as not happening: longer than it takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// A TCP port that was free a moment ago, and is handed out once.
///
/// Below the range from which systems choose ports for outgoing connections: a peer that is dead for a
/// moment must find its port free again. And below those that `init --randomports` takes.
///
/// # Panics
/// No port is free.
pub fn closed_port() -> u16 {
    const FIRST: u16 = 10_000;
    const COUNT: u16 = 10_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Two test programs at the same time start at different places.
    let start = std::process::id().wrapping_mul(97) % u32::from(COUNT);
    for _ in 0..COUNT {
        let offset = (start + u32::from(NEXT.fetch_add(1, Ordering::Relaxed))) % u32::from(COUNT);
        let port = FIRST + u16::try_from(offset).expect("less than COUNT");
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port from {FIRST} on");
}

/// Waits until `holds` says that it is so, or fails with what it said last.
///
/// # Panics
/// It does not come true within [`PATIENCE`].
pub fn wait_until<T>(what: &str, mut holds: impl FnMut() -> Result<T, String>) -> T {
    let since = Instant::now();
    loop {
        match holds() {
            Ok(value) => return value,
            Err(last) => assert!(
                since.elapsed() < PATIENCE,
                "{what}: not so after {PATIENCE:?}: {last}"
            ),
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// What a program said and how it ended.
#[derive(Debug, Clone)]
pub struct Said {
    /// Its exit code; -1 when a signal ended it.
    pub code: i32,
    /// Its standard output.
    pub out: String,
    /// Its standard error.
    pub err: String,
}

impl Said {
    /// What it said, provided that it succeeded.
    ///
    /// # Panics
    /// It did not.
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "{self:?}");
        self.out
    }

    /// Its output as a stream of JSON values, provided that it succeeded.
    ///
    /// # Panics
    /// It did not succeed, or its output is not JSON.
    pub fn values(self) -> Vec<Value> {
        let out = self.ok();
        let values = serde_json::Deserializer::from_str(&out).into_iter();
        values
            .map(|value| value.unwrap_or_else(|error| panic!("{error} in {out}")))
            .collect()
    }
}

/// Runs a program to its end.
///
/// # Panics
/// It cannot be started.
pub fn run(command: &mut Command) -> Said {
    let output = command
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    Said {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}
