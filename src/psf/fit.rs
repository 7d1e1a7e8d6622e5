//! Fits a [`PsfModel`] to many stars at once.
//!
//! Gauss–Newton with Levenberg–Marquardt damping (each diagonal element scaled by itself: flux, position
//! and shape differ by orders of magnitude). Every star has its own flux, position and background; they
//! are eliminated from the normal equations by their Schur complement, so that the global system holds the
//! few shape parameters alone. Stars whose own width disagrees with the model's are left out
//! (galaxies, blends, cosmic rays).

use nalgebra::{DMatrix, DVector, Vector4};
use ndarray::Array2;
use rayon::prelude::*;

use super::degree::{self, ShapeForm};
use super::moffat::Moffat;
use super::normal::{Local, Share, pixel_variance, share, width_of};
use super::residual::{Residual, StarResidual, interpolate};
use super::star::refit;
use super::{Field, PsfModel, stamp_radius};

/// Widths of stars scatter by this much at least.
const LEAST_SCATTER: f64 = 0.005;
/// Stars whose width is off by more than this many robust sigmas are left out.
const WIDTH_CLIP: f64 = 4.0;
const START_BETA: f64 = 3.0;
/// Widths of stars gather within this much about their mode, before and after they may vary over the field.
const LOCUS: (f64, f64) = (0.05, 0.02);

/// A star's pixels.
#[derive(Debug, Clone)]
pub struct StarStamp {
    /// Image pixel (column, row) under the stamp's middle.
    pub middle: (usize, usize),
    /// First guess of the centre on the image, pixels.
    pub centre: (f64, f64),
    /// Electrons above the sky, `[[y, x]]`, odd side.
    pub pixels: Array2<f32>,
    /// Variance of empty sky there, electrons².
    pub sky_variance: f64,
    /// Variance an electron of source adds (1 where the gain is known).
    pub source_variance: f64,
    /// Whether a pixel may be used.
    pub good: Array2<bool>,
}

/// What the fit says of one star.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FittedStar {
    /// Centre on the image, pixels.
    pub x: f64,
    /// Centre on the image, pixels.
    pub y: f64,
    /// Flux, electrons.
    pub flux: f64,
    /// Its error.
    pub flux_err: f64,
    /// Error of a coordinate, pixels.
    pub position_err: f64,
    /// Chi² a degree of freedom within the fitted stamp.
    pub chi2: f64,
    /// Relative excess of its own width over the model's.
    pub width_excess: f64,
    /// Square of what the model leaves beyond the noise within 1.5 FWHM, over the square of the model, and the
    /// error of this by noise. Around 0 for a perfect model.
    pub misfit: (f64, f64),
    /// Whether it was one of the stars that made the model.
    pub used: bool,
}

/// A model and the stars that made it.
#[derive(Debug, Clone)]
pub struct PsfFit {
    /// The model.
    pub model: PsfModel,
    /// One entry a stamp, in the order given.
    pub stars: Vec<FittedStar>,
}

impl PsfFit {
    /// Number of stars that made the model.
    pub fn used(&self) -> usize {
        self.stars.iter().filter(|s| s.used).count()
    }

    /// What the model leaves of its own bright stars beyond the noise, rms as a fraction of the star: at least
    /// this, within two standard errors.
    pub fn misfit(&self) -> f64 {
        const BRIGHTEST: usize = 40;
        let mut stars: Vec<(f64, f64)> =
            self.stars.iter().filter(|s| s.used && s.misfit.0.is_finite()).map(|s| s.misfit).collect();
        stars.sort_by(|a, b| a.1.total_cmp(&b.1));
        stars.truncate(BRIGHTEST);
        let count = stars.len();
        if count == 0 {
            return 0.0;
        }
        let error = (stars.iter().map(|s| s.1 * s.1).sum::<f64>()).sqrt() / count as f64;
        stars.sort_by(|a, b| a.0.total_cmp(&b.0));
        (stars[count / 2].0 - 2.0 * error).max(0.0).sqrt()
    }
}

/// Fits a model to the stamps, of the degree that cross-validation chooses; `None` where fewer than two stars
/// agree.
pub fn fit(field: Field, stamps: &[StarStamp], fwhm: f64, max_degree: usize) -> Option<PsfFit> {
    let mut state = State::new(field, stamps, fwhm)?;
    state.raise(0);
    state.iterate(20);
    state.drop_odd_widths();
    // The quadratic forms of the stars hold near the present model alone: to a degree of 2 first, then higher.
    for most in [max_degree.min(2), max_degree] {
        let degree = degree::choose(&field, &state.forms(), most);
        if degree > state.degree {
            state.raise(degree);
            state.iterate(8);
            state.drop_odd_widths();
        }
    }
    state.iterate(8);
    if state.used() < 2 {
        return None;
    }
    let mut model = state.model();
    model.residual = residual_of(&model, &state);
    let stars = refit(&model, stamps, &state.used);
    Some(PsfFit { model, stars })
}

/// Shape parameters and the stars' own parameters.
struct State<'a> {
    field: Field,
    stamps: &'a [StarStamp],
    degree: usize,
    /// ln α, e1, e2 (each `Field::terms(degree)`), then β.
    shape: Vec<f64>,
    locals: Vec<Local>,
    used: Vec<bool>,
    fwhm: f64,
}

impl<'a> State<'a> {
    fn new(field: Field, stamps: &'a [StarStamp], fwhm: f64) -> Option<Self> {
        let locals = stamps
            .iter()
            .map(|s| {
                let flux: f64 = s.pixels.iter().zip(&s.good).filter(|(_, g)| **g).map(|(p, _)| f64::from(*p)).sum();
                Local { flux: flux.max(1.0), x: s.centre.0, y: s.centre.1, background: 0.0 }
            })
            .collect();
        let shape = vec![Moffat::ln_alpha_of(fwhm, START_BETA), 0.0, 0.0, START_BETA];
        (stamps.len() >= 2).then(|| Self {
            field,
            stamps,
            degree: 0,
            shape,
            locals,
            used: vec![true; stamps.len()],
            fwhm,
        })
    }

    fn used(&self) -> usize {
        self.used.iter().filter(|u| **u).count()
    }

    /// Moves to a higher degree, new coefficients 0.
    fn raise(&mut self, degree: usize) {
        let (old, new) = (Field::terms(self.degree), Field::terms(degree));
        let mut shape = vec![0.0; 3 * new + 1];
        for parameter in 0..3 {
            shape[parameter * new..parameter * new + old]
                .copy_from_slice(&self.shape[parameter * old..(parameter + 1) * old]);
        }
        shape[3 * new] = self.shape[3 * old];
        self.shape = shape;
        self.degree = degree;
    }

    fn moffat(&self, shape: &[f64], basis: &[f64]) -> Moffat {
        let n = basis.len();
        let dot = |p: usize| shape[p * n..(p + 1) * n].iter().zip(basis).map(|(c, b)| c * b).sum();
        Moffat { ln_alpha: dot(0), e1: dot(1), e2: dot(2), beta: shape[3 * n] }.bounded()
    }

    fn shares(&self, shape: &[f64], locals: &[Local]) -> Vec<Option<Share>> {
        (0..self.stamps.len())
            .into_par_iter()
            .map(|s| {
                if !self.used[s] {
                    return None;
                }
                let stamp = &self.stamps[s];
                let basis = self.field.basis(stamp.centre.0, stamp.centre.1, self.degree);
                share(&self.moffat(shape, &basis), stamp, &locals[s])
            })
            .collect()
    }

    /// What each used star says of the shape.
    fn forms(&self) -> Vec<ShapeForm> {
        let shares = self.shares(&self.shape, &self.locals);
        let form = |(share, stamp): (Option<Share>, &StarStamp)| {
            share.map(|s| ShapeForm { place: stamp.centre, hessian: s.hessian, gradient: s.gradient })
        };
        shares.into_iter().zip(self.stamps).filter_map(form).collect()
    }

    fn iterate(&mut self, most: usize) {
        let n = Field::terms(self.degree);
        let size = 3 * n + 1;
        let mut damping = 1e-3;
        let mut shares = self.shares(&self.shape, &self.locals);
        let mut chi2: f64 = shares.iter().flatten().map(|s| s.chi2).sum();
        for _ in 0..most {
            let (mut hessian, mut gradient) = (DMatrix::zeros(size, size), DVector::zeros(size));
            for (s, share) in shares.iter().enumerate() {
                let Some(share) = share else { continue };
                let stamp = &self.stamps[s];
                let basis = self.field.basis(stamp.centre.0, stamp.centre.1, self.degree);
                degree::add(&share.hessian, &share.gradient, &basis, &mut hessian, &mut gradient);
            }
            let mut damped = hessian.clone();
            for k in 0..size {
                damped[(k, k)] += damping * hessian[(k, k)] + 1e-12;
            }
            let Some(step) = damped.cholesky().map(|c| c.solve(&gradient)) else { return };
            let shape: Vec<f64> = self.shape.iter().zip(step.iter()).map(|(p, d)| p + d).collect();
            let locals: Vec<Local> = (0..self.stamps.len())
                .map(|s| match &shares[s] {
                    Some(share) => self.moved(s, share, step.as_slice()),
                    None => self.locals[s],
                })
                .collect();
            let new_shares = self.shares(&shape, &locals);
            let new_chi2: f64 = new_shares.iter().flatten().map(|s| s.chi2).sum();
            if new_chi2.is_finite() && new_chi2 < chi2 * (1.0 + 1e-9) {
                let gain = chi2 - new_chi2;
                (self.shape, self.locals, shares, chi2) = (shape, locals, new_shares, new_chi2);
                damping = (damping * 0.1).max(1e-9);
                if gain < 1e-4 * chi2 {
                    return;
                }
            } else {
                damping *= 30.0;
            }
        }
    }

    /// A star's own parameters after the shape's `step`.
    fn moved(&self, s: usize, share: &Share, step: &[f64]) -> Local {
        let stamp = &self.stamps[s];
        let basis = self.field.basis(stamp.centre.0, stamp.centre.1, self.degree);
        let n = basis.len();
        let dot = |p: usize| step[p * n..(p + 1) * n].iter().zip(&basis).map(|(d, b)| d * b).sum::<f64>();
        let own = share.own - share.coupling * Vector4::new(dot(0), dot(1), dot(2), step[3 * n]);
        let old = &self.locals[s];
        Local {
            flux: old.flux + own[0],
            x: old.x + own[1].clamp(-0.7, 0.7),
            y: old.y + own[2].clamp(-0.7, 0.7),
            background: old.background + own[3],
        }
    }

    /// Leaves out what is not as wide as the stars are, and what the fit lost. Stars are where the widths are
    /// densest: galaxies may be more, but of all widths.
    fn drop_odd_widths(&mut self) {
        let shares = self.shares(&self.shape, &self.locals);
        let widths: Vec<Option<(f64, f64)>> = shares.iter().map(|share| width_of(share.as_ref()?)).collect();
        let known: Vec<(f64, f64)> = widths.iter().flatten().copied().collect();
        if known.len() < 3 {
            return;
        }
        let locus = if self.degree == 0 { LOCUS.0 } else { LOCUS.1 };
        let density = |centre: f64| -> f64 {
            known
                .iter()
                .map(|(w, e)| {
                    let s = locus.hypot(*e);
                    (-0.5 * ((w - centre) / s).powi(2)).exp() / s
                })
                .sum()
        };
        let mode = known.iter().map(|(w, _)| (density(*w), *w)).max_by(|a, b| a.0.total_cmp(&b.0)).map_or(0.0, |m| m.1);
        let mut near: Vec<f64> = known
            .iter()
            .map(|(w, e)| ((w - mode).abs(), *e))
            .filter(|(d, e)| *d < 3.0 * locus.hypot(*e))
            .map(|d| d.0)
            .collect();
        near.sort_by(f64::total_cmp);
        let scatter = near.get(near.len() / 2).map_or(locus, |m| (1.4826 * m).clamp(LEAST_SCATTER, locus));
        for (s, width) in widths.iter().enumerate() {
            let stamp = &self.stamps[s];
            let (local, half) = (&self.locals[s], 0.5 * self.fwhm.max(2.0));
            let strayed = (local.x - stamp.centre.0).hypot(local.y - stamp.centre.1) > half;
            let odd = !width.is_some_and(|(w, e)| (w - mode).abs() <= WIDTH_CLIP * scatter.hypot(e));
            if self.used[s] && (odd || strayed || local.flux <= 0.0) {
                self.used[s] = false;
            }
        }
    }

    /// Inverse normal matrix of the field's polynomial over the stars that made the model, scaled to a mean of 1.
    fn leverage(&self) -> Option<DMatrix<f64>> {
        let terms = Field::terms(self.degree);
        let mut normal = DMatrix::<f64>::zeros(terms, terms);
        for (stamp, _) in self.stamps.iter().zip(&self.used).filter(|(_, used)| **used) {
            let basis = DVector::from_vec(self.field.basis(stamp.centre.0, stamp.centre.1, self.degree));
            normal += &basis * basis.transpose();
        }
        Some(normal.cholesky()?.inverse() * (self.used() as f64 / terms as f64))
    }

    fn model(&self) -> PsfModel {
        let n = Field::terms(self.degree);
        let mut model = PsfModel {
            field: self.field,
            degree: self.degree,
            ln_alpha: self.shape[..n].to_vec(),
            e1: self.shape[n..2 * n].to_vec(),
            e2: self.shape[2 * n..3 * n].to_vec(),
            beta: self.shape[3 * n],
            residual: None,
            radius: 0,
            leverage: self.leverage(),
        };
        model.radius = stamp_radius(model.fwhm_at(self.field.centre.0, self.field.centre.1));
        model
    }
}

fn residual_of(model: &PsfModel, state: &State<'_>) -> Option<Residual> {
    let residuals: Vec<StarResidual> = (0..state.stamps.len())
        .into_par_iter()
        .filter(|&s| state.used[s] && state.stamps[s].good.iter().all(|g| *g))
        .map(|s| centred_residual(model, &state.stamps[s], &state.locals[s]))
        .collect();
    let core = 1.5 * state.fwhm;
    Residual::fit(&state.field, &residuals, 2, core)
}

/// (data − model) / flux of a star, moved to its centre.
fn centred_residual(model: &PsfModel, stamp: &StarStamp, local: &Local) -> StarResidual {
    let moffat = model.moffat_at(stamp.centre.0, stamp.centre.1);
    let mut difference = Array2::zeros(stamp.pixels.dim());
    let half = stamp.pixels.nrows() / 2;
    let (dx, dy) = (local.x - stamp.middle.0 as f64, local.y - stamp.middle.1 as f64);
    for ((iy, ix), value) in stamp.pixels.indexed_iter() {
        let profile = moffat.value(ix as f64 - half as f64 - dx, iy as f64 - half as f64 - dy);
        difference[[iy, ix]] = ((f64::from(*value) - local.background) / local.flux - profile) as f32;
    }
    let centred = Array2::from_shape_fn(stamp.pixels.dim(), |(iy, ix)| {
        interpolate(&difference, ix as f64 - half as f64 + dx, iy as f64 - half as f64 + dy) as f32
    });
    let peak = local.flux * moffat.value(0.0, 0.0);
    let weight = local.flux * local.flux / pixel_variance(stamp, 0.5 * peak);
    StarResidual { x: stamp.centre.0, y: stamp.centre.1, weight, stamp: centred }
}
