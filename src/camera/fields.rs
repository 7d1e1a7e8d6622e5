//! The list of fields: where each lies, for frames whose headers name a field and no place, or a
//! place and no field.
//!
//! A text file, one field a line: `name,ra,dec` in degrees; a first line that is no field is a
//! heading, `#` begins a comment.

/// How far a pointing may lie from the centre of the field it belongs to, degrees.
const NEAR_DEG: f64 = 0.5;

/// The fields.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FieldList(Vec<(String, f64, f64)>);

impl FieldList {
    /// From the text of the file.
    ///
    /// # Errors
    ///
    /// The number of the first line that is no field, and what it holds.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut fields = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or("").trim();
            if line.is_empty() {
                continue;
            }
            match field(line) {
                Some(field) => fields.push(field),
                None if number == 0 => {}
                None => {
                    return Err(format!("line {}: \"{line}\" is no field; write name,ra,dec in degrees", number + 1));
                }
            }
        }
        Ok(Self(fields))
    }

    /// Number of fields.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Where a field lies: right ascension and declination, degrees.
    pub fn place_of(&self, name: &str) -> Option<(f64, f64)> {
        let found = self.0.iter().find(|(other, ..)| other.eq_ignore_ascii_case(name.trim()));
        found.map(|(_, ra, dec)| (*ra, *dec))
    }

    /// The field whose centre is nearest to a place, when it is near.
    pub fn at(&self, (ra, dec): (f64, f64)) -> Option<&str> {
        let distance = |other: &(String, f64, f64)| {
            let across = ((other.1 - ra + 540.0).rem_euclid(360.0) - 180.0) * dec.to_radians().cos();
            across.hypot(other.2 - dec)
        };
        let nearest = self.0.iter().min_by(|a, b| distance(a).total_cmp(&distance(b)))?;
        (distance(nearest) <= NEAR_DEG).then_some(nearest.0.as_str())
    }
}

fn field(line: &str) -> Option<(String, f64, f64)> {
    let mut parts = line.split(',').map(str::trim);
    let (name, ra, dec) = (parts.next()?, parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    let possible = !name.is_empty() && (0.0..=360.0).contains(&ra) && (-90.0..=90.0).contains(&dec);
    possible.then(|| (name.to_owned(), ra, dec))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_found_by_name_and_by_place() {
        let fields = FieldList::parse("field,ra,dec\n512, 10.68, 41.27 # M31\n\n513,359.9,-3\n").unwrap();
        assert_eq!((fields.len(), fields.place_of("512")), (2, Some((10.68, 41.27))));
        assert_eq!(fields.at((0.1, -3.1)), Some("513"), "across the zero of right ascension");
        assert_eq!((fields.at((20.0, 41.0)), fields.place_of("514")), (None, None));
    }

    #[test]
    fn a_line_that_is_no_field_is_named() {
        let error = FieldList::parse("a,1,2\nb,400,2\n").unwrap_err();
        assert!(error.starts_with("line 2: \"b,400,2\""), "{error}");
    }
}
