//! Runs programs to their end, and polls for conditions.

use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Time limit of all waits: longer than anything takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// Returns a TCP port that was free a moment ago. Each is returned once.
///
/// The ports are below the range of outgoing connections, so that a restarted peer finds its port free, and
/// below those that `init --randomports` uses.
///
/// # Panics
/// If no port is free.
pub fn closed_port() -> u16 {
    const FIRST: u16 = 10_000;
    const COUNT: u16 = 10_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Concurrent test programs start at different ports.
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

/// Polls `holds` until it succeeds, and returns its value.
///
/// # Panics
/// If it does not succeed within [`PATIENCE`]; the message has its last error.
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

/// Output and exit code of a program.
#[derive(Debug, Clone)]
pub struct Said {
    /// Exit code; -1 if a signal ended it.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Said {
    /// Returns the standard output of a successful program.
    ///
    /// # Panics
    /// If it failed.
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "{self:?}");
        self.out
    }

    /// Decodes the standard output of a successful program as a stream of JSON values.
    ///
    /// # Panics
    /// If it failed, or its output is not JSON.
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
