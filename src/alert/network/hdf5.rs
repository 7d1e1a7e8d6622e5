//! The weights of a Keras model out of an HDF5 file.
//!
//! Reads what Keras 2 writes, and that only: superblock 0, groups as symbol tables, contiguous or
//! compact datasets of 32-bit little-endian floats (The HDF Group, "HDF5 File Format Specification
//! Version 3.0"; the names in the code are its). The C library would be the largest dependency of
//! the program for a file of a few hundred lines of structure.
//!
//! ```text
//! superblock ─► root object header ─► symbol table: B-tree (TREE) of nodes (SNOD), names in a heap (HEAP)
//!                                        └► object header of a group (again) or of a dataset:
//!                                           dataspace (shape), datatype, layout (where the numbers are)
//! ```

use std::collections::BTreeMap;

/// Objects that a file may hold; a model of braai's kind has fewer than a hundred.
const MOST_OBJECTS: usize = 10_000;
/// Numbers that all datasets together may hold.
const MOST_VALUES: usize = 64 << 20;

/// Why a file of weights cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WeightsError {
    /// It ends early, or an address points outside of it.
    #[error("the file of weights is cut off or damaged")]
    Damaged,
    /// It is something else.
    #[error("not an HDF5 file of the kind that Keras 2 writes: {0}")]
    Unusual(&'static str),
}

/// An array with its shape.
#[derive(Debug, Clone, PartialEq)]
pub struct Array {
    /// Length along each axis, the last varies fastest.
    pub shape: Vec<usize>,
    /// The values.
    pub values: Vec<f32>,
}

/// All arrays by their path, such as `conv1/conv1/kernel:0`.
pub fn read_arrays(file: &[u8]) -> Result<BTreeMap<String, Array>, WeightsError> {
    let bytes = Bytes(file);
    if bytes.slice(0, 8)? != b"\x89HDF\r\n\x1a\n" {
        return Err(WeightsError::Unusual("it has no HDF5 signature"));
    }
    if bytes.number(8, 1)? != 0 || bytes.number(13, 2)? != 0x0808 {
        return Err(WeightsError::Unusual("its superblock is not of version 0 with 8-byte addresses"));
    }
    // The root group's symbol table entry ends the superblock: name offset, object header.
    let root = bytes.number(24 + 4 * 8 + 8, 8)?;
    let mut found = BTreeMap::new();
    let (mut objects, mut values) = (0, 0);
    let mut waiting = vec![(String::new(), root)];
    while let Some((path, address)) = waiting.pop() {
        objects += 1;
        if objects > MOST_OBJECTS {
            return Err(WeightsError::Damaged);
        }
        let object = Object::at(bytes, address)?;
        if let Some((tree, heap)) = object.symbols {
            for (name, child) in members(bytes, tree, heap)? {
                let path = if path.is_empty() { name } else { format!("{path}/{name}") };
                waiting.push((path, child));
            }
        } else if let Some(array) = object.array(bytes)? {
            values += array.values.len();
            if values > MOST_VALUES {
                return Err(WeightsError::Damaged);
            }
            found.insert(path, array);
        }
    }
    Ok(found)
}

/// Bounded access to the file.
#[derive(Clone, Copy)]
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn slice(self, at: usize, length: usize) -> Result<&'a [u8], WeightsError> {
        let end = at.checked_add(length).ok_or(WeightsError::Damaged)?;
        self.0.get(at..end).ok_or(WeightsError::Damaged)
    }

    /// A little-endian number of `length` bytes (up to 8).
    fn number(self, at: usize, length: usize) -> Result<usize, WeightsError> {
        let mut wide = [0; 8];
        wide[..length].copy_from_slice(self.slice(at, length)?);
        usize::try_from(u64::from_le_bytes(wide)).map_err(|_| WeightsError::Damaged)
    }
}

/// What the messages of an object header say, as far as it is needed.
#[derive(Default)]
struct Object {
    /// Addresses of B-tree and heap, for a group.
    symbols: Option<(usize, usize)>,
    shape: Option<Vec<usize>>,
    is_f32: bool,
    /// Where the values are.
    values: Option<(usize, usize)>,
}

impl Object {
    /// From an object header of version 1 and its continuations.
    fn at(bytes: Bytes<'_>, address: usize) -> Result<Self, WeightsError> {
        if bytes.number(address, 1)? != 1 {
            return Err(WeightsError::Unusual("it has object headers of another version than 1"));
        }
        let mut left = bytes.number(address + 2, 2)?;
        // The prefix is 12 bytes, padded to 16.
        let mut blocks = vec![(address + 16, bytes.number(address + 8, 4)?)];
        let mut object = Self::default();
        while let Some((mut at, length)) = blocks.pop() {
            let end = at + length;
            while left > 0 && at + 8 <= end {
                let (kind, size) = (bytes.number(at, 2)?, bytes.number(at + 2, 2)?);
                let body = at + 8;
                match kind {
                    0x0001 => object.shape = Some(dataspace(bytes, body)?),
                    0x0003 => {
                        let (class, order) = (bytes.number(body, 1)? & 0x0f, bytes.number(body + 1, 1)? & 1);
                        object.is_f32 = class == 1 && order == 0 && bytes.number(body + 4, 4)? == 4;
                    }
                    0x0008 => object.values = Some(layout(bytes, body)?),
                    0x0010 => blocks.push((bytes.number(body, 8)?, bytes.number(body + 8, 8)?)),
                    0x0011 => object.symbols = Some((bytes.number(body, 8)?, bytes.number(body + 8, 8)?)),
                    _ => {}
                }
                at = body + size;
                left -= 1;
            }
        }
        Ok(object)
    }

    /// The dataset, when it is one of floats.
    fn array(self, bytes: Bytes<'_>) -> Result<Option<Array>, WeightsError> {
        let (Some(shape), Some((address, length)), true) = (self.shape, self.values, self.is_f32) else {
            return Ok(None);
        };
        let count = shape.iter().try_fold(1usize, |n, axis| n.checked_mul(*axis)).ok_or(WeightsError::Damaged)?;
        if count.checked_mul(4) != Some(length) {
            return Err(WeightsError::Damaged);
        }
        let raw = bytes.slice(address, length)?;
        let values = raw.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        Ok(Some(Array { shape, values }))
    }
}

fn dataspace(bytes: Bytes<'_>, at: usize) -> Result<Vec<usize>, WeightsError> {
    let first = match bytes.number(at, 1)? {
        1 => at + 8,
        2 => at + 4,
        _ => return Err(WeightsError::Unusual("a dataspace of an unknown version")),
    };
    (0..bytes.number(at + 1, 1)?).map(|axis| bytes.number(first + 8 * axis, 8)).collect()
}

/// Address and length of the values.
fn layout(bytes: Bytes<'_>, at: usize) -> Result<(usize, usize), WeightsError> {
    match (bytes.number(at, 1)?, bytes.number(at + 1, 1)?) {
        (3, 0) => Ok((at + 4, bytes.number(at + 2, 2)?)),
        (3, 1) => Ok((bytes.number(at + 2, 8)?, bytes.number(at + 10, 8)?)),
        _ => Err(WeightsError::Unusual("its arrays are neither contiguous nor compact")),
    }
}

/// Names and object headers of a group's members.
fn members(bytes: Bytes<'_>, tree: usize, heap: usize) -> Result<Vec<(String, usize)>, WeightsError> {
    if bytes.slice(heap, 4)? != b"HEAP" {
        return Err(WeightsError::Damaged);
    }
    let names = bytes.number(heap + 24, 8)?;
    let mut found = Vec::new();
    let mut nodes = vec![tree];
    let mut visited = 0;
    while let Some(node) = nodes.pop() {
        visited += 1;
        if visited > MOST_OBJECTS {
            return Err(WeightsError::Damaged);
        }
        match bytes.slice(node, 4)? {
            b"TREE" => {
                // Signature, type, level, entries, two siblings; then key, child, key, child …
                for entry in 0..bytes.number(node + 6, 2)? {
                    nodes.push(bytes.number(node + 24 + 16 * entry + 8, 8)?);
                }
            }
            b"SNOD" => {
                for symbol in 0..bytes.number(node + 6, 2)? {
                    let entry = node + 8 + 40 * symbol;
                    let name = names.checked_add(bytes.number(entry, 8)?).ok_or(WeightsError::Damaged)?;
                    found.push((text(bytes, name)?, bytes.number(entry + 8, 8)?));
                }
            }
            _ => return Err(WeightsError::Damaged),
        }
    }
    Ok(found)
}

/// A name, up to its zero byte.
fn text(bytes: Bytes<'_>, at: usize) -> Result<String, WeightsError> {
    let rest = bytes.0.get(at..).ok_or(WeightsError::Damaged)?;
    let end = rest.iter().take(1_024).position(|b| *b == 0).ok_or(WeightsError::Damaged)?;
    Ok(String::from_utf8_lossy(&rest[..end]).into_owned())
}
