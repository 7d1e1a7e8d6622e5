//! The uplink's thread: one session after the other, and what is said about it.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::types::RDKafkaErrorCode;

use super::UplinkParameters;
use super::client::Fault;
use super::failure::Class;
use super::handle::{Shared, State};
use super::pace::Pace;
use super::quiet::Quiet;
use super::session::{Carried, Session, Surroundings, Trouble, unix_s};
use crate::service::clock::Stopwatch;
use crate::spool::{Aside, Spool, SpoolError};

/// How often the spool is trimmed, and what people asked to send again is looked for.
const TIDY_EVERY: Duration = Duration::from_secs(5);
/// Records of one exposure that are refused before any went through: then the topic is at fault.
const SUSPICIOUS: u32 = 3;
/// Bytes of a transaction while looking for a refused record.
const SEARCH: u64 = 4_000_000;

/// Carries what is in the spool to the broker until it is told to stop.
pub struct Courier {
    parameters: UplinkParameters,
    spool: Arc<Spool>,
    shared: Arc<Shared>,
    gate: Box<dyn Fn(u64) + Send>,
    life: Stopwatch,
    quiet: RefCell<Quiet>,
    pause_s: f64,
    pace: Pace,
    /// Records in `dead/` whose exposure is not complete yet.
    skip: BTreeSet<Aside>,
    singly: bool,
    refused_in_a_row: u32,
}

impl Courier {
    /// Not started yet.
    pub fn new(
        parameters: UplinkParameters,
        spool: Arc<Spool>,
        shared: Arc<Shared>,
        gate: Box<dyn Fn(u64) + Send>,
    ) -> Self {
        let pace = Pace::new(parameters.max_transaction_bytes);
        Self {
            parameters,
            spool,
            shared,
            gate,
            life: Stopwatch::start(),
            quiet: RefCell::default(),
            pause_s: 0.0,
            pace,
            skip: BTreeSet::new(),
            singly: false,
            refused_in_a_row: 0,
        }
    }

    /// Runs until stopped.
    pub fn run(mut self) {
        let mut session: Option<Session> = None;
        let mut tidied = Stopwatch::start();
        let mut said_held = false;
        loop {
            let nothing_left = || self.spool.status().waiting_exposures == 0;
            if self.shared.stopped() || (self.shared.finishing() && nothing_left()) {
                return;
            }
            if tidied.elapsed() >= TIDY_EVERY {
                tidied = Stopwatch::start();
                self.tidy();
            }
            if let Some(reason) = self.held() {
                if !std::mem::replace(&mut said_held, true) {
                    tracing::info!("alerts are held in the spool on purpose: {reason}");
                }
                session = None;
                self.shared.note(|status| status.state = State::Held);
                if self.shared.finishing() {
                    return;
                }
                self.shared.sleep(Duration::from_millis(500));
                continue;
            }
            said_held = false;
            let outcome = match session.take() {
                None => self.introduce().map(Some),
                Some(open) => self.work(open),
            };
            match outcome {
                Ok(next) => session = next,
                Err(Trouble::Stopped) => {}
                Err(trouble) => self.suffer(trouble),
            }
        }
    }

    fn held(&self) -> Option<String> {
        if self.parameters.publish { self.shared.held() } else { Some("[uplink] publish = false".into()) }
    }

    fn tidy(&self) {
        let outcome = self.spool.trim(unix_s()).and_then(|()| self.spool.retry_what_was_asked_for());
        match outcome {
            Ok(0) => {}
            Ok(n) => tracing::info!("{n} alerts or exposures are sent again, as asked for"),
            Err(error) => tracing::error!("{error}"),
        }
    }

    fn with_surroundings<T>(&self, work: impl FnOnce(&Surroundings<'_>) -> T) -> T {
        let stopped = || self.shared.stopped();
        let waiting = |fault: Option<Fault>| {
            if let Some(fault) = fault.filter(|fault| fault.class != Class::Other) {
                self.tell(&fault);
            }
        };
        work(&Surroundings { parameters: &self.parameters, spool: &self.spool, stopped: &stopped, waiting: &waiting })
    }

    fn introduce(&mut self) -> Result<Session, Trouble> {
        let session = self.with_surroundings(|around| Session::start(around, self.singly))?;
        self.well();
        Ok(session)
    }

    /// One transaction, or a short wait for something to send. `None` asks for a new session.
    fn work(&mut self, mut session: Session) -> Result<Option<Session>, Trouble> {
        if !self.spool.wait_for_work(Duration::from_millis(200)) {
            return Ok(session.idle().is_none().then_some(session));
        }
        let budget = if session.singly() { SEARCH.min(self.pace.budget()) } else { self.pace.budget() };
        let carried = self.with_surroundings(|around| session.deliver(around, budget, &self.skip))?;
        self.pace.learn(carried.bytes, carried.seconds);
        self.note(&carried);
        self.well();
        self.refused_in_a_row = 0;
        let waiting: BTreeSet<u64> = self.skip.iter().map(|at| at.sequence).collect();
        for sequence in waiting {
            if self.spool.next_waiting(self.parameters.order, &|s| s != sequence).is_none() {
                self.skip.retain(|at| at.sequence != sequence);
            }
        }
        let searched = session.singly();
        self.singly = false;
        Ok((!carried.doubtful && !searched).then_some(session))
    }

    fn note(&self, carried: &Carried) {
        let mut total = 0;
        self.shared.note(|status| {
            status.acknowledged_alerts += carried.alerts;
            status.acknowledged_exposures += carried.exposures;
            status.transactions += 1;
            status.rate = self.pace.rate();
            total = status.acknowledged_alerts;
        });
        (self.gate)(total);
    }

    /// The broker answers; says so when it did not before.
    fn well(&mut self) {
        self.pause_s = 0.0;
        if let Some(away) = self.quiet.borrow_mut().recovered(self.life.elapsed()) {
            let spool = self.spool.status();
            tracing::info!(
                "uplink is back after {}: {} alerts of {} exposures wait and are sent now",
                people(away),
                spool.waiting_alerts,
                spool.waiting_exposures
            );
        }
        self.shared.note(|status| {
            status.state = State::Connected;
            status.last_error = None;
        });
    }

    /// Says what is wrong, if it has not just been said.
    fn tell(&self, fault: &Fault) {
        let advice = fault.class.advice(&self.parameters.brokers.join(","));
        self.shared.note(|status| {
            status.state = State::Away;
            status.last_error = Some(format!("{}: {advice}", fault.text));
        });
        if self.quiet.borrow_mut().worth_saying(fault.class, self.life.elapsed()) {
            let spool = self.spool.status();
            tracing::warn!(
                "uplink is away ({}): {advice}; {} alerts of {} exposures wait in the spool and none is lost",
                fault.text,
                spool.waiting_alerts,
                spool.waiting_exposures
            );
        }
    }

    fn suffer(&mut self, trouble: Trouble) {
        match trouble {
            Trouble::Stopped => {}
            Trouble::Broker(fault) => {
                self.tell(&fault);
                self.pause(fault.class.longest_pause_s());
            }
            Trouble::Spool(error) => {
                tracing::error!("{error}");
                self.shared.note(|status| status.last_error = Some(error.to_string()));
                self.pause(Class::Other.longest_pause_s());
            }
            Trouble::Refused { at, code, others } => self.refused(at, code, others),
        }
    }

    /// A record is refused. First it must be found with certainty; then it goes to `dead/`,
    /// unless nothing of its exposure goes through, which means that the topic is at fault.
    fn refused(&mut self, at: Aside, code: RDKafkaErrorCode, others: u64) {
        if !self.singly && others != u64::MAX {
            self.singly = true;
            return;
        }
        self.refused_in_a_row = if others > 0 { 0 } else { self.refused_in_a_row + 1 };
        if self.refused_in_a_row >= SUSPICIOUS {
            self.tell(&Fault { class: Class::Record, text: format!("every alert is refused: {code}") });
            self.pause(Class::Record.longest_pause_s());
            return;
        }
        match self.bury(at, &code.to_string()) {
            Ok(()) => {
                self.skip.insert(at);
                self.shared.note(|status| status.refused += 1);
                tracing::error!(
                    "alert {} of exposure number {} is refused by the broker ({code}) and is kept in dead/; the others are sent; `nightjar spool retry` sends it again",
                    at.number,
                    at.sequence
                );
            }
            Err(error) => {
                tracing::error!("{error}");
                self.pause(Class::Other.longest_pause_s());
            }
        }
    }

    fn bury(&self, at: Aside, reason: &str) -> Result<(), SpoolError> {
        let segment = self.spool.read(at.sequence)?;
        let message = segment.record(at.number).map_err(|error| SpoolError::Segment {
            place: self.spool.place(),
            sequence: at.sequence,
            why: error.to_string(),
        })?;
        self.spool.bury(at, &message, reason)
    }

    fn pause(&mut self, longest_s: f64) {
        self.pause_s = (self.pause_s * 2.0).clamp(0.25, longest_s);
        self.shared.sleep(Duration::from_secs_f64(self.pause_s));
    }
}

/// A duration for people.
fn people(time: Duration) -> String {
    match time.as_secs() {
        s @ 0..120 => format!("{s} s"),
        s @ 120..7200 => format!("{} min", s / 60),
        s => format!("{} h", s / 3600),
    }
}
