//! Catches panics of the core and of the simulator, and keeps their text and location for the report instead
//! of printing them.

use std::cell::RefCell;
use std::panic::{UnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

thread_local! {
    static CAUGHT: RefCell<Option<String>> = const { RefCell::new(None) };
    static LISTENING: RefCell<bool> = const { RefCell::new(false) };
}

/// Installs the hook for this thread; panics of other threads are printed as usual.
pub(crate) fn listen() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = take_hook();
        set_hook(Box::new(move |info| {
            if !LISTENING.with_borrow(|listening| *listening) {
                usual(info);
                return;
            }
            CAUGHT.with_borrow_mut(|caught| *caught = Some(info.to_string()));
        }));
    });
    LISTENING.with_borrow_mut(|listening| *listening = true);
}

/// Returns the last panic on this thread.
pub(crate) fn take() -> String {
    CAUGHT
        .with_borrow_mut(Option::take)
        .unwrap_or_else(|| "a panic without a message".to_owned())
}

/// Calls a closure, and returns the text of its panic if it panics.
pub(crate) fn catch<T>(run: impl FnOnce() -> T + UnwindSafe) -> Result<T, String> {
    catch_unwind(run).map_err(|_| take())
}
