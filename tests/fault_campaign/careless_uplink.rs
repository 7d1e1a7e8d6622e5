//! An uplink of a few lines whose protocol can be broken on purpose, for controls: the same faults
//! must find it out, else a clean row proves nothing.

use std::error::Error;
use std::time::Duration;

use nightjar::spool::cursor::Cursor;
use nightjar::spool::{Order, Spool};
use nightjar::uplink::UplinkParameters;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use serde::{Deserialize, Serialize};

use crate::alerts;

/// What is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Flaw {
    /// Nothing: the double itself must pass.
    Nothing,
    /// The cursor is written after the transaction.
    CursorOutside,
    /// The cursor is read before `init_transactions`.
    CursorBeforeInit,
    /// Delivery reports are not looked at.
    DeliveryIgnored,
}

const CURSORS: &str = "careless_cursor";
const PATIENCE: Duration = Duration::from_secs(20);

/// Sends for ever what is in the spool.
pub fn run(parameters: &UplinkParameters, spool: &Spool, flaw: Flaw) {
    loop {
        if let Err(error) = session(parameters, spool, flaw) {
            println!("trouble {error}");
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn client(parameters: &UplinkParameters) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", parameters.brokers.join(",")).set("partitioner", "murmur2_random");
    config.set_log_level(RDKafkaLogLevel::Emerg);
    config
}

fn make_topics(parameters: &UplinkParameters) -> Result<(), Box<dyn Error>> {
    let admin: AdminClient<DefaultClientContext> = client(parameters).create()?;
    let copies = parameters.topics.replication;
    let topic = |name, partitions| NewTopic::new(name, partitions, TopicReplication::Fixed(copies));
    let topics = [topic(alerts::TOPIC, 4), topic(CURSORS, 1)];
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    runtime.block_on(admin.create_topics(&topics, &AdminOptions::new().operation_timeout(Some(PATIENCE))))?;
    Ok(())
}

fn read_cursor(parameters: &UplinkParameters, key: &str) -> Result<Cursor, Box<dyn Error>> {
    let consumer: BaseConsumer = client(parameters)
        .set("group.id", "careless")
        .set("enable.partition.eof", "true")
        .set("isolation.level", "read_committed")
        .create()?;
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(CURSORS, 0, Offset::Beginning)?;
    consumer.assign(&list)?;
    let mut found = Cursor::default();
    loop {
        match consumer.poll(PATIENCE) {
            Some(Ok(message)) if message.key() == Some(key.as_bytes()) => {
                found = Cursor::decode(message.payload().unwrap_or_default())?;
            }
            Some(Err(KafkaError::PartitionEOF(_))) => return Ok(found),
            Some(Err(error)) => return Err(error.into()),
            Some(Ok(_)) => {}
            None => return Err("no answer".into()),
        }
    }
}

fn session(parameters: &UplinkParameters, spool: &Spool, flaw: Flaw) -> Result<(), Box<dyn Error>> {
    make_topics(parameters)?;
    let key = spool.uuid().to_string();
    let plain: BaseProducer = client(parameters).create()?;
    if flaw == Flaw::DeliveryIgnored {
        return ignore_delivery(parameters, spool);
    }
    let early = if flaw == Flaw::CursorBeforeInit { Some(read_cursor(parameters, &key)?) } else { None };
    if early.is_some() {
        std::thread::sleep(Duration::from_millis(1500));
    }
    let producer: BaseProducer = client(parameters).set("transactional.id", format!("careless-{key}")).create()?;
    producer.init_transactions(PATIENCE)?;
    let cursor = early.map_or_else(|| read_cursor(parameters, &key), Ok)?;
    spool.reconcile(&cursor, 0);
    loop {
        let Some(next) = spool.next_waiting(Order::OldestFirst, &|_| false) else {
            spool.wait_for_work(Duration::from_millis(50));
            continue;
        };
        let reader = spool.read(next.sequence)?;
        let steps = [(next.sequence, next.count)];
        let text = spool.cursor_after(&steps).encode();
        producer.begin_transaction()?;
        for number in 0..next.count {
            send(&producer, &reader.record(number)?)?;
        }
        producer.flush(PATIENCE)?;
        let record = BaseRecord::to(CURSORS).partition(0).key(&key).payload(&text);
        if flaw == Flaw::CursorOutside {
            producer.commit_transaction(PATIENCE)?;
            // So long that most kills come between the two.
            std::thread::sleep(Duration::from_millis(150));
            plain.send(record).map_err(|(error, _)| error)?;
            plain.flush(PATIENCE)?;
        } else {
            producer.send(record).map_err(|(error, _)| error)?;
            producer.commit_transaction(PATIENCE)?;
        }
        spool.settle(&steps, 0)?;
    }
}

fn ignore_delivery(parameters: &UplinkParameters, spool: &Spool) -> Result<(), Box<dyn Error>> {
    let producer: BaseProducer =
        client(parameters).set("enable.idempotence", "true").set("message.timeout.ms", "400").create()?;
    loop {
        let Some(next) = spool.next_waiting(Order::OldestFirst, &|_| false) else {
            spool.wait_for_work(Duration::from_millis(50));
            continue;
        };
        let reader = spool.read(next.sequence)?;
        for number in 0..next.count {
            send(&producer, &reader.record(number)?)?;
        }
        let _ = producer.flush(Duration::from_millis(500));
        spool.settle(&[(next.sequence, next.count)], 0)?;
    }
}

fn send(producer: &BaseProducer, message: &nightjar::spool::Message) -> Result<(), Box<dyn Error>> {
    let mut headers = OwnedHeaders::new();
    for (key, value) in &message.headers {
        headers = headers.insert(Header { key, value: Some(value) });
    }
    let record = BaseRecord::to(&message.topic).key(&message.key).payload(&message.payload).headers(headers);
    producer.send(record).map_err(|(error, _)| error.into())
}
