//! The one file that calls cfitsio: a handle that closes itself, and statuses as text.

use std::ffi::{CStr, CString, c_void};
use std::os::raw::{c_char, c_int, c_long};
use std::path::Path;
use std::ptr;

use fitsio::sys;

/// `IMAGE_HDU` of fitsio.h.
pub(super) const IMAGE_HDU: c_int = 0;
/// `ASCII_TBL` and `BINARY_TBL` of fitsio.h.
pub(super) const TABLES: [c_int; 2] = [1, 2];
/// `FLOAT_IMG` of fitsio.h.
pub(super) const FLOAT_IMG: c_int = -32;
/// `USHORT_IMG` of fitsio.h.
pub(super) const USHORT_IMG: c_int = 20;
const TFLOAT: c_int = 42;
const TUSHORT: c_int = 20;
const READONLY: c_int = 0;

/// What cfitsio said.
#[derive(Debug)]
pub(super) struct Fault(pub String);

fn check(status: c_int) -> Result<(), Fault> {
    if status == 0 {
        return Ok(());
    }
    let mut text = [0 as c_char; 81];
    // SAFETY: ffgerr writes at most 31 characters and a NUL; ffcmsg takes nothing.
    let message = unsafe {
        sys::ffgerr(status, text.as_mut_ptr());
        sys::ffcmsg();
        CStr::from_ptr(text.as_ptr()).to_string_lossy().into_owned()
    };
    Err(Fault(message))
}

/// An open FITS file.
pub(super) struct Handle {
    file: *mut sys::fitsfile,
    /// What is read where the file lies in memory: freed after the file is closed.
    memory: Option<Box<Memory>>,
}

/// A file in memory. cfitsio keeps the addresses of `start` and `length`, hence the box.
struct Memory {
    start: *mut c_void,
    length: usize,
    _bytes: Vec<u8>,
}

impl Handle {
    /// Opens the file of this very name (no extended file name syntax) for reading.
    pub(super) fn open(path: &Path) -> Result<Self, Fault> {
        let name = c_path(path)?;
        let mut file = ptr::null_mut();
        let mut status = 0;
        // SAFETY: the name is NUL-terminated and lives through the call.
        unsafe { sys::ffdkopn(&mut file, name.as_ptr(), READONLY, &mut status) };
        check(status)?;
        Ok(Self { file, memory: None })
    }

    /// Opens a file that lies in memory for reading.
    pub(super) fn in_memory(mut bytes: Vec<u8>) -> Result<Self, Fault> {
        let (start, length) = (bytes.as_mut_ptr().cast(), bytes.len());
        let mut memory = Box::new(Memory { start, length, _bytes: bytes });
        let mut file = ptr::null_mut();
        let mut status = 0;
        // SAFETY: the buffer and the box that holds its address live as long as the handle; a file that
        // is opened for reading is not written to and not grown.
        unsafe {
            let (start, length) = (&raw mut memory.start, &raw mut memory.length);
            sys::ffomem(&mut file, c"memory".as_ptr(), READONLY, start, length, 0, None, &mut status);
        }
        check(status)?;
        Ok(Self { file, memory: Some(memory) })
    }

    /// Creates the file of this very name; it must not exist.
    pub(super) fn create(path: &Path) -> Result<Self, Fault> {
        let name = c_path(path)?;
        let mut file = ptr::null_mut();
        let mut status = 0;
        // SAFETY: as above.
        unsafe { sys::ffdkinit(&mut file, name.as_ptr(), &mut status) };
        check(status)?;
        Ok(Self { file, memory: None })
    }

    /// Closes it and says whether everything was written.
    pub(super) fn close(mut self) -> Result<(), Fault> {
        let mut status = 0;
        // SAFETY: the handle is open; it is forgotten right after.
        unsafe { sys::ffclos(self.file, &mut status) };
        self.file = ptr::null_mut();
        check(status)
    }

    /// Number of header-data units.
    pub(super) fn hdu_count(&mut self) -> Result<usize, Fault> {
        let (mut count, mut status) = (0, 0);
        // SAFETY: plain out-parameters.
        unsafe { sys::ffthdu(self.file, &mut count, &mut status) };
        check(status).map(|()| count.max(0) as usize)
    }

    /// Moves to the unit `index`, counted from 0, and gives its kind.
    pub(super) fn go_to(&mut self, index: usize) -> Result<c_int, Fault> {
        let (mut kind, mut status) = (0, 0);
        // SAFETY: plain out-parameters.
        unsafe { sys::ffmahd(self.file, c_int::try_from(index).unwrap_or(c_int::MAX - 1) + 1, &mut kind, &mut status) };
        check(status).map(|()| kind)
    }

    /// Lengths of the axes of the image here, NAXIS1 first; seen through Rice compression.
    pub(super) fn axes(&mut self) -> Result<Vec<i64>, Fault> {
        let (mut count, mut status) = (0, 0);
        let mut lengths = [0 as c_long; 9];
        // SAFETY: nine lengths at most are written.
        unsafe {
            sys::ffgidm(self.file, &mut count, &mut status);
            if status == 0 && (0..=9).contains(&count) {
                sys::ffgisz(self.file, count, lengths.as_mut_ptr(), &mut status);
            }
        }
        check(status)?;
        Ok(lengths.iter().take(count.clamp(0, 9) as usize).copied().collect())
    }

    /// The header here as 80-character cards, compression keywords translated back.
    pub(super) fn header_text(&mut self) -> Result<String, Fault> {
        let mut text = ptr::null_mut();
        let (mut count, mut status) = (0, 0);
        // SAFETY: cfitsio allocates the string; it is copied and freed here.
        unsafe {
            sys::ffcnvthdr2str(self.file, 0, ptr::null_mut(), 0, &mut text, &mut count, &mut status);
            check(status)?;
            let copy = CStr::from_ptr(text).to_string_lossy().into_owned();
            sys::fffree(text.cast(), &mut status);
            Ok(copy)
        }
    }

    /// Reads `pixels.len()` pixels from the first on; blank ones become NaN.
    pub(super) fn read_f32(&mut self, pixels: &mut [f32]) -> Result<(), Fault> {
        let mut first = [1 as c_long; 9];
        let mut null = f32::NAN;
        let (mut any_null, mut status) = (0, 0);
        // SAFETY: the slice has room for as many pixels as are asked for.
        unsafe {
            sys::ffgpxv(
                self.file,
                TFLOAT,
                first.as_mut_ptr(),
                pixels.len() as i64,
                (&raw mut null).cast(),
                pixels.as_mut_ptr().cast(),
                &mut any_null,
                &mut status,
            );
        }
        check(status)
    }

    /// Rows of the table here.
    pub(super) fn row_count(&mut self) -> Result<usize, Fault> {
        let (mut rows, mut status) = (0, 0);
        // SAFETY: plain out-parameters.
        unsafe { sys::ffgnrwll(self.file, &mut rows, &mut status) };
        check(status).map(|()| usize::try_from(rows).unwrap_or(0))
    }

    /// Numbers of a column of one number a row, from row `first` on (both counted from 0); blank ones become NaN.
    pub(super) fn read_column(&mut self, column: usize, first: usize, numbers: &mut [f64]) -> Result<(), Fault> {
        let (mut any_null, mut status) = (0, 0);
        let count = numbers.len() as i64;
        // SAFETY: the slice has room for as many numbers as are asked for.
        unsafe {
            let out = numbers.as_mut_ptr();
            let (column, first) = (column as c_int + 1, first as i64 + 1);
            sys::ffgcvd(self.file, column, first, 1, count, f64::NAN, out, &mut any_null, &mut status);
        }
        check(status)
    }

    /// The same of integers; blank ones become 0.
    pub(super) fn read_integers(&mut self, column: usize, first: usize, numbers: &mut [i64]) -> Result<(), Fault> {
        let (mut any_null, mut status) = (0, 0);
        let count = numbers.len() as i64;
        // SAFETY: as above.
        unsafe {
            let out = numbers.as_mut_ptr().cast();
            let (column, first) = (column as c_int + 1, first as i64 + 1);
            sys::ffgcvjj(self.file, column, first, 1, count, 0, out, &mut any_null, &mut status);
        }
        check(status)
    }

    /// Appends an image unit of `width` × `height`.
    pub(super) fn append_image(&mut self, kind: c_int, width: usize, height: usize) -> Result<(), Fault> {
        let mut axes = [width as c_long, height as c_long];
        let naxis = if width == 0 { 0 } else { 2 };
        let mut status = 0;
        // SAFETY: two lengths are read.
        unsafe { sys::ffcrim(self.file, kind, naxis, axes.as_mut_ptr(), &mut status) };
        check(status)
    }

    /// Appends one 80-character card.
    pub(super) fn append_card(&mut self, card: &str) -> Result<(), Fault> {
        let card = CString::new(card).map_err(|_| Fault("a header card holds a NUL".into()))?;
        let mut status = 0;
        // SAFETY: NUL-terminated.
        unsafe { sys::ffprec(self.file, card.as_ptr(), &mut status) };
        check(status)
    }

    /// Writes all pixels of the image here.
    pub(super) fn write_f32(&mut self, pixels: &[f32]) -> Result<(), Fault> {
        self.write(TFLOAT, pixels.as_ptr().cast(), pixels.len())
    }

    /// Writes all pixels of the image here.
    pub(super) fn write_u16(&mut self, pixels: &[u16]) -> Result<(), Fault> {
        self.write(TUSHORT, pixels.as_ptr().cast(), pixels.len())
    }

    fn write(&mut self, kind: c_int, pixels: *const c_void, count: usize) -> Result<(), Fault> {
        let mut first = [1 as c_long; 9];
        let mut status = 0;
        // SAFETY: `count` pixels of `kind` stand behind the pointer; cfitsio does not write to them.
        unsafe {
            sys::ffppx(self.file, kind, first.as_mut_ptr(), count as i64, pixels.cast_mut(), &mut status);
        }
        check(status)
    }

    /// Writes `CHECKSUM` and `DATASUM` of the unit here.
    pub(super) fn write_checksum(&mut self) -> Result<(), Fault> {
        let mut status = 0;
        // SAFETY: nothing but the handle.
        unsafe { sys::ffpcks(self.file, &mut status) };
        check(status)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if !self.file.is_null() {
            let mut status = 0;
            // SAFETY: the handle is open and not used again.
            unsafe {
                sys::ffclos(self.file, &mut status);
                sys::ffcmsg();
            }
        }
        self.memory = None;
    }
}

fn c_path(path: &Path) -> Result<CString, Fault> {
    use std::os::unix::ffi::OsStrExt;
    CString::new(path.as_os_str().as_bytes()).map_err(|_| Fault("the file name holds a NUL".into()))
}
