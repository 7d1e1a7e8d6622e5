//! The measured values of a detection as the database keeps them: 4-byte floats in a fixed order.
//!
//! Twenty million detections a month are the reason: as columns the same numbers take 8 bytes each
//! and a page of the database holds half as many rows.

use super::PriorEpoch;

/// Lists the values once, for both directions.
macro_rules! measured {
    ($($field:ident),* $(,)?) => {
        /// The values of `epoch`, little-endian, NaN where absent.
        pub(super) fn to_bytes(epoch: &PriorEpoch) -> Vec<u8> {
            let values = [$(epoch.$field),*];
            values.iter().flat_map(|value| value.unwrap_or(f32::NAN).to_le_bytes()).chain(
                epoch.scorr.unwrap_or(f64::NAN).to_le_bytes()).collect()
        }

        /// Puts the values of `bytes` into `epoch`; values that an older version did not keep stay
        /// absent.
        pub(super) fn fill(epoch: &mut PriorEpoch, bytes: &[u8]) {
            let mut rest = bytes;
            $(epoch.$field = take::<4>(&mut rest).map(f32::from_le_bytes).filter(|x| x.is_finite());)*
            epoch.scorr = take::<8>(&mut rest).map(f64::from_le_bytes).filter(|x| x.is_finite());
        }
    };
}

measured!(
    xpos,
    ypos,
    chipsf,
    magap,
    sigmagap,
    distnr,
    magnr,
    sigmagnr,
    chinr,
    sharpnr,
    sky,
    magdiff,
    fwhm,
    classtar,
    mindtoedge,
    magfromlim,
    seeratio,
    aimage,
    bimage,
    aimagerat,
    bimagerat,
    elong,
    rb,
    ssdistnr,
    ssmagnr,
    sumrat,
    magapbig,
    sigmagapbig,
);

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = rest.split_first_chunk::<N>()?;
    *rest = tail;
    Some(*head)
}
