//! The main thread: shows the state, holds alerts while the clock is wrong, keeps the journal small,
//! backs the history up, has references built.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{Daemon, LOOK, TRIM_ROUNDS};
use crate::night::master_builder::{self, QUIET};
use crate::service::status_file::StatusFile;
use crate::service::{clock, disk, events, memory, systemd};
use crate::spool::Order;
use crate::time::{Mjd, NightName};
use crate::uplink::{Delivery, State, Uplink};

/// Why alerts are held.
const CLOCK_WRONG: &str = "the clock is not synchronised";
/// Freed memory goes back to the system each so many looks.
const GIVE_BACK_ROUNDS: u64 = 10;

impl Daemon {
    /// Looks once a second until the process stops; gives the uplink that is in force then.
    pub(super) fn look_after(self: &Arc<Self>, mut uplink: Uplink, hangup: &AtomicBool) -> Uplink {
        let mut file = StatusFile::new(&self.settings().service.status_file);
        let mut rounds: u64 = 0;
        let mut held = false;
        let mut night = self.tonight();
        loop {
            if hangup.swap(false, Ordering::Relaxed) {
                uplink = self.reload_settings(uplink);
                // It may be another one, which does not know yet.
                if held {
                    uplink.hold(Some(CLOCK_WRONG.into()));
                }
            }
            self.look_at_clock(&uplink, &mut held);
            self.look_at_uplink(&uplink);
            let status = self.board.now();
            systemd::status(&status.line());
            file.write(&status);
            if rounds.is_multiple_of(TRIM_ROUNDS) {
                self.trim();
                self.look_at_disk();
            }
            if rounds.is_multiple_of(GIVE_BACK_ROUNDS) {
                memory::give_back();
            }
            self.build_masters();
            if self.tonight() != night {
                night = self.tonight();
                if let Err(error) = self.night.keeping().back_up() {
                    tracing::error!("the history could not be backed up: {error}");
                }
                self.build_references();
            }
            rounds += 1;
            if self.shutdown.sleep(LOOK) {
                return uplink;
            }
        }
    }

    /// Holds alerts while the clock is known to be wrong. Where nobody tells, it stays as it was.
    fn look_at_clock(&self, uplink: &Uplink, held: &mut bool) {
        let synchronised = clock::synchronised();
        self.board.set(|status| status.clock_synchronised = synchronised);
        let required = self.settings().service.require_synchronised_clock;
        let hold = required && synchronised.map_or(*held, |synchronised| !synchronised);
        if hold == *held {
            return;
        }
        *held = hold;
        if hold {
            tracing::warn!(
                message_id = events::CLOCK_UNSYNCHRONISED,
                "the clock is not synchronised: alerts are held in the spool; start chrony or systemd-timesyncd \
                 (`timedatectl`), or set [service] require_synchronised_clock = false"
            );
            uplink.hold(Some(CLOCK_WRONG.into()));
        } else {
            let why = if required { "the clock is synchronised" } else { "the clock need not be synchronised" };
            tracing::info!("{why}: alerts go out");
            uplink.hold(None);
        }
    }

    pub(super) fn look_at_uplink(&self, uplink: &Uplink) {
        let now = uplink.status();
        let word = match now.state {
            State::Connecting => "connecting",
            State::Connected => "ok",
            State::Away => "away",
            State::Held => "held",
            State::Stopped => "stopped",
        };
        let spool = self.night.keeping().spool();
        let (wall, oldest) = (clock::now(), spool.status().oldest);
        let waits = |number: u64| spool.next_waiting(Order::OldestFirst, &|other| other != number).is_some();
        self.board.figures(|figures| figures.acknowledge(wall, waits));
        let age = oldest.and_then(|name| started(&name)).map_or(0.0, |start| wall.seconds_since(start).max(0.0));
        self.board.set(|status| {
            status.acknowledged = now.acknowledged_alerts;
            status.backlog_age_s = age;
            status.uplink_trouble = match now.state {
                State::Connected => String::new(),
                _ => now.last_error.clone().unwrap_or_default(),
            };
            status.delivery = match now.delivery {
                Delivery::ExactlyOnce => "exactly-once".into(),
                Delivery::Idempotent => "idempotent".into(),
            };
            status.updated = clock::now().to_string();
            status.frames_waiting = self.queue.len() as u64;
            status.spool_exposures = now.behind_exposures;
            status.spool_alerts = now.behind_alerts;
            status.spool_bytes = now.behind_bytes;
            status.dead = now.refused;
            status.uplink = word.to_owned();
            status.peak_rss_mb = memory::peak_rss_mb();
        });
    }

    /// How much room there is, and for how many nights like the fullest one of the journal.
    fn look_at_disk(&self) {
        let settings = self.settings();
        let free = disk::free_bytes(&settings.spool.folder).unwrap_or(0);
        let mut nights: BTreeMap<i32, u64> = BTreeMap::new();
        for frame in self.journal.frames().unwrap_or_default() {
            if let Some(night) = frame.id.night() {
                *nights.entry(night.nid()).or_default() += std::fs::metadata(&frame.path).map_or(0, |m| m.len());
            }
        }
        let spool = self.night.keeping().spool().status();
        let exposures = spool.waiting_exposures + spool.sent_exposures;
        let a_night = nights.values().max().copied().unwrap_or(0);
        // What the spool holds belongs to the nights that the journal holds.
        let alerts = (spool.waiting_bytes + spool.sent_bytes) / (nights.len() as u64).max(1);
        let known = exposures > 0 || a_night > 0;
        self.board.set(|status| {
            status.disk_free_bytes = free;
            status.disk_nights = known.then(|| free as f64 / (a_night + alerts).max(1) as f64);
        });
    }

    /// Makes masters of the calibration frames that have come, on a thread of their own.
    fn build_masters(self: &Arc<Self>) {
        let Some(frames) = self.masters.due(QUIET) else { return };
        let daemon = Arc::clone(self);
        let build = move || {
            let made = master_builder::build(&frames, &daemon.settings());
            for finding in &made.findings {
                tracing::info!(message_id = events::MASTERS_MADE, "{finding}");
            }
            if !made.files.is_empty() {
                daemon.reload.store(true, Ordering::Relaxed);
            }
        };
        if let Err(error) = std::thread::Builder::new().name("masters".into()).spawn(build) {
            tracing::error!("no thread to make masters in: {error}");
        }
    }

    fn trim(&self) {
        let keep = self.settings().frames.keep_nights;
        match self.journal.trim(self.tonight(), keep, |id| self.is_done(id)) {
            Ok(0) => {}
            Ok(count) => tracing::info!("{count} frames that were done more than {keep} nights ago are removed"),
            Err(error) => tracing::error!("{error}"),
        }
    }

    fn tonight(&self) -> NightName {
        NightName::of(clock::now(), self.settings().observatory.longitude_deg)
    }

    /// Builds the references that the night's frames make, beside everything else: it is noon.
    fn build_references(self: &Arc<Self>) {
        let daemon = Arc::clone(self);
        let build = move || {
            if daemon.night.build_references(&|line| tracing::info!("{line}")) > 0 {
                daemon.reload.store(true, Ordering::Relaxed);
            }
        };
        if let Err(error) = std::thread::Builder::new().name("references".into()).spawn(build) {
            tracing::error!("no thread to build references in: {error}");
        }
    }
}

/// The start of an exposure, to the second, from its name.
fn started(name: &str) -> Option<Mjd> {
    let (night, time) = name.split_once('-')?;
    let digits = time.get(..6).filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()))?;
    let clock = format!("{}:{}:{}", &digits[..2], &digits[2..4], &digits[4..]);
    let date = |day: &str| Some(format!("{}-{}-{}T{clock}", day.get(..4)?, day.get(4..6)?, day.get(6..8)?));
    let start: Mjd = date(night)?.parse().ok()?;
    // The name of a night is the date of its midnight: what began in its evening may be of the day before.
    let evening = start.plus_seconds(-86_400.0);
    let now = clock::now();
    Some(if start.seconds_since(now) > 0.0 { evening } else { start })
}
