//! Reading: what was seen before at the places of an exposure's candidates.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use rayon::prelude::*;
use rusqlite::{Row, params};

use super::places::{Footprint, OBJECT_RADIUS_ARCSEC, inside, name, ranges, separation, unit, zone};
use super::{History, HistoryError, Past, PriorEpoch, measured};
use crate::exposure::{Exposure, ExposureId};

/// Most epochs that a packet carries; older ones are left out. A field that is visited all night
/// long would otherwise make packets larger than a broker takes (1 MB).
pub const MOST_EPOCHS: usize = 400;
/// Tries for a name before the cell is called full.
const ATTEMPTS: u64 = 1_000;

/// What is asked of the history.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// The exposure: its own rows are no past.
    pub exposure: &'a ExposureId,
    /// When it began, JD: what came later is no past.
    pub jd: f64,
    /// Epochs older than this many days are left out of `epochs` (not of the counts).
    pub days: f64,
    /// The observatory's three letters, for objects that are new.
    pub code: &'a str,
    /// Year of the night, for objects that are new.
    pub year: i32,
}

impl<'a> Question<'a> {
    /// About the candidates of `exposure`.
    pub fn about(exposure: &'a Exposure, code: &'a str, days: f64) -> Self {
        let year = exposure.night.to_string().get(..4).and_then(|year| year.parse().ok()).unwrap_or_default();
        Self { exposure: &exposure.id, jd: exposure.start.jd(), days, code, year }
    }
}

/// An earlier exposure over the same sky.
struct Cover {
    number: i64,
    jd: f64,
    sides: [[f64; 3]; 4],
    /// What packets say of it, for those of the days asked for.
    epoch: Option<Arc<PriorEpoch>>,
}

/// A name and its place.
type Named = (String, (f64, f64));

/// Objects that this exposure is the first to see.
#[derive(Default)]
struct NewObjects {
    zones: HashMap<i64, Vec<Named>>,
    names: HashSet<String>,
}

/// An object, found or new.
struct Object {
    /// `None` for a new one.
    number: Option<i64>,
    name: String,
    place: (f64, f64),
}

impl History {
    /// What the history knows of each of `places` (right ascension, declination, degrees), in order.
    ///
    /// New objects get their names here, but are kept only when [`History::record`] is called. Two
    /// places within [`OBJECT_RADIUS_ARCSEC`] of one another are one object.
    pub fn look_up(&self, places: &[(f64, f64)], question: &Question<'_>) -> Result<Vec<Past>, HistoryError> {
        let objects = self.objects(places, question)?;
        let covers = self.covers(places, question)?;
        let mut exposures: HashMap<i64, Arc<PriorEpoch>> =
            covers.iter().filter_map(|cover| Some((cover.number, cover.epoch.clone()?))).collect();
        let own = self.exposure_number(question.exposure)?;
        let mut pasts = Vec::with_capacity(places.len());
        for object in &objects {
            pasts.push(match object.number {
                Some(number) => self.past_of(number, own, question, &mut exposures)?,
                None => Seen { first_jd: question.jd, ..Seen::default() },
            });
        }
        Ok(objects
            .into_par_iter()
            .zip(places)
            .zip(pasts)
            .map(|((object, place), seen)| seen.into_past(object, &covers, *place, question))
            .collect())
    }

    /// The object at each place.
    fn objects(&self, places: &[(f64, f64)], question: &Question<'_>) -> Result<Vec<Object>, HistoryError> {
        let radius = OBJECT_RADIUS_ARCSEC / 3600.0;
        let mut new = NewObjects::default();
        let mut found = Vec::with_capacity(places.len());
        let mut near = self
            .connection
            .prepare_cached("SELECT number, name, ra, dec FROM objects WHERE zone = ?1 AND ra BETWEEN ?2 AND ?3")?;
        for place in places {
            let mut best: Option<(f64, Object)> = None;
            let mut consider = |object: Object| {
                let distance = separation(*place, object.place);
                if distance <= radius && best.as_ref().is_none_or(|(nearest, _)| distance < *nearest) {
                    best = Some((distance, object));
                }
            };
            for (zone, low, high) in ranges(place.0, place.1, radius) {
                let mut rows = near.query(params![zone, low, high])?;
                while let Some(row) = rows.next()? {
                    consider(Object { number: row.get(0)?, name: row.get(1)?, place: (row.get(2)?, row.get(3)?) });
                }
                for (name, place) in new.zones.get(&zone).into_iter().flatten() {
                    consider(Object { number: None, name: name.clone(), place: *place });
                }
            }
            found.push(match best {
                Some((_, object)) => object,
                None => {
                    let name = self.free_name(*place, question, &new)?;
                    new.names.insert(name.clone());
                    new.zones.entry(zone(place.1)).or_default().push((name.clone(), *place));
                    Object { number: None, name, place: *place }
                }
            });
        }
        Ok(found)
    }

    /// The first name of the place's cell that no object has.
    fn free_name(&self, place: (f64, f64), question: &Question<'_>, new: &NewObjects) -> Result<String, HistoryError> {
        let mut taken = self.connection.prepare_cached("SELECT 1 FROM objects WHERE name = ?1")?;
        for attempt in 0..ATTEMPTS {
            let name = name(question.code, question.year, place, attempt);
            if !taken.exists(params![name])? && !new.names.contains(&name) {
                return Ok(name);
            }
        }
        Err(HistoryError::NoName { ra: place.0, dec: place.1 })
    }

    /// Detections of object `number` before the exposure.
    fn past_of(
        &self,
        number: i64,
        own: Option<i64>,
        question: &Question<'_>,
        exposures: &mut HashMap<i64, Arc<PriorEpoch>>,
    ) -> Result<Seen, HistoryError> {
        let mut seen = Seen { first_jd: question.jd, ..Seen::default() };
        let mut earlier = self.connection.prepare_cached(
            "SELECT d.jd, d.exposure, d.candid, d.positive, d.ra, d.dec, d.magpsf, d.sigmapsf, d.ranr, d.decnr, d.tblid,
                    d.nneg, d.nbad, d.ssnamenr, d.measured
             FROM detections d WHERE d.object = ?1 AND d.jd < ?2 AND d.exposure IS NOT ?3",
        )?;
        let mut rows = earlier.query(params![number, question.jd, own])?;
        while let Some(row) = rows.next()? {
            let jd: f64 = row.get(0)?;
            seen.detections += 1;
            seen.first_jd = seen.first_jd.min(jd);
            if jd >= question.jd - question.days {
                let exposure: i64 = row.get(1)?;
                let of_exposure = match exposures.get(&exposure) {
                    Some(epoch) => epoch.clone(),
                    None => {
                        let epoch = Arc::new(self.exposure_epoch(exposure)?);
                        exposures.insert(exposure, epoch.clone());
                        epoch
                    }
                };
                seen.epochs.push((exposure, jd, detection(PriorEpoch::clone(&of_exposure), row)?));
            }
        }
        Ok(seen)
    }

    /// What packets say of exposure `number`.
    fn exposure_epoch(&self, number: i64) -> Result<PriorEpoch, HistoryError> {
        let columns = EPOCH_COLUMNS;
        let mut of = self.connection.prepare_cached(&format!("SELECT {columns} FROM exposures WHERE number = ?1"))?;
        Ok(of.query_row(params![number], |row| epoch_of(row, 0))?)
    }

    /// Earlier exposures that reach the sky of `places`, oldest first.
    fn covers(&self, places: &[(f64, f64)], question: &Question<'_>) -> Result<Vec<Cover>, HistoryError> {
        let Some((centre, radius)) = circle_around(places) else { return Ok(Vec::new()) };
        let widest: f64 =
            self.connection.query_row("SELECT coalesce(max(radius), 0) FROM exposures", [], |row| row.get(0))?;
        let reach = radius + widest + 1e-6;
        let mut near = self.connection.prepare_cached(&format!(
            "SELECT number, jd, ra, dec, radius, corners, {EPOCH_COLUMNS} FROM exposures
             WHERE band BETWEEN ?1 AND ?2 AND jd < ?3 AND id <> ?4"
        ))?;
        let bands = ((centre.1 - reach).floor(), (centre.1 + reach).floor());
        let mut rows = near.query(params![bands.0 as i64, bands.1 as i64, question.jd, question.exposure.as_str()])?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            let (place, own): ((f64, f64), f64) = ((row.get(2)?, row.get(3)?), row.get(4)?);
            if separation(centre, place) > radius + own + 1e-6 {
                continue;
            }
            let Some(footprint) = Footprint::from_bytes(row.get_ref(5)?.as_blob().unwrap_or_default()) else {
                continue;
            };
            let jd: f64 = row.get(1)?;
            let recent = jd >= question.jd - question.days;
            let epoch = if recent { Some(Arc::new(epoch_of(row, 6)?)) } else { None };
            found.push(Cover { number: row.get(0)?, jd, sides: footprint.sides(), epoch });
        }
        found.sort_by(|a, b| a.jd.total_cmp(&b.jd));
        Ok(found)
    }
}

/// The columns of an exposure that packets carry, as [`epoch_of`] reads them.
const EPOCH_COLUMNS: &str = "jd, fid, pid, diffmaglim, pdiffimfilename, programpi, programid, nid, rcid, field, magzpsci, \
                             magzpsciunc, magzpscirms, clrcoeff, clrcounc, rbversion";

/// The upper limit of an exposure from [`EPOCH_COLUMNS`], the first of which is column `first`.
fn epoch_of(row: &Row<'_>, first: usize) -> rusqlite::Result<PriorEpoch> {
    let float = |i: usize| Ok::<_, rusqlite::Error>(row.get::<_, Option<f64>>(first + i)?.map(|x| x as f32));
    Ok(PriorEpoch {
        jd: row.get(first)?,
        fid: row.get(first + 1)?,
        pid: row.get(first + 2)?,
        diffmaglim: float(3)?,
        pdiffimfilename: row.get(first + 4)?,
        programpi: row.get(first + 5)?,
        programid: row.get(first + 6)?,
        nid: row.get(first + 7)?,
        rcid: row.get(first + 8)?,
        field: row.get(first + 9)?,
        magzpsci: float(10)?,
        magzpsciunc: float(11)?,
        magzpscirms: float(12)?,
        clrcoeff: float(13)?,
        clrcounc: float(14)?,
        rbversion: row.get(first + 15)?,
        ..PriorEpoch::default()
    })
}

/// A row of `detections` with what belongs to its exposure.
fn detection(of_exposure: PriorEpoch, row: &Row<'_>) -> rusqlite::Result<PriorEpoch> {
    let mut epoch = PriorEpoch {
        candid: row.get(2)?,
        isdiffpos: Some(if row.get(3)? { "t" } else { "f" }),
        ra: row.get(4)?,
        dec: row.get(5)?,
        magpsf: row.get::<_, Option<f64>>(6)?.map(|x| x as f32),
        sigmapsf: row.get::<_, Option<f64>>(7)?.map(|x| x as f32),
        ranr: row.get(8)?,
        decnr: row.get(9)?,
        tblid: row.get(10)?,
        nneg: row.get(11)?,
        nbad: row.get(12)?,
        ssnamenr: row.get(13)?,
        ..of_exposure
    };
    measured::fill(&mut epoch, row.get_ref(14)?.as_blob().unwrap_or_default());
    Ok(epoch)
}

/// A circle that holds all places.
fn circle_around(places: &[(f64, f64)]) -> Option<((f64, f64), f64)> {
    let sum = places.iter().map(|p| unit(*p)).reduce(|s, v| [s[0] + v[0], s[1] + v[1], s[2] + v[2]])?;
    let centre = (sum[1].atan2(sum[0]).to_degrees().rem_euclid(360.0), sum[2].atan2(sum[0].hypot(sum[1])).to_degrees());
    Some((centre, places.iter().map(|p| separation(centre, *p)).fold(0.0, f64::max)))
}

/// What was seen of one object before the exposure.
#[derive(Default)]
struct Seen {
    detections: i32,
    first_jd: f64,
    /// Exposure, JD and detection, within the days asked for.
    epochs: Vec<(i64, f64, PriorEpoch)>,
}

impl Seen {
    /// With the upper limits of exposures that covered `place` and saw nothing of `object`.
    fn into_past(self, object: Object, covers: &[Cover], place: (f64, f64), question: &Question<'_>) -> Past {
        let place = unit(place);
        let over: Vec<&Cover> = covers.iter().filter(|cover| inside(&cover.sides, place)).collect();
        let coverages = over.len() as i32 + 1;
        let seen: HashSet<i64> = self.epochs.iter().map(|(exposure, ..)| *exposure).collect();
        let unseen = over.into_iter().filter(|cover| !seen.contains(&cover.number));
        let limits: Vec<(f64, Arc<PriorEpoch>)> =
            unseen.filter_map(|cover| Some((cover.jd, cover.epoch.clone()?))).collect();
        let seen = self.epochs.into_iter().map(|(_, jd, epoch)| (jd, Arc::new(epoch)));
        let mut epochs: Vec<(f64, Arc<PriorEpoch>)> = seen.chain(limits).collect();
        epochs.sort_by(|a, b| a.0.total_cmp(&b.0));
        epochs.drain(..epochs.len().saturating_sub(MOST_EPOCHS));
        Past {
            object_id: object.name,
            object_place: object.place,
            epochs: epochs.into_iter().map(|(_, epoch)| epoch).collect(),
            detections: self.detections + 1,
            coverages,
            first_jd: self.first_jd,
            last_jd: question.jd,
        }
    }
}
