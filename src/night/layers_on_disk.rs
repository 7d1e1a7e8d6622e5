//! Frames on the grid of a reference, kept in a temporary file each, so that a reference of many
//! frames can be combined band by band in bounded memory.
//!
//! Row by row: pixels and variance (f32), mask (u16), in this machine's byte order. The files live as
//! long as the value; nobody else reads them.

use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use ndarray::Array2;

use crate::register::coadd::Layer;

/// The layers of one reference in the making.
#[derive(Debug)]
pub struct LayersOnDisk {
    folder: PathBuf,
    shape: (usize, usize),
    files: Vec<File>,
}

impl LayersOnDisk {
    /// For layers of `shape` (rows, columns); their files are made in `folder` and have no name there.
    pub fn new(folder: &Path, shape: (usize, usize)) -> Self {
        Self { folder: folder.to_owned(), shape, files: Vec::new() }
    }

    fn bytes_a_row(&self) -> usize {
        self.shape.1 * (4 + 4 + 2)
    }

    /// Keeps a layer.
    ///
    /// # Errors
    ///
    /// When the disk has no room or cannot be written.
    pub fn add(&mut self, layer: &Layer) -> io::Result<()> {
        let path = self.folder.join(format!(".nightjar-layer-{}-{}", std::process::id(), self.files.len()));
        let file = File::options().read(true).write(true).create_new(true).open(&path)?;
        // An open file without a name goes away by itself, whatever ends the program.
        std::fs::remove_file(&path)?;
        let mut out = BufWriter::with_capacity(1 << 20, file);
        for y in 0..self.shape.0 {
            for value in layer.pixels.row(y).iter().chain(layer.variance.row(y)) {
                out.write_all(&value.to_ne_bytes())?;
            }
            for bits in layer.mask.row(y) {
                out.write_all(&bits.to_ne_bytes())?;
            }
        }
        self.files.push(out.into_inner().map_err(io::IntoInnerError::into_error)?);
        Ok(())
    }

    /// The rows `rows` of layer `index`.
    ///
    /// # Errors
    ///
    /// When the disk cannot be read.
    pub fn rows(&mut self, index: usize, rows: Range<usize>) -> io::Result<Layer> {
        let (width, stride) = (self.shape.1, self.bytes_a_row());
        let shape = (rows.len(), width);
        let mut layer =
            Layer { pixels: Array2::zeros(shape), variance: Array2::zeros(shape), mask: Array2::zeros(shape) };
        let file = self.files.get_mut(index).ok_or(io::ErrorKind::NotFound)?;
        file.seek(SeekFrom::Start((rows.start * stride) as u64))?;
        let mut line = vec![0_u8; stride];
        for y in 0..shape.0 {
            file.read_exact(&mut line)?;
            let (floats, bits) = line.split_at(8 * width);
            let (values, _) = floats.as_chunks::<4>();
            let targets = layer.pixels.row_mut(y).into_iter().chain(layer.variance.row_mut(y));
            targets.zip(values).for_each(|(target, bytes)| *target = f32::from_ne_bytes(*bytes));
            let (bits, _) = bits.as_chunks::<2>();
            layer.mask.row_mut(y).iter_mut().zip(bits).for_each(|(target, bytes)| *target = u16::from_ne_bytes(*bytes));
        }
        Ok(layer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_back_as_they_were_and_nothing_stays_in_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let mut layers = LayersOnDisk::new(folder.path(), (5, 7));
        let layer = |k: usize| Layer {
            pixels: Array2::from_shape_fn((5, 7), |(y, x)| (y * 10 + x + k) as f32 - 0.5),
            variance: Array2::from_elem((5, 7), k as f32 + 0.25),
            mask: Array2::from_shape_fn((5, 7), |(y, x)| (y * 1000 + x) as u16),
        };
        layers.add(&layer(0)).unwrap();
        layers.add(&layer(100)).unwrap();
        let read = layers.rows(1, 2..4).unwrap();
        let whole = layer(100);
        assert_eq!(read.pixels, whole.pixels.slice(ndarray::s![2..4, ..]));
        assert_eq!(read.variance, whole.variance.slice(ndarray::s![2..4, ..]));
        assert_eq!(read.mask, whole.mask.slice(ndarray::s![2..4, ..]));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        assert!(layers.rows(0, 4..6).is_err(), "beyond the last row");
    }
}
