//! Candidates that lie in a line: the parts of a mover's trail, or of the track of a charged particle.

use std::collections::HashMap;

use rayon::prelude::*;

use super::cutout::{cut_out, level_around, peak_over_rms};
use super::trail::{self, Trail};
use super::{Candidate, Measure, PLACE, Rule, rules};

/// Candidates of one sign within this many FWHM of each other belong together.
const COMPANY: f64 = 3.0;

/// Fits trails to candidates that no point source explains, and to those in company. A mover is one candidate, and
/// what else was found along it is part of it; what lies on the track of a particle is rejected.
pub(super) fn join(measure: &Measure<'_>, candidates: &mut Vec<Candidate>, fwhm: f64) {
    candidates.sort_by(|a, b| b.snr.total_cmp(&a.snr));
    let groups = groups(candidates, COMPANY * fwhm);
    let found: Vec<Vec<(usize, Trail)>> =
        groups.par_iter().map(|group| trails_of(measure, candidates, group, fwhm)).collect();
    let mut fate: Vec<Option<Fate>> = vec![None; candidates.len()];
    for (group, trails) in groups.iter().zip(found) {
        for (first, trail) in trails {
            let mover = rules::is_mover(measure.difference, &trail, candidates[first].rejected.is_none());
            let track = rules::is_track(measure.difference, &trail);
            for &i in group {
                let candidate = &candidates[i];
                if fate[i].is_some() {
                    continue;
                }
                if mover && i == first && covers(&trail, candidate, fwhm) {
                    fate[i] = Some(Fate::Mover(trail));
                } else if mover && covers(&trail, candidate, fwhm) {
                    fate[i] = Some(Fate::Part);
                } else if track && rules::may_be_of_track(candidate) && lies_on(&trail, candidate, fwhm) {
                    fate[i] = Some(Fate::Track);
                }
            }
        }
    }
    // A long trail may lie in several groups: the strongest candidate of all stands for it.
    let mut movers: Vec<Trail> = Vec::new();
    for (candidate, fate) in candidates.iter().zip(&mut fate) {
        let own = match fate {
            Some(Fate::Mover(trail)) => Some(*trail),
            _ => None,
        };
        let again = |other: &Trail| own.is_some_and(|own| (own.x - other.x).hypot(own.y - other.y) < fwhm);
        if movers.iter().any(|trail| covers(trail, candidate, fwhm) || again(trail)) {
            *fate = Some(Fate::Part);
        } else if let Some(trail) = own {
            movers.push(trail);
        }
    }
    let mut fates = fate.into_iter();
    candidates.retain_mut(|candidate| match fates.next().flatten() {
        Some(Fate::Part) => false,
        Some(Fate::Mover(trail)) => {
            make_mover(measure, candidate, &trail);
            true
        }
        Some(Fate::Track) => {
            candidate.rejected = candidate.rejected.or(Some(Rule::CosmicRay));
            candidate.cutouts = None;
            true
        }
        None => true,
    });
}

#[derive(Debug, Clone, Copy)]
enum Fate {
    /// It is the trail.
    Mover(Trail),
    /// It is a part of one that another candidate stands for.
    Part,
    /// It lies on a particle's track.
    Track,
}

/// The trails of a group, strongest candidate first; what an earlier trail covers is not fitted again.
fn trails_of(measure: &Measure<'_>, candidates: &[Candidate], group: &[usize], fwhm: f64) -> Vec<(usize, Trail)> {
    let mut trails: Vec<(usize, Trail)> = Vec::new();
    for &i in group {
        let candidate = &candidates[i];
        let in_company = group.len() > 1 && candidate.rejected.is_none();
        if !(candidate.may_trail || in_company) || trails.iter().any(|(_, trail)| covers(trail, candidate, fwhm)) {
            continue;
        }
        let (column, row) = (candidate.x.round().max(0.0) as usize, candidate.y.round().max(0.0) as usize);
        let place = measure.places.get(&(column / PLACE, row / PLACE));
        trails
            .extend(place.and_then(|place| trail::fit(measure.difference, place, column, row)).map(|trail| (i, trail)));
    }
    trails
}

/// A source beside a track is none of it.
fn lies_on(trail: &Trail, candidate: &Candidate, fwhm: f64) -> bool {
    let (along, across) = trail.along_and_across(candidate.x, candidate.y);
    candidate.positive == (trail.flux > 0.0)
        && along.abs() < 0.5 * trail.length + 0.5 * fwhm
        && across.abs() < 0.6 * fwhm
}

fn covers(trail: &Trail, candidate: &Candidate, fwhm: f64) -> bool {
    let (along, across) = trail.along_and_across(candidate.x, candidate.y);
    candidate.positive == (trail.flux > 0.0)
        && along.abs() < 0.5 * trail.length + 2.0 * fwhm
        && across.abs() < 1.5 * fwhm
}

/// Candidates of one sign that are within `radius` of another of the group, in their order.
fn groups(candidates: &[Candidate], radius: f64) -> Vec<Vec<usize>> {
    let cell = |c: &Candidate| ((c.x / radius) as i64, (c.y / radius) as i64);
    let mut cells = HashMap::<(i64, i64), Vec<usize>>::new();
    for (i, candidate) in candidates.iter().enumerate() {
        cells.entry(cell(candidate)).or_default().push(i);
    }
    let near = |i: usize| {
        let (x, y) = cell(&candidates[i]);
        let around = (x - 1..=x + 1).flat_map(move |cx| (y - 1..=y + 1).map(move |cy| (cx, cy)));
        let others = around.filter_map(|c| cells.get(&c)).flatten().copied();
        others.filter(move |&j| {
            let (a, b) = (&candidates[i], &candidates[j]);
            a.positive == b.positive && (a.x - b.x).hypot(a.y - b.y) < radius
        })
    };
    let mut seen = vec![false; candidates.len()];
    let mut groups = Vec::new();
    for first in 0..candidates.len() {
        if std::mem::replace(&mut seen[first], true) {
            continue;
        }
        let mut group = vec![first];
        let mut next = 0;
        while let Some(&i) = group.get(next) {
            next += 1;
            for j in near(i) {
                if !std::mem::replace(&mut seen[j], true) {
                    group.push(j);
                }
            }
        }
        group.sort_unstable();
        groups.push(group);
    }
    groups
}

/// Gives a candidate the measurements of the trail that it is.
fn make_mover(measure: &Measure<'_>, candidate: &mut Candidate, trail: &Trail) {
    let [rx, ry] = measure.difference.registration.map.value(trail.x, trail.y);
    (candidate.x, candidate.y) = (trail.x, trail.y);
    (candidate.ra, candidate.dec) = measure.reference.sky(rx, ry);
    candidate.position_err = trail.position_err;
    (candidate.flux, candidate.flux_err) = (trail.flux, trail.flux_err);
    let flux = trail.flux.abs().max(1e-6);
    candidate.mag = measure.zero_point - 2.5 * flux.log10();
    candidate.mag_err = 1.0857 * trail.flux_err / flux;
    (candidate.chi, candidate.sharpness) = (trail.chi, trail.sharpness);
    candidate.trail_px = trail.length;
    candidate.neighbour = measure.neighbours.of(rx, ry);
    let cutouts = cut_out(measure.difference, trail.x, trail.y, trail.flux.signum());
    candidate.sky = level_around(&cutouts.difference);
    candidate.difference_snr = peak_over_rms(&cutouts.difference);
    candidate.cutouts = Some(cutouts);
    candidate.rejected = None;
}
