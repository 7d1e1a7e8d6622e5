//! Whether an archive holds what it should: its files against its index, and against the topics.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::ArchiveError;
use super::folder::{Folder, files_of, night_of, nights_of};
use super::index::{Index, for_each_record};
use super::packet::Unpacker;
use crate::service::clock::Stopwatch;

/// How long a broker may be silent.
const SILENCE_S: f64 = 60.0;

/// Number and CRC of an alert, and how often it is there.
type Tally = HashMap<(i64, u32), u32>;

/// What the files of a night hold.
#[derive(Debug, Default)]
pub struct NightReport {
    /// The night.
    pub night: String,
    /// Files.
    pub files: usize,
    /// Alerts in them.
    pub alerts: u64,
    /// What is wrong, a line each.
    pub faults: Vec<String>,
    /// By topic, what is in the files.
    held: BTreeMap<String, Tally>,
    /// By topic and partition, the offset after the last that a file answers for.
    following: BTreeMap<(String, i32), i64>,
}

/// How an archive compares with a topic.
#[derive(Debug, Default)]
pub struct Compared {
    /// The topic.
    pub topic: String,
    /// Alerts in the topic.
    pub in_topic: u64,
    /// Of these, the ones in the archive.
    pub in_both: u64,
    /// In the topic, before the archive's positions, and not in the archive: the first few.
    pub missing: Vec<i64>,
    /// How many those are.
    pub missing_count: u64,
    /// Oftener in the archive than in the topic.
    pub twice: u64,
    /// In the archive alone: what the topic's retention has removed.
    pub only_here: u64,
    /// In the topic beyond the archive's positions: not fetched yet.
    pub to_come: u64,
    /// Messages of the topic that are no alerts.
    pub no_alerts: u64,
}

impl Compared {
    /// Whether nothing is lost or doubled.
    pub fn is_whole(&self) -> bool {
        self.missing_count == 0 && self.twice == 0
    }
}

/// Reads every record of every night, or of one, and holds it against the index.
pub fn verify_files(root: &Path, night: Option<&str>) -> Result<Vec<NightReport>, ArchiveError> {
    let mut reports = Vec::new();
    // An archive that is being written to is looked at as it is.
    let held = Folder::take(root).ok();
    for folder in nights_of(root)? {
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if night.is_none_or(|wanted| wanted == name) {
            reports.push(verify_night(&folder, name, held.is_some())?);
        }
    }
    if reports.is_empty() {
        let what = night.map_or("a night".to_owned(), |night| format!("the night {night}"));
        return Err(ArchiveError::Asked(format!("{} holds no archive of {what}; look at --out", root.display())));
    }
    Ok(reports)
}

fn verify_night(folder: &Path, night: String, held: bool) -> Result<NightReport, ArchiveError> {
    let mut report = NightReport { night, ..NightReport::default() };
    let index = Index::look(folder, held)?;
    for path in files_of(folder)? {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        report.files += 1;
        let mut sums = Vec::new();
        let topic = match for_each_record(&path, |_, _, bytes, entry| sums.push((entry.candid, crc32c::crc32c(bytes))))
        {
            Ok(topic) => topic,
            Err(error) => {
                report.faults.push(error.to_string());
                continue;
            }
        };
        let reader = super::container::Reader::open(&path).map_err(|error| ArchiveError::read(&path, &error))?;
        for (partition, (_, following)) in reader.positions {
            let known = report.following.entry((topic.clone(), partition)).or_insert(0);
            *known = (*known).max(following);
        }
        if index.sums(&name)? != sums {
            report.faults.push(format!(
                "{}: its records are not those of the index; remove the index, and the next start makes it again",
                path.display()
            ));
        }
        report.alerts += sums.len() as u64;
        let tally = report.held.entry(topic).or_default();
        for sum in sums {
            *tally.entry(sum).or_default() += 1;
        }
    }
    Ok(report)
}

/// Compares nights with the topics that they came from, message by message.
pub fn verify_topics(config: &ClientConfig, reports: &[NightReport]) -> Result<Vec<Compared>, ArchiveError> {
    let mut config = config.clone();
    config
        .set("client.id", "nightjar-archive")
        .set("group.id", "nightjar-archive-verify")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("auto.offset.reset", "earliest")
        .set("isolation.level", "read_committed");
    let consumer: BaseConsumer = config.create().map_err(|error| kafka("making the consumer", &error))?;
    let mut all = Vec::new();
    for report in reports {
        for (topic, held) in &report.held {
            all.push(compare(&consumer, topic, held, report)?);
        }
    }
    Ok(all)
}

fn kafka(doing: &str, error: &KafkaError) -> ArchiveError {
    ArchiveError::Kafka(format!("{doing}: {error}; look at the broker and --brokers, then start again"))
}

fn compare(consumer: &BaseConsumer, topic: &str, held: &Tally, report: &NightReport) -> Result<Compared, ArchiveError> {
    let doing = format!("reading topic {topic}");
    let answer = consumer.fetch_metadata(Some(topic), Duration::from_secs(30)).map_err(|e| kafka(&doing, &e))?;
    let partitions: Vec<i32> = answer.topics().iter().flat_map(|t| t.partitions()).map(|p| p.id()).collect();
    if partitions.is_empty() {
        let night = night_of(topic);
        return Err(ArchiveError::Asked(format!(
            "there is no topic {topic} any more, so the night {night} can be held against its index alone: leave --brokers out"
        )));
    }
    let mut list = TopicPartitionList::new();
    for partition in &partitions {
        list.add_partition_offset(topic, *partition, Offset::Beginning).map_err(|e| kafka(&doing, &e))?;
    }
    consumer.assign(&list).map_err(|e| kafka(&doing, &e))?;
    let mut left = held.clone();
    let mut found = Compared { topic: topic.to_owned(), ..Compared::default() };
    let mut unpacker = Unpacker::default();
    let mut ends = 0;
    let mut quiet = Stopwatch::start();
    while ends < partitions.len() {
        match consumer.poll(Duration::from_millis(500)) {
            Some(Ok(message)) => {
                quiet = Stopwatch::start();
                let Ok(alert) = unpacker.unpack(message.payload().unwrap_or_default()) else {
                    found.no_alerts += 1;
                    continue;
                };
                found.in_topic += 1;
                match left.get_mut(&(alert.entry.candid, crc32c::crc32c(alert.record))).filter(|n| **n > 0) {
                    Some(count) => {
                        *count -= 1;
                        found.in_both += 1;
                    }
                    None => {
                        let answered = report.following.get(&(topic.to_owned(), message.partition())).copied();
                        if message.offset() < answered.unwrap_or(0) {
                            found.missing_count += 1;
                            if found.missing.len() < 10 {
                                found.missing.push(alert.entry.candid);
                            }
                        } else {
                            found.to_come += 1;
                        }
                    }
                }
            }
            Some(Err(KafkaError::PartitionEOF(_))) => {
                quiet = Stopwatch::start();
                ends += 1;
            }
            Some(Err(error)) if error.rdkafka_error_code().is_none() => return Err(kafka(&doing, &error)),
            Some(Err(_)) | None if quiet.seconds() > SILENCE_S => {
                return Err(ArchiveError::Kafka(format!("{doing}: the broker is silent; look at it and start again")));
            }
            Some(Err(_)) | None => {}
        }
    }
    for (sum, count) in left.into_iter().filter(|(_, count)| *count > 0) {
        // What is left and was also in the topic, or is there several times, is there too often.
        let twice = if held.get(&sum) > Some(&count) { count } else { count - 1 };
        found.twice += u64::from(twice);
        found.only_here += u64::from(count - twice);
    }
    Ok(found)
}
