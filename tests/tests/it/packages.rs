//! Contents of packages: the systemd unit, the image's entry point, manual pages.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;
use tests::{PATIENCE, closed_port, http, program, root, run, wait_until};

/// Process that is killed when dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Returns variables for listeners on free ports, and the port of the REST API.
fn ports() -> (Vec<(&'static str, String)>, u16) {
    let address = || format!("/ip4/127.0.0.1/tcp/{}", closed_port());
    let rest = closed_port();
    let variables = vec![
        ("CLUSTER_LISTENMULTIADDRESS", address()),
        (
            "CLUSTER_RESTAPI_HTTPLISTENMULTIADDRESS",
            format!("/ip4/127.0.0.1/tcp/{rest}"),
        ),
        ("CLUSTER_IPFSPROXY_LISTENMULTIADDRESS", address()),
        ("CLUSTER_PINSVCAPI_HTTPLISTENMULTIADDRESS", address()),
        ("CLUSTER_EMBEDDED_APILISTENMULTIADDRESS", address()),
        ("CLUSTER_EMBEDDED_SWARMLISTENMULTIADDRESS", address()),
        ("CLUSTER_EMBEDDED_GATEWAYLISTENMULTIADDRESS", address()),
        ("CLUSTER_EMBEDDED_PRIVATE", "true".to_owned()),
        ("CLUSTER_MDNSINTERVAL", "0s".to_owned()),
    ];
    (variables, rest)
}

/// Settings of the unit's section `[Service]`, in which systemd's `%S` is `state`.
fn settings(state: &Path) -> Vec<(String, String)> {
    let unit = fs::read_to_string(root().join("deploy/systemd/ipfs-cluster.service")).unwrap();
    let lines = unit.lines().skip_while(|line| *line != "[Service]");
    let pairs = lines
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once('='));
    let program = program("ipfs-cluster-service");
    let filled = |value: &str| {
        value
            .replace("%S", state.to_str().unwrap())
            .replace("/usr/bin/ipfs-cluster-service", program.to_str().unwrap())
    };
    pairs
        .map(|(name, value)| (name.to_owned(), filled(value)))
        .collect()
}

#[test]
fn unit_makes_a_configuration_and_runs_a_peer() {
    let state = TempDir::new().unwrap();
    let settings = settings(state.path());
    let get = |name: &str| {
        let found = settings.iter().find(|(known, _)| known == name);
        &found.unwrap_or_else(|| panic!("the unit has no {name}")).1
    };
    assert_eq!(get("Type"), "notify");
    let folder = state.path().join(get("StateDirectory"));
    fs::create_dir(&folder).unwrap();
    let secret = state.path().join("secret");
    fs::write(&secret, "5e".repeat(32) + "\n").unwrap();
    let (mut variables, _) = ports();
    variables.push(("CLUSTER_SECRET_FILE", secret.display().to_string()));
    let shell = |line: &str| {
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", line])
            .env_clear()
            .env("PATH", "/usr/bin:/bin");
        command.envs(
            get("Environment")
                .split(' ')
                .filter_map(|pair| pair.split_once('=')),
        );
        command.envs(variables.clone());
        command
    };
    for _ in 0..2 {
        run(&mut shell(get("ExecStartPre"))).ok();
    }
    let config = fs::read_to_string(folder.join("service.json")).unwrap();
    let config: Value = serde_json::from_str(&config).unwrap();
    assert_eq!(config["cluster"]["secret"], "5e".repeat(32));
    let socket = state.path().join("notify");
    let manager = UnixDatagram::bind(&socket).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut start = shell(&format!("exec {}", get("ExecStart")));
    start
        .env("NOTIFY_SOCKET", &socket)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut peer = Running(start.spawn().unwrap());
    let mut said = String::new();
    while !said.contains("READY=1") {
        let mut message = [0; 1024];
        let length = manager
            .recv(&mut message)
            .unwrap_or_else(|error| panic!("not ready: {error}: {said}"));
        said += &String::from_utf8_lossy(&message[..length]);
    }
    run(Command::new("kill").args(["-TERM", &peer.0.id().to_string()])).ok();
    assert!(peer.0.wait().unwrap().success());
}

#[test]
fn entry_point_of_the_image_makes_a_configuration_once_and_runs_a_peer() {
    let folder = TempDir::new().unwrap();
    let data = folder.path().join("data");
    fs::create_dir(&data).unwrap();
    // The user whom the entry point becomes in a container: here, one that it takes for another than root.
    let id = folder.path().join("id");
    fs::write(&id, "#!/bin/sh\necho 1000\n").unwrap();
    fs::set_permissions(&id, fs::Permissions::from_mode(0o755)).unwrap();
    let programs = program("ipfs-cluster-service").parent().unwrap().to_owned();
    let path = format!("{}:{}:/usr/bin:/bin", folder.path().display(), programs.display());
    let (variables, rest) = ports();
    let entry = |arguments: &[&str]| {
        let mut command = Command::new(root().join("deploy/container/entrypoint.sh"));
        command
            .args(arguments)
            .env_clear()
            .env("PATH", &path)
            .env("HOME", &data)
            .env("IPFS_CLUSTER_PATH", &data)
            .envs(variables.clone());
        command
    };
    let said = run(&mut entry(&["id"])).ok();
    let id = said.lines().last().unwrap().to_owned();
    assert!(id.starts_with("12D3KooW"), "{said}");
    let mut daemon = entry(&["daemon"]);
    let _peer = Running(
        daemon
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap(),
    );
    let shown = wait_until("the peer answers", || {
        let answer = http::request(rest, "GET", "/id", &[], b"").map_err(|error| error.to_string())?;
        match answer.is_success() {
            true => Ok(answer.json()),
            false => Err(answer.text()),
        }
    });
    assert_eq!(shown["id"], id.as_str(), "the first start made the identity");
}

#[test]
fn each_command_has_a_manual_page() {
    let folder = TempDir::new().unwrap();
    for name in ["ipfs-cluster-service", "ipfs-cluster-ctl"] {
        run(Command::new(program(name)).arg("man").arg(folder.path())).ok();
        let overview = fs::read_to_string(folder.path().join(format!("{name}.1"))).unwrap();
        assert!(overview.contains(".SH DESCRIPTION"), "{overview}");
    }
    for page in ["ipfs-cluster-service-init.1", "ipfs-cluster-ctl-pin-import.1"] {
        assert!(folder.path().join(page).exists(), "{page}");
    }
}
