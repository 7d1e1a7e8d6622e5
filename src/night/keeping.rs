//! From detections to alerts that are durable: names, packets, spool, ledger, in this order.
//!
//! ```text
//! history.look_up ─► alert::packets ─► spool.commit ─► history.record
//! ```
//!
//! The exposure is done when the last of them has returned. A run that dies before leaves an
//! exposure that is not done; the next run makes the same names and the same packets, and the spool
//! recognises its twin.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::alert::{Alert, AlertError, AlertParameters, Profile, packets, upper_limit};
use crate::detect::Detections;
use crate::exposure::{Exposure, ExposureId};
use crate::history::{Footprint, History, HistoryError, Outcome, Question, Searched, Sighting};
use crate::registry::{Numbers, RegistryError};
use crate::spool::{Message, Reservation, Spool, SpoolError};
use crate::time::Mjd;

/// Room that is made in the spool before the work on an exposure begins, bytes: 1,000 alerts.
pub const EXPOSURE_BYTES: u64 = 80 << 20;

/// Why an exposure is not done yet: something outside it. It is tried again.
#[derive(Debug, thiserror::Error)]
pub enum Held {
    /// The spool takes no more.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// The history cannot be read or written.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// The schema has no number yet.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// What a rehearsal leaves cannot be written.
    #[error(transparent)]
    Leavings(#[from] super::leavings::LeavingsError),
}

/// Names, packets, spool and ledger.
pub struct Keeping {
    history: Mutex<History>,
    spool: Arc<Spool>,
    parameters: AlertParameters,
    /// Numbers of the schema, with the registry profile.
    numbers: Option<Numbers>,
    code: String,
    days: f64,
    /// What was said of the catalogues; once is enough.
    told: Mutex<BTreeSet<String>>,
}

impl Keeping {
    /// Joins them. `code` is the observatory's three letters, `days` how far back packets tell.
    pub fn new(history: History, spool: Arc<Spool>, parameters: AlertParameters, code: &str, days: f64) -> Self {
        Self {
            history: Mutex::new(history),
            spool,
            parameters,
            numbers: None,
            code: code.to_owned(),
            days,
            told: Mutex::default(),
        }
    }

    /// Frames packets for readers that ask a schema registry.
    pub fn with_numbers(self, numbers: Option<Numbers>) -> Self {
        Self { numbers, ..self }
    }

    /// The spool.
    pub fn spool(&self) -> &Arc<Spool> {
        &self.spool
    }

    /// Whether the ledger says that an exposure is done.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be read.
    pub fn is_done(&self, exposure: &ExposureId) -> Result<bool, HistoryError> {
        let entry = self.history().ledger(exposure)?;
        Ok(entry.is_some_and(|entry| matches!(entry.outcome, Outcome::Done { .. })))
    }

    /// Makes room for an exposure, before the work on it begins.
    ///
    /// # Errors
    ///
    /// When there is none: the frame must wait.
    pub fn reserve(&self) -> Result<Reservation, Held> {
        Ok(self.spool.reserve(EXPOSURE_BYTES)?)
    }

    /// Names the candidates and makes their packets; nothing is kept yet.
    ///
    /// # Errors
    ///
    /// When the history cannot be read, or the schema has no number yet.
    pub fn packets(&self, detections: &Detections) -> Result<Result<Vec<Alert>, AlertError>, Held> {
        let places: Vec<(f64, f64)> = detections.accepted().map(|candidate| (candidate.ra, candidate.dec)).collect();
        let question = Question::about(&detections.exposure, &self.code, self.days);
        let pasts = self.history().look_up(&places, &question)?;
        let alerts = match self.profile(detections)? {
            Some(profile) => packets(detections, &pasts, &AlertParameters { profile, ..self.parameters.clone() }),
            None => packets(detections, &pasts, &self.parameters),
        };
        self.tell_of_catalogues(detections.exposure.start);
        Ok(alerts)
    }

    /// The framing for the exposure's topic, with the registry profile.
    fn profile(&self, detections: &Detections) -> Result<Option<Profile>, RegistryError> {
        let Some(numbers) = &self.numbers else { return Ok(None) };
        let schema_id = numbers.of(&self.parameters.topic_of(detections.exposure.night))?;
        if let Some(notice) = numbers.take_notice() {
            tracing::warn!("{notice}");
        }
        Ok(Some(Profile::Registry { schema_id }))
    }

    /// Says once what is wrong with a catalogue in use; the night goes on without what it would have told.
    fn tell_of_catalogues(&self, time: Mjd) {
        let stars = self.parameters.star_catalogue.as_ref().and_then(|stars| stars.damage().map(str::to_owned));
        let orbits = self.parameters.asteroids.as_ref().and_then(|asteroids| asteroids.stale(time));
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        for (kind, sentence) in [("stars", stars), ("orbits", orbits)] {
            if let Some(sentence) = sentence.filter(|_| told.insert(kind.to_owned())) {
                tracing::error!("{sentence}");
            }
        }
    }

    /// Makes the alerts durable and the exposure done; gives the number of its spool file.
    ///
    /// # Errors
    ///
    /// When spool or ledger refuse: the exposure is not done.
    pub fn keep(&self, room: Reservation, detections: &Detections, alerts: Vec<Alert>) -> Result<Option<u64>, Held> {
        let exposure = &detections.exposure;
        let (messages, sightings): (Vec<Message>, Vec<Sighting>) = alerts.into_iter().map(parted).unzip();
        let spool = match messages.is_empty() {
            true => None,
            false => Some(match self.spool.commit(room, &exposure.id, &messages) {
                Ok(receipt) => receipt.sequence,
                // An earlier run got as far as this: the same alerts are durable already.
                Err(SpoolError::Twin { sequence, .. }) => sequence,
                Err(error) => return Err(error.into()),
            }),
        };
        let searched = Searched {
            limit: upper_limit(detections, &self.parameters),
            footprint: Footprint(detections.conditions.corners),
            sightings: sightings.iter().collect(),
        };
        let outcome = Outcome::Done { spool, reason: String::new() };
        self.history().record(exposure, &outcome, Some(&searched))?;
        Ok(spool)
    }

    /// Writes into the ledger why an exposure makes no alerts: it is done.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be written.
    pub fn close_without_alerts(&self, exposure: &Exposure, reason: &str) -> Result<(), Held> {
        let outcome = Outcome::Done { spool: None, reason: reason.to_owned() };
        Ok(self.history().record(exposure, &outcome, None)?)
    }

    /// Writes into the ledger what an exposure waits for.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be written.
    pub fn defer(&self, exposure: &Exposure, reason: &str) -> Result<(), HistoryError> {
        self.history().record(exposure, &Outcome::Deferred { reason: reason.to_owned() }, None)
    }

    /// Copies the history beside itself, while it is in use.
    ///
    /// # Errors
    ///
    /// When the copy cannot be written.
    pub fn back_up(&self) -> Result<(), HistoryError> {
        self.history().back_up().map(|_| ())
    }

    fn history(&self) -> MutexGuard<'_, History> {
        // The database is whole whatever a thread died of.
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Opens the history at `file` and says what happened to it when it was damaged.
///
/// # Errors
///
/// When it cannot be opened.
pub fn open_history(file: &Path) -> Result<History, HistoryError> {
    let opened = History::open(file)?;
    if let Some(notice) = opened.notice {
        tracing::error!("{notice}");
    }
    Ok(opened.history)
}

/// What Kafka gets, and what the history keeps.
fn parted(alert: Alert) -> (Message, Sighting) {
    let Alert { topic, key, headers, payload, sighting, .. } = alert;
    (Message { topic, key, headers, payload }, sighting)
}
