//! The distortion polynomials of the SIP and TPV conventions.

/// One term of a polynomial in (u, v, r): coefficient and powers.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Term {
    coefficient: f64,
    u: u8,
    v: u8,
    r: u8,
}

/// A term of a SIP polynomial: powers p and q of u and v, and its coefficient.
pub(super) type SipTerm = (u8, u8, f64);

/// Highest power of a coordinate in either convention.
const MAX_POWER: usize = 9;

fn powers(x: f64) -> [f64; MAX_POWER + 1] {
    let mut all = [1.0; MAX_POWER + 1];
    for k in 1..=MAX_POWER {
        all[k] = all[k - 1] * x;
    }
    all
}

fn sum(terms: &[Term], u: f64, v: f64) -> f64 {
    let (pu, pv) = (powers(u), powers(v));
    let radial = |power: u8| if power == 0 { 1.0 } else { u.hypot(v).powi(i32::from(power)) };
    terms.iter().map(|t| t.coefficient * pu[usize::from(t.u)] * pv[usize::from(t.v)] * radial(t.r)).sum()
}

/// SIP (Shupe et al. 2005): u' = u + Σ `A_p_q` uᵖ vᵠ, v' = v + Σ `B_p_q` uᵖ vᵠ, in pixels.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Sip {
    a: Vec<Term>,
    b: Vec<Term>,
}

impl Sip {
    /// Highest order that the convention allows.
    pub(super) const MAX_ORDER: u8 = MAX_POWER as u8;

    /// From terms (p, q, coefficient) of A and B.
    pub(super) fn new(a: &[SipTerm], b: &[SipTerm]) -> Self {
        let terms = |list: &[SipTerm]| {
            list.iter()
                .filter(|(p, q, coefficient)| *coefficient != 0.0 && p + q <= Self::MAX_ORDER)
                .map(|&(u, v, coefficient)| Term { coefficient, u, v, r: 0 })
                .collect()
        };
        Self { a: terms(a), b: terms(b) }
    }

    pub(super) fn apply(&self, u: f64, v: f64) -> (f64, f64) {
        (u + sum(&self.a, u, v), v + sum(&self.b, u, v))
    }

    /// Order and terms (p, q, coefficient) of A and B, for a header.
    pub(super) fn terms(&self) -> (u8, [Vec<SipTerm>; 2]) {
        let list = |terms: &[Term]| terms.iter().map(|t| (t.u, t.v, t.coefficient)).collect::<Vec<_>>();
        let order = self.a.iter().chain(&self.b).map(|t| t.u + t.v).max().unwrap_or(0);
        (order, [list(&self.a), list(&self.b)])
    }
}

/// TPV (FITS registry): ξ' = Σ `PV1_m` · term m of (ξ, η), η' = Σ `PV2_m` · term m of (η, ξ), in degrees.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Tpv {
    pv: Box<[[f64; Self::TERMS]; 2]>,
    xi: Vec<Term>,
    eta: Vec<Term>,
}

impl Tpv {
    /// Number of coefficients of an axis.
    pub(super) const TERMS: usize = 40;

    /// From `PV1_0` to `PV1_39` and `PV2_0` to `PV2_39`.
    pub(super) fn new(pv: [[f64; Self::TERMS]; 2]) -> Self {
        let used = |coefficients: &[f64; Self::TERMS], swap: bool| {
            Self::powers()
                .zip(coefficients)
                .filter(|(_, coefficient)| **coefficient != 0.0)
                .map(|((first, second, r), &coefficient)| {
                    let (u, v) = if swap { (second, first) } else { (first, second) };
                    Term { coefficient, u, v, r }
                })
                .collect()
        };
        Self { xi: used(&pv[0], false), eta: used(&pv[1], true), pv: Box::new(pv) }
    }

    /// Powers (first coordinate, second coordinate, radius) of each term in the convention's order:
    /// the terms of degree d by falling power of the first, then, for odd d, the radius to the d.
    fn powers() -> impl Iterator<Item = (u8, u8, u8)> {
        (0_u8..=7).flat_map(|degree| {
            let radial = (degree % 2 == 1).then_some((0, 0, degree));
            (0..=degree).map(move |second| (degree - second, second, 0)).chain(radial)
        })
    }

    pub(super) fn apply(&self, xi: f64, eta: f64) -> (f64, f64) {
        (sum(&self.xi, xi, eta), sum(&self.eta, xi, eta))
    }

    /// The coefficients as a header holds them: `PV1_m` and `PV2_m`.
    pub(super) fn coefficients(&self) -> &[[f64; Self::TERMS]; 2] {
        &self.pv
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_forty_terms_stand_in_the_order_of_the_registry() {
        let all: Vec<_> = Tpv::powers().collect();
        assert_eq!(all.len(), Tpv::TERMS);
        for (m, powers) in
            [(0, (0, 0, 0)), (3, (0, 0, 1)), (6, (0, 2, 0)), (8, (2, 1, 0)), (11, (0, 0, 3)), (23, (0, 0, 5))]
        {
            assert_eq!(all[m], powers);
        }
        assert_eq!(all[38], (0, 7, 0));
        assert_eq!(all[39], (0, 0, 7));
    }
}
