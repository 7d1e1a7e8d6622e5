//! A reader of a rehearsal's topics, as an astronomer's consumer would be: it subscribes, reads
//! committed records, and reports what it saw.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Headers, Message};
use uuid::Uuid;

use super::client::{self, Watch};
use super::{UplinkError, UplinkParameters};

/// A record as the follower got it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// Topic.
    pub topic: String,
    /// Partition.
    pub partition: i32,
    /// Offset in the partition.
    pub offset: i64,
    /// Key: the alert's `objectId`.
    pub key: Vec<u8>,
    /// Headers.
    pub headers: Vec<(String, Vec<u8>)>,
    /// Payload: the alert packet.
    pub payload: Vec<u8>,
}

impl Received {
    /// Value of the header `name` as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers.iter().find(|(n, _)| n == name)?;
        std::str::from_utf8(value).ok()
    }

    /// Sequence and number of this alert in the spool `spool`, from its header.
    pub fn place_in(&self, spool: Uuid) -> Option<(u64, u32)> {
        let mut words = self.header("spool")?.split(' ');
        let uuid: Uuid = words.next()?.parse().ok()?;
        let (_epoch, sequence, number) = (words.next()?, words.next()?, words.next()?);
        (uuid == spool).then_some((sequence.parse().ok()?, number.parse().ok()?))
    }
}

/// What a follower has seen of one spool.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Followed {
    /// Different alerts.
    pub alerts: u64,
    /// Alerts that came again.
    pub repeated: u64,
    /// Bytes of payloads.
    pub bytes: u64,
    /// Different alerts of each exposure, by sequence number.
    pub by_sequence: BTreeMap<u64, u32>,
}

#[derive(Default)]
struct Shared {
    seen: Mutex<Seen>,
    more: Condvar,
}

#[derive(Default)]
struct Seen {
    followed: Followed,
    names: HashSet<(u64, u32)>,
    subscribed: bool,
    stop: bool,
}

impl Shared {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait(&self, timeout: Duration, enough: impl Fn(&Seen) -> bool) -> bool {
        let seen = self.seen();
        let (seen, _) =
            self.more.wait_timeout_while(seen, timeout, |s| !enough(s)).unwrap_or_else(PoisonError::into_inner);
        enough(&seen)
    }
}

/// A reader on a thread of its own.
pub struct Follower {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Follower {
    /// Follows the topics that match `pattern` (`^nightjar_.*`, or a plain name) and gives each
    /// alert of the spool `spool` to `sink`.
    pub fn start(
        parameters: &UplinkParameters,
        pattern: &str,
        spool: Uuid,
        sink: impl FnMut(&Received) + Send + 'static,
    ) -> Result<Self, UplinkError> {
        let mut config = client::administration(parameters);
        config
            .set("group.id", format!("nightjar-follower-{}", Uuid::new_v4()))
            .set("auto.offset.reset", "earliest")
            .set("enable.auto.commit", "false")
            .set("isolation.level", "read_committed")
            .set("topic.metadata.refresh.interval.ms", "1000")
            .set("fetch.wait.max.ms", "50");
        let settings = |error: rdkafka::error::KafkaError| UplinkError::Settings(error.to_string());
        let consumer: BaseConsumer<Watch> = config.create_with_context(Watch::default()).map_err(settings)?;
        consumer.subscribe(&[pattern]).map_err(settings)?;
        let shared = Arc::new(Shared::default());
        let theirs = shared.clone();
        let thread = std::thread::Builder::new()
            .name("follower".into())
            .spawn(move || follow(&consumer, &theirs, spool, sink))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Waits until partitions are assigned, or for `timeout`.
    pub fn wait_until_subscribed(&self, timeout: Duration) -> bool {
        self.shared.wait(timeout, |seen| seen.subscribed)
    }

    /// Waits until `alerts` different alerts were read, or for `timeout`.
    pub fn wait_for(&self, alerts: u64, timeout: Duration) -> bool {
        self.shared.wait(timeout, |seen| seen.followed.alerts >= alerts)
    }

    /// For [`super::Uplink::start_gated`]: holds the uplink until everything committed was read,
    /// at most 30 s.
    pub fn gate(&self) -> impl Fn(u64) + Send + 'static {
        let shared = self.shared.clone();
        move |committed| {
            shared.wait(Duration::from_secs(30), |seen| seen.stop || seen.followed.alerts >= committed);
        }
    }

    /// What was seen so far.
    pub fn followed(&self) -> Followed {
        self.shared.seen().followed.clone()
    }

    /// Stops and reports.
    pub fn finish(mut self) -> Followed {
        self.end();
        self.followed()
    }

    fn end(&mut self) {
        self.shared.seen().stop = true;
        self.shared.more.notify_all();
        if let Some(thread) = self.thread.take() {
            // A panic of the sink has been reported by its hook.
            let _ = thread.join();
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.end();
    }
}

fn follow(consumer: &BaseConsumer<Watch>, shared: &Shared, spool: Uuid, mut sink: impl FnMut(&Received)) {
    while !shared.seen().stop {
        let polled = consumer.poll(Duration::from_millis(50));
        if !shared.seen().subscribed && consumer.assignment().is_ok_and(|a| a.count() > 0) {
            shared.seen().subscribed = true;
            shared.more.notify_all();
        }
        let Some(Ok(message)) = polled else { continue };
        let received = Received {
            topic: message.topic().to_owned(),
            partition: message.partition(),
            offset: message.offset(),
            key: message.key().unwrap_or_default().to_vec(),
            headers: message.headers().map_or(Vec::new(), |headers| {
                headers.iter().map(|h| (h.key.to_owned(), h.value.unwrap_or_default().to_vec())).collect()
            }),
            payload: message.payload().unwrap_or_default().to_vec(),
        };
        let Some(place) = received.place_in(spool) else { continue };
        sink(&received);
        let mut seen = shared.seen();
        if seen.names.insert(place) {
            seen.followed.alerts += 1;
            seen.followed.bytes += received.payload.len() as u64;
            *seen.followed.by_sequence.entry(place.0).or_default() += 1;
        } else {
            seen.followed.repeated += 1;
        }
        drop(seen);
        shared.more.notify_all();
    }
}
