//! The web page in a headless Chromium, against a real cluster. `tests/page/install` installs the browser;
//! `.ci/run page` runs it first. Pictures of all views are left in `target/page/pictures`.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use serde_json::json;
use tests::{Cluster, Options, root};

#[test]
fn page_shows_and_changes_a_cluster() {
    let folder = root().join("target/page");
    if !folder.join("installed").exists() {
        let what = "a Chromium is not installed: tests/page/install gets it";
        assert!(std::env::var_os("PAGE").is_none(), "{what}");
        // Unlike `println!`, not captured by the test harness.
        let _ = writeln!(std::io::stderr(), "LEFT OUT: {what}");
        return;
    }
    let pictures = folder.join("pictures");
    std::fs::create_dir_all(&pictures).unwrap();
    let mut cluster = Cluster::start_with(&Options {
        edit: |config| config["observations"]["metrics"]["reporting_interval"] = json!("1s"),
        ..Options::default()
    });
    let mut secured = Cluster::prepare(&Options {
        peers: 1,
        ..Options::default()
    });
    secured.peers[0].edit(|config| {
        config["api"]["restapi"]["basic_auth_credentials"] = json!({"ann": "secret"});
    });
    secured.peers[0].start();
    secured.peers[0].wait_ready(1);
    let mut browser = Command::new("node")
        .arg(folder.join("page.mjs"))
        .args([&cluster.peers[0], &secured.peers[0]].map(|peer| peer.rest_port.to_string()))
        .arg(&pictures)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("node is installed");
    let mut orders = browser.stdin.take().unwrap();
    let lines = BufReader::new(browser.stdout.take().unwrap()).lines();
    let mut passed = false;
    for line in lines {
        match line.unwrap().as_str() {
            "kill" => {
                cluster.peers[2].kill();
                writeln!(orders, "killed").unwrap();
            }
            "passed" => passed = true,
            _ => {}
        }
    }
    assert!(browser.wait().unwrap().success() && passed, "see above");
}
