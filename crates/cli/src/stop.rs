//! Stopping a long run: the first signal asks for an end, the second makes it.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::failure::Failure;

/// Set by Ctrl-C and SIGTERM.
static STOP: AtomicBool = AtomicBool::new(false);

/// Whether the run should end.
pub fn asked() -> bool {
    STOP.load(Ordering::Relaxed)
}

/// Set when the run should end.
pub fn flag() -> &'static AtomicBool {
    &STOP
}

/// Listens for signals; `after` says what will still be finished.
pub fn listen(after: &'static str) -> Result<(), Failure> {
    ctrlc::set_handler(move || {
        if STOP.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
        eprintln!("stopping after the current {after}; once more to stop at once");
    })
    .map_err(|error| Failure::new(format!("cannot listen for Ctrl-C: {error}")))
}
