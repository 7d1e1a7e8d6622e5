//! How dark current depends on temperature.

/// Boltzmann's constant, eV/K.
const BOLTZMANN: f64 = 8.617_333e-5;

/// Dark current at `now_c` over that at `then_c`, both Celsius: ∝ T^1.5 exp(−Eg / 2kT) with the band
/// gap of silicon Eg = 1.1557 − 7.021e-4 T² / (1108 + T) eV (Janesick 2001, Scientific Charge-Coupled
/// Devices, eq. 7.27). About a factor of two in 8 K near 0 °C.
pub(super) fn ratio(now_c: f64, then_c: f64) -> f64 {
    let current = |celsius: f64| {
        let kelvin = celsius + 273.15;
        let gap = 1.1557 - 7.021e-4 * kelvin * kelvin / (1108.0 + kelvin);
        kelvin.powf(1.5) * (-gap / (2.0 * BOLTZMANN * kelvin)).exp()
    };
    let ratio = current(now_c) / current(then_c);
    if ratio.is_finite() && ratio > 0.0 { ratio } else { 1.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dark_current_doubles_every_eight_kelvin_near_freezing() {
        assert!((ratio(8.0, 0.0) - 2.1).abs() < 0.15, "{}", ratio(8.0, 0.0));
        assert_eq!(ratio(-20.0, -20.0), 1.0);
    }
}
