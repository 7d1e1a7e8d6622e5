//! A FITS image as a [`RawFrame`].

use rayon::prelude::*;

use super::header::{HeaderError, HeaderFallbacks, exposure_from_header};
use super::sections::{DetectorFallbacks, amplifiers};
use super::{Amplifier, RawFrame, Section};
use crate::fits::FitsImage;
use crate::image::{Image, Mask, mask};

/// Makes a raw frame of an image that was read from a file. The night's name takes `longitude_deg`
/// (east positive).
///
/// # Errors
///
/// When the header lacks what no fall-back gives, or describes a geometry that cannot be.
pub fn raw_frame(
    image: FitsImage,
    longitude_deg: f64,
    fallbacks: &HeaderFallbacks,
    detector: &DetectorFallbacks,
) -> Result<RawFrame, HeaderError> {
    let FitsImage { path, header, mut pixels, .. } = image;
    let file = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let exposure = exposure_from_header(&header, &file, longitude_deg, fallbacks)?;
    let (height, width) = pixels.dim();
    let amplifiers = amplifiers(&header, width, height, detector).map_err(|fault| HeaderError::Unusable {
        file,
        keyword: fault.keyword,
        value: fault.value,
        reason: fault.reason,
    })?;
    let finite = pixels.as_slice().is_some_and(|all| all.par_iter().all(|value| value.is_finite()));
    let missing = (!finite).then(|| {
        let mut missing = Mask::zeros((height, width));
        for (value, bits) in pixels.iter_mut().zip(missing.iter_mut()).filter(|(value, _)| !value.is_finite()) {
            (*value, *bits) = (0.0, mask::NO_DATA);
        }
        missing
    });
    Ok(RawFrame { exposure, pixels: Image::new(pixels), missing, amplifiers, header })
}

/// Where the light-sensitive part of each amplifier comes to lie in the trimmed image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mosaic {
    /// Pixels a row of the trimmed image.
    pub width: usize,
    /// Rows of the trimmed image.
    pub height: usize,
    /// The place of each amplifier's data section, in the order of the amplifiers.
    pub places: Vec<Section>,
}

impl Mosaic {
    /// Pushes the data sections together: columns and rows that no section uses (overscan between
    /// the amplifiers) fall out. `None` when they do not tile a rectangle.
    pub fn of(amplifiers: &[Amplifier]) -> Option<Self> {
        let columns = compact(amplifiers.iter().map(|a| (a.data.x0, a.data.x1)))?;
        let rows = compact(amplifiers.iter().map(|a| (a.data.y0, a.data.y1)))?;
        let place = |spans: &[(usize, usize, usize)], from: usize| {
            spans.iter().find(|(start, ..)| *start == from).map(|(start, end, at)| (*at, at + end - start))
        };
        let places: Vec<Section> = amplifiers
            .iter()
            .map(|a| {
                let ((x0, x1), (y0, y1)) = (place(&columns, a.data.x0)?, place(&rows, a.data.y0)?);
                Some(Section { x0, x1, y0, y1 })
            })
            .collect::<Option<_>>()?;
        let length = |spans: &[(usize, usize, usize)]| spans.iter().map(|(start, end, _)| end - start).sum();
        let (width, height): (usize, usize) = (length(&columns), length(&rows));
        let covered: usize = places.iter().map(|place| place.width() * place.height()).sum();
        (covered == width * height).then_some(Self { width, height, places })
    }
}

/// Distinct intervals in order, each with its place when the gaps are taken out; `None` when two of
/// them overlap in part.
fn compact(intervals: impl Iterator<Item = (usize, usize)>) -> Option<Vec<(usize, usize, usize)>> {
    let mut sorted: Vec<(usize, usize)> = intervals.collect();
    sorted.sort_unstable();
    sorted.dedup();
    let mut place = 0;
    let mut end_of_last = 0;
    sorted
        .into_iter()
        .map(|(start, end)| {
            let at = place;
            let fits = start >= end_of_last && end > start;
            (place, end_of_last) = (place + end.saturating_sub(start), end);
            fits.then_some((start, end, at))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use ndarray::Array2;

    use super::*;
    use crate::fits::Header;

    fn amplifier(data: &str) -> Amplifier {
        let data = Section::parse(data).unwrap();
        Amplifier { data, overscan: None, gain: None, read_noise: None, saturation: None }
    }

    #[test]
    fn amplifiers_with_overscan_between_them_are_pushed_together() {
        let mosaic = Mosaic::of(&[amplifier("[141:240,1:50]"), amplifier("[1:100,1:50]")]).unwrap();
        assert_eq!((mosaic.width, mosaic.height), (200, 50));
        assert_eq!(mosaic.places[0], Section { x0: 100, x1: 200, y0: 0, y1: 50 });
        assert_eq!(Mosaic::of(&[amplifier("[1:100,1:50]"), amplifier("[141:240,51:90]")]), None);
    }

    #[test]
    fn nan_in_a_raw_frame_becomes_a_pixel_without_data() {
        let mut header = Header::new();
        header.set("IMAGETYP", "light", "").set("DATE-OBS", "2026-11-24T03:15:22", "");
        header.set("EXPTIME", 30.0, "").set("FILTER", "r", "");
        let mut pixels = Array2::from_elem((4, 6), 100.0);
        pixels[[1, 2]] = f32::NAN;
        let image = FitsImage { path: "night/a.fits".into(), name: String::new(), header, pixels };
        let raw = raw_frame(image, 0.0, &HeaderFallbacks::default(), &DetectorFallbacks::default()).unwrap();
        assert_eq!(raw.pixels.pixels[[1, 2]], 0.0);
        assert_eq!(raw.missing.unwrap()[[1, 2]], mask::NO_DATA);
        assert_eq!(raw.exposure.file, "a.fits");
    }
}
