//! What happens to an exposure after the broker spoke: settled, or set aside.

use std::sync::PoisonError;

use super::aside::{self, Aside};
use super::buffer::{Inner, Spool, is_full};
use super::cursor::Cursor;
use super::format::Damage;
use super::recovery::{self, Finding, Sent};
use super::segment::file_name;
use super::store::{read_small, replace_small};
use super::{Message, Result, SpoolError};

/// Settles the first `settled` records of each of these.
fn advance(cursor: &mut Cursor, inner: &Inner, steps: &[(u64, u32)]) {
    for (sequence, settled) in steps {
        if let Some(unsent) = inner.ready.get(sequence) {
            cursor.settle(unsent.epoch, *sequence, *settled, unsent.count);
        }
    }
}

impl Spool {
    /// Moves an unsent exposure of which nothing can be read to `quarantine/`, so that it does not
    /// hold up the others. Its alerts are counted as damaged; gives its name and their number.
    pub fn set_aside(&self, sequence: u64, now_s: i64) -> Result<(String, u32)> {
        let name = file_name(sequence);
        let Some(unsent) = self.inner().ready.get(&sequence).cloned() else { return Ok((String::new(), 0)) };
        self.store
            .rename(&format!("ready/{name}"), &format!("quarantine/{name}"))
            .and_then(|()| self.store.sync_folder("quarantine"))
            .map_err(self.io(format!("moving {name} to quarantine/")))?;
        self.inner().ready.remove(&sequence);
        self.adopt(|cursor, _| cursor.set_aside(sequence), now_s)?;
        self.inner().quarantined += 1;
        Ok((unsent.exposure, unsent.count))
    }

    /// The cursor as it will be when the first `settled` records of each of these are settled:
    /// what goes to the broker in the transaction.
    pub fn cursor_after(&self, steps: &[(u64, u32)]) -> Cursor {
        let inner = self.inner();
        let mut cursor = inner.cursor.clone();
        advance(&mut cursor, &inner, steps);
        cursor.next = cursor.next.max(inner.next);
        cursor
    }

    /// Notes what the broker has committed: the cursor durably first, then files move to `sent/`.
    ///
    /// # Errors
    ///
    /// When it is not durable here. It counts all the same, and was said: the broker has it.
    pub fn settle(&self, steps: &[(u64, u32)], now_s: i64) -> Result<()> {
        self.adopt(|cursor, inner| advance(cursor, inner, steps), now_s)
    }

    /// Writes the cursor with this change, durably, and only then counts on it. One at a time: the
    /// night notes numbers given, the uplink what was sent.
    fn change_cursor(&self, change: &dyn Fn(&mut Cursor, &Inner)) -> std::io::Result<()> {
        let _turn = self.noting.lock().unwrap_or_else(PoisonError::into_inner);
        let cursor = {
            let inner = self.inner();
            let mut cursor = inner.cursor.clone();
            change(&mut cursor, &inner);
            cursor.next = cursor.next.max(inner.next);
            cursor
        };
        replace_small(&*self.store, "cursor", &cursor.encode_file())?;
        self.inner().cursor = cursor;
        Ok(())
    }

    /// Notes durably which numbers were given, so that the loss of the youngest file is noticed,
    /// and its number never given again.
    pub(super) fn note_numbers(&self) -> Result<()> {
        self.change_cursor(&|_, _| ()).map_err(self.io("noting in the cursor which numbers were given"))
    }

    /// Counts on what the broker has. Its own copy of the cursor is what matters: a disk that takes no writes any more, as ext4
    /// after an error, is told of and does not keep the alerts on it from being sent.
    fn adopt(&self, change: impl Fn(&mut Cursor, &Inner), now_s: i64) -> Result<()> {
        let mut noted = self.change_cursor(&change);
        if noted.as_ref().is_err_and(is_full) {
            self.release_reserve();
            noted = self.change_cursor(&change);
        }
        let mut inner = self.inner();
        match &noted {
            Ok(()) => inner.unwritable = false,
            Err(error) => {
                let mut cursor = inner.cursor.clone();
                change(&mut cursor, &inner);
                inner.cursor = cursor;
                if !std::mem::replace(&mut inner.unwritable, true) {
                    tracing::error!(
                        "the spool {}: the cursor cannot be written ({error}); what is in it is sent all the same and the broker \
                         keeps count; mend the disk: it takes no new exposures",
                        self.store.place()
                    );
                }
            }
        }
        let cursor = &inner.cursor;
        let done: Vec<u64> =
            inner.ready.iter().filter(|(s, unsent)| cursor.covers(unsent.epoch, **s)).map(|(s, _)| *s).collect();
        for sequence in done {
            let name = file_name(sequence);
            let moved = self.store.rename(&format!("ready/{name}"), &format!("sent/{name}"));
            // A file that stays in ready/ is recognised by the cursor when the spool is opened next.
            if let Some(unsent) = inner.ready.remove(&sequence).filter(|_| moved.is_ok()) {
                inner.sent.insert(sequence, Sent { bytes: unsent.bytes, since_s: now_s, trimmed: false });
            }
        }
        noted.map_err(self.io("writing the cursor"))
    }

    /// Does it once more with the reserve given up, where the disk is full.
    fn with_reserve(&self, work: impl Fn() -> Result<()>) -> Result<()> {
        match work() {
            Err(SpoolError::Io { source, .. }) if is_full(&source) => {
                self.release_reserve();
                work()
            }
            outcome => outcome,
        }
    }

    /// Brings the broker's cursor and the spool's together, at the start of a session with the
    /// broker. What the broker has is not sent again, whichever life of this spool sent it.
    pub fn reconcile(&self, broker: &Cursor, now_s: i64) -> Vec<Finding> {
        let (plan, here) = {
            let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
            let mut inner = self.inner();
            let plan = recovery::reconcile(&inner.ready, inner.next, &inner.cursor, broker);
            let here = inner.next.saturating_sub(1);
            inner.next = plan.next;
            inner.missing += plan.gaps.iter().map(|(first, last)| last - first + 1).sum::<u64>();
            (plan, here)
        };
        let mut findings = Vec::new();
        if plan.forgotten > 0 {
            findings.push(Finding::Forgotten(plan.forgotten));
        }
        if let Some(broker) = broker.last().filter(|last| *last > here) {
            findings.push(Finding::Restored { broker, here });
        }
        findings.extend(plan.gaps.iter().map(|(first, last)| Finding::Gap { first: *first, last: *last }));
        // Where it is not durable here the broker tells it again the next time.
        let _ = self.adopt(|cursor, _| *cursor = plan.cursor.clone(), now_s);
        findings
    }

    /// Keeps a record that the broker refuses in `dead/`, before the cursor passes it.
    pub fn bury(&self, at: Aside, message: &Message, reason: &str) -> Result<()> {
        let (exposure, epoch) = match self.inner().ready.get(&at.sequence) {
            Some(unsent) => (unsent.exposure.clone(), unsent.epoch),
            None => (String::new(), self.epoch),
        };
        let known = self.store.open(&format!("dead/{}.seg", at.stem())).is_ok();
        self.with_reserve(|| aside::bury(&*self.store, self.uuid, epoch, at, &exposure, message, reason))?;
        self.inner().dead += u64::from(!known);
        Ok(())
    }

    /// Notes what Kafka is asked to promise (`exactly-once`, `idempotent`); gives what was noted
    /// before, where that is another one and exposures wait.
    pub fn note_delivery(&self, delivery: &str) -> Result<Option<String>> {
        let before = read_small(&*self.store, "delivery", 64).map_err(self.io("reading the mode of delivery"))?;
        let before = before.map(|text| String::from_utf8_lossy(&text).trim().to_owned());
        if before.as_deref() == Some(delivery) {
            return Ok(None);
        }
        replace_small(&*self.store, "delivery", format!("{delivery}\n").as_bytes())
            .map_err(self.io("noting the mode of delivery"))?;
        Ok(before.filter(|_| !self.inner().ready.is_empty()))
    }

    /// Records in `dead/` that the cursor has not passed yet: they must not be sent on the way.
    pub fn buried_ahead(&self) -> Result<Vec<Aside>> {
        let entries = self.store.list("dead").map_err(self.io("listing dead/"))?;
        let records = entries.iter().filter(|e| e.name.ends_with(".seg")).filter_map(|e| Aside::from_name(&e.name));
        Ok(records.filter(|at| self.is_ahead(*at)).collect())
    }

    /// Whether the record is still to be passed by the cursor.
    pub(super) fn is_ahead(&self, at: Aside) -> bool {
        let inner = self.inner();
        inner.ready.get(&at.sequence).is_some_and(|unsent| inner.cursor.settled(unsent.epoch, at.sequence) <= at.number)
    }

    /// Keeps the bytes of a damaged record in `quarantine/`, before the cursor passes it.
    pub fn quarantine(&self, sequence: u64, number: u32, damage: &Damage) -> Result<()> {
        let raw = self.read(sequence)?.raw(number);
        let raw = raw.unwrap_or_default();
        self.with_reserve(|| aside::quarantine(&*self.store, Aside { sequence, number }, &raw, damage))?;
        self.inner().quarantined += 1;
        Ok(())
    }
}
