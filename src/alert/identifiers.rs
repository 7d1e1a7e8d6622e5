//! Numbers of exposures and alerts: functions of the exposure, never of the run.
//!
//! ```text
//! candid   2475 43385 00 15  015 000
//!          nid  day   rc     sign and running number by position
//!          └──── pid ────┘
//! ```
//!
//! Nineteen digits, which an `i64` holds until night 9223 (the year 2042).

use crate::exposure::Exposure;
use crate::time::Mjd;

/// Most alerts of one sign that one exposure can number.
pub const MOST_ALERTS_A_SIGN: usize = 98 * BLOCK;
/// Running numbers before the next block.
const BLOCK: usize = 5_000;

/// `pid`: the number of the exposure on readout channel `rcid` (0 to 99).
///
/// Night (4 digits), the first five decimals of the day fraction of `jd` (truncated), readout
/// channel (2 digits), and 15, which in ZTF says "difference image".
pub fn processing_id(exposure: &Exposure, rcid: u8) -> i64 {
    let night = i64::from(exposure.night.nid());
    ((night * 100_000 + day_fraction(exposure.start)) * 100 + i64::from(rcid % 100)) * 100 + 15
}

/// The first five decimals of the day fraction, in units of 0.864 s.
fn day_fraction(time: Mjd) -> i64 {
    // A header's date has decimal seconds; five microseconds keep 0.999… from being cut to 0.
    let milliseconds = (time.0.rem_euclid(1.0) * 86_400_000.0 + 5e-3).floor();
    (milliseconds / 864.0).floor() as i64 % 100_000
}

/// `candid`: the number of the `index`-th alert of its sign, by position on the detector.
///
/// As in ZTF the last six digits begin with 010 where the source faded and with 015 where it
/// brightened. Should a sign ever have more than 5,000 alerts, the next begin with 020 and 025.
pub fn candidate_id(pid: i64, positive: bool, index: usize) -> i64 {
    let block = (1 + index / BLOCK) * 2 * BLOCK + if positive { BLOCK } else { 0 };
    pid * 1_000_000 + (block + index % BLOCK) as i64
}

/// `field`: the number of a field; a name that is no number gets one made from it.
///
/// ZTF's grid ends below 2,000, made numbers begin at 1,000,000.
pub fn field_number(name: &str) -> Option<i32> {
    let name = name.trim();
    if name.is_empty() {
        return None;
    }
    let made = || 1_000_000 + (crc32c::crc32c(name.as_bytes()) % 1_000_000_000) as i32;
    Some(name.parse::<i32>().ok().filter(|number| *number >= 0).unwrap_or_else(made))
}

/// `fid` of a filter that the settings do not name.
///
/// 1, 2 and 3 are ZTF's g, r and i, the only ones that every broker takes. Others have fixed
/// numbers from 10 up, and a name unknown here gets one made from it, from 1,000 to 9,999.
pub fn filter_number(name: &str) -> i32 {
    let bare = name.trim().trim_start_matches("sdss").trim_start_matches("SDSS").trim_start_matches("ztf");
    let bare = bare.trim_matches(['_', '-', ' ', '\'', '.']);
    match bare {
        "g" | "gp" | "ZTF_g" => 1,
        "r" | "rp" | "ZTF_r" => 2,
        "i" | "ip" | "ZTF_i" => 3,
        "u" | "up" => 10,
        "z" | "zp" | "zs" => 11,
        "y" | "Y" => 12,
        "U" => 13,
        "B" => 14,
        "V" => 15,
        "R" => 16,
        "I" => 17,
        "J" => 18,
        "H" => 19,
        "K" | "Ks" => 20,
        "" | "clear" | "Clear" | "CLEAR" | "C" | "L" | "lum" | "Luminance" | "none" | "None" | "open" => 21,
        "w" | "W" => 22,
        other => 1_000 + (crc32c::crc32c(other.as_bytes()) % 9_000) as i32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exposure::{ExposureId, FrameKind};
    use crate::time::NightName;

    fn exposure(start: Mjd) -> Exposure {
        let night = NightName::of(start, -116.86);
        Exposure {
            id: ExposureId::new(night, start),
            night,
            kind: FrameKind::Light,
            start,
            exposure_s: 30.0,
            filter: "r".into(),
            field: "386".into(),
            pointing: None,
            temperature_c: None,
            file: String::new(),
        }
    }

    #[test]
    fn real_packets_get_their_own_numbers() {
        // jd, rcid, pid, sign, running number, candid of ZTF packets.
        let golden = [
            (2_460_449.878_460_6, 21, 2_695_378_462_115, false, 12, 2_695_378_462_115_010_012),
            (2_460_759.640_370_4, 0, 3_005_140_370_015, false, 9, 3_005_140_370_015_010_009),
        ];
        for (jd, rcid, pid, positive, index, candid) in golden {
            let found = processing_id(&exposure(Mjd::from_jd(jd)), rcid);
            assert_eq!(found, pid);
            assert_eq!(candidate_id(found, positive, index), candid);
        }
    }

    #[test]
    fn a_start_that_is_a_whole_number_of_steps_is_not_cut_to_the_step_before() {
        let start: Mjd = "2026-11-24T09:04:26.976".parse().unwrap();
        assert_eq!(day_fraction(start), 37_809);
    }

    #[test]
    fn no_two_alerts_of_an_exposure_share_a_number_however_many_there_are() {
        let mut all: Vec<i64> =
            (0..12_000).flat_map(|i| [candidate_id(1, true, i), candidate_id(1, false, i)]).collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 24_000);
        assert!(candidate_id(1, true, MOST_ALERTS_A_SIGN - 1) < 2_000_000);
        assert_eq!(candidate_id(2_475_433_850_015, true, 0), 2_475_433_850_015_015_000);
    }

    #[test]
    fn fields_and_filters_with_a_name_have_a_number_that_stays() {
        assert_eq!(field_number("386"), Some(386));
        assert_eq!(field_number(""), None);
        assert_eq!(field_number("M31"), field_number(" M31 "));
        assert!(field_number("M31").unwrap() >= 1_000_000);
        assert_eq!((filter_number("g"), filter_number("r"), filter_number("i")), (1, 2, 3));
        assert!(filter_number("H-alpha") >= 1_000);
    }
}
