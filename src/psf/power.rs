//! Logarithm, exponential and cosine of several numbers side by side.
//!
//! A Moffat profile is a power of its radius at each of a hundred thousand pixels an exposure; the C
//! library's functions take one number at a time, and were a fifth of the time of an exposure. These loops
//! have no branches and no calls, so that the compiler turns them into vector instructions wherever they
//! are inlined. Their errors are some units in the last place of a double.
#![allow(clippy::needless_range_loop, reason = "the compiler makes vector instructions of loops over lanes")]

/// Numbers that are worked on side by side.
pub(super) const LANES: usize = 8;
/// That many numbers.
pub(super) type Lanes = [f64; LANES];

/// `a * b + c`, in one instruction where `FMA` says that the caller is compiled for a processor that has it.
#[inline(always)]
pub(super) fn multiply_add<const FMA: bool>(a: f64, b: f64, c: f64) -> f64 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

/// Added to a small number it leaves the nearest integer in the low bits of the sum.
const TO_INTEGER: f64 = 6_755_399_441_055_744.0;
/// ln 2 in two parts, the first with zeros in its low bits (fdlibm, `e_log.c`).
const LN_2: [f64; 2] = [6.931_471_803_691_238e-1, 1.908_214_929_270_587_7e-10];

/// Natural logarithm of numbers from 1 to the largest double (the method of fdlibm, `e_log.c`).
#[inline(always)]
pub(super) fn ln<const FMA: bool>(x: &Lanes) -> Lanes {
    const P: [f64; 7] = [
        6.666_666_666_666_735e-1,
        3.999_999_999_940_942e-1,
        2.857_142_874_366_239e-1,
        2.222_219_843_214_978_4e-1,
        1.818_357_216_161_805e-1,
        1.531_383_769_920_937_3e-1,
        1.479_819_860_511_658_6e-1,
    ];
    /// The number whose low bits are an integer when these bits are its high ones.
    const INTEGER: u64 = 0x4330_0000_0000_0000;
    let mut out = [0.0; LANES];
    for lane in 0..LANES {
        let bits = x[lane].to_bits();
        let mantissa = f64::from_bits(bits & 0x000f_ffff_ffff_ffff | 0x3ff0_0000_0000_0000);
        let exponent = f64::from_bits(bits >> 52 | INTEGER) - (f64::from_bits(INTEGER) + 1023.0);
        let large = mantissa > std::f64::consts::SQRT_2;
        let (mantissa, k) =
            (if large { 0.5 * mantissa } else { mantissa }, if large { exponent + 1.0 } else { exponent });
        let f = mantissa - 1.0;
        let s = f / (2.0 + f);
        let z = s * s;
        let mut r = P[6];
        for p in P[..6].iter().rev() {
            r = multiply_add::<FMA>(r, z, *p);
        }
        let half = 0.5 * f * f;
        let small = multiply_add::<FMA>(s, multiply_add::<FMA>(r, z, half), k * LN_2[1]);
        out[lane] = multiply_add::<FMA>(k, LN_2[0], f - (half - small));
    }
    out
}

/// Exponential of numbers up to 700; of those below −700 that of −700, which is next to nothing.
#[inline(always)]
pub(super) fn exp<const FMA: bool>(x: &Lanes) -> Lanes {
    let mut out = [0.0; LANES];
    for lane in 0..LANES {
        let x = x[lane].max(-700.0);
        let shifted = x * std::f64::consts::LOG2_E + TO_INTEGER;
        let n = shifted - TO_INTEGER;
        let r = multiply_add::<FMA>(-n, LN_2[1], multiply_add::<FMA>(-n, LN_2[0], x));
        // Taylor's series: with |r| below 0.35 the first term left out is 2·10⁻¹⁶.
        let mut sum = 1.0 / 479_001_600.0;
        for p in [39_916_800.0, 3_628_800.0, 362_880.0, 40_320.0, 5_040.0, 720.0, 120.0, 24.0, 6.0, 2.0, 1.0, 1.0] {
            sum = multiply_add::<FMA>(sum, r, 1.0 / p);
        }
        out[lane] = sum * f64::from_bits(shifted.to_bits().wrapping_add(1023) << 52);
    }
    out
}

/// `½ (1 + cos π t)` with `t` drawn in to 0…1: falls from 1 to 0.
#[inline(always)]
pub(super) fn half_cosine<const FMA: bool>(t: &Lanes) -> Lanes {
    let mut out = [0.0; LANES];
    for lane in 0..LANES {
        // −sin of π (t − ½), by its series to the 19th power: the next term is 3·10⁻¹⁶.
        let x = std::f64::consts::PI * (t[lane].clamp(0.0, 1.0) - 0.5);
        let z = x * x;
        let mut sum = 1.0;
        for k in [342.0, 272.0, 210.0, 156.0, 110.0, 72.0, 42.0, 20.0, 6.0] {
            sum = multiply_add::<FMA>(sum * z, -1.0 / k, 1.0);
        }
        out[lane] = 0.5 * (1.0 - x * sum);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Largest deviation over many numbers from `low` to `high`, relative where the value is above 1.
    fn worst(low: f64, high: f64, ours: impl Fn(&Lanes) -> Lanes, theirs: impl Fn(f64) -> f64) -> f64 {
        let number = |i: usize| low + (high - low) * (i as f64 / 80_000.0).powi(3);
        let many = (0..10_000).map(|chunk| {
            let x: Lanes = std::array::from_fn(|lane| number(chunk * LANES + lane));
            let found = ours(&x);
            (0..LANES).map(|i| (found[i] - theirs(x[i])).abs() / theirs(x[i]).abs().max(1.0)).fold(0.0, f64::max)
        });
        many.fold(0.0, f64::max)
    }

    #[test]
    fn logarithm_exponential_and_cosine_are_those_of_the_c_library() {
        assert!(worst(1.0, 1e6, ln::<false>, f64::ln) < 1e-15);
        assert!(worst(1.0, 1.01, ln::<false>, f64::ln) < 1e-15);
        assert!(worst(0.0, -690.0, exp::<false>, f64::exp) < 1e-15);
        assert!(worst(0.0, 40.0, exp::<false>, f64::exp) < 1e-15);
        let taper = |t: f64| 0.5 * (1.0 + (std::f64::consts::PI * t).cos());
        assert!(worst(0.0, 1.0, half_cosine::<false>, taper) < 1e-15);
        assert_eq!(half_cosine::<false>(&[-3.0; LANES])[0], 1.0);
        assert!(half_cosine::<false>(&[7.0; LANES])[0].abs() < 1e-15);
    }

    #[test]
    fn small_exponentials_keep_their_digits() {
        for x in [-1.0, -30.0, -300.0, -650.0] {
            let found = exp::<false>(&[x; LANES])[0];
            assert!((found / x.exp() - 1.0).abs() < 1e-14, "{x}");
        }
        assert!(exp::<false>(&[f64::MIN; LANES])[0] < 1e-300);
    }
}
