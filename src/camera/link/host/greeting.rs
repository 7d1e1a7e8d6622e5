//! The host gets to know the camera, and agrees on a speed with it.

use std::time::Duration;

use super::super::messages::{Baud, BaudStep, Caps, Config};
use super::super::packet::Kind;
use super::super::{ANSWER, Event, INITIAL_BAUD, Lost, PATIENCE, REPEATS};
use super::{Host, Link};

impl Host {
    pub(super) fn call(&mut self, now: Duration, times: u32) {
        if times > 0 && times.is_multiple_of(PATIENCE) {
            self.events.push_back(Event::Silent);
        }
        // A camera that kept the speed hears the other one.
        if let (Some(wanted), true) = (self.parameters.baud, times > 0) {
            self.set_baud(if self.baud == wanted { INITIAL_BAUD } else { wanted });
        }
        self.link = Link::Calling { times };
        self.send(
            Kind::Hello,
            self.highest().unwrap_or(0),
            0,
            concat!("nightjar ", env!("CARGO_PKG_VERSION")).as_bytes(),
        );
        self.again = Some(now + ANSWER);
    }

    pub(super) fn introduced(&mut self, session: u32, highest: u32, caps: Caps, now: Duration) {
        if self.session.is_some_and(|known| known != session) {
            self.camera_was_reset();
        }
        self.session = Some(session);
        if self.counted.is_none() {
            // Frames of before the first acquaintance that still wait are ours; others were never.
            self.counted = Some(highest.saturating_sub(u32::from(caps.waiting)));
        }
        let wanted = self.parameters.baud.map(|baud| if caps.baud > 0 { baud.min(caps.baud) } else { baud });
        self.caps = Some(caps);
        match wanted {
            Some(baud) if baud != self.baud && !self.unheard => {
                self.send_baud(BaudStep::Propose, baud);
                self.link = Link::Speeding { step: BaudStep::Propose, times: 0 };
                self.again = Some(now + ANSWER);
            }
            _ => self.up(now),
        }
    }

    pub(super) fn up(&mut self, now: Duration) {
        let block_bytes = self.caps.as_ref().map_or(0, |caps| caps.block_bytes).min(self.parameters.block_bytes);
        let config = Config { block_bytes: block_bytes.max(2) & !1, setpoint_c: None };
        self.send(Kind::Config, 0, 0, &config.write());
        if self.link != Link::Up {
            self.events.push_back(Event::Up);
        }
        if self.link != Link::Up {
            // What it had to do meanwhile it may not have been able to say.
            let late = now + self.parameters.readout;
            self.ordered.iter_mut().for_each(|ordered| ordered.until = ordered.until.max(late));
        }
        self.link = Link::Up;
        self.stalls = 0;
        if let Some(frame) = self.releasing {
            self.send(Kind::Release, frame, 0, &[]);
        }
        if let Some(ordered) = self.ordered.filter(|ordered| !ordered.acknowledged) {
            self.send(Kind::Expose, ordered.frame, 0, &ordered.expose.write());
        }
        if self.incoming.is_some() {
            self.ask_for_rest();
        }
        self.again = Some(now + self.stall());
    }

    pub(super) fn camera_was_reset(&mut self) {
        if let Some((frame, incoming)) = self.incoming.take() {
            self.give_up(frame, incoming, Lost::Reset);
        }
        if let Some(ordered) = self.ordered.take() {
            self.lose(ordered.frame, Lost::Reset);
        }
        self.releasing = None;
        self.handed = None;
        self.unheard = false;
        self.caps = None;
        self.events.push_back(Event::Reset);
    }

    pub(super) fn speeding(&mut self, baud: Baud, now: Duration) {
        let Link::Speeding { step, .. } = self.link else { return };
        let next = match (step, baud.step) {
            (BaudStep::Propose, BaudStep::Accept) => {
                self.set_baud(baud.baud);
                BaudStep::Test
            }
            (BaudStep::Propose, BaudStep::Refuse) => {
                self.unheard = true;
                return self.up(now);
            }
            (BaudStep::Test, BaudStep::Test) => BaudStep::Confirm,
            (BaudStep::Confirm, BaudStep::Confirm) => return self.up(now),
            _ => return,
        };
        self.send_baud(next, baud.baud);
        self.link = Link::Speeding { step: next, times: 0 };
        self.again = Some(now + ANSWER);
    }

    pub(super) fn speed_again(&mut self, step: BaudStep, times: u32, now: Duration) {
        if times > REPEATS {
            // Both sides fall back; the camera does after the same time.
            if step != BaudStep::Propose {
                self.unheard = true;
                let baud = self.baud;
                self.events.push_back(Event::Trouble(format!(
                    "the line does not carry {baud} baud, {INITIAL_BAUD} is used; set a lower [camera] baud or look at the cable"
                )));
            }
            self.set_baud(INITIAL_BAUD);
            return self.call(now, 0);
        }
        let baud = if step == BaudStep::Propose { self.parameters.baud.unwrap_or(self.baud) } else { self.baud };
        self.send_baud(step, baud);
        self.link = Link::Speeding { step, times };
        self.again = Some(now + ANSWER);
    }

    pub(super) fn send_baud(&mut self, step: BaudStep, baud: u32) {
        self.send(Kind::Baud, 0, 0, &Baud { step, baud }.write());
    }

    pub(super) fn set_baud(&mut self, baud: u32) {
        if self.baud != baud {
            self.baud = baud;
            self.events.push_back(Event::SetBaud(baud));
        }
    }
}
