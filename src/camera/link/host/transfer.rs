//! The host takes frames: credit, blocks, gaps, the end.

use std::time::Duration;

use super::super::frame_messages::Begin;
use super::super::image::{Incoming, nak};
use super::super::messages::{Activity, Refused, Status, code};
use super::super::packet::{Kind, Packet};
use super::super::{ANSWER, Event, Lost, PING_EVERY, REPEATS, Received, STALLS, WINDOW};
use super::{Host, Link};

impl Host {
    pub(super) fn begin(&mut self, frame: u32, begin: Begin, now: Duration) {
        if self.durable.is_some_and(|durable| frame <= durable) {
            return self.say_released(frame, now);
        }
        let known = self.handed == Some(frame) || self.incoming.as_ref().is_some_and(|(other, _)| *other == frame);
        if known {
            return;
        }
        if let Some((other, incoming)) = self.incoming.take() {
            // The camera has another one to offer: it has forgotten this.
            self.give_up(other, incoming, Lost::Forgotten);
        }
        let Some(mut incoming) = Incoming::new(begin, self.parameters.most_bytes) else {
            self.events.push_back(Event::Trouble(format!(
                "frame {frame} has an impossible size or block length; it is left to the camera"
            )));
            self.lose(frame, Lost::Impossible);
            self.durable = self.durable.max(Some(frame));
            return self.say_released(frame, now);
        };
        incoming.begun = now;
        self.count_up_to(frame);
        if self.ordered.is_some_and(|ordered| ordered.frame <= frame) {
            self.ordered = None;
        }
        self.incoming = Some((frame, incoming));
        (self.stalls, self.credit, self.crc_failures) = (0, 0, 0);
        self.releasing = self.releasing.filter(|released| *released >= frame);
        self.ask_for_rest();
        self.again = Some(now + self.stall());
    }

    pub(super) fn block(&mut self, packet: &Packet<'_>, now: Duration) {
        let Some((frame, incoming)) = &mut self.incoming else { return };
        if *frame != packet.frame || !incoming.put(packet.block, packet.payload) {
            self.counters.stray += 1;
            return;
        }
        self.counters.blocks += 1;
        self.stalls = 0;
        self.again = Some(now + self.stall());
        self.extend_credit();
        self.finish_if_whole();
    }

    pub(super) fn end(&mut self, packet: &Packet<'_>, now: Duration) {
        let Some((frame, incoming)) = &mut self.incoming else { return };
        let Some(crc) = packet.payload.first_chunk::<4>() else { return };
        if *frame != packet.frame {
            return;
        }
        incoming.end(packet.block, u32::from_le_bytes(*crc));
        if !self.finish_if_whole() {
            self.ask_for_rest();
            self.again = Some(now + self.stall());
        }
    }

    /// Gives the frame out when it is whole and agrees with its CRC.
    pub(super) fn finish_if_whole(&mut self) -> bool {
        let Some((frame, incoming)) = self.incoming.take_if(|(_, incoming)| incoming.is_whole()) else { return false };
        if incoming.agrees() {
            self.give(frame, incoming);
        } else {
            self.crc_failures += 1;
            self.counters.damaged += 1;
            if self.crc_failures > REPEATS {
                self.lose(frame, Lost::Checksum);
                self.durable = self.durable.max(Some(frame));
                self.send(Kind::Release, frame, 0, &[]);
            } else {
                let mut incoming = incoming;
                incoming.start_over();
                self.incoming = Some((frame, incoming));
                self.credit = 0;
                self.ask_for_rest();
            }
        }
        true
    }

    pub(super) fn give(&mut self, frame: u32, incoming: Incoming) {
        let begun = incoming.begun;
        let (begin, pixels, missing) = incoming.finish();
        self.counters.frames += 1;
        self.handed = Some(frame);
        self.count(frame);
        let session = self.session.unwrap_or(0);
        self.events.push_back(Event::Frame(Box::new(Received { session, frame, begin, begun, pixels, missing })));
    }

    /// What to do with a frame that will never be whole: half of it is worth having.
    pub(super) fn give_up(&mut self, frame: u32, incoming: Incoming, why: Lost) {
        if incoming.received() * 2 >= incoming.blocks() {
            self.give(frame, incoming);
        } else {
            self.lose(frame, why);
        }
    }

    pub(super) fn status(&mut self, frame: u32, status: Status) {
        if let Some(ordered) = self.ordered.as_mut().filter(|ordered| ordered.frame == frame) {
            // A camera that is idle after it was told to expose has not heard it.
            ordered.acknowledged |= status.activity != Activity::Idle || status.waiting > 0;
        }
        self.events.push_back(Event::Status { frame, status });
    }

    pub(super) fn refused(&mut self, frame: u32, refused: &Refused) {
        if let Some((_, incoming)) =
            self.incoming.take_if(|(other, _)| *other == frame && refused.code == code::NO_SUCH_FRAME)
        {
            self.give_up(frame, incoming, Lost::Forgotten);
        }
        if self.ordered.take_if(|ordered| ordered.frame == frame).is_some() {
            self.lose(frame, Lost::Refused(refused.text.clone()));
        }
        self.events.push_back(Event::Trouble(format!("the camera says of frame {frame}: {}", refused.text)));
    }

    pub(super) fn extend_credit(&mut self) {
        let Some((frame, incoming)) = &self.incoming else { return };
        let limit = incoming.reached().saturating_add(WINDOW);
        if limit >= self.credit.saturating_add(WINDOW / 4) || self.credit == 0 {
            let frame = *frame;
            self.credit = limit;
            self.send(Kind::Credit, frame, limit, &[]);
        }
    }

    /// Says what is missing, and how far the camera may go.
    pub(super) fn ask_for_rest(&mut self) {
        let Some((frame, incoming)) = &self.incoming else { return };
        let (frame, missing) = (*frame, incoming.missing(WINDOW as usize));
        self.credit = incoming.reached().saturating_add(WINDOW);
        self.counters.asked_again += missing.len() as u64;
        let (first, payload) = nak(&missing, incoming.reached());
        self.send(Kind::Credit, frame, self.credit, &[]);
        self.send(Kind::Nak, frame, first, &payload);
    }

    /// Nothing came in time: whatever is open is said again.
    pub(super) fn say_again(&mut self, now: Duration) {
        if let Some(ordered) = &mut self.ordered.filter(|ordered| !ordered.acknowledged) {
            ordered.times += 1;
            self.ordered = Some(*ordered);
            if ordered.times > REPEATS * 2 {
                self.ordered = None;
                self.lose(ordered.frame, Lost::Unanswered);
            } else {
                self.send(Kind::Expose, ordered.frame, 0, &ordered.expose.write());
            }
        }
        if let Some(frame) = self.releasing {
            self.send(Kind::Release, frame, 0, &[]);
        }
        if self.incoming.is_some() {
            self.stalls += 1;
            self.counters.stalls += 1;
            if self.stalls > STALLS {
                if let Some((frame, incoming)) = self.incoming.take() {
                    self.give_up(frame, incoming, Lost::Stalled);
                    if self.handed != Some(frame) {
                        self.durable = self.durable.max(Some(frame));
                        self.say_released(frame, now);
                    }
                }
            } else {
                self.ask_for_rest();
            }
        }
        let open = self.incoming.is_some() || self.releasing.is_some() || self.ordered.is_some_and(|o| !o.acknowledged);
        self.send(Kind::Ping, 0, 0, &[]);
        self.again = Some(now + if open { self.stall() } else { PING_EVERY });
    }

    pub(super) fn say_released(&mut self, frame: u32, now: Duration) {
        self.releasing = Some(frame);
        if self.link == Link::Up {
            self.send(Kind::Release, frame, 0, &[]);
            self.again = Some(now + ANSWER);
        }
    }

    /// How long a line that carries blocks may be quiet: three blocks at its speed, and some.
    pub(super) fn stall(&self) -> Duration {
        let block = match self.parameters.baud {
            Some(_) => 10.0 * f64::from(self.parameters.block_bytes) / f64::from(self.baud.max(1)),
            None => 0.0,
        };
        ANSWER.max(Duration::from_secs_f64(0.2 + 3.0 * block))
    }
}
