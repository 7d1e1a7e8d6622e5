//! Many calibrated frames of one field to one deep image: the arithmetic of `nightjar reference`.
//!
//! Each frame is put on the grid and flux scale of the first one ([`place`]), and the layers are
//! combined band by band of rows ([`combine`]), so that memory holds one frame, or one band of all.
//!
//! **Outliers.** What one frame alone shows (a transient, an asteroid, a missed cosmic ray) must not
//! survive. A pixel is left out where it differs from the median of the frames by more than
//! `CLIP` σ, σ from the variance planes, plus `SEEING_PART` of the brightest median around it:
//! stars differ from frame to frame by the seeing, and clipping them would make their PSF depend on
//! their brightness (Gruen, Seitz & Bernstein 2014, PASP 126, 158, allow for it in the same way).
//! Since the wings of what is cut stand below the limit, neighbours of a cut pixel are cut from
//! `CLIP_BESIDE` σ on, as far out as a PSF reaches.
//!
//! **Weights** are one number a frame, 1/(σ · FWHM)², which is best for point sources, and not one a
//! pixel, which would weigh bright stars otherwise than the sky (and bias their flux).

use ndarray::parallel::prelude::*;
use ndarray::{Array2, ArrayView2, Axis};

use super::polynomial::{Domain, Map};
use super::resample::{Source, marks, resample};
use super::spline::BSpline;
use crate::calibrate::CalibratedFrame;
use crate::image::{Mask, mask};

/// Deviation from the median, standard deviations, from which a pixel is left out.
const CLIP: f32 = 4.0;
/// The same for neighbours of pixels that are left out.
const CLIP_BESIDE: f32 = 1.5;
/// Deviation that the seeing explains, as a part of the brightest median around.
const SEEING_PART: f32 = 0.25;
/// Variance of the median of many over that of their mean.
const MEDIAN_VARIANCE: f32 = 1.57;
/// Fewest frames that make a reference: of two, none is the odd one out.
pub const FEWEST_FRAMES: usize = 3;
/// Bits of pixels whose own value is still the best that there is: the core of a bright star.
const BRIGHT: u16 = mask::SATURATED | mask::BLEED;

/// How a frame lies under the reference's grid.
#[derive(Debug, Clone)]
pub struct Placement {
    /// From pixels of the grid to pixels of the frame.
    pub map: Map,
    /// Flux of a star in the frame over its flux in the reference.
    pub flux_ratio: f64,
    /// FWHM of the frame's stars, pixels of the frame.
    pub fwhm_px: f64,
}

impl Placement {
    /// That of the frame which gives the grid, of `shape` (rows, columns).
    pub fn identity(shape: (usize, usize), fwhm_px: f64) -> Self {
        Self { map: Map::identity(Domain::of_image(shape.1, shape.0)), flux_ratio: 1.0, fwhm_px }
    }
}

/// A frame on the reference's grid and flux scale.
#[derive(Debug, Clone)]
pub struct Layer {
    /// Pixels.
    pub pixels: Array2<f32>,
    /// Their variance.
    pub variance: Array2<f32>,
    /// The bits of the frame's pixels around, and [`mask::NO_DATA`] outside.
    pub mask: Mask,
}

/// Puts a frame on a grid of `shape` (rows, columns).
pub fn place(frame: &CalibratedFrame, placement: &Placement, shape: (usize, usize)) -> Layer {
    let mut pixels = frame.pixels().pixels.clone();
    fill(&mut pixels, frame.mask());
    let spline = BSpline::new(&pixels);
    drop(pixels);
    let marked = marks(frame.mask());
    let source = Source { spline: &spline, variance: &frame.variance().pixels, marks: &marked };
    let resampled = resample(source, &placement.map, shape);
    let scale = (1.0 / placement.flux_ratio) as f32;
    let (mut pixels, mut variance, mut bits) = (resampled.pixels, resampled.variance, resampled.mask);
    pixels.par_mapv_inplace(|value| value * scale);
    variance.par_mapv_inplace(|value| value * scale * scale);
    // Which of the reasons it was, where there was one.
    let (height, width) = frame.mask().dim();
    bits.axis_iter_mut(Axis(0)).into_par_iter().enumerate().for_each(|(y, mut row)| {
        for (x, bits) in row.iter_mut().enumerate().filter(|(_, bits)| **bits == mask::REFERENCE) {
            let [at_x, at_y] = placement.map.value(x as f64, y as f64);
            let window =
                |at: f64, side: usize| (at.floor() as usize).saturating_sub(1)..(at.floor() as usize + 3).min(side);
            let around = window(at_y, height).flat_map(|v| window(at_x, width).map(move |u| (v, u)));
            *bits = around.filter_map(|at| frame.mask().get(at)).fold(0, |all, flags| all | flags) & mask::UNUSABLE;
        }
        row.iter_mut().filter(|bits| **bits & mask::NO_DATA != 0).for_each(|bits| *bits = mask::NO_DATA);
    });
    Layer { pixels, variance, mask: bits }
}

/// Replaces pixels that hold something else than the sky by the mean of their neighbours, from the
/// rim inwards; saturated stars stay as they are, areas wider than that become sky.
fn fill(pixels: &mut Array2<f32>, flags: &Mask) {
    const DEEPEST: usize = 12;
    let bad = |at: (usize, usize)| flags[at] & mask::UNUSABLE & !BRIGHT != 0;
    let mut open: Vec<(usize, usize)> = flags.indexed_iter().map(|(at, _)| at).filter(|at| bad(*at)).collect();
    let (height, width) = pixels.dim();
    for (y, x) in &open {
        pixels[[*y, *x]] = f32::NAN;
    }
    for _ in 0..DEEPEST {
        let seen = pixels.view();
        let filled: Vec<((usize, usize), f32)> = open
            .iter()
            .filter_map(|&(y, x)| {
                let around = (y.saturating_sub(1)..(y + 2).min(height))
                    .flat_map(|v| (x.saturating_sub(1)..(x + 2).min(width)).map(move |u| seen[[v, u]]));
                let (sum, count) = around.filter(|v| v.is_finite()).fold((0.0, 0.0), |(s, n), v| (s + v, n + 1.0));
                (count >= 3.0).then(|| ((y, x), sum / count))
            })
            .collect();
        for (at, value) in filled {
            pixels[at] = value;
        }
        open.retain(|at| !pixels[*at].is_finite());
    }
    for at in open {
        pixels[at] = 0.0;
    }
}

/// The weight of a frame: `noise` of its sky on the reference's flux scale, FWHM of its stars.
pub fn weight(noise: f64, fwhm_px: f64) -> f64 {
    1.0 / (noise * fwhm_px).max(1e-12).powi(2)
}

/// Rows of one layer.
#[derive(Debug, Clone, Copy)]
pub struct Band<'a> {
    /// Pixels.
    pub pixels: ArrayView2<'a, f32>,
    /// Their variance.
    pub variance: ArrayView2<'a, f32>,
    /// Their mask.
    pub mask: ArrayView2<'a, u16>,
    /// Weight of the frame, from [`weight`].
    pub weight: f64,
}

/// Rows of the reference.
#[derive(Debug, Clone)]
pub struct Combined {
    /// Pixels.
    pub pixels: Array2<f32>,
    /// Their variance.
    pub variance: Array2<f32>,
    /// Set where no frame has a good pixel.
    pub mask: Mask,
    /// For each frame, how many good pixels were left out as outliers.
    pub outliers: Vec<usize>,
}

/// Rows beyond a band that [`combine`] has to see, for frames of this FWHM.
pub fn halo(fwhm_px: f64) -> usize {
    2 * reach(fwhm_px) + 1
}

/// Pixels from the centre of a star to where it is faint.
fn reach(fwhm_px: f64) -> usize {
    (1.5 * fwhm_px).ceil().clamp(2.0, 20.0) as usize
}

/// Combines the rows `rows` of bands that hold a [`halo`] of rows beside them where there are any.
pub fn combine(bands: &[Band<'_>], rows: std::ops::Range<usize>, fwhm_px: f64) -> Combined {
    let Some(shape) = bands.first().map(|band| band.pixels.dim()) else {
        let none = || Array2::zeros((0, 0));
        return Combined { pixels: none(), variance: none(), mask: Mask::zeros((0, 0)), outliers: Vec::new() };
    };
    let (median, spread) = medians(bands, shape);
    let brightest = box_maximum(&median, reach(fwhm_px) / 2 + 1);
    let limits = Limits { median, spread, brightest };
    let cut: Vec<Array2<bool>> = bands.par_iter().map(|band| limits.cut(band, reach(fwhm_px))).collect();

    let kept = (rows.len(), shape.1);
    let mut out = Combined {
        pixels: Array2::zeros(kept),
        variance: Array2::zeros(kept),
        mask: Mask::zeros(kept),
        outliers: vec![0; bands.len()],
    };
    for (count, cut) in out.outliers.iter_mut().zip(&cut) {
        *count = cut.slice(ndarray::s![rows.clone(), ..]).iter().filter(|cut| **cut).count();
    }
    let planes = out.pixels.axis_iter_mut(Axis(0)).into_par_iter().zip(out.variance.axis_iter_mut(Axis(0)));
    planes.zip(out.mask.axis_iter_mut(Axis(0))).enumerate().for_each(
        |(index, ((mut pixels, mut variance), mut bits))| {
            let y = rows.start + index;
            for x in 0..shape.1 {
                let good =
                    |(band, cut): &(&Band<'_>, &Array2<bool>)| band.mask[[y, x]] & mask::UNUSABLE == 0 && !cut[[y, x]];
                let mut sums = Sums::over(bands.iter().zip(&cut).filter(good).map(|(band, _)| band), y, x);
                if sums.weight == 0.0 {
                    bits[x] = bands.iter().fold(0, |all, band| all | band.mask[[y, x]]) & mask::UNUSABLE;
                    let usable =
                        |band: &&Band<'_>| band.mask[[y, x]] & BRIGHT != 0 && band.mask[[y, x]] & mask::NO_DATA == 0;
                    sums = Sums::over(bands.iter().filter(usable), y, x);
                }
                if sums.weight > 0.0 {
                    pixels[x] = (sums.value / sums.weight) as f32;
                    variance[x] = (sums.variance / (sums.weight * sums.weight)) as f32;
                } else {
                    bits[x] |= mask::NO_DATA;
                    variance[x] = bands.iter().map(|band| band.variance[[y, x]]).fold(0.0, f32::max);
                }
            }
        },
    );
    out
}

#[derive(Default)]
struct Sums {
    weight: f64,
    value: f64,
    variance: f64,
}

impl Sums {
    fn over<'a, 'b: 'a>(bands: impl Iterator<Item = &'a Band<'b>>, y: usize, x: usize) -> Self {
        bands.fold(Self::default(), |sums, band| Self {
            weight: sums.weight + band.weight,
            value: sums.value + band.weight * f64::from(band.pixels[[y, x]]),
            variance: sums.variance + band.weight * band.weight * f64::from(band.variance[[y, x]]),
        })
    }
}

/// The median of the good frames in each pixel, and its variance; NaN where fewer than two are good.
fn medians(bands: &[Band<'_>], shape: (usize, usize)) -> (Array2<f32>, Array2<f32>) {
    let mut median = Array2::from_elem(shape, f32::NAN);
    let mut spread = Array2::zeros(shape);
    let rows = median.axis_iter_mut(Axis(0)).into_par_iter().zip(spread.axis_iter_mut(Axis(0))).enumerate();
    rows.for_each_init(Vec::new, |values, (y, (mut median, mut spread))| {
        for x in 0..shape.1 {
            values.clear();
            let mut variance = 0.0;
            for band in bands.iter().filter(|band| band.mask[[y, x]] & mask::UNUSABLE == 0) {
                values.push(band.pixels[[y, x]]);
                variance += band.variance[[y, x]];
            }
            let count = values.len();
            if count < 2 {
                continue;
            }
            // Of an even number the lower one: what is odd is brighter.
            let (_, middle, _) = values.select_nth_unstable_by((count - 1) / 2, f32::total_cmp);
            median[x] = *middle;
            spread[x] = MEDIAN_VARIANCE * variance / (count * count) as f32;
        }
    });
    (median, spread)
}

/// The largest number within `radius` of each pixel along both axes; NaN counts as nothing.
fn box_maximum(image: &Array2<f32>, radius: usize) -> Array2<f32> {
    let mut result = image.mapv(|value| if value.is_nan() { 0.0 } else { value });
    for axis in [Axis(0), Axis(1)] {
        let before = result.clone();
        result.lanes_mut(axis).into_iter().zip(before.lanes(axis)).for_each(|(mut out, line)| {
            for (at, out) in out.iter_mut().enumerate() {
                let window = at.saturating_sub(radius)..(at + radius + 1).min(line.len());
                *out = window.map(|k| line[k]).fold(f32::NEG_INFINITY, f32::max);
            }
        });
    }
    result
}

struct Limits {
    median: Array2<f32>,
    /// Variance of the median.
    spread: Array2<f32>,
    brightest: Array2<f32>,
}

impl Limits {
    /// Deviation of a pixel, standard deviations beyond what the seeing explains; 0 where unknown.
    fn deviation(&self, band: &Band<'_>, at: (usize, usize)) -> f32 {
        let difference = (band.pixels[at] - self.median[at]).abs() - SEEING_PART * self.brightest[at].max(0.0);
        if difference.is_nan() || band.mask[at] & mask::UNUSABLE != 0 {
            return 0.0;
        }
        difference / (band.variance[at] + self.spread[at]).sqrt()
    }

    /// The pixels of a frame that are left out.
    fn cut(&self, band: &Band<'_>, reach: usize) -> Array2<bool> {
        let shape @ (height, width) = band.pixels.dim();
        let mut cut = Array2::from_shape_fn(shape, |at| self.deviation(band, at) > CLIP);
        let mut rim: Vec<(usize, usize)> = cut.indexed_iter().filter(|(_, cut)| **cut).map(|(at, _)| at).collect();
        for _ in 0..reach {
            let mut next = Vec::new();
            for &(y, x) in &rim {
                for v in y.saturating_sub(1)..(y + 2).min(height) {
                    for u in x.saturating_sub(1)..(x + 2).min(width) {
                        if !cut[[v, u]] && self.deviation(band, (v, u)) > CLIP_BESIDE {
                            cut[[v, u]] = true;
                            next.push((v, u));
                        }
                    }
                }
            }
            rim = next;
        }
        cut
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;
    use rand_distr::{Distribution, Normal};

    const SIDE: usize = 64;
    const NOISE: f32 = 10.0;

    fn star(image: &mut Array2<f32>, x: f64, y: f64, flux: f64, fwhm: f64) {
        let variance = (fwhm / 2.354_82_f64).powi(2);
        for ((row, column), pixel) in image.indexed_iter_mut() {
            let r2 = (column as f64 - x).powi(2) + (row as f64 - y).powi(2);
            *pixel += (flux * (-r2 / (2.0 * variance)).exp() / (2.0 * std::f64::consts::PI * variance)) as f32;
        }
    }

    /// Frames with a bright star each, of different seeing, and noise.
    fn frames(count: usize, seed: u64) -> Vec<Layer> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let normal = Normal::new(0.0, f64::from(NOISE)).unwrap();
        (0..count)
            .map(|_| {
                let mut pixels = Array2::zeros((SIDE, SIDE));
                star(&mut pixels, 20.0, 20.0, 100_000.0, rng.random_range(2.6..3.4));
                let variance = pixels.mapv(|flux: f32| NOISE * NOISE + flux);
                pixels.mapv_inplace(|flux| flux + normal.sample(&mut rng) as f32);
                Layer { pixels, variance, mask: Mask::zeros((SIDE, SIDE)) }
            })
            .collect()
    }

    fn bands(layers: &[Layer]) -> Vec<Band<'_>> {
        layers
            .iter()
            .map(|l| Band { pixels: l.pixels.view(), variance: l.variance.view(), mask: l.mask.view(), weight: 1.0 })
            .collect()
    }

    fn aperture(image: &Array2<f32>, x: usize, y: usize) -> f32 {
        image.slice(ndarray::s![y - 6..=y + 6, x - 6..=x + 6]).sum()
    }

    #[test]
    fn a_transient_in_one_frame_does_not_survive_whatever_its_brightness() {
        for (seed, flux) in [(1, 300.0), (2, 1_000.0), (3, 5_000.0), (4, 100_000.0), (5, 1e6)] {
            let clean = frames(9, seed);
            let mut layers = frames(9, seed);
            star(&mut layers[4].pixels, 45.3, 41.8, flux, 3.0);
            let spoilt = combine(&bands(&layers), 0..SIDE, 3.0);
            let truth = combine(&bands(&clean), 0..SIDE, 3.0);
            let left = aperture(&spoilt.pixels, 45, 42) - aperture(&truth.pixels, 45, 42);
            // Noise of a PSF fit on the combined image is about 3 FWHM/2 √π σ/√N.
            let sigma = NOISE / 3.0 * 3.0 * 1.5;
            assert!(left.abs() < 3.0 * sigma, "flux {flux}: {left} left of it, sigma {sigma}");
        }
    }

    #[test]
    fn stars_are_not_clipped_by_the_seeing_and_keep_their_flux() {
        let layers = frames(9, 11);
        let combined = combine(&bands(&layers), 0..SIDE, 3.0);
        let flux = aperture(&combined.pixels, 20, 20);
        assert!((flux / 100_000.0 - 1.0).abs() < 5e-3, "{flux}");
        let mean: f32 = layers.iter().map(|layer| layer.pixels[[20, 20]]).sum::<f32>() / 9.0;
        assert!((combined.pixels[[20, 20]] / mean - 1.0).abs() < 1e-4);
    }

    #[test]
    fn the_variance_is_that_of_the_weighted_mean() {
        let layers = frames(16, 3);
        let combined = combine(&bands(&layers), 0..SIDE, 3.0);
        let sky = combined.pixels.slice(ndarray::s![36.., ..]);
        let scatter = sky.mapv(|v| v * v).mean().unwrap().sqrt();
        let predicted = combined.variance.slice(ndarray::s![36.., ..]).mean().unwrap().sqrt();
        assert!((scatter / predicted - 1.0).abs() < 0.06, "{scatter} against {predicted}");
        assert!((predicted / (NOISE / 4.0) - 1.0).abs() < 0.02);
    }

    #[test]
    fn masked_pixels_are_taken_from_other_frames_and_marked_only_where_all_are_masked() {
        let mut layers = frames(5, 7);
        layers[0].mask[[50, 50]] = mask::COSMIC_RAY;
        layers[0].pixels[[50, 50]] = 1e6;
        for layer in &mut layers {
            layer.mask[[20, 20]] = mask::SATURATED;
            layer.mask[[5, 60]] = mask::NO_DATA;
        }
        let combined = combine(&bands(&layers), 0..SIDE, 3.0);
        assert!(combined.pixels[[50, 50]].abs() < 5.0 * NOISE && combined.mask[[50, 50]] == 0);
        assert_eq!(combined.mask[[20, 20]], mask::SATURATED);
        assert!(combined.pixels[[20, 20]] > 5_000.0, "the core of the star stays bright");
        assert_eq!(combined.mask[[5, 60]], mask::NO_DATA);
        assert!(combined.variance.iter().all(|v| *v > 0.0));
    }

    #[test]
    fn a_band_with_its_halo_gives_the_rows_of_the_whole() {
        let mut layers = frames(6, 9);
        star(&mut layers[2].pixels, 40.0, 30.0, 20_000.0, 3.0);
        let whole = combine(&bands(&layers), 0..SIDE, 3.0);
        let (first, last, halo) = (24, 34, halo(3.0));
        let slice = ndarray::s![first - halo..last + halo, ..];
        let cut: Vec<Band<'_>> = layers
            .iter()
            .map(|l| Band {
                pixels: l.pixels.slice(slice),
                variance: l.variance.slice(slice),
                mask: l.mask.slice(slice),
                weight: 1.0,
            })
            .collect();
        let band = combine(&cut, halo..halo + last - first, 3.0);
        assert_eq!(band.pixels, whole.pixels.slice(ndarray::s![first..last, ..]));
    }

    #[test]
    fn bad_pixels_are_filled_from_around_and_saturated_cores_stay() {
        let mut pixels = Array2::from_elem((20, 20), 7.0);
        let mut flags = Mask::zeros((20, 20));
        for y in 0..20 {
            pixels[[y, 10]] = 60_000.0;
            flags[[y, 10]] = mask::BAD;
        }
        pixels[[4, 4]] = 60_000.0;
        flags[[4, 4]] = mask::SATURATED;
        fill(&mut pixels, &flags);
        assert!((0..20).all(|y| pixels[[y, 10]] == 7.0));
        assert_eq!(pixels[[4, 4]], 60_000.0);
    }
}
