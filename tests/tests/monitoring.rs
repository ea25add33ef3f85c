//! The dashboard and the alert rules in `deploy/`, in a real Prometheus that scrapes a real cluster.
//! `tests/monitoring/install` gets it from Debian's packages; `.ci/run monitoring` runs it first.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use tests::{Cluster, Options, closed_port, http, root, wait_until};

/// Returns the folder of the installation; `None` with a message if there is none, which is an error in CI.
fn installed() -> Option<PathBuf> {
    let folder = root().join("target/monitoring");
    if folder.join("installed").exists() {
        return Some(folder);
    }
    let what = "Prometheus is not installed: tests/monitoring/install gets it";
    assert!(std::env::var_os("MONITORING").is_none(), "{what}");
    // Unlike `println!`, not captured by the test harness.
    let _ = writeln!(std::io::stderr(), "LEFT OUT: {what}");
    None
}

/// A running Prometheus.
struct Prometheus {
    child: Child,
    port: u16,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Prometheus {
    /// Starts it on targets at these ports, with the alert rules.
    fn start(installed: &std::path::Path, cluster: &Cluster, ports: &[u16]) -> Self {
        let targets: Vec<String> = ports.iter().map(|port| format!("\"127.0.0.1:{port}\"")).collect();
        let rules = root().join("deploy/alerts.yml");
        let config = format!(
            "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: [\"{}\"]\n\
             scrape_configs:\n  - job_name: cluster\n    static_configs: [{{targets: [{}]}}]\n",
            rules.display(),
            targets.join(", ")
        );
        let file = cluster.folder().join("prometheus.yml");
        std::fs::write(&file, config).unwrap();
        let port = closed_port();
        let child = Command::new(installed.join("usr/bin/prometheus"))
            .arg(format!("--config.file={}", file.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                cluster.folder().join("tsdb").display()
            ))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .arg("--log.level=error")
            .stdin(Stdio::null())
            .spawn();
        Self {
            child: child.expect("Prometheus starts"),
            port,
        }
    }

    fn get(&self, target: &str) -> Result<Value, String> {
        let answer = http::request(self.port, "GET", target, &[], &[]);
        let answer = answer.map_err(|error| error.to_string())?;
        if answer.status == 200 {
            return Ok(answer.json()["data"].clone());
        }
        Err(format!("{target}: {} {}", answer.status, answer.text()))
    }

    /// Evaluates an expression; the result is a list of series.
    fn query(&self, expression: &str) -> Result<Vec<Value>, String> {
        let escaped: String = expression.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let data = self.get(&format!("/api/v1/query?query={escaped}"))?;
        Ok(data["result"].as_array().cloned().unwrap_or_default())
    }
}

/// Expressions that have no series while nothing goes wrong, by a part of them.
const QUIET: [&str; 4] = [
    "requests_refused",
    "ipfs_request_errors",
    "http_refused",
    "ipfs_repo_bytes / ",
];

/// Lists the expressions of the dashboard, with values for Grafana's variables.
fn dashboard() -> Vec<String> {
    let text = std::fs::read_to_string(root().join("deploy/dashboard.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let targets = panels.filter_map(|panel| panel["targets"].as_array()).flatten();
    let expressions = targets.map(|target| target["expr"].as_str().unwrap());
    expressions
        .map(|text| text.replace("$__rate_interval", "30s").replace("$job", ".*"))
        .collect()
}

#[test]
fn dashboard_and_alert_rules_evaluate_on_a_real_cluster() {
    let Some(installed) = installed() else {
        return;
    };
    let mut cluster = Cluster::prepare(&Options::default());
    let ports = [0; 3].map(|_| closed_port());
    for (peer, port) in cluster.peers.iter_mut().zip(ports) {
        peer.edit(|config| {
            config["observations"]["metrics"] = json!({
                "enable_stats": true,
                "prometheus_endpoint": format!("/ip4/127.0.0.1/tcp/{port}"),
                "reporting_interval": "500ms",
            });
        });
        peer.start();
    }
    cluster.wait_ready();
    let prometheus = Prometheus::start(&installed, &cluster, &ports);
    cluster.peers[0]
        .ask("POST", "/pins/bafkqablimvwgy3y?name=hello")
        .unwrap();
    cluster.peers[1]
        .add("replication=2", &[("a.txt", b"some content")])
        .unwrap();
    cluster.peers[0].rest("DELETE", "/pins/bafkqaaa").unwrap();
    for expression in dashboard() {
        wait_until(&format!("{expression} has a series"), || {
            let found = prometheus.query(&expression)?;
            let may_be_empty = QUIET.iter().any(|part| expression.contains(part));
            if found.is_empty() && !may_be_empty {
                Err("it has none".to_owned())
            } else {
                Ok(())
            }
        });
    }
    wait_until("all rules are healthy and none fires", || {
        let data = prometheus.get("/api/v1/rules")?;
        let rules = data["groups"][0]["rules"].as_array().cloned().unwrap_or_default();
        let healthy = rules.iter().filter(|rule| rule["health"] == "ok").count();
        let quiet = rules.iter().filter(|rule| rule["state"] == "inactive").count();
        if rules.len() > 8 && (healthy, quiet) == (rules.len(), rules.len()) {
            return Ok(());
        }
        Err(data.to_string())
    });
    // The alert for a dead peer is raised, and waits for its time.
    cluster.peers[2].kill();
    wait_until("the dead peer's alert is pending", || {
        let found = prometheus.query("ALERTS{alertname=\"ClusterPeerDown\"}")?;
        let names = found.iter().map(|alert| alert["metric"]["peername"] == "peer2");
        if names.eq([true]) {
            Ok(())
        } else {
            Err(format!("{found:?}"))
        }
    });
}
