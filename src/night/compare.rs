//! One science frame against its reference: register, subtract, detect, with the seconds of each.

use crate::calibrate::CalibratedFrame;
use crate::detect::context::ReferenceContext;
use crate::detect::{Detections, detect};
use crate::register::polynomial::Map;
use crate::register::stars::find;
use crate::register::{RegisterError, register};
use crate::service::clock::Stopwatch;
use crate::subtract::method::Method;
use crate::subtract::{DifferenceImages, SubtractError, subtract};
use crate::wcs::Wcs;

/// Largest deviation of the polynomial guess from the two frames' world coordinates, reference pixels.
const GUESS_DEVIATION: f64 = 5.0;

/// Why a frame was not compared with its reference.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum CompareError {
    /// It could not be registered.
    #[error(transparent)]
    Register(#[from] RegisterError),
    /// It could not be subtracted.
    #[error(transparent)]
    Subtract(#[from] SubtractError),
}

/// What came of a comparison.
#[derive(Debug)]
pub struct Compared {
    /// The difference image and what belongs to it.
    pub images: DifferenceImages,
    /// What changed.
    pub detections: Detections,
    /// Seconds of register, subtract, detect.
    pub seconds: [f64; 3],
}

/// Compares a science frame with a reference whose stars are known.
///
/// # Errors
///
/// When the frame cannot be registered or subtracted; the message says why.
pub fn compare(
    science: CalibratedFrame,
    reference: &CalibratedFrame,
    context: &ReferenceContext<'_>,
    threshold: f64,
    method: Method,
) -> Result<Compared, CompareError> {
    let watch = Stopwatch::start();
    let stars = find(&science);
    let guess = guess(&science, context.wcs);
    let registration = register(&science, &stars, reference, context.stars, guess.as_ref())?;
    let registered = watch.seconds();
    let difference = subtract(science, reference, registration, method)?;
    let subtracted = watch.seconds();
    let detections = detect(&difference, context, threshold);
    let seconds = [registered, subtracted - registered, watch.seconds() - subtracted];
    Ok(Compared { images: difference.into_images(), detections, seconds })
}

/// The map from science to reference pixels by the two frames' world coordinates, where both have them.
fn guess(science: &CalibratedFrame, reference: Option<&Wcs>) -> Option<Map> {
    let own = Wcs::from_header(science.header()).ok()?;
    let reference = reference?;
    let (height, width) = science.pixels().shape();
    let to_reference = |x: f64, y: f64| {
        let (ra, dec) = own.pixel_to_sky(x, y);
        reference.sky_to_pixel(ra, dec)
    };
    let (map, deviation) = Map::approximate(width, height, 3, to_reference)?;
    (deviation < GUESS_DEVIATION).then_some(map)
}
