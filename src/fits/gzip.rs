//! Gzipped files, unpacked into memory of a size that is known and bounded beforehand.

/// Least limit of what a file may unpack to, bytes: a constant image shrinks a thousandfold.
const ALWAYS_ALLOWED: usize = 64 << 20;
/// Beyond that, bytes unpacked per byte packed: images of the sky give 2 to 10.
const MOST_RATIO: usize = 64;
/// In any case, bytes.
const MOST: usize = 2 << 30;

/// Whether this is the beginning of a gzip stream (RFC 1952, section 2.3.1).
pub(super) fn is_gzip(start: &[u8]) -> bool {
    start.starts_with(&[0x1f, 0x8b])
}

/// Unpacks a gzip stream whose trailer says a length that can be; the sentence says why not.
pub(super) fn unpack(packed: &[u8]) -> Result<Vec<u8>, String> {
    let trailer = packed.last_chunk::<4>().filter(|_| packed.len() >= 18).ok_or("the gzip stream is cut")?;
    let length = u32::from_le_bytes(*trailer) as usize;
    let limit = ALWAYS_ALLOWED.max(packed.len().saturating_mul(MOST_RATIO)).min(MOST);
    if length > limit {
        return Err(format!(
            "the gzip stream of {} bytes claims to unpack to {length}, or its end is missing",
            packed.len()
        ));
    }
    let mut unpacked = vec![0; length];
    match libdeflater::Decompressor::new().gzip_decompress(packed, &mut unpacked) {
        Ok(written) if written == length => Ok(unpacked),
        Ok(_) | Err(libdeflater::DecompressionError::InsufficientSpace) => {
            Err("the gzip stream does not have the length that it ends with".into())
        }
        Err(libdeflater::DecompressionError::BadData) => Err("the gzip stream is cut or damaged".into()),
    }
}
