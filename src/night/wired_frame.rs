//! A frame from a wired camera becomes a file of the frame journal: the header is completed with what
//! the camera did not say.

use ndarray::Array2;

use crate::camera::fields::FieldList;
use crate::camera::pointing::Pointing;
use crate::camera::readout::WiredFrame;
use crate::exposure::FrameKind;
use crate::fits::Header;
use crate::image::{Mask, mask};
use crate::time::Mjd;

/// Card with the camera's session.
pub const SESSION: &str = "LINKSESS";
/// Card with the camera's number of the frame.
pub const NUMBER: &str = "LINKFRM";

/// Keywords that tell another time than that of this exposure.
const TIMES: [&str; 22] = [
    "MJD-OBS", "MJD_OBS", "MJD-BEG", "MJD-END", "MJD-AVG", "JD", "JD-OBS", "TIME-OBS", "TIME-END", "UT", "UTC",
    "UTSTART", "UT-OBS", "UTC-OBS", "DATE_OBS", "DATE-BEG", "DATE-END", "DATE-AVG", "EXPOSURE", "EXP_TIME", "ITIME",
    "TIMESYS",
];

/// What was known when the shutter opened.
#[derive(Debug, Clone, PartialEq)]
pub struct Circumstances {
    /// Shutter open, UTC.
    pub start: Mjd,
    /// Open-shutter time, seconds.
    pub exposure_s: f64,
    /// What the pointing command said.
    pub pointing: Option<Pointing>,
    /// By how much the host's clock was set meanwhile, seconds.
    pub clock_step_s: Option<f64>,
}

/// A frame as the journal keeps it.
#[derive(Debug)]
pub struct Complete {
    /// All that is known of it.
    pub header: Header,
    /// Pixels, ADU.
    pub pixels: Array2<u16>,
    /// Pixels that never came, where there are any.
    pub missing: Option<Mask>,
}

/// Completes what the camera said. `None` where pixels and geometry do not agree, which no protocol
/// machine gives out.
pub fn complete(frame: WiredFrame, known: &Circumstances, fields: &FieldList) -> Option<Complete> {
    let mut header = frame.header;
    for keyword in TIMES {
        header.remove(keyword);
    }
    header.set("DATE-OBS", known.start.to_string(), "UTC, shutter open");
    header.set("EXPTIME", known.exposure_s, "s");
    if header.get("IMAGETYP").is_none() && header.get("OBSTYPE").is_none() {
        let kind = match frame.kind {
            Some(FrameKind::Dark) => "dark",
            Some(FrameKind::Bias) => "bias",
            Some(FrameKind::Flat) => "flat",
            Some(FrameKind::Other) => "other",
            Some(FrameKind::Light) | None => "light",
        };
        header.set("IMAGETYP", kind, "");
    }
    if let Some(pointing) = &known.pointing {
        pointing.write(&mut header);
    }
    from_the_list(&mut header, fields);
    header.set(SESSION, i64::from(frame.session), "session of the camera");
    header.set(NUMBER, i64::from(frame.number), "the camera's number of the frame");
    if let Some(step) = known.clock_step_s {
        header.set("CLKSTEP", step, "s, the host's clock was set meanwhile");
    }
    let pixels = Array2::from_shape_vec((frame.height, frame.width), frame.pixels).ok()?;
    let missing = (!frame.missing.is_empty()).then(|| {
        let mut missing = Mask::zeros(pixels.dim());
        let bits = missing.as_slice_mut().unwrap_or_default();
        for range in &frame.missing {
            if let Some(gap) = bits.get_mut(range.clone()) {
                gap.fill(mask::NO_DATA);
            }
        }
        header.set(
            "NMISSING",
            frame.missing.iter().map(|range| range.len() as i64).sum::<i64>(),
            "pixels that never came",
        );
        missing
    });
    Some(Complete { header, pixels, missing })
}

/// Place or name of the field, whichever the header lacks.
fn from_the_list(header: &mut Header, fields: &FieldList) {
    let place = header.number(&["RA"]).zip(header.number(&["DEC"]));
    let name = header.text(&["FIELDID", "FIELD", "OBJECT"]);
    match (name, place) {
        (Some(name), None) if header.get("RA").is_none() => {
            if let Some((ra, dec)) = fields.place_of(&name) {
                header.set("RA", ra, "degrees, of the field").set("DEC", dec, "degrees, of the field");
            }
        }
        (None, Some(place)) => {
            if let Some(name) = fields.at(place) {
                header.set("FIELDID", name, "of the list of fields");
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::camera::readout::When;

    fn frame(header: Header) -> WiredFrame {
        let when = When::Ours { open_s: 0.0, close_s: 0.0 };
        let (pixels, missing) = ((0..12).collect(), std::iter::once(4..7).collect());
        WiredFrame {
            session: 9,
            number: 413,
            width: 4,
            height: 3,
            pixels,
            missing,
            when,
            kind: Some(FrameKind::Flat),
            header,
        }
    }

    fn known() -> Circumstances {
        let start = "2026-11-24T03:15:22".parse().unwrap();
        Circumstances { start, exposure_s: 30.0, pointing: None, clock_step_s: None }
    }

    #[test]
    fn the_shutter_of_this_exposure_counts_and_not_that_of_a_recorded_header() {
        let mut header = Header::new();
        header.set("DATE-OBS", "2013-07-13T00:00:00", "").set("MJD-OBS", 56_486.0, "").set("EXPOSURE", 3.0, "");
        header.set("IMAGETYP", "Light Frame", "").set("FILTER", "r", "");
        let kept = complete(frame(header), &known(), &FieldList::default()).unwrap();
        assert_eq!(kept.header.text(&["DATE-OBS"]).as_deref(), Some("2026-11-24T03:15:22.000"));
        assert_eq!((kept.header.get("MJD-OBS"), kept.header.number(&["EXPTIME", "EXPOSURE"])), (None, Some(30.0)));
        assert_eq!(kept.header.text(&["IMAGETYP"]).as_deref(), Some("Light Frame"));
        assert_eq!((kept.header.number(&[NUMBER]), kept.header.number(&["NMISSING"])), (Some(413.0), Some(3.0)));
        let missing = kept.missing.unwrap();
        assert_eq!(
            (missing[[0, 3]], missing[[1, 0]], missing[[1, 2]], missing[[1, 3]]),
            (0, mask::NO_DATA, mask::NO_DATA, 0)
        );
        assert_eq!(kept.pixels[[2, 3]], 11);
    }

    #[test]
    fn a_field_without_a_place_gets_it_from_the_list_and_a_place_its_field() {
        let fields = FieldList::parse("512,10.5,41\n").unwrap();
        let mut header = Header::new();
        header.set("OBJECT", "512", "");
        let kept = complete(frame(header), &known(), &fields).unwrap();
        assert_eq!((kept.header.number(&["RA"]), kept.header.text(&["IMAGETYP"])), (Some(10.5), Some("flat".into())));
        let pointing = Pointing { ra: Some(10.6), dec: Some(41.1), ..Pointing::default() };
        let known = Circumstances { pointing: Some(pointing), ..known() };
        let kept = complete(frame(Header::new()), &known, &fields).unwrap();
        assert_eq!(kept.header.text(&["FIELDID"]).as_deref(), Some("512"));
    }
}
