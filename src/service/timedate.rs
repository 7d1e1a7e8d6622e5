//! What systemd-timedated says of the clock, over the system's bus (org.freedesktop.timedate1(5)).
//!
//! Inside the service's sandbox the kernel cannot be asked: what could ask it could also set it
//! (`ProtectClock=`, systemd.exec(5)). timedated is started by the bus when it is asked, and ends by itself.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use libsystemd_sys::bus::{
    sd_bus, sd_bus_flush_close_unref, sd_bus_get_property_trivial, sd_bus_open_system, sd_bus_set_method_call_timeout,
};

use super::Stopwatch;

/// For how long an answer holds.
const HOLDS: Duration = Duration::from_secs(20);
/// How long an answer may take, microseconds.
const PATIENCE_US: u64 = 3_000_000;
const SERVICE: &CStr = c"org.freedesktop.timedate1";
const OBJECT: &CStr = c"/org/freedesktop/timedate1";
const PROPERTY: &CStr = c"NTPSynchronized";

/// Whether the clock is synchronised; `None` where there is no bus or no timedated. An answer holds for
/// some seconds, so that this may be asked often.
pub fn synchronised() -> Option<bool> {
    static LAST: Mutex<Option<(Stopwatch, Option<bool>)>> = Mutex::new(None);
    // The answer is whole whatever a thread died of.
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    match &*last {
        Some((since, answer)) if since.elapsed() < HOLDS => *answer,
        _ => {
            let answer = ask();
            *last = Some((Stopwatch::start(), answer));
            answer
        }
    }
}

fn ask() -> Option<bool> {
    let mut bus: *mut sd_bus = ptr::null_mut();
    let mut answer: c_int = 0;
    // SAFETY: `bus` is written by the first call and used only when that succeeded; every text ends in a zero byte and
    // outlives the call; a property of type `b` is written as one `int` (sd_bus_get_property_trivial(3)); the connection
    // is closed once.
    let told = unsafe {
        if sd_bus_open_system(&raw mut bus) < 0 {
            return None;
        }
        sd_bus_set_method_call_timeout(bus, PATIENCE_US);
        let told = sd_bus_get_property_trivial(
            bus,
            SERVICE.as_ptr(),
            OBJECT.as_ptr(),
            SERVICE.as_ptr(),
            PROPERTY.as_ptr(),
            ptr::null_mut(),
            b'b' as c_char,
            (&raw mut answer).cast::<c_void>(),
        );
        sd_bus_flush_close_unref(bus);
        told
    };
    (told >= 0).then_some(answer != 0)
}
