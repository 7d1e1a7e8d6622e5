//! Photometry and astrometry of single stars with a model held fixed.

use nalgebra::{Matrix4, Vector4};
use rayon::prelude::*;

use super::fit::{FittedStar, StarStamp};
use super::normal::{background_weight, pixel_variance};
use super::{LocalPsf, PsfModel};

/// Gauss-Newton steps; the centroids that they start from are good to a tenth of a pixel.
const STEPS: usize = 4;
/// The misfit of the model is measured within this many FWHM.
const CORE: f64 = 1.5;

/// Fits flux, position and background of each stamp with the model held fixed.
pub fn refit(model: &PsfModel, stamps: &[StarStamp], used: &[bool]) -> Vec<FittedStar> {
    stamps
        .par_iter()
        .zip(used)
        .map(|(stamp, &used)| {
            let psf = model.local(stamp.centre.0, stamp.centre.1);
            let mut star = fit_star(&psf, stamp);
            star.used = used;
            star
        })
        .collect()
}

/// Flux, position and background of one star with a fixed profile, by Gauss–Newton steps.
fn fit_star(psf: &LocalPsf, stamp: &StarStamp) -> FittedStar {
    let half = stamp.pixels.nrows() / 2;
    let (mut flux, mut x, mut y, mut background) = (1.0, stamp.centre.0, stamp.centre.1, 0.0);
    let (mut covariance, mut chi2, mut count, mut width) = (Matrix4::<f64>::zeros(), 0.0, 0usize, 0.0);
    let (core, mut misfit) = (CORE * psf.moffat.fwhm(), (0.0, 0.0));
    for step in 0..STEPS {
        let (dx, dy) = (x - stamp.middle.0 as f64, y - stamp.middle.1 as f64);
        let [centre, by_x, by_y] = psf.stamp_and_slopes(dx, dy, half);
        let (mut normal, mut gradient) = (Matrix4::<f64>::zeros(), Vector4::<f64>::zeros());
        (chi2, count) = (0.0, 0);
        let (mut width_gradient, mut width_curvature) = (0.0, 0.0);
        let (mut excess, mut noise, mut power) = (0.0, 0.0, 0.0);
        for ((iy, ix), value) in stamp.pixels.indexed_iter() {
            if !stamp.good[[iy, ix]] {
                continue;
            }
            let profile = f64::from(centre[[iy, ix]]);
            let model = flux * profile;
            let weight = 1.0 / pixel_variance(stamp, model);
            let slopes = (f64::from(by_x[[iy, ix]]), f64::from(by_y[[iy, ix]]));
            let j = Vector4::new(profile, flux * slopes.0, flux * slopes.1, 1.0);
            let difference = f64::from(*value) - model - background;
            normal += j * j.transpose() * weight;
            gradient += j * (weight * difference);
            chi2 += weight * difference * difference;
            count += 1;
            let (u, v) = (ix as f64 - half as f64 - dx, iy as f64 - half as f64 - dy);
            if u * u + v * v < core * core {
                let photons = stamp.sky_variance + stamp.source_variance * model.max(0.0);
                excess += difference * difference - photons;
                noise += 2.0 * photons * photons;
                power += model * model;
            }
            // d/dlnα of a profile that keeps its flux is −(2 + r·∇).
            let by_width = flux * (-2.0 * profile + u * slopes.0 + v * slopes.1);
            width_gradient += weight * by_width * difference;
            width_curvature += weight * by_width * by_width;
        }
        let known = background_weight(stamp);
        normal[(3, 3)] += known;
        gradient[3] -= known * background;
        misfit = (excess / power, noise.sqrt() / power);
        if step == 0 {
            // The flux is linear: start from it, the position follows.
            normal[(1, 1)] += 1e-9;
            normal[(2, 2)] += 1e-9;
        }
        let Some(inverse) = normal.try_inverse() else { break };
        let move_by = inverse * gradient;
        covariance = inverse;
        width = if width_curvature > 0.0 { width_gradient / width_curvature } else { 0.0 };
        flux += move_by[0];
        background += move_by[3];
        if step > 0 {
            x += move_by[1].clamp(-0.5, 0.5);
            y += move_by[2].clamp(-0.5, 0.5);
        }
    }
    FittedStar {
        x,
        y,
        flux,
        flux_err: covariance[(0, 0)].max(0.0).sqrt(),
        position_err: (0.5 * (covariance[(1, 1)] + covariance[(2, 2)])).max(0.0).sqrt(),
        chi2: chi2 / (count as f64 - 4.0).max(1.0),
        width_excess: width,
        misfit,
        used: false,
    }
}
