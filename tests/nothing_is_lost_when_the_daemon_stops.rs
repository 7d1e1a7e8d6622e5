//! SIGTERM ends the exposure in hand or leaves it to the frame journal; SIGKILL leaves it there; the
//! next start finishes it, and no exposure is in the spool twice. No broker is needed for this:
//! everything is held in the spool.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support {
    pub mod night;
    pub mod site;
}

use nightjar::camera::journal::FrameJournal;
use nightjar::exposure::ExposureId;
use nix::sys::signal::Signal;
use support::night::wait_until;
use support::site::Site;

/// Nothing is sent, and no broker is needed.
const HELD: &str = "publish = false";

#[test]
fn sigterm_in_mid_exposure_exits_0_and_the_next_start_finishes() {
    let site = Site::new(3, HELD);
    let mut daemon = site.start();
    wait_until("the daemon is ready", || daemon.times("is ready") == 1);
    for frame in &site.frames {
        site.drop_in(frame);
    }
    wait_until("every frame is in the journal", || site.in_journal() == 3);
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.exit_code(), Some(0), "{}", daemon.said());
    let done = daemon.times("alerts in");
    assert!(done < 3, "all were done before the signal came: nothing is shown\n{}", daemon.said());

    let mut again = site.start();
    wait_until("every exposure is done", || again.times("alerts in") == 3);
    again.signal(Signal::SIGTERM);
    assert_eq!(again.exit_code(), Some(0));
    let mut names = site.spooled();
    names.sort();
    assert_eq!(names.len(), 3, "{}", again.said());
    names.dedup();
    assert_eq!(names.len(), 3, "no exposure is there twice");
}

#[test]
fn sigkill_at_any_moment_loses_no_exposure_and_doubles_none() {
    let site = Site::new(3, HELD);
    let mut daemon = site.start();
    wait_until("the daemon is ready", || daemon.times("is ready") == 1);
    for frame in &site.frames {
        site.drop_in(frame);
    }
    // Killed after the first frame is safe, after the first exposure is done, and while it starts again.
    wait_until("a frame is in the journal", || site.in_journal() >= 1);
    daemon.signal(Signal::SIGKILL);
    daemon.exit_code();
    let mut daemon = site.start();
    wait_until("an exposure is done", || daemon.times("alerts in") >= 1);
    daemon.signal(Signal::SIGKILL);
    daemon.exit_code();
    let mut daemon = site.start();
    wait_until("it is ready for the third time", || daemon.times("is ready") == 3);
    daemon.signal(Signal::SIGKILL);
    daemon.exit_code();

    let mut daemon = site.start();
    let spooled = || std::fs::read_dir(site.path("spool/ready")).unwrap().count();
    wait_until("three exposures are in the spool", || spooled() == 3 && daemon.times("frames wait") < 100);
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.exit_code(), Some(0));
    let mut names = site.spooled();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 3, "{}", daemon.said());
}

#[test]
fn a_second_sigterm_stops_at_once_and_the_next_start_finishes() {
    let site = Site::new(1, HELD);
    let mut daemon = site.start();
    wait_until("the daemon is ready", || daemon.times("is ready") == 1);
    site.drop_in(&site.frames[0]);
    wait_until("the frame is in the journal", || site.in_journal() == 1);
    daemon.signal(Signal::SIGTERM);
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.exit_code(), Some(0), "{}", daemon.said());
    let mut again = site.start();
    wait_until("it is ready again", || again.times("is ready") == 2);
    wait_until("the exposure is in the spool", || {
        std::fs::read_dir(site.path("spool/ready")).is_ok_and(|entries| {
            entries.flatten().any(|entry| entry.path().extension().is_some_and(|ending| ending == "seg"))
        })
    });
    again.signal(Signal::SIGTERM);
    assert_eq!(again.exit_code(), Some(0));
    assert_eq!(site.spooled().len(), 1);
}

#[test]
fn an_exposure_on_which_the_work_hung_five_times_is_closed_and_the_night_goes_on() {
    let site = Site::new(3, HELD);
    let mut daemon = site.start();
    wait_until("the daemon is ready", || daemon.times("is ready") == 1);
    for frame in &site.frames {
        site.drop_in(frame);
    }
    wait_until("every frame is in the journal", || site.in_journal() == 3);
    daemon.signal(Signal::SIGKILL);
    daemon.exit_code();
    let said = daemon.said();
    let journal = FrameJournal::open(&site.path("journal")).unwrap();
    let undone = |id: &ExposureId| !said.contains(&format!("exposure {id} field"));
    let frames = journal.frames().unwrap();
    let poison = &frames.iter().find(|frame| undone(&frame.id)).expect("all were done: nothing is shown").id;
    for _ in 0..5 {
        journal.note_hang(poison).unwrap();
    }
    let mut daemon = site.start();
    wait_until("it is closed", || daemon.times(&format!("exposure {poison} field")) == 1);
    wait_until("the others make alerts", || daemon.times("alerts in") == 2);
    assert_eq!(daemon.times("the work on it hung 5 times"), 1, "{}", daemon.said());
    daemon.signal(Signal::SIGTERM);
    daemon.exit_code();
    let mut daemon = site.start();
    wait_until("the daemon is ready", || daemon.times("is ready") == 3);
    daemon.signal(Signal::SIGTERM);
    daemon.exit_code();
    assert_eq!(daemon.times("the work on it hung"), 1, "it is closed for good\n{}", daemon.said());
}
