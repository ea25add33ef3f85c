//! Logs of the daemon, and options of `ipfs-cluster-ctl`.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command};

use serde_json::Value;
use tests::{Cluster, Options, Said, cids, closed_port, program, run, service, wait_until};

/// Prepares a single peer without starting it.
fn alone() -> Cluster {
    Cluster::prepare(&Options {
        peers: 1,
        ..Options::default()
    })
}

/// A running daemon, killed when dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

const READY: &str = "** IPFS Cluster is READY **";

/// The CID of a file without content, which is what `/health` is when added as a URL.
const EMPTY_FILE: &str = "QmbFMke1KXqnYyBBWxB74N4c5SBnJMVAiMNRcGu6x1AwQH";

/// Runs the daemon with these flags until it has responded and its log contains `last`; returns the log.
fn log_of(cluster: &Cluster, flags: &[&str], last: &str) -> String {
    let peer = &cluster.peers[0];
    let path = cluster.folder().join("log");
    let log = File::create(&path).unwrap();
    let child = service(&peer.folder)
        .args(flags)
        .arg("daemon")
        .stderr(log)
        .spawn();
    let _running = Running(child.unwrap());
    wait_until("it is ready", || {
        let output = std::fs::read_to_string(&path).unwrap();
        peer.ask("GET", "/pins?consistent=true")
            .map_err(|error| format!("{error}\n{output}"))
    });
    peer.ask("GET", "/version").unwrap();
    wait_until(&format!("the log has {last:?}"), || {
        let output = std::fs::read_to_string(&path).unwrap();
        // Complete lines only.
        match output.rsplit_once('\n') {
            Some((lines, _)) if lines.contains(last) => Ok(lines.to_owned()),
            _ => Err(output),
        }
    })
}

#[test]
fn log_lines_have_time_severity_facility_place_and_message() {
    let text = log_of(&alone(), &["--logformat", "nocolor"], READY);
    assert!(!text.is_empty());
    for line in text.lines() {
        let fields: Vec<&str> = line.split('\t').collect();
        let [time, level, facility, place, message] = fields[..] else {
            panic!("not five fields: {line:?}");
        };
        assert!(
            time.ends_with('Z') && time.len() == "2026-05-11T10:00:00.000Z".len(),
            "{line}"
        );
        assert!(["INFO", "WARN", "ERROR"].contains(&level), "{line}");
        assert!(!facility.contains("::"), "{line}");
        let (file, number) = place.split_once(':').unwrap();
        assert!(file.ends_with(".rs") && number.parse::<u32>().is_ok(), "{line}");
        assert!(!message.is_empty(), "{line}");
    }
    assert!(text.contains("\tcluster\t"), "{text}");
}

#[test]
fn log_levels_are_set_for_all_or_for_the_go_peers_facilities() {
    let cluster = alone();
    let text = log_of(
        &cluster,
        &["--loglevel", "error,restapilog:debug", "--logformat", "nocolor"],
        "\"GET /version HTTP/1.1\" 200",
    );
    assert!(!text.contains("\tINFO\t"), "{text}");
    assert!(text.contains("\tDEBUG\trestapilog\t"), "{text}");
    let text = log_of(&cluster, &["--debug", "--logformat", "nocolor"], "\tDEBUG\t");
    assert!(!text.contains(&"5e".repeat(32)), "the secret is in the log");
    for (levels, reason) in [
        ("loud", "\"loud\" is no log level"),
        ("info,nonsense:debug", "\"nonsense\" is no part of the program"),
    ] {
        let said = run(service(&cluster.peers[0].folder).args(["--loglevel", levels, "daemon"]));
        assert!(said.code == 1 && said.err.contains(reason), "{said:?}");
    }
}

#[test]
fn logs_are_json_on_request() {
    let text = log_of(&alone(), &["--logformat", "json"], READY);
    let mut ready = false;
    for line in text.lines() {
        let value: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        for key in ["level", "ts", "logger", "caller", "msg"] {
            assert!(value[key].is_string(), "{key}: {line}");
        }
        ready |= value["msg"] == READY && value["logger"] == "cluster";
    }
    assert!(ready, "{text}");
}

/// Runs ctl without the options that the other tests give.
fn ctl(arguments: &[&str], variables: &[(&str, &str)]) -> Said {
    let mut command = Command::new(program("ipfs-cluster-ctl"));
    run(command
        .env_clear()
        .envs(variables.iter().copied())
        .args(arguments))
}

#[test]
fn ctl_debug_shows_each_request_with_its_status() {
    let mut cluster = alone();
    let peer = &mut cluster.peers[0];
    peer.start();
    wait_until("it is ready", || peer.ask("GET", "/pins?consistent=true"));
    let said = peer.ctl(&["--debug", "id"]);
    let expected = format!("GET http://127.0.0.1:{}/id: 200 OK\n", peer.rest_port);
    assert_eq!((said.code, said.err.as_str()), (0, expected.as_str()));
    let missing = cids::identity("missing");
    let said = peer.ctl(&["--debug", "pin", "ls", &missing]);
    let path = format!("/allocations/{missing}: 404 Not Found\n");
    assert!(said.code == 2 && said.err.ends_with(&path), "{said:?}");
    // The response as received, indented.
    let raw = peer.rest("GET", "/id").unwrap().json();
    assert_eq!(peer.ctl_json(&["id"]), [raw]);
}

#[test]
fn hosts_have_several_forms_and_the_first_that_responds_is_used() {
    let mut cluster = alone();
    let peer = &mut cluster.peers[0];
    peer.start_and_wait();
    let (port, dead) = (peer.rest_port, closed_port());
    for host in [
        format!("/ip4/127.0.0.1/tcp/{port}"),
        format!("/dns4/localhost/tcp/{port}"),
        format!("127.0.0.1:{port}"),
        format!("http://127.0.0.1:{port}"),
        format!("/ip4/127.0.0.1/tcp/{dead},/ip4/127.0.0.1/tcp/{port}"),
    ] {
        let said = ctl(&["--host", &host, "version"], &[]);
        assert_eq!(said.code, 0, "{host}: {said:?}");
    }
    let dead = format!("/ip4/127.0.0.1/tcp/{dead}");
    let said = ctl(&["--host", &dead, "version"], &[]);
    let advice = "Is ipfs-cluster-service running there?";
    assert!(said.code == 1 && said.out.contains(advice), "{said:?}");
    let said = ctl(&["--host", "/ip4/nonsense", "version"], &[]);
    assert!(
        said.code == 1 && said.err.starts_with("error parsing host multiaddress: "),
        "{said:?}"
    );
}

#[test]
fn rest_api_is_served_on_a_unix_socket_also_after_a_kill() {
    let mut cluster = alone();
    let folder = cluster.folder().join("run");
    std::fs::create_dir(&folder).unwrap();
    let (rest, ipfs) = (folder.join("rest.sock"), folder.join("ipfs.sock"));
    let peer = &mut cluster.peers[0];
    let tcp = |port| format!("/ip4/127.0.0.1/tcp/{port}");
    let unix = |path: &Path| format!("/unix{}", path.display());
    let (rest_port, ipfs_port) = (peer.rest_port, peer.ipfs_port);
    peer.edit(|config| {
        let rest_listen = serde_json::json!([tcp(rest_port), unix(&rest)]);
        config["api"]["restapi"]["http_listen_multiaddress"] = rest_listen;
        let ipfs_listen = serde_json::json!([tcp(ipfs_port), unix(&ipfs)]);
        config["ipfs_connector"]["embedded"]["api_listen_multiaddress"] = ipfs_listen;
    });
    for starts in 1..=2 {
        peer.start();
        peer.wait_ready(starts);
        let said = ctl(&["--host", &unix(&rest), "--enc=json", "id"], &[]).values();
        assert_eq!(said[0]["id"], peer.id.as_str());
        assert!(ipfs.exists());
        // The socket files stay behind.
        peer.kill();
        assert!(rest.exists());
    }
}

#[test]
fn completion_scripts_exist_for_both_programs() {
    for name in ["ipfs-cluster-ctl", "ipfs-cluster-service"] {
        for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
            let said = run(Command::new(program(name))
                .env_clear()
                .args(["completions", shell]));
            assert!(
                said.code == 0 && said.out.contains(name),
                "{name} {shell}: {}",
                said.err
            );
        }
    }
}

/// Writes a self-signed certificate like that of `openssl req -x509`, which is also marked as an authority.
fn certificate(folder: &Path) {
    let names = ["127.0.0.1".to_owned(), "localhost".to_owned()];
    let mut wanted = rcgen::CertificateParams::new(names).unwrap();
    wanted.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let key = rcgen::KeyPair::generate().unwrap();
    let made = wanted.self_signed(&key).unwrap();
    std::fs::write(folder.join("cert.pem"), made.pem()).unwrap();
    std::fs::write(folder.join("key.pem"), key.serialize_pem()).unwrap();
}

#[test]
fn ctl_works_over_tls_with_a_password() {
    let mut cluster = alone();
    let peer = &mut cluster.peers[0];
    certificate(&peer.folder);
    peer.edit(|config| {
        let rest = &mut config["api"]["restapi"];
        rest["ssl_cert_file"] = "cert.pem".into();
        rest["ssl_key_file"] = "key.pem".into();
        rest["http_log_file"] = "access.log".into();
        rest["basic_auth_credentials"] = serde_json::json!({"ann": "s3cret"});
    });
    peer.start();
    let host = format!("/ip4/127.0.0.1/tcp/{}", peer.rest_port);
    let trusting = ["--host", &host, "--no-check-certificate"];
    wait_until("it answers", || {
        let said = ctl(
            &[&trusting[..], &["--basic-auth", "ann:s3cret", "id"]].concat(),
            &[],
        );
        match said.code {
            0 => Ok(()),
            _ => Err(format!("{said:?}")),
        }
    });
    // Credentials imply HTTPS, and may come from the environment.
    let own = peer.folder.join("cert.pem");
    let environment = [
        ("CLUSTER_CREDENTIALS", "ann:s3cret"),
        ("SSL_CERT_FILE", own.to_str().unwrap()),
    ];
    let added = ctl(
        &["--host", &host, "add", "-Q", own.to_str().unwrap()],
        &environment,
    );
    assert_eq!(added.code, 0, "{added:?}");
    let cid = added.out.trim();
    let listed = ctl(&["--host", &host, "pin", "ls"], &environment);
    assert!(listed.out.starts_with(cid), "{listed:?}");
    // A URL's certificate is verified as the API's.
    let url = format!("https://localhost:{}/health", peer.rest_port);
    let fetched = ctl(&["--host", &host, "add", "-Q", &url], &environment);
    assert_eq!((fetched.code, fetched.out.trim()), (0, EMPTY_FILE), "{fetched:?}");
    let untrusted = ctl(&["--host", &host, "add", "-Q", &url], &environment[..1]);
    assert_ne!(untrusted.code, 0, "{untrusted:?}");
    assert_wrong_options_are_refused(&host, &environment);
    let noted = std::fs::read_to_string(peer.folder.join("access.log")).unwrap();
    assert!(
        noted.contains("127.0.0.1 - ann [") && noted.contains("\"GET /id HTTP/1.1\" 200 "),
        "{noted}"
    );
    assert!(
        noted.contains("127.0.0.1 - - [") && noted.contains("\" 401 "),
        "{noted}"
    );
    assert!(!noted.contains("s3cret") && !peer.log().contains("s3cret"));
    assert!(peer.log().contains("REST API (HTTPS): "), "{}", peer.log());
}

/// Asserts that ctl explains refused combinations of TLS and credentials. The first variable of `environment`
/// has the credentials.
fn assert_wrong_options_are_refused(host: &str, environment: &[(&str, &str)]) {
    for (arguments, variables, code, reason) in [
        (vec!["--https", "id"], &[][..], 1, "certificate"),
        (
            vec!["id"],
            &[],
            2,
            "Client sent an HTTP request to an HTTPS server.",
        ),
        (
            vec!["--https", "--no-check-certificate", "id"],
            &[],
            2,
            "unauthorized: no auth provided",
        ),
        (
            vec!["--basic-auth", "ann:wrong", "--no-check-certificate", "id"],
            &[],
            2,
            "unauthorized: access denied",
        ),
        (
            vec!["--force-http", "id"],
            &environment[..1],
            2,
            "HTTP request to an HTTPS server.",
        ),
    ] {
        let said = ctl(&[&["--host", host], &arguments[..]].concat(), variables);
        let all = format!("{}{}", said.out, said.err);
        assert!(
            said.code == code && all.contains(reason),
            "{arguments:?}: {said:?}"
        );
    }
}
