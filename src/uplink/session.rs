//! One life of the producer: start-up protocol, then transactions until something is in doubt.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rdkafka::error::KafkaError;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::types::RDKafkaErrorCode as Code;

use super::broker_cursor;
use super::client::{self, Fault, SLICE, Watch};
use super::failure::{Class, classify};
use super::refusals::Refusals;
use super::silence::{Patience, Silence};
use super::topics::{Purpose, Topics};
use super::{Delivery, UplinkParameters};
use crate::service::clock::{self, Stopwatch};
use crate::spool::segment::ReadError;
use crate::spool::{Aside, Message, Spool, SpoolError};

/// Opaque of the cursor record among the delivery reports.
const CURSOR: usize = usize::MAX;

/// Why a session ended.
#[derive(Debug)]
pub enum Trouble {
    /// The broker or the link.
    Broker(Fault),
    /// A record is refused. Which one is certain only when records were sent singly.
    Refused {
        /// The record.
        at: Aside,
        /// What the broker said.
        code: Code,
        /// Records of the same transaction that went through.
        others: u64,
    },
    /// Of all that waits nothing goes through.
    AllRefused(Code),
    /// Without the suspects others go through.
    OthersPass,
    /// The disk.
    Spool(SpoolError),
    /// Somebody wants to stop.
    Stopped,
}

impl From<SpoolError> for Trouble {
    fn from(error: SpoolError) -> Self {
        Self::Spool(error)
    }
}

/// What a transaction carried.
#[derive(Debug, Clone, Copy, Default)]
pub struct Carried {
    /// Alerts committed.
    pub alerts: u64,
    /// Exposures completed.
    pub exposures: u64,
    /// Bytes of keys and payloads.
    pub bytes: u64,
    /// Seconds from begin to commit.
    pub seconds: f64,
    /// The connection had trouble on the way: start over with a new producer.
    pub doubtful: bool,
}

/// Unix time of the host, seconds.
pub fn unix_s() -> i64 {
    clock::now().unix_seconds() as i64
}

/// Everything a session works with.
pub struct Surroundings<'a> {
    /// What was set.
    pub parameters: &'a UplinkParameters,
    /// Where alerts come from.
    pub spool: &'a Spool,
    /// Whether to give up at once.
    pub stopped: &'a dyn Fn() -> bool,
    /// Told now and then, inside long waits, what the client last complained of.
    pub waiting: &'a dyn Fn(Option<Fault>),
    /// Topics and findings that were told of once.
    pub reported: &'a RefCell<BTreeSet<String>>,
    /// With brokers that say nothing.
    pub patience: &'a Patience,
}

/// The time of a transaction.
struct Timing<'a> {
    watch: Stopwatch,
    silence: Silence<'a>,
}

/// A producer that has been introduced to the broker.
pub struct Session {
    producer: BaseProducer<Watch>,
    topics: Topics,
    singly: bool,
    transactional: bool,
    fresh: bool,
}

impl Session {
    /// Makes a producer, fences any other of our name, settles what was in doubt, reads the cursor.
    pub fn start(around: &Surroundings<'_>, singly: bool) -> Result<Self, Trouble> {
        let Surroundings { parameters, spool, .. } = around;
        let producer = client::producer(parameters, spool.uuid(), singly)
            .map_err(|e| Trouble::Broker(Fault::new("making the producer", &e)))?;
        let mut topics = Topics::new(parameters).map_err(Trouble::Broker)?;
        let session_topics = |t: &mut Topics| {
            let cursor = &parameters.cursor_topic;
            t.ensure(parameters, cursor, Purpose::Cursor, around.reported).map_err(Trouble::Broker)
        };
        if parameters.delivery == Delivery::ExactlyOnce {
            init(&producer, around)?;
        }
        session_topics(&mut topics).map_err(|trouble| blame(trouble, producer.context()))?;
        let cursor =
            broker_cursor::read(parameters, spool.uuid(), around.stopped).map_err(Trouble::Broker)?.unwrap_or_default();
        for finding in spool.reconcile(&cursor, unix_s()) {
            if around.reported.borrow_mut().insert(finding.to_string()) {
                tracing::warn!("{finding}");
            }
        }
        producer.poll(Duration::ZERO);
        producer.context().settle();
        let transactional = parameters.delivery == Delivery::ExactlyOnce;
        Ok(Self { producer, topics, singly, transactional, fresh: true })
    }

    /// Whether records are sent one a batch.
    pub fn singly(&self) -> bool {
        self.singly
    }

    /// Serves callbacks; whether this producer may still be used. A connection that broke may
    /// have left a request behind that acts later, so the next transaction gets a new epoch.
    pub fn is_sound(&self) -> bool {
        self.producer.poll(Duration::ZERO);
        self.fresh || !self.producer.context().disturbed()
    }

    /// Sends up to about `budget` bytes of what waits, and commits them.
    pub fn deliver(&mut self, around: &Surroundings<'_>, budget: u64, refusals: &Refusals) -> Result<Carried, Trouble> {
        let timing = Timing { watch: Stopwatch::start(), silence: around.patience.begin() };
        let transactional = self.transactional;
        self.producer.context().reset();
        self.fresh = false;
        if transactional {
            self.producer.begin_transaction().map_err(|e| self.broker("beginning a transaction", &e))?;
        }
        let outcome = self.carry(around, budget, refusals, &timing);
        if outcome.is_err() && transactional {
            // So that readers need not wait; if this fails too, the next session settles it.
            let _ = self.producer.abort_transaction(2 * SLICE);
        }
        outcome
    }

    fn carry(
        &mut self,
        around: &Surroundings<'_>,
        budget: u64,
        refusals: &Refusals,
        timing: &Timing<'_>,
    ) -> Result<Carried, Trouble> {
        let Surroundings { parameters, spool, .. } = around;
        let mut sent: Vec<Aside> = Vec::new();
        let mut steps: BTreeMap<u64, (u32, bool)> = BTreeMap::new();
        let mut bytes = 0;
        while bytes < budget {
            let Some(next) = spool.next_waiting(parameters.order, &|s| steps.contains_key(&s)) else { break };
            let segment = match spool.read(next.sequence) {
                Err(error @ SpoolError::Segment { .. }) => {
                    let (exposure, count) = spool.set_aside(next.sequence, unix_s())?;
                    tracing::error!(
                        "{error}: the {count} alerts of exposure {exposure} are kept in quarantine/ as they are; the others are sent; check the disk"
                    );
                    continue;
                }
                segment => segment?,
            };
            let mut number = next.settled;
            while number < next.count && (bytes == 0 || bytes < budget) {
                let at = Aside { sequence: next.sequence, number };
                match segment.record(number) {
                    _ if refusals.skips(&at) => {}
                    Ok(message) => {
                        self.topics
                            .ensure(parameters, &message.topic, Purpose::Alerts, around.reported)
                            .map_err(Trouble::Broker)?;
                        bytes += (message.payload.len() + message.key.len()) as u64;
                        let name = format!("{} {} {} {number}", spool.uuid(), next.epoch, next.sequence);
                        self.send(around, &message, &name, sent.len(), at, timing)?;
                        sent.push(at);
                    }
                    Err(ReadError::Damage(damage)) => {
                        spool.quarantine(next.sequence, number, &damage)?;
                        tracing::error!(
                            "alert {number} of exposure {} is damaged on disk ({damage}) and is kept in quarantine/; the others are sent; check the disk",
                            next.exposure
                        );
                    }
                    Err(ReadError::Io(source)) => {
                        let doing = format!("reading exposure {}", next.exposure);
                        return Err(SpoolError::Io { place: spool.place(), doing, source }.into());
                    }
                }
                number += 1;
            }
            steps.insert(next.sequence, (number, number >= next.count));
        }
        self.all_delivered(around, &sent, timing)?;
        let alerts = self.producer.context().delivered();
        if let Some(code) = refusals.suspect_in(&steps) {
            return Err(if alerts == 0 { Trouble::AllRefused(code) } else { Trouble::OthersPass });
        }
        let exposures = steps.values().filter(|(_, complete)| *complete).count() as u64;
        let steps: Vec<(u64, u32)> = steps.into_iter().map(|(sequence, (settled, _))| (sequence, settled)).collect();
        self.send_cursor(around, &steps, timing)?;
        self.all_delivered(around, &sent, timing)?;
        if parameters.delivery == Delivery::ExactlyOnce {
            self.commit(around, timing)?;
        }
        timing.silence.went_through();
        // A disk that takes no writes was told of; the broker keeps count.
        let _ = spool.settle(&steps, unix_s());
        let doubtful = !self.is_sound();
        Ok(Carried { alerts, exposures, bytes, seconds: timing.watch.seconds(), doubtful })
    }

    fn broker(&self, doing: &str, error: &KafkaError) -> Trouble {
        // What failed the transaction says more than what it led to.
        let cause = if self.transactional { client::transaction_error(&self.producer) } else { None };
        blame(Trouble::Broker(Fault::new(doing, cause.as_ref().unwrap_or(error))), self.producer.context())
    }

    /// Whether the transaction's time, less a margin to commit in, is over, or the brokers were silent for too long.
    /// Without transactions a new producer may send twice what was under way: only the former counts there.
    fn out_of_time(&self, around: &Surroundings<'_>, timing: &Timing<'_>) -> bool {
        let now = timing.watch.elapsed();
        now >= around.parameters.transaction_timeout.mul_f64(0.9)
            || self.transactional && timing.silence.too_long(self.producer.context().delivered(), now)
    }

    fn send(
        &self,
        around: &Surroundings<'_>,
        message: &Message,
        name: &str,
        index: usize,
        at: Aside,
        timing: &Timing<'_>,
    ) -> Result<(), Trouble> {
        let mut headers = OwnedHeaders::new_with_capacity(message.headers.len() + 1);
        for (key, value) in &message.headers {
            headers = headers.insert(Header { key, value: Some(value) });
        }
        headers = headers.insert(Header { key: "spool", value: Some(name) });
        let mut record = BaseRecord::with_opaque_to(&message.topic, index)
            .key(&message.key)
            .payload(&message.payload)
            .headers(headers);
        loop {
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(Code::QueueFull), back)) => {
                    record = back;
                    self.wait_a_little(around, timing)?;
                }
                Err((error, _)) => {
                    return Err(match error.rdkafka_error_code() {
                        Some(code) if classify(code) == Class::Record => {
                            Trouble::Refused { at, code, others: u64::MAX }
                        }
                        _ => self.broker("sending", &error),
                    });
                }
            }
        }
    }

    fn send_cursor(&self, around: &Surroundings<'_>, steps: &[(u64, u32)], timing: &Timing<'_>) -> Result<(), Trouble> {
        let cursor = around.spool.cursor_after(steps).encode();
        let key = around.spool.uuid().to_string();
        loop {
            let record = BaseRecord::with_opaque_to(&around.parameters.cursor_topic, CURSOR)
                .partition(broker_cursor::PARTITION)
                .key(&key)
                .payload(&cursor);
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(Code::QueueFull), _)) => self.wait_a_little(around, timing)?,
                Err((error, _)) => return Err(self.broker("sending the cursor", &error)),
            }
        }
    }

    fn wait_a_little(&self, around: &Surroundings<'_>, timing: &Timing<'_>) -> Result<(), Trouble> {
        self.producer.poll(Duration::from_millis(5));
        (around.waiting)(self.producer.context().take_last());
        if (around.stopped)() {
            return Err(Trouble::Stopped);
        }
        if self.out_of_time(around, timing) {
            return Err(self.broker("waiting for delivery reports", &KafkaError::Flush(Code::MessageTimedOut)));
        }
        Ok(())
    }

    /// How many records of the same topic were taken in this transaction: another night's topic may have other limits.
    fn others_of_its_topic(&self, around: &Surroundings<'_>, at: Aside) -> u64 {
        let record = around.spool.read(at.sequence).ok().and_then(|segment| segment.record(at.number).ok());
        record.map_or(0, |message| self.producer.context().delivered_to(&message.topic))
    }

    /// Waits for every delivery report; all must be good.
    fn all_delivered(&self, around: &Surroundings<'_>, sent: &[Aside], timing: &Timing<'_>) -> Result<(), Trouble> {
        let mut rounds = 0_u32;
        loop {
            self.producer.poll(Duration::ZERO);
            let failed = self.producer.context().failed();
            let refused = failed.iter().find(|(_, code)| classify(*code) == Class::Record);
            if let Some((index, code)) = refused {
                return Err(match sent.get(*index) {
                    Some(at) => {
                        Trouble::Refused { at: *at, code: *code, others: self.others_of_its_topic(around, *at) }
                    }
                    None => self.broker("sending the cursor", &KafkaError::MessageProduction(*code)),
                });
            }
            let worst = failed.iter().find(|(_, code)| !matches!(code, Code::PurgeQueue | Code::PurgeInflight));
            if let Some((_, code)) = worst.or(failed.first()) {
                return Err(self.broker("sending", &KafkaError::MessageProduction(*code)));
            }
            if let Some((code, text)) = self.producer.client().fatal_error() {
                return Err(Trouble::Broker(Fault { class: classify(code), text }));
            }
            if self.producer.in_flight_count() == 0 {
                return Ok(());
            }
            rounds += 1;
            if self.transactional
                && rounds.is_multiple_of(50)
                && let Some(error) = client::transaction_error(&self.producer)
            {
                return Err(self.broker("sending", &error));
            }
            self.wait_a_little(around, timing)?;
        }
    }

    fn commit(&self, around: &Surroundings<'_>, timing: &Timing<'_>) -> Result<(), Trouble> {
        loop {
            let error = match self.producer.commit_transaction(SLICE) {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            (around.waiting)(self.producer.context().take_last());
            let again = match &error {
                KafkaError::Transaction(e) => e.is_retriable() || e.code() == Code::OperationTimedOut,
                KafkaError::Flush(code) => *code == Code::OperationTimedOut,
                _ => false,
            };
            if !again || self.out_of_time(around, timing) {
                return Err(self.broker("committing", &error));
            }
            if (around.stopped)() {
                return Err(Trouble::Stopped);
            }
        }
    }
}

/// Keeps a refused record in `dead/`; others of its topic go through.
pub fn bury(spool: &Spool, at: Aside, code: Code) -> Result<(), SpoolError> {
    let message = spool.read(at.sequence)?.record(at.number).map_err(|error| SpoolError::Segment {
        place: spool.place(),
        sequence: at.sequence,
        why: error.to_string(),
    })?;
    spool.bury(at, &message, &code.to_string())
}

/// A client that only says "timed out" often told the reason through its callback.
fn blame(trouble: Trouble, watch: &Watch) -> Trouble {
    match (trouble, watch.take_last()) {
        (Trouble::Broker(fault), Some(last)) if fault.class == Class::Transport => Trouble::Broker(last),
        (trouble, _) => trouble,
    }
}

fn init(producer: &BaseProducer<Watch>, around: &Surroundings<'_>) -> Result<(), Trouble> {
    let watch = Stopwatch::start();
    loop {
        let result = producer.init_transactions(SLICE);
        producer.poll(Duration::ZERO);
        let error = match result {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        let again = match &error {
            KafkaError::Transaction(e) => e.is_retriable() || e.code() == Code::OperationTimedOut,
            _ => false,
        };
        if (around.stopped)() {
            return Err(Trouble::Stopped);
        }
        if !again || watch.elapsed() > Duration::from_secs(15) {
            let fault = Trouble::Broker(Fault::new("introducing the producer", &error));
            return Err(blame(fault, producer.context()));
        }
    }
}
