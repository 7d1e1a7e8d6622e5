//! What one star adds to the normal equations of the PSF's shape, its own parameters eliminated.

use multiversion::multiversion;
use multiversion::target::target_cfg_f;
use nalgebra::{Matrix4, Vector4};

use super::fit::StarStamp;
use super::moffat::{Form, Moffat, rising};
use super::power::{LANES, Lanes, multiply_add};

/// Errors of the model itself, as a fraction of its value, added to the noise.
const MODEL_ERROR: f64 = 0.003;
/// How far a star's own background may lie from the sky, standard deviations of a sky pixel: left free it takes the
/// wings of the star (2 % of the flux with a halo of twice the width).
const BACKGROUND: f64 = 0.1;

#[derive(Debug, Clone, Copy)]
pub(super) struct Local {
    pub(super) flux: f64,
    pub(super) x: f64,
    pub(super) y: f64,
    pub(super) background: f64,
}

/// A star's share of the normal equations.
pub(super) struct Share {
    pub(super) chi2: f64,
    /// Reduced by the star's own parameters: ln α, e1, e2, β.
    pub(super) hessian: Matrix4<f64>,
    pub(super) gradient: Vector4<f64>,
    /// The star's own step for a step of its shape: `own − coupling · shape`.
    pub(super) own: Vector4<f64>,
    pub(super) coupling: Matrix4<f64>,
}

/// Variance of a pixel that holds `model` electrons of a star.
#[inline(always)]
pub(super) fn pixel_variance(stamp: &StarStamp, model: f64) -> f64 {
    let source = model.max(0.0);
    stamp.sky_variance + stamp.source_variance * source + (MODEL_ERROR * source).powi(2)
}

/// Columns of the design: ln α, e1, e2, β, then flux, x, y, background.
const COLUMNS: usize = 8;

/// Weighted sums over a star's pixels, side by side.
struct Sums {
    chi2: Lanes,
    gradient: [Lanes; COLUMNS],
    /// Upper triangle of the normal matrix, row by row.
    normal: [Lanes; COLUMNS * (COLUMNS + 1) / 2],
}

/// The sums of a star's usable pixels under a profile.
#[multiversion(targets("x86_64+avx2+fma", "aarch64+neon"))]
fn sums(form: &Form, stamp: &StarStamp, local: &Local) -> Sums {
    sums_of_lanes::<{ target_cfg_f!(target_feature = "fma") }>(form, stamp, local)
}

#[inline(always)]
#[allow(clippy::needless_range_loop, reason = "the compiler makes vector instructions of loops over lanes")]
fn sums_of_lanes<const FMA: bool>(form: &Form, stamp: &StarStamp, local: &Local) -> Sums {
    let zero = [0.0; LANES];
    let mut sums = Sums { chi2: zero, gradient: [zero; COLUMNS], normal: [zero; COLUMNS * (COLUMNS + 1) / 2] };
    let side = stamp.pixels.ncols();
    let half = (stamp.pixels.nrows() / 2) as f64;
    let (ox, oy) = (stamp.middle.0 as f64 - half - local.x, stamp.middle.1 as f64 - half - local.y);
    let (Some(pixels), Some(good)) = (stamp.pixels.as_slice(), stamp.good.as_slice()) else { return sums };
    for (iy, (pixels, good)) in pixels.chunks_exact(side).zip(good.chunks_exact(side)).enumerate() {
        for (chunk, (pixels, good)) in pixels.chunks(LANES).zip(good.chunks(LANES)).enumerate() {
            let d = form.lane_derivatives::<FMA>(&rising(ox + (chunk * LANES) as f64), oy + iy as f64);
            let (mut values, mut used) = (zero, zero);
            for lane in 0..pixels.len() {
                (values[lane], used[lane]) = (f64::from(pixels[lane]), f64::from(u8::from(good[lane])));
            }
            let (mut columns, mut weights, mut differences) = ([zero; COLUMNS], zero, zero);
            for i in 0..LANES {
                let model = local.flux * d.value[i];
                weights[i] = used[i] / pixel_variance(stamp, model);
                differences[i] = values[i] - model - local.background;
                sums.chi2[i] += weights[i] * differences[i] * differences[i];
                columns[4][i] = d.value[i];
                columns[7][i] = 1.0;
            }
            for (column, slope) in [0, 1, 2, 3, 5, 6].into_iter().zip(&d.slopes) {
                for i in 0..LANES {
                    columns[column][i] = local.flux * slope[i];
                }
            }
            let mut place = 0;
            for k in 0..COLUMNS {
                let mut weighted = columns[k];
                for i in 0..LANES {
                    weighted[i] *= weights[i];
                    sums.gradient[k][i] = multiply_add::<FMA>(weighted[i], differences[i], sums.gradient[k][i]);
                }
                for l in k..COLUMNS {
                    for i in 0..LANES {
                        let sum = &mut sums.normal[place][i];
                        *sum = multiply_add::<FMA>(weighted[i], columns[l][i], *sum);
                    }
                    place += 1;
                }
            }
        }
    }
    sums
}

pub(super) fn share(moffat: &Moffat, stamp: &StarStamp, local: &Local) -> Option<Share> {
    let sums = sums(&moffat.form(), stamp, local);
    let total = |lanes: &Lanes| lanes.iter().sum::<f64>();
    let normal = |k: usize, l: usize| {
        let (k, l) = (k.min(l), k.max(l));
        total(&sums.normal[k * (2 * COLUMNS + 1 - k) / 2 + l - k])
    };
    let ss = Matrix4::from_fn(&normal);
    let sl = Matrix4::from_fn(|k, l| normal(4 + k, l));
    let mut ll = Matrix4::from_fn(|k, l| normal(4 + k, 4 + l));
    let gs = Vector4::from_fn(|k, _| total(&sums.gradient[k]));
    let mut gl = Vector4::from_fn(|k, _| total(&sums.gradient[4 + k]));
    let known = background_weight(stamp);
    ll[(3, 3)] += known;
    gl[3] -= known * local.background;
    let inverse = ll.try_inverse()?;
    let coupling = inverse * sl;
    Some(Share {
        chi2: total(&sums.chi2) + known * local.background * local.background,
        hessian: ss - sl.transpose() * coupling,
        gradient: gs - coupling.transpose() * gl,
        own: inverse * gl,
        coupling,
    })
}

/// By how much a star is wider than the model, as a part of the width, and the error of that.
pub(super) fn width_of(share: &Share) -> Option<(f64, f64)> {
    let curvature = share.hessian[(0, 0)];
    let width = (share.gradient[0] / curvature, curvature.powf(-0.5));
    (curvature > 0.0 && width.0.is_finite()).then_some(width)
}

/// Weight of the knowledge that a star's background is the sky's.
pub(super) fn background_weight(stamp: &StarStamp) -> f64 {
    1.0 / (BACKGROUND * BACKGROUND * stamp.sky_variance)
}
