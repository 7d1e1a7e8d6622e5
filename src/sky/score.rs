//! Holds the candidates of a run against the truth of a synthetic night.
//!
//! A candidate counts unless a rule rejected it. It matches the nearest source that changed on its
//! exposure within 1.5 px (or half the trail, where that is longer). What matches no change of any
//! signal-to-noise ratio is a false alert: on a defect, on a bright star, or elsewhere.
//! Completeness and measurements are those of changes that lie on no defect, by the *true*
//! signal-to-noise ratio; measurements leave out trails. Spreads are 1.4826 times the median of
//! absolute deviations, so that one bad match does not make the figure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::SkyError;
use super::random::{Purpose, normal, stream};
use super::truth::{TrueChange, TrueDefect, TrueStar, Truth, read_table};

/// Match radius, pixels.
const RADIUS: f64 = 1.5;
/// Distance from a defect within which a false alert counts as caused by it, pixels.
const NEAR_DEFECT: f64 = 5.0;
/// Trails longer than this are not used for fluxes and positions, pixels.
const TRAILED: f64 = 0.3;
/// Signal-to-noise ratio above which signs are judged.
const SIGNED: f64 = 7.0;

/// The columns of `candidates.csv` that are scored.
#[derive(Debug, Clone, Deserialize)]
pub struct ScoredCandidate {
    /// Stable name of the exposure, or the name of its file.
    pub exposure: String,
    /// FITS pixel.
    pub x: f64,
    /// FITS pixel.
    pub y: f64,
    /// Degrees.
    pub ra: f64,
    /// Degrees.
    pub dec: f64,
    /// Electrons, signed.
    pub flux: f64,
    /// Electrons.
    pub flux_err: f64,
    /// `t` or `f`.
    pub positive: String,
    /// The rule that rejected it; empty for an alert.
    #[serde(default)]
    pub rejected: Option<String>,
}

/// Found of all in a range of the true signal-to-noise ratio, or of one kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Completeness {
    /// Changes that were found.
    pub found: usize,
    /// Changes that there are.
    pub of: usize,
}

/// False alerts, all images together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct FalseAlerts {
    /// Within 5 px of a cosmic ray, bad column, hot pixel, full well or bleed trail.
    pub on_defects: usize,
    /// On a bright star.
    pub on_stars: usize,
    /// Elsewhere.
    pub other: usize,
}

/// The median and spread of a quantity, and of how many.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Spread {
    /// Median.
    pub median: f64,
    /// 1.4826 times the median absolute deviation from the median.
    pub sigma: f64,
    /// Number.
    pub n: usize,
}

/// What a run made of a synthetic night.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Score {
    /// Exposures of the truth.
    pub images: usize,
    /// Candidates that became alerts.
    pub alerts: usize,
    /// By the true signal-to-noise ratio.
    pub completeness: BTreeMap<String, Completeness>,
    /// By the kind of change, at S/N 10 or more.
    pub kinds: BTreeMap<String, Completeness>,
    /// All images together.
    pub false_alerts: FalseAlerts,
    /// The same for each image.
    pub false_alerts_per_image: BTreeMap<String, f64>,
    /// Measured over true flux, minus 1, at S/N 50 or more.
    pub flux: Spread,
    /// The spread that the true noise alone would give there.
    pub flux_noise_alone: f64,
    /// (Measured − true flux) / error, by the true signal-to-noise ratio.
    pub pull: BTreeMap<String, Spread>,
    /// Offset a coordinate, pixels, by the true signal-to-noise ratio.
    pub position_px: BTreeMap<String, Spread>,
    /// Offset on the sky a coordinate, arcsec, at S/N 20 or more.
    pub position_arcsec: Spread,
    /// Alerts with the right sign, at S/N 7 or more.
    pub signs: Completeness,
}

/// Ranges of the true signal-to-noise ratio.
const COMPLETENESS: [(&str, f64, f64); 5] =
    [("5-7", 5.0, 7.0), ("7-10", 7.0, 10.0), ("10-20", 10.0, 20.0), ("20+", 20.0, f64::MAX), ("10+", 10.0, f64::MAX)];
const PULL: [(&str, f64, f64); 3] = [("7-20", 7.0, 20.0), ("20-100", 20.0, 100.0), ("100+", 100.0, f64::MAX)];
const POSITION: [(&str, f64, f64); 2] = [("20+", 20.0, f64::MAX), ("100+", 100.0, f64::MAX)];

/// Scores `candidates.csv` in the folder `run` against the truth in the folder `night`.
pub fn score(night: &Path, run: &Path) -> Result<Score, SkyError> {
    let truth = Truth::read(night)?;
    let candidates: Vec<ScoredCandidate> = read_table(&run.join("candidates.csv"))?;
    Ok(score_tables(&truth, &candidates))
}

/// A true change with the alert that matched it.
struct Match<'a> {
    change: &'a TrueChange,
    alert: &'a ScoredCandidate,
}

impl Match<'_> {
    fn within(&self, low: f64, high: f64) -> bool {
        (low..high).contains(&self.change.snr)
    }
}

/// Scores candidates against the truth.
pub fn score_tables(truth: &Truth, candidates: &[ScoredCandidate]) -> Score {
    let exposures: BTreeSet<(&str, &str)> =
        truth.changes.iter().map(|change| (change.exposure.as_str(), change.date_obs.as_str())).collect();
    let mut score = Score { images: exposures.len(), ..Score::default() };
    let mut matches = Vec::new();
    for &(file, date_obs) in &exposures {
        let alerts: Vec<&ScoredCandidate> = candidates
            .iter()
            .filter(|c| c.rejected.as_deref().unwrap_or("").is_empty())
            .filter(|c| exposures.len() == 1 || names(&c.exposure, file, date_obs))
            .collect();
        let changes: Vec<&TrueChange> = truth.changes.iter().filter(|c| c.exposure == file).collect();
        score.alerts += alerts.len();
        score.count_changes(&changes, &alerts, &mut matches);
        let defects: Vec<&TrueDefect> = truth.defects.iter().filter(|d| d.exposure == file).collect();
        let stars: Vec<&TrueStar> = truth.stars.iter().filter(|s| s.exposure == file).collect();
        for alert in alerts.iter().filter(|alert| !changes.iter().any(|change| near(change, alert))) {
            score.count_false(alert, &defects, &stars);
        }
    }
    score.measure(&matches);
    let images = score.images.max(1) as f64;
    let FalseAlerts { on_defects, on_stars, other } = score.false_alerts;
    for (name, count) in [("on_defects", on_defects), ("on_stars", on_stars), ("other", other)] {
        score.false_alerts_per_image.insert(name.to_owned(), count as f64 / images);
    }
    score
}

/// Whether the name of an exposure in `candidates.csv` is that of a file, with or without its
/// extension, or ends in the time of day at which it began (`20261124-201500`).
fn names(exposure: &str, file: &str, date_obs: &str) -> bool {
    let time: String = date_obs.split('T').nth(1).unwrap_or("").replace(':', "");
    let stem = file.split('.').next().unwrap_or(file);
    exposure == file || exposure == stem || exposure.split('-').next_back() == Some(time.trim_end_matches(".000"))
}

fn distance(change: &TrueChange, alert: &ScoredCandidate) -> f64 {
    (change.x - alert.x).hypot(change.y - alert.y)
}

fn near(change: &TrueChange, alert: &ScoredCandidate) -> bool {
    distance(change, alert) <= RADIUS.max(0.5 * change.trail + 0.5)
}

impl Score {
    fn count_changes<'a>(
        &mut self,
        changes: &[&'a TrueChange],
        alerts: &[&'a ScoredCandidate],
        matches: &mut Vec<Match<'a>>,
    ) {
        for change in changes.iter().filter(|change| change.defect.is_empty()) {
            let found = alerts
                .iter()
                .filter(|alert| near(change, alert))
                .min_by(|a, b| distance(change, a).total_cmp(&distance(change, b)));
            let count = |completeness: &mut Completeness| {
                completeness.of += 1;
                completeness.found += usize::from(found.is_some());
            };
            for (name, low, high) in COMPLETENESS {
                let bin = self.completeness.entry(name.to_owned()).or_default();
                if (low..high).contains(&change.snr) {
                    count(bin);
                }
            }
            if change.snr >= 10.0 {
                count(self.kinds.entry(change.kind.name().to_owned()).or_default());
            }
            if let Some(alert) = found {
                matches.push(Match { change, alert });
            }
        }
    }

    fn count_false(&mut self, alert: &ScoredCandidate, defects: &[&TrueDefect], stars: &[&TrueStar]) {
        let on_star = |star: &&TrueStar| {
            // The profile of a star reaches farther the brighter it is.
            let reach = 5.0 + 3.0 * (star.flux / 6000.0).log10().max(0.0);
            (star.x - alert.x).hypot(star.y - alert.y) <= reach
        };
        let counts = &mut self.false_alerts;
        if defects.iter().any(|defect| defect.bounds().distance(alert.x, alert.y) <= NEAR_DEFECT) {
            counts.on_defects += 1;
        } else if stars.iter().any(on_star) {
            counts.on_stars += 1;
        } else {
            counts.other += 1;
        }
    }

    fn measure(&mut self, matches: &[Match<'_>]) {
        let signed = || matches.iter().filter(|m| m.change.snr >= SIGNED);
        let right = signed().filter(|m| (m.change.flux > 0.0) == m.alert.positive.starts_with(['t', 'T'])).count();
        self.signs = Completeness { found: right, of: signed().count() };
        let points: Vec<&Match<'_>> = matches.iter().filter(|m| m.change.trail < TRAILED).collect();
        let bright = || points.iter().filter(|m| m.change.snr >= 50.0);
        self.flux = Spread::of(bright().map(|m| m.alert.flux / m.change.flux - 1.0).collect());
        self.flux_noise_alone = noise_alone(bright().map(|m| m.change.snr));
        let within = |low, high| points.iter().filter(move |m| m.within(low, high));
        for (name, low, high) in PULL {
            let pulls = within(low, high).map(|m| (m.alert.flux - m.change.flux) / m.alert.flux_err).collect();
            self.pull.insert(name.to_owned(), Spread::of(pulls));
        }
        for (name, low, high) in POSITION {
            let offsets = within(low, high).flat_map(|m| [m.alert.x - m.change.x, m.alert.y - m.change.y]).collect();
            self.position_px.insert(name.to_owned(), Spread::of(offsets));
        }
        let on_sky = within(20.0, f64::MAX).flat_map(|m| {
            let cosine = m.change.dec.to_radians().cos();
            let east = (m.alert.ra - m.change.ra + 180.0).rem_euclid(360.0) - 180.0;
            [3600.0 * east * cosine, 3600.0 * (m.alert.dec - m.change.dec)]
        });
        self.position_arcsec = Spread::of(on_sky.collect());
    }
}

impl Spread {
    fn of(values: Vec<f64>) -> Self {
        let n = values.len();
        let median = middle(values.clone());
        let sigma = 1.4826 * middle(values.iter().map(|value| (value - median).abs()).collect());
        Self { median, sigma, n }
    }
}

fn middle(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => 0.0,
        n if n % 2 == 1 => values[n / 2],
        n => 0.5 * (values[n / 2 - 1] + values[n / 2]),
    }
}

/// Spread of flux ratios whose only error is the true noise, from normal deviates of a fixed seed.
fn noise_alone(ratios: impl Iterator<Item = f64>) -> f64 {
    let mut rng = stream(0, Purpose::Conditions, 0, 0);
    let errors = ratios.flat_map(|snr| (0..100).map(move |_| snr)).map(|snr| f64::from(normal(&mut rng)) / snr);
    Spread::of(errors.collect()).sigma
}

impl fmt::Display for Score {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} images, {} alerts", self.images, self.alerts)?;
        let fraction = |c: &Completeness| if c.of > 0 { c.found as f64 / c.of as f64 } else { f64::NAN };
        writeln!(f, "completeness at true S/N")?;
        for (name, _, _) in COMPLETENESS {
            let Some(bin) = self.completeness.get(name) else { continue };
            writeln!(f, "  {name:<12}{:>7.4}  ({} of {})", fraction(bin), bin.found, bin.of)?;
        }
        writeln!(f, "completeness at true S/N 10+ by kind")?;
        for (name, bin) in &self.kinds {
            writeln!(f, "  {name:<12}{:>7.4}  ({} of {})", fraction(bin), bin.found, bin.of)?;
        }
        writeln!(f, "false alerts an image")?;
        for (name, value) in &self.false_alerts_per_image {
            writeln!(f, "  {name:<12}{value:>7.2}")?;
        }
        writeln!(
            f,
            "flux at S/N 50+: bias {:+.3} %, scatter {:.3} % (noise alone {:.3} %), n = {}",
            1e2 * self.flux.median,
            1e2 * self.flux.sigma,
            1e2 * self.flux_noise_alone,
            self.flux.n
        )?;
        for (name, _, _) in PULL {
            let Some(pull) = self.pull.get(name) else { continue };
            writeln!(f, "pull at S/N {name:<7}: sigma {:.3}, median {:+.3}, n = {}", pull.sigma, pull.median, pull.n)?;
        }
        for (name, _, _) in POSITION {
            let Some(offset) = self.position_px.get(name) else { continue };
            writeln!(
                f,
                "position at S/N {name:<5}: sigma {:.4} px a coordinate, median {:+.4}, n = {}",
                offset.sigma, offset.median, offset.n
            )?;
        }
        writeln!(f, "position on the sky at S/N 20+: sigma {:.4}\" a coordinate", self.position_arcsec.sigma)?;
        write!(f, "signs right: {} of {}", self.signs.found, self.signs.of)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sky::catalogue::ChangeKind;
    use crate::sky::defects::DefectKind;

    fn change(x: f64, snr: f64, defect: &str) -> TrueChange {
        TrueChange {
            exposure: "light-0001.fits".into(),
            date_obs: "2026-11-23T20:00:00.000".into(),
            kind: ChangeKind::NewBlank,
            x,
            y: 100.0,
            ra: 10.0,
            dec: 20.0,
            flux: -1000.0,
            snr,
            trail: 0.0,
            defect: defect.into(),
        }
    }

    fn alert(x: f64, y: f64, rejected: &str) -> ScoredCandidate {
        ScoredCandidate {
            exposure: "20261124-200000".into(),
            x,
            y,
            ra: 10.0,
            dec: 20.0,
            flux: -1010.0,
            flux_err: 10.0,
            positive: "f".into(),
            rejected: Some(rejected.into()),
        }
    }

    fn truth() -> Truth {
        let mut second = change(400.0, 30.0, "");
        (second.exposure, second.date_obs) = ("light-0002.fits".into(), "2026-11-23T20:00:45.000".into());
        let box_of = |x: f64| TrueDefect {
            exposure: "light-0001.fits".into(),
            kind: DefectKind::CosmicRay,
            x0: x,
            y0: 300.0,
            x1: x + 3.0,
            y1: 300.0,
        };
        let star = TrueStar {
            exposure: "light-0001.fits".into(),
            x: 700.0,
            y: 700.0,
            ra: 0.0,
            dec: 0.0,
            flux: 1e5,
            mag: 15.0,
        };
        Truth {
            changes: vec![change(100.0, 60.0, ""), change(200.0, 6.0, ""), change(300.0, 50.0, "edge"), second],
            defects: vec![box_of(500.0)],
            stars: vec![star],
        }
    }

    #[test]
    fn rejected_candidates_and_those_of_other_exposures_find_nothing() {
        let mut elsewhere = alert(100.0, 100.0, "");
        elsewhere.exposure = "20261124-200045".into();
        let score = score_tables(&truth(), &[alert(100.0, 100.0, "dipole"), elsewhere]);
        assert_eq!(score.completeness["20+"], Completeness { found: 0, of: 2 });
        assert_eq!(score.alerts, 1);
        assert_eq!(score.false_alerts.other, 1);
    }

    #[test]
    fn alerts_are_matched_within_a_pixel_and_a_half_and_measured() {
        let score = score_tables(&truth(), &[alert(101.0, 101.0, ""), alert(201.2, 101.2, "")]);
        assert_eq!(score.completeness["20+"], Completeness { found: 1, of: 2 });
        assert_eq!(score.completeness["5-7"], Completeness { found: 0, of: 1 });
        assert!((score.flux.median - 0.01).abs() < 1e-9);
        assert_eq!(score.signs, Completeness { found: 1, of: 1 });
        assert_eq!(score.pull["20-100"].median, -1.0);
    }

    #[test]
    fn false_alerts_are_told_apart_by_what_lies_under_them_and_changes_on_defects_are_none() {
        let alerts =
            [alert(498.0, 296.5, ""), alert(703.0, 701.0, ""), alert(900.0, 50.0, ""), alert(300.5, 100.0, "")];
        let score = score_tables(&truth(), &alerts);
        assert_eq!(score.false_alerts, FalseAlerts { on_defects: 1, on_stars: 1, other: 1 });
        assert_eq!(score.false_alerts_per_image["other"], 0.5);
    }
}
