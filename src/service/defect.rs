//! A defect of the program (a panic) outside the stages, which have a guard of their own: the process
//! ends with exit code 70 and is started again, rather than go on without one of its threads.

use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};

use super::events;

/// Exit code of a defect (`EX_SOFTWARE`, sysexits.h).
const DEFECT: i32 = 70;

/// From now on a panic is a line of the log that says where it was.
pub fn say_panics() {
    std::panic::set_hook(Box::new(|panic| tracing::error!(message_id = events::DEFECT, "{}", sentence(panic))));
}

/// The work of a thread, or of the main one. When a defect ends it the process ends: what is durable is
/// taken up by the next start.
pub fn or_exit<T>(work: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        tracing::error!(
            message_id = events::DEFECT,
            "nightjar ends with exit code 70 because of the defect above and is started again; nothing durable is lost"
        );
        // SAFETY: ends the process at once. Returning from main would wait for threads that may wait for this one.
        unsafe { nix::libc::_exit(DEFECT) }
    })
}

fn sentence(panic: &PanicHookInfo<'_>) -> String {
    let payload = panic.payload();
    let said = payload.downcast_ref::<String>().map(String::as_str).or(payload.downcast_ref::<&str>().copied());
    let place = panic.location().map_or("an unknown place".into(), ToString::to_string);
    format!("a defect of nightjar at {place}: {}; please report this line", said.unwrap_or("no message"))
}
