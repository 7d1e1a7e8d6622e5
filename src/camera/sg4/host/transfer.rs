//! The image comes, block by block.

use std::time::Duration;

use super::super::block_checksum;
use super::super::command;
use super::super::events::{Event, Lost, Received};
use super::{ANSWER, QUIET, RESTARTS, Sg4Host, State, TRIES};

impl Sg4Host {
    pub(super) fn transfer(&mut self, now: Duration) {
        self.image.clear();
        self.nothing_came = false;
        self.say(command(b"X"), State::Transferring { block: 0, tries: 0 }, now + ANSWER + self.block_time());
        self.quiet_at = None;
    }

    pub(super) fn block_time(&self) -> Duration {
        Duration::from_secs_f64(3.0 * (self.binning.block() * 2) as f64 * 10.0 / f64::from(self.baud))
    }

    pub(super) fn take_block(&mut self, block: usize, tries: u32, bytes: &[u8], now: Duration) {
        self.input.extend_from_slice(bytes);
        // The first block comes behind the checksum of the command.
        let echo = usize::from(block == 0 && tries == 0);
        self.quiet_at = (self.input.len() > echo).then_some(now + QUIET);
        let length = echo + self.binning.block() * 2 + 1;
        if self.input.len() < length {
            return;
        }
        let data = &self.input[echo..length - 1];
        if self.input.len() > length || block_checksum(data) != self.input[length - 1] {
            self.state = State::Draining { block, tries: tries + 1 };
            self.input.clear();
            return;
        }
        let before = self.image.len().saturating_sub(data.len());
        if std::mem::take(&mut self.nothing_came) && block > 0 && self.image[before..] == *data {
            self.input.clear();
            self.out.push_back(b"K".to_vec());
            self.quiet_at = None;
            self.deadline = Some(now + ANSWER + self.block_time());
            return;
        }
        self.image.extend_from_slice(data);
        self.input.clear();
        self.out.push_back(b"K".to_vec());
        if block + 1 < self.binning.blocks() {
            self.state = State::Transferring { block: block + 1, tries: 0 };
            self.deadline = Some(now + ANSWER + self.block_time());
            self.quiet_at = None;
            return;
        }
        self.give(now);
    }

    pub(super) fn ask_again(&mut self, block: usize, tries: u32, now: Duration) {
        self.quiet_at = None;
        self.input.clear();
        if self.nothing_came && tries > TRIES / 2 && self.restarts < RESTARTS {
            // The camera no longer transfers; its image is still there.
            self.restarts += 1;
            return self.transfer(now);
        }
        if tries > TRIES {
            self.out.push_back(b"S".to_vec());
            return self.lose_camera(Some(Lost::Transfer), now);
        }
        self.repeated += 1;
        self.say(b"R".to_vec(), State::Transferring { block, tries }, now + ANSWER + self.block_time());
    }

    pub(super) fn give(&mut self, now: Duration) {
        self.idle(now);
        let Some(exposure) = self.exposure.take() else { return };
        let (width, height) = self.binning.size();
        let mut pixels: Vec<u16> = self.image.as_chunks::<2>().0.iter().map(|pair| u16::from_le_bytes(*pair)).collect();
        pixels.truncate(width * height);
        self.image.clear();
        self.events.push_back(Event::Frame(Box::new(Received {
            number: exposure.number,
            width,
            height,
            pixels,
            light: exposure.light,
            opened: exposure.opened,
            exposure: Duration::from_micros(u64::from(exposure.units) * 100),
        })));
    }
}
