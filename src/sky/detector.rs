//! The synthetic detector: from light to the 16-bit numbers of the camera.
//!
//! ```text
//! columns 0..8     prescan
//!         8..8+w   light-sensitive: TRIMSEC
//!         then 40  overscan: BIASSEC
//! ADU = round((electrons + read noise) / gain + level + pattern[x] + wander[y])
//! electrons = Poisson(light · response + dark · t), cosmic rays, full wells that bleed, bad columns
//! ```

use ndarray::Array2;
use ndarray::parallel::prelude::*;
use rand::Rng;

use super::defects::{BadColumn, Defect, DefectKind, bleed, cosmic_rays};
use super::random::{Purpose, log_uniform, normal, poisson, stream, uniform};
use super::request::{FULL_WELL, READ_NOISE};
use crate::fits::Header;

/// Electrons per ADU.
pub const GAIN: f64 = 6.2;
/// Level of the bias, ADU.
const LEVEL: f64 = 1000.0;
/// Columns before and after the light-sensitive ones.
const PRESCAN: usize = 8;
const OVERSCAN: usize = 40;
/// Dark current of a pixel without fault, electrons a second.
const DARK: f64 = 0.02;
/// Share of the pixels that are hot, and their dark current, electrons a second.
const HOT: f64 = 1e-4;
const HOT_RATE: (f64, f64) = (0.5, 300.0);
/// Hot pixels above this many electrons in an exposure are listed as defects.
const HOT_LISTED: f32 = 150.0;
/// Response of a pixel against its neighbours, rms.
const PIXEL_RESPONSE: f64 = 0.007;
/// Vignetting grows with this power of the squared distance from the middle.
const VIGNETTING_POWER: f64 = 0.8;

/// A detector: all that is the same in every frame of a night.
pub struct Detector {
    seed: u64,
    shape: (usize, usize),
    /// Bias structure of each column, ADU.
    pattern: Vec<f64>,
    /// Electrons a second.
    dark: Array2<f32>,
    /// Share of the light that is counted: vignetting, dust, pixels.
    response: Array2<f32>,
    columns: Vec<BadColumn>,
    hot: Vec<(usize, usize)>,
}

/// What falls on the detector in one exposure.
pub struct Exposed<'a> {
    /// Number of the frame, which names its noise.
    pub frame: u64,
    /// Electrons a pixel before the response; `None` for a closed shutter.
    pub light: Option<&'a Array2<f32>>,
    /// Time over which dark current and cosmic rays gather, seconds.
    pub seconds: f64,
}

/// A frame as the camera writes it.
pub struct Readout {
    /// The whole frame, ADU.
    pub pixels: Array2<u16>,
    /// Spoilt pixels, zero-based on the trimmed image.
    pub defects: Vec<Defect>,
    /// Variance of each pixel once it is calibrated, electrons².
    pub variance: Array2<f32>,
}

impl Detector {
    /// The detector of a seed, for trimmed images of `shape` (rows, columns).
    pub fn new(seed: u64, shape: (usize, usize)) -> Self {
        let mut rng = stream(seed, Purpose::Detector, 0, 1);
        let (height, width) = shape;
        let mut noise = |sigma: f64| sigma * f64::from(normal(&mut rng));
        let pattern = (0..PRESCAN + width + OVERSCAN)
            .map(|x| 6.0 * (-(x as f64) / 60.0).exp() + if x < PRESCAN + width { noise(1.2) } else { 0.0 })
            .collect();
        let glow = |x: usize, y: usize| (-(((x * x + y * y) as f64).sqrt() / (0.08 * width as f64))).exp();
        let mut dark = Array2::from_shape_fn(shape, |(y, x)| (DARK + 0.4 * glow(x, y)) as f32);
        let count = (HOT * (height * width) as f64).round() as usize;
        let hot: Vec<_> = (0..count).map(|_| (rng.random_range(0..height), rng.random_range(0..width))).collect();
        for &place in &hot {
            dark[place] += log_uniform(&mut rng, HOT_RATE.0, HOT_RATE.1) as f32;
        }
        let columns = BadColumn::draw(&mut stream(seed, Purpose::Detector, 0, 0), shape);
        Self { seed, shape, pattern, dark, response: response(seed, shape), columns, hot }
    }

    /// Exposes and reads the detector.
    pub fn expose(&self, exposed: &Exposed<'_>) -> Readout {
        let (mut electrons, variance) = self.collect(exposed);
        let mut defects = self.known_defects(exposed.seconds);
        if exposed.seconds > 0.0 {
            let mut rng = stream(self.seed, Purpose::CosmicRays, exposed.frame, 0);
            defects.extend(cosmic_rays(&mut electrons, &mut rng, exposed.seconds));
        }
        defects.extend(bleed(&mut electrons, FULL_WELL as f32, DefectKind::Saturated));
        for column in &self.columns {
            column.apply(&mut electrons);
        }
        Readout { pixels: self.digitise(exposed.frame, &electrons), defects, variance }
    }

    /// Photo-electrons and dark current with their noise; and the variance after calibration.
    fn collect(&self, exposed: &Exposed<'_>) -> (Array2<f32>, Array2<f32>) {
        let mut electrons = Array2::zeros(self.shape);
        let mut variance = Array2::zeros(self.shape);
        let readout = (READ_NOISE * READ_NOISE + GAIN * GAIN / 12.0) as f32;
        ndarray::Zip::indexed(electrons.rows_mut()).and(variance.rows_mut()).into_par_iter().for_each(
            |(y, mut electrons, mut variance)| {
                let mut rng = stream(self.seed, Purpose::Photons, exposed.frame, y as u64);
                for x in 0..electrons.len() {
                    let response = self.response[[y, x]];
                    let light = exposed.light.map_or(0.0, |light| light[[y, x]]);
                    let mean = light * response + self.dark[[y, x]] * exposed.seconds as f32;
                    electrons[x] = poisson(&mut rng, mean);
                    variance[x] = (mean + readout) / (response * response);
                }
            },
        );
        (electrons, variance)
    }

    fn known_defects(&self, seconds: f64) -> Vec<Defect> {
        let bright = |place: &&(usize, usize)| self.dark[**place] * seconds as f32 > HOT_LISTED;
        let hot = self.hot.iter().filter(bright).map(|&(y, x)| {
            let (x, y) = (x as f64, y as f64);
            Defect { kind: DefectKind::HotPixel, x: (x, x), y: (y, y) }
        });
        self.columns.iter().map(|column| column.defect(self.shape.0)).chain(hot).collect()
    }

    fn digitise(&self, frame: u64, electrons: &Array2<f32>) -> Array2<u16> {
        let (height, width) = self.shape;
        let mut rng = stream(self.seed, Purpose::Conditions, frame, 7);
        let level = LEVEL + uniform(&mut rng, -2.0, 2.0);
        let phase = uniform(&mut rng, 0.0, std::f64::consts::TAU);
        let mut raw = Array2::zeros((height, PRESCAN + width + OVERSCAN));
        ndarray::Zip::indexed(raw.rows_mut()).into_par_iter().for_each(|(y, mut row)| {
            let mut rng = stream(self.seed, Purpose::Readout, frame, y as u64);
            let wander = (8.0 * y as f64 / height as f64 + phase).sin();
            for (x, value) in row.iter_mut().enumerate() {
                let light = x.checked_sub(PRESCAN).filter(|&x| x < width).map_or(0.0, |x| f64::from(electrons[[y, x]]));
                let charge = light + READ_NOISE * f64::from(normal(&mut rng));
                // Saturating conversion: the converter ends at 65535.
                *value = (charge / GAIN + level + self.pattern[x] + wander).round() as u16;
            }
        });
        raw
    }

    /// Writes what the camera says of itself.
    pub fn describe(&self, header: &mut Header) {
        let (height, width) = self.shape;
        header.set("GAIN", GAIN, "[e-/ADU]").set("RDNOISE", READ_NOISE, "[e-]");
        header.set("SATURATE", (0.97 * FULL_WELL / GAIN + LEVEL).floor(), "[ADU]").set("CCD-TEMP", -90.0, "[Celsius]");
        let section = |from: usize, to: usize| format!("[{from}:{to},1:{height}]");
        header.set("TRIMSEC", section(PRESCAN + 1, PRESCAN + width), "light-sensitive pixels");
        header.set("BIASSEC", section(PRESCAN + width + 1, PRESCAN + width + OVERSCAN), "overscan");
    }

    /// Column of the raw frame that the first light-sensitive column is.
    pub fn first_column(&self) -> usize {
        PRESCAN
    }
}

/// Vignetting, dust and the pixels' own response, of mean 1 and median 1: a master flat that is
/// normalised by either gives back the electrons of the truth table.
fn response(seed: u64, (height, width): (usize, usize)) -> Array2<f32> {
    let mut rng = stream(seed, Purpose::Detector, 0, 2);
    // Rings of dust: place, radius, depth.
    let rings: Vec<[f64; 4]> = (0..(width * height).div_ceil(800_000))
        .map(|_| {
            let place = [uniform(&mut rng, 0.0, width as f64), uniform(&mut rng, 0.0, height as f64)];
            [place[0], place[1], uniform(&mut rng, 12.0, 60.0), uniform(&mut rng, 0.01, 0.04)]
        })
        .collect();
    let mut response = Array2::zeros((height, width));
    ndarray::Zip::indexed(response.rows_mut()).into_par_iter().for_each(|(y, mut row)| {
        let mut rng = stream(seed, Purpose::Response, 0, y as u64);
        let v = 2.0 * y as f64 / height as f64 - 1.0;
        for (x, value) in row.iter_mut().enumerate() {
            let u = 2.0 * x as f64 / width as f64 - 1.0;
            // With this power the mean over a rectangle is the median, to 2e-5.
            let vignetting = 0.08 * (u * u + v * v).powf(VIGNETTING_POWER);
            let mut light = 1.0 - vignetting + PIXEL_RESPONSE * f64::from(normal(&mut rng));
            for [centre_x, centre_y, radius, depth] in &rings {
                let distance = (x as f64 - centre_x).hypot(y as f64 - centre_y);
                if (0.4 * radius..*radius).contains(&distance) {
                    let across = (distance / radius - 0.7) / 0.3;
                    light -= depth * (1.0 - across * across);
                }
            }
            *value = light as f32;
        }
    });
    let mean = response.mean().unwrap_or(1.0);
    response / mean
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statistics(values: impl Iterator<Item = f64>) -> (f64, f64) {
        let values: Vec<f64> = values.collect();
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        (mean, values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (values.len() - 1) as f64)
    }

    #[test]
    fn two_flats_give_back_gain_and_read_noise_by_photon_transfer() {
        let shape = (200, 300);
        let detector = Detector::new(4, shape);
        let light = Array2::from_elem(shape, 60_000.0);
        let read = |frame, light, seconds| detector.expose(&Exposed { frame, light, seconds }).pixels.mapv(f64::from);
        let (a, b) = (read(0, Some(&light), 0.0), read(1, Some(&light), 0.0));
        let (bias_a, bias_b) = (read(2, None, 0.0), read(3, None, 0.0));
        let columns: Vec<usize> =
            (0..300).filter(|x| detector.columns.iter().all(|column| column.x != *x)).map(|x| x + PRESCAN).collect();
        let over = |f: &dyn Fn(usize, usize) -> f64| {
            statistics(columns.iter().flat_map(|&x| (0..200).map(move |y| (y, x))).map(|(y, x)| f(y, x)))
        };
        let variance = over(&|y, x| a[[y, x]] - b[[y, x]]).1 / 2.0;
        let noise = over(&|y, x| bias_a[[y, x]] - bias_b[[y, x]]).1 / 2.0;
        let signal = over(&|y, x| 0.5 * (a[[y, x]] + b[[y, x]] - bias_a[[y, x]] - bias_b[[y, x]])).0;
        let gain = signal / (variance - noise);
        assert!((gain / GAIN - 1.0).abs() < 0.03, "gain {gain}");
        // The wander of the rows differs between the frames (up to 1 ADU), quantisation adds 1/12.
        let expected = (READ_NOISE / GAIN).powi(2) + 1.0 / 12.0;
        assert!(noise > 0.97 * expected && noise < expected + 1.0, "read noise {noise} for {expected}");
    }

    #[test]
    fn a_full_well_stands_at_the_saturation_level_of_the_header() {
        let detector = Detector::new(1, (64, 64));
        let mut light = Array2::zeros((64, 64));
        let x = (10..50).find(|x| detector.columns.iter().all(|column| column.x.abs_diff(*x) > 5)).unwrap();
        light[[30, x]] = 3e6;
        let readout = detector.expose(&Exposed { frame: 0, light: Some(&light), seconds: 0.0 });
        let mut header = Header::new();
        detector.describe(&mut header);
        let level = header.number(&["SATURATE"]).unwrap();
        assert!(f64::from(readout.pixels[[30, x + PRESCAN]]) > level);
        assert!(f64::from(readout.pixels[[30, x + 5 + PRESCAN]]) < level);
        assert!(readout.defects.iter().any(|d| d.kind == DefectKind::Saturated && d.distance(x as f64, 30.0) == 0.0));
    }

    #[test]
    fn hot_pixels_grow_with_time_and_are_listed() {
        let detector = Detector::new(2, (256, 256));
        let readout = detector.expose(&Exposed { frame: 0, light: None, seconds: 100.0 });
        let listed: Vec<_> = readout.defects.iter().filter(|d| d.kind == DefectKind::HotPixel).collect();
        assert!(!listed.is_empty());
        for hot in listed {
            assert!(readout.pixels[[hot.y.0 as usize, hot.x.0 as usize + PRESCAN]] > 1015);
        }
    }
}
