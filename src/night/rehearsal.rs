//! A recorded night from raw frames to alerts that a consumer has read.
//!
//! The same pipeline, spool and uplink as at the telescope; the broker is one of this process
//! unless another is named, and a consumer reads the alerts back and is believed before anybody
//! else. Frames are not copied into a frame journal: the recorded night is one.

use std::collections::BTreeSet;
use std::net::{TcpStream, ToSocketAddrs};
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::intake::Waiting;
use super::keeping::{Held, Keeping, open_history};
use super::leavings::{ExposureSummary, Leavings, LeavingsError, Summary, Totals};
use super::outcome::Outcome;
use super::queue::FrameQueue;
use super::science::Science;
use super::{Night, belt, values};
use crate::camera::journal::Kept;
use crate::camera::replay::{Pace, Recorded, RecordedNight};
use crate::exposure::FrameKind;
use crate::history::HistoryError;
use crate::service::credentials::CredentialError;
use crate::service::{Hearts, Shutdown, Stopwatch, memory};
use crate::settings::Settings;
use crate::spool::{Order, Spool, SpoolError};
use crate::uplink::embedded::EmbeddedBroker;
use crate::uplink::follower::{Followed, Follower};
use crate::uplink::{Uplink, UplinkError, UplinkParameters};

/// How long a broker may take to answer at all.
const BROKER_PATIENCE: Duration = Duration::from_secs(5);
/// How long the last alerts may take to arrive after the last exposure.
const DRAIN_PATIENCE: Duration = Duration::from_secs(120);
/// How long the consumer may take to read what is acknowledged.
const READ_PATIENCE: Duration = Duration::from_secs(60);

/// Asks the broker for its own number of copies of a new topic.
const BROKERS_REPLICATION: i32 = -1;

/// Where the alerts of a rehearsal go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Broker {
    /// A broker that lives in this process.
    Embedded,
    /// `host:port` of a Kafka broker.
    At(String),
}

/// Why a rehearsal could not be held, or was broken off.
#[derive(Debug, thiserror::Error)]
pub enum RehearsalError {
    /// The output.
    #[error(transparent)]
    Leavings(#[from] LeavingsError),
    /// The night's history.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// The spool.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// An exposure could not be kept.
    #[error("exposure {exposure} could not be kept: {held}")]
    Held {
        /// The exposure.
        exposure: String,
        /// What was in the way.
        held: Held,
    },
    /// Nobody answers there.
    #[error(
        "no broker answers at {address} ({reason}); start Kafka there, correct --broker, or leave it away for the embedded one"
    )]
    NoBroker {
        /// As it was given.
        address: String,
        /// What the system said.
        reason: String,
    },
    /// The client.
    #[error(transparent)]
    Uplink(#[from] UplinkError),
    /// A secret.
    #[error(transparent)]
    Credential(#[from] CredentialError),
}

/// What a rehearsal came to.
#[derive(Debug)]
pub struct Rehearsed {
    /// What `summary.json` says.
    pub summary: Summary,
    /// What the consumer read.
    pub read: Followed,
    /// The references that were built after the last exposure, a sentence each.
    pub references: Vec<String>,
    /// The last trouble of the uplink, when alerts did not arrive.
    pub trouble: Option<String>,
}

impl Rehearsed {
    /// The sentence on whether what is durable, acknowledged and read are the same alerts.
    pub fn verdict(&self) -> Result<String, String> {
        let totals = &self.summary.totals;
        let numbers = format!(
            "{} alerts are durable, {} acknowledged by the broker, {} read back by a consumer",
            totals.alerts, totals.acknowledged, self.read.alerts
        );
        let agree = totals.alerts == totals.acknowledged && totals.alerts as u64 == self.read.alerts;
        match &self.trouble {
            _ if self.read.repeated > 0 => Err(format!("{numbers}, {} of them more than once", self.read.repeated)),
            _ if agree => Ok(numbers),
            Some(trouble) => Err(format!("{numbers}: they do not agree; the uplink said: {trouble}")),
            None => Err(format!("{numbers}: they do not agree; look at the broker's log and run it again")),
        }
    }
}

/// Whether anybody answers at `address`.
///
/// # Errors
///
/// When nobody does within some seconds.
pub fn probe(address: &str) -> Result<(), RehearsalError> {
    let none = |reason: String| RehearsalError::NoBroker { address: address.to_owned(), reason };
    let addresses: Vec<_> = address.to_socket_addrs().map_err(|e| none(e.to_string()))?.collect();
    let mut last = none("the name has no address".into());
    for address in addresses {
        match TcpStream::connect_timeout(&address, BROKER_PATIENCE) {
            Ok(_) => return Ok(()),
            Err(error) => last = none(error.to_string()),
        }
    }
    Err(last)
}

/// Runs the light frames of `night` at `pace`; `report` hears of each exposure.
///
/// # Errors
///
/// When broker, disk or history are in the way.
pub fn rehearse(
    night: &RecordedNight,
    science: Science,
    settings: &Settings,
    pace: Pace,
    broker: &Broker,
    leavings: Leavings,
    report: &mut dyn FnMut(&Outcome),
) -> Result<Rehearsed, RehearsalError> {
    let lights: Vec<&Recorded> = night.of_kind(FrameKind::Light).collect();
    let alert_parameters = values::alert_parameters(settings);
    let topics: BTreeSet<String> = lights.iter().map(|frame| alert_parameters.topic_of(frame.exposure.night)).collect();
    let embedded = match broker {
        Broker::Embedded => Some(EmbeddedBroker::start()?),
        Broker::At(_) => None,
    };
    let parameters = match (&embedded, broker) {
        (Some(embedded), _) => {
            topics.iter().try_for_each(|topic| embedded.create_topic(topic))?;
            embedded.parameters()
        }
        (None, Broker::At(address)) => at(address, settings),
        (None, Broker::Embedded) => UplinkParameters::default(),
    };
    let spool = Arc::new(Spool::open(&leavings.folder().join("spool"), values::spool_parameters(settings))?);
    let history = open_history(&leavings.folder().join("history.sqlite"))?;
    let follower = Follower::start(&parameters, &pattern(&topics), spool.uuid(), |_| ())?;
    let uplink = Uplink::start_gated(parameters, spool.clone(), follower.gate())?;

    let days = f64::from(settings.history.days);
    let keeping = Keeping::new(history, spool.clone(), alert_parameters, &settings.observatory.code, days)
        .with_numbers(values::schema_numbers(settings, &leavings.folder().join("spool"))?);
    let pipeline = Night::new(science, keeping, Hearts::new(Duration::MAX), Some(leavings));
    let clock = Stopwatch::start();
    let outcomes = play(&pipeline, &lights, pace, report)?;

    uplink.drain(DRAIN_PATIENCE);
    let seconds = clock.seconds();
    let status = uplink.status();
    follower.wait_for(status.acknowledged_alerts, READ_PATIENCE);
    let exposures: Vec<ExposureSummary> =
        outcomes.iter().map(|outcome| ExposureSummary::of(outcome, acknowledged(outcome, &spool))).collect();
    let totals = Totals {
        exposures: exposures.len(),
        alerts: exposures.iter().map(|exposure| exposure.alerts).sum(),
        acknowledged: status.acknowledged_alerts as usize,
        seconds,
        peak_rss_mb: memory::peak_rss_mb(),
    };
    let summary = Summary { exposures, totals };
    let references = Mutex::new(Vec::new());
    pipeline.build_references(&|line| references.lock().unwrap_or_else(PoisonError::into_inner).push(line.to_owned()));
    let references = references.into_inner().unwrap_or_else(PoisonError::into_inner);
    if let Some(leavings) = pipeline.into_leavings() {
        leavings.finish(&summary)?;
    }
    uplink.stop(Duration::ZERO);
    Ok(Rehearsed { summary, read: follower.finish(), trouble: status.last_error, references })
}

/// Feeds the frames to the pipeline when they are due and collects what they came to.
fn play(
    pipeline: &Night,
    lights: &[&Recorded],
    pace: Pace,
    report: &mut dyn FnMut(&Outcome),
) -> Result<Vec<Outcome>, RehearsalError> {
    let (queue, shutdown) = (FrameQueue::default(), Shutdown::new());
    let mut outcomes = Vec::new();
    let mut broken_off = None;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            feed(&queue, lights, pace, &shutdown);
            queue.close();
        });
        belt::run(
            &queue,
            &shutdown,
            |waiting| pipeline.prepare(waiting),
            |mut prepared| match pipeline.finish(&mut prepared) {
                Ok(outcome) => {
                    report(&outcome);
                    outcomes.push(outcome);
                    ControlFlow::Continue(())
                }
                Err(held) => {
                    let exposure = prepared.waiting.exposure.id.to_string();
                    broken_off = Some(RehearsalError::Held { exposure, held });
                    ControlFlow::Break(())
                }
            },
        );
        shutdown.request();
    });
    broken_off.map_or(Ok(outcomes), Err)
}

fn feed(queue: &FrameQueue<Waiting>, lights: &[&Recorded], pace: Pace, shutdown: &Shutdown) {
    let Some(first) = lights.first().map(|frame| frame.exposure.start) else { return };
    let clock = Stopwatch::start();
    for frame in lights {
        let due = Duration::from_secs_f64(pace.due_s(first, &frame.exposure));
        if shutdown.sleep(due.saturating_sub(clock.elapsed())) {
            return;
        }
        let kept = Kept { id: frame.exposure.id.clone(), path: frame.path.clone() };
        queue.push(Waiting { kept, exposure: frame.exposure.clone() });
    }
}

/// A real broker for a rehearsal: what the settings say of topics, at this address.
fn at(address: &str, settings: &Settings) -> UplinkParameters {
    let mut parameters = values::uplink_values(settings);
    parameters.brokers = vec![address.to_owned()];
    parameters.publish = true;
    // As the broker has it: a rehearsal runs on what there is.
    parameters.topics.replication = BROKERS_REPLICATION;
    parameters
}

/// The topics as the consumer subscribes to them: a name, or a regular expression from `^` on.
fn pattern(topics: &BTreeSet<String>) -> String {
    match topics.iter().collect::<Vec<_>>().as_slice() {
        [one] => (*one).clone(),
        several => {
            let escaped: Vec<String> = several.iter().map(|topic| topic.replace('.', "\\.")).collect();
            format!("^({})$", escaped.join("|"))
        }
    }
}

/// How many of an exposure's alerts are no longer waiting in the spool.
fn acknowledged(outcome: &Outcome, spool: &Spool) -> usize {
    let sequence = outcome.result.as_ref().ok().and_then(|found| found.sequence);
    let waiting = sequence.and_then(|number| spool.next_waiting(Order::OldestFirst, &|other| other != number));
    waiting.map_or(outcome.alerts(), |waiting| waiting.settled as usize)
}
