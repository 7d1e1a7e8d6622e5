//! Which permissions the account has, found out by doing: Kafka tells an account of its own rights
//! nowhere that librdkafka reaches.
//!
//! The trial uses a transactional id of its own, so that the daemon's producer is not disturbed,
//! and a topic `PREFIX_check` beside the nights' topics. What is sent to the cursor topic, and the
//! largest message, go in transactions that are aborted.

use std::cell::RefCell;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::types::RDKafkaErrorCode as Code;
use uuid::Uuid;

use super::Asked;
use crate::service::clock::Stopwatch;
use crate::service::finding::{Finding, Severity};
use crate::uplink::client::{self, Fault, MAX_MESSAGE, SLICE, Watch};
use crate::uplink::failure::{Class, classify};
use crate::uplink::topics::{Purpose, Topics};
use crate::uplink::{Delivery, UplinkParameters, broker_cursor, topics};

const PATIENCE: Duration = Duration::from_secs(45);
/// Bytes of a message beside its payload.
const BESIDE: usize = 1024;

/// One permission: on what, which operation, and the words of `kafka-acls.sh` for the resource.
struct Permission<'a> {
    operation: &'a str,
    on: String,
    resource: String,
}

impl Permission<'_> {
    fn missing(&self, user: &str, said: &str) -> Finding {
        let Self { operation, on, resource } = self;
        let text = format!("the permission {operation} on {on} is missing ({said})");
        let remedy = format!(
            "ask who runs the cluster: kafka-acls.sh --add --allow-principal User:{user} --operation {operation} {resource}"
        );
        Finding::fault("permissions", text, remedy)
    }
}

fn on_topic<'a>(operation: &'a str, topic: &str, prefixed: bool) -> Permission<'a> {
    if prefixed {
        let resource = format!("--topic {topic} --resource-pattern-type prefixed");
        Permission { operation, on: format!("the topics {topic}*"), resource }
    } else {
        Permission { operation, on: format!("the topic {topic}"), resource: format!("--topic {topic}") }
    }
}

fn on_transactions(operation: &str) -> Permission<'_> {
    let resource = "--transactional-id nightjar- --resource-pattern-type prefixed".to_owned();
    Permission { operation, on: "the transactional id nightjar-*".into(), resource }
}

fn is_permission(class: Class) -> bool {
    matches!(class, Class::TopicPermission | Class::TransactionPermission | Class::ClusterPermission)
}

/// Everything that the uplink will do, done once.
pub fn try_out(parameters: &UplinkParameters, asked: &Asked<'_>) -> Vec<Finding> {
    let mut trial = Trial { parameters, asked, findings: Vec::new() };
    trial.run();
    if trial.findings.iter().all(|finding| finding.severity < Severity::Fault) {
        let text = "the account may do all that is needed: cursor topic, alert topics, transactions";
        trial.findings.push(Finding::ok("permissions", text));
    }
    trial.findings
}

struct Trial<'a> {
    parameters: &'a UplinkParameters,
    asked: &'a Asked<'a>,
    findings: Vec<Finding>,
}

impl Trial<'_> {
    fn fault(&mut self, permission: &Permission<'_>, fault: &Fault) {
        let found = if is_permission(fault.class) {
            permission.missing(self.asked.user, &fault.text)
        } else {
            Finding::fault("uplink", fault.text.clone(), fault.class.advice(&self.parameters.brokers.join(",")))
        };
        if !self.findings.contains(&found) {
            self.findings.push(found);
        }
    }

    fn run(&mut self) {
        let parameters = self.parameters;
        let cursor = parameters.cursor_topic.clone();
        let alerts = format!("{}_check", self.asked.prefix);
        let family = format!("{}_", self.asked.prefix);
        let producer = self.producer();
        let has_cursor = self.topic(&cursor, Purpose::Cursor, &cursor, false);
        let has_alerts = self.topic(&alerts, Purpose::Alerts, &family, true);
        if has_cursor {
            let read = broker_cursor::read(parameters, Uuid::nil(), &|| false);
            if let Err(fault) = read {
                self.fault(&on_topic("Read", &cursor, false), &fault);
            }
        }
        let Some(mut producer) = producer else { return };
        if has_cursor && let Err(fault) = self.send(&producer, &cursor, 8, false) {
            self.fault(&on_topic("Write", &cursor, false), &fault);
            // A transaction that the broker never let begin cannot be ended either.
            let Some(fresh) = self.producer() else { return };
            producer = fresh;
        }
        if !has_alerts {
            return;
        }
        if let Err(fault) = self.send(&producer, &alerts, 8, true) {
            return self.fault(&on_topic("Write", &family, true), &fault);
        }
        match self.send(&producer, &alerts, MAX_MESSAGE - BESIDE, false) {
            Ok(()) => self.findings.extend([Finding::ok(
                "size",
                format!("an alert of {} MB goes through", MAX_MESSAGE >> 20),
            )]),
            Err(fault) if fault.class == Class::Record => self.findings.push(Finding::warning(
                "size",
                format!("an alert of {} MB is refused ({})", MAX_MESSAGE >> 20, fault.text),
                format!("ask who runs the cluster to set message.max.bytes to {MAX_MESSAGE}; larger alerts go to dead/ until then"),
            )),
            Err(fault) => self.fault(&on_topic("Write", &family, true), &fault),
        }
    }

    /// A producer of the trial's own name, introduced.
    fn producer(&mut self) -> Option<BaseProducer<Watch>> {
        let transactional = self.parameters.delivery == Delivery::ExactlyOnce;
        let made = client::named_producer(self.parameters, &format!("nightjar-check-{}", self.asked.name), false);
        let producer = match made {
            Ok(producer) => producer,
            Err(error) => {
                self.findings.push(Finding::fault("uplink", error.to_string(), "correct [uplink] in the settings"));
                return None;
            }
        };
        if !transactional {
            return Some(producer);
        }
        let watch = Stopwatch::start();
        loop {
            let Err(error) = producer.init_transactions(SLICE) else { break };
            producer.poll(Duration::ZERO);
            let again =
                matches!(&error, KafkaError::Transaction(e) if e.is_retriable() || e.code() == Code::OperationTimedOut);
            if !again || watch.elapsed() > PATIENCE {
                let fault = Fault::new("introducing a producer", &error);
                let told = producer.context().take_last();
                let fault = told.filter(|_| fault.class == Class::Transport).unwrap_or(fault);
                // Looking for the coordinator needs Describe; a name gets its number by Write, which implies Describe.
                if is_permission(fault.class) && fault.text.contains("find transaction coordinator") {
                    self.fault(&on_transactions("Describe"), &fault);
                }
                self.fault(&on_transactions("Write"), &fault);
                return None;
            }
        }
        if !self.findings.iter().any(|finding| finding.subject == "producer") {
            let text = format!("the cluster gave a producer its number in {:.1} s", watch.seconds());
            self.findings.push(Finding::ok("producer", text));
        }
        Some(producer)
    }

    /// Whether `topic` is there afterwards; each missing permission on the way is noted.
    fn topic(&mut self, topic: &str, purpose: Purpose, family: &str, prefixed: bool) -> bool {
        let parameters = self.parameters;
        let asker: BaseConsumer<Watch> = match client::reader(parameters, true) {
            Ok(asker) => asker,
            Err(error) => {
                self.findings.push(Finding::fault("uplink", error.to_string(), "correct [uplink] in the settings"));
                return false;
            }
        };
        let doing = format!("looking for topic {topic}");
        let code = match asker.fetch_metadata(Some(topic), PATIENCE) {
            Ok(answer) => answer.topics().iter().find(|t| t.name() == topic).and_then(|t| t.error()).map(Code::from),
            Err(error) => {
                let fault = Fault::new(&doing, &error);
                self.fault(&on_topic("Describe", family, prefixed), &fault);
                return false;
            }
        };
        let there = code.is_none();
        let mut hidden = false;
        match code {
            None | Some(Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::LeaderNotAvailable) => {}
            Some(code) => {
                // Kafka grants the sight of a topic with Write: who may not see it lacks that.
                let fault = Fault { class: classify(code), text: format!("{doing}: {code}") };
                self.fault(&on_topic("Write", family, prefixed), &fault);
                hidden = true;
            }
        }
        let may_make = self.may_make(topic, purpose);
        if let Err(fault) = &may_make {
            self.fault(&on_topic("Create", family, prefixed), fault);
        }
        if there || hidden || may_make.is_err() {
            return there;
        }
        let made = Topics::new(parameters)
            .and_then(|mut topics| topics.ensure(parameters, topic, purpose, &RefCell::default()));
        made.map_err(|fault| self.fault(&on_topic("Create", family, prefixed), &fault)).is_ok()
    }

    /// Asks the cluster to make the topic, only to hear whether it would.
    fn may_make(&self, topic: &str, purpose: Purpose) -> Result<(), Fault> {
        let doing = format!("asking to make topic {topic}");
        let fault = |error: KafkaError| Fault::new(&doing, &error);
        let admin: AdminClient<Watch> =
            client::administration(self.parameters).create_with_context(Watch::default()).map_err(fault)?;
        let new = NewTopic::new(
            topic,
            topics::partitions(self.parameters, purpose),
            TopicReplication::Fixed(self.parameters.topics.replication),
        );
        let options = AdminOptions::new().validate_only(true).request_timeout(Some(PATIENCE));
        let answers = topics::runtime()?.block_on(admin.create_topics([&new], &options)).map_err(fault)?;
        match answers.into_iter().next() {
            Some(Err((_, code))) if code != Code::TopicAlreadyExists => {
                Err(Fault { class: classify(code), text: format!("{doing}: {code}") })
            }
            _ => Ok(()),
        }
    }

    /// Sends one message of noise in a transaction of its own.
    fn send(&self, producer: &BaseProducer<Watch>, topic: &str, bytes: usize, commit: bool) -> Result<(), Fault> {
        let doing = format!("sending to topic {topic}");
        let fault = |error: &KafkaError| Fault::new(&doing, error);
        let transactional = self.parameters.delivery == Delivery::ExactlyOnce;
        producer.context().reset();
        if transactional {
            producer.begin_transaction().map_err(|e| fault(&e))?;
        }
        let outcome = self.send_in_transaction(producer, topic, bytes, &doing);
        if transactional {
            let ended = if outcome.is_ok() && commit {
                producer.commit_transaction(PATIENCE)
            } else {
                producer.abort_transaction(PATIENCE)
            };
            return outcome.and(ended.map_err(|e| fault(&e)));
        }
        outcome
    }

    fn send_in_transaction(
        &self,
        producer: &BaseProducer<Watch>,
        topic: &str,
        bytes: usize,
        doing: &str,
    ) -> Result<(), Fault> {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) as u8
        })
        .take(bytes)
        .collect();
        let record = BaseRecord::with_opaque_to(topic, 0).partition(0).key("check").payload(&noise);
        producer.send(record).map_err(|(error, _)| Fault::new(doing, &error))?;
        let watch = Stopwatch::start();
        loop {
            producer.poll(Duration::from_millis(20));
            let transactional = self.parameters.delivery == Delivery::ExactlyOnce;
            // A message that is purged says nothing; the transaction knows why.
            if transactional && let Some(error) = client::transaction_error(producer) {
                return Err(Fault::new(doing, &error));
            }
            if let Some((_, code)) = producer.context().failed().first() {
                return Err(Fault { class: classify(*code), text: format!("{doing}: {code}") });
            }
            if producer.context().delivered() > 0 {
                return Ok(());
            }
            if watch.elapsed() > PATIENCE {
                return Err(Fault { class: Class::Transport, text: format!("{doing}: no answer") });
            }
        }
    }
}
