//! A FITS header as an ordered list of cards.

/// The value of a card.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A character string, trailing blanks removed.
    Text(String),
    /// An integer.
    Integer(i64),
    /// A floating-point number.
    Real(f64),
    /// T or F.
    Logical(bool),
    /// `COMMENT`, `HISTORY`, or a keyword without a value.
    Empty,
}

/// One card: keyword, value, comment.
#[derive(Debug, Clone, PartialEq)]
pub struct Card {
    /// The keyword, upper case.
    pub keyword: String,
    /// Its value.
    pub value: Value,
    /// The comment after the slash, or the text of `COMMENT` and `HISTORY`.
    pub comment: String,
}

/// An ordered list of cards, without those that describe the array itself when it is written.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Header {
    cards: Vec<Card>,
}

impl Header {
    /// A header without cards.
    pub fn new() -> Self {
        Self::default()
    }

    /// All cards in order.
    pub fn cards(&self) -> &[Card] {
        &self.cards
    }

    /// From the 80-character cards of a header, without `END`.
    pub fn parse(block: &str) -> Self {
        let bytes = block.as_bytes();
        let cards = bytes.chunks(80).filter_map(|card| parse_card(&String::from_utf8_lossy(card))).collect();
        Self { cards }
    }

    /// The value of `keyword`.
    pub fn get(&self, keyword: &str) -> Option<&Value> {
        self.cards.iter().find(|card| card.keyword == keyword).map(|card| &card.value)
    }

    /// The first of `keywords` (synonyms) that holds a number; numbers in quotes count, NaN and
    /// infinities do not.
    pub fn number(&self, keywords: &[&str]) -> Option<f64> {
        keywords.iter().find_map(|keyword| match self.get(keyword)? {
            Value::Integer(i) => Some(*i as f64),
            Value::Real(x) => Some(*x).filter(|x| x.is_finite()),
            Value::Text(text) => text.trim().parse::<f64>().ok().filter(|x| x.is_finite()),
            Value::Logical(_) | Value::Empty => None,
        })
    }

    /// The first of `keywords` (synonyms) that holds a text that is not blank; numbers are written out.
    pub fn text(&self, keywords: &[&str]) -> Option<String> {
        keywords.iter().find_map(|keyword| match self.get(keyword)? {
            Value::Text(text) => Some(text.trim().to_owned()).filter(|t| !t.is_empty()),
            Value::Integer(i) => Some(i.to_string()),
            Value::Real(x) => Some(x.to_string()),
            Value::Logical(_) | Value::Empty => None,
        })
    }

    /// Sets `keyword`, in place where it stands already, at the end where it does not.
    pub fn set(&mut self, keyword: &str, value: impl Into<Value>, comment: &str) -> &mut Self {
        let card = Card { keyword: keyword.to_owned(), value: value.into(), comment: comment.to_owned() };
        match self.cards.iter_mut().find(|c| c.keyword == keyword) {
            Some(old) => *old = card,
            None => self.cards.push(card),
        }
        self
    }

    /// Adds a `HISTORY` line.
    pub fn history(&mut self, line: &str) -> &mut Self {
        self.cards.push(Card { keyword: "HISTORY".into(), value: Value::Empty, comment: line.into() });
        self
    }

    /// Removes every card of `keyword`.
    pub fn remove(&mut self, keyword: &str) -> &mut Self {
        self.cards.retain(|card| card.keyword != keyword);
        self
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<f64> for Value {
    fn from(number: f64) -> Self {
        Self::Real(number)
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Integer(number)
    }
}

impl From<bool> for Value {
    fn from(truth: bool) -> Self {
        Self::Logical(truth)
    }
}

fn parse_card(card: &str) -> Option<Card> {
    let split = card.char_indices().nth(8).map_or(card.len(), |(at, _)| at);
    let (keyword, rest) = card.split_at(split);
    let keyword = keyword.trim().to_ascii_uppercase();
    if keyword == "HIERARCH" {
        let (name, tail) = rest.split_once('=')?;
        let (value, comment) = parse_value(tail);
        return Some(Card { keyword: name.trim().to_ascii_uppercase(), value, comment });
    }
    if keyword.is_empty() || keyword == "END" || keyword == "CONTINUE" {
        return None;
    }
    match rest.strip_prefix('=') {
        Some(tail) if keyword != "COMMENT" && keyword != "HISTORY" => {
            let (value, comment) = parse_value(tail);
            Some(Card { keyword, value, comment })
        }
        _ => Some(Card { keyword, value: Value::Empty, comment: rest.trim_end().to_owned() }),
    }
}

/// Value and comment of the part after `=` (FITS standard 4.0, section 4.2).
fn parse_value(field: &str) -> (Value, String) {
    let field = field.trim_start();
    if let Some(quoted) = field.strip_prefix('\'') {
        let mut text = String::new();
        let mut characters = quoted.char_indices().peekable();
        while let Some((at, character)) = characters.next() {
            if character != '\'' {
                text.push(character);
            } else if characters.peek().is_some_and(|(_, next)| *next == '\'') {
                text.push('\'');
                characters.next();
            } else {
                let comment = quoted[at + 1..].split_once('/').map_or("", |(_, c)| c).trim();
                return (Value::Text(text.trim_end().to_owned()), comment.to_owned());
            }
        }
        return (Value::Text(text.trim_end().to_owned()), String::new());
    }
    let (value, comment) = field.split_once('/').unwrap_or((field, ""));
    let value = value.trim();
    let parsed = match value {
        "T" => Value::Logical(true),
        "F" => Value::Logical(false),
        "" => Value::Empty,
        number => match (number.parse::<i64>(), number.replace(['D', 'd'], "E").parse::<f64>()) {
            (Ok(integer), _) => Value::Integer(integer),
            (_, Ok(real)) => Value::Real(real),
            _ => Value::Text(number.to_owned()),
        },
    };
    (parsed, comment.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(cards: &[&str]) -> Header {
        Header::parse(&cards.iter().map(|card| format!("{card:<80}")).collect::<String>())
    }

    #[test]
    fn every_kind_of_value_is_read() {
        let header = parse(&[
            "SIMPLE  =                    T / conforms",
            "NAXIS1  =                 3072",
            "GAIN    =                 6.2D0 / e-/ADU",
            "OBJECT  = 'it''s M31 '          / name / with slash",
            "EXPTIME = '30.0    '",
            "HISTORY made by hand",
        ]);
        assert_eq!(header.get("SIMPLE"), Some(&Value::Logical(true)));
        assert_eq!(header.number(&["NAXIS1"]), Some(3072.0));
        assert_eq!(header.number(&["EGAIN", "GAIN"]), Some(6.2));
        assert_eq!(header.text(&["OBJECT"]).as_deref(), Some("it's M31"));
        assert_eq!(header.number(&["EXPTIME"]), Some(30.0));
        assert_eq!(header.cards()[5].comment, "made by hand");
    }

    #[test]
    fn nan_is_not_a_number_that_a_header_can_hold() {
        assert_eq!(parse(&["GAIN    = NaN"]).number(&["GAIN"]), None);
        assert_eq!(parse(&["GAIN    = 'NaN'"]).number(&["GAIN"]), None);
    }
}
