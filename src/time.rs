//! Times and the names of nights.
//!
//! Astronomical times are [`Mjd`] in the UTC scale. Nothing here reads a clock: times come in as
//! arguments, from headers or from the one place of the daemon that asks the host.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Days from JD 0 to MJD 0.
const JD_OF_MJD_ZERO: f64 = 2_400_000.5;
/// MJD of 1970-01-01, the zero of Unix time.
const MJD_OF_UNIX_ZERO: f64 = 40_587.0;
/// MJD of 2017-01-01, from which ZTF counts its nights (`nid`).
const MJD_OF_NID_ZERO: i64 = 57_754;
const SECONDS_PER_DAY: f64 = 86_400.0;

/// A modified Julian date in UTC, in days. Resolution is about a microsecond in this century.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Mjd(pub f64);

/// A date that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a UTC date such as 2026-11-24T03:15:22.12")]
pub struct DateError(String);

impl Mjd {
    /// The Julian date, in days.
    pub fn jd(self) -> f64 {
        self.0 + JD_OF_MJD_ZERO
    }

    /// From a Julian date, in days.
    pub fn from_jd(jd: f64) -> Self {
        Self(jd - JD_OF_MJD_ZERO)
    }

    /// From seconds since 1970-01-01T00:00:00 UTC.
    pub fn from_unix_seconds(seconds: f64) -> Self {
        Self(MJD_OF_UNIX_ZERO + seconds / SECONDS_PER_DAY)
    }

    /// Seconds since 1970-01-01T00:00:00 UTC.
    pub fn unix_seconds(self) -> f64 {
        (self.0 - MJD_OF_UNIX_ZERO) * SECONDS_PER_DAY
    }

    /// This time moved by `seconds`.
    pub fn plus_seconds(self, seconds: f64) -> Self {
        Self(self.0 + seconds / SECONDS_PER_DAY)
    }

    /// Seconds from `earlier` to this time.
    pub fn seconds_since(self, earlier: Self) -> f64 {
        (self.0 - earlier.0) * SECONDS_PER_DAY
    }

    /// Civil date and time, rounded to the millisecond; `None` outside the years -9999 to 9999.
    fn civil(self) -> Option<jiff::civil::DateTime> {
        let milliseconds = (self.unix_seconds() * 1e3).round();
        if !milliseconds.is_finite() || milliseconds.abs() > 1e15 {
            return None;
        }
        let timestamp = jiff::Timestamp::from_millisecond(milliseconds as i64).ok()?;
        Some(jiff::tz::Offset::UTC.to_datetime(timestamp))
    }
}

impl fmt::Display for Mjd {
    /// ISO 8601 in UTC with milliseconds, as FITS writes `DATE-OBS`: `2026-11-24T03:15:22.120`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.civil() {
            Some(t) => write!(
                f,
                "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}",
                t.year(),
                t.month(),
                t.day(),
                t.hour(),
                t.minute(),
                t.second(),
                t.millisecond()
            ),
            None => write!(f, "MJD {}", self.0),
        }
    }
}

impl FromStr for Mjd {
    type Err = DateError;

    /// Reads the FITS forms of a UTC date: a date, or a date and time with any number of decimals,
    /// with or without a final `Z`.
    fn from_str(text: &str) -> Result<Self, DateError> {
        let trimmed = text.trim().trim_end_matches(['Z', 'z']);
        let error = || DateError(text.trim().to_owned());
        let moment = if trimmed.len() <= 10 {
            trimmed.parse::<jiff::civil::Date>().map_err(|_| error())?.at(0, 0, 0, 0)
        } else {
            trimmed.replace(' ', "T").parse::<jiff::civil::DateTime>().map_err(|_| error())?
        };
        let timestamp = jiff::tz::Offset::UTC.to_timestamp(moment).map_err(|_| error())?;
        Ok(Self::from_unix_seconds(timestamp.as_nanosecond() as f64 * 1e-9))
    }
}

/// The name of a night: the UTC date of the local mean midnight inside it, `20261124`.
///
/// A night runs from local mean noon to local mean noon, so that a night over Europe is not cut at
/// 0h UT. Topics, `nid`, folders and reports use this name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NightName(u32);

impl NightName {
    /// The night that holds `time` at a site of `longitude_deg` (degrees, east positive).
    pub fn of(time: Mjd, longitude_deg: f64) -> Self {
        let local_mean = time.0 + longitude_deg / 360.0;
        // From noon to noon the nearest local midnight is the same; its UTC moment names the night.
        let midnight_local = (local_mean + 0.5).floor();
        let midnight_utc = Mjd(midnight_local - longitude_deg / 360.0);
        Self::of_date(midnight_utc)
    }

    fn of_date(time: Mjd) -> Self {
        match time.civil() {
            Some(t) => Self(t.year().max(0) as u32 * 10_000 + t.month() as u32 * 100 + t.day() as u32),
            None => Self(0),
        }
    }

    /// ZTF's night number: days from 2017-01-01 to the night's name.
    pub fn nid(self) -> i32 {
        let (year, month, day) = (self.0 / 10_000, self.0 / 100 % 100, self.0 % 100);
        match jiff::civil::Date::new(year as i16, month as i8, day as i8) {
            Ok(date) => {
                let midnight = jiff::tz::Offset::UTC.to_timestamp(date.at(0, 0, 0, 0));
                let seconds = midnight.map(|t| t.as_second()).unwrap_or_default();
                (seconds.div_euclid(86_400) + MJD_OF_UNIX_ZERO as i64 - MJD_OF_NID_ZERO) as i32
            }
            Err(_) => 0,
        }
    }
}

impl FromStr for NightName {
    type Err = DateError;

    /// Reads a name back: eight digits that are a date.
    fn from_str(text: &str) -> Result<Self, DateError> {
        let error = || DateError(text.to_owned());
        let name: u32 = Some(text).filter(|t| t.len() == 8).and_then(|t| t.parse().ok()).ok_or_else(error)?;
        let (year, month, day) = (name / 10_000, name / 100 % 100, name % 100);
        jiff::civil::Date::new(year as i16, month as i8, day as i8).map_err(|_| error())?;
        Ok(Self(name))
    }
}

impl fmt::Display for NightName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fits_date_is_read_and_written_back_to_the_millisecond() {
        let time: Mjd = "2026-11-24T03:15:22.12".parse().unwrap();
        assert_eq!(time.to_string(), "2026-11-24T03:15:22.120");
        assert_eq!("2017-01-01".parse::<Mjd>().unwrap().0, 57_754.0);
        assert!("yesterday".parse::<Mjd>().is_err());
    }

    #[test]
    fn a_night_over_europe_is_not_cut_at_midnight_ut() {
        let evening: Mjd = "2026-11-23T20:00:00".parse().unwrap();
        let morning: Mjd = "2026-11-24T04:00:00".parse().unwrap();
        assert_eq!(NightName::of(evening, 10.0).to_string(), "20261123");
        assert_eq!(NightName::of(morning, 10.0).to_string(), "20261123");
        assert_eq!(NightName::of(evening, 0.0).to_string(), "20261124");
    }

    #[test]
    fn a_night_at_palomar_is_named_by_the_ut_date_of_its_midnight_as_ztf_does() {
        // ZTF packet 2475433850015015000: nid 2475, day fraction 0.43385.
        let time = Mjd(60_229.433_85);
        assert_eq!(NightName::of(time, -116.86).nid(), 2475);
    }
}
