//! Where the telescope stands, what is on it, and where its frames lie.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// `[observatory]`: who sends the alerts and from where.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Observatory {
    /// Name in reports. Default "Nightjar".
    pub name: String,
    /// Three capital letters that every `objectId` begins with. Default "NJR". `ZTF` would collide
    /// with real objects in every broker, and only a rehearsal may use it.
    pub code: String,
    /// Longitude, degrees, east positive. Default 0. It decides at which moment (local mean noon)
    /// one night's name ends and the next one's begins.
    pub longitude_deg: f64,
    /// Latitude, degrees, north positive. Default 0.
    pub latitude_deg: f64,
    /// Height above the sea, metres. Default 0.
    pub elevation_m: f64,
    /// The `publisher` of every alert packet. Default "Nightjar".
    pub publisher: String,
}

impl Default for Observatory {
    fn default() -> Self {
        Self {
            name: "Nightjar".into(),
            code: "NJR".into(),
            longitude_deg: 0.0,
            latitude_deg: 0.0,
            elevation_m: 0.0,
            publisher: "Nightjar".into(),
        }
    }
}

/// `[camera] kind`: what frames come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CameraKind {
    /// FITS files that another program drops into a folder.
    Folder,
    /// Nightjar's readout link over a serial line or TCP.
    Serial,
    /// SBIG SG-4 and AllSky-340 cameras.
    Sg4,
    /// The recorded exposures of a folder, at their own pace.
    Replay,
}

/// `[camera] trigger`: who starts exposures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Trigger {
    /// The observatory's scheduler does; Nightjar reads out what arrives.
    External,
    /// Nightjar starts one every `cadence_s`.
    Cadence,
}

/// `[camera]`: where frames come from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Camera {
    /// What frames come from. Default "folder".
    pub kind: CameraKind,
    /// The folder that is watched (`folder`) or played (`replay`). No default: those two need it.
    pub folder: Option<PathBuf>,
    /// Whether a file is removed from the watched folder once its frame is safe in the frame
    /// journal. Default false: nothing in the folder is touched.
    pub consume: bool,
    /// The serial device, or `tcp://HOST:PORT` of a serial server. Default "/dev/nightjar-camera".
    pub device: String,
    /// Speed of the serial line, baud. Default 460800.
    pub baud: u32,
    /// Who starts exposures. Default "external".
    pub trigger: Trigger,
    /// Seconds from one start of exposure to the next with `trigger = "cadence"`. Default 45.
    pub cadence_s: f64,
    /// Open-shutter time with `trigger = "cadence"`, seconds. Default 30.
    pub exposure_s: f64,
    /// How long after the command the shutter opens, seconds; added to the time of the command where
    /// the camera gives none (SG-4). Default 0.
    pub shutter_latency_s: f64,
}

impl Default for Camera {
    fn default() -> Self {
        Self {
            kind: CameraKind::Folder,
            folder: None,
            consume: false,
            device: "/dev/nightjar-camera".into(),
            baud: 460_800,
            trigger: Trigger::External,
            cadence_s: 45.0,
            exposure_s: 30.0,
            shutter_latency_s: 0.0,
        }
    }
}

/// `[telescope]`: where it points when Nightjar starts the exposures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Telescope {
    /// Command line of a program that prints the pointing as JSON before each exposure: ra, dec,
    /// airmass, rotator, pier_side, tracking, roof, field, filter, any of them left out. It has half a
    /// cadence, at most 10 s. Default "": the pointing comes from the frame's headers.
    pub pointing_command: String,
    /// Table of fields (number, right ascension, declination in degrees). Default
    /// "/etc/nightjar/fields.csv"; it need not exist.
    pub fields: PathBuf,
}

impl Default for Telescope {
    fn default() -> Self {
        Self { pointing_command: String::new(), fields: "/etc/nightjar/fields.csv".into() }
    }
}

/// `[detector]`: what is used where a frame's header does not say it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Detector {
    /// Number of the readout channel, in `candid` and the packets; two detectors of one observatory
    /// need different ones. Default 0.
    pub rcid: u8,
    /// What frames were taken for ("light", "bias", …). No default: `IMAGETYP` or `OBSTYPE`.
    pub image_type: Option<String>,
    /// Open-shutter time, seconds. No default: `EXPTIME` or `EXPOSURE`.
    pub exposure_s: Option<f64>,
    /// Filter of a camera that has only one. No default: `FILTER`.
    pub filter: Option<String>,
    /// Electrons per ADU. No default: without it and without `GAIN` fluxes stay in ADU.
    pub gain: Option<f64>,
    /// Read noise, electrons. No default: without it and without `RDNOISE` it is measured on the
    /// bias frames or the overscan.
    pub read_noise: Option<f64>,
    /// Saturation level, ADU of the raw frame. No default: without it and without `SATURATE` it is
    /// the largest value that the file's pixels can hold.
    pub saturation: Option<f64>,
    /// Pixel scale, arcseconds. No default: the reference's WCS gives it.
    pub pixel_scale_arcsec: Option<f64>,
    /// Overscan as a FITS section, `[1:24,1:2048]`. No default: `BIASSEC`.
    pub overscan: Option<String>,
    /// Light-sensitive part as a FITS section. No default: `TRIMSEC` or `DATASEC`, else everything.
    pub trim: Option<String>,
    /// The amplifiers where there are several and the header does not describe them. Default none.
    pub amplifiers: Vec<AmplifierSettings>,
}

/// One entry of `[[detector.amplifiers]]`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AmplifierSettings {
    /// Light-sensitive part as a FITS section. Required.
    pub data: String,
    /// Overscan as a FITS section. No default: none is subtracted.
    pub overscan: Option<String>,
    /// Electrons per ADU. No default: `[detector] gain`.
    pub gain: Option<f64>,
    /// Read noise, electrons. No default: `[detector] read_noise`.
    pub read_noise: Option<f64>,
    /// Saturation level, ADU. No default: `[detector] saturation`.
    pub saturation: Option<f64>,
}

/// `[frames]`: the frame journal, which holds raw frames until they are done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Frames {
    /// Where raw frames are kept. Default "/var/lib/nightjar/frames". About 19 MB a frame of
    /// 3072×3080.
    pub folder: PathBuf,
    /// For how many nights a frame is kept after it is done. Default 3. A frame that is not done is
    /// never removed.
    pub keep_nights: u32,
}

impl Default for Frames {
    fn default() -> Self {
        Self { folder: "/var/lib/nightjar/frames".into(), keep_nights: 3 }
    }
}

/// `[calibration]`: the masters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Calibration {
    /// Folder of master bias, dark and flat. Default "/var/lib/nightjar/masters".
    pub masters: PathBuf,
}

impl Default for Calibration {
    fn default() -> Self {
        Self { masters: "/var/lib/nightjar/masters".into() }
    }
}
