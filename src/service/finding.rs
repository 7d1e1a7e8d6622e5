//! What a check found out: one sentence on one subject, and what to do about it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// As it should be.
    Ok,
    /// The night can be observed, with a loss that the text names.
    Warning,
    /// The night cannot be observed, or its alerts do not go out.
    Fault,
}

/// What a check found out about one thing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What was looked at: "settings", "camera", "broker", ….
    pub subject: String,
    /// How much it matters.
    pub severity: Severity,
    /// What was found, one sentence with figures.
    pub text: String,
    /// What to do about it; empty when nothing is to be done.
    pub remedy: String,
}

impl Finding {
    /// As it should be.
    pub fn ok(subject: &str, text: impl Into<String>) -> Self {
        Self { subject: subject.into(), severity: Severity::Ok, text: text.into(), remedy: String::new() }
    }

    /// A loss, and what to do about it.
    pub fn warning(subject: &str, text: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { subject: subject.into(), severity: Severity::Warning, text: text.into(), remedy: remedy.into() }
    }

    /// What stands in the night's way, and what to do about it.
    pub fn fault(subject: &str, text: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { subject: subject.into(), severity: Severity::Fault, text: text.into(), remedy: remedy.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self.severity {
            Severity::Ok => "ok",
            Severity::Warning => "warning",
            Severity::Fault => "FAULT",
        };
        write!(f, "{word:<8}{:<12}{}", self.subject, self.text)?;
        if !self.remedy.is_empty() {
            write!(f, "; {}", self.remedy)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_a_line_that_ends_in_what_to_do() {
        let finding = Finding::fault("broker", "nobody answers at a:9092", "start Kafka there");
        assert_eq!(finding.to_string(), "FAULT   broker      nobody answers at a:9092; start Kafka there");
        assert!(Severity::Ok < Severity::Warning && Severity::Warning < Severity::Fault);
    }
}
