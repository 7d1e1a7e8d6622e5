//! Reads a spool's cursor from the broker: the last committed one, never an older one.
//!
//! Several spools may share the cursor topic. A reader of committed records stops at the oldest
//! open transaction, whoever owns it, so our own last cursor may lie behind another spool's open
//! transaction. Hence the end is asked for twice, with and without open transactions, and reading
//! waits until both agree.

use std::time::Duration;

use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use uuid::Uuid;

use super::UplinkParameters;
use super::client::{Fault, SLICE, reader};
use super::failure::Class;
use crate::service::clock::Stopwatch;
use crate::spool::cursor::Cursor;

/// Partition of the cursor topic that every spool writes to.
pub const PARTITION: i32 = 0;

/// How long reading may take before it is tried again from the start.
const PATIENCE: Duration = Duration::from_secs(30);

/// The cursor of the spool `uuid`, or an empty one where there is none yet.
pub fn read(parameters: &UplinkParameters, uuid: Uuid, stopped: &dyn Fn() -> bool) -> Result<Option<Cursor>, Fault> {
    let doing = "reading the cursor topic";
    let fault = |error: KafkaError| Fault::new(doing, &error);
    let topic = &parameters.cursor_topic;
    let watch = Stopwatch::start();
    let committed = reader(parameters, true).map_err(fault)?;
    let uncommitted = reader(parameters, false).map_err(fault)?;
    loop {
        let (low, stable) = committed.fetch_watermarks(topic, PARTITION, 10 * SLICE).map_err(fault)?;
        let (_, high) = uncommitted.fetch_watermarks(topic, PARTITION, 10 * SLICE).map_err(fault)?;
        if stable >= high && low >= high {
            return Ok(None);
        }
        if stable >= high {
            break;
        }
        if stopped() || watch.elapsed() > 2 * PATIENCE {
            let text = format!("{doing}: another spool's transaction is open there");
            return Err(Fault { class: Class::OthersOpen, text });
        }
        std::thread::sleep(SLICE / 5);
    }
    let mut assignment = TopicPartitionList::new();
    assignment.add_partition_offset(topic, PARTITION, Offset::Beginning).map_err(fault)?;
    committed.assign(&assignment).map_err(fault)?;
    let key = uuid.to_string();
    let mut found = None;
    // A topic that is not compacted yet is long on a thin link: what counts is that something comes.
    let mut since = Stopwatch::start();
    loop {
        match committed.poll(SLICE) {
            Some(Ok(message)) if message.key() == Some(key.as_bytes()) => {
                let text = message.payload().unwrap_or_default();
                let cursor = Cursor::decode(text).map_err(|error| Fault {
                    class: Class::Other,
                    text: format!("{doing}: the cursor of this spool is unreadable ({error})"),
                })?;
                found = Some(cursor);
                since = Stopwatch::start();
            }
            Some(Ok(_)) => since = Stopwatch::start(),
            Some(Err(KafkaError::PartitionEOF(_))) => return Ok(found),
            Some(Err(error)) => {
                let fault = fault(error);
                // The group is never used, so that a missing permission on it does not matter.
                if fault.class != Class::Transport && fault.class != Class::Other {
                    return Err(fault);
                }
            }
            None => {}
        }
        if stopped() || since.elapsed() > 2 * PATIENCE {
            return Err(Fault { class: Class::Transport, text: format!("{doing}: no answer in time") });
        }
    }
}
