use super::*;
use crate::testing::{metrics, peer};

const TTL: Duration = Duration::from_secs(30);
const INTERVAL: Duration = Duration::from_secs(15);

fn at(seconds: u64) -> Now {
    let time = Duration::from_secs(seconds);
    Now {
        mono: Instant(0) + time,
        wall: Timestamp(0) + time,
    }
}

fn monitor() -> Monitor {
    Monitor::new(peer(1), &MonitorConfig { interval: INTERVAL }, at(0))
}

fn candidates(monitor: &Monitor, now: Now) -> Vec<PeerId> {
    let names = ["tag:group".to_owned(), "freespace".to_owned()];
    monitor.candidates(now.mono, &names).into_keys().collect()
}

#[test]
fn candidates_have_valid_unexpired_metrics() {
    let mut monitor = monitor();
    monitor.received(at(0), peer(2), metrics(9));
    monitor.received(at(10), peer(3), metrics(9));
    let mut invalid = metrics(9);
    invalid[1].valid = false;
    monitor.received(at(10), peer(4), invalid);
    monitor.received(at(10), peer(5), metrics(9)[..1].to_vec());
    assert_eq!(candidates(&monitor, at(29)), [peer(2), peer(3)]);
    assert_eq!(candidates(&monitor, at(30)), [peer(3)]);
    assert!(candidates(&monitor, at(40)).is_empty());
}

#[test]
fn metrics_of_removed_members_are_forgotten() {
    let mut monitor = monitor();
    monitor.received(at(0), peer(2), metrics(9));
    monitor.received(at(0), peer(3), metrics(9));
    monitor.members_changed(&[peer(1), peer(3)].into());
    let known: Vec<&PeerId> = monitor.latest(at(1).mono, PING).map(|(peer, _)| peer).collect();
    assert_eq!(known, [&peer(3)]);
}

#[test]
fn silence_counts_from_the_expiry_and_the_start_of_the_term() {
    let mut monitor = monitor();
    monitor.received(at(0), peer(2), metrics(9));
    let silence = |now, since: u64| monitor.silence(at(now), &peer(2), at(since).mono).as_secs();
    assert_eq!(silence(20, 0), 0, "the ping counts");
    assert_eq!(silence(35, 0), TTL.as_secs() / 6, "it expired five seconds ago");
    let grace = (2 * INTERVAL).as_secs();
    assert_eq!(silence(100, 90), 0, "a new leader waits for two intervals");
    assert_eq!(silence(90 + grace + 3, 90), 3);
    let never = monitor.silence(at(95 + grace), &peer(3), at(90).mono);
    assert_eq!(never.as_secs(), 5, "a peer without a ping counts from there");
}

#[test]
fn expired_metric_raises_one_alert() {
    let mut monitor = monitor();
    monitor.received(at(0), peer(2), metrics(9)[..1].to_vec());
    for second in 1..60 {
        monitor.handle_timeout(at(second), &mut Vec::new());
        let expected = usize::from(second >= TTL.as_secs());
        assert_eq!(monitor.alerts().count(), expected, "after {second} s");
    }
    monitor.received(at(60), peer(2), metrics(9)[..1].to_vec());
    for second in 61..100 {
        monitor.handle_timeout(at(second), &mut Vec::new());
    }
    assert_eq!(monitor.alerts().count(), 2, "it was renewed, and expired again");
}
