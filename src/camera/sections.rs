//! Sections of a frame: which pixels are sky, which are overscan, and which amplifier read them.

use crate::fits::Header;

use super::{Amplifier, Section};

impl Section {
    /// Reads `[x1:x2,y1:y2]`: FITS pixels, first pixel 1, both ends included.
    pub fn parse(text: &str) -> Option<Self> {
        let inner = text.trim().strip_prefix('[')?.strip_suffix(']')?;
        let (x, y) = inner.split_once(',')?;
        let range = |text: &str| {
            let (from, to) = text.split_once(':')?;
            let (from, to): (usize, usize) = (from.trim().parse().ok()?, to.trim().parse().ok()?);
            // Amplifiers that are read from the other side are written backwards.
            let (from, to) = if from <= to { (from, to) } else { (to, from) };
            (from >= 1).then(|| (from - 1, to))
        };
        let ((x0, x1), (y0, y1)) = (range(x)?, range(y)?);
        Some(Self { x0, x1, y0, y1 })
    }

    /// The whole of a frame.
    pub fn whole(width: usize, height: usize) -> Self {
        Self { x0: 0, x1: width, y0: 0, y1: height }
    }

    /// Pixels a row.
    pub fn width(&self) -> usize {
        self.x1 - self.x0
    }

    /// Rows.
    pub fn height(&self) -> usize {
        self.y1 - self.y0
    }

    /// Whether it has a pixel in common with `other`.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.x0 < other.x1 && other.x0 < self.x1 && self.y0 < other.y1 && other.y0 < self.y1
    }

    fn lies_in(&self, width: usize, height: usize) -> bool {
        self.x0 < self.x1 && self.y0 < self.y1 && self.x1 <= width && self.y1 <= height
    }
}

impl std::fmt::Display for Section {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "[{}:{},{}:{}]", self.x0 + 1, self.x1, self.y0 + 1, self.y1)
    }
}

/// What to assume of the detector where the header does not say it (`[detector]` in the settings).
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DetectorFallbacks {
    /// Electrons per ADU.
    pub gain: Option<f64>,
    /// Read noise, electrons.
    pub read_noise: Option<f64>,
    /// Saturation level, ADU of the raw frame.
    pub saturation: Option<f64>,
    /// Overscan.
    pub overscan: Option<Section>,
    /// Light-sensitive part.
    pub trim: Option<Section>,
    /// The amplifiers, when there are several.
    pub amplifiers: Vec<Amplifier>,
}

/// A keyword whose section cannot be used, and why.
pub(super) struct Fault {
    pub keyword: String,
    pub value: String,
    pub reason: String,
}

const GAIN: [&str; 2] = ["GAIN", "EGAIN"];
const READ_NOISE: [&str; 4] = ["RDNOISE", "READNOIS", "READNOISE", "RON"];
const SATURATION: [&str; 5] = ["SATURATE", "SATLEVEL", "SATURAT", "SATUR", "MAXLIN"];

/// The amplifiers of a frame of `width` × `height`: several when the header numbers its sections
/// (`DATASEC1`, `BIASSEC1`, `GAIN1`, … or with letters), else those of the settings, else one.
pub(super) fn amplifiers(
    header: &Header,
    width: usize,
    height: usize,
    fallbacks: &DetectorFallbacks,
) -> Result<Vec<Amplifier>, Fault> {
    let numbered = numbered(header, width, height, fallbacks)?;
    let all = if !numbered.is_empty() {
        numbered
    } else if !fallbacks.amplifiers.is_empty() {
        configured(width, height, fallbacks)?
    } else {
        vec![single(header, width, height, fallbacks)?]
    };
    if let Some((first, second)) = overlapping(&all) {
        return Err(Fault {
            keyword: "DATASEC".into(),
            value: second.to_string(),
            reason: format!("it overlaps that of another amplifier, {first}; correct the sections"),
        });
    }
    Ok(all)
}

fn overlapping(all: &[Amplifier]) -> Option<(Section, Section)> {
    all.iter()
        .enumerate()
        .find_map(|(i, a)| all[i + 1..].iter().find(|b| a.data.overlaps(&b.data)).map(|b| (a.data, b.data)))
}

fn single(header: &Header, width: usize, height: usize, fallbacks: &DetectorFallbacks) -> Result<Amplifier, Fault> {
    let overscan =
        section(header, &["BIASSEC"], width, height)?.or(check(fallbacks.overscan, "overscan", width, height)?);
    let trim =
        section(header, &["TRIMSEC", "DATASEC"], width, height)?.or(check(fallbacks.trim, "trim", width, height)?);
    let data = match (trim, overscan) {
        (Some(trim), _) => trim,
        (None, None) => Section::whole(width, height),
        (None, Some(overscan)) => beside(overscan, width, height).ok_or_else(|| Fault {
            keyword: "BIASSEC".into(),
            value: overscan.to_string(),
            reason: "it is no strip along an edge, so TRIMSEC or DATASEC must say where the sky is; \
                     write it, or set trim in [detector]"
                .into(),
        })?,
    };
    if let Some(overscan) = overscan.filter(|overscan| overscan.overlaps(&data)) {
        return Err(Fault {
            keyword: "BIASSEC".into(),
            value: overscan.to_string(),
            reason: format!("it overlaps the light-sensitive part {data}; correct one of them"),
        });
    }
    Ok(Amplifier {
        data,
        overscan,
        gain: positive(header.number(&GAIN)).or(fallbacks.gain),
        read_noise: positive(header.number(&READ_NOISE)).or(fallbacks.read_noise),
        saturation: positive(header.number(&SATURATION)).or(fallbacks.saturation),
    })
}

/// What an overscan along one edge leaves of the frame.
fn beside(overscan: Section, width: usize, height: usize) -> Option<Section> {
    let whole = Section::whole(width, height);
    let left = match overscan {
        Section { x0: 0, x1, .. } if x1 * 2 < width => Section { x0: x1, ..whole },
        Section { x0, x1, .. } if x1 == width && x0 * 2 > width => Section { x1: x0, ..whole },
        Section { y0: 0, y1, .. } if y1 * 2 < height => Section { y0: y1, ..whole },
        Section { y0, y1, .. } if y1 == height && y0 * 2 > height => Section { y1: y0, ..whole },
        _ => return None,
    };
    Some(left)
}

fn numbered(
    header: &Header,
    width: usize,
    height: usize,
    fallbacks: &DetectorFallbacks,
) -> Result<Vec<Amplifier>, Fault> {
    let mut all = Vec::new();
    let suffixes = ('1'..='9').chain('A'..='H').map(String::from).chain((10..=16).map(|n| n.to_string()));
    for suffix in suffixes {
        let with = |stem: &str| format!("{stem}{suffix}");
        let stems = |stems: &[&str]| stems.iter().map(|stem| with(stem)).collect::<Vec<_>>();
        let named = stems(&["TRIMSEC", "DATASEC", "AMPSEC", "TSEC", "DSEC"]);
        let Some(data) = section(header, &borrowed(&named), width, height)? else { continue };
        let overscan = section(header, &borrowed(&stems(&["BIASSEC", "BSEC"])), width, height)?;
        let number =
            |names: &[&str]| positive(header.number(&borrowed(&stems(names)))).or(positive(header.number(names)));
        all.push(Amplifier {
            data,
            overscan,
            gain: number(&GAIN).or(fallbacks.gain),
            read_noise: number(&READ_NOISE).or(fallbacks.read_noise),
            saturation: number(&SATURATION).or(fallbacks.saturation),
        });
    }
    Ok(all)
}

fn configured(width: usize, height: usize, fallbacks: &DetectorFallbacks) -> Result<Vec<Amplifier>, Fault> {
    for amplifier in &fallbacks.amplifiers {
        check(Some(amplifier.data), "amplifiers.data", width, height)?;
        check(amplifier.overscan, "amplifiers.overscan", width, height)?;
    }
    let with_defaults = fallbacks.amplifiers.iter().map(|amplifier| Amplifier {
        gain: amplifier.gain.or(fallbacks.gain),
        read_noise: amplifier.read_noise.or(fallbacks.read_noise),
        saturation: amplifier.saturation.or(fallbacks.saturation),
        ..amplifier.clone()
    });
    Ok(with_defaults.collect())
}

fn borrowed(names: &[String]) -> Vec<&str> {
    names.iter().map(String::as_str).collect()
}

fn positive(number: Option<f64>) -> Option<f64> {
    number.filter(|number| *number > 0.0)
}

/// The section of the first of `keywords` that is there.
fn section(header: &Header, keywords: &[&str], width: usize, height: usize) -> Result<Option<Section>, Fault> {
    for keyword in keywords {
        let Some(text) = header.text(&[keyword]) else { continue };
        let fault = |reason: String| Fault { keyword: (*keyword).to_owned(), value: text.clone(), reason };
        let found = Section::parse(&text)
            .ok_or_else(|| fault("a section is written [x1:x2,y1:y2], counted from 1; correct it".into()))?;
        if !found.lies_in(width, height) {
            let reason = format!(
                "it reaches beyond the frame of {width} x {height} pixels; correct it, or remove it from a frame that \
                 is trimmed already"
            );
            return Err(fault(reason));
        }
        return Ok(Some(found));
    }
    Ok(None)
}

fn check(section: Option<Section>, setting: &str, width: usize, height: usize) -> Result<Option<Section>, Fault> {
    match section {
        Some(found) if !found.lies_in(width, height) => Err(Fault {
            keyword: format!("{setting} in [detector]"),
            value: found.to_string(),
            reason: format!("it reaches beyond the frame of {width} x {height} pixels; correct the setting"),
        }),
        section => Ok(section),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(cards: &[(&str, &str)]) -> Header {
        let mut header = Header::new();
        for (keyword, value) in cards {
            header.set(keyword, *value, "");
        }
        header
    }

    fn read(cards: &[(&str, &str)], width: usize, height: usize) -> Result<Vec<Amplifier>, String> {
        amplifiers(&header(cards), width, height, &DetectorFallbacks::default())
            .map_err(|fault| format!("{} = {}: {}", fault.keyword, fault.value, fault.reason))
    }

    #[test]
    fn a_section_with_blanks_is_read_as_fits_counts() {
        // As the SAAO writes it.
        let section = Section::parse("[  17: 528,   1: 520]").unwrap();
        assert_eq!(section, Section { x0: 16, x1: 528, y0: 0, y1: 520 });
        assert_eq!(section.to_string(), "[17:528,1:520]");
        for bad in ["", "[1:2]", "[0:5,1:5]", "[a:b,1:2]", "17:528,1:520"] {
            assert_eq!(Section::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn without_sections_the_whole_frame_is_sky() {
        let all = read(&[], 100, 50).unwrap();
        assert_eq!((all[0].data, all[0].overscan), (Section::whole(100, 50), None));
    }

    #[test]
    fn an_overscan_along_an_edge_leaves_the_rest_to_the_sky() {
        let all = read(&[("BIASSEC", "[101:124,1:50]")], 124, 50).unwrap();
        assert_eq!(all[0].data, Section { x0: 0, x1: 100, y0: 0, y1: 50 });
        let message = read(&[("BIASSEC", "[40:60,1:50]")], 124, 50).unwrap_err();
        assert!(message.contains("TRIMSEC"), "{message}");
    }

    #[test]
    fn two_amplifiers_have_their_own_sections_gains_and_noise() {
        let cards = [
            ("DATASEC1", "[1:100,1:50]"),
            ("DATASEC2", "[141:240,1:50]"),
            ("BIASSEC1", "[101:120,1:50]"),
            ("BIASSEC2", "[121:140,1:50]"),
            ("GAIN1", "1.5"),
            ("GAIN2", "1.7"),
            ("RDNOISE", "5.0"),
        ];
        let all = read(&cards, 240, 50).unwrap();
        assert_eq!(all.len(), 2);
        assert_eq!((all[0].gain, all[1].gain, all[1].read_noise), (Some(1.5), Some(1.7), Some(5.0)));
        assert_eq!(all[1].overscan, Section::parse("[121:140,1:50]"));
    }

    #[test]
    fn a_section_beyond_the_frame_is_named() {
        let message = read(&[("TRIMSEC", "[17:528,1:520]")], 512, 520).unwrap_err();
        assert!(message.contains("TRIMSEC") && message.contains("512 x 520"), "{message}");
        let message = read(&[("TRIMSEC", "[1:50,1:50]"), ("BIASSEC", "[40:60,1:50]")], 60, 50).unwrap_err();
        assert!(message.contains("overlaps"), "{message}");
    }
}
