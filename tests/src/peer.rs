//! One peer as a process, and what is asked of it.

use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::http::{self, Answer};
use crate::process::{PATIENCE, Said, closed_port, run, wait_until};
use crate::programs::program;

/// One peer: a folder, and mostly a process.
#[derive(Debug)]
pub struct Peer {
    /// Its name for people.
    pub name: String,
    /// Its peer id.
    pub id: String,
    /// Its configuration and data.
    pub folder: PathBuf,
    /// The port for other peers.
    pub cluster_port: u16,
    /// The port of the REST API.
    pub rest_port: u16,
    /// The port of the embedded node's HTTP API.
    pub ipfs_port: u16,
    /// The port for other IPFS nodes.
    pub swarm_port: u16,
    /// The program that it runs.
    program: &'static str,
    child: Option<Child>,
}

/// The service of the next release, as far as upgrades can tell: it reads and writes one more version.
pub const NEXT: &str = "ipfs-cluster-service-next";

impl Peer {
    /// Writes the folder `name` below `inside`, with `init` and the environment.
    ///
    /// # Panics
    /// `init` fails.
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
            program: "ipfs-cluster-service",
            child: None,
        };
        let identity = std::fs::read_to_string(peer.folder.join("identity.json")).expect("init wrote it");
        let identity: Value = serde_json::from_str(&identity).expect("is JSON");
        peer.id = identity["id"].as_str().expect("has an id").to_owned();
        peer.edit(|config| {
            config["cluster"]["repinning_grace"] = json!("2s");
            // On a busy machine an election, or a join among many, takes longer than operators want to wait.
            config["consensus"]["raft"]["wait_for_leader_timeout"] = json!("60s");
            // One more port, and not what these tests are about.
            let api = config["api"].as_object_mut().expect("api is a section");
            api.remove("ipfsproxy");
        });
        peer
    }

    /// Changes its `service.json`.
    ///
    /// # Panics
    /// It cannot be read or written.
    pub fn edit(&self, edit: impl FnOnce(&mut Value)) {
        let path = self.folder.join("service.json");
        let text = std::fs::read_to_string(&path).expect("init wrote it");
        let mut config = serde_json::from_str(&text).expect("is JSON");
        edit(&mut config);
        let text = serde_json::to_string_pretty(&config).expect("JSON can be written");
        std::fs::write(path, text).expect("can be written");
    }

    /// Starts it and returns at once. Its log goes to `daemon.log` in its folder.
    ///
    /// # Panics
    /// It cannot be started, or runs already.
    pub fn start(&mut self) {
        self.start_with(&[]);
    }

    /// The same, with more arguments for `daemon`.
    ///
    /// # Panics
    /// As [`Peer::start`].
    pub fn start_with(&mut self, arguments: &[&str]) {
        self.spawn(service_of(self.program, &self.folder), arguments);
    }

    fn spawn(&mut self, mut command: Command, arguments: &[&str]) {
        assert!(self.child.is_none(), "{} runs", self.name);
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

    /// The same as [`Peer::start`], with so many bytes of address space.
    ///
    /// # Panics
    /// As [`Peer::start`].
    pub fn start_limited(&mut self, bytes: u64) {
        let service = service_of(self.program, &self.folder);
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

    /// Its process.
    ///
    /// # Panics
    /// It does not run.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    /// Has it run another release from its next start on; see [`NEXT`].
    pub fn install(&mut self, program: &'static str) {
        self.program = program;
    }

    /// Starts it and waits until it answers.
    ///
    /// # Panics
    /// It ends, or does not answer.
    pub fn start_and_wait(&mut self) {
        self.start();
        wait_until("a peer answers", || {
            self.check();
            self.try_get("/id")
        });
    }

    /// Where other peers reach it.
    pub fn address(&self) -> String {
        format!("/ip4/127.0.0.1/tcp/{}/p2p/{}", self.cluster_port, self.id)
    }

    /// Waits until it has said so many times that it is ready, over all its lives.
    ///
    /// # Panics
    /// It ends, or does not become ready.
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

    /// Waits until it lists so many members, and all of them answer it.
    ///
    /// # Panics
    /// It ends, or they do not come, or go.
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

    /// Waits until its log has this.
    ///
    /// # Panics
    /// It does not come.
    pub fn wait_log(&self, text: &str) {
        wait_until(&format!("{} says {text:?}", self.name), || {
            if self.log().contains(text) {
                Ok(())
            } else {
                Err("it does not".to_owned())
            }
        });
    }

    /// Whether it was started, and not killed since.
    pub fn is_started(&self) -> bool {
        self.child.is_some()
    }

    /// SIGKILL, and waits for the end.
    ///
    /// # Panics
    /// The system refuses.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("may be killed");
            child.wait().expect("was killed");
        }
    }

    /// SIGTERM, and waits for the end.
    ///
    /// # Panics
    /// It does not run, or does not end.
    pub fn terminate(&mut self) -> ExitStatus {
        self.signal("TERM");
        self.wait_end()
    }

    /// Sends it a signal, by name: `STOP` freezes it, `CONT` lets it go on.
    ///
    /// # Panics
    /// It does not run.
    pub fn signal(&self, name: &str) {
        let child = self.child.as_ref().expect("it runs");
        run(Command::new("kill").args(["-s", name, &child.id().to_string()])).ok();
    }

    /// Waits until it ends by itself.
    ///
    /// # Panics
    /// It does not run, or does not end.
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

    /// Whether it was started and has ended by itself.
    ///
    /// # Panics
    /// The system does not tell.
    pub fn has_ended(&mut self) -> bool {
        let child = self.child.as_mut();
        child.is_some_and(|child| child.try_wait().expect("can be waited for").is_some())
    }

    /// Fails when it has ended by itself.
    ///
    /// # Panics
    /// It has.
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

    /// All that it has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// Asks the REST API.
    ///
    /// # Errors
    /// There is no answer.
    pub fn rest(&self, method: &str, target: &str) -> std::io::Result<Answer> {
        http::request(self.rest_port, method, target, &[], &[])
    }

    /// Gets from the REST API.
    ///
    /// # Errors
    /// There is no answer, or one that tells of an error.
    pub fn try_get(&self, target: &str) -> Result<Answer, String> {
        self.ask("GET", target)
    }

    /// Asks the REST API for something that succeeds.
    ///
    /// # Errors
    /// There is no answer, or one that tells of an error.
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

    /// Asks the embedded node's HTTP API.
    ///
    /// # Errors
    /// There is no answer.
    pub fn ipfs(&self, call: &str) -> std::io::Result<Answer> {
        http::request(self.ipfs_port, "POST", &format!("/api/v0/{call}"), &[], &[])
    }

    /// What its IPFS node has under a path.
    ///
    /// # Panics
    /// It cannot be read.
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

    /// Adds files, and tells all that was added.
    ///
    /// # Errors
    /// It was refused.
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

    /// `ipfs-cluster-ctl` with these arguments, talking to this peer.
    pub fn ctl(&self, arguments: &[&str]) -> Said {
        let mut command = Command::new(program("ipfs-cluster-ctl"));
        let host = format!("/ip4/127.0.0.1/tcp/{}", self.rest_port);
        run(command.env_clear().args(["--host", &host]).args(arguments))
    }

    /// The same, with `--enc=json`: the values that it wrote.
    pub fn ctl_json(&self, arguments: &[&str]) -> Vec<Value> {
        self.ctl(&[&["--enc=json"], arguments].concat()).values()
    }

    /// How many peers have this CID in this state, by what this peer says.
    ///
    /// # Errors
    /// There is no answer.
    pub fn count(&self, cid: &str, state: &str) -> Result<usize, String> {
        let status = self.try_get(&format!("/pins/{cid}"))?.json();
        let peers = status["peer_map"].as_object().ok_or("no peer_map")?;
        Ok(peers.values().filter(|info| info["status"] == state).count())
    }

    /// Waits until so many peers have this CID in this state.
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

    /// The CIDs of the pinset, sorted, by what this peer says.
    ///
    /// # Errors
    /// There is no answer.
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

/// The service on a folder, with no environment but what a test sets.
pub fn service(folder: &Path) -> Command {
    service_of("ipfs-cluster-service", folder)
}

fn service_of(name: &str, folder: &Path) -> Command {
    let mut command = Command::new(program(name));
    command
        .env_clear()
        .stdin(Stdio::null())
        .arg("--config")
        .arg(folder);
    command
}
