//! The built program, as a script uses it.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// `init` that does not depend on a Kubo daemon on this machine.
const INIT: [&str; 3] = ["init", "--ipfs", "embedded"];

/// The program with only the variables that a test sets.
fn program(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ipfs-cluster-service"));
    command
        .env_clear()
        .env("HOME", home)
        .env("CLUSTER_EMBEDDED_PRIVATE", "true")
        .stdin(Stdio::null());
    command
}

fn home() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn outcome(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

fn run(command: &mut Command) -> (Option<i32>, String, String) {
    outcome(&command.output().unwrap())
}

fn answering(command: &mut Command, answer: &str) -> (Option<i32>, String, String) {
    let piped = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = piped.spawn().unwrap();
    child.stdin.take().unwrap().write_all(answer.as_bytes()).unwrap();
    outcome(&child.wait_with_output().unwrap())
}

fn json(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn help_shows_the_commands_with_examples() {
    let (code, out, _) = run(program(home().path()).arg("--help"));
    assert_eq!(code, Some(0));
    for word in ["init", "daemon", "demo", "id", "version", "Examples:"] {
        assert!(out.contains(word), "{word} is missing in\n{out}");
    }
}

#[test]
fn help_and_version_succeed_and_wrong_usage_is_code_1() {
    let home = home();
    assert_eq!(run(program(home.path()).arg("--help")).0, Some(0));
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(
        run(program(home.path()).arg("version")),
        (Some(0), format!("{version}\n"), String::new())
    );
    assert_eq!(
        run(program(home.path()).arg("--version")).1,
        format!("ipfs-cluster-service version {version}\n")
    );
    for wrong in [
        &["--colour"][..],
        &["frobnicate"],
        &["-l", "loud", "version"],
        &["init", "--ipfs", "js"],
    ] {
        let (code, _, error) = run(program(home.path()).args(wrong));
        assert_eq!(code, Some(1), "{wrong:?}");
        assert!(
            error.contains(wrong[wrong.len() - 1]) || error.contains("loud"),
            "{error}"
        );
    }
}

#[test]
fn init_writes_three_files() {
    let home = home();
    let (code, out, said) = run(program(home.path()).args(INIT));
    assert_eq!((code, out.as_str()), (Some(0), ""), "{said}");
    let folder = home.path().join(".ipfs-cluster");
    let config = json(&folder.join("service.json"));
    assert_eq!(config["cluster"]["secret"].as_str().unwrap().len(), 64);
    assert!(
        config["ipfs_connector"]["embedded"].is_object() && config["ipfs_connector"]["ipfshttp"].is_null()
    );
    assert_eq!(std::fs::read_to_string(folder.join("peerstore")).unwrap(), "");
    let id = json(&folder.join("identity.json"))["id"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(
        run(program(home.path()).arg("id")),
        (Some(0), format!("{id}\n"), String::new())
    );
    let addresses = run(program(home.path()).args(["id", "--addresses"])).1;
    assert_eq!(addresses, format!("/ip4/0.0.0.0/tcp/9096/p2p/{id}\n"));
    for flag in [&["--ipfs", "http"][..], &["--ipfs", "embedded"]] {
        let (code, _, said) = run(program(home.path()).arg("init").arg("-f").args(flag));
        assert!(code == Some(0) && !said.contains("because"), "{said}");
        let connector = json(&folder.join("service.json"))["ipfs_connector"].clone();
        assert!(
            connector
                .as_object()
                .unwrap()
                .keys()
                .all(|kind| flag[1].contains(&kind.replace("ipfs", "")))
        );
        assert!(said.contains(&format!("identity of {id} kept")), "{said}");
    }
}

/// As in the stock compose file: the variable is set for `init` and `daemon`, and Kubo comes up in between.
#[test]
fn the_kubo_in_the_variable_is_used_or_the_start_is_refused() {
    const VARIABLE: &str = "CLUSTER_IPFSHTTP_NODEMULTIADDRESS";
    let address = "/ip4/127.0.0.1/tcp/1";
    let home = home();
    let (code, _, said) = run(program(home.path()).arg("init").env(VARIABLE, address));
    assert_eq!(code, Some(0), "{said}");
    let because = format!("IPFS node: http, because {VARIABLE} names {address}");
    assert!(said.contains(&because), "{said}");
    let config = json(&home.path().join(".ipfs-cluster/service.json"));
    let connector = &config["ipfs_connector"];
    assert!(connector["embedded"].is_null());
    assert_eq!(connector["ipfshttp"]["node_multiaddress"], address);

    let embedded = ["init", "-f", "--ipfs", "embedded"];
    let (code, _, said) = run(program(home.path()).args(embedded).env(VARIABLE, address));
    assert!(code == Some(1) && said.contains(VARIABLE), "{said}");
    assert_eq!(run(program(home.path()).args(embedded)).0, Some(0));
    let (code, _, said) = run(program(home.path()).arg("daemon").env(VARIABLE, address));
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains(address) && said.contains("configures the embedded IPFS node"),
        "{said}"
    );
}

#[test]
fn init_asks_before_it_overwrites() {
    let home = home();
    let file = home.path().join("peer/service.json");
    let init = || {
        let mut command = program(home.path());
        command.args([
            "-c",
            file.parent().unwrap().to_str().unwrap(),
            "init",
            "--ipfs",
            "embedded",
        ]);
        command
    };
    assert_eq!(run(&mut init()).0, Some(0));
    let before = std::fs::read_to_string(&file).unwrap();
    let unchanged = || std::fs::read_to_string(&file).unwrap() == before;

    let (code, _, said) = run(&mut init());
    assert!(
        said.contains("error asking: ") && said.contains("--force overwrites it"),
        "{said}"
    );
    assert!(code == Some(1) && unchanged(), "without an answer");
    assert!(answering(&mut init(), "n\n").0 == Some(0) && unchanged());
    let (code, _, said) = answering(&mut init(), "what\ny\n");
    assert!(
        code == Some(0) && said.contains("Please answer y or n.") && !unchanged(),
        "{said}"
    );
}

#[test]
fn empty_variables_and_options_count_as_unset() {
    let home = home();
    let mut command = program(home.path());
    command.args(["init", "--ipfs", "embedded", "--peers", "", "--loglevel", ""]);
    for empty in [
        "IPFS_CLUSTER_PATH",
        "IPFS_LOGGING_FMT",
        "IPFS_CLUSTER_LOG_LEVEL",
        "CLUSTER_SECRET",
    ] {
        command.env(empty, "");
    }
    assert_eq!(run(&mut command).0, Some(0));
    let config = json(&home.path().join(".ipfs-cluster/service.json"));
    assert_eq!(config["cluster"]["secret"].as_str().unwrap().len(), 64);
    // The standard output and the standard input.
    let exported = run(program(home.path()).args(["state", "export", "--file", ""]));
    assert_eq!((exported.0, exported.1.as_str()), (Some(0), ""), "{}", exported.2);
    let imported = run(program(home.path()).args(["state", "import", "-f", "--allocs", "", ""]));
    assert_eq!(imported.0, Some(0), "{}", imported.2);
}

#[test]
fn init_writes_the_settings_of_environment_flags_and_operator() {
    let home = home();
    let peer = "12D3KooWGRYZDHBembyGJQqQ6WgLqJWYNjnECJwGBnCg8vbCeo8F";
    let address = format!("/ip4/10.0.0.1/tcp/9096/p2p/{peer}");
    let secret = "ab".repeat(32);
    let mut command = program(home.path());
    command.args([
        "init",
        "--custom-secret",
        "--randomports",
        "--peers",
        &address,
        "--ipfs",
        "embedded",
    ]);
    let (code, _, said) = answering(command.env("CLUSTER_PEERNAME", "ann's"), &format!("{secret}\n"));
    assert!(code == Some(0) && said.contains("peerstore written to"), "{said}");
    assert!(!said.contains(&secret));
    let folder = home.path().join(".ipfs-cluster");
    let config = json(&folder.join("service.json"));
    assert_eq!(
        (&config["cluster"]["secret"], &config["cluster"]["peername"]),
        (&secret.into(), &"ann's".into())
    );
    assert_eq!(
        config["consensus"]["raft"]["init_peerset"],
        serde_json::json!([peer])
    );
    assert_eq!(
        std::fs::read_to_string(folder.join("peerstore")).unwrap(),
        format!("{address}\n")
    );
    let ports: Vec<String> = [
        &config["cluster"]["listen_multiaddress"],
        &config["api"]["restapi"]["http_listen_multiaddress"],
        &config["api"]["ipfsproxy"]["listen_multiaddress"],
        &config["ipfs_connector"]["embedded"]["api_listen_multiaddress"],
        &config["ipfs_connector"]["embedded"]["swarm_listen_multiaddress"][0],
    ]
    .map(|address| address.as_str().unwrap().rsplit('/').next().unwrap().to_owned())
    .to_vec();
    assert!(
        ports
            .iter()
            .all(|port| !["9094", "9095", "9096", "9097", "4001", "5001"].contains(&port.as_str()))
    );
    let different: std::collections::BTreeSet<&String> = ports.iter().collect();
    assert_eq!(different.len(), ports.len(), "{ports:?}");
}

#[test]
fn init_refuses_with_a_reason_and_writes_nothing() {
    let home = home();
    for (flags, reason) in [
        (&["--consensus", "crdt"][..], "crdt is not offered"),
        (
            &["http://127.0.0.1/x"],
            "a configuration is not fetched from elsewhere",
        ),
        (&["--peers", "/ip4/10.0.0.1/tcp/9096"], "names no peer"),
    ] {
        let (code, _, said) = run(program(home.path()).arg("init").args(flags));
        assert_eq!(code, Some(1));
        assert!(
            said.starts_with("error reading the command line: ") && said.contains(reason),
            "{said}"
        );
    }
    let mut command = program(home.path());
    let (code, _, said) = run(command
        .args(["init", "--ipfs", "http"])
        .env("CLUSTER_SECRET", "short"));
    assert!(
        code == Some(1) && said.contains("environment variable CLUSTER_SECRET: a secret must be"),
        "{said}"
    );
    assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 0);
}

#[test]
fn the_daemon_reports_the_problem_with_its_folder() {
    let home = home();
    // Without a command the peer runs.
    for command in [&["daemon"][..], &[], &["--leave"]] {
        let (code, _, said) = run(program(home.path()).args(command));
        assert!(
            code == Some(1) && said.contains("`ipfs-cluster-service init` makes it"),
            "{said}"
        );
    }

    assert_eq!(run(program(home.path()).args(INIT)).0, Some(0));
    let file = home.path().join(".ipfs-cluster/service.json");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(
        &file,
        text.replace("\"leave_on_shutdown\": false", "\"leave_on_shutdown\": 3"),
    )
    .unwrap();
    let (code, _, said) = run(program(home.path()).arg("run"));
    assert_eq!(code, Some(1));
    let expected = "service.json: cluster.leave_on_shutdown: invalid type: integer `3`, expected a boolean";
    assert!(said.contains("error ") && said.contains(expected), "{said}");
}

#[test]
fn a_second_daemon_on_a_folder_gets_the_id_of_the_first() {
    let home = home();
    assert_eq!(run(program(home.path()).args(INIT)).0, Some(0));
    let path = home.path().join(".ipfs-cluster/cluster.lock");
    let mut file = std::fs::File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(&path)
        .unwrap();
    file.lock().unwrap();
    write!(file, "4711").unwrap();
    let (code, _, said) = run(program(home.path()).arg("daemon"));
    assert_eq!(code, Some(1));
    assert!(
        said.contains("error acquiring execution lock: the process with id 4711 is using"),
        "{said}"
    );
    let mut content = String::new();
    std::fs::File::open(&path)
        .unwrap()
        .read_to_string(&mut content)
        .unwrap();
    assert_eq!(content, "4711", "the holder's note is left alone");
}
