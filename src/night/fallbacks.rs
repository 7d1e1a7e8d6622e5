//! What the stages assume where a frame's header says nothing, out of `[detector]`.

use crate::calibrate::AdoptParameters;
use crate::camera::{Amplifier, DetectorFallbacks, HeaderFallbacks, Section};
use crate::exposure::FrameKind;
use crate::settings::Detector;

/// The fall-backs of one detector.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Fallbacks {
    /// For what is said of the exposure.
    pub header: HeaderFallbacks,
    /// For sections, gains and noise of raw frames.
    pub detector: DetectorFallbacks,
    /// For images that others calibrated.
    pub adopt: AdoptParameters,
}

/// A section that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("[detector] {setting} = \"{value}\": a section is written \"[x1:x2,y1:y2]\", counted from 1")]
pub struct SectionError {
    setting: &'static str,
    value: String,
}

impl Fallbacks {
    /// Those of the settings.
    ///
    /// # Errors
    ///
    /// When a section cannot be read.
    pub fn of(detector: &Detector) -> Result<Self, SectionError> {
        let section = |setting: &'static str, text: &str| {
            Section::parse(text).ok_or_else(|| SectionError { setting, value: text.to_owned() })
        };
        let optional = |setting, text: &Option<String>| text.as_deref().map(|text| section(setting, text)).transpose();
        let amplifiers = detector.amplifiers.iter().map(|amplifier| {
            Ok(Amplifier {
                data: section("amplifiers.data", &amplifier.data)?,
                overscan: optional("amplifiers.overscan", &amplifier.overscan)?,
                gain: amplifier.gain,
                read_noise: amplifier.read_noise,
                saturation: amplifier.saturation,
            })
        });
        Ok(Self {
            header: HeaderFallbacks {
                kind: detector.image_type.as_deref().map(FrameKind::from_keyword),
                exposure_s: detector.exposure_s,
                filter: detector.filter.clone(),
                start: None,
            },
            detector: DetectorFallbacks {
                gain: detector.gain,
                read_noise: detector.read_noise,
                saturation: detector.saturation,
                overscan: optional("overscan", &detector.overscan)?,
                trim: optional("trim", &detector.trim)?,
                amplifiers: amplifiers.collect::<Result<_, SectionError>>()?,
            },
            adopt: AdoptParameters {
                gain: detector.gain,
                read_noise: detector.read_noise,
                saturation: detector.saturation,
            },
        })
    }
}
