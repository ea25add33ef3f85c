//! Every value that the command line accepts can be simulated.

use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use sim::{Class, Options, run};

#[test]
fn seeds_draw_options_within_their_range() {
    for seed in 0..2000 {
        for options in [Options::draw(seed), Options::quiet(seed)] {
            for (name, value) in options.list() {
                let range = Options::range(&name).unwrap_or_else(|| panic!("{name} has none"));
                assert!(
                    range.contains(&value),
                    "seed {seed}: {name}={value}, not in {range:?}"
                );
            }
        }
    }
}

#[test]
fn values_out_of_range_are_refused_with_option_and_range() {
    let mut options = Options::quiet(1);
    let before = options.clone();
    for (name, _) in before.list() {
        let range = Options::range(&name).expect("every option has one");
        let (first, last) = range.clone().into_inner();
        let below = first.checked_sub(1);
        let above = last.checked_add(1).into_iter().chain(Some(u64::MAX));
        for value in below
            .into_iter()
            .chain(above)
            .filter(|value| !range.contains(value))
        {
            let why = options
                .set(&format!("{name}={value}"))
                .expect_err("it is out of range");
            for part in [&name, &value.to_string(), &first.to_string(), &last.to_string()] {
                assert!(why.contains(part), "{name}={value}: {why}");
            }
        }
    }
    assert_eq!(options, before, "what is refused changes nothing");
}

/// Runs `name` at the ends of its range. At `quiet`, every other run has it.
fn run_at_the_ends(name: &str, quiet: u64) {
    let (first, last) = Options::range(name).expect("every option has one").into_inner();
    for value in [first, first + 1, last]
        .into_iter()
        .filter(|value| *value != quiet)
    {
        let mut options = Options::quiet(1);
        options.set("seconds=1").expect("it is in range");
        options.set_number(name, value).expect("it is in range");
        let report = run(&options, false);
        assert_ne!(report.class(), Some(Class::Crash), "{report}");
    }
}

#[test]
fn options_at_either_end_of_their_range_do_not_panic() {
    let options = Options::quiet(1).list();
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some((name, quiet)) = options.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if name != "planted" {
                        run_at_the_ends(name, *quiet);
                    }
                }
            });
        }
    });
}

#[test]
fn seed_range_beyond_the_last_number_is_refused() {
    let last = u64::MAX.to_string();
    for arguments in [
        ["soak", "2", "--first", &last],
        ["mutants", "2", "--first", &last],
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_sim"))
            .args(arguments)
            .output()
            .expect("the simulator starts");
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert!(error.contains(&last), "{error}");
    }
}
