//! What is on the synthetic sky: stars, galaxies, and the sources that change.

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::galaxy::Galaxy;
use super::projection::{deproject, project};
use super::random::{Purpose, log_uniform, normal, stream, uniform};

/// Magnitude of a source of one electron in a nominal exposure.
pub const ZERO_POINT: f64 = 28.0;
/// Magnitudes between which stars and galaxies are drawn.
const BRIGHTEST: f64 = 9.5;
const FAINTEST: f64 = 21.5;
/// Slope of the counts of stars and of galaxies: log10 N(<m) = slope m.
const STAR_SLOPE: f64 = 0.25;
const GALAXY_SLOPE: f64 = 0.45;
const BRIGHTEST_GALAXY: f64 = 14.5;
/// Galaxies, variables, and new sources on blank sky and on galaxies, and movers, for each star.
const GALAXIES: f64 = 0.18;
const VARIABLES: f64 = 0.09;
const NEW_BLANK: f64 = 0.055;
const NEW_GALAXY: f64 = 0.035;
const MOVERS: f64 = 0.005;
/// Sources that change are no closer to each other than this, pixels: each has its own match.
const APART: f64 = 14.0;

/// Why a source differs from the reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    /// A star brighter or fainter than in the reference.
    Variable,
    /// A new source where there was nothing.
    NewBlank,
    /// A new source on a galaxy.
    NewGalaxy,
    /// A minor planet.
    Mover,
}

impl ChangeKind {
    /// The name in `truth.csv`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Variable => "variable",
            Self::NewBlank => "new_blank",
            Self::NewGalaxy => "new_galaxy",
            Self::Mover => "mover",
        }
    }
}

/// How a source differs from the reference.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Change {
    /// Why.
    pub kind: ChangeKind,
    /// Electrons in a nominal exposure at the beginning of the night, signed.
    pub amplitude: f64,
    /// Period (hours) and phase (radians) of a variable; hourly growth of a new source.
    pub curve: (f64, f64),
    /// Motion to the east and to the north, arcsec a second.
    pub motion: (f64, f64),
}

impl Change {
    /// Electrons in a nominal exposure, `hours` after the beginning of the night.
    pub fn flux(&self, hours: f64) -> f64 {
        let (first, second) = self.curve;
        match self.kind {
            ChangeKind::Variable => {
                self.amplitude * (std::f64::consts::TAU * hours / first + second).cos() / second.cos()
            }
            _ => self.amplitude * (1.0 + first * hours),
        }
    }
}

/// A source of the sky.
#[derive(Debug, Clone)]
pub struct Source {
    /// Right ascension and declination at the beginning of the night, degrees.
    pub place: (f64, f64),
    /// Electrons in a nominal exposure when the reference was taken.
    pub flux: f64,
    /// The galaxy that it is, if it is one.
    pub galaxy: Option<Galaxy>,
    /// How it changes, if it does.
    pub change: Option<Change>,
}

/// What is to be on a field.
#[derive(Debug, Clone, Copy)]
pub struct FieldRequest {
    /// Seed of the night.
    pub seed: u64,
    /// Number of the field.
    pub field: u64,
    /// Middle of the field, degrees.
    pub centre: (f64, f64),
    /// Half of the side of the square that is filled, pixels.
    pub half_side: f64,
    /// Stars on that square.
    pub stars: f64,
    /// Arcsec a pixel.
    pub scale: f64,
    /// What sets the signal-to-noise ratio of changes.
    pub depth: Depth,
}

/// Noise of a nominal pair of images, which amplitudes are drawn for.
#[derive(Debug, Clone, Copy)]
pub struct Depth {
    /// Noise-equivalent area, pixels.
    pub noise_area: f64,
    /// Variance of a pixel of blank sky in the difference, electrons².
    pub variance: f64,
    /// Exposure time, seconds.
    pub exposure_s: f64,
}

impl Depth {
    /// Electrons of a change with this signal-to-noise ratio on a source of `flux` electrons.
    fn amplitude(&self, snr: f64, flux: f64, surface_brightness: f64) -> f64 {
        // σ² = area (V + host) + 1.35 (F + Δ), with ΣP³/(ΣP²)² about 1.35; solved for Δ.
        let blank = self.noise_area * (self.variance + surface_brightness) + 1.35 * flux;
        let own = 1.35 * snr * snr;
        0.5 * (own + (own * own + 4.0 * snr * snr * blank).sqrt())
    }
}

/// Every source of a field.
pub fn field(request: &FieldRequest) -> Vec<Source> {
    let mut rng = stream(request.seed, Purpose::Stars, request.field, 0);
    let mut sources: Vec<Source> = (0..request.stars.round() as usize).map(|_| star(&mut rng, request)).collect();
    let stars = sources.len();
    let mut rng = stream(request.seed, Purpose::Galaxies, request.field, 0);
    for _ in 0..(GALAXIES * request.stars).round() as usize {
        sources.push(galaxy(&mut rng, request));
    }
    let mut rng = stream(request.seed, Purpose::Changes, request.field, 0);
    Changes { request, rng: &mut rng, taken: Vec::new() }.add(&mut sources, stars);
    sources
}

fn electrons(magnitude: f64) -> f64 {
    10f64.powf(0.4 * (ZERO_POINT - magnitude))
}

/// A magnitude of the counts log10 N(<m) = slope m between two limits.
fn magnitude(rng: &mut ChaCha8Rng, slope: f64, brightest: f64) -> f64 {
    let lowest = 10f64.powf(slope * (brightest - FAINTEST));
    FAINTEST + uniform(rng, lowest, 1.0).log10() / slope
}

fn anywhere(rng: &mut ChaCha8Rng, request: &FieldRequest) -> (f64, f64) {
    let half = request.half_side * request.scale;
    let (xi, eta) = (uniform(rng, -half, half), uniform(rng, -half, half));
    deproject(request.centre, xi, eta)
}

fn star(rng: &mut ChaCha8Rng, request: &FieldRequest) -> Source {
    let place = anywhere(rng, request);
    Source { place, flux: electrons(magnitude(rng, STAR_SLOPE, BRIGHTEST)), galaxy: None, change: None }
}

fn galaxy(rng: &mut ChaCha8Rng, request: &FieldRequest) -> Source {
    let place = anywhere(rng, request);
    let magnitude = magnitude(rng, GALAXY_SLOPE, BRIGHTEST_GALAXY);
    let typical = 2.6 * 10f64.powf(-0.13 * (magnitude - 18.0));
    let radius = (typical * f64::from(0.3 * normal(rng)).exp()).clamp(0.4, 12.0);
    let shape = Galaxy {
        radius,
        axis_ratio: uniform(rng, 0.3, 1.0),
        angle: uniform(rng, 0.0, 180.0),
        elliptical: rng.random_bool(0.4),
    };
    Source { place, flux: electrons(magnitude), galaxy: Some(shape), change: None }
}

struct Changes<'a> {
    request: &'a FieldRequest,
    rng: &'a mut ChaCha8Rng,
    /// Tangent-plane places (pixels) of the changes so far.
    taken: Vec<(f64, f64)>,
}

impl Changes<'_> {
    fn add(mut self, sources: &mut Vec<Source>, stars: usize) {
        let count = |share: f64| (share * self.request.stars).round() as usize;
        let (variables, blank, hosted, movers) =
            (count(VARIABLES), count(NEW_BLANK), count(NEW_GALAXY), count(MOVERS).max(1));
        self.vary_stars(&mut sources[..stars], variables);
        let known: Vec<((f64, f64), f64)> =
            sources.iter().map(|s| (self.pixels(s.place), clearance(s, self.request))).collect();
        let galaxies: Vec<Source> = sources[stars..].iter().filter(|s| s.flux > electrons(20.8)).cloned().collect();
        self.on_blank_sky(sources, &known, blank, ChangeKind::NewBlank);
        self.on_galaxies(sources, &galaxies, hosted);
        self.on_blank_sky(sources, &[], movers, ChangeKind::Mover);
    }

    fn pixels(&self, place: (f64, f64)) -> (f64, f64) {
        let (xi, eta) = project(self.request.centre, place.0, place.1).unwrap_or((f64::MAX, f64::MAX));
        (xi / self.request.scale, eta / self.request.scale)
    }

    /// Takes the place if no other change is near.
    fn take(&mut self, place: (f64, f64)) -> bool {
        let (x, y) = self.pixels(place);
        let free = self.taken.iter().all(|(a, b)| (a - x).hypot(b - y) > APART);
        if free {
            self.taken.push((x, y));
        }
        free
    }

    fn vary_stars(&mut self, stars: &mut [Source], wanted: usize) {
        let mut made = 0;
        for _ in 0..20 * wanted {
            if made == wanted {
                break;
            }
            let snr = log_uniform(self.rng, 3.0, 300.0);
            // Large changes need bright stars: a few are tried for each signal-to-noise ratio. The
            // curve swings to 1.21 amplitudes on either side and stays above zero.
            let fits = |star: &Source| self.request.depth.amplitude(snr, star.flux, 0.0) < 0.8 * star.flux;
            let tried = (0..12).map(|_| self.rng.random_range(0..stars.len()));
            let Some(chosen) = tried.into_iter().find(|&n| stars[n].change.is_none() && fits(&stars[n])) else {
                continue;
            };
            let star = &mut stars[chosen];
            if !self.take(star.place) {
                continue;
            }
            let size = self.request.depth.amplitude(snr, star.flux, 0.0);
            let amplitude = if self.rng.random_bool(0.5) { size } else { -size };
            let curve = (log_uniform(self.rng, 1.5, 200.0), uniform(self.rng, -0.6, 0.6));
            star.change = Some(Change { kind: ChangeKind::Variable, amplitude, curve, motion: (0.0, 0.0) });
            made += 1;
        }
    }

    fn on_blank_sky(
        &mut self,
        sources: &mut Vec<Source>,
        known: &[((f64, f64), f64)],
        wanted: usize,
        kind: ChangeKind,
    ) {
        let mut made = 0;
        for _ in 0..50 * wanted {
            if made == wanted {
                break;
            }
            let place = anywhere(self.rng, self.request);
            let (x, y) = self.pixels(place);
            if known.iter().any(|((a, b), clear)| (a - x).hypot(b - y) < *clear) || !self.take(place) {
                continue;
            }
            sources.push(self.new_source(place, kind, 0.0));
            made += 1;
        }
    }

    fn on_galaxies(&mut self, sources: &mut Vec<Source>, galaxies: &[Source], wanted: usize) {
        if galaxies.is_empty() {
            return;
        }
        let mut made = 0;
        for _ in 0..20 * wanted {
            if made == wanted {
                break;
            }
            let host = &galaxies[self.rng.random_range(0..galaxies.len())];
            let Some(shape) = host.galaxy else { continue };
            let (distance, angle) =
                (shape.radius * uniform(self.rng, 0.0, 1.5), uniform(self.rng, 0.0, std::f64::consts::TAU));
            let place = deproject(host.place, distance * angle.sin(), distance * angle.cos());
            if !self.take(place) {
                continue;
            }
            let area = std::f64::consts::PI * (shape.radius / self.request.scale + 1.0).powi(2) * shape.axis_ratio;
            sources.push(self.new_source(place, ChangeKind::NewGalaxy, 0.5 * host.flux / area));
            made += 1;
        }
    }

    fn new_source(&mut self, place: (f64, f64), kind: ChangeKind, surface_brightness: f64) -> Source {
        let snr = log_uniform(self.rng, 3.0, 100.0);
        let growth = uniform(self.rng, -0.04, 0.04);
        let mut motion = (0.0, 0.0);
        let mut amplitude = self.request.depth.amplitude(snr, 0.0, surface_brightness);
        if kind == ChangeKind::Mover {
            // Trails of 1 to 10 pixels; a trail of length L spreads its light over about 1 + L/4 areas.
            let length = log_uniform(self.rng, 1.0, 10.0);
            let rate = length * self.request.scale / self.request.depth.exposure_s;
            let angle = uniform(self.rng, 0.0, std::f64::consts::TAU);
            motion = (rate * angle.sin(), rate * angle.cos());
            amplitude *= 1.7 * (1.0 + 0.25 * length).sqrt();
        }
        let change = Change { kind, amplitude, curve: (growth, 0.0), motion };
        Source { place, flux: 0.0, galaxy: None, change: Some(change) }
    }
}

/// Distance from a source at which the sky counts as blank, pixels.
fn clearance(source: &Source, request: &FieldRequest) -> f64 {
    let size = source.galaxy.map_or(0.0, |galaxy| 3.0 * galaxy.radius / request.scale);
    6.0 + size + 3.0 * (source.flux / 1000.0).log10().max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> FieldRequest {
        let depth = Depth { noise_area: 20.0, variance: 1400.0, exposure_s: 30.0 };
        FieldRequest { seed: 5, field: 0, centre: (150.0, 2.0), half_side: 800.0, stars: 2000.0, scale: 1.0, depth }
    }

    #[test]
    fn counts_of_stars_follow_the_power_law() {
        let sources = field(&request());
        let brighter = |limit: f64| sources.iter().take(2000).filter(|s| s.flux > electrons(limit)).count() as f64;
        assert!((brighter(19.5) / brighter(FAINTEST) - 10f64.powf(-2.0 * STAR_SLOPE)).abs() < 0.03);
    }

    #[test]
    fn a_field_holds_changes_of_every_kind_and_of_both_signs_and_none_side_by_side() {
        let request = request();
        let sources = field(&request);
        let changes: Vec<(&Source, Change)> = sources.iter().filter_map(|s| s.change.map(|c| (s, c))).collect();
        for kind in [ChangeKind::Variable, ChangeKind::NewBlank, ChangeKind::NewGalaxy, ChangeKind::Mover] {
            assert!(changes.iter().filter(|(_, c)| c.kind == kind).count() >= 5, "{kind:?}");
        }
        assert!(changes.iter().filter(|(_, c)| c.amplitude < 0.0).count() > 50);
        for (n, (a, _)) in changes.iter().enumerate() {
            let (xi, eta) = project(a.place, a.place.0, a.place.1).unwrap();
            assert!(xi.hypot(eta) < 1e-6);
            for (b, _) in &changes[..n] {
                let (xi, eta) = project(a.place, b.place.0, b.place.1).unwrap();
                assert!(xi.hypot(eta) > 0.99 * APART);
            }
        }
    }

    #[test]
    fn a_variable_has_its_amplitude_at_the_beginning_and_never_negative_light() {
        for source in field(&request()) {
            let Some(change) = source.change else { continue };
            assert!((change.flux(0.0) - change.amplitude).abs() < 1e-9 * change.amplitude.abs());
            for step in 0..100 {
                assert!(source.flux + change.flux(f64::from(step) * 0.1) >= 0.0);
            }
        }
    }
}
