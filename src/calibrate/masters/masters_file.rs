//! Masters as FITS files, and a folder of them.
//!
//! A master of ours carries `MASTER = 'BIAS'`, `'DARK'` or `'FLAT'`, its noise and what it was made from.
//! A master that another program made is accepted when `IMAGETYP` or `OBSTYPE` says what it is: a bias in
//! ADU, a bias-subtracted dark in ADU with `EXPTIME`, a flat of any scale with `FILTER`.

use std::path::{Path, PathBuf};

use ndarray::Array2;

use super::{MasterBias, MasterDark, MasterError, MasterFlat, Masters, Provenance};
use crate::exposure::FrameKind;
use crate::fits::{FitsImage, HduOut, Header, Plane, read_image, write_fits};
use crate::image::Image;

/// One master of any kind.
#[derive(Debug, Clone)]
pub enum Master {
    /// Bias.
    Bias(MasterBias),
    /// Dark.
    Dark(MasterDark),
    /// Flat.
    Flat(MasterFlat),
}

impl Master {
    /// What it was made from.
    pub fn provenance(&self) -> &Provenance {
        match self {
            Self::Bias(bias) => &bias.provenance,
            Self::Dark(dark) => &dark.provenance,
            Self::Flat(flat) => &flat.provenance,
        }
    }

    /// Writes it to a file, atomically.
    ///
    /// # Errors
    ///
    /// When the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), MasterError> {
        let mut header = Header::new();
        let pixels = match self {
            Self::Bias(bias) => {
                header.set("MASTER", "BIAS", "made by Nightjar").set("IMAGETYP", "bias", "").set("BUNIT", "adu", "");
                header.set("MASTNOIS", bias.noise, "standard error of a pixel, ADU");
                header.set("RNADU", bias.read_noise, "read noise of one frame, ADU");
                &bias.image.pixels
            }
            Self::Dark(dark) => {
                header.set("MASTER", "DARK", "made by Nightjar").set("IMAGETYP", "dark", "");
                header.set("BUNIT", "electron/s", "ADU/s where the gain is unknown");
                header.set("MASTNOIS", dark.noise, "standard error of a pixel, electrons/s");
                header.set("EXPTIME", dark.exposure_s, "seconds, of the frames");
                header.set("HOTLIMIT", dark.hot_limit, "a pixel of this rate is hot, electrons/s");
                &dark.image.pixels
            }
            Self::Flat(flat) => {
                header.set("MASTER", "FLAT", "made by Nightjar").set("IMAGETYP", "flat", "");
                header.set("FILTER", flat.filter.as_str(), "");
                header.set("MASTNOIS", flat.noise, "relative standard error of a pixel");
                &flat.image.pixels
            }
        };
        let provenance = self.provenance();
        header.set("NCOMBINE", i64::try_from(provenance.files.len()).unwrap_or(i64::MAX), "frames that were combined");
        if let Some(celsius) = provenance.temperature_c {
            header.set("CCD-TEMP", celsius, "median of the frames, Celsius");
        }
        if let Some(gain) = provenance.gain {
            header.set("GAIN", gain, "e-/ADU of the frames");
        }
        if let Some((first, last)) = provenance.mjd {
            header.set("MJDFIRST", first, "start of the first frame").set("MJDLAST", last, "start of the last frame");
        }
        for (number, file) in provenance.files.iter().enumerate() {
            header.set(&format!("FRAME{:03}", number + 1), file.as_str(), "");
        }
        write_fits(path, &[HduOut { name: "", header: &header, plane: Plane::F32(pixels) }]).map_err(MasterError::Fits)
    }

    /// Reads one from a file; `gain` (e-/ADU) serves a foreign dark whose header has none.
    ///
    /// # Errors
    ///
    /// When the file cannot be read or does not say what it is.
    pub fn read(path: &Path, gain: Option<f64>) -> Result<Self, MasterError> {
        let FitsImage { header, pixels, .. } = read_image(path).map_err(MasterError::Fits)?;
        let provenance = provenance(&header, path);
        let ours = header.text(&["MASTER"]);
        let number = |keyword: &'static str| {
            header.number(&[keyword]).ok_or_else(|| MasterError::Keyword { path: path.to_owned(), keyword })
        };
        if let Some(kind) = ours.as_deref() {
            let noise = number("MASTNOIS")?.max(0.0);
            match kind {
                "BIAS" => {
                    let read_noise = number("RNADU")?;
                    return Ok(Self::Bias(MasterBias { image: Image::new(pixels), noise, read_noise, provenance }));
                }
                "DARK" => {
                    let (exposure_s, hot_limit) = (number("EXPTIME")?, number("HOTLIMIT")?);
                    let image = Image::new(pixels);
                    return Ok(Self::Dark(MasterDark { image, noise, exposure_s, hot_limit, provenance }));
                }
                "FLAT" => {
                    let filter = filter(&header, path)?;
                    return Ok(Self::Flat(MasterFlat { image: Image::new(pixels), noise, filter, provenance }));
                }
                _ => {}
            }
        }
        foreign(&header, pixels, path, gain, provenance)
    }
}

fn foreign(
    header: &Header,
    mut pixels: Array2<f32>,
    path: &Path,
    gain: Option<f64>,
    provenance: Provenance,
) -> Result<Master, MasterError> {
    let unknown = || MasterError::Keyword { path: path.to_owned(), keyword: "IMAGETYP (bias, dark or flat)" };
    let words = ["OBSTYPE", "IMAGETYP", "IMGTYPE"].iter().filter_map(|keyword| header.text(&[keyword]));
    let kinds: Vec<FrameKind> = words
        .map(|word| {
            FrameKind::from_keyword(word.to_ascii_lowercase().replace("master", "").trim_matches([' ', '_', '-']))
        })
        .collect();
    let kind = kinds.iter().find(|kind| !matches!(kind, FrameKind::Other | FrameKind::Light)).ok_or_else(unknown)?;
    match kind {
        FrameKind::Bias => {
            Ok(Master::Bias(MasterBias { image: Image::new(pixels), noise: 0.0, read_noise: 0.0, provenance }))
        }
        FrameKind::Dark => {
            let exposure_s = header
                .number(&["EXPTIME", "EXPOSURE"])
                .filter(|seconds| *seconds > 0.0)
                .ok_or_else(|| MasterError::Keyword { path: path.to_owned(), keyword: "EXPTIME" })?;
            let gain = header.number(&["GAIN", "EGAIN"]).or(gain).filter(|gain| *gain > 0.0).unwrap_or(1.0);
            let unit = header.text(&["BUNIT"]).unwrap_or_default().to_ascii_lowercase();
            let factor =
                if unit.starts_with('e') { 1.0 } else { gain } / if unit.contains("/s") { 1.0 } else { exposure_s };
            pixels.mapv_inplace(|value| value * factor as f32);
            let hot_limit = f64::from(median(&pixels)) + 20.0;
            Ok(Master::Dark(MasterDark { image: Image::new(pixels), noise: 0.0, exposure_s, hot_limit, provenance }))
        }
        _ => {
            let level = median(&pixels);
            if level.is_nan() || level <= 0.0 {
                return Err(MasterError::Featureless { path: path.to_owned(), level: f64::from(level) });
            }
            pixels.mapv_inplace(|value| value / level);
            let filter = filter(header, path)?;
            Ok(Master::Flat(MasterFlat { image: Image::new(pixels), noise: 0.0, filter, provenance }))
        }
    }
}

fn filter(header: &Header, path: &Path) -> Result<String, MasterError> {
    header.text(&["FILTER"]).ok_or_else(|| MasterError::Keyword { path: path.to_owned(), keyword: "FILTER" })
}

fn provenance(header: &Header, path: &Path) -> Provenance {
    let listed: Vec<String> = (1..=999).map_while(|number| header.text(&[&format!("FRAME{number:03}")])).collect();
    let name = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    Provenance {
        files: if listed.is_empty() { vec![name] } else { listed },
        temperature_c: header.number(&["CCD-TEMP", "CCDTEMP", "SET-TEMP"]),
        gain: header.number(&["GAIN", "EGAIN"]),
        mjd: header.number(&["MJDFIRST"]).zip(header.number(&["MJDLAST"])),
    }
}

fn median(pixels: &Array2<f32>) -> f32 {
    let stride = (pixels.len() / 200_000).max(1);
    let mut sample: Vec<f32> = pixels.iter().step_by(stride).copied().filter(|value| value.is_finite()).collect();
    let middle = sample.len() / 2;
    if sample.is_empty() { f32::NAN } else { *sample.select_nth_unstable_by(middle, f32::total_cmp).1 }
}

/// Reads the masters among the FITS files of a folder; of two of a kind the one with the later frames
/// counts. A file that is no master is an error, so that none is left out in silence.
///
/// # Errors
///
/// When the folder or a file in it cannot be used.
pub fn read_folder(folder: &Path, gain: Option<f64>) -> Result<Masters, MasterError> {
    let unreadable = |e: std::io::Error| MasterError::Folder { path: folder.to_owned(), reason: e.to_string() };
    let mut paths: Vec<PathBuf> = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
        let ends = [".fits", ".fit", ".fts", ".fits.gz", ".fit.gz", ".fits.fz", ".fit.fz"];
        if ends.iter().any(|end| name.ends_with(end)) && !name.starts_with('.') {
            paths.push(path);
        }
    }
    paths.sort();
    let mut masters = Masters::default();
    for path in paths {
        let master = Master::read(&path, gain)?;
        if newest_so_far(&masters, &master) {
            masters.put(master);
        }
    }
    Ok(masters)
}

fn newest_so_far(masters: &Masters, master: &Master) -> bool {
    let last = |provenance: &Provenance| provenance.mjd.map_or(0.0, |(_, last)| last);
    let there = match master {
        Master::Bias(_) => masters.bias.as_ref().map(|bias| &bias.provenance),
        Master::Dark(_) => masters.dark.as_ref().map(|dark| &dark.provenance),
        Master::Flat(flat) => masters.flats.get(&flat.filter).map(|flat| &flat.provenance),
    };
    there.is_none_or(|there| last(there) <= last(master.provenance()))
}
