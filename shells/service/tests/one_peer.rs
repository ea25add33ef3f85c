//! One peer as a process: start, readiness, folder lock and shutdown.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Longer than any start or end on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn program(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ipfs-cluster-service"));
    command
        .env_clear()
        .env("CLUSTER_EMBEDDED_PRIVATE", "true")
        .stdin(Stdio::null())
        .arg("--config")
        .arg(folder);
    command
}

/// Serialises the peers: the ports of a stopped one are free, and another might take them.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Creates the folder of a peer on free ports.
fn initialised() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let init = ["init", "--ipfs", "embedded", "--randomports", "--force"];
    let output = program(folder.path()).args(init).output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    folder
}

/// A daemon that is killed when a test ends before it does.
struct Daemon {
    child: Child,
    log: BufReader<std::process::ChildStderr>,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Daemon {
    fn start(command: &mut Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let log = BufReader::new(child.stderr.take().unwrap());
        Self { child, log }
    }

    /// Reads the log up to a line that contains `text`. The end of the log fails the test, so this ends.
    fn says(&mut self, text: &str) -> String {
        let mut log = String::new();
        loop {
            let start = log.len();
            assert_ne!(self.log.read_line(&mut log).unwrap(), 0, "no {text:?} in\n{log}");
            if log[start..].contains(text) {
                return log[start..].trim_end().to_owned();
            }
        }
    }

    fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-s", name, &id])
                .status()
                .unwrap()
                .success()
        );
    }

    fn exit_code(&mut self) -> Option<i32> {
        let started = Instant::now();
        while started.elapsed() < PATIENCE {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("it does not end");
    }
}

#[test]
fn a_peer_becomes_ready_answers_and_ends_at_each_of_the_three_signals() {
    let _alone = alone();
    let folder = initialised();
    let text = std::fs::read_to_string(folder.path().join("service.json")).unwrap();
    let config: Value = serde_json::from_str(&text).unwrap();
    let listen = config["api"]["restapi"]["http_listen_multiaddress"]
        .as_str()
        .unwrap();
    let port: u16 = listen.rsplit('/').next().unwrap().parse().unwrap();
    for signal in ["TERM", "INT", "HUP"] {
        let mut daemon = Daemon::start(program(folder.path()).arg("daemon"));
        let ready = daemon.says("READY");
        let parts: Vec<&str> = ready.split('\t').collect();
        assert_eq!(
            (parts.len(), parts[1], parts[2]),
            (5, "INFO", "cluster"),
            "{ready}"
        );

        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream
            .write_all(b"GET /id HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let identity = std::fs::read_to_string(folder.path().join("identity.json")).unwrap();
        let identity: Value = serde_json::from_str(&identity).unwrap();
        assert!(answer.contains(identity["id"].as_str().unwrap()), "{answer}");

        let second = program(folder.path()).arg("daemon").output().unwrap();
        let said = String::from_utf8(second.stderr).unwrap();
        let holder = format!("the process with id {} is using", daemon.child.id());
        assert!(
            second.status.code() == Some(1) && said.contains(&holder),
            "{said}"
        );

        daemon.signal(signal);
        daemon.says(&format!("SIG{signal} received, shutting down"));
        assert_eq!(daemon.exit_code(), Some(0), "SIG{signal}");
    }
}

#[test]
fn a_killed_daemon_leaves_its_folder_free() {
    let _alone = alone();
    let folder = initialised();
    for _ in 0..2 {
        let mut daemon = Daemon::start(program(folder.path()).arg("run"));
        daemon.says("READY");
    }
}

#[test]
fn logs_are_json_on_demand() {
    let _alone = alone();
    let folder = initialised();
    let command = &mut program(folder.path());
    let mut daemon = Daemon::start(command.args(["--logformat", "json", "daemon"]));
    let line: Value = serde_json::from_str(&daemon.says("READY")).unwrap();
    assert!(line["level"] == "info" && line["logger"] == "cluster", "{line}");
    for key in ["ts", "caller", "msg"] {
        assert!(line[key].is_string(), "{key}: {line}");
    }
    daemon.signal("TERM");
    assert_eq!(daemon.exit_code(), Some(0));
}
