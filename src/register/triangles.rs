//! Blind match of two star lists by triangles, when pointing, rotation or parity are unknown.
//!
//! Triangles of bright stars are alike in both images up to scale, rotation and mirroring (Groth
//! 1986, AJ 91, 1244; Valdes et al. 1995, PASP 107, 1119; Beroiz et al. 2020, astroalign). Each pair
//! of like triangles proposes a similarity; proposals are counted in cells of rotation, scale and
//! place, and the fullest cells are refined on all stars: pairs, affine fit, narrower pairs.
//!
//! **Acceptance.** The match is one of many that were tried, so it counts only when so many pairs
//! would come about by chance with a probability below `CHANCE`, all tries taken together: the
//! Poisson tail of the pairs beyond the three that fix the map, for the density of the second list
//! and the final radius, times the number of like triangles. A false match would be a field full of
//! dipoles; no match is a sentence to the operator.

use std::collections::HashMap;
use std::ops::RangeInclusive;

use super::polynomial::{Domain, Map};
use super::vote::{pairs, poisson_tail};

/// Stars of each list that make triangles, first few, then more.
const BRIGHTEST: [usize; 2] = [25, 45];
/// Stars of each list that are paired.
const PAIRED: usize = 250;
/// Fullest cells that are refined.
const TRIED: usize = 40;
/// Probability that an accepted match has come about by chance.
const CHANCE: f64 = 1e-6;
/// Radius within which stars are paired in the end, pixels.
const RADIUS: f64 = 3.0;
/// A triangle whose longest side is below this part of the list's extent is too uncertain.
const SMALLEST: f64 = 0.08;
/// Largest ratio of the axes of an accepted map, whose pixels are square up to distortion.
const SHEAR: f64 = 1.05;

/// Matrix and offset of an affine map, p ↦ matrix · p + offset.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Affine {
    /// The linear part.
    pub matrix: [[f64; 2]; 2],
    /// The image of the origin.
    pub offset: [f64; 2],
}

impl Affine {
    /// Where a point is mapped to.
    pub fn apply(&self, p: [f64; 2]) -> [f64; 2] {
        std::array::from_fn(|k| self.matrix[k][0] * p[0] + self.matrix[k][1] * p[1] + self.offset[k])
    }

    /// As a polynomial map over an image.
    pub fn to_map(&self, domain: Domain) -> Map {
        Map::affine(domain, self.matrix, self.offset)
    }

    /// The factors by which it stretches, along its two axes.
    fn stretches(&self) -> (f64, f64) {
        let [[a, b], [c, d]] = self.matrix;
        let (mean, difference) = ((a + d).hypot(c - b) / 2.0, (a - d).hypot(b + c) / 2.0);
        (mean + difference, (mean - difference).abs())
    }
}

/// A match that was found.
#[derive(Debug, Clone, PartialEq)]
pub struct BlindMatch {
    /// From positions of the first list to those of the second.
    pub map: Affine,
    /// Indices of stars in the first and the second list that are the same.
    pub pairs: Vec<(usize, usize)>,
    /// Residual of the affine map over the pairs, pixels rms an axis.
    pub rms_px: f64,
    /// Probability that so good a match comes about by chance, at most.
    pub chance: f64,
}

/// Finds how the first list's stars lie in the second's. Both lists stand brightest first; 30 to
/// 200 stars are best. `scale` is the range of pixels of the second a pixel of the first.
///
/// `None` where no match can be told from chance.
pub fn blind_match(from: &[[f64; 2]], to: &[[f64; 2]], scale: RangeInclusive<f64>) -> Option<BlindMatch> {
    let finite = |list: &[[f64; 2]]| -> (Vec<usize>, Vec<[f64; 2]>) {
        let used = list.iter().enumerate().filter(|(_, p)| p.iter().all(|c| c.is_finite()));
        used.take(PAIRED).map(|(index, p)| (index, *p)).unzip()
    };
    let ((from_index, from), (to_index, to)) = (finite(from), finite(to));
    let search = Search::new(&from, &to, scale)?;
    let mut found = BRIGHTEST.iter().find_map(|&stars| search.with(stars))?;
    for pair in &mut found.pairs {
        *pair = (from_index[pair.0], to_index[pair.1]);
    }
    Some(found)
}

/// A triangle by its sides: the vertices opposite to the longest, the middle and the shortest.
struct Triangle {
    vertices: [usize; 3],
    longest: f64,
    /// The middle and the shortest side over the longest.
    ratios: [f64; 2],
    /// Whether the vertices go round against the clock.
    turns_left: bool,
}

fn triangles(stars: &[[f64; 2]], extent: f64) -> Vec<Triangle> {
    let distance = |a: usize, b: usize| (stars[a][0] - stars[b][0]).hypot(stars[a][1] - stars[b][1]);
    let mut found = Vec::new();
    for i in 0..stars.len() {
        for j in 0..i {
            for k in 0..j {
                let mut sides = [(distance(j, k), i), (distance(i, k), j), (distance(i, j), k)];
                sides.sort_by(|a, b| b.0.total_cmp(&a.0));
                let longest = sides[0].0;
                let ratios = [sides[1].0 / longest, sides[2].0 / longest];
                // Two sides of one length leave the order of the vertices open; flat ones the angle.
                let clear = ratios[0] < 0.97 && ratios[0] - ratios[1] > 0.03 && ratios[1] > 0.1;
                if longest < SMALLEST * extent || !clear {
                    continue;
                }
                let vertices = sides.map(|(_, vertex)| vertex);
                let [a, b, c] = vertices.map(|v| stars[v]);
                let cross = (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0]);
                found.push(Triangle { vertices, longest, ratios, turns_left: cross > 0.0 });
            }
        }
    }
    found
}

/// p ↦ (`turn`) p + `offset` in complex numbers, after mirroring y where `mirrored`.
#[derive(Clone, Copy)]
struct Similarity {
    mirrored: bool,
    turn: [f64; 2],
    offset: [f64; 2],
}

impl Similarity {
    /// The least-squares similarity from some points to others.
    fn fit(from: &[[f64; 2]], to: &[[f64; 2]], mirrored: bool) -> Option<Self> {
        let n = from.len() as f64;
        let flip = |p: &[f64; 2]| if mirrored { [p[0], -p[1]] } else { *p };
        let mean = |points: &mut dyn Iterator<Item = [f64; 2]>| {
            let sum = points.fold([0.0; 2], |s, p| [s[0] + p[0], s[1] + p[1]]);
            [sum[0] / n, sum[1] / n]
        };
        let (c, d) = (mean(&mut from.iter().map(flip)), mean(&mut to.iter().copied()));
        let (mut re, mut im, mut norm) = (0.0, 0.0, 0.0);
        for (p, q) in from.iter().map(flip).zip(to) {
            let (u, v) = ([p[0] - c[0], p[1] - c[1]], [q[0] - d[0], q[1] - d[1]]);
            re += v[0] * u[0] + v[1] * u[1];
            im += v[1] * u[0] - v[0] * u[1];
            norm += u[0] * u[0] + u[1] * u[1];
        }
        let turn = [re / norm, im / norm];
        let offset = [d[0] - turn[0] * c[0] + turn[1] * c[1], d[1] - turn[1] * c[0] - turn[0] * c[1]];
        turn.iter().chain(&offset).all(|x| x.is_finite()).then_some(Self { mirrored, turn, offset })
    }

    fn affine(&self) -> Affine {
        let [re, im] = self.turn;
        let s = if self.mirrored { -1.0 } else { 1.0 };
        Affine { matrix: [[re, -im * s], [im, re * s]], offset: self.offset }
    }
}

/// Proposals that agree: mirrored or not, and the numbers of the cells in scale, angle, and place
/// of the middle of the field.
type Cell = (bool, i64, i64, i64, i64);

struct Search<'a> {
    from: &'a [[f64; 2]],
    to: &'a [[f64; 2]],
    scale: RangeInclusive<f64>,
    /// Longer side of the box around each list, pixels.
    extents: [f64; 2],
    /// Middle of the box around the first list.
    middle: [f64; 2],
    /// Corners of the box around the second list.
    to_box: [[f64; 2]; 2],
    /// Stars of the second list a square pixel of its box.
    density: f64,
}

impl<'a> Search<'a> {
    fn new(from: &'a [[f64; 2]], to: &'a [[f64; 2]], scale: RangeInclusive<f64>) -> Option<Self> {
        let boxed = |list: &[[f64; 2]]| {
            list.iter().fold([[f64::INFINITY; 2], [f64::NEG_INFINITY; 2]], |[low, high], p| {
                [[low[0].min(p[0]), low[1].min(p[1])], [high[0].max(p[0]), high[1].max(p[1])]]
            })
        };
        if from.len() < 4 || to.len() < 4 {
            return None;
        }
        let (from_box, to_box) = (boxed(from), boxed(to));
        let sides = |[low, high]: [[f64; 2]; 2]| [high[0] - low[0], high[1] - low[1]];
        let extents = [from_box, to_box].map(|b| sides(b)[0].max(sides(b)[1]));
        let area = sides(to_box)[0] * sides(to_box)[1];
        let usable = extents.iter().all(|e| *e > 10.0) && area > 100.0;
        let middle = std::array::from_fn(|k| (from_box[0][k] + from_box[1][k]) / 2.0);
        usable.then(|| Self { from, to, scale, extents, middle, to_box, density: to.len() as f64 / area })
    }

    /// Searches with the triangles of the brightest stars of each list.
    fn with(&self, stars: usize) -> Option<BlindMatch> {
        let from = &self.from[..stars.min(self.from.len())];
        let to = &self.to[..stars.min(self.to.len())];
        let (cells, tries) = self.proposals(from, to);
        let mut fullest: Vec<(usize, Similarity)> = cells.into_values().collect();
        fullest.sort_by_key(|(count, similarity)| {
            // Ties in a fixed order, so that the same lists give the same answer every time.
            (std::cmp::Reverse(*count), similarity.turn.map(f64::to_bits), similarity.offset.map(f64::to_bits))
        });
        let refined = fullest.iter().take(TRIED).filter_map(|(_, similarity)| self.refine(similarity, tries));
        refined.min_by(|a, b| a.chance.total_cmp(&b.chance)).filter(|best| best.chance < CHANCE)
    }

    /// The proposals of all pairs of like triangles, counted by cells, and their number.
    fn proposals(&self, from: &[[f64; 2]], to: &[[f64; 2]]) -> (HashMap<Cell, (usize, Similarity)>, usize) {
        const BIN: f64 = 0.025;
        let bin = |ratio: f64| (ratio / BIN) as i64;
        let mut index = HashMap::<(i64, i64), Vec<Triangle>>::new();
        for triangle in triangles(to, self.extents[1]) {
            index.entry((bin(triangle.ratios[0]), bin(triangle.ratios[1]))).or_default().push(triangle);
        }
        let mut cells = HashMap::new();
        let mut tries = 0;
        for a in triangles(from, self.extents[0]) {
            let tolerance = (1.5 / a.longest).clamp(0.003, 0.02) + 0.003;
            let (column, row) = (bin(a.ratios[0]), bin(a.ratios[1]));
            let near = (column - 1..=column + 1).flat_map(|x| (row - 1..=row + 1).map(move |y| (x, y)));
            for b in near.filter_map(|cell| index.get(&cell)).flatten() {
                let alike = a.ratios.iter().zip(&b.ratios).all(|(p, q)| (p - q).abs() < tolerance);
                if !alike || !self.scale.contains(&(b.longest / a.longest)) {
                    continue;
                }
                let corners = (a.vertices.map(|v| from[v]), b.vertices.map(|v| to[v]));
                let mirrored = a.turns_left != b.turns_left;
                let Some(similarity) = Similarity::fit(&corners.0, &corners.1, mirrored) else { continue };
                tries += 1;
                let [re, im] = similarity.turn;
                let at = similarity.affine().apply(self.middle);
                let place = 0.02 * self.extents[1];
                let key = (
                    mirrored,
                    (re.hypot(im).ln() / 0.02).floor() as i64,
                    (im.atan2(re).to_degrees() / 2.0).floor() as i64,
                    (at[0] / place).floor() as i64,
                    (at[1] / place).floor() as i64,
                );
                // The cell keeps the running mean of its proposals.
                let (count, mean) = cells.entry(key).or_insert((0, similarity));
                *count += 1;
                let part = 1.0 / *count as f64;
                for k in 0..2 {
                    mean.turn[k] += part * (similarity.turn[k] - mean.turn[k]);
                    mean.offset[k] += part * (similarity.offset[k] - mean.offset[k]);
                }
            }
        }
        (cells, tries)
    }

    /// From a proposal to an affine map over all stars, and how likely it is by chance.
    fn refine(&self, proposal: &Similarity, tries: usize) -> Option<BlindMatch> {
        let spacing = 1.0 / self.density.sqrt();
        let last = RADIUS.min(0.15 * spacing);
        let mut map = proposal.affine();
        let mut found = Vec::new();
        for radius in [4.0 * last, 2.0 * last, 1.4 * last, last, last] {
            let mapped: Vec<[f64; 2]> = self.from.iter().map(|p| map.apply(*p)).collect();
            found = pairs(&mapped, self.to, radius);
            let (a, b): (Vec<_>, Vec<_>) = found.iter().map(|&(i, j)| (self.from[i], self.to[j])).unzip();
            map = match found.len() {
                0..4 => return None,
                4..8 => Similarity::fit(&a, &b, proposal.mirrored)?.affine(),
                _ => affine(&a, &b)?,
            };
        }
        let (long, short) = map.stretches();
        if !(self.scale.contains(&long) && self.scale.contains(&short) && long <= SHEAR * short) {
            return None;
        }
        let residuals = found.iter().map(|&(i, j)| {
            let at = map.apply(self.from[i]);
            (at[0] - self.to[j][0]).powi(2) + (at[1] - self.to[j][1]).powi(2)
        });
        let rms_px = (residuals.sum::<f64>() / (2.0 * found.len() as f64)).sqrt();
        let [low, high] = self.to_box;
        let inside = |p: &&[f64; 2]| {
            let at = map.apply(**p);
            (0..2).all(|k| (low[k] - last..=high[k] + last).contains(&at[k]))
        };
        let overlapping = self.from.iter().filter(inside).count();
        let expected = overlapping as f64 * self.density * std::f64::consts::PI * last * last;
        let chance = tries as f64 * poisson_tail(found.len() - 3, expected);
        Some(BlindMatch { map, pairs: found, rms_px, chance })
    }
}

/// The least-squares affine map from some points to others.
fn affine(from: &[[f64; 2]], to: &[[f64; 2]]) -> Option<Affine> {
    let low = from.iter().fold([f64::INFINITY; 2], |m, p| [m[0].min(p[0]), m[1].min(p[1])]);
    let high = from.iter().fold([f64::NEG_INFINITY; 2], |m, p| [m[0].max(p[0]), m[1].max(p[1])]);
    let centre = std::array::from_fn(|k| (low[k] + high[k]) / 2.0);
    let half = ((high[0] - low[0]).max(high[1] - low[1]) / 2.0).max(1.0);
    let map = Map::fit(Domain { centre, half }, 1, from, to, &vec![1.0; from.len()])?;
    Some(Affine { matrix: map.gradient(centre[0], centre[1]), offset: map.value(0.0, 0.0) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::seq::SliceRandom;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    const SIDE: f64 = 3072.0;

    fn field(rng: &mut ChaCha8Rng, stars: usize) -> Vec<[f64; 2]> {
        (0..stars).map(|_| [rng.random_range(0.0..SIDE), rng.random_range(0.0..SIDE)]).collect()
    }

    struct Truth {
        degrees: f64,
        scale: f64,
        mirrored: bool,
        offset: [f64; 2],
    }

    impl Truth {
        fn random(rng: &mut ChaCha8Rng) -> Self {
            Self {
                degrees: rng.random_range(0.0..360.0),
                scale: rng.random_range(0.98..1.02),
                mirrored: rng.random_bool(0.5),
                offset: [rng.random_range(-360.0..360.0), rng.random_range(-360.0..360.0)],
            }
        }

        /// About the middle of the field, with a distortion of degree 3 of two pixels at the corners.
        fn apply(&self, p: [f64; 2]) -> [f64; 2] {
            let (sin, cos) = self.degrees.to_radians().sin_cos();
            let (u, mut v) = (p[0] - SIDE / 2.0, p[1] - SIDE / 2.0);
            if self.mirrored {
                v = -v;
            }
            let radial = 1.0 + 1e-3 * (u * u + v * v) / (2.0 * (SIDE / 2.0).powi(2));
            let k = self.scale * radial;
            [
                k * (cos * u - sin * v) + SIDE / 2.0 + self.offset[0],
                k * (sin * u + cos * v) + SIDE / 2.0 + self.offset[1],
            ]
        }
    }

    /// What another frame sees of the field: a fifth missed, a quarter strangers (new stars at its
    /// edges, cosmic rays), brightness order disturbed, centroid errors, only what is inside.
    fn observed(rng: &mut ChaCha8Rng, stars: &[[f64; 2]], truth: &Truth) -> Vec<[f64; 2]> {
        let mut seen = Vec::new();
        for star in stars {
            let at = truth.apply(*star);
            if at.iter().all(|c| (0.0..SIDE).contains(c)) && rng.random_bool(0.8) {
                seen.push([at[0] + rng.random_range(-0.3..0.3), at[1] + rng.random_range(-0.3..0.3)]);
            }
            if rng.random_bool(0.25) {
                seen.extend(field(rng, 1));
            }
        }
        for group in seen.chunks_mut(8) {
            group.shuffle(rng);
        }
        seen
    }

    #[test]
    fn forty_of_forty_fields_are_solved_whatever_rotation_parity_scale_and_pointing() {
        for seed in 0..40 {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let count = rng.random_range(30..200);
            let stars = field(&mut rng, count);
            let truth = Truth::random(&mut rng);
            let seen = observed(&mut rng, &stars, &truth);
            let found = blind_match(&stars, &seen, 0.95..=1.05).unwrap_or_else(|| panic!("seed {seed}, {count} stars"));
            for place in [[800.0, 900.0], [1500.0, 1500.0], [2200.0, 1800.0]] {
                let (at, should) = (found.map.apply(place), truth.apply(place));
                let error = (at[0] - should[0]).hypot(at[1] - should[1]);
                assert!(error < 2.5, "seed {seed}: {error} px");
            }
            let right = found.pairs.iter().filter(|&&(i, j)| {
                let should = truth.apply(stars[i]);
                (seen[j][0] - should[0]).hypot(seen[j][1] - should[1]) < 0.5
            });
            assert!(right.count() * 20 >= found.pairs.len() * 19, "seed {seed}: pairs are false");
        }
    }

    #[test]
    fn a_false_field_is_never_accepted() {
        for seed in 100..160 {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let counts = [rng.random_range(4..250), rng.random_range(4..250)];
            let (one, other) = (field(&mut rng, counts[0]), field(&mut rng, counts[1]));
            assert_eq!(blind_match(&one, &other, 0.95..=1.05), None, "seed {seed}: {counts:?}");
        }
    }

    #[test]
    fn a_few_common_stars_are_matched_where_that_cannot_be_chance_and_three_never_are() {
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        let truth = Truth { degrees: 178.0, scale: 1.0, mirrored: false, offset: [10.0, -20.0] };
        let stars = field(&mut rng, 12);
        let seen: Vec<[f64; 2]> = stars.iter().map(|p| truth.apply(*p)).collect();
        let found = blind_match(&stars[..8], &seen[..8], 0.98..=1.02).unwrap();
        assert!(found.pairs.len() >= 7 && found.rms_px < 1.5, "{found:?}");
        assert_eq!(blind_match(&stars[..3], &seen[..3], 0.98..=1.02), None);
        let mut mixed = field(&mut rng, 12);
        mixed[..3].copy_from_slice(&seen[..3]);
        assert_eq!(blind_match(&stars, &mixed, 0.98..=1.02), None, "three in common of twelve");
    }

    #[test]
    fn degenerate_lists_give_no_match() {
        let same = vec![[5.0, 5.0]; 50];
        let line: Vec<[f64; 2]> = (0..50).map(|i| [f64::from(i) * 20.0, 3.0]).collect();
        let nan = vec![[f64::NAN, 1.0]; 50];
        for list in [&same, &line, &nan, &Vec::new()] {
            assert_eq!(blind_match(list, list, 0.9..=1.1), None);
        }
    }
}
