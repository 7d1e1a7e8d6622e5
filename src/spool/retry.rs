//! Sending again what a person asks for: refused records, or exposures that the broker forgot.
//!
//! What is sent again becomes an exposure of its own, named after where it came from, so that
//! asking twice, or dying in between, makes one.

use super::buffer::{Receipt, Spool};
use super::inspect::{Again, asked_to_retry};
use super::segment::{ReadError, SegmentReader, file_name, segment_bytes};
use super::{Message, Result, SpoolError};

impl Spool {
    /// Puts a refused record, or a sent exposure, among the unsent again. `None` when it is there
    /// already, or when the rest of its exposure is not sent yet: then it stays asked for.
    pub fn retry(&self, what: Again) -> Result<Option<Receipt>> {
        // Until the cursor has passed it, its place among the others is all that keeps it from being sent.
        if matches!(what, Again::Dead(at) if self.is_ahead(at)) {
            return Ok(None);
        }
        let (file, sequence) = match what {
            Again::Dead(at) => (format!("dead/{}.seg", at.stem()), at.sequence),
            Again::Sent(sequence) => (format!("sent/{}", file_name(sequence)), sequence),
        };
        let unreadable = |error: ReadError| SpoolError::Segment {
            place: format!("{}/{file}", self.place()),
            sequence,
            why: error.to_string(),
        };
        let segment = SegmentReader::open(&*self.store, &file).map_err(unreadable)?;
        let records: std::result::Result<Vec<Message>, ReadError> = (0..segment.head().count)
            .map(|number| segment.record(number))
            .filter(|record| !matches!(record, Err(ReadError::Damage(_))))
            .collect();
        let messages = records.map_err(unreadable)?;
        let name = match what {
            Again::Dead(at) => format!("{}+{}", segment.head().exposure, at.stem()),
            Again::Sent(_) => format!("{}+{}", segment.head().exposure, self.epoch()),
        };
        let reservation = self.reserve(segment_bytes(&name, &messages))?;
        let receipt = match self.commit_named(reservation, &name, &messages) {
            Ok(receipt) => Some(receipt),
            Err(SpoolError::Twin { .. }) => None,
            Err(error) => return Err(error),
        };
        let mut done = vec![what.marker()];
        if let Again::Dead(at) = what {
            done.extend([format!("dead/{}.txt", at.stem()), file]);
        }
        for name in done {
            match self.store.remove(&name) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(self.io(format!("removing {name}"))(error));
                }
                _ => {}
            }
        }
        if let Again::Dead(_) = what {
            let mut inner = self.inner();
            inner.dead = inner.dead.saturating_sub(1);
        }
        Ok(receipt)
    }

    /// Does what `nightjar spool retry` asked the running daemon for; gives how many.
    pub fn retry_what_was_asked_for(&self) -> Result<usize> {
        let asked = asked_to_retry(&*self.store).map_err(self.io("looking for what to send again"))?;
        let mut done = 0;
        for what in asked {
            match self.retry(what) {
                Ok(receipt) => done += usize::from(receipt.is_some()),
                Err(error @ SpoolError::Segment { .. }) => {
                    tracing::warn!("{error}");
                    self.store.remove(&what.marker()).map_err(self.io(format!("removing {}", what.marker())))?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }
}
