//! A source that changed, as it was measured, and the rule that keeps it from being an alert.

use ndarray::Array2;

/// A rule that keeps a candidate from becoming an alert. Few, named, counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Rule {
    /// Too close to the edge of the frame or of the reference's coverage.
    Edge,
    /// Too many masked pixels under it.
    Masked,
    /// On a saturated star or its bleed trail.
    Saturated,
    /// Shaped like a cosmic ray or a hot pixel: sharper than the PSF.
    CosmicRay,
    /// A positive and a negative lobe side by side.
    Dipole,
    /// The PSF does not fit.
    Shape,
    /// Too faint once the peak bias is removed.
    Faint,
    /// Fewer connected pixels than a real source has.
    Small,
}

impl Rule {
    /// The name in `candidates.csv`, log lines and counters.
    pub fn name(self) -> &'static str {
        match self {
            Self::Edge => "edge",
            Self::Masked => "masked",
            Self::Saturated => "saturated",
            Self::CosmicRay => "cosmic_ray",
            Self::Dipole => "dipole",
            Self::Shape => "shape",
            Self::Faint => "faint",
            Self::Small => "small",
        }
    }
}

/// The source of the reference nearest to a candidate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Neighbour {
    /// Distance, pixels.
    pub distance_px: f64,
    /// Right ascension, degrees.
    pub ra: f64,
    /// Declination, degrees.
    pub dec: f64,
    /// PSF magnitude in the reference.
    pub mag: f64,
    /// Its error, magnitudes.
    pub mag_err: f64,
    /// Reduced chi² of the PSF fit.
    pub chi: f64,
    /// Sharpness of the PSF fit (0 for a star, positive for broader, negative for sharper).
    pub sharp: f64,
}

/// The three 63×63 images of a candidate, `[[y, x]]`, NaN outside the frame.
///
/// In electrons above the sky; the difference is turned so that the source is positive.
#[derive(Debug, Clone)]
pub struct Cutouts {
    /// The science image.
    pub science: Array2<f32>,
    /// The reference on the science image's grid and flux scale.
    pub template: Array2<f32>,
    /// The difference image, positive at the source.
    pub difference: Array2<f32>,
}

/// A source that changed, measured. Pixels are zero-based with the first pixel's centre at 0.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// Column on the science image, pixels.
    pub x: f64,
    /// Row on the science image, pixels.
    pub y: f64,
    /// Error of a coordinate, pixels.
    pub position_err: f64,
    /// Right ascension, degrees, ICRS.
    pub ra: f64,
    /// Declination, degrees, ICRS.
    pub dec: f64,
    /// Whether the source is brighter than in the reference.
    pub positive: bool,
    /// PSF flux of the difference, electrons, signed (negative: faded).
    pub flux: f64,
    /// Its error.
    pub flux_err: f64,
    /// Significance of the peak: √(Scorr² − 2).
    pub snr: f64,
    /// Scorr at the peak, signed.
    pub scorr: f64,
    /// Magnitude of |flux| (`magpsf`).
    pub mag: f64,
    /// Its error (`sigmapsf`).
    pub mag_err: f64,
    /// Reduced chi² of the PSF fit on the difference (`chipsf`).
    pub chi: f64,
    /// The same within 2.5 px.
    pub core_chi: f64,
    /// Significance of a profile far narrower than the PSF in it: about 0 for a point source.
    pub sharpness: f64,
    /// Chi² of a point source less that of a particle's track, on the science image: positive for tracks.
    /// Nothing where the reference is not empty, or the source far too sharp.
    pub track: Option<f64>,
    /// What the reference holds there, in units of the flux's error.
    pub reference_snr: f64,
    /// Its width over that of the science PSF.
    pub width: f64,
    /// Deepest opposite score within 1.4 FWHM over its own, 0 to 1 and more.
    pub opposite: f64,
    /// Whether it is worth a fit as a trail.
    pub may_trail: bool,
    /// Whether it fits the PSF so well that nothing but a long track in its place speaks against it.
    pub regular: bool,
    /// Flux in an aperture of 14 px diameter, electrons, positive at the source, and its error.
    pub aperture14: (f64, f64),
    /// Flux in an aperture of 18 px diameter, electrons, positive at the source, and its error.
    pub aperture18: (f64, f64),
    /// Full width at half maximum of the source on the difference, pixels.
    pub fwhm: f64,
    /// Windowed rms along the major axis, pixels.
    pub a: f64,
    /// Windowed rms along the minor axis, pixels.
    pub b: f64,
    /// Angle of the major axis from the x axis, degrees.
    pub theta: f64,
    /// Negative pixels in the 5×5 box (difference positive at the source).
    pub nneg: u32,
    /// Bad pixels in the 5×5 box.
    pub nbad: u32,
    /// Sum over sum of absolute values of the 5×5 box.
    pub sumrat: f64,
    /// Likeness to a star on the science image, 0 to 1 (`classtar`).
    pub class_star: f64,
    /// Local level of the difference image in an annulus around it, electrons: near 0 (`sky`); 0 of rejected ones.
    pub sky: f64,
    /// Distance to the nearest edge, pixels (`mindtoedge`).
    pub edge_distance: f64,
    /// Real-bogus score from shape and context ([`super::real_bogus`]), 0 to 1.
    pub rb: f64,
    /// Length of the trail of a moving source, pixels; 0 for a point.
    pub trail_px: f64,
    /// Peak over robust rms of the difference cut-out (`dsnrms`); 0 of rejected ones.
    pub difference_snr: f64,
    /// PSF flux over the noise of the matched-filtered difference on empty sky (`ssnrms`).
    pub score_snr: f64,
    /// Nearest source of the reference.
    pub neighbour: Option<Neighbour>,
    /// Mask bits under the central 5×5 box, science and reference together.
    pub flags: u16,
    /// The rule that keeps it from being an alert.
    pub rejected: Option<Rule>,
    /// Cut-out images; only for candidates that become alerts.
    pub cutouts: Option<Cutouts>,
}
