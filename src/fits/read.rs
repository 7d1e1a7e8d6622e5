//! Reading images.

use std::fs::File;
use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};

use ndarray::Array2;

use super::cfitsio::{Fault, Handle, IMAGE_HDU};
use super::whole::{Wholeness, structure};
use super::{FitsError, Header, gzip};

/// Longest side of an image that is accepted.
const MAX_SIDE: i64 = 65_536;
/// Most pixels of an image that are accepted: 1 GiB as f32.
const MAX_PIXELS: i64 = 1 << 28;
/// No compression of sky images reaches this ratio of pixels to bytes on disk.
const MAX_PIXELS_PER_BYTE: i64 = 1_100;

/// An image of a FITS file with its header.
#[derive(Debug, Clone)]
pub struct FitsImage {
    /// The file.
    pub path: PathBuf,
    /// `EXTNAME`, upper case, empty for the primary image.
    pub name: String,
    /// The header of the image (with the primary header's cards behind it for an extension).
    pub header: Header,
    /// The pixels, `[[y, x]]`; blank ones are NaN.
    pub pixels: Array2<f32>,
}

/// Reads the first two-dimensional image of a file.
pub fn read_image(path: &Path) -> Result<FitsImage, FitsError> {
    read(path, 1)?.into_iter().next().ok_or_else(|| FitsError::NoImage { path: path.to_owned() })
}

/// Reads every two-dimensional image of a file, for files that carry a mask or a variance plane.
pub fn read_planes(path: &Path) -> Result<Vec<FitsImage>, FitsError> {
    let planes = read(path, usize::MAX)?;
    if planes.is_empty() { Err(FitsError::NoImage { path: path.to_owned() }) } else { Ok(planes) }
}

/// Reads the header of the first two-dimensional image of a file, without its pixels.
pub fn read_header(path: &Path) -> Result<Header, FitsError> {
    let mut file = Open::new(path)?;
    let primary = file.header(0)?;
    for index in 0..file.count {
        if file.image_axes(index)?.is_some() {
            return file.image_header(index, &primary);
        }
    }
    Err(FitsError::NoImage { path: path.to_owned() })
}

fn read(path: &Path, most: usize) -> Result<Vec<FitsImage>, FitsError> {
    let mut file = Open::new(path)?;
    let primary = file.header(0)?;
    let mut images = Vec::new();
    for index in 0..file.count {
        if images.len() == most {
            break;
        }
        let Some((width, height)) = file.image_axes(index)? else { continue };
        let header = file.image_header(index, &primary)?;
        let mut pixels = Array2::zeros((height, width));
        let all = pixels.as_slice_mut().unwrap_or_default();
        file.handle.read_f32(all).map_err(|fault| damaged(path, fault))?;
        let name = header.text(&["EXTNAME"]).unwrap_or_default().to_ascii_uppercase();
        images.push(FitsImage { path: path.to_owned(), name, header, pixels });
    }
    Ok(images)
}

/// A file whose structure is whole.
pub(super) struct Open<'a> {
    path: &'a Path,
    pub(super) handle: Handle,
    bytes_on_disk: i64,
    pub(super) count: usize,
}

impl<'a> Open<'a> {
    pub(super) fn new(path: &'a Path) -> Result<Self, FitsError> {
        let open_error = |reason: String| FitsError::Open { path: path.to_owned(), reason };
        let metadata = std::fs::metadata(path).map_err(|e| open_error(e.to_string()))?;
        if metadata.is_dir() {
            return Err(open_error("is a folder".into()));
        }
        let mut file = File::open(path).map_err(|e| open_error(e.to_string()))?;
        let length = metadata.len();
        let mut magic = [0; 2];
        let packed = file.read(&mut magic).is_ok_and(|read| gzip::is_gzip(&magic[..read]));
        let mut handle = if packed {
            let whole = std::fs::read(path).map_err(|e| open_error(e.to_string()))?;
            let bytes = gzip::unpack(&whole).map_err(|reason| damaged(path, Fault(reason)))?;
            drop(whole);
            Self::check_structure(path, structure(&mut Cursor::new(&bytes), bytes.len() as u64))?;
            Handle::in_memory(bytes)
        } else {
            Self::check_structure(path, structure(&mut file, length))?;
            Handle::open(path)
        }
        .map_err(|fault| damaged(path, fault))?;
        let count = handle.hdu_count().map_err(|fault| damaged(path, fault))?;
        Ok(Self { path, handle, bytes_on_disk: length as i64, count })
    }

    fn check_structure(path: &Path, found: std::io::Result<Wholeness>) -> Result<(), FitsError> {
        match found {
            Ok(Wholeness::Whole) => Ok(()),
            Ok(Wholeness::Part(reason)) => Err(damaged(path, Fault(reason))),
            Ok(Wholeness::Foreign(reason)) => Err(FitsError::Foreign { path: path.to_owned(), reason }),
            Err(e) => Err(FitsError::Open { path: path.to_owned(), reason: e.to_string() }),
        }
    }

    pub(super) fn header(&mut self, index: usize) -> Result<Header, FitsError> {
        self.handle.go_to(index).map_err(|fault| damaged(self.path, fault))?;
        let text = self.handle.header_text().map_err(|fault| damaged(self.path, fault))?;
        Ok(Header::parse(&text))
    }

    fn image_header(&mut self, index: usize, primary: &Header) -> Result<Header, FitsError> {
        let mut header = self.header(index)?;
        if index > 0 {
            for card in primary.cards() {
                if header.get(&card.keyword).is_none() {
                    header.set(&card.keyword, card.value.clone(), &card.comment);
                }
            }
        }
        Ok(header)
    }

    /// Width and height of the unit where it is a two-dimensional image of acceptable size.
    fn image_axes(&mut self, index: usize) -> Result<Option<(usize, usize)>, FitsError> {
        let kind = self.handle.go_to(index).map_err(|fault| damaged(self.path, fault))?;
        if kind != IMAGE_HDU {
            return Ok(None);
        }
        let axes = self.handle.axes().map_err(|fault| damaged(self.path, fault))?;
        let [width, height] = match axes.as_slice() {
            [width, height] => [*width, *height],
            [width, height, rest @ ..] if rest.iter().all(|&n| n == 1) => [*width, *height],
            _ => return Ok(None),
        };
        for (keyword, value) in [("NAXIS1", width), ("NAXIS2", height)] {
            if !(1..=MAX_SIDE).contains(&value) {
                return Err(self.geometry(keyword, value, format!("a side has 1 to {MAX_SIDE} pixels")));
            }
        }
        let pixels = width * height;
        if pixels > MAX_PIXELS {
            return Err(self.geometry("NAXIS1 x NAXIS2", pixels, format!("at most {MAX_PIXELS} pixels are read")));
        }
        if pixels / MAX_PIXELS_PER_BYTE > self.bytes_on_disk {
            let reason = format!("the file has only {} bytes; copy it again from the camera", self.bytes_on_disk);
            return Err(self.geometry("NAXIS1 x NAXIS2", pixels, reason));
        }
        Ok(Some((width as usize, height as usize)))
    }

    fn geometry(&self, keyword: &str, value: i64, reason: String) -> FitsError {
        FitsError::Geometry {
            path: self.path.to_owned(),
            keyword: keyword.to_owned(),
            value: value.to_string(),
            reason,
        }
    }
}

pub(super) fn damaged(path: &Path, fault: Fault) -> FitsError {
    FitsError::Damaged { path: path.to_owned(), reason: fault.0 }
}
