//! Following topics: a consumer group whose positions are those of the files.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers, Message as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::{RDKafkaErrorCode as Code, RDKafkaRespErr};

use super::ArchiveError;
use super::container::Codec;
use super::end::{nothing_follows, probe};
use super::folder::Folder;
use super::keep::{Due, Keeper, Message};
use crate::service::clock::Stopwatch;
use crate::service::shutdown::Shutdown;

/// What a call to the group's coordinator may take.
pub(super) const CALL: Duration = Duration::from_secs(30);
/// How long joining the group may take: members that died are waited for.
const LONGEST_JOINING_S: f64 = 90.0;
/// How long the broker may be silent at the start.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// What is archived, and how.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Names of topics, or patterns that begin with `^`.
    pub topics: Vec<String>,
    /// The consumer group.
    pub group: String,
    /// The archive's folder.
    pub out: PathBuf,
    /// How blocks are compressed.
    pub codec: Codec,
    /// A file ends at this size.
    pub most_bytes: u64,
    /// A file ends at this age.
    pub most_seconds: f64,
    /// Stop when everything that is there is archived.
    pub to_end: bool,
    /// Begin where the topics begin and take what no file answers for, whatever the group had.
    pub from_files: bool,
}

/// What was done.
#[derive(Debug, Clone, Copy, Default)]
pub struct Done {
    /// Alerts in files.
    pub alerts: u64,
    /// Bytes of the messages that they came in.
    pub bytes: u64,
    /// Messages that are no alerts.
    pub refused: u64,
    /// Seconds from the first message to the last file.
    pub seconds: f64,
}

type Place = (String, i32);
type Ranges = BTreeMap<Place, Vec<(i64, i64)>>;

/// The offset after the last that a file answers for.
fn following(ranges: &Ranges, place: &Place) -> Option<i64> {
    ranges.get(place)?.iter().map(|(_, following)| *following).max()
}

/// Whether a file answers for this offset.
fn is_held(ranges: &Ranges, place: &Place, offset: i64) -> bool {
    ranges.get(place).is_some_and(|list| list.iter().any(|(first, following)| (*first..*following).contains(&offset)))
}

/// What the callbacks of the consumer know and tell.
struct Hands {
    /// The ranges that files answer for, by place.
    ranges: Mutex<Ranges>,
    /// Where each of this process's places goes on.
    starts: Mutex<BTreeMap<Place, i64>>,
    changed: AtomicBool,
    /// Whether the group ever gave this process its part, be it none.
    given: AtomicBool,
    from_files: bool,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ClientContext for Hands {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(target: "nightjar::librdkafka", "{level:?} {facility}: {message}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(target: "nightjar::librdkafka", "{error}: {reason}");
    }
}

impl ConsumerContext for Hands {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, error: RDKafkaRespErr, places: &mut TopicPartitionList) {
        self.changed.store(true, Ordering::SeqCst);
        let done = if error == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            self.given.store(true, Ordering::SeqCst);
            self.place(consumer, places).and_then(|()| consumer.assign(places))
        } else {
            locked(&self.starts).clear();
            consumer.unassign()
        };
        if let Err(error) = done {
            tracing::error!("taking partitions over: {error}; it is tried again with the next change of the group");
        }
    }
}

impl Hands {
    /// Sets where each place begins: where the files end, or further on where another process of the
    /// group went on.
    fn place(&self, consumer: &BaseConsumer<Self>, places: &mut TopicPartitionList) -> Result<(), KafkaError> {
        let committed = consumer.committed_offsets(places.clone(), CALL)?;
        let ranges = locked(&self.ranges);
        let mut starts = locked(&self.starts);
        starts.clear();
        for one in committed.elements() {
            let place = (one.topic().to_owned(), one.partition());
            let group = one.offset().to_raw().filter(|offset| *offset >= 0);
            let files = following(&ranges, &place);
            let start = match (files, group) {
                _ if self.from_files => None,
                (Some(files), Some(group)) if group > files => {
                    tracing::warn!(
                        "{} {}: the group is {} messages ahead of this folder; another process of the group has them, \
                         or files were lost: `nightjar archive verify` tells, and --from-files fetches them again",
                        place.0,
                        place.1,
                        group - files
                    );
                    Some(group)
                }
                (Some(files), _) => Some(files),
                (None, group) => group,
            };
            let offset = start.map_or(Offset::Beginning, Offset::Offset);
            places.set_partition_offset(&place.0, place.1, offset)?;
            starts.insert(place, start.unwrap_or(0));
        }
        Ok(())
    }
}

pub(super) fn fault(doing: &str, error: &KafkaError) -> ArchiveError {
    let advice = match error.rdkafka_error_code() {
        Some(Code::TopicAuthorizationFailed | Code::GroupAuthorizationFailed) => {
            "the account needs Read on the topics and on the group"
        }
        Some(Code::Authentication | Code::SaslAuthenticationFailed) => "look at user and password",
        _ => "look at the broker and --brokers, then start again",
    };
    ArchiveError::Kafka(format!("{doing}: {error}; {advice}"))
}

/// Follows topics into files until `shutdown` is asked for, or to their end where the plan says so.
///
/// `ready` is called once, when it is in the group.
pub fn follow(
    config: &ClientConfig,
    plan: &Plan,
    shutdown: &Shutdown,
    ready: impl FnOnce(),
) -> Result<Done, ArchiveError> {
    let folder = Folder::take(&plan.out)?;
    let held = folder.held()?;
    let hands = Hands {
        ranges: Mutex::new(held.ranges),
        starts: Mutex::new(BTreeMap::new()),
        changed: AtomicBool::new(false),
        given: AtomicBool::new(false),
        from_files: plan.from_files,
    };
    let name = folder.name().to_owned();
    let keeper = Keeper::new(folder, plan.codec, plan.most_bytes, plan.most_seconds, held.numbers);
    let consumer = consumer(config, plan, &name, hands)?;
    look_for_topics(&consumer, plan)?;
    let topics: Vec<&str> = plan.topics.iter().map(String::as_str).collect();
    consumer.subscribe(&topics).map_err(|error| fault("subscribing", &error))?;
    ready();
    let probe = if plan.to_end { Some(probe(config)?) } else { None };
    Follower { consumer, keeper, probe, quiet: Stopwatch::start(), since: None, seconds: 0.0 }.run(shutdown)
}

fn consumer(config: &ClientConfig, plan: &Plan, name: &str, hands: Hands) -> Result<BaseConsumer<Hands>, ArchiveError> {
    let mut config = config.clone();
    for (name, value) in [
        ("client.id", "nightjar-archive"),
        ("group.id", plan.group.as_str()),
        // Under its name a process that was killed takes its partitions up at once.
        ("group.instance.id", name),
        ("session.timeout.ms", "10000"),
        ("enable.auto.commit", "false"),
        ("enable.auto.offset.store", "false"),
        ("auto.offset.reset", "earliest"),
        ("isolation.level", "read_committed"),
        ("partition.assignment.strategy", "range,roundrobin"),
        ("topic.metadata.refresh.interval.ms", "10000"),
        ("queued.max.messages.kbytes", "65536"),
        // Where the queue is full, ask again soon: the second that librdkafka waits by default halves the rate.
        ("fetch.queue.backoff.ms", "10"),
    ] {
        config.set(name, value);
    }
    config.create_with_context(hands).map_err(|error| fault("making the consumer", &error))
}

/// A topic that is named must be there; a pattern waits for its night.
fn look_for_topics(consumer: &BaseConsumer<Hands>, plan: &Plan) -> Result<(), ArchiveError> {
    let answer = consumer.fetch_metadata(None, PATIENCE).map_err(|error| fault("asking for topics", &error))?;
    let there: BTreeSet<&str> =
        answer.topics().iter().map(|t| t.name()).filter(|name| !name.starts_with("__")).collect();
    let patterns = plan.topics.iter().any(|topic| topic.starts_with('^'));
    for name in plan.topics.iter().filter(|topic| !topic.starts_with('^')) {
        if !there.contains(name.as_str()) {
            return Err(no_topic(name, there.into_iter()));
        }
    }
    if there.is_empty() && patterns {
        tracing::info!("there is no topic yet: it is waited for");
    }
    Ok(())
}

/// That there is no such topic, and which there are.
pub(super) fn no_topic<'a>(name: &str, there: impl Iterator<Item = &'a str>) -> ArchiveError {
    let some: Vec<&str> = there.filter(|name| !name.starts_with("__")).take(8).collect();
    let list = if some.is_empty() { "none".to_owned() } else { some.join(", ") };
    ArchiveError::Asked(format!("there is no topic {name}; there are: {list}"))
}

struct Follower {
    consumer: BaseConsumer<Hands>,
    keeper: Keeper,
    /// Looks whether the end is reached, where that is asked for.
    probe: Option<BaseConsumer>,
    /// Time since the last message or change of the group.
    quiet: Stopwatch,
    /// Time since the first message, and what it was when the last file got its name.
    since: Option<Stopwatch>,
    seconds: f64,
}

impl Follower {
    fn run(mut self, shutdown: &Shutdown) -> Result<Done, ArchiveError> {
        let mut look = Stopwatch::start();
        let outcome = loop {
            match self.at_end() {
                Ok(ended) if ended || shutdown.is_requested() => break self.commit(true),
                Ok(_) => {}
                Err(error) => break Err(error),
            }
            if let Err(error) = self.step() {
                break Err(error);
            }
            // Between messages that come fast there is no need to look at every one.
            if look.seconds() > 0.05 {
                look = Stopwatch::start();
                if let Err(error) = self.commit(false) {
                    break Err(error);
                }
            }
        };
        if outcome.is_err() {
            self.keeper.discard();
        }
        outcome.map(|()| Done {
            alerts: self.keeper.kept,
            bytes: self.keeper.bytes,
            refused: self.keeper.refused,
            seconds: self.seconds,
        })
    }

    /// One message, or a fifth of a second without any.
    fn step(&mut self) -> Result<(), ArchiveError> {
        let polled = self.consumer.poll(Duration::from_millis(200));
        let context = self.consumer.context();
        if context.changed.swap(false, Ordering::SeqCst) {
            // What has no name yet is another's now, or comes again from where the files end.
            self.keeper.discard();
            self.quiet = Stopwatch::start();
        }
        match polled {
            None => Ok(()),
            Some(Ok(message)) => {
                let place = (message.topic().to_owned(), message.partition());
                self.quiet = Stopwatch::start();
                self.since.get_or_insert_with(Stopwatch::start);
                let taken = {
                    let mut starts = locked(&context.starts);
                    let start = starts.get_mut(&place).filter(|start| message.offset() >= **start);
                    start.map(|start| *start = message.offset() + 1).is_some()
                };
                if taken && is_held(&locked(&context.ranges), &place, message.offset()) {
                    // The range of an open file must not reach over what another file answers for.
                    if self.keeper.answers_for(&place) {
                        self.commit(true)?;
                    }
                } else if taken {
                    let taken = Message {
                        topic: message.topic(),
                        partition: message.partition(),
                        offset: message.offset(),
                        payload: message.payload().unwrap_or_default(),
                    };
                    self.keeper.take(&taken, &headers(&message))?;
                }
                Ok(())
            }
            Some(Err(error)) => match error.rdkafka_error_code() {
                Some(
                    Code::TopicAuthorizationFailed
                    | Code::GroupAuthorizationFailed
                    | Code::Authentication
                    | Code::SaslAuthenticationFailed,
                ) => Err(fault("reading", &error)),
                _ => {
                    tracing::warn!("reading: {error}; it is tried again");
                    Ok(())
                }
            },
        }
    }

    /// Whether everything that is there was taken; asked when nothing has come for a while.
    fn at_end(&mut self) -> Result<bool, ArchiveError> {
        let Some(probe) = &self.probe else { return Ok(false) };
        if self.quiet.seconds() < 1.0 {
            return Ok(false);
        }
        let context = self.consumer.context();
        let places = locked(&context.starts).clone();
        if places.is_empty() {
            let given = context.given.load(Ordering::SeqCst);
            if !given && self.quiet.seconds() > LONGEST_JOINING_S {
                let what = "no topic matches, or the group has no part for this process";
                return Err(ArchiveError::Asked(format!("{what}; look at --topics and --group")));
            }
            // The group has more processes than partitions.
            return Ok(given && self.quiet.seconds() > 15.0);
        }
        self.quiet = Stopwatch::start();
        let mut topics: BTreeMap<&str, Vec<(i32, i64)>> = BTreeMap::new();
        for ((topic, partition), next) in &places {
            topics.entry(topic).or_default().push((*partition, *next));
        }
        Ok(topics.iter().all(|(topic, nexts)| nothing_follows(probe, topic, nexts)))
    }

    /// Ends the files whose time has come.
    fn commit(&mut self, all: bool) -> Result<(), ArchiveError> {
        for due in self.keeper.due(all) {
            self.keeper.prepare(&due)?;
            if let Err(error) = self.consumer.commit(&positions(&due, false), CommitMode::Sync) {
                tracing::warn!("the group has changed ({error}): what has no name yet is fetched again");
                self.keeper.discard();
                self.rewind();
                return Ok(());
            }
            self.keeper.publish(&due)?;
            self.seconds = self.since.map_or(0.0, |since| since.seconds());
            for (partition, range) in &due.positions {
                let place = (due.topic.clone(), *partition);
                locked(&self.consumer.context().ranges).entry(place).or_default().push(*range);
            }
            // The files are what counts; the group's positions are for those who watch the lag.
            if let Err(error) = self.consumer.commit(&positions(&due, true), CommitMode::Sync) {
                tracing::debug!("the group's positions: {error}");
            }
        }
        Ok(())
    }

    /// Goes back to where the files end, as far as the partitions are still this process's.
    fn rewind(&mut self) {
        let context = self.consumer.context();
        let ranges = locked(&context.ranges).clone();
        let places: Vec<Place> = locked(&context.starts).keys().cloned().collect();
        for place in places {
            let start = following(&ranges, &place).filter(|_| !context.from_files);
            let offset = start.map_or(Offset::Beginning, Offset::Offset);
            if self.consumer.seek(&place.0, place.1, offset, CALL).is_ok() {
                locked(&context.starts).insert(place, start.unwrap_or(0));
            }
        }
    }
}

/// The positions of a file for the group: where it begins, or where it ends.
fn positions(due: &Due, after: bool) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for (partition, (first, following)) in &due.positions {
        let offset = Offset::Offset(if after { *following } else { *first });
        // An offset that is not negative is always taken.
        let _ = list.add_partition_offset(&due.topic, *partition, offset);
    }
    list
}

fn headers(message: &BorrowedMessage<'_>) -> Vec<(String, String)> {
    let Some(headers) = message.headers() else { return Vec::new() };
    let text = |value: Option<&[u8]>| String::from_utf8_lossy(value.unwrap_or_default()).into_owned();
    headers.iter().map(|header| (header.key.to_owned(), text(header.value))).collect()
}
