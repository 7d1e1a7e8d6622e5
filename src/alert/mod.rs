//! From detections to finished messages: ZTF alert packets, schema 4.02.
//!
//! A packet holds one candidate with its 103 measured fields, what was seen at its place in the
//! last 30 days, and three pictures. Everything in it is a function of the exposure, its history
//! and the parameters: no clock, no files, no random numbers, so that an exposure that is run again
//! gives the same bytes and a reader that removes duplicates by `candid` finds them.
//!
//! What Nightjar knows beyond the ZTF schema travels as Kafka headers, because one extra field in a
//! packet misaligns the columns of some readers.

mod asteroid;
mod candidate;
mod container;
mod cutout;
mod deflate;
mod identifiers;
mod network;
mod read;
mod record;
mod schema;
mod sheet;
mod stamp;
mod stars;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use rayon::prelude::*;

pub use container::Profile;
pub use identifiers::{MOST_ALERTS_A_SIGN, candidate_id, field_number, filter_number, processing_id};
pub use network::{Network, NetworkError, Normalise, WeightsError};
pub use read::{Packet, PacketError, read_packets};
pub use schema::{AlertSchema, VERSION, alert_schema};
pub use sheet::{MOST_ON_A_SHEET, sheet};
pub use stamp::{StampError, stamp_pixels};

use crate::asteroids::{Asteroid, Asteroids};
use crate::catalogue::StarCatalogue;
use crate::detect::{Candidate, Cutouts, Detections};
use crate::history::{Past, PriorEpoch, Sighting};
use crate::time::NightName;
use cutout::{LocalWcs, Stamps};
use record::{AlertRecord, CutoutRecord, Epochs};

/// What is the same for every alert of a night.
#[derive(Debug, Clone)]
pub struct AlertParameters {
    /// Framing and what absent values look like.
    pub profile: Profile,
    /// The observatory's name (`publisher`).
    pub publisher: String,
    /// Name of the topic with `{prefix}`, `{night}` and `{programid}` to be filled in.
    pub topic: String,
    /// First word of the topic.
    pub topic_prefix: String,
    /// 1 public, 2 partnership, 3 private (`programid`).
    pub program_id: i32,
    /// Who the exposures belong to (`programpi`).
    pub program_pi: String,
    /// Readout channel (`rcid`), 0 to 99.
    pub rcid: u8,
    /// Numbers (`fid`) of the camera's filters; others get the number of [`filter_number`].
    pub filters: BTreeMap<String, i32>,
    /// Version of the model behind [`Candidate::rb`] (`rbversion`).
    pub rb_version: String,
    /// Known asteroids, where the observatory has installed orbits.
    pub asteroids: Option<Arc<Asteroids>>,
    /// The stars around candidates, where the observatory has installed a catalogue.
    pub star_catalogue: Option<Arc<StarCatalogue>>,
    /// The network behind `drb`, where the observatory has installed one.
    pub network: Option<Arc<Network>>,
    /// Version of the program, for the header `software`.
    pub software: String,
}

impl AlertParameters {
    /// `fid` of the camera's `filter`.
    pub fn filter_id(&self, filter: &str) -> i32 {
        self.filters.get(filter.trim()).copied().unwrap_or_else(|| filter_number(filter))
    }

    /// The topic of `night`.
    pub fn topic_of(&self, night: NightName) -> String {
        self.topic
            .replace("{prefix}", &self.topic_prefix)
            .replace("{night}", &night.to_string())
            .replace("{programid}", &self.program_id.to_string())
    }
}

/// A finished message.
#[derive(Debug, Clone)]
pub struct Alert {
    /// Number of the alert, unique for ever (`candid`).
    pub candid: i64,
    /// Name of the object (`objectId`).
    pub object_id: String,
    /// Topic of the night.
    pub topic: String,
    /// Key of the message: the object's name.
    pub key: Vec<u8>,
    /// Headers of the message: `exposure`, `alert` (1 of how many), `candid`, `software`.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The packet.
    pub payload: Vec<u8>,
    /// What the history keeps of it.
    pub sighting: Sighting,
}

/// Why no packet could be made.
#[derive(Debug, thiserror::Error)]
pub enum AlertError {
    /// The history was not asked about the same candidates.
    #[error("{candidates} candidates but {pasts} pasts: report this as a defect of nightjar")]
    Pasts {
        /// Candidates that become alerts.
        candidates: usize,
        /// Pasts given.
        pasts: usize,
    },
    /// A candidate has no pictures.
    #[error("the candidate at pixel {x:.1}, {y:.1} has no cut-outs: report this as a defect of nightjar")]
    Cutouts {
        /// Column.
        x: f64,
        /// Row.
        y: f64,
    },
    /// More alerts than numbers.
    #[error("{0} candidates of one sign: look at the difference image, an exposure has at most {MOST_ALERTS_A_SIGN}")]
    TooMany(usize),
    /// The record does not fit the schema.
    #[error("a packet does not fit its schema: report this as a defect of nightjar ({0})")]
    Encode(#[source] Box<apache_avro::Error>),
}

/// A candidate with its numbers.
struct Numbered<'a> {
    candidate: &'a Candidate,
    candid: i64,
    /// Running number among its sign (`tblid`).
    number: i64,
}

/// What is known already of the sky around an exposure.
struct Surroundings<'a> {
    asteroids: &'a [Asteroid],
    stars: Option<&'a StarCatalogue>,
}

/// The alerts of an exposure, in order of position on the detector.
///
/// `pasts` holds what the history knows of each candidate of [`Detections::accepted`], in that
/// order.
pub fn packets(
    detections: &Detections,
    pasts: &[Past],
    parameters: &AlertParameters,
) -> Result<Vec<Alert>, AlertError> {
    let accepted: Vec<&Candidate> = detections.accepted().collect();
    if accepted.len() != pasts.len() {
        return Err(AlertError::Pasts { candidates: accepted.len(), pasts: pasts.len() });
    }
    let mut order: Vec<(&Candidate, &Past)> = accepted.into_iter().zip(pasts).collect();
    order.sort_by(|(a, _), (b, _)| a.y.total_cmp(&b.y).then(a.x.total_cmp(&b.x)));

    let pid = processing_id(&detections.exposure, parameters.rcid);
    let mut counts = [0usize; 2];
    let numbered: Vec<(Numbered<'_>, &Past)> = order
        .into_iter()
        .map(|(candidate, past)| {
            let count = &mut counts[usize::from(candidate.positive)];
            let index = *count;
            *count += 1;
            let candid = candidate_id(pid, candidate.positive, index);
            (Numbered { candidate, candid, number: index as i64 }, past)
        })
        .collect();
    if let Some(count) = counts.into_iter().find(|count| *count > MOST_ALERTS_A_SIGN) {
        return Err(AlertError::TooMany(count));
    }
    let total = numbered.len();
    let known = asteroid::on_exposure(detections, parameters);
    // A catalogue that was cut since the last exposure must not be read.
    let stars = parameters.star_catalogue.as_deref().filter(|catalogue| catalogue.is_whole());
    let surroundings = Surroundings { asteroids: &known, stars };
    numbered
        .par_iter()
        .enumerate()
        .map(|(i, (numbered, past))| packet(numbered, past, (i + 1, total), detections, &surroundings, parameters))
        .collect()
}

/// The exposure as later packets carry it where they have no detection: its limiting magnitude.
pub fn upper_limit(detections: &Detections, parameters: &AlertParameters) -> PriorEpoch {
    candidate::upper_limit(&detections.exposure, &detections.conditions, parameters)
}

fn packet(
    numbered: &Numbered<'_>,
    past: &Past,
    (position, total): (usize, usize),
    detections: &Detections,
    surroundings: &Surroundings<'_>,
    parameters: &AlertParameters,
) -> Result<Alert, AlertError> {
    let (exposure, conditions) = (&detections.exposure, &detections.conditions);
    let candidate = numbered.candidate;
    let cutouts = candidate.cutouts.as_ref().ok_or(AlertError::Cutouts { x: candidate.x, y: candidate.y })?;
    let mut record = candidate::candidate_record(numbered, past, exposure, conditions, parameters);
    asteroid::fill(&mut record, surroundings.asteroids);
    if let Some(catalogue) = surroundings.stars {
        stars::fill(&mut record, catalogue);
    }
    if let Some(network) = &parameters.network {
        record.drb = Some(network.score([&cutouts.science, &cutouts.template, &cutouts.difference]));
        record.drbversion.clone_from(&network.version);
    }
    let remembered = candidate::remembered(&record);
    record.settle(parameters.profile == Profile::Ztf);
    let pid = record.pid;
    let wcs = LocalWcs::at(candidate, conditions);
    let [science, template, difference] = pictures(cutouts, &wcs, numbered, pid);
    let datum = AlertRecord {
        schemavsn: VERSION,
        publisher: &parameters.publisher,
        object_id: &past.object_id,
        candid: numbered.candid,
        candidate: record,
        prv_candidates: Some(Epochs(&past.epochs)),
        fp_hists: Some([]),
        science: Some(science),
        template: Some(template),
        difference: Some(difference),
    };
    Ok(Alert {
        candid: numbered.candid,
        object_id: past.object_id.clone(),
        topic: parameters.topic_of(exposure.night),
        key: past.object_id.clone().into_bytes(),
        headers: [
            ("exposure", exposure.id.to_string()),
            ("alert", format!("{position}/{total}")),
            ("candid", numbered.candid.to_string()),
            ("software", parameters.software.clone()),
        ]
        .map(|(name, value)| (name.to_owned(), value.into_bytes()))
        .into(),
        payload: encoded(&datum, parameters.profile)?,
        sighting: Sighting {
            object_id: past.object_id.clone(),
            object_place: past.object_place,
            detection: remembered,
        },
    })
}

/// The three pictures under the names that ZTF gives them.
fn pictures(cutouts: &Cutouts, wcs: &LocalWcs, numbered: &Numbered<'_>, pid: i64) -> [CutoutRecord; 3] {
    thread_local! {
        static STAMPS: RefCell<Stamps> = RefCell::new(Stamps::new());
    }
    let candid = numbered.candid;
    let kind = if numbered.candidate.positive { "scimref" } else { "refmsci" };
    let [science, template, difference] = STAMPS
        .with_borrow_mut(|stamps| stamps.gzipped([&cutouts.science, &cutouts.template, &cutouts.difference], wcs));
    [
        (format!("candid{candid}_pid{pid}_targ_sci.fits.gz"), science),
        (format!("candid{candid}_ref.fits.gz"), template),
        (format!("candid{candid}_pid{pid}_targ_{kind}.fits.gz"), difference),
    ]
    .map(|(file_name, stamp)| CutoutRecord { file_name, stamp })
}

fn encoded(record: &AlertRecord<'_>, profile: Profile) -> Result<Vec<u8>, AlertError> {
    thread_local! {
        static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    }
    BUFFER.with_borrow_mut(|buffer| {
        buffer.clear();
        apache_avro::write_avro_datum_ref(&alert_schema().resolved, record, buffer)
            .map_err(|error| AlertError::Encode(Box::new(error)))?;
        Ok(container::framed(profile, buffer))
    })
}
