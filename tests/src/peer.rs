//! A peer as a process, and requests to it.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::http::{self, Answer};
use crate::process::{PATIENCE, Said, closed_port, run, wait_until};
use crate::programs::program;

/// Release that a peer of a debug build pretends to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Release {
    /// The first, which reads version 1 of the protocol.
    First,
    /// This one.
    This,
    /// The next, which reads and writes one more version.
    Next,
}

/// A peer: a folder, and a process if it runs.
#[derive(Debug)]
pub struct Peer {
    /// Peer name.
    pub name: String,
    /// Peer id.
    pub id: String,
    /// Folder of configuration and data.
    pub folder: PathBuf,
    /// Port for other peers.
    pub cluster_port: u16,
    /// Port of the REST API.
    pub rest_port: u16,
    /// Port of the embedded node's HTTP API.
    pub ipfs_port: u16,
    /// Port for other IPFS nodes.
    pub swarm_port: u16,
    release: Release,
    child: Option<Child>,
}

impl Peer {
    /// Writes the folder `name` below `inside`, with `init` and environment variables.
    ///
    /// # Panics
    /// If `init` fails.
    pub fn init(inside: &Path, name: &str) -> Self {
        let [cluster_port, rest_port, ipfs_port, swarm_port] = [0; 4].map(|_| closed_port());
        let folder = inside.join(name);
        let address = |port: u16| format!("/ip4/127.0.0.1/tcp/{port}");
        let mut command = service(&folder);
        command
            .args(["init", "--ipfs", "embedded"])
            .env("CLUSTER_PEERNAME", name)
            .env("CLUSTER_SECRET", "5e".repeat(32))
            .env("CLUSTER_LISTENMULTIADDRESS", address(cluster_port))
            .env("CLUSTER_MONITORPINGINTERVAL", "1s")
            .env("CLUSTER_RESTAPI_HTTPLISTENMULTIADDRESS", address(rest_port))
            .env("CLUSTER_EMBEDDED_APILISTENMULTIADDRESS", address(ipfs_port))
            .env("CLUSTER_EMBEDDED_SWARMLISTENMULTIADDRESS", address(swarm_port));
        run(&mut command).ok();
        let mut peer = Self {
            name: name.to_owned(),
            id: String::new(),
            folder,
            cluster_port,
            rest_port,
            ipfs_port,
            swarm_port,
            release: Release::This,
            child: None,
        };
        let identity = std::fs::read_to_string(peer.folder.join("identity.json")).expect("init wrote it");
        let identity: Value = serde_json::from_str(&identity).expect("is JSON");
        peer.id = identity["id"].as_str().expect("has an id").to_owned();
        peer.edit(|config| {
            config["cluster"]["repinning_grace"] = json!("2s");
            // On a busy machine an election, or a join among many, takes longer than the default.
            config["consensus"]["raft"]["wait_for_leader_timeout"] = json!("60s");
            // Off, to save ports.
            config["ipfs_connector"]["embedded"]["gateway_listen_multiaddress"] = json!([]);
            let api = config["api"].as_object_mut().expect("api is a section");
            api.remove("ipfsproxy");
            api.remove("pinsvcapi");
        });
        peer
    }

    /// Edits its `service.json`.
    ///
    /// # Panics
    /// If it cannot be read or written.
    pub fn edit(&self, edit: impl FnOnce(&mut Value)) {
        let path = self.folder.join("service.json");
        let text = std::fs::read_to_string(&path).expect("init wrote it");
        let mut config = serde_json::from_str(&text).expect("is JSON");
        edit(&mut config);
        let text = serde_json::to_string_pretty(&config).expect("JSON can be written");
        std::fs::write(path, text).expect("can be written");
    }

    /// Starts the daemon without waiting. Its log goes to `daemon.log` in its folder.
    ///
    /// # Panics
    /// If it cannot be started, or runs already.
    pub fn start(&mut self) {
        self.start_with(&[]);
    }

    /// Starts the daemon with further arguments.
    ///
    /// # Panics
    /// As [`Peer::start`].
    pub fn start_with(&mut self, arguments: &[&str]) {
        self.spawn(service(&self.folder), arguments);
    }

    /// Starts the daemon with environment variables.
    ///
    /// # Panics
    /// As [`Peer::start`].
    pub fn start_env(&mut self, variables: &[(&str, &str)]) {
        let mut command = service(&self.folder);
        command.envs(variables.iter().copied());
        self.spawn(command, &[]);
    }

    fn spawn(&mut self, mut command: Command, arguments: &[&str]) {
        assert!(self.child.is_none(), "{} runs", self.name);
        match self.release {
            Release::First => command.env("PRETEND_FIRST_RELEASE", "1"),
            Release::This => &mut command,
            Release::Next => command.env("PRETEND_NEXT_RELEASE", "1"),
        };
        let log = File::options().create(true).append(true).open(self.log_path());
        let log = log.expect("a log");
        let child = command
            .args(["--logformat", "nocolor", "daemon"])
            .args(arguments)
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .spawn();
        self.child = Some(child.expect("the service starts"));
    }

    /// Starts the daemon with a limit of address space, in bytes.
    ///
    /// # Panics
    /// As [`Peer::start`].
    pub fn start_limited(&mut self, bytes: u64) {
        let service = service(&self.folder);
        let mut command = Command::new("/bin/sh");
        command
            .env_clear()
            .stdin(Stdio::null())
            .args([
                "-c",
                "ulimit -v \"$0\" && exec \"$@\"",
                &(bytes / 1024).to_string(),
            ])
            .arg(service.get_program())
            .args(service.get_args());
        self.spawn(command, &[]);
    }

    /// Returns its process id.
    ///
    /// # Panics
    /// If it does not run.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    /// Makes its next starts pretend to be of a release. Debug builds only.
    pub fn install(&mut self, release: Release) {
        self.release = release;
    }

    /// Starts the daemon and waits until it is ready.
    ///
    /// # Panics
    /// If it ends, or does not become ready.
    pub fn start_and_wait(&mut self) {
        self.start();
        wait_until("a peer answers", || {
            self.check();
            self.try_get("/id")
        });
    }

    /// Returns its address for other peers.
    pub fn address(&self) -> String {
        format!("/ip4/127.0.0.1/tcp/{}/p2p/{}", self.cluster_port, self.id)
    }

    /// Waits until its log says READY `times` times, restarts included.
    ///
    /// # Panics
    /// If it ends, or does not become ready.
    pub fn wait_ready(&mut self, times: usize) {
        wait_until(&format!("{} is ready", self.name), || {
            self.check();
            let count = self.log().matches("** IPFS Cluster is READY **").count();
            if count >= times {
                Ok(())
            } else {
                Err(format!("{count} times so far"))
            }
        });
    }

    /// Waits until it lists exactly this number of members, without an error.
    ///
    /// # Panics
    /// If it ends, or does not list them in time.
    pub fn wait_members(&mut self, members: usize) {
        wait_until(&format!("{} sees {members} members", self.name), || {
            self.check();
            let listed = self.try_get("/peers")?.values();
            let failing = listed.iter().filter(|id| id["error"] != "").count();
            if (listed.len(), failing) == (members, 0) {
                Ok(())
            } else {
                Err(format!("it lists {}, of which {failing} fail", listed.len()))
            }
        });
    }

    /// Waits until its log contains `text`.
    ///
    /// # Panics
    /// If it does not in time.
    pub fn wait_log(&self, text: &str) {
        wait_until(&format!("{} says {text:?}", self.name), || {
            if self.log().contains(text) {
                Ok(())
            } else {
                Err("it does not".to_owned())
            }
        });
    }

    /// Returns whether it was started, and not killed since.
    pub fn is_started(&self) -> bool {
        self.child.is_some()
    }

    /// Sends SIGKILL, and waits for its end.
    ///
    /// # Panics
    /// If the system refuses.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("may be killed");
            child.wait().expect("was killed");
        }
    }

    /// Sends SIGTERM, and waits for its end.
    ///
    /// # Panics
    /// If it does not run, or does not end.
    pub fn terminate(&mut self) -> ExitStatus {
        self.signal("TERM");
        self.wait_end()
    }

    /// Sends a signal by name: `STOP` freezes the process, `CONT` resumes it.
    ///
    /// # Panics
    /// If it does not run.
    pub fn signal(&self, name: &str) {
        let child = self.child.as_ref().expect("it runs");
        run(Command::new("kill").args(["-s", name, &child.id().to_string()])).ok();
    }

    /// Waits until it exits.
    ///
    /// # Panics
    /// If it does not run, or does not exit in time.
    pub fn wait_end(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("it runs");
        let since = Instant::now();
        loop {
            if let Some(status) = child.try_wait().expect("can be waited for") {
                return status;
            }
            if since.elapsed() > PATIENCE {
                child.kill().expect("may be killed");
                child.wait().expect("was killed");
                panic!("{} did not end within {PATIENCE:?}", self.name);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Returns whether it was started and has exited.
    ///
    /// # Panics
    /// If the system does not report its status.
    pub fn has_ended(&mut self) -> bool {
        let child = self.child.as_mut();
        child.is_some_and(|child| child.try_wait().expect("can be waited for").is_some())
    }

    /// Checks that it has not exited.
    ///
    /// # Panics
    /// If it has; the message has the end of its log.
    pub fn check(&mut self) {
        if let Some(child) = &mut self.child
            && let Some(status) = child.try_wait().expect("can be waited for")
        {
            let signal = status.signal();
            panic!("{} ended by itself: {status}, signal {signal:?}", self.name);
        }
    }

    fn log_path(&self) -> PathBuf {
        self.folder.join("daemon.log")
    }

    /// Returns its log.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// Sends a request to the REST API.
    ///
    /// # Errors
    /// Fails if there is no response.
    pub fn rest(&self, method: &str, target: &str) -> std::io::Result<Answer> {
        http::request(self.rest_port, method, target, &[], &[])
    }

    /// Sends a GET request to the REST API.
    ///
    /// # Errors
    /// Fails if there is no response, or an error response.
    pub fn try_get(&self, target: &str) -> Result<Answer, String> {
        self.ask("GET", target)
    }

    /// Sends a request to the REST API that should succeed.
    ///
    /// # Errors
    /// Fails if there is no response, or an error response.
    pub fn ask(&self, method: &str, target: &str) -> Result<Answer, String> {
        let answer = self.rest(method, target);
        let answer = answer.map_err(|error| format!("{} {method} {target}: {error}", self.name))?;
        if !answer.is_success() {
            let (status, text, error) = (answer.status, answer.text(), answer.error());
            return Err(format!(
                "{} {method} {target}: {status} {text} {error:?}",
                self.name
            ));
        }
        Ok(answer)
    }

    /// Sends a request to the embedded node's HTTP API.
    ///
    /// # Errors
    /// Fails if there is no response.
    pub fn ipfs(&self, call: &str) -> std::io::Result<Answer> {
        http::request(self.ipfs_port, "POST", &format!("/api/v0/{call}"), &[], &[])
    }

    /// Reads a file from its IPFS node.
    ///
    /// # Panics
    /// If it cannot be read.
    pub fn cat(&self, path: &str) -> Vec<u8> {
        let answer = self.ipfs(&format!("cat?arg={path}")).expect("an answer");
        assert!(
            answer.is_success(),
            "cat {path}: {} {}",
            answer.status,
            answer.text()
        );
        answer.body
    }

    /// Adds files, and returns a JSON value for each entry added.
    ///
    /// # Errors
    /// Fails if the peer refuses.
    pub fn add(&self, query: &str, files: &[(&str, &[u8])]) -> Result<Vec<Value>, String> {
        let (kind, body) = http::multipart(files);
        let target = format!("/add?{query}");
        let headers = [("Content-Type", kind.as_str())];
        let answer = http::request(self.rest_port, "POST", &target, &headers, &body);
        let answer = answer.map_err(|error| error.to_string())?;
        if !answer.is_success() {
            let (status, text, error) = (answer.status, answer.text(), answer.error());
            return Err(format!("{status} {text} {error:?}"));
        }
        Ok(answer.values())
    }

    /// Runs `ipfs-cluster-ctl` with these arguments at this peer.
    pub fn ctl<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Said {
        let mut command = Command::new(program("ipfs-cluster-ctl"));
        let host = format!("/ip4/127.0.0.1/tcp/{}", self.rest_port);
        run(command.env_clear().args(["--host", &host]).args(arguments))
    }

    /// Runs `ipfs-cluster-ctl` with `--enc=json`, and returns the values of its output.
    pub fn ctl_json(&self, arguments: &[&str]) -> Vec<Value> {
        self.ctl(&[&["--enc=json"], arguments].concat()).values()
    }

    /// Returns the number of peers with this status of a CID, according to this peer.
    ///
    /// # Errors
    /// Fails if there is no response.
    pub fn count(&self, cid: &str, state: &str) -> Result<usize, String> {
        let status = self.try_get(&format!("/pins/{cid}"))?.json();
        let peers = status["peer_map"].as_object().ok_or("no peer_map")?;
        Ok(peers.values().filter(|info| info["status"] == state).count())
    }

    /// Waits until exactly this number of peers have this status of a CID.
    pub fn wait_state(&self, cid: &str, state: &str, peers: usize) {
        wait_until(&format!("{cid} is {state} at {peers} peers"), || {
            let count = self.count(cid, state)?;
            if count == peers {
                return Ok(());
            }
            let status = self.try_get(&format!("/pins/{cid}"))?.text();
            Err(format!("at {count}: {status}"))
        });
    }

    /// Returns the CIDs of the pinset at this peer, sorted.
    ///
    /// # Errors
    /// Fails if there is no response.
    pub fn pinset(&self) -> Result<Vec<String>, String> {
        let pins = self.try_get("/allocations")?.values();
        let mut cids: Vec<String> = pins
            .iter()
            .map(|pin| pin["cid"].as_str().expect("a pin has a cid").to_owned())
            .collect();
        cids.sort();
        Ok(cids)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Returns the command of the daemon on a folder, with an empty environment.
pub fn service(folder: &Path) -> Command {
    let mut command = Command::new(program("ipfs-cluster-service"));
    command
        .env_clear()
        .stdin(Stdio::null())
        .arg("--config")
        .arg(folder);
    // No test contacts the public network: `init` writes this down, and older files do not say it.
    let written = std::fs::read_to_string(folder.join("service.json"));
    if !written.is_ok_and(|text| text.contains("\"private\"")) {
        command
            .env("CLUSTER_EMBEDDED_PRIVATE", "true")
            .env("CLUSTER_MDNSINTERVAL", "0s");
    }
    command
}
