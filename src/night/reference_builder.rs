//! Builds a deep reference of calibrated frames: for `nightjar reference`, and for fields that have none.
//!
//! Every frame is looked at alone first (seeing, stars, filter), so that a cloudy or trailed one can
//! be told from the others; the first good one gives grid and flux scale, the rest are registered on
//! it by their stars and put on its grid. Memory holds two frames, or one band of rows of all.

use std::path::{Path, PathBuf};

use super::layers_on_disk::LayersOnDisk;
use crate::calibrate::{CalibrateError, CalibratedFrame};
use crate::exposure::{Exposure, ExposureId};
use crate::register::coadd::{Band, FEWEST_FRAMES, Placement, combine, halo, place, weight};
use crate::register::library::{ZERO_POINT_KEYWORDS, id_of_name};
use crate::register::register;
use crate::register::stars::{StarList, find};
use crate::wcs::Wcs;

/// Rows that are combined at once.
const ROWS: usize = 128;
/// Stars wider than this times the median of the frames: focus or seeing was lost.
const WORST_SEEING: f64 = 1.5;
/// Fewer stars than this part of the median of the frames: clouds.
const FEWEST_STARS: f64 = 0.3;
/// A frame of less than this part of the median weight adds nothing but its faults.
const LEAST_WEIGHT: f64 = 0.15;
/// Part of the grid that a frame has to cover.
const LEAST_COVERAGE: f64 = 0.5;

/// Why a reference could not be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// Too few frames are good enough.
    #[error(
        "{good} good frames of {given}, and {FEWEST_FRAMES} are needed to tell a transient from the sky{reasons}; take more frames of the field"
    )]
    TooFew {
        /// Frames that are good.
        good: usize,
        /// Frames that were given.
        given: usize,
        /// The refusals, each on a line.
        reasons: String,
    },
    /// None of the good frames has world coordinates.
    #[error("none of the good frames has a celestial WCS ({reason}); plate-solve at least the first one")]
    NoCoordinates {
        /// What the first good frame lacks.
        reason: String,
    },
    /// The temporary files.
    #[error("{folder}: temporary files could not be written or read: {reason}; make room there", folder = folder.display())]
    Scratch {
        /// Their folder.
        folder: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// The combined image is of no use.
    #[error(transparent)]
    Combined(#[from] CalibrateError),
}

/// A frame that is part of a reference.
#[derive(Debug, Clone, PartialEq)]
pub struct Used {
    /// Name of its file.
    pub file: String,
    /// FWHM of its stars, pixels.
    pub fwhm_px: f64,
    /// Its flux over that of the first frame.
    pub flux_ratio: f64,
    /// Its part of the reference, 0 to 1.
    pub weight: f64,
    /// Pixels that were left out as outliers.
    pub outliers: usize,
}

/// A reference that was built.
#[derive(Debug)]
pub struct Built {
    /// The deep image; its header says what it was made of.
    pub frame: CalibratedFrame,
    /// The frames in it.
    pub used: Vec<Used>,
    /// The frames that were refused, and why.
    pub refused: Vec<(String, String)>,
    /// FWHM, pixels.
    pub fwhm_px: f64,
    /// 5σ depth for a point source, electrons of the first frame's flux scale.
    pub limit_flux: f64,
    /// The same as a magnitude, where the first frame has a zero point.
    pub limit_mag: Option<f64>,
}

/// What is known of a frame from looking at it alone.
struct Looked {
    path: PathBuf,
    exposure: Exposure,
    stars: usize,
    fwhm_px: f64,
    coordinates: Result<(), String>,
}

/// Reads and calibrates (or adopts) the frame of a file; the error is a reason to refuse it.
pub type LoadFrame<'a> = &'a dyn Fn(&Path) -> Result<CalibratedFrame, String>;

/// Builds the reference of the frames in `files`. Temporary files go to `scratch`; `say` hears of each step.
///
/// # Errors
///
/// When too few frames are good, none has world coordinates, or the disk fails.
pub fn build(files: &[PathBuf], load: LoadFrame<'_>, scratch: &Path, say: &dyn Fn(&str)) -> Result<Built, BuildError> {
    let mut refused = Vec::new();
    let looked = look(files, load, &mut refused, say);
    let good = choose(looked, &mut refused);
    let too_few = |good: usize, refused: &[(String, String)]| BuildError::TooFew {
        good,
        given: files.len(),
        reasons: refused.iter().map(|(file, reason)| format!("\n  {file}: {reason}")).collect(),
    };
    if good.len() < FEWEST_FRAMES {
        return Err(too_few(good.len(), &refused));
    }
    let Some(first) = good.iter().position(|frame| frame.coordinates.is_ok()) else {
        let reason = good[0].coordinates.clone().err().unwrap_or_default();
        return Err(BuildError::NoCoordinates { reason });
    };
    let anchor = load(&good[first].path).map_err(|reason| BuildError::NoCoordinates { reason })?;
    let anchor_stars = find(&anchor);
    let shape = anchor.pixels().shape();
    let mut layers = LayersOnDisk::new(scratch, shape);
    let failed = |error: std::io::Error| BuildError::Scratch { folder: scratch.to_owned(), reason: error.to_string() };

    let mut parts: Vec<Part> = Vec::new();
    for (index, looked) in good.iter().enumerate() {
        say(&format!("placing {}", looked.exposure.file));
        let placed = if index == first {
            Ok((None, f64::from(anchor.background().median_noise())))
        } else {
            load(&looked.path).and_then(|frame| {
                let placement = align(&anchor, &anchor_stars, &frame)?;
                let noise = f64::from(frame.background().median_noise()) / placement.flux_ratio;
                Ok((Some((frame, placement)), noise))
            })
        };
        match placed {
            Ok((placement, noise)) => {
                let own = Placement::identity(shape, looked.fwhm_px);
                let (frame, placement) = placement.as_ref().map_or((&anchor, &own), |(frame, p)| (frame, p));
                layers.add(&place(frame, placement, shape)).map_err(failed)?;
                parts.push(Part {
                    exposure: looked.exposure.clone(),
                    fwhm_px: placement.fwhm_px,
                    flux_ratio: placement.flux_ratio,
                    weight: weight(noise, placement.fwhm_px),
                });
            }
            Err(reason) => refused.push((looked.exposure.file.clone(), reason)),
        }
    }
    let kept = worthwhile(&parts, &mut refused);
    if kept.len() < FEWEST_FRAMES {
        return Err(too_few(kept.len(), &refused));
    }
    say(&format!("combining {} frames", kept.len()));
    assemble(&anchor, &parts, &kept, &mut layers, refused).map_err(|error| match error {
        AssembleError::Disk(error) => failed(error),
        AssembleError::Frame(error) => error.into(),
    })
}

/// A frame on the reference's grid.
struct Part {
    exposure: Exposure,
    fwhm_px: f64,
    flux_ratio: f64,
    weight: f64,
}

enum AssembleError {
    Disk(std::io::Error),
    Frame(CalibrateError),
}

/// Looks at each frame alone.
fn look(
    files: &[PathBuf],
    load: LoadFrame<'_>,
    refused: &mut Vec<(String, String)>,
    say: &dyn Fn(&str),
) -> Vec<Looked> {
    let mut looked: Vec<Looked> = Vec::new();
    for path in files {
        let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        say(&format!("looking at {file}"));
        let frame = match load(path) {
            Ok(frame) => frame,
            Err(reason) => {
                refused.push((file, reason));
                continue;
            }
        };
        let stars = find(&frame);
        if let Some(twin) = looked.iter().find(|other| same_exposure(&other.exposure, frame.exposure())) {
            refused.push((file, format!("is the same exposure as {}", twin.exposure.file)));
        } else if stars.stars.is_empty() {
            refused.push((file, "shows no stars".into()));
        } else {
            looked.push(Looked {
                path: path.clone(),
                exposure: frame.exposure().clone(),
                stars: stars.stars.len(),
                fwhm_px: stars.fwhm,
                coordinates: Wcs::from_header(frame.header()).map(drop).map_err(|error| error.to_string()),
            });
        }
    }
    looked.sort_by(|a, b| a.exposure.start.0.total_cmp(&b.exposure.start.0));
    looked
}

/// Whether two files hold one exposure. Frames without a date cannot be told apart by it.
fn same_exposure(a: &Exposure, b: &Exposure) -> bool {
    a.start == b.start && a.start.0 > 0.0
}

/// Refuses the frames of another filter than most, of bad seeing and under cloud.
fn choose(looked: Vec<Looked>, refused: &mut Vec<(String, String)>) -> Vec<Looked> {
    let votes = |filter: &str| looked.iter().filter(|frame| frame.exposure.filter == filter).count();
    let Some(filter) = looked.iter().map(|f| f.exposure.filter.clone()).max_by_key(|filter| votes(filter)) else {
        return Vec::new();
    };
    let fwhm = median(looked.iter().map(|frame| frame.fwhm_px));
    let stars = median(looked.iter().map(|frame| frame.stars as f64));
    let (good, bad): (Vec<_>, Vec<_>) = looked
        .into_iter()
        .map(|frame| {
            let reason = if frame.exposure.filter != filter {
                Some(format!("filter {}, most are in {filter}", frame.exposure.filter))
            } else if frame.fwhm_px > WORST_SEEING * fwhm {
                Some(format!(
                    "stars of {:.2} px FWHM, the median is {fwhm:.2}: seeing, focus or trailing",
                    frame.fwhm_px
                ))
            } else if (frame.stars as f64) < FEWEST_STARS * stars {
                Some(format!("{} stars, the median is {stars:.0}: clouds", frame.stars))
            } else {
                None
            };
            (frame, reason)
        })
        .partition(|(_, reason)| reason.is_none());
    refused.extend(bad.into_iter().map(|(frame, reason)| (frame.exposure.file, reason.unwrap_or_default())));
    good.into_iter().map(|(frame, _)| frame).collect()
}

/// Where a frame lies under the anchor's grid, by their stars.
fn align(anchor: &CalibratedFrame, anchor_stars: &StarList, frame: &CalibratedFrame) -> Result<Placement, String> {
    let shape @ (height, width) = anchor.pixels().shape();
    let guess = match (Wcs::from_header(anchor.header()), Wcs::from_header(frame.header())) {
        (Ok(from), Ok(to)) => crate::register::polynomial::Map::between(&from, &to, shape),
        _ => None,
    };
    let stars = find(frame);
    let found = register(anchor, anchor_stars, frame, &stars, guess.as_ref()).map_err(|error| error.to_string())?;
    let (rows, columns) = frame.pixels().shape();
    let probes = 9;
    let covered = (0..probes * probes).filter(|k| {
        let at = |index: usize, side: usize| (index as f64 + 0.5) / probes as f64 * side as f64;
        let [x, y] = found.map.value(at(k % probes, width), at(k / probes, height));
        (0.0..columns as f64).contains(&x) && (0.0..rows as f64).contains(&y)
    });
    let coverage = covered.count() as f64 / (probes * probes) as f64;
    if coverage < LEAST_COVERAGE {
        return Err(format!("covers only {:.0} % of the first frame", 100.0 * coverage));
    }
    let middle = (columns as f64 / 2.0, rows as f64 / 2.0);
    let [ln_ratio] = found.ln_flux_ratio.value(width as f64 / 2.0, height as f64 / 2.0);
    Ok(Placement {
        flux_ratio: (-ln_ratio).exp(),
        fwhm_px: found.psf_reference.fwhm_at(middle.0, middle.1),
        map: found.map,
    })
}

/// Indices of the parts whose weight counts.
fn worthwhile(parts: &[Part], refused: &mut Vec<(String, String)>) -> Vec<usize> {
    let typical = median(parts.iter().map(|part| part.weight));
    let (kept, light): (Vec<usize>, Vec<usize>) =
        (0..parts.len()).partition(|&index| parts[index].weight >= LEAST_WEIGHT * typical);
    refused.extend(light.into_iter().map(|index| {
        let share = 100.0 * parts[index].weight / typical;
        (parts[index].exposure.file.clone(), format!("{share:.0} % of the usual weight: clouds, moon or bad seeing"))
    }));
    kept
}

fn assemble(
    anchor: &CalibratedFrame,
    parts: &[Part],
    kept: &[usize],
    layers: &mut LayersOnDisk,
    refused: Vec<(String, String)>,
) -> Result<Built, AssembleError> {
    let (height, width) = anchor.pixels().shape();
    let total: f64 = kept.iter().map(|&index| parts[index].weight).sum();
    let fwhm_px = kept.iter().map(|&index| parts[index].weight * parts[index].fwhm_px).sum::<f64>() / total;
    let beside = halo(fwhm_px);
    let mut pixels = ndarray::Array2::zeros((height, width));
    let mut variance = ndarray::Array2::zeros((height, width));
    let mut mask = ndarray::Array2::zeros((height, width));
    let mut outliers = vec![0; kept.len()];
    for first in (0..height).step_by(ROWS) {
        let last = (first + ROWS).min(height);
        let read = first.saturating_sub(beside)..(last + beside).min(height);
        let rows = kept
            .iter()
            .map(|&index| layers.rows(index, read.clone()))
            .collect::<Result<Vec<_>, _>>()
            .map_err(AssembleError::Disk)?;
        let bands: Vec<Band<'_>> = rows
            .iter()
            .zip(kept)
            .map(|(layer, &index)| Band {
                pixels: layer.pixels.view(),
                variance: layer.variance.view(),
                mask: layer.mask.view(),
                weight: parts[index].weight,
            })
            .collect();
        let band = combine(&bands, first - read.start..last - read.start, fwhm_px);
        pixels.slice_mut(ndarray::s![first..last, ..]).assign(&band.pixels);
        variance.slice_mut(ndarray::s![first..last, ..]).assign(&band.variance);
        mask.slice_mut(ndarray::s![first..last, ..]).assign(&band.mask);
        outliers.iter_mut().zip(&band.outliers).for_each(|(sum, count)| *sum += count);
    }
    let used: Vec<Used> = kept
        .iter()
        .zip(outliers)
        .map(|(&index, outliers)| Used {
            file: parts[index].exposure.file.clone(),
            fwhm_px: parts[index].fwhm_px,
            flux_ratio: parts[index].flux_ratio,
            weight: parts[index].weight / total,
            outliers,
        })
        .collect();
    let kept: Vec<&Part> = kept.iter().map(|&index| &parts[index]).collect();
    let (exposure, mut header) = describe(anchor, &kept, &used);
    let noise = median(variance.iter().step_by(97).map(|v: &f32| f64::from(*v))).sqrt();
    // Pixels that a Gaussian PSF of this width amounts to: 4π σ².
    let limit_flux = 5.0 * noise * (4.0 * std::f64::consts::PI).sqrt() * fwhm_px / 2.354_82;
    let zero_point = anchor.header().number(&ZERO_POINT_KEYWORDS);
    let limit_mag = zero_point.map(|zero_point| zero_point - 2.5 * limit_flux.log10());
    header.set("FWHM", fwhm_px, "[pix] mean of the frames, weighted").set(
        "LIMFLUX",
        limit_flux,
        "5 sigma depth, units",
    );
    if let Some(limit) = limit_mag {
        header.set("MAGLIM", limit, "[mag] 5 sigma depth");
    }
    let frame = CalibratedFrame::combined(exposure, header, pixels, variance, mask, anchor.gain_known())
        .map_err(AssembleError::Frame)?;
    Ok(Built { frame, used, refused, fwhm_px, limit_flux, limit_mag })
}

/// The exposure and header of a reference: the first frame's, and what it was made of.
fn describe(anchor: &CalibratedFrame, kept: &[&Part], used: &[Used]) -> (Exposure, crate::fits::Header) {
    let starts = kept.iter().map(|part| part.exposure.start.jd());
    let ends = kept.iter().map(|part| part.exposure.start.plus_seconds(part.exposure.exposure_s).jd());
    let (first, last) = (starts.fold(f64::INFINITY, f64::min), ends.fold(f64::NEG_INFINITY, f64::max));
    let mut exposure = anchor.exposure().clone();
    let name = format!("{}-{}-{first:.5}-{}", exposure.field, exposure.filter, kept.len());
    exposure.id = ExposureId::from_stored(format!("reference-{name}").replace(['/', ' '], "_"));
    let mut header = anchor.header().clone();
    header
        .set("IMAGETYP", "reference", "deep image of several frames")
        .set("RFID", id_of_name(&name), "number of this reference in alerts")
        .set("NFRAMES", kept.len() as i64, "frames in it")
        .set("JDSTART", first, "[d] begin of the first frame")
        .set("JDEND", last, "[d] end of the last frame");
    for frame in used {
        header.history(&format!(
            "{}: weight {:.3}, FWHM {:.2} px, flux {:.3}, {} pixels left out",
            frame.file, frame.weight, frame.fwhm_px, frame.flux_ratio, frame.outliers
        ));
    }
    (exposure, header)
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}
