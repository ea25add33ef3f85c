//! Messages to the service manager, as `sd_notify(3)` sends them: state of the peer and signs of life.
//!
//! Without `NOTIFY_SOCKET` nothing is sent. A failure to send is logged once at most, and has no effect.

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::metrics::Observer;

/// Interval of status messages if the service manager expects no signs of life.
const STATUS_INTERVAL: Duration = Duration::from_secs(10);

/// Shortest interval of signs of life.
const INTERVAL_MIN: Duration = Duration::from_millis(100);

static FAILED: AtomicBool = AtomicBool::new(false);

/// Reports that the peer has started.
pub(super) fn notify_ready() {
    notify("READY=1\nSTATUS=ready");
}

/// Reports that the peer is shutting down.
pub(super) fn notify_stopping() {
    notify("STOPPING=1\nSTATUS=shutting down");
}

fn notify(message: &str) {
    let Some(socket) = std::env::var_os("NOTIFY_SOCKET") else {
        return;
    };
    let sent = send(Path::new(&socket), message);
    if let Err(error) = sent
        && !FAILED.swap(true, Ordering::Relaxed)
    {
        tracing::warn!(
            "the service manager cannot be notified at {}: {error}",
            socket.display()
        );
    }
}

/// Sends a message to a socket: a path, or `@` and a name in Linux' abstract namespace.
fn send(socket: &Path, message: &str) -> std::io::Result<()> {
    let sender = UnixDatagram::unbound()?;
    // A service manager that does not read must not block this peer.
    sender.set_nonblocking(true)?;
    #[cfg(target_os = "linux")]
    {
        use std::os::linux::net::SocketAddrExt;
        use std::os::unix::ffi::OsStrExt;
        use std::os::unix::net::SocketAddr;
        if let Some(name) = socket.as_os_str().as_bytes().strip_prefix(b"@") {
            let address = SocketAddr::from_abstract_name(name)?;
            return sender.send_to_addr(message.as_bytes(), &address).map(drop);
        }
    }
    sender.send_to(message.as_bytes(), socket).map(drop)
}

/// Returns the interval of signs of life: half the time after which the service manager would restart the
/// peer, if it watches this process.
fn watchdog_interval(usec: Option<&str>, pid: Option<&str>) -> Option<Duration> {
    let mine = pid.is_none_or(|pid| pid.parse() == Ok(std::process::id()));
    let limit = Duration::from_micros(usec?.parse().ok()?);
    (mine && !limit.is_zero()).then(|| (limit / 2).max(INTERVAL_MIN))
}

/// Sends the status, and a sign of life whenever the loop of the peer turns.
pub(super) async fn watch(observer: Observer) {
    if std::env::var_os("NOTIFY_SOCKET").is_none() {
        return;
    }
    let variable = |name| std::env::var(name).ok();
    let (usec, pid) = (variable("WATCHDOG_USEC"), variable("WATCHDOG_PID"));
    let watchdog = watchdog_interval(usec.as_deref(), pid.as_deref());
    let mut last = String::new();
    let mut since_status = STATUS_INTERVAL;
    loop {
        if watchdog.is_some() && observer.core_turns().await {
            notify("WATCHDOG=1");
        }
        let pause = watchdog.unwrap_or(STATUS_INTERVAL);
        since_status += pause;
        if since_status >= STATUS_INTERVAL {
            since_status = Duration::ZERO;
            let readiness = observer.readiness().await;
            let status = match readiness.reasons.first() {
                None => format!("ready, leader {}", readiness.leader),
                Some(_) => readiness.reasons.join("; "),
            };
            if status != last {
                notify(&format!("STATUS={}", status.replace('\n', " ")));
                last = status;
            }
        }
        tokio::time::sleep(pause).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_reach_a_socket_by_path_and_by_abstract_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        send(&path, "READY=1").unwrap();
        let mut read = [0; 64];
        let length = manager.recv(&mut read).unwrap();
        assert_eq!(&read[..length], b"READY=1");
        assert!(send(&folder.path().join("nothing"), "READY=1").is_err());
        #[cfg(target_os = "linux")]
        {
            use std::os::linux::net::SocketAddrExt;
            use std::os::unix::net::SocketAddr;
            let name = format!("notify-test-{}", std::process::id());
            let manager = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
            send(Path::new(&format!("@{name}")), "STOPPING=1").unwrap();
            let length = manager.recv(&mut read).unwrap();
            assert_eq!(&read[..length], b"STOPPING=1");
        }
    }

    #[test]
    fn signs_of_life_come_twice_in_the_limit() {
        let own = std::process::id().to_string();
        let second = Duration::from_secs(1);
        assert_eq!(watchdog_interval(Some("2000000"), None), Some(second));
        assert_eq!(watchdog_interval(Some("2000000"), Some(&own)), Some(second));
        assert_eq!(watchdog_interval(Some("2000000"), Some("1")), None);
        assert_eq!(watchdog_interval(Some("1"), None), Some(INTERVAL_MIN));
        assert_eq!(watchdog_interval(None, None), None);
        assert_eq!(watchdog_interval(Some("0"), None), None);
    }
}
