//! Reading columns of numbers from tables.

use std::path::Path;

use super::cfitsio::{Fault, TABLES};
use super::read::{Open, damaged};
use super::{FitsError, Header};

/// The first table of a file.
pub struct Table<'a> {
    path: &'a Path,
    file: Open<'a>,
    header: Header,
    names: Vec<String>,
    rows: usize,
}

impl<'a> Table<'a> {
    /// Opens the first binary or text table of a file.
    ///
    /// # Errors
    ///
    /// When the file is not whole, or holds no table.
    pub fn open(path: &'a Path) -> Result<Self, FitsError> {
        let mut file = Open::new(path)?;
        for index in 0..file.count {
            let kind = file.handle.go_to(index).map_err(|fault| damaged(path, fault))?;
            if !TABLES.contains(&kind) {
                continue;
            }
            let header = file.header(index)?;
            let columns = header.number(&["TFIELDS"]).map_or(0, |n| n.clamp(0.0, 999.0) as i64);
            let name = |n: i64| header.text(&[&format!("TTYPE{n}")]).unwrap_or_default().trim().to_owned();
            let names = (1..=columns).map(name).collect();
            let rows = file.handle.row_count().map_err(|fault| damaged(path, fault))?;
            return Ok(Self { path, file, header, names, rows });
        }
        let reason = "holds no table; give a FITS file with a table of stars".into();
        Err(FitsError::Foreign { path: path.to_owned(), reason })
    }

    /// Names of the columns.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// `count` numbers of a column from row `first` on, both counted from 0; blank ones are NaN.
    ///
    /// # Errors
    ///
    /// When the column does not hold one number a row.
    pub fn numbers(&mut self, column: usize, first: usize, count: usize) -> Result<Vec<f64>, FitsError> {
        let mut numbers = vec![0.0; count];
        self.one_a_row(column)?;
        self.file.handle.read_column(column, first, &mut numbers).map_err(|fault| self.fault(column, fault))?;
        Ok(numbers)
    }

    /// The same of whole numbers; blank ones are 0.
    ///
    /// # Errors
    ///
    /// As above.
    pub fn integers(&mut self, column: usize, first: usize, count: usize) -> Result<Vec<i64>, FitsError> {
        let mut numbers = vec![0; count];
        self.one_a_row(column)?;
        self.file.handle.read_integers(column, first, &mut numbers).map_err(|fault| self.fault(column, fault))?;
        Ok(numbers)
    }

    /// Binary columns say how many numbers they hold before their type letter: `1D`, `D`, `3E`.
    fn one_a_row(&self, column: usize) -> Result<(), FitsError> {
        let form = self.header.text(&[&format!("TFORM{}", column + 1)]).unwrap_or_default();
        let digits: String = form.trim().chars().take_while(char::is_ascii_digit).collect();
        let text = form.trim()[digits.len()..].starts_with('A') && !digits.is_empty();
        if text || !(digits.is_empty() || digits == "1") {
            let what = format!("has the form {} and not one number a row", form.trim());
            return Err(self.fault(column, Fault(what)));
        }
        Ok(())
    }

    fn fault(&self, column: usize, fault: Fault) -> FitsError {
        let name = self.names.get(column).map_or("", String::as_str);
        FitsError::Keyword {
            path: self.path.to_owned(),
            keyword: format!("TTYPE{} ({name})", column + 1),
            reason: format!("cannot be read: {}; write the table again with numbers in that column", fault.0),
        }
    }
}
