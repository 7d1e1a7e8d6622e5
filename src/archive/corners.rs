//! The corners of a frame on the sky, from the alerts that it made.
//!
//! A packet says where its candidate is in pixels (`xpos`, `ypos`) and on the sky, and how far it is
//! from the nearest edge (`mindtoedge`). Three and more of them give the frame: the plane tangent at
//! their middle is a linear function of the pixels, and the right and upper edge are as far as the
//! farthest `xpos + mindtoedge` and `ypos + mindtoedge`. The true edge is never nearer, and is met
//! where one candidate is nearer to it than to any other.

use crate::history::Footprint;

/// A candidate: column, row (first pixel is 1), distance to the nearest edge, right ascension, declination.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pinned {
    /// Column and row.
    pub pixel: (f64, f64),
    /// Distance to the nearest edge, pixels.
    pub edge: f64,
    /// Right ascension and declination, degrees.
    pub sky: (f64, f64),
}

/// Fewest candidates that give a frame; with fewer an error of one of them would pass unseen.
const FEWEST: usize = 4;
/// Worst residual of the fit, arcsec: with more, these candidates are not of one frame.
const WORST_ARCSEC: f64 = 5.0;

/// The footprint of the frame that `candidates` are on; `None` where they do not tell.
pub fn footprint(candidates: &[Pinned]) -> Option<Footprint> {
    if candidates.len() < FEWEST {
        return None;
    }
    let middle = middle(candidates)?;
    let plane: Vec<(f64, f64)> = candidates.iter().map(|one| tangent(one.sky, middle)).collect::<Option<Vec<_>>>()?;
    let along_x = fit(candidates, |i| plane[i].0)?;
    let along_y = fit(candidates, |i| plane[i].1)?;
    let at = |(x, y): (f64, f64)| {
        (along_x[0] + along_x[1] * x + along_x[2] * y, along_y[0] + along_y[1] * x + along_y[2] * y)
    };
    for (one, place) in candidates.iter().zip(&plane) {
        let (xi, eta) = at(one.pixel);
        if (xi - place.0).hypot(eta - place.1).to_degrees() * 3600.0 > WORST_ARCSEC {
            return None;
        }
    }
    let far = |of: fn(&Pinned) -> f64| candidates.iter().map(|one| of(one) + one.edge).fold(f64::MIN, f64::max);
    // The first pixel's centre is 1; `mindtoedge` counts to the outer edge of the last pixel.
    let (right, top) = (far(|one| one.pixel.0), far(|one| one.pixel.1));
    Some(Footprint([(0.5, 0.5), (right, 0.5), (right, top), (0.5, top)].map(|corner| sky(at(corner), middle))))
}

fn unit((ra, dec): (f64, f64)) -> [f64; 3] {
    let ((sin_a, cos_a), (sin_d, cos_d)) = (ra.to_radians().sin_cos(), dec.to_radians().sin_cos());
    [cos_d * cos_a, cos_d * sin_a, sin_d]
}

/// The mean direction.
fn middle(candidates: &[Pinned]) -> Option<(f64, f64)> {
    let sum = candidates.iter().map(|one| unit(one.sky)).fold([0.0; 3], |s, v| [s[0] + v[0], s[1] + v[1], s[2] + v[2]]);
    let length = sum[0].hypot(sum[1]).hypot(sum[2]);
    let found = (sum[1].atan2(sum[0]).to_degrees(), sum[2].atan2(sum[0].hypot(sum[1])).to_degrees());
    (length > 0.0).then_some(found)
}

/// Gnomonic projection, radians (Calabretta & Greisen 2002, section 5.1.3).
fn tangent(place: (f64, f64), centre: (f64, f64)) -> Option<(f64, f64)> {
    let turn = (place.0 - centre.0).to_radians();
    let ((sin_d, cos_d), (sin_c, cos_c)) = (place.1.to_radians().sin_cos(), centre.1.to_radians().sin_cos());
    let above = sin_d * sin_c + cos_d * cos_c * turn.cos();
    (above > 0.1).then(|| (cos_d * turn.sin() / above, (sin_d * cos_c - cos_d * sin_c * turn.cos()) / above))
}

/// Back from the plane.
fn sky((xi, eta): (f64, f64), centre: (f64, f64)) -> (f64, f64) {
    let (sin_c, cos_c) = centre.1.to_radians().sin_cos();
    let below = cos_c - eta * sin_c;
    let dec = ((sin_c + eta * cos_c) / xi.hypot(below)).atan();
    ((centre.0 + xi.atan2(below).to_degrees()).rem_euclid(360.0), dec.to_degrees())
}

/// Least squares of `value` on (1, x, y); `None` where the candidates lie on a line.
fn fit(candidates: &[Pinned], value: impl Fn(usize) -> f64) -> Option<[f64; 3]> {
    let mut normal = nalgebra::Matrix3::<f64>::zeros();
    let mut right = nalgebra::Vector3::<f64>::zeros();
    // Centred and scaled pixels keep the matrix well conditioned.
    let count = candidates.len() as f64;
    let mean = |of: fn(&Pinned) -> f64| candidates.iter().map(of).sum::<f64>() / count;
    let (cx, cy, scale) = (mean(|one| one.pixel.0), mean(|one| one.pixel.1), 1000.0);
    for (i, one) in candidates.iter().enumerate() {
        let row = nalgebra::Vector3::new(1.0, (one.pixel.0 - cx) / scale, (one.pixel.1 - cy) / scale);
        normal += row * row.transpose();
        right += row * value(i);
    }
    // A frame's candidates spread over hundreds of pixels; those on a line give no second direction.
    if normal.determinant() / count.powi(3) < 1e-5 {
        return None;
    }
    let solved = normal.lu().solve(&right)?;
    let (a, b) = (solved[1] / scale, solved[2] / scale);
    Some([solved[0] - a * cx - b * cy, a, b])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_found_again_from_candidates_on_it_and_not_from_those_on_a_line() {
        let wcs = crate::wcs::Wcs::tan([1500.0, 1500.0], [359.9, 62.0], [[-2.8e-4, 1e-6], [1e-6, 2.8e-4]]).unwrap();
        let (width, height) = (3072.0, 3080.0);
        let pinned = |x: f64, y: f64| Pinned {
            pixel: (x + 1.0, y + 1.0),
            edge: (x + 0.5).min(y + 0.5).min(width - 0.5 - x).min(height - 0.5 - y),
            sky: wcs.pixel_to_sky(x, y),
        };
        let spread: Vec<Pinned> =
            (0..40).map(|i| pinned(f64::from(i * 797 % 3000) + 20.0, f64::from(i * 1231 % 3000) + 30.0)).collect();
        let found = footprint(&spread).unwrap().0;
        let (w, h) = (width - 0.5, height - 0.5);
        for (corner, (x, y)) in found.iter().zip([(-0.5, -0.5), (w, -0.5), (w, h), (-0.5, h)]) {
            let away = crate::wcs::separation(*corner, wcs.pixel_to_sky(x, y)) * 3600.0;
            assert!(away < 0.01, "{away}");
        }
        let line: Vec<Pinned> = (0..40).map(|i| pinned(100.0 + f64::from(i), 200.0 + f64::from(i))).collect();
        assert_eq!(footprint(&line), None);
        let mut two_frames = spread;
        two_frames[3].sky.1 += 0.3;
        assert_eq!(footprint(&two_frames), None);
    }
}
