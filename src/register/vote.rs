//! Where two star lists lie over each other, when the pointing is nearly right: a vote on offsets.
//!
//! Every pair of stars, one of each list, votes for the offset between them. The offset at which
//! the lists agree gets a vote from each common star, any other one only chance coincidences: on a
//! good field 323 votes against 3, on a false one 3 against 3. A turn of 0.1° still works: it spreads
//! the votes by less than the box in which they are counted.

/// Side of a cell in which votes are counted, pixels; a peak is the sum over 3×3 of them.
const CELL: f64 = 2.0;
/// A peak counts when it has this many times the votes of the best place elsewhere.
const PEAK_OVER_BACKGROUND: usize = 5;
/// Fewest stars that make a peak.
const FEWEST: usize = 3;
/// Below this many stars a list is sparse, and the chance of a peak can be computed.
const SPARSE: usize = 30;
/// Probability of a chance peak anywhere that is accepted in a sparse field.
const CHANCE: f64 = 1e-3;

/// The outcome of a vote on offsets.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Vote {
    /// What to add to the first list's positions to come to the second's, pixels.
    pub offset: [f64; 2],
    /// Votes for it.
    pub count: usize,
    /// Votes of the best place apart from it.
    pub background: usize,
    /// Whether the peak stands out so that it can be trusted.
    pub clear: bool,
}

/// Votes on the offset from the positions `from` to those of `to`, up to `reach` pixels in each
/// axis. `None` where no pair of stars is within reach.
pub fn vote(from: &[[f64; 2]], to: &[[f64; 2]], reach: f64) -> Option<Vote> {
    let side = ((2.0 * reach / CELL).ceil() as usize).max(1);
    let cell = |difference: f64| {
        let index = ((difference + reach) / CELL).floor();
        (index >= 0.0 && index < side as f64).then_some(index as usize)
    };
    let grid = Grid::new(to, reach.max(1.0));
    let mut cells = vec![0_usize; side * side];
    let mut total = 0_usize;
    for a in from {
        grid.near(*a, |index| {
            let b = to[index];
            if let (Some(column), Some(row)) = (cell(b[0] - a[0]), cell(b[1] - a[1])) {
                cells[row * side + column] += 1;
                total += 1;
            }
        });
    }
    if total == 0 {
        return None;
    }
    let boxed = box_sums(&cells, side);
    let (peak, &count) = boxed.iter().enumerate().max_by_key(|(index, count)| (**count, usize::MAX - index))?;
    let apart = |index: usize| (index % side).abs_diff(peak % side).max((index / side).abs_diff(peak / side)) > 3;
    let background = boxed.iter().enumerate().filter(|(index, _)| apart(*index)).map(|(_, c)| *c).max().unwrap_or(0);

    // The offset is the median of the votes of the peak.
    let centre = |index: usize| (index as f64 + 0.5) * CELL - reach;
    let peak_at = [centre(peak % side), centre(peak / side)];
    let (mut dx, mut dy) = (Vec::new(), Vec::new());
    for a in from {
        grid.near(*a, |index| {
            let d = [to[index][0] - a[0], to[index][1] - a[1]];
            if (d[0] - peak_at[0]).abs() <= 1.5 * CELL && (d[1] - peak_at[1]).abs() <= 1.5 * CELL {
                dx.push(d[0]);
                dy.push(d[1]);
            }
        });
    }
    let outstanding = count >= PEAK_OVER_BACKGROUND * background.max(1);
    let sparse = from.len().min(to.len()) <= SPARSE;
    let per_box = 9.0 * total.saturating_sub(count) as f64 / (side * side) as f64;
    let improbable = sparse && count > background && (side * side) as f64 * poisson_tail(count, per_box) < CHANCE;
    Some(Vote {
        offset: [median(&mut dx)?, median(&mut dy)?],
        count,
        background,
        clear: count >= FEWEST && (outstanding || improbable),
    })
}

/// Sums over 3×3 cells.
fn box_sums(cells: &[usize], side: usize) -> Vec<usize> {
    let around = |at: usize| at.saturating_sub(1)..(at + 2).min(side);
    let sum = |index: usize| -> usize {
        around(index / side)
            .map(|row| around(index % side).map(|column| cells[row * side + column]).sum::<usize>())
            .sum()
    };
    (0..side * side).map(sum).collect()
}

/// Probability of `count` or more events where `mean` are expected.
pub(super) fn poisson_tail(count: usize, mean: f64) -> f64 {
    if count == 0 {
        return 1.0;
    }
    if mean <= 0.0 {
        return 0.0;
    }
    // The first term by logarithms, the rest by recursion; below the mean the sum is not small.
    let log_first = count as f64 * mean.ln() - mean - (1..=count).map(|k| (k as f64).ln()).sum::<f64>();
    let mut term = 1.0;
    let mut sum = 0.0;
    for k in 0..10_000 {
        sum += term;
        term *= mean / (count + k + 1) as f64;
        if term < 1e-12 * sum {
            break;
        }
    }
    (log_first + sum.ln()).exp().min(1.0)
}

fn median(values: &mut [f64]) -> Option<f64> {
    if values.is_empty() {
        return None;
    }
    let middle = values.len() / 2;
    Some(*values.select_nth_unstable_by(middle, f64::total_cmp).1)
}

/// Pairs (index in `from`, index in `to`) of stars that are each other's nearest within `radius`
/// pixels, in the order of `from`.
pub fn pairs(from: &[[f64; 2]], to: &[[f64; 2]], radius: f64) -> Vec<(usize, usize)> {
    let (to_grid, from_grid) = (Grid::new(to, radius), Grid::new(from, radius));
    let mutual = |a: usize| {
        let b = to_grid.nearest(from[a], radius)?;
        (from_grid.nearest(to[b], radius)? == a).then_some((a, b))
    };
    (0..from.len()).filter_map(mutual).collect()
}

/// Points by square cells, to find those near a place.
pub(super) struct Grid<'a> {
    points: &'a [[f64; 2]],
    side: f64,
    cells: std::collections::HashMap<(i64, i64), Vec<usize>>,
}

impl<'a> Grid<'a> {
    /// Cells of `side` pixels; points that are not finite are left out.
    pub(super) fn new(points: &'a [[f64; 2]], side: f64) -> Self {
        let mut cells = std::collections::HashMap::<_, Vec<usize>>::new();
        for (index, point) in points.iter().enumerate().filter(|(_, p)| p.iter().all(|c| c.is_finite())) {
            cells.entry(Self::cell(*point, side)).or_default().push(index);
        }
        Self { points, side, cells }
    }

    fn cell(point: [f64; 2], side: f64) -> (i64, i64) {
        ((point[0] / side).floor() as i64, (point[1] / side).floor() as i64)
    }

    /// Calls `each` for the points of the 3×3 cells around a place: at least all within a side.
    pub(super) fn near(&self, place: [f64; 2], mut each: impl FnMut(usize)) {
        let (column, row) = Self::cell(place, self.side);
        for y in row.saturating_sub(1)..=row.saturating_add(1) {
            for x in column.saturating_sub(1)..=column.saturating_add(1) {
                self.cells.get(&(x, y)).into_iter().flatten().for_each(|index| each(*index));
            }
        }
    }

    /// The nearest point within `radius`, which must not exceed the side of a cell.
    pub(super) fn nearest(&self, place: [f64; 2], radius: f64) -> Option<usize> {
        let mut best = None;
        let mut least = radius * radius;
        self.near(place, |index| {
            let d2 = (self.points[index][0] - place[0]).powi(2) + (self.points[index][1] - place[1]).powi(2);
            if d2 <= least {
                least = d2;
                best = Some(index);
            }
        });
        best
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    fn field(rng: &mut ChaCha8Rng, stars: usize, side: f64) -> Vec<[f64; 2]> {
        (0..stars).map(|_| [rng.random_range(0.0..side), rng.random_range(0.0..side)]).collect()
    }

    /// The field turned by `degrees` about its middle and moved, with centroid errors, a third of
    /// the stars missing and as many strangers.
    fn observed(rng: &mut ChaCha8Rng, stars: &[[f64; 2]], offset: [f64; 2], degrees: f64, side: f64) -> Vec<[f64; 2]> {
        let (sin, cos) = degrees.to_radians().sin_cos();
        let mut seen: Vec<[f64; 2]> = stars
            .iter()
            .map(|[x, y]| {
                let (u, v) = (x - side / 2.0, y - side / 2.0);
                let mut error = || rng.random_range(-0.2..0.2);
                [
                    cos * u - sin * v + side / 2.0 + offset[0] + error(),
                    sin * u + cos * v + side / 2.0 + offset[1] + error(),
                ]
            })
            .collect();
        seen.truncate(stars.len() * 2 / 3);
        let strangers = field(rng, stars.len() / 3, side);
        seen.extend(strangers);
        seen
    }

    #[test]
    fn the_true_offset_wins_on_every_good_field_and_false_fields_never_count() {
        for seed in 0..60 {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let count = rng.random_range(10..400);
            let stars = field(&mut rng, count, 3000.0);
            let offset = [rng.random_range(-34.0..34.0), rng.random_range(-34.0..34.0)];
            let seen = observed(&mut rng, &stars, offset, 0.05, 3000.0);
            let found = vote(&stars, &seen, 40.0).unwrap();
            assert!(found.clear, "seed {seed}: {found:?}");
            let error = (found.offset[0] - offset[0]).hypot(found.offset[1] - offset[1]);
            assert!(error < 1.5, "seed {seed}: {found:?} for {offset:?}");

            let elsewhere = field(&mut rng, count, 3000.0);
            let chance = vote(&stars, &elsewhere, 40.0);
            assert!(chance.is_none_or(|v| !v.clear), "seed {seed}: {chance:?}");
        }
    }

    #[test]
    fn three_common_stars_in_a_sparse_field_are_enough() {
        let stars = [[10.0, 20.0], [200.0, 50.0], [120.0, 220.0], [30.0, 180.0]];
        let seen = [[15.0, 17.0], [205.2, 47.1], [124.9, 217.0], [240.0, 240.0]];
        let found = vote(&stars, &seen, 40.0).unwrap();
        assert!(found.clear && found.count == 3, "{found:?}");
        assert!(vote(&stars[..2], &seen[..2], 40.0).is_some_and(|v| !v.clear), "two are not");
    }

    #[test]
    fn pairs_are_mutual_and_within_the_radius() {
        let from = [[0.0, 0.0], [10.0, 0.0], [10.5, 0.0], [50.0, 50.0], [f64::NAN, 1.0]];
        let to = [[0.3, 0.0], [10.4, 0.0], [60.0, 50.0]];
        assert_eq!(pairs(&from, &to, 2.0), [(0, 0), (2, 1)]);
        assert!(pairs(&from, &[], 2.0).is_empty());
    }

    #[test]
    fn the_chance_of_many_coincidences_is_that_of_poisson() {
        assert!((poisson_tail(1, 0.5) - (1.0 - (-0.5_f64).exp())).abs() < 1e-12);
        assert!((poisson_tail(3, 2.0) - 0.323_323_583_8).abs() < 1e-9);
        assert!(poisson_tail(50, 0.1) < 1e-100);
        assert!((poisson_tail(5, 100.0) - 1.0).abs() < 1e-9);
    }
}
