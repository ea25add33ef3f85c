//! Execution of a run, on a thread and a runtime of its own. Panics of the core are caught where it is
//! called; any other is a bug of the simulator, and becomes a violation in the report too, so that it does
//! not end a search of many seeds.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, OnceLock};

use madsim::runtime::Runtime;

use crate::checks::Violation;
use crate::coverage::Counts;
use crate::options::Options;
use crate::report::{Class, Report, Stats};
use crate::world::{Shared, World, lock};
use crate::{panics, planting, run};

/// Runs `what` in a world that `options` describe. Equal options give equal reports, whatever else the
/// process does.
pub(crate) fn execute<F>(
    options: &Options,
    keep_trace: bool,
    what: impl FnOnce(Shared) -> F + Send + 'static,
) -> Report
where
    F: Future<Output = Report>,
{
    let given = options.clone();
    // A thread of its own: the standard library's hash maps are seeded once for each.
    let thread = std::thread::Builder::new().name(format!("seed {}", options.seed));
    let running = thread.spawn(move || {
        panics::listen();
        planting::plant(given.planted);
        execute_here(given, keep_trace, what)
    });
    let ended = running.expect("a thread can be started").join();
    ended.unwrap_or_else(|_| {
        let text = "the simulator panicked while it ended a run that had panicked".to_owned();
        without_a_world(options.clone(), text)
    })
}

fn execute_here<F>(options: Options, keep_trace: bool, what: impl FnOnce(Shared) -> F) -> Report
where
    F: Future<Output = Report>,
{
    let runtime = Runtime::with_seed_and_config(options.seed, madsim::Config::default());
    // Kept outside of the run, so that a report can be made after a panic.
    let founded: Arc<OnceLock<Shared>> = Arc::default();
    let (given, world) = (options.clone(), Arc::clone(&founded));
    let execution = async move {
        let world = world.get_or_init(|| Arc::new(Mutex::new(World::new(given, keep_trace))));
        what(Shared::clone(world)).await
    };
    let outcome = panics::catch(AssertUnwindSafe(|| runtime.block_on(execution)));
    outcome.unwrap_or_else(|text| match founded.get() {
        Some(world) => with_what_is_known(&mut lock(world), text),
        None => without_a_world(options, text),
    })
}

/// Builds the violation for a bug of the simulator itself.
fn violation(at: u64, text: String) -> Violation {
    Violation {
        class: Class::Crash,
        check: "harness",
        at,
        peer: None,
        text,
    }
}

fn with_what_is_known(world: &mut World, text: String) -> Report {
    let at = world.trace.latest();
    world.record(violation(at, text));
    world.forget();
    run::report(world, at)
}

fn without_a_world(options: Options, text: String) -> Report {
    Report {
        options,
        scenario: None,
        violations: vec![violation(0, text)],
        stats: Stats::default(),
        coverage: Counts::default(),
        hash: 0,
        lines: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use madsim::time::sleep;

    use super::*;

    fn options() -> Options {
        let mut options = Options::draw(7);
        options.set("loss=3").expect("there is one");
        options
    }

    /// Peers run for a while, until something in the simulator panics.
    async fn panic_in_a_task(world: Shared) -> Report {
        let helpers = run::start_nodes(&world);
        sleep(Duration::from_secs(3)).await;
        helpers[0].spawn(async move {
            let _held = lock(&world);
            panic!("a planted bug of the simulator");
        });
        sleep(Duration::from_secs(1)).await;
        unreachable!("a panic of any task ends the run");
    }

    #[test]
    fn panic_of_the_simulator_is_reported_with_its_run() {
        let report = execute(&options(), true, panic_in_a_task);
        assert_eq!(report.class(), Some(Class::Crash));
        let [found] = report.violations.as_slice() else {
            panic!("one violation: {:?}", report.violations);
        };
        assert_eq!(found.check, "harness");
        assert!(found.text.contains("a planted bug of the simulator"), "{found}");
        assert!(found.text.contains("runner.rs"), "it says where: {found}");
        assert!(found.at > 2_000_000_000, "and when: {found}");
        assert!(report.stats.steps > 10 && report.lines.len() > 10);
        let told = report.to_string();
        assert!(told.contains("replay 7 --set loss=3"), "{told}");
    }

    #[test]
    fn panic_before_the_run_is_reported() {
        let mut options = options();
        options.drift_ppm = u64::MAX;
        let report = execute(&options, false, |_| async { unreachable!("there is no world") });
        assert_eq!(report.class(), Some(Class::Crash));
        assert_eq!(report.violations[0].check, "harness");
    }
}
