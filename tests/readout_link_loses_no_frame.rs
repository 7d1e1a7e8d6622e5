//! The readout link, both ends and the time in one hand: every pixel of every frame is right and in
//! order through flipped bits and cut lines, nothing counts twice, nothing hangs, and what a reset
//! destroys is named by its number.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support {
    pub mod link_pair;
}

use std::time::Duration;

use nightjar::camera::link::{Caps, Event, Expose, HostParameters, INITIAL_BAUD, Lost, Purpose, Received};
use support::link_pair::{Faults, Pair};

const LIGHT: Expose = Expose { exposure_us: 30_000_000, purpose: Purpose::Light };

fn quiet(size: (u32, u32)) -> Pair {
    Pair::new(size, HostParameters::default(), Pair::caps(), Faults::default())
}

fn frame_of(event: &Event) -> Option<Received> {
    match event {
        Event::Frame(frame) => Some((**frame).clone()),
        _ => None,
    }
}

fn missed_of(event: &Event) -> Option<(u32, u32, Lost)> {
    match event {
        Event::Missed { first, last, why } => Some((*first, *last, why.clone())),
        _ => None,
    }
}

/// The next frame, which the camera takes by itself; everything else that happened goes to `said`.
fn next_frame(pair: &mut Pair, said: &mut Vec<Event>) -> Option<Received> {
    let end = pair.now + Duration::from_secs(60);
    while pair.now < end {
        pair.trigger();
        let frame = pair.until(1, |event| {
            if frame_of(event).is_none() {
                said.push(event.clone());
            }
            frame_of(event)
        });
        if frame.is_some() {
            return frame;
        }
    }
    None
}

/// Takes `count` frames of 1024×1024 through a line with a flipped bit in 60 kB and a cut every 4 MB.
fn take_through_a_bad_line(count: u32) {
    let faults = Faults { flip_every: 60_000, break_every: 4_000_000 };
    let mut pair = Pair::new((1024, 1024), HostParameters::default(), Pair::caps(), faults);
    let mut said = Vec::new();
    for number in 1..=count {
        let frame = next_frame(&mut pair, &mut said).unwrap_or_else(|| panic!("frame {number} never came"));
        assert_eq!((frame.frame, frame.missing.len()), (number, 0));
        assert!(frame.pixels == pair.pixels(number), "frame {number} has other pixels");
        let now = pair.now;
        pair.host.release(number, now);
    }
    assert!(said.iter().all(|event| missed_of(event).is_none()), "nothing is missed");
    let counters = pair.host.counters();
    assert_eq!(counters.frames, u64::from(count), "nothing counts twice");
    assert!(pair.flips > count * 30 && pair.breaks > count / 3, "{} flips, {} cuts", pair.flips, pair.breaks);
    assert!(counters.damaged > 0 && counters.asked_again > 0);
}

#[test]
fn five_hundred_frames_through_a_bad_line_are_right_and_in_order() {
    take_through_a_bad_line(500);
}

#[test]
fn resets_in_mid_frame_lose_that_frame_by_its_number_and_no_other() {
    let mut pair = quiet((512, 512));
    pair.bytes_per_s = 1e6;
    let (mut said, mut got) = (Vec::new(), Vec::new());
    for session in 2..30 {
        let frame = next_frame(&mut pair, &mut said).unwrap();
        assert!(frame.pixels == pair.pixels(frame.frame));
        got.push(frame.frame);
        let now = pair.now;
        pair.host.release(frame.frame, now);
        // A third of the next frame has come when the camera is reset. Every other one keeps no numbers.
        pair.until(1, |event| matches!(event, Event::Status { .. }).then_some(()));
        while pair.camera.waiting() == 0 {
            pair.trigger();
            pair.step();
        }
        pair.until(0, frame_of);
        let end = pair.now + Duration::from_millis(180);
        while pair.now < end {
            pair.step();
        }
        pair.reset_camera(session, session % 2 == 0);
    }
    let missed: Vec<u32> = said.iter().filter_map(missed_of).flat_map(|(first, last, _)| first..=last).collect();
    let mut all = [got.clone(), missed.clone()].concat();
    all.sort_unstable();
    assert!(got.is_sorted() && got.len() == 28 && missed.len() >= 27, "{got:?} {missed:?}");
    assert_eq!(all, (1..=all.len() as u32).collect::<Vec<_>>(), "each number is there once: taken, or named as missed");
    assert!(said.iter().filter_map(missed_of).all(|(.., why)| why == Lost::Reset));
}

#[test]
fn a_frame_of_which_half_came_before_the_reset_is_given_out_with_the_gap_named() {
    let mut pair = quiet((512, 512));
    pair.bytes_per_s = 1e6;
    while pair.camera.waiting() == 0 {
        pair.trigger();
        pair.step();
    }
    let end = pair.now + Duration::from_millis(400);
    while pair.now < end {
        pair.step();
    }
    pair.reset_camera(2, true);
    let frame = pair.until(30, frame_of).unwrap();
    let gap = frame.missing[0].clone();
    assert!(frame.missing.len() == 1 && gap.end == 512 * 512 && gap.start > 512 * 256, "{:?}", frame.missing);
    assert!(frame.pixels[..gap.start] == pair.pixels(1)[..gap.start]);
}

#[test]
fn a_host_that_starts_again_in_mid_frame_gets_it_and_one_that_has_it_releases_it() {
    let mut pair = quiet((512, 512));
    pair.bytes_per_s = 1e6;
    while pair.camera.waiting() == 0 {
        pair.trigger();
        pair.step();
    }
    let end = pair.now + Duration::from_millis(200);
    while pair.now < end {
        pair.step();
    }
    pair.restart_host(HostParameters::default());
    let frame = pair.until(30, frame_of).unwrap();
    assert!(frame.frame == 1 && frame.missing.is_empty() && frame.pixels == pair.pixels(1));
    // It is on disk, and the host dies before it can say so.
    pair.restart_host(HostParameters { durable: Some((1, 1)), ..HostParameters::default() });
    assert_eq!(pair.until(10, frame_of), None, "it does not come twice");
    assert_eq!(pair.camera.waiting(), 0, "and the camera knows");
    assert_eq!(next_frame(&mut pair, &mut Vec::new()).unwrap().frame, 2);
}

#[test]
fn an_exposure_on_command_is_taken_once_however_often_it_is_asked_for() {
    let mut pair = quiet((64, 64));
    pair.until(5, |event| matches!(event, Event::Up).then_some(())).unwrap();
    // The answer is lost, so the command is repeated.
    pair.deaf = true;
    let now = pair.now;
    assert_eq!(pair.host.expose(LIGHT, now), Some(1));
    assert_eq!(pair.host.expose(LIGHT, now), None, "one at a time");
    pair.until(2, |_| None::<()>);
    pair.deaf = false;
    let frame = pair.until(60, frame_of).unwrap();
    assert_eq!((frame.frame, pair.camera.highest()), (1, 1));
    assert!(pair.now - now >= Duration::from_secs(30));
}

/// The camera has the frame; a host that named it as missed meanwhile would count it twice.
#[test]
fn a_frame_whose_camera_was_away_for_minutes_is_late_and_not_missed() {
    let mut pair = quiet((64, 64));
    pair.until(5, |event| matches!(event, Event::Up).then_some(())).unwrap();
    let now = pair.now;
    assert_eq!(pair.host.expose(LIGHT, now), Some(1));
    pair.until(2, |_| None::<()>);
    pair.unplug_for(Duration::from_secs(300));
    let mut missed = Vec::new();
    let frame = pair.until(400, |event| {
        missed.extend(missed_of(event));
        frame_of(event)
    });
    assert_eq!(frame.unwrap().frame, 1);
    assert!(missed.is_empty() && pair.now - now >= Duration::from_secs(300), "{missed:?}");
}

#[test]
fn every_state_has_a_deadline() {
    // A camera whose exposure never ends.
    let mut pair = quiet((64, 64));
    pair.pictures = false;
    pair.until(5, |event| matches!(event, Event::Up).then_some(())).unwrap();
    let now = pair.now;
    pair.host.expose(LIGHT, now).unwrap();
    assert_eq!(pair.until(200, missed_of).unwrap(), (1, 1, Lost::NoImage));
    assert!(pair.now <= now + Duration::from_secs(91));
    // One that is never heard again.
    pair.deaf = true;
    let now = pair.now;
    pair.until(60, |event| matches!(event, Event::Silent).then_some(())).unwrap();
    assert!(pair.now - now < Duration::from_secs(10) && !pair.host.is_up());
    pair.deaf = false;
    pair.until(5, |event| matches!(event, Event::Up).then_some(())).unwrap();
}

#[test]
fn the_speed_is_agreed_on_and_a_line_that_does_not_carry_it_falls_back() {
    let caps = Caps { baud: 921_600, ..Pair::caps() };
    let parameters = HostParameters { baud: Some(3_000_000), ..HostParameters::default() };
    let mut pair = Pair::new((64, 64), parameters.clone(), caps, Faults::default());
    pair.until(10, |event| matches!(event, Event::Up).then_some(())).unwrap();
    assert_eq!(pair.bauds, [921_600, 921_600], "what both can");
    // The camera that cannot says so, and the first speed stays.
    let caps = Caps { baud: INITIAL_BAUD, ..Pair::caps() };
    let mut pair = Pair::new((64, 64), parameters, caps, Faults::default());
    pair.until(10, |event| matches!(event, Event::Up).then_some(())).unwrap();
    assert_eq!(pair.bauds, [0; 0]);
}

#[test]
fn frames_that_nobody_heard_of_are_named_when_the_next_one_comes() {
    let mut pair = quiet((64, 64));
    assert_eq!(next_frame(&mut pair, &mut Vec::new()).unwrap().frame, 1);
    let now = pair.now;
    pair.host.release(1, now);
    // Two exposures by an external trigger are lost with the camera's memory; its numbers are not.
    pair.deaf = true;
    while pair.camera.highest() < 3 {
        pair.trigger();
        pair.step();
    }
    pair.reset_camera(2, true);
    pair.deaf = false;
    let mut said = Vec::new();
    assert_eq!(next_frame(&mut pair, &mut said).unwrap().frame, 4);
    let missed: Vec<_> = said.iter().filter_map(missed_of).collect();
    assert_eq!(missed, [(2, 3, Lost::NeverSeen)]);
}
