//! The history database, made again from an archive.
//!
//! What comes back: every detection that became an alert, the names and first places of objects, and
//! the sky that each exposure covered, as far as its alerts tell it (`corners.rs`). What does not:
//! exposures that made no alerts and their limits, and exposures that wait to be run again. An object
//! whose first detection is older than the archive keeps its name, at the place of its first
//! detection in it.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::ArchiveError;
use super::container::Reader;
use super::corners::{Pinned, footprint};
use super::folder::{Folder, nights_of};
use super::index::{Index, Located};
use super::kind::Tree;
use super::remembered::{Values, detection, limit};
use crate::exposure::{Exposure, ExposureId, FrameKind};
use crate::history::{Footprint, History, Outcome, PriorEpoch, Searched, Sighting};
use crate::time::{Mjd, NightName};

/// Blocks that are kept unpacked: an exposure's alerts lie in a few neighbouring ones.
const MOST_BLOCKS: usize = 64;
/// Half side of what an exposure is known to have covered where its alerts do not tell the frame, degrees.
const AROUND_ONE: f64 = 3.0 / 3600.0;

/// What came back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rebuilt {
    /// Exposures.
    pub exposures: u64,
    /// Of these, the ones whose frame is known.
    pub frames: u64,
    /// Detections.
    pub detections: u64,
    /// Objects.
    pub objects: u64,
}

/// Writes what the archive in `root` knows into `history`, which is new. `rcid` picks one detector of several.
pub fn rebuild(root: &Path, history: &mut History, rcid: Option<i32>) -> Result<Rebuilt, ArchiveError> {
    let held = Folder::take(root).ok();
    let nights = nights_of(root)?;
    let mut firsts = HashMap::new();
    let mut indices = Vec::new();
    for night in &nights {
        let index = Index::look(night, held.is_some())?;
        index.first_places(&mut firsts)?;
        indices.push(index);
    }
    if firsts.is_empty() {
        return Err(ArchiveError::Asked(format!("{} holds no alerts; name the folder of an archive", root.display())));
    }
    let mut work = Work { rcid, firsts, blocks: Blocks::default(), seen: BTreeSet::new(), done: Rebuilt::default() };
    for (night, index) in nights.iter().zip(&indices) {
        let Some(name) = night.file_name().and_then(|n| n.to_str()).and_then(|n| n.parse::<NightName>().ok()) else {
            tracing::warn!("{} is not named after a night and is left out", night.display());
            continue;
        };
        let mut exposure: Vec<Located> = Vec::new();
        for row in index.by_time()? {
            if exposure.first().is_some_and(|first| first.jd != row.jd) {
                work.exposure(history, night, name, &std::mem::take(&mut exposure))?;
            }
            exposure.push(row);
        }
        work.exposure(history, night, name, &exposure)?;
    }
    if rcid.is_none() && work.seen.len() > 1 {
        let list: Vec<String> = work.seen.iter().map(i32::to_string).collect();
        return Err(ArchiveError::Asked(format!(
            "the archive holds alerts of the detectors {}, and each has a history of its own: name one with --rcid",
            list.join(", ")
        )));
    }
    Ok(work.done)
}

struct Work {
    rcid: Option<i32>,
    /// When and where each object was first seen.
    firsts: HashMap<String, (f64, f64, f64)>,
    blocks: Blocks,
    seen: BTreeSet<i32>,
    done: Rebuilt,
}

impl Work {
    /// Writes one exposure: all alerts of one moment.
    fn exposure(
        &mut self,
        history: &mut History,
        folder: &Path,
        night: NightName,
        rows: &[Located],
    ) -> Result<(), ArchiveError> {
        let mut known = BTreeSet::new();
        let (mut sightings, mut pinned, mut id) = (Vec::new(), Vec::new(), None);
        for row in rows {
            let values = self.blocks.values(&folder.join(&row.file), row)?;
            let detection = detection(&values);
            self.seen.extend(detection.rcid);
            let another = self.rcid.is_some() && detection.rcid != self.rcid;
            if another || !detection.candid.is_some_and(|candid| known.insert(candid)) {
                continue;
            }
            id = id.or_else(|| row.exposure.clone());
            pinned.extend(pinned_of(&detection));
            sightings.push(self.sighting(values.object(), detection));
        }
        let Some(first) = sightings.first() else { return Ok(()) };
        let limit = limit(&first.detection);
        let frame = footprint(&pinned);
        self.done.frames += u64::from(frame.is_some());
        self.done.exposures += 1;
        self.done.detections += sightings.len() as u64;
        let footprint = frame.unwrap_or_else(|| around(first));
        let exposure = exposure_of(night, limit.jd, id);
        let searched = Searched { limit, footprint, sightings: sightings.iter().collect() };
        history.record(&exposure, &Outcome::Done { spool: None, reason: String::new() }, Some(&searched))?;
        Ok(())
    }

    fn sighting(&mut self, object_id: String, detection: PriorEpoch) -> Sighting {
        let own = (detection.jd, detection.ra.unwrap_or_default(), detection.dec.unwrap_or_default());
        let (_, ra, dec) = self.firsts.get(&object_id).copied().unwrap_or(own);
        self.done.objects += u64::from(self.firsts.get(&object_id).is_some_and(|first| first.0 == own.0));
        Sighting { object_id, object_place: (ra, dec), detection }
    }
}

fn pinned_of(d: &PriorEpoch) -> Option<Pinned> {
    let pixel = (f64::from(d.xpos?), f64::from(d.ypos?));
    Some(Pinned { pixel, edge: f64::from(d.mindtoedge?), sky: (d.ra?, d.dec?) })
}

/// A few arcsec around one detection, which the exposure covered at least.
fn around(one: &Sighting) -> Footprint {
    let (ra, dec) = (one.detection.ra.unwrap_or_default(), one.detection.dec.unwrap_or_default());
    let (wide, high) = (AROUND_ONE / dec.to_radians().cos().max(1e-3), AROUND_ONE);
    Footprint(
        [(-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0)]
            .map(|(x, y)| ((ra + x * wide).rem_euclid(360.0), (dec + y * high).clamp(-90.0, 90.0))),
    )
}

fn exposure_of(night: NightName, jd: f64, id: Option<String>) -> Exposure {
    let start = Mjd::from_jd(jd);
    Exposure {
        id: id.map_or_else(|| ExposureId::new(night, start), ExposureId::from_stored),
        night,
        kind: FrameKind::Light,
        start,
        exposure_s: 0.0,
        filter: String::new(),
        field: String::new(),
        pointing: None,
        temperature_c: None,
        file: "of the archive".to_owned(),
    }
}

/// Blocks of files, unpacked, the latest last.
#[derive(Default)]
struct Blocks {
    kept: VecDeque<(PathBuf, u64, Rc<Block>)>,
    trees: HashMap<PathBuf, Rc<Tree>>,
}

/// Records of a block, and where each begins.
struct Block {
    bytes: Vec<u8>,
    starts: Vec<usize>,
}

impl Blocks {
    fn values(&mut self, path: &Path, row: &Located) -> Result<Values, ArchiveError> {
        let damaged = || ArchiveError::Damaged(path.to_owned());
        let block = self.block(path, row.block)?;
        let tree = self.trees.get(path).ok_or_else(damaged)?;
        let record =
            usize::try_from(row.record).ok().and_then(|n| Some((block.starts.get(n)?, block.starts.get(n + 1)?)));
        let (start, end) = record.ok_or_else(damaged)?;
        Values::of(tree, &block.bytes[*start..*end]).map_err(|_| damaged())
    }

    fn block(&mut self, path: &Path, at: u64) -> Result<Rc<Block>, ArchiveError> {
        if let Some((_, _, block)) = self.kept.iter().rev().find(|(p, a, _)| *a == at && p == path) {
            return Ok(block.clone());
        }
        let failed = |error: std::io::Error| ArchiveError::read(path, &error);
        let damaged = || ArchiveError::Damaged(path.to_owned());
        let mut reader = Reader::open(path).map_err(failed)?;
        let tree = match self.trees.get(path) {
            Some(tree) => tree.clone(),
            None => {
                let tree = Rc::new(Tree::parse(&reader.schema).map_err(|_| damaged())?);
                self.trees.insert(path.to_owned(), tree.clone());
                tree
            }
        };
        let (count, bytes) = reader.block_at(at).map_err(failed)?;
        let mut starts = vec![0];
        for _ in 0..count {
            let start = starts.last().copied().unwrap_or(0);
            starts.push(start + tree.length(&bytes[start..]).map_err(|_| damaged())?);
        }
        let block = Rc::new(Block { bytes, starts });
        if self.kept.len() >= MOST_BLOCKS {
            self.kept.pop_front();
        }
        self.kept.push_back((path.to_owned(), at, block.clone()));
        Ok(block)
    }
}
