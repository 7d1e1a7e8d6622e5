//! A mesh brought to full resolution by natural bicubic splines, row by row.

use ndarray::Array2;

/// Nodes `box_size` pixels apart, the first at pixel `(box_size - 1) / 2`, joined by a natural cubic
/// spline in each axis; beyond the outer nodes the surface goes on straight.
#[derive(Debug, Clone)]
pub struct Surface {
    box_size: usize,
    nodes: Array2<f32>,
    /// Second derivative along y at each node, per box squared.
    curvature_y: Array2<f32>,
}

impl Surface {
    /// The surface through `nodes`, `[[row, column]]`.
    pub fn new(nodes: &Array2<f32>, box_size: usize) -> Self {
        let mut curvature_y = Array2::zeros(nodes.dim());
        for (values, mut curvatures) in nodes.columns().into_iter().zip(curvature_y.columns_mut()) {
            let values: Vec<f32> = values.iter().copied().collect();
            let mut solved = vec![0.0; values.len()];
            natural_curvatures(&values, &mut solved);
            for (into, from) in curvatures.iter_mut().zip(&solved) {
                *into = *from;
            }
        }
        Self { box_size, nodes: nodes.clone(), curvature_y }
    }

    /// Writes the values of the pixels of row `y` (zero-based) into `row`, from column 0 on.
    pub fn fill_row(&self, y: usize, row: &mut [f32]) {
        let (rows, columns) = self.nodes.dim();
        let half = (self.box_size as f32 - 1.0) / 2.0;
        let position = (y as f32 - half) / self.box_size as f32;
        let at_row: Vec<f32> = (0..columns)
            .map(|column| {
                let node = |i: usize| (self.nodes[[i, column]], self.curvature_y[[i, column]]);
                evaluate(position, rows, node)
            })
            .collect();
        let mut curvature = vec![0.0; columns];
        natural_curvatures(&at_row, &mut curvature);
        if columns == 1 {
            row.fill(at_row[0]);
            return;
        }
        let step = 1.0 / self.box_size as f32;
        let mut from = 0;
        // Before the first node, each interval, and behind the last node.
        for interval in 0..=columns {
            let end = match interval {
                i if i == columns => row.len(),
                i => ((half + i as f32 * self.box_size as f32).ceil() as usize).min(row.len()),
            };
            if end <= from {
                continue;
            }
            let low = interval.clamp(1, columns - 1) - 1;
            let straight = interval == 0 || interval == columns;
            let (a, b) = (at_row[low], at_row[low + 1]);
            let (ka, kb) = (curvature[low], curvature[low + 1]);
            let origin = half + low as f32 * self.box_size as f32;
            // The spline of one interval as a polynomial of t from 0 to 1.
            let (c1, c2, c3) = (b - a - (2.0 * ka + kb) / 6.0, ka / 2.0, (kb - ka) / 6.0);
            if straight {
                let (base, t0, slope) = if interval == 0 { (a, 0.0, c1) } else { (b, 1.0, c1 + 2.0 * c2 + 3.0 * c3) };
                for (k, pixel) in row[from..end].iter_mut().enumerate() {
                    *pixel = base + slope * (((from + k) as f32 - origin) * step - t0);
                }
            } else {
                for (k, pixel) in row[from..end].iter_mut().enumerate() {
                    let t = ((from + k) as f32 - origin) * step;
                    *pixel = a + t * (c1 + t * (c2 + t * c3));
                }
            }
            from = end;
        }
    }
}

/// Value at `position` (in nodes) of the spline through `count` nodes of (value, second derivative).
fn evaluate(position: f32, count: usize, node: impl Fn(usize) -> (f32, f32)) -> f32 {
    if count == 1 {
        return node(0).0;
    }
    let last = (count - 1) as f32;
    let low = (position.clamp(0.0, last) as usize).min(count - 2);
    let ((a, ka), (b, kb)) = (node(low), node(low + 1));
    let (c1, c2, c3) = (b - a - (2.0 * ka + kb) / 6.0, ka / 2.0, (kb - ka) / 6.0);
    let t = position - low as f32;
    match t {
        t if t < 0.0 => a + c1 * t,
        t if t > 1.0 => b + (c1 + 2.0 * c2 + 3.0 * c3) * (t - 1.0),
        t => a + t * (c1 + t * (c2 + t * c3)),
    }
}

/// Second derivatives of the natural cubic spline through equidistant `values` (unit spacing), by the
/// tridiagonal algorithm.
fn natural_curvatures(values: &[f32], curvatures: &mut [f32]) {
    let count = values.len();
    curvatures.fill(0.0);
    if count < 3 {
        return;
    }
    // Rows: k[i-1] + 4 k[i] + k[i+1] = 6 (v[i+1] - 2 v[i] + v[i-1]), k = 0 at both ends.
    let mut upper = vec![0.0_f32; count];
    for i in 1..count - 1 {
        let right = 6.0 * (values[i + 1] - 2.0 * values[i] + values[i - 1]);
        let pivot = 4.0 - upper[i - 1];
        upper[i] = 1.0 / pivot;
        curvatures[i] = (right - curvatures[i - 1]) / pivot;
    }
    for i in (1..count - 1).rev() {
        curvatures[i] -= upper[i] * curvatures[i + 1];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plane_stays_a_plane_up_to_the_edges() {
        let at = |x: f32, y: f32| 100.0 + 0.02 * x - 0.03 * y;
        let centre = |i: usize| 7.5 + 16.0 * i as f32;
        let nodes = Array2::from_shape_fn((5, 4), |(j, i)| at(centre(i), centre(j)));
        let surface = Surface::new(&nodes, 16);
        let mut row = vec![0.0; 70];
        for y in [0, 3, 40, 79] {
            surface.fill_row(y, &mut row);
            for (x, value) in row.iter().enumerate() {
                assert!((value - at(x as f32, y as f32)).abs() < 1e-3, "({x}, {y}): {value}");
            }
        }
    }

    #[test]
    fn a_smooth_wave_is_followed_between_the_nodes() {
        let wave = |x: f32| (x / 40.0).sin();
        let nodes = Array2::from_shape_fn((3, 12), |(_, i)| wave(7.5 + 16.0 * i as f32));
        let mut row = vec![0.0; 192];
        Surface::new(&nodes, 16).fill_row(20, &mut row);
        for (x, value) in row.iter().enumerate().take(160).skip(30) {
            assert!((value - wave(x as f32)).abs() < 2e-3, "{x}: {value} for {}", wave(x as f32));
        }
    }

    #[test]
    fn a_single_node_is_a_constant() {
        let mut row = vec![0.0; 9];
        Surface::new(&Array2::from_elem((1, 1), 3.5), 64).fill_row(8, &mut row);
        assert_eq!(row, vec![3.5; 9]);
    }
}
