//! Masters from a night's own frames.

use super::build::{combine_bias, combine_dark, combine_flat};
use super::masters_file::Master;
use super::{MasterError, Masters, Refusal};
use crate::camera::RawFrame;
use crate::exposure::{Exposure, FrameKind};

/// What came of a night's calibration frames.
#[derive(Debug, Default)]
pub struct NightMasters {
    /// What could be made, over what was there before.
    pub masters: Masters,
    /// Sentences: what was made, which frames were left out, which master could not be made and why.
    pub findings: Vec<String>,
}

/// Makes bias, dark and flats (one for each filter) of those of `frames` that are such, in this order;
/// `load` reads the frame of that index. Masters in `before` serve where none can be made, and stay in
/// force when a new one fails.
pub fn of_night(
    frames: &[Exposure],
    load: &(dyn Fn(usize) -> Result<RawFrame, String> + Sync),
    before: Masters,
) -> NightMasters {
    let mut night = NightMasters { masters: before, findings: Vec::new() };
    let of_kind =
        |kind: FrameKind| -> Vec<usize> { (0..frames.len()).filter(|index| frames[*index].kind == kind).collect() };
    let pick = |chosen: &[usize], number: usize| -> Result<RawFrame, String> {
        chosen.get(number).map_or_else(|| Err("no such frame".to_owned()), |index| load(*index))
    };
    let bias = of_kind(FrameKind::Bias);
    if !bias.is_empty() {
        let made = combine_bias(bias.len(), &|number| pick(&bias, number));
        night.take("bias", made.map(|made| (Master::Bias(made.master), made.refused)));
    }
    let dark = of_kind(FrameKind::Dark);
    if !dark.is_empty() {
        let made = combine_dark(dark.len(), &|number| pick(&dark, number), &night.masters);
        night.take("dark", made.map(|made| (Master::Dark(made.master), made.refused)));
    }
    let flats = of_kind(FrameKind::Flat);
    let mut filters: Vec<&String> = flats.iter().map(|index| &frames[*index].filter).collect();
    filters.sort_unstable();
    filters.dedup();
    for filter in filters {
        let chosen: Vec<usize> = flats.iter().copied().filter(|index| frames[*index].filter == *filter).collect();
        let made = combine_flat(chosen.len(), &|number| pick(&chosen, number), &night.masters);
        night.take(&format!("flat {filter}"), made.map(|made| (Master::Flat(made.master), made.refused)));
    }
    night
}

impl NightMasters {
    fn take(&mut self, what: &str, made: Result<(Master, Vec<Refusal>), MasterError>) {
        match made {
            Ok((master, refused)) => {
                self.findings.push(format!("master {what}: made from {} frames", master.provenance().files.len()));
                self.findings.extend(refused.iter().map(|refusal| format!("master {what}: left out {refusal}")));
                self.masters.put(master);
            }
            Err(error) => self.findings.push(format!("master {what}: not made: {error}")),
        }
    }
}
