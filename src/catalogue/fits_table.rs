//! Tables in FITS files: the first binary or text table in the file.

use std::path::Path;

use super::columns::{Quantity, columns};
use super::{CatalogueError, CatalogueStar};
use crate::fits::table::Table;

/// Rows that are read at once.
const ROWS: usize = 16_384;

/// Calls `take` with every row's number and star, or the reason why it is none.
pub fn read(
    path: &Path,
    take: &mut dyn FnMut(u64, Result<CatalogueStar, &'static str>) -> Result<(), CatalogueError>,
) -> Result<(), CatalogueError> {
    let table = |reason: String| CatalogueError::Table { path: path.to_owned(), reason };
    let mut file = Table::open(path).map_err(|error| table(error.to_string()))?;
    let at = columns(file.names()).map_err(table)?;
    let rows = file.rows();
    let mut first = 0;
    while first < rows {
        let count = ROWS.min(rows - first);
        let mut numbers = |quantity: Quantity| match at[quantity.index()] {
            Some(column) => file.numbers(column, first, count).map_err(|error| table(error.to_string())),
            None => Ok(vec![f64::NAN; count]),
        };
        let (ra, dec) = (numbers(Quantity::Ra)?, numbers(Quantity::Dec)?);
        let griz = [0, 1, 2, 3].map(|band| numbers(Quantity::Griz(band)));
        let (gaia, score) = (numbers(Quantity::Gaia)?, numbers(Quantity::Score)?);
        let [g, r, i, z] = griz;
        let griz = [g?, r?, i?, z?];
        let ids = match at[Quantity::Id.index()] {
            Some(column) => Some(file.integers(column, first, count).map_err(|error| table(error.to_string()))?),
            None => None,
        };
        for k in 0..count {
            let id = ids.as_ref().map(|ids| ids[k]);
            let star = super::build::checked(
                (ra[k], dec[k]),
                id,
                [griz[0][k], griz[1][k], griz[2][k], griz[3][k]],
                gaia[k],
                score[k],
            );
            take((first + k + 1) as u64, star)?;
        }
        first += count;
    }
    Ok(())
}
