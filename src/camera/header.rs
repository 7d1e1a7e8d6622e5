//! What the header of a frame says about its exposure, with the synonyms that cameras use.

use crate::exposure::{Exposure, ExposureId, FrameKind};
use crate::fits::{Header, Value};
use crate::time::{Mjd, NightName};

/// Values for headers that lack them (`[detector]` in the settings).
#[derive(Debug, Clone, Default, PartialEq)]
pub struct HeaderFallbacks {
    /// What a frame was taken for when the header has neither `IMAGETYP` nor `OBSTYPE`.
    pub kind: Option<FrameKind>,
    /// Open-shutter time, seconds.
    pub exposure_s: Option<f64>,
    /// Filter of a camera that has only one.
    pub filter: Option<String>,
    /// Shutter open, UTC: from the camera's link or the file's time, never from the settings.
    pub start: Option<Mjd>,
}

/// A header that does not say what is needed. The message names keyword, file and setting.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// No keyword of the synonyms, and no setting.
    #[error("{file}: keyword {keyword} is missing; {remedy}")]
    Missing {
        /// Name of the file.
        file: String,
        /// The keyword with its synonyms.
        keyword: &'static str,
        /// What to do: the setting, or what the camera must write.
        remedy: &'static str,
    },
    /// The keyword is there and cannot be used.
    #[error("{file}: {keyword} = {value} is not usable: {reason}")]
    Unusable {
        /// Name of the file.
        file: String,
        /// The keyword.
        keyword: String,
        /// Its value as written.
        value: String,
        /// Why, and what to do.
        reason: String,
    },
}

/// `IMAGETYP` and its synonyms.
const KIND: [&str; 4] = ["IMAGETYP", "OBSTYPE", "IMGTYPE", "FRAME"];
const EXPOSURE: [&str; 4] = ["EXPTIME", "EXPOSURE", "EXP_TIME", "ITIME"];
const FILTER: [&str; 6] = ["FILTER", "FILTERID", "FILTNAM", "FILTER1", "FILTERS", "INSFILTE"];
/// The most special name first: survey cameras write the survey's name as `OBJECT`.
const FIELD: [&str; 3] = ["FIELDID", "FIELD", "OBJECT"];
const TIME_OF_DAY: [&str; 6] = ["TIME-OBS", "UT", "UTC", "UTSTART", "UT-OBS", "UTC-OBS"];
const MJD: [&str; 3] = ["MJD-OBS", "MJD_OBS", "MJD-BEG"];
const TEMPERATURE: [&str; 5] = ["CCD-TEMP", "CCDTEMP", "DETTEMP", "TEMPERAT", "SET-TEMP"];
const POINTING: [(&str, &str); 5] =
    [("RA", "DEC"), ("OBJCTRA", "OBJCTDEC"), ("TELRA", "TELDEC"), ("RA_OBS", "DEC_OBS"), ("RA-MNT", "DEC-MNT")];

/// Longest exposure that is believed, seconds.
const MAX_EXPOSURE_S: f64 = 86_400.0;
/// A dark of less than this is a bias, seconds.
const BIAS_EXPOSURE_S: f64 = 1e-6;

/// Reads the exposure out of `header`; `file` names it in messages, `longitude_deg` (east positive)
/// names its night.
///
/// # Errors
///
/// When a keyword is missing and has no fall-back, or holds what cannot be.
pub fn exposure_from_header(
    header: &Header,
    file: &str,
    longitude_deg: f64,
    fallbacks: &HeaderFallbacks,
) -> Result<Exposure, HeaderError> {
    let exposure_s = exposure_time(header, file, fallbacks)?;
    let kind = frame_kind(header, exposure_s, fallbacks).ok_or_else(|| HeaderError::Missing {
        file: file.to_owned(),
        keyword: "IMAGETYP (OBSTYPE)",
        remedy: "let the camera write bias, dark, flat or light, or set image_type in [detector]",
    })?;
    let start = start_of_exposure(header, file, fallbacks)?;
    let filter = match header.text(&FILTER).or_else(|| fallbacks.filter.clone()) {
        Some(filter) => filter,
        None if matches!(kind, FrameKind::Flat | FrameKind::Light) => {
            return Err(HeaderError::Missing {
                file: file.to_owned(),
                keyword: "FILTER",
                remedy: "let the camera write it, or set filter in [detector]",
            });
        }
        None => String::new(),
    };
    let night = NightName::of(start, longitude_deg);
    Ok(Exposure {
        id: ExposureId::new(night, start),
        night,
        kind,
        start,
        exposure_s,
        filter,
        field: header.text(&FIELD).unwrap_or_default(),
        pointing: pointing(header),
        temperature_c: temperature(header),
        file: file.to_owned(),
    })
}

fn exposure_time(header: &Header, file: &str, fallbacks: &HeaderFallbacks) -> Result<f64, HeaderError> {
    match header.number(&EXPOSURE).or(fallbacks.exposure_s) {
        Some(seconds) if (0.0..=MAX_EXPOSURE_S).contains(&seconds) => Ok(seconds),
        Some(seconds) => Err(unusable(file, "EXPTIME", &seconds, "an exposure lasts 0 to 86400 seconds")),
        None => match header.text(&EXPOSURE) {
            Some(text) => Err(unusable(file, "EXPTIME", &text, "it is no number of seconds; mend the camera's header")),
            None => Err(HeaderError::Missing {
                file: file.to_owned(),
                keyword: "EXPTIME (EXPOSURE)",
                remedy: "let the camera write the seconds, or set exposure_s in [detector]",
            }),
        },
    }
}

/// The kind; the first synonym that names a known one counts. A dark without exposure is a bias.
fn frame_kind(header: &Header, exposure_s: f64, fallbacks: &HeaderFallbacks) -> Option<FrameKind> {
    let words: Vec<FrameKind> =
        KIND.iter().filter_map(|keyword| header.text(&[keyword])).map(|text| FrameKind::from_keyword(&text)).collect();
    let known = words.iter().find(|kind| **kind != FrameKind::Other).or(words.first()).copied();
    match known.or(fallbacks.kind) {
        Some(FrameKind::Dark) if exposure_s < BIAS_EXPOSURE_S => Some(FrameKind::Bias),
        kind => kind,
    }
}

/// `DATE-OBS` with a time; else its date with the time of another keyword; else `MJD-OBS` or `JD`.
fn start_of_exposure(header: &Header, file: &str, fallbacks: &HeaderFallbacks) -> Result<Mjd, HeaderError> {
    if let Some(scale) = header.text(&["TIMESYS"]).filter(|scale| !scale.eq_ignore_ascii_case("UTC")) {
        let reason = "times are read as UTC; let the camera write TIMESYS = 'UTC'";
        return Err(unusable(file, "TIMESYS", &scale, reason));
    }
    let date = header.text(&["DATE-OBS", "DATE_OBS", "DATE-BEG"]);
    let mjd = header.number(&MJD).or_else(|| header.number(&["JD", "JD-OBS"]).map(|jd| Mjd::from_jd(jd).0));
    let from_mjd = mjd.filter(|mjd| (10_000.0..=200_000.0).contains(mjd)).map(Mjd);
    let Some(date) = date else {
        return from_mjd.or(fallbacks.start).ok_or_else(|| HeaderError::Missing {
            file: file.to_owned(),
            keyword: "DATE-OBS (MJD-OBS)",
            remedy: "let the camera write the UTC of shutter open",
        });
    };
    let cannot = |reason: &str| unusable(file, "DATE-OBS", &date, reason);
    if date.len() > 10 {
        return date.parse().ok().or(from_mjd).ok_or_else(|| cannot("a date is written 2026-11-24T03:15:22.12"));
    }
    let day: Option<Mjd> = date.parse().ok().or_else(|| old_date(&date));
    let Some(day) = day else {
        return from_mjd.ok_or_else(|| cannot("a date is written 2026-11-24T03:15:22.12"));
    };
    match TIME_OF_DAY.iter().find_map(|keyword| time_of_day(header.get(keyword)?)) {
        Some(seconds) => Ok(day.plus_seconds(seconds)),
        None => from_mjd.ok_or_else(|| cannot("it has no time of day; let the camera write it, or TIME-OBS")),
    }
}

/// The form of before 2000: `DD/MM/YY`, always of the 20th century (FITS standard 4.0, section 4.4.2.1).
fn old_date(text: &str) -> Option<Mjd> {
    let parts: Vec<u32> = text.split('/').map(|part| part.trim().parse().ok()).collect::<Option<_>>()?;
    match parts.as_slice() {
        [day, month, year] if *year < 100 => format!("19{year:02}-{month:02}-{day:02}").parse().ok(),
        _ => None,
    }
}

/// Seconds since midnight, from `03:04:09.2` or a number of seconds.
fn time_of_day(value: &Value) -> Option<f64> {
    let seconds = match value {
        Value::Text(text) if text.contains(':') => {
            // Some cameras repeat the date here.
            let time = text.rsplit('T').next().unwrap_or(text);
            sexagesimal(time)? * 3600.0
        }
        Value::Text(text) => text.trim().parse().ok()?,
        Value::Integer(seconds) => *seconds as f64,
        Value::Real(seconds) => *seconds,
        Value::Logical(_) | Value::Empty => return None,
    };
    (0.0..86_401.0).contains(&seconds).then_some(seconds)
}

/// `[+-]a:b:c` or `[+-]a b c` as a number of `a`.
fn sexagesimal(text: &str) -> Option<f64> {
    let text = text.trim();
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let parts: Vec<f64> = digits
        .split([':', ' '])
        .filter(|part| !part.is_empty())
        .map(|part| part.parse().ok().filter(|x: &f64| x.is_finite() && *x >= 0.0))
        .collect::<Option<_>>()?;
    let value = match parts.as_slice() {
        [a, b] if *b < 60.0 => a + b / 60.0,
        [a, b, c] if *b < 60.0 && *c <= 60.0 => a + b / 60.0 + c / 3600.0,
        _ => return None,
    };
    Some(if negative { -value } else { value })
}

/// Right ascension and declination, degrees: the first pair that holds a place on the sky.
///
/// A right ascension with colons or blanks is in hours, a plain number in degrees unless its comment
/// speaks of hours.
fn pointing(header: &Header) -> Option<(f64, f64)> {
    POINTING.iter().find_map(|&(ra_keyword, dec_keyword)| {
        let hours = |keyword: &str| {
            let card = header.cards().iter().find(|card| card.keyword == keyword);
            card.is_some_and(|card| card.comment.to_ascii_lowercase().contains("hour"))
        };
        let ra = match header.number(&[ra_keyword]) {
            Some(number) if hours(ra_keyword) => number * 15.0,
            Some(number) => number,
            None => sexagesimal(&header.text(&[ra_keyword])?)? * 15.0,
        };
        let dec = match header.number(&[dec_keyword]) {
            Some(number) => number,
            None => sexagesimal(&header.text(&[dec_keyword])?)?,
        };
        ((-360.0..=360.0).contains(&ra) && (-90.0..=90.0).contains(&dec)).then_some((ra.rem_euclid(360.0), dec))
    })
}

/// Detector temperature in Celsius; what is beyond 100 can only be Kelvin.
fn temperature(header: &Header) -> Option<f64> {
    let written = header.number(&TEMPERATURE)?;
    let celsius = if written > 100.0 { written - 273.15 } else { written };
    (-273.15..=100.0).contains(&celsius).then_some(celsius)
}

fn unusable(file: &str, keyword: &str, value: &dyn std::fmt::Display, reason: &str) -> HeaderError {
    HeaderError::Unusable {
        file: file.to_owned(),
        keyword: keyword.to_owned(),
        value: value.to_string(),
        reason: reason.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(cards: &[(&str, Value)]) -> Header {
        let mut header = Header::new();
        for (keyword, value) in cards {
            header.set(keyword, value.clone(), "");
        }
        header
    }

    fn light() -> Vec<(&'static str, Value)> {
        vec![
            ("IMAGETYP", "Light Frame".into()),
            ("DATE-OBS", "2026-11-24T03:15:22.12".into()),
            ("EXPTIME", "30.0".into()),
            ("FILTER", "r".into()),
        ]
    }

    fn read(cards: &[(&str, Value)]) -> Result<Exposure, HeaderError> {
        exposure_from_header(&header(cards), "a.fits", -116.86, &HeaderFallbacks::default())
    }

    #[test]
    fn an_exposure_time_in_quotes_is_a_number() {
        let exposure = read(&light()).unwrap();
        assert_eq!(exposure.exposure_s, 30.0);
        assert_eq!(exposure.kind, FrameKind::Light);
        assert_eq!(exposure.id.as_str(), "20261124-031522.120");
    }

    #[test]
    fn a_date_without_time_takes_the_time_from_its_own_keyword() {
        // As the SAAO writes it; its MJD-OBS is that of midnight and must not win.
        let mut cards = light();
        cards[1].1 = "2013-07-13".into();
        cards.push(("MJD-OBS", 56_486.0.into()));
        cards.push(("UT", "00:57:33".into()));
        assert_eq!(read(&cards).unwrap().start.to_string(), "2013-07-13T00:57:33.000");
        cards.pop();
        cards[4].1 = 56_486.25.into();
        assert_eq!(read(&cards).unwrap().start.to_string(), "2013-07-13T06:00:00.000");
    }

    #[test]
    fn a_date_of_the_last_century_is_read() {
        let mut cards = light();
        cards[1].1 = "26/10/92".into();
        cards.push(("MJD-OBS", 48_921.627_87.into()));
        assert_eq!(&read(&cards).unwrap().start.to_string()[..16], "1992-10-26T15:04");
    }

    #[test]
    fn pointing_is_read_in_hours_with_colons_and_in_degrees_without() {
        let mut cards = light();
        cards.push(("RA", " 22:04:08".into()));
        cards.push(("DEC", "-00:55:31".into()));
        let (ra, dec) = read(&cards).unwrap().pointing.unwrap();
        assert!((ra - 331.033_33).abs() < 1e-4 && (dec + 0.925_278).abs() < 1e-5, "{ra} {dec}");
        cards[4].1 = 331.033_3.into();
        cards[5].1 = "-0.9253".into();
        assert_eq!(read(&cards).unwrap().pointing, Some((331.033_3, -0.9253)));
    }

    #[test]
    fn a_missing_keyword_is_named_with_its_file_and_its_setting() {
        for (at, keyword, setting) in
            [(0, "IMAGETYP", "image_type"), (2, "EXPTIME", "exposure_s"), (3, "FILTER", "filter")]
        {
            let mut cards = light();
            cards.remove(at);
            let message = read(&cards).unwrap_err().to_string();
            assert!(message.starts_with("a.fits: ") && message.contains(keyword), "{message}");
            assert!(message.contains(&format!("{setting} in [detector]")), "{message}");
        }
        let mut cards = light();
        cards.remove(1);
        assert!(read(&cards).unwrap_err().to_string().contains("DATE-OBS"));
    }

    #[test]
    fn nan_and_absurd_values_are_refused_by_name() {
        for (keyword, value) in [("EXPTIME", "NaN"), ("EXPTIME", "-3"), ("DATE-OBS", "2026-13-45T99:00:00")] {
            let mut cards = light();
            cards.retain(|(name, _)| *name != keyword);
            cards.push((keyword, value.into()));
            let message = read(&cards).unwrap_err().to_string();
            assert!(message.contains(keyword) && message.contains("a.fits"), "{message}");
        }
    }

    #[test]
    fn a_dark_without_exposure_is_a_bias_and_needs_no_filter() {
        let cards = [
            ("IMAGETYP", "Dark Frame".into()),
            ("DATE-OBS", "2021-01-07T01:32:35.403".into()),
            ("EXPTIME", 1e-32.into()),
        ];
        assert_eq!(read(&cards).unwrap().kind, FrameKind::Bias);
    }

    #[test]
    fn a_temperature_in_kelvin_becomes_celsius() {
        let mut cards = light();
        cards.push(("CCD-TEMP", 180.2.into()));
        assert!((read(&cards).unwrap().temperature_c.unwrap() + 92.95).abs() < 1e-9);
    }
}
