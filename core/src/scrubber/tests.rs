use super::*;
use crate::Instant;
use proptest::prelude::*;

const DAY: Duration = Duration::from_secs(86_400);
const START: u64 = 1_770_000_000_000_000_000;

fn at(seconds: f64) -> Now {
    let since = Duration::from_secs_f64(seconds);
    Now {
        mono: Instant(7_000_000_000) + since,
        wall: Timestamp(START) + since,
    }
}

fn config() -> ScrubConfig {
    ScrubConfig {
        interval: 30 * DAY,
        share: 100,
    }
}

fn started() -> Scrubber {
    let mut scrubber = Scrubber::new(config(), ScrubRecord::default(), 1);
    scrubber.change(at(0.0), ScrubChange::Start);
    scrubber
}

fn found(blocks: u64) -> ScrubCounts {
    ScrubCounts {
        blocks,
        bytes: blocks * 1000,
        ..ScrubCounts::default()
    }
}

fn check(position: &str) -> ScrubStep {
    ScrubStep::Check(position.to_owned())
}

fn wait(seconds: u64) -> ScrubStep {
    ScrubStep::Wait(Some(Duration::from_secs(seconds)))
}

#[test]
fn rests_keep_the_share_of_the_time_and_a_new_share_counts_at_once() {
    let mut scrubber = started();
    assert_eq!(scrubber.next(at(0.0)), check(""));
    scrubber.checked(at(1.0), Duration::from_secs(1), found(2), Some("a".to_owned()));
    assert_eq!(scrubber.next(at(1.0)), wait(9));
    assert_eq!(scrubber.next(at(10.0)), check("a"));
    scrubber.checked(at(11.0), Duration::from_secs(1), found(2), Some("b".to_owned()));
    scrubber.change(at(12.0), ScrubChange::Share(Some(500)));
    assert_eq!((scrubber.next(at(12.0)), scrubber.share()), (check("b"), 500));
    scrubber.checked(at(13.0), Duration::from_secs(1), found(2), Some("c".to_owned()));
    assert_eq!(scrubber.next(at(13.0)), wait(1));
    scrubber.change(at(13.0), ScrubChange::Share(Some(SCRUB_SHARE_MAX)));
    scrubber.checked(at(14.0), Duration::from_secs(1), found(2), Some("d".to_owned()));
    assert_eq!(scrubber.next(at(14.0)), check("d"), "no rest at all");
    scrubber.change(at(14.0), ScrubChange::Share(None));
    assert_eq!(scrubber.share(), 100);
    let cycle = scrubber.record().cycle.clone().unwrap();
    assert_eq!((cycle.found, cycle.position), (found(8), "d".to_owned()));
}

#[test]
fn pause_keeps_the_position_until_the_scrub_is_resumed() {
    let mut scrubber = started();
    scrubber.next(at(0.0));
    scrubber.change(at(0.5), ScrubChange::Pause);
    // The piece in flight still counts.
    scrubber.checked(at(1.0), Duration::ZERO, found(1), Some("a".to_owned()));
    assert_eq!(scrubber.next(at(9e9)), ScrubStep::Wait(None));
    let mut again = Scrubber::new(config(), scrubber.record().clone(), 2);
    assert_eq!(
        again.next(at(9e9)),
        ScrubStep::Wait(None),
        "restarts keep the pause"
    );
    again.change(at(9e9), ScrubChange::Resume);
    assert_eq!(again.next(at(9e9)), check("a"));
    again.change(at(9e9), ScrubChange::Pause);
    again.change(at(9e9), ScrubChange::Start);
    assert_eq!(
        again.next(at(9e9)),
        check("a"),
        "a start ends a pause, and continues the cycle"
    );
}

#[test]
fn cycle_ends_with_its_counts_and_the_next_begins_an_interval_later() {
    let mut scrubber = started();
    scrubber.next(at(0.0));
    scrubber.checked(at(1.0), Duration::ZERO, found(1), Some("a".to_owned()));
    let bad = ScrubCounts {
        damaged: 2,
        incomplete: 1,
        ..found(1)
    };
    scrubber.checked(at(2.0), Duration::ZERO, bad, None);
    let record = scrubber.record().clone();
    let last = record.last.unwrap();
    assert_eq!((last.since, last.ended), (at(0.0).wall, at(2.0).wall));
    assert_eq!(
        (last.found.blocks, last.found.damaged, last.found.incomplete),
        (2, 2, 1)
    );
    assert!(record.cycle.is_none() && scrubber.is_unsaved(at(2.0)));
    let next = record.next.unwrap();
    let (early, late) = (Timestamp(START) + 27 * DAY, Timestamp(START) + 33 * DAY);
    assert!((early..=late).contains(&next), "{next:?}");
    assert_eq!(
        scrubber.next(at(3.0)),
        wait(600),
        "it looks at the clock from time to time"
    );
    let due = Now {
        wall: next,
        ..at(4.0)
    };
    assert_eq!(scrubber.next(due), check(""));
    assert_eq!(scrubber.record().cycle.clone().unwrap().since, next);
}

#[test]
fn cycle_that_is_overdue_begins_after_the_rest() {
    let mut scrubber = started();
    scrubber.next(at(0.0));
    let late = 40.0 * 86_400.0;
    scrubber.checked(at(late), Duration::from_secs(1), found(1), None);
    assert_eq!(scrubber.next(at(late)), wait(9));
    assert_eq!(scrubber.next(at(late + 9.0)), check(""));
}

#[test]
fn first_cycles_of_peers_are_spread_over_the_interval() {
    let first = |seed| {
        let mut scrubber = Scrubber::new(config(), ScrubRecord::default(), seed);
        scrubber.next(at(0.0));
        scrubber.record().next.unwrap().0 - START
    };
    let days: std::collections::BTreeSet<u64> = (0..40)
        .map(|seed| first(seed) / u64::try_from(DAY.as_nanos()).unwrap())
        .collect();
    assert!(days.len() > 15 && days.last() <= Some(&30), "{days:?}");
}

#[test]
fn clock_that_is_set_back_delays_a_cycle_by_one_interval_at_most() {
    let record = ScrubRecord {
        next: Some(Timestamp(START) + 400 * DAY),
        ..ScrubRecord::default()
    };
    let mut scrubber = Scrubber::new(config(), record, 3);
    scrubber.next(at(0.0));
    assert!(scrubber.record().next.unwrap() <= Timestamp(START) + 30 * DAY);
}

#[test]
fn interval_of_zero_leaves_cycles_to_requests() {
    let config = ScrubConfig {
        interval: Duration::ZERO,
        ..config()
    };
    let mut scrubber = Scrubber::new(config, ScrubRecord::default(), 1);
    assert_eq!(scrubber.next(at(9e9)), ScrubStep::Wait(None));
    scrubber.change(at(9e9), ScrubChange::Start);
    assert_eq!(scrubber.next(at(9e9)), check(""));
    scrubber.checked(at(9e9), Duration::ZERO, found(1), None);
    assert_eq!(scrubber.next(at(9.1e9)), ScrubStep::Wait(None));
}

#[test]
fn failures_are_retried_at_the_same_position_with_growing_pauses() {
    let mut scrubber = started();
    scrubber.checked(at(0.0), Duration::ZERO, found(1), Some("a".to_owned()));
    for pause in [10, 20, 40] {
        scrubber.failed(at(0.0));
        assert_eq!(scrubber.next(at(0.0)), wait(pause));
    }
    (0..50).for_each(|_| scrubber.failed(at(0.0)));
    assert_eq!(scrubber.next(at(0.0)), wait(3600));
    assert_eq!(scrubber.next(at(3600.0)), check("a"));
    scrubber.checked(at(3600.0), Duration::ZERO, found(1), Some("b".to_owned()));
    scrubber.failed(at(3600.0));
    assert_eq!(scrubber.next(at(3600.0)), wait(10), "a success resets the pause");
}

#[test]
fn position_is_saved_every_minute_and_changes_at_once() {
    let mut scrubber = started();
    assert!(scrubber.is_unsaved(at(0.0)));
    scrubber.saved(at(0.0));
    scrubber.checked(at(1.0), Duration::ZERO, found(1), Some("a".to_owned()));
    assert!(!scrubber.is_unsaved(at(59.0)) && scrubber.is_unsaved(at(60.0)));
    scrubber.saved(at(60.0));
    assert!(!scrubber.is_unsaved(at(200.0)), "nothing has changed");
    scrubber.change(at(200.0), ScrubChange::Pause);
    assert!(scrubber.is_unsaved(at(200.0)));
}

/// One input of a random run.
#[derive(Debug, Clone)]
enum Input {
    Time(u64),
    Piece(u64),
    Fail,
    Change(ScrubChange),
    Restart,
}

fn inputs() -> impl Strategy<Value = Vec<Input>> {
    let change = prop_oneof![
        Just(ScrubChange::Start),
        Just(ScrubChange::Pause),
        Just(ScrubChange::Resume),
        proptest::option::of(0_u16..2000).prop_map(ScrubChange::Share),
    ];
    let input = prop_oneof![
        1 => (0_u64..100_000).prop_map(Input::Time),
        4 => (0_u64..5_000).prop_map(Input::Piece),
        1 => Just(Input::Fail),
        1 => change.prop_map(Input::Change),
        1 => Just(Input::Restart),
    ];
    proptest::collection::vec(input, 0..80)
}

proptest! {
    /// Whatever happens: pieces follow each other without a gap, none is checked during a pause or a rest,
    /// and the time of the pieces is the share of the whole, once a cycle has begun.
    #[test]
    fn pieces_follow_each_other_within_their_share(inputs in inputs(), seed: u64) {
        const PIECES: u64 = 5;
        let mut scrubber = Scrubber::new(config(), ScrubRecord::default(), seed);
        let (mut now, mut done, mut rest_until) = (0.0, 0, 0.0);
        for input in inputs {
            match input {
                Input::Time(millis) => now += millis as f64 / 1e3,
                Input::Fail => {}
                Input::Change(change) => {
                    if change == ScrubChange::Start && scrubber.record().cycle.is_none() {
                        done = 0;
                    }
                    scrubber.change(at(now), change);
                    rest_until = now;
                }
                // Every piece is saved here, so a restart loses none.
                Input::Restart => {
                    scrubber = Scrubber::new(config(), scrubber.record().clone(), seed);
                    rest_until = now;
                }
                Input::Piece(_) => {}
            }
            let step = scrubber.next(at(now));
            prop_assert!(scrubber.record().next.is_none_or(|next| next <= at(now).wall + 33 * DAY));
            let ScrubStep::Check(position) = step else {
                continue;
            };
            prop_assert!(!scrubber.record().paused);
            prop_assert!(now + 1e-6 >= rest_until, "checks at {now}, rests until {rest_until}");
            let expected = if done == 0 { String::new() } else { done.to_string() };
            prop_assert_eq!(position, expected);
            let Input::Piece(millis) = input else {
                if matches!(input, Input::Fail) {
                    scrubber.failed(at(now));
                    rest_until = now + 10.0;
                }
                continue;
            };
            now += millis as f64 / 1e3;
            let last = done + 1 == PIECES;
            let position = (!last).then(|| (done + 1).to_string());
            scrubber.checked(at(now), Duration::from_millis(millis), found(1), position);
            done = if last { 0 } else { done + 1 };
            let share = f64::from(scrubber.share()) / 1e3;
            let rest = (millis as f64 / 1e3 * (1.0 - share) / share).min(3600.0);
            rest_until = now + rest;
            if last {
                let ended = scrubber.record().last.clone().unwrap();
                prop_assert_eq!(ended.found.blocks, PIECES);
            }
        }
    }
}
