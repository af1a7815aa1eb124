//! Panics of tests: kept and told with the order in which they came, rather than printed at once.

use bpfsim_explore::{Failed, WORKER};
use parking_lot::Mutex;
use std::any::Any;
use std::panic::{self, PanicHookInfo};
use std::sync::Once;
use std::thread::ThreadId;

/// What a panic is as a failure.
pub(crate) fn panicked(payload: &(dyn Any + Send)) -> Failed {
    let text = payload.downcast_ref::<&str>().map(|s| s.to_string());
    let text = text.or_else(|| payload.downcast_ref::<String>().cloned());
    let text = text.unwrap_or_else(|| "the test panicked".to_string());
    let place = take_place();
    let message = match &place {
        Some(place) => format!("{text} ({place})"),
        None => text,
    };
    Failed {
        kind: "panic".to_string(),
        place,
        object: None,
        message,
    }
}

/// Where workers panicked, until the one that catches it asks.
static PLACES: Mutex<Vec<(ThreadId, String)>> = Mutex::new(Vec::new());

/// Threads, beside workers, whose panics are not printed now.
static QUIET: Mutex<Vec<ThreadId>> = Mutex::new(Vec::new());

/// Does something on this thread whose panics were printed already.
pub(crate) fn quietly<T>(f: impl FnOnce() -> T) -> T {
    quiet_workers();
    let thread = std::thread::current().id();
    QUIET.lock().push(thread);
    let result = f();
    QUIET.lock().retain(|t| *t != thread);
    result
}

/// Has the panics of workers, and only theirs, kept to be reported with their order rather than
/// printed at once.
pub(crate) fn quiet_workers() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let others = panic::take_hook();
        panic::set_hook(Box::new(move |info: &PanicHookInfo<'_>| {
            let thread = std::thread::current();
            let quiet = thread.name() == Some(WORKER) || QUIET.lock().contains(&thread.id());
            if !quiet {
                return others(info);
            }
            if let Some(place) = info.location() {
                let place = format!("{}:{}", place.file(), place.line());
                PLACES.lock().push((thread.id(), place));
            }
        }));
    });
}

fn take_place() -> Option<String> {
    let thread = std::thread::current().id();
    let mut places = PLACES.lock();
    let mut own = None;
    places.retain(|(id, place)| {
        if *id == thread {
            own = Some(place.clone());
        }
        *id != thread
    });
    own
}
