//! The Minor Planet Center's MPCORB.DAT: one orbit a line, at fixed columns
//! (<https://www.minorplanetcenter.net/iau/info/MPOrbitFormat.html>).

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use super::orbit::{Elements, GAUSS, Orbit};
use crate::time::Mjd;

/// Longest line that is looked at, bytes.
const LONGEST: u64 = 1_024;

/// Orbits with their names.
#[derive(Debug, Default)]
pub struct Orbits {
    pub(super) orbits: Vec<Orbit>,
    names: String,
    /// Where each name ends.
    ends: Vec<u32>,
    /// MJD (TT).
    pub(super) median_epoch: f64,
}

/// Lines that are no orbit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rubbish {
    /// How many.
    pub count: u64,
    /// Number of the first.
    pub first: u64,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl std::fmt::Display for Rubbish {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { count, first, reason } = self;
        write!(f, "{count} lines are no orbits and left out; the first, line {first}: {reason}")
    }
}

/// Why there are no orbits.
#[derive(Debug, thiserror::Error)]
pub enum OrbitsError {
    /// The system refuses.
    #[error("{path}: {source}; check the path and its permissions", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// No line is an orbit.
    #[error("{path}: holds no orbits; get MPCORB.DAT from the Minor Planet Center", path = path.display())]
    None {
        /// The file.
        path: PathBuf,
    },
}

impl Orbits {
    /// Reads a file, gzipped or not. Lines that are no orbit are counted; those of the heading, which ends in a line of
    /// dashes, are none of them. What can be read before a file breaks off is used.
    ///
    /// # Errors
    ///
    /// When it cannot be opened, or holds no orbit.
    pub fn read(path: &Path) -> Result<(Self, Option<Rubbish>), OrbitsError> {
        let io = |source| OrbitsError::Io { path: path.to_owned(), source };
        let mut file = BufReader::with_capacity(1 << 20, File::open(path).map_err(io)?);
        let gzipped = file.fill_buf().map_err(io)?.starts_with(&[0x1f, 0x8b]);
        let found = if gzipped {
            Self::parse(&mut BufReader::new(flate2::bufread::MultiGzDecoder::new(file)))
        } else {
            Self::parse(&mut file)
        };
        if found.0.orbits.is_empty() { Err(OrbitsError::None { path: path.to_owned() }) } else { Ok(found) }
    }

    /// Reads lines.
    pub fn parse(lines: &mut impl BufRead) -> (Self, Option<Rubbish>) {
        let mut all = Self::default();
        let mut rubbish: Option<Rubbish> = None;
        let count = |number: u64, reason: &'static str, rubbish: &mut Option<Rubbish>| {
            rubbish.get_or_insert(Rubbish { count: 0, first: number, reason }).count += 1;
        };
        let mut line = Vec::new();
        for number in 1.. {
            line.clear();
            let read = Read::by_ref(lines).take(LONGEST).read_until(b'\n', &mut line);
            match read {
                Ok(0) => break,
                // A gzip stream that was cut.
                Err(_) => {
                    count(number, "the file breaks off there", &mut rubbish);
                    break;
                }
                Ok(_) => {}
            }
            if line.starts_with(b"-----") && all.orbits.is_empty() {
                rubbish = None;
                continue;
            }
            if line.trim_ascii().is_empty() {
                continue;
            }
            match elements(&line) {
                Ok(elements) => {
                    all.orbits.push(Orbit::of(&elements));
                    all.names.push_str(&name(&line));
                    all.ends.push(all.names.len() as u32);
                }
                Err(reason) => count(number, reason, &mut rubbish),
            }
        }
        let mut epochs: Vec<f32> = all.orbits.iter().map(|orbit| orbit.epoch).collect();
        if !epochs.is_empty() {
            let middle = epochs.len() / 2;
            all.median_epoch = f64::from(*epochs.select_nth_unstable_by(middle, f32::total_cmp).1);
        }
        (all, rubbish)
    }

    /// Name of the orbit at `index`.
    pub fn name(&self, index: usize) -> &str {
        let from = if index == 0 { 0 } else { self.ends[index - 1] as usize };
        &self.names[from..self.ends[index] as usize]
    }

    /// Orbits.
    pub fn len(&self) -> usize {
        self.orbits.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.orbits.is_empty()
    }
}

/// The text between two columns, both counted from 1 and included.
fn columns(line: &[u8], from: usize, to: usize) -> Option<&str> {
    std::str::from_utf8(line.get(from - 1..to.min(line.len()))?).ok().map(str::trim)
}

/// The elements of a line, or what is wrong with it.
fn elements(line: &[u8]) -> Result<Elements, &'static str> {
    let number = |from, to| columns(line, from, to).and_then(|text| text.parse::<f64>().ok()).filter(|x| x.is_finite());
    let angle = |from, to| number(from, to).filter(|x| (-360.0..=360.0).contains(x));
    let found = Elements {
        epoch: columns(line, 21, 25).and_then(epoch).ok_or("no packed epoch in columns 21 to 25")?,
        mean_anomaly: angle(27, 35).ok_or("no mean anomaly in columns 27 to 35")?,
        perihelion: angle(38, 46).ok_or("no argument of perihelion in columns 38 to 46")?,
        node: angle(49, 57).ok_or("no node in columns 49 to 57")?,
        inclination: angle(60, 68).ok_or("no inclination in columns 60 to 68")?,
        eccentricity: number(71, 79)
            .filter(|e| (0.0..1.0).contains(e))
            .ok_or("no eccentricity from 0 to 1 in columns 71 to 79")?,
        axis: number(93, 103).filter(|a| (0.1..1e5).contains(a)).ok_or("no semi-major axis in columns 93 to 103")?,
        h: number(9, 13).filter(|h| (-5.0..50.0).contains(h)).unwrap_or(f64::NAN),
        g: number(15, 19).filter(|g| (-1.0..2.0).contains(g)).unwrap_or(0.15),
    };
    // Kepler's third law ties the daily motion to the axis: a shifted or damaged line breaks it.
    let motion = number(81, 91).ok_or("no daily motion in columns 81 to 91")?;
    let expected = (GAUSS / found.axis.powf(1.5)).to_degrees();
    if (motion / expected - 1.0).abs() > 1e-3 {
        return Err("daily motion and semi-major axis do not belong together");
    }
    Ok(found)
}

/// A packed epoch, `K205V` for 2020-05-31, as MJD (TT).
fn epoch(packed: &str) -> Option<f64> {
    let [century, decade, year, month, day] = packed.as_bytes() else { return None };
    let century = match century {
        b'I'..=b'L' => i32::from(century - b'I') + 18,
        _ => return None,
    };
    let digit = |byte: &u8| byte.is_ascii_digit().then(|| i32::from(byte - b'0'));
    let letter = |byte: &u8| match byte {
        b'1'..=b'9' => Some(byte - b'0'),
        b'A'..=b'V' => Some(byte - b'A' + 10),
        _ => None,
    };
    let year = century * 100 + digit(decade)? * 10 + digit(year)?;
    format!("{year:04}-{:02}-{:02}", letter(month)?, letter(day)?).parse::<Mjd>().ok().map(|time| time.0)
}

/// As ZTF writes it: the number alone, or the provisional designation without blanks; the packed one where the line has
/// no readable one.
fn name(line: &[u8]) -> String {
    let readable = columns(line, 167, 194).filter(|text| !text.is_empty());
    match readable {
        Some(text) => match text.strip_prefix('(').and_then(|rest| rest.split_once(')')) {
            Some((number, _)) => number.to_owned(),
            None => text.split_whitespace().collect(),
        },
        None => columns(line, 1, 7).unwrap_or_default().trim_start_matches('0').to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CERES: &str = "00001    3.4   0.15 K205V 162.68631   73.73161   80.28698   10.58862  0.0775571  0.21406009   2.7676569  0 MPO492748  6751 115 1801-2019 0.60 M-v 30h Williams   0000      (1) Ceres              20190915";

    #[test]
    fn names_are_those_of_ztf_packets() {
        assert_eq!(name(CERES.as_bytes()), "1");
        let unnumbered = CERES.replace("(1) Ceres  ", "2009 SA244 ");
        assert_eq!(name(unnumbered.as_bytes()), "2009SA244");
        assert_eq!(name(&CERES.as_bytes()[..110]), "1");
    }

    #[test]
    fn the_epoch_is_unpacked() {
        assert_eq!(epoch("K205V"), Some(59_000.0));
        assert_eq!(epoch("J9611"), Some(50_083.0));
        assert_eq!(epoch("K20XV"), None);
    }

    #[test]
    fn a_heading_is_no_rubbish_and_what_is_cut_or_shifted_is() {
        let text = format!("MINOR PLANET CENTER\n\n----------\n{CERES}\n{}\n{}\n", &CERES[..60], &CERES[1..]);
        let (orbits, rubbish) = Orbits::parse(&mut text.as_bytes());
        assert_eq!(orbits.len(), 1);
        let rubbish = rubbish.unwrap();
        assert_eq!((rubbish.count, rubbish.first), (2, 5));
        assert!(Orbits::parse(&mut format!("{CERES}\n").as_bytes()).1.is_none());
    }
}
