//! The log: one line an event, in the journal with fields, on a terminal without.
//!
//! Under systemd (`JOURNAL_STREAM` names our standard error) records go to journald with their
//! fields, so that `journalctl -u nightjar NIGHTJAR_FIELD=512` works; everywhere else the same
//! sentences go to standard error. Fields are named `nightjar_exposure`, `nightjar_field`,
//! `nightjar_filter`, `nightjar_stage`, `nightjar_seconds`, … (journald shows them in capitals), and
//! `message_id` for the kinds of event that have an entry in the catalogue.
//!
//! What is shown is `info` and above; `NIGHTJAR_LOG` takes another filter (`debug`,
//! `nightjar::uplink=trace`).

use std::fmt;
use std::os::unix::fs::MetadataExt;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_journald::{Priority, PriorityMappings};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

/// Sets the log up for the whole process; a second call changes nothing.
pub fn start() {
    let filter = EnvFilter::try_from_env("NIGHTJAR_LOG").unwrap_or_else(|_| EnvFilter::new("info,librdkafka=warn"));
    let journal = if standard_error_is_the_journal() { tracing_journald::layer().ok() } else { None };
    let layer = match journal {
        Some(journal) => journal
            .with_field_prefix(None)
            .with_syslog_identifier("nightjar".into())
            .with_priority_mappings(priorities())
            .boxed(),
        None => tracing_subscriber::fmt::layer().event_format(Sentence).with_writer(std::io::stderr).boxed(),
    };
    // Fails only where a log is set up already: that one stays.
    let _ = tracing_subscriber::registry().with(layer.with_filter(filter)).try_init();
}

/// The levels of syslog(3) that the words mean; the crate's own put `info` a level higher.
fn priorities() -> PriorityMappings {
    PriorityMappings {
        info: Priority::Informational,
        debug: Priority::Debug,
        trace: Priority::Debug,
        ..PriorityMappings::new()
    }
}

/// Why the program ends without having done what was asked, a line each: with fields in the journal,
/// on standard error everywhere else. `exit_code` is one of sysexits.h.
pub fn last_words(sentences: &str, exit_code: u8) {
    let in_journal = standard_error_is_the_journal();
    for sentence in sentences.lines() {
        match (in_journal, exit_code) {
            (true, 78) => tracing::error!(message_id = super::events::SETTINGS_WRONG, "{sentence}"),
            (true, _) => tracing::error!("{sentence}"),
            (false, _) => eprintln!("nightjar: {sentence}"),
        }
    }
}

/// Whether `JOURNAL_STREAM` (systemd.exec(5)) names the device and inode of standard error.
fn standard_error_is_the_journal() -> bool {
    let stream = std::env::var("JOURNAL_STREAM").unwrap_or_default();
    let named = stream.split_once(':').and_then(|(dev, ino)| Some((dev.parse().ok()?, ino.parse().ok()?)));
    let ours = std::fs::metadata("/proc/self/fd/2").map(|m| (m.dev(), m.ino())).ok();
    named.is_some() && named == ours
}

/// An event as a sentence: the level where it is not `info`, and the message. The fields are for
/// machines.
struct Sentence;

impl<S, N> FormatEvent<S, N> for Sentence
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        match *event.metadata().level() {
            Level::ERROR => writer.write_str("error: ")?,
            Level::WARN => writer.write_str("warning: ")?,
            Level::INFO => {}
            level => write!(writer, "{} {}: ", level.as_str().to_ascii_lowercase(), event.metadata().target())?,
        }
        let mut message = Message { writer: writer.by_ref(), result: Ok(()) };
        event.record(&mut message);
        message.result?;
        writeln!(writer)
    }
}

struct Message<'a> {
    writer: Writer<'a>,
    result: fmt::Result,
}

impl Visit for Message<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.result = write!(self.writer, "{value:?}");
        }
    }
}
