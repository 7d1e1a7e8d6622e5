//! Writing: one transaction an exposure, replaced and not doubled when it is written again.

use rusqlite::{OptionalExtension, Transaction, params};

use super::places::{Footprint, separation, zone};
use super::{History, HistoryError, PriorEpoch, Sighting, measured};
use crate::exposure::{Exposure, ExposureId};

/// Two places that are nearer than this are one and the same, arcsec.
const SAME_PLACE_ARCSEC: f64 = 0.001;

/// How an exposure ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Its alerts are durable in the spool file of this sequence number, or there were none to write.
    Done {
        /// Sequence number of the spool file, when it has one.
        spool: Option<u64>,
        /// Why it makes no alerts; empty when it was searched for them.
        reason: String,
    },
    /// It waits for something, to be run again.
    Deferred {
        /// What it waits for.
        reason: String,
    },
}

/// What a searched exposure leaves to later ones.
#[derive(Debug, Clone)]
pub struct Searched<'a> {
    /// The exposure as an upper limit.
    pub limit: PriorEpoch,
    /// Where it looked.
    pub footprint: Footprint,
    /// What became an alert.
    pub sightings: Vec<&'a Sighting>,
}

/// One row of the ledger.
#[derive(Debug, Clone, PartialEq)]
pub struct LedgerEntry {
    /// The exposure.
    pub id: ExposureId,
    /// When it began, JD.
    pub jd: f64,
    /// The file it came in.
    pub file: String,
    /// How it ended.
    pub outcome: Outcome,
    /// Alerts that it made.
    pub alerts: u64,
}

impl History {
    /// Writes `exposure` into the ledger, with what it saw when it was searched; durable on return.
    ///
    /// Rows that an earlier run of the same exposure left are replaced. Names of objects stay.
    pub fn record(
        &mut self,
        exposure: &Exposure,
        outcome: &Outcome,
        searched: Option<&Searched<'_>>,
    ) -> Result<(), HistoryError> {
        let transaction = self.connection.transaction()?;
        let alerts = searched.map_or(0, |s| s.sightings.len());
        let number = write_exposure(&transaction, exposure, outcome, alerts)?;
        transaction.prepare_cached("DELETE FROM detections WHERE exposure = ?1")?.execute(params![number])?;
        if let Some(searched) = searched {
            write_epoch(&transaction, number, searched)?;
            for sighting in &searched.sightings {
                let object = write_object(&transaction, sighting)?;
                write_detection(&transaction, object, number, &sighting.detection)?;
            }
        }
        transaction.commit()?;
        Ok(())
    }

    /// The ledger's row of an exposure.
    pub fn ledger(&self, exposure: &ExposureId) -> Result<Option<LedgerEntry>, HistoryError> {
        let mut rows = self.connection.prepare_cached(&format!("{LEDGER} WHERE id = ?1"))?;
        Ok(rows.query_row(params![exposure.as_str()], ledger_entry).optional()?)
    }

    /// Exposures that wait to be run again, oldest first.
    pub fn deferred(&self) -> Result<Vec<LedgerEntry>, HistoryError> {
        let mut rows = self.connection.prepare_cached(&format!("{LEDGER} WHERE state = 'deferred' ORDER BY jd"))?;
        Ok(rows.query_map([], ledger_entry)?.collect::<Result<_, _>>()?)
    }

    /// The row of an exposure.
    pub(super) fn exposure_number(&self, exposure: &ExposureId) -> Result<Option<i64>, HistoryError> {
        let mut row = self.connection.prepare_cached("SELECT number FROM exposures WHERE id = ?1")?;
        Ok(row.query_row(params![exposure.as_str()], |row| row.get(0)).optional()?)
    }
}

const LEDGER: &str = "SELECT id, jd, file, state, reason, alerts, spool FROM exposures";

fn ledger_entry(row: &rusqlite::Row<'_>) -> rusqlite::Result<LedgerEntry> {
    let reason = row.get(4)?;
    let outcome = if row.get::<_, String>(3)? == "done" {
        Outcome::Done { spool: row.get::<_, Option<i64>>(6)?.map(|n| n as u64), reason }
    } else {
        Outcome::Deferred { reason }
    };
    Ok(LedgerEntry {
        id: ExposureId::from_stored(row.get::<_, String>(0)?),
        jd: row.get(1)?,
        file: row.get(2)?,
        outcome,
        alerts: row.get::<_, i64>(5)? as u64,
    })
}

fn write_exposure(
    transaction: &Transaction<'_>,
    exposure: &Exposure,
    outcome: &Outcome,
    alerts: usize,
) -> rusqlite::Result<i64> {
    let (state, reason, spool) = match outcome {
        Outcome::Done { spool, reason } => ("done", reason, spool.map(|n| n as i64)),
        Outcome::Deferred { reason } => ("deferred", reason, None),
    };
    transaction
        .prepare_cached(
            "INSERT INTO exposures (id, jd, file, state, reason, alerts, spool) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
             ON CONFLICT (id) DO UPDATE SET jd = ?2, file = ?3, state = ?4, reason = ?5, alerts = ?6, spool = ?7,
                 band = NULL
             RETURNING number",
        )?
        .query_row(
            params![exposure.id.as_str(), exposure.start.jd(), exposure.file, state, reason, alerts as i64, spool],
            |row| row.get(0),
        )
}

fn write_epoch(transaction: &Transaction<'_>, number: i64, searched: &Searched<'_>) -> rusqlite::Result<()> {
    let (limit, (centre, radius)) = (&searched.limit, searched.footprint.circle());
    transaction
        .prepare_cached(
            "UPDATE exposures SET fid = ?2, pid = ?3, diffmaglim = ?4, pdiffimfilename = ?5, programpi = ?6,
                 programid = ?7, nid = ?8, rcid = ?9, field = ?10, magzpsci = ?11, magzpsciunc = ?12,
                 magzpscirms = ?13, clrcoeff = ?14, clrcounc = ?15, rbversion = ?16,
                 ra = ?17, dec = ?18, radius = ?19, band = ?20, corners = ?21
             WHERE number = ?1",
        )?
        .execute(params![
            number,
            limit.fid,
            limit.pid,
            limit.diffmaglim,
            limit.pdiffimfilename,
            limit.programpi,
            limit.programid,
            limit.nid,
            limit.rcid,
            limit.field,
            limit.magzpsci,
            limit.magzpsciunc,
            limit.magzpscirms,
            limit.clrcoeff,
            limit.clrcounc,
            limit.rbversion,
            centre.0,
            centre.1,
            radius,
            centre.1.floor() as i64,
            searched.footprint.to_bytes(),
        ])?;
    Ok(())
}

/// The object of `sighting`, made when there is none of that name.
fn write_object(transaction: &Transaction<'_>, sighting: &Sighting) -> Result<i64, HistoryError> {
    let (name, place) = (&sighting.object_id, sighting.object_place);
    let known: Option<(i64, f64, f64)> = transaction
        .prepare_cached("SELECT number, ra, dec FROM objects WHERE name = ?1")?
        .query_row(params![name], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .optional()?;
    match known {
        Some((_, ra, dec)) if separation((ra, dec), place) * 3600.0 > SAME_PLACE_ARCSEC => {
            Err(HistoryError::Elsewhere { name: name.clone(), ra: place.0, dec: place.1 })
        }
        Some((number, ..)) => Ok(number),
        None => Ok(transaction
            .prepare_cached(
                "INSERT INTO objects (name, ra, dec, zone, jd) VALUES (?1, ?2, ?3, ?4, ?5) RETURNING number",
            )?
            .query_row(params![name, place.0, place.1, zone(place.1), sighting.detection.jd], |row| row.get(0))?),
    }
}

fn write_detection(
    transaction: &Transaction<'_>,
    object: i64,
    exposure: i64,
    detection: &PriorEpoch,
) -> rusqlite::Result<()> {
    transaction
        .prepare_cached(
            "INSERT INTO detections (object, exposure, candid, jd, positive, ra, dec, magpsf, sigmapsf, ranr, decnr,
                 tblid, nneg, nbad, ssnamenr, measured)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)",
        )?
        .execute(params![
            object,
            exposure,
            detection.candid,
            detection.jd,
            detection.isdiffpos == Some("t"),
            detection.ra,
            detection.dec,
            detection.magpsf,
            detection.sigmapsf,
            detection.ranr,
            detection.decnr,
            detection.tblid,
            detection.nneg,
            detection.nbad,
            detection.ssnamenr,
            measured::to_bytes(detection),
        ])?;
    Ok(())
}
