//! Proves before the night that alerts will go out: brokers, certificates, permissions,
//! transactions, topics, message size, clock and disk. Each finding says what to do.
//!
//! Nothing of the daemon's is disturbed: the trial has a transactional id of its own. It leaves the
//! topic `PREFIX_check` behind, and makes the cursor topic where it is missing, as the daemon would.

mod broker;
mod permissions;
pub mod versions;

use std::time::Duration;

use rdkafka::consumer::Consumer;
use rdkafka::types::RDKafkaErrorCode as Code;

use super::client::{self, Fault};
use super::failure::Class;
use super::topics::{self, Purpose};
use super::{UplinkParameters, certificate};
use crate::service::finding::{Finding, Severity};

/// What the checks need beside the uplink's parameters.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// First word of the alert topics.
    pub prefix: &'a str,
    /// Tonight's topic.
    pub topic: &'a str,
    /// The account, for the commands that the findings name.
    pub user: &'a str,
    /// A name for the trial's producer, of this host alone: the spool's uuid.
    pub name: &'a str,
    /// Unix time, seconds.
    pub now_s: i64,
}

/// Looks at everything between here and the cluster.
pub fn cluster(parameters: &UplinkParameters, asked: &Asked<'_>) -> Vec<Finding> {
    if !parameters.publish {
        let text = "[uplink] publish = false: alerts are held in the spool";
        return vec![Finding::warning("uplink", text, "set publish = true when the sky is to be told")];
    }
    let mut findings = certificate::in_settings(&parameters.security, asked.now_s);
    for address in &parameters.brokers {
        findings.extend(broker::look(address, &parameters.security, asked.now_s));
    }
    let answers = |f: &Finding| f.subject == "broker" && f.severity < Severity::Fault;
    if !findings.iter().any(answers) {
        return findings;
    }
    // One of several that is away costs nothing tonight.
    for finding in findings.iter_mut().filter(|f| f.subject == "broker") {
        finding.severity = finding.severity.min(Severity::Warning);
    }
    match members(parameters) {
        Err(fault) => {
            let remedy = fault.class.advice(&parameters.brokers.join(","));
            findings.push(Finding::fault("login", fault.text, remedy));
            return findings;
        }
        Ok(count) if (count as i32) < parameters.topics.replication => findings.push(Finding::fault(
            "replication",
            format!("the cluster has {count} brokers, [uplink] replication asks for {}", parameters.topics.replication),
            format!("set [uplink] replication = {count}, or ask for more brokers"),
        )),
        Ok(count) => {
            findings.push(Finding::ok("login", format!("the cluster of {count} brokers lets this account in")))
        }
    }
    findings.extend(permissions::try_out(parameters, asked));
    findings.extend(topic(parameters, asked.topic, Purpose::Alerts));
    findings.extend(topic(parameters, &parameters.cursor_topic, Purpose::Cursor));
    findings
}

/// How many brokers there are, asked as the account itself.
fn members(parameters: &UplinkParameters) -> Result<usize, Fault> {
    let doing = "asking for the brokers";
    let asker = client::reader(parameters, true).map_err(|e| Fault::new(doing, &e))?;
    let answer = asker.fetch_metadata(Some(&parameters.cursor_topic), Duration::from_secs(15));
    let answer = answer.map_err(|error| {
        // The reason comes as an event of its own.
        let mut told = Fault::new(doing, &error);
        for _ in 0..40 {
            let event = asker.poll(Duration::from_millis(25)).and_then(Result::err).map(|e| Fault::new(doing, &e));
            let heard = asker.context().take_last().or(event);
            if let Some(fault) = heard.filter(|f| !matches!(f.class, Class::Transport | Class::Other)) {
                told = fault;
                break;
            }
        }
        told
    })?;
    Ok(answer.brokers().len())
}

/// How a topic that is there differs from what Nightjar would make.
fn topic(parameters: &UplinkParameters, topic: &str, purpose: Purpose) -> Option<Finding> {
    let asker = client::reader(parameters, true).ok()?;
    let answer = asker.fetch_metadata(Some(topic), Duration::from_secs(15)).ok()?;
    let there = answer.topics().iter().find(|t| t.name() == topic)?;
    match there.error().map(Code::from) {
        None => {}
        Some(Code::UnknownTopicOrPartition) => {
            return Some(Finding::ok("topic", format!("{topic} is made when the first alert is sent")));
        }
        // The permissions have been told of.
        Some(_) => return None,
    }
    let (differences, readable) = topics::differences(parameters, topic, purpose, Some(there));
    let beside = if readable { "" } else { "; its other settings may not be read by this account (DescribeConfigs)" };
    Some(if differences.is_empty() {
        Finding::ok("topic", format!("{topic} is as Nightjar would make it{beside}"))
    } else {
        let text = format!("{topic} has {}{beside}", differences.join(", "));
        Finding::warning("topic", text, "it is used as it is; kafka-configs.sh and kafka-topics.sh change it")
    })
}

/// Whether the host's clock lets alerts go out; `synchronised` is the kernel's word, `required`
/// that of the settings.
pub fn clock(synchronised: Option<bool>, required: bool) -> Finding {
    match (synchronised, required) {
        (Some(true), _) => Finding::ok("clock", "the host's clock is synchronised"),
        (Some(false), true) => Finding::fault(
            "clock",
            "the host's clock is not synchronised: alerts are held",
            "start chrony or systemd-timesyncd (`timedatectl set-ntp true`), or set [service] require_synchronised_clock = false",
        ),
        (Some(false), false) => Finding::warning(
            "clock",
            "the host's clock is not synchronised, which [service] require_synchronised_clock = false accepts",
            "start chrony or systemd-timesyncd (`timedatectl set-ntp true`)",
        ),
        (None, _) => Finding::warning(
            "clock",
            "the kernel does not tell whether its clock is synchronised",
            "look at `timedatectl`",
        ),
    }
}

/// For how many nights without an uplink the spool's disk has room. `free_bytes` is what this user
/// may still write, `a_night` what a night's alerts take.
pub fn disk(place: &str, free_bytes: u64, a_night: u64) -> Finding {
    let nights = free_bytes as f64 / a_night.max(1) as f64;
    let text = format!(
        "{place} has {:.0} GB free, room for {nights:.1} nights of alerts ({:.0} GB each) without an uplink",
        free_bytes as f64 / 1e9,
        a_night as f64 / 1e9
    );
    if nights < 1.0 {
        Finding::fault("disk", text, "free some space, or put [spool] folder on a larger disk")
    } else if nights < 3.0 {
        Finding::warning("disk", text, "free some space: a link may be away for days")
    } else {
        Finding::ok("disk", text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_disk_is_measured_in_nights() {
        let severity = |free| disk("/spool", free, 60_000_000_000).severity;
        assert_eq!(
            [severity(50_000_000_000), severity(100_000_000_000), severity(600_000_000_000)],
            [Severity::Fault, Severity::Warning, Severity::Ok]
        );
        assert!(disk("/spool", 90_000_000_000, 60_000_000_000).text.contains("room for 1.5 nights"));
    }

    #[test]
    fn a_clock_that_drifts_is_a_fault_only_where_it_holds_alerts() {
        let severity = |known, required| clock(known, required).severity;
        assert_eq!(severity(Some(false), true), Severity::Fault);
        assert_eq!(severity(Some(false), false), Severity::Warning);
        assert_eq!(severity(Some(true), true), Severity::Ok);
        assert_eq!(severity(None, true), Severity::Warning);
    }

    #[test]
    fn what_is_not_published_needs_no_broker() {
        let parameters = UplinkParameters { publish: false, ..Default::default() };
        let asked = Asked { prefix: "nightjar", topic: "t", user: "u", name: "n", now_s: 0 };
        let findings = cluster(&parameters, &asked);
        assert!(findings.len() == 1 && findings[0].severity == Severity::Warning, "{findings:?}");
    }
}
