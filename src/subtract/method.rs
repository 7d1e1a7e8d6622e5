//! Which way the kernels of the subtraction are made, and when the fitted kernel takes over.

use super::SubtractError;
use crate::register::Registration;

/// What the operator asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Method {
    /// The proper subtraction where the PSFs can be trusted, else the fitted kernel.
    #[default]
    Auto,
    /// The proper subtraction, whatever the PSFs are like.
    Zogy,
    /// The fitted kernel.
    KernelFit,
}

/// What was used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chosen {
    /// The proper subtraction with kernels from both PSFs.
    Zogy,
    /// A matching kernel fitted to the images.
    KernelFit,
}

impl Chosen {
    /// The value of `DIFFMETH`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Zogy => "zogy",
            Self::KernelFit => "kernel-fit",
        }
    }

    /// Where the method is published.
    pub fn source(self) -> &'static str {
        match self {
            Self::Zogy => "Zackay, Ofek & Gal-Yam 2016",
            Self::KernelFit => "Alard 2000, Bramich 2008, Reiss & Lupton DMTN-021",
        }
    }
}

/// Fewer PSF stars than this in either frame are not trusted.
pub const LEAST_PSF_STARS: usize = 5;
/// A PSF that leaves more of its own stars than this fraction is not trusted.
pub const WORST_MISFIT: f64 = 0.06;
/// Fewer stars than this that agree on the flux ratio do not give one.
pub const LEAST_RATIO_STARS: usize = 3;

/// The method, and what the operator should know of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Choice {
    /// What is used.
    pub chosen: Chosen,
    /// Why the fitted kernel took over.
    pub warning: Option<String>,
}

/// The rule: the fitted kernel takes over where fewer than [`LEAST_PSF_STARS`] stars made the PSF of either frame,
/// where either PSF leaves more than [`WORST_MISFIT`] of its own stars, and where fewer than [`LEAST_RATIO_STARS`]
/// stars agree on the flux ratio. Without a PSF or a flux ratio there is nothing else; otherwise a fit that predicts
/// stamps badly ([`WORST_UNSEEN`](super::kernel_fit::WORST_UNSEEN)) gives way to the proper subtraction again.
///
/// False alerts and flux bias of the proper subtraction and of the fitted kernel on scenes of 1536×1536:
///
/// | scene | misfit | proper | fitted |
/// | --- | --- | --- | --- |
/// | every star double (a jump of the telescope) | 8.6 % | 429, +66 % | 15, +0.1 % |
/// | 60 stars among galaxies, 3072×3080 | 6.7 % | 11, +0.7 % | 7, +0.4 % |
/// | 20 stars among galaxies that pass for stars | 22 % | 2, −0.2 % | 2, +0.1 % |
/// | width that varies by 12 % with a period of 700 px | 5.0 % | 8, −0.3 % | 10, −0.4 % |
/// | 15 % broader in one half than in the other | 2.7 % | 2, +0.8 % | 6, +0.6 % |
/// | 15,000 stars | 0.3 % | 1, 0.0 % | 11, 0.0 % |
///
/// Stars that are double in a direction that turns over the field (misfit 8.4 %) are beyond either: 60 false alerts and
/// 0.51 of the changes above S/N 20, 34 and 0.09; the fit's chi² of 4.7 gives them back to the proper subtraction.
///
/// On the five DECam pairs (5 to 9 PSF stars) the brightening has S/N 9.3–11.3 and 9.7–12.6, with 0–1 and 0–2 other
/// candidates: few stars that fit are enough.
pub fn choose(method: Method, registration: &Registration) -> Choice {
    let stars = registration.psf_stars.0.min(registration.psf_stars.1);
    let misfit = registration.psf_misfit.0.max(registration.psf_misfit.1);
    rule(method, stars, misfit, registration.flux_ratio_stars)
}

fn rule(method: Method, stars: usize, misfit: f64, ratio_stars: usize) -> Choice {
    let taken = |warning| Choice { chosen: Chosen::KernelFit, warning };
    match method {
        Method::Zogy => Choice { chosen: Chosen::Zogy, warning: None },
        Method::KernelFit => taken(None),
        Method::Auto if stars < LEAST_PSF_STARS => taken(Some(format!(
            "only {stars} stars for a point-spread function, {LEAST_PSF_STARS} are needed: a fitted kernel took over"
        ))),
        Method::Auto if misfit > WORST_MISFIT => taken(Some(format!(
            "the point-spread function leaves {:.1} % of its own stars, {:.1} % are allowed: a fitted kernel took over; \
             look for trailed or doubled stars",
            100.0 * misfit,
            100.0 * WORST_MISFIT
        ))),
        Method::Auto if ratio_stars < LEAST_RATIO_STARS => taken(Some(format!(
            "fewer than {LEAST_RATIO_STARS} stars agree on the flux ratio to the reference: a fitted kernel took over; \
             look for clouds or a reference of another filter"
        ))),
        Method::Auto => Choice { chosen: Chosen::Zogy, warning: None },
    }
}

impl Choice {
    /// Turns to the proper subtraction where no kernel could be fitted, if there is a PSF at all and the operator
    /// did not ask for the kernel.
    pub(super) fn fall_back(&mut self, method: Method, registration: &Registration) -> Result<(), SubtractError> {
        let stars = registration.psf_stars.0.min(registration.psf_stars.1);
        let forced = method == Method::KernelFit;
        let without = stars == 0 || registration.flux_ratio_stars < LEAST_RATIO_STARS;
        if without || (forced && self.chosen == Chosen::KernelFit) {
            return Err(SubtractError::NoKernel { objects: registration.matched.len() });
        }
        if self.chosen == Chosen::KernelFit {
            self.chosen = Chosen::Zogy;
            self.warning = Some(format!(
                "neither the point-spread functions ({stars} stars at least) nor a fitted kernel describe the stars of \
                 both images; look at the difference image before trusting its alerts"
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_stars_or_a_poor_model_call_for_the_fitted_kernel_and_a_setting_overrules_it() {
        let chosen = |method, stars, misfit| rule(method, stars, misfit, 30).chosen;
        assert_eq!(chosen(Method::Auto, LEAST_PSF_STARS, 0.5 * WORST_MISFIT), Chosen::Zogy);
        assert_eq!(chosen(Method::Auto, LEAST_PSF_STARS - 1, 0.0), Chosen::KernelFit);
        assert_eq!(chosen(Method::Auto, 100, 1.01 * WORST_MISFIT), Chosen::KernelFit);
        assert_eq!(chosen(Method::Zogy, 2, 0.5), Chosen::Zogy);
        assert_eq!(chosen(Method::KernelFit, 100, 0.0), Chosen::KernelFit);
        assert!(rule(Method::Auto, 2, 0.0, 30).warning.is_some_and(|w| w.contains("only 2 stars")));
        assert_eq!(rule(Method::Auto, 9, 0.0, 2).chosen, Chosen::KernelFit);
        assert!(rule(Method::Auto, 9, 0.0, 3).warning.is_none());
    }
}
