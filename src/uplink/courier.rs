//! The uplink's thread: one session after the other, and what is said about it.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::types::RDKafkaErrorCode;

use super::certificate;
use super::client::Fault;
use super::failure::Class;
use super::handle::{Shared, State};
use super::pace::Pace;
use super::quiet::Quiet;
use super::refusals::Refusals;
use super::session::{self, Carried, Session, Surroundings, Trouble, unix_s};
use super::silence::Patience;
use super::{Delivery, UplinkParameters};
use crate::service::clock::Stopwatch;
use crate::service::finding::Severity;
use crate::spool::{Aside, Spool};

/// How often the spool is trimmed, and what people asked to send again is looked for.
const TIDY_EVERY: Duration = Duration::from_secs(5);
/// How often the certificates are looked at.
const CERTIFICATES_EVERY: Duration = Duration::from_secs(24 * 3600);
/// Records that are refused before any goes through: then the topic may be at fault.
const SUSPICIOUS: usize = 3;
/// So many suspects are looked at before the topic is blamed once more, at most.
const MOST_SUSPECTS: usize = 4096;
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
    refusals: Refusals,
    suspicious: usize,
    singly: bool,
    /// Trouble of the disk as it was last said.
    said: RefCell<String>,
    reported: RefCell<BTreeSet<String>>,
    patience: Patience,
    certificates: Option<Stopwatch>,
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
        let buried = spool.buried_ahead().unwrap_or_else(|error| {
            tracing::error!("{error}");
            Vec::new()
        });
        Self {
            parameters,
            spool,
            shared,
            gate,
            life: Stopwatch::start(),
            quiet: RefCell::default(),
            pause_s: 0.0,
            pace,
            refusals: Refusals::new(buried),
            suspicious: SUSPICIOUS,
            singly: false,
            reported: RefCell::default(),
            said: RefCell::default(),
            patience: Patience::default(),
            certificates: None,
        }
    }

    /// Runs until stopped.
    pub fn run(mut self) {
        let mut session: Option<Session> = None;
        let mut tidied = Stopwatch::start();
        let mut said_held = false;
        self.note_delivery();
        loop {
            let nothing_left = || self.spool.status().waiting_exposures == 0;
            if self.shared.stopped() || (self.shared.finishing() && nothing_left()) {
                return;
            }
            if tidied.elapsed() >= TIDY_EVERY {
                tidied = Stopwatch::start();
                self.tidy();
                self.look_at_certificates();
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

    /// The mode in force stands in the spool, so that a change of mind in the middle of a backlog is seen.
    fn note_delivery(&self) {
        let now = match self.parameters.delivery {
            Delivery::ExactlyOnce => "exactly-once",
            Delivery::Idempotent => "idempotent",
        };
        match self.spool.note_delivery(now) {
            Ok(None) => {}
            Ok(Some(before)) => tracing::warn!(
                "[uplink] delivery is {now} and was {before} when the alerts that wait were taken; they are sent as {now}"
            ),
            Err(error) => tracing::error!("{error}"),
        }
    }

    fn look_at_certificates(&mut self) {
        if self.certificates.is_some_and(|watch| watch.elapsed() < CERTIFICATES_EVERY) {
            return;
        }
        self.certificates = Some(Stopwatch::start());
        for finding in certificate::in_settings(&self.parameters.security, unix_s()) {
            if finding.severity > Severity::Ok {
                tracing::warn!("{}; {}", finding.text, finding.remedy);
            }
        }
    }

    fn tidy(&self) {
        let outcome = self.spool.trim(unix_s()).and_then(|()| self.spool.retry_what_was_asked_for());
        match outcome {
            Ok(0) => {}
            Ok(n) => tracing::info!("{n} alerts or exposures are sent again, as asked for"),
            Err(error) => return self.say_once(&error.to_string()),
        }
        self.said.borrow_mut().clear();
    }

    /// Trouble of the disk, which comes again every few seconds.
    fn say_once(&self, text: &str) {
        let mut said = self.said.borrow_mut();
        if *said != text {
            tracing::error!("{text}");
            text.clone_into(&mut said);
        }
    }

    fn with_surroundings<T>(&self, work: impl FnOnce(&Surroundings<'_>) -> T) -> T {
        let stopped = || self.shared.stopped();
        let waiting = |fault: Option<Fault>| {
            if let Some(fault) = fault.filter(|fault| fault.class != Class::Other) {
                self.tell(&fault);
            }
        };
        work(&Surroundings {
            parameters: &self.parameters,
            spool: &self.spool,
            stopped: &stopped,
            waiting: &waiting,
            reported: &self.reported,
            patience: &self.patience,
        })
    }

    fn introduce(&mut self) -> Result<Session, Trouble> {
        let session = self.with_surroundings(|around| Session::start(around, self.singly))?;
        self.shared.note(|status| status.sessions += 1);
        // Whether alerts get through is known when some have: a permission or a replica may be missing.
        if self.spool.status().waiting_exposures == 0 {
            self.well();
        }
        Ok(session)
    }

    /// One transaction, or a short wait for something to send. `None` asks for a new session.
    fn work(&mut self, mut session: Session) -> Result<Option<Session>, Trouble> {
        let work = self.spool.wait_for_work(Duration::from_millis(200));
        let sound = session.is_sound();
        if !work || !sound {
            return Ok((!work || sound).then_some(session));
        }
        let budget = if session.singly() { SEARCH.min(self.pace.budget()) } else { self.pace.budget() };
        self.shared.delivering(true);
        let carried = self.with_surroundings(|around| session.deliver(around, budget, &self.refusals));
        if let Ok(carried) = &carried {
            self.note(carried);
        }
        self.shared.delivering(false);
        let carried = carried?;
        self.pace.learn(carried.bytes, carried.seconds);
        self.well();
        self.suspicious = SUSPICIOUS;
        let (spool, order) = (&self.spool, self.parameters.order);
        self.refusals.forget(|sequence| spool.next_waiting(order, &|s| s != sequence).is_none());
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
                self.say_once(&error.to_string());
                self.shared.note(|status| status.last_error = Some(error.to_string()));
                self.pause(Class::Other.longest_pause_s());
            }
            Trouble::Refused { at, code, others } => self.refused(at, code, others),
            Trouble::AllRefused(code) => self.blame_the_topic(code),
            Trouble::OthersPass => self.refusals.accuse(),
        }
    }

    /// A record is refused. First it must be found with certainty; then others must go through, or it
    /// is not the record's fault.
    fn refused(&mut self, at: Aside, code: RDKafkaErrorCode, others: u64) {
        // Too large for the client itself, whatever the topic takes.
        let too_large = others == u64::MAX;
        let certain = self.singly || too_large;
        self.singly = true;
        if !certain {
            return;
        }
        if others > 0 || self.refusals.is_accused(&at) {
            return match session::bury(&self.spool, at, code) {
                Ok(()) => self.tell_of_the_dead(at, code),
                Err(error) => self.suffer(Trouble::Spool(error)),
            };
        }
        self.refusals.suspect(at, code);
        if self.refusals.suspected() >= self.suspicious {
            // An exposure may begin with many alerts that are too large: look further each time.
            self.suspicious = (self.suspicious * 2).min(MOST_SUSPECTS);
            self.blame_the_topic(code);
        }
    }

    fn blame_the_topic(&mut self, code: RDKafkaErrorCode) {
        self.refusals.acquit();
        self.tell(&Fault { class: Class::Record, text: format!("every alert is refused: {code}") });
        self.pause(Class::Record.longest_pause_s());
    }

    fn tell_of_the_dead(&mut self, at: Aside, code: RDKafkaErrorCode) {
        self.refusals.bury(at);
        self.shared.note(|status| status.refused += 1);
        tracing::error!(
            "alert {} of exposure number {} is refused by the broker ({code}) and is kept in dead/; the others are sent; `nightjar spool retry` sends it again",
            at.number,
            at.sequence
        );
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
