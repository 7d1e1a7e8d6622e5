//! What a matching kernel is made of: free pixels within a disc (Bramich 2008, MNRAS 386, L77), or cubic B-spline
//! bumps on a coarser grid where the stars are broad.
//!
//! The functions have unit sum; the fit uses the first as it is and the others minus the first, so that the
//! coefficient of the first alone is the kernel's sum (Alard 2000, A&AS 144, 363).

use nalgebra::DMatrix;
use ndarray::Array2;

/// One pixel of a function, relative to the kernel's middle.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tap {
    /// Columns to the right.
    pub dx: isize,
    /// Rows up.
    pub dy: isize,
    /// Value.
    pub value: f64,
}

/// The functions of which a kernel is a sum.
#[derive(Debug, Clone)]
pub struct Basis {
    functions: Vec<Vec<Tap>>,
    reach: usize,
    roughness: DMatrix<f64>,
    varying: Vec<bool>,
    sums: Vec<f64>,
}

impl Basis {
    /// Free values on a grid of `spacing` pixels within `radius` pixels of the middle; those within `inner`
    /// pixels may vary over the field.
    pub fn grid(radius: f64, spacing: usize, inner: f64) -> Self {
        let step = spacing as isize;
        let most = (radius / spacing as f64).floor() as isize;
        let mut places: Vec<(isize, isize)> = (-most..=most)
            .flat_map(|j| (-most..=most).map(move |i| (i, j)))
            .filter(|&(i, j)| distance(i, j) * spacing as f64 <= radius)
            .collect();
        // The middle first, then outwards.
        places.sort_by_key(|&(i, j)| (i * i + j * j, j, i));
        let bump = bump(step);
        let functions: Vec<Vec<Tap>> = places
            .iter()
            .map(|&(i, j)| {
                bump.iter().map(|tap| Tap { dx: tap.dx + i * step, dy: tap.dy + j * step, value: tap.value }).collect()
            })
            .collect();
        let varying = places.iter().map(|&(i, j)| distance(i, j) * spacing as f64 <= inner).collect();
        Self::new(functions, &roughness(&places), varying)
    }

    fn new(functions: Vec<Vec<Tap>>, roughness: &DMatrix<f64>, varying: Vec<bool>) -> Self {
        let farthest = functions.iter().flatten().map(|tap| tap.dx.unsigned_abs().max(tap.dy.unsigned_abs())).max();
        let reach = farthest.unwrap_or(0);
        let sums: Vec<f64> = functions.iter().map(|f| f.iter().map(|tap| tap.value).sum()).collect();
        let mut basis = Self { functions, reach, roughness: DMatrix::zeros(0, 0), varying, sums };
        // From the coefficients of the fit to those of the functions: the first takes back what the others lack.
        let size = basis.len();
        let mut change = DMatrix::identity(size, size);
        for k in 1..size {
            change[(0, k)] = -basis.sums[k];
        }
        basis.roughness = change.transpose() * roughness * &change;
        basis
    }

    /// Number of functions.
    pub fn len(&self) -> usize {
        self.functions.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.functions.is_empty()
    }

    /// Farthest pixel of any function from the middle, along an axis.
    pub fn reach(&self) -> usize {
        self.reach
    }

    /// Whether a function's coefficient may vary over the field.
    pub fn varies(&self, function: usize) -> bool {
        self.varying[function]
    }

    /// The penalty on rough kernels as a quadratic form of the fit's coefficients.
    pub fn roughness(&self) -> &DMatrix<f64> {
        &self.roughness
    }

    /// Values of the functions of the fit around (x, y) of `image`: convolved with each, the first as it is, the
    /// others minus the first.
    pub fn convolved(&self, image: &Array2<f32>, x: usize, y: usize, out: &mut [f64]) {
        for (value, function) in out.iter_mut().zip(&self.functions) {
            *value = function
                .iter()
                .map(|tap| {
                    let (px, py) = (x.wrapping_add_signed(-tap.dx), y.wrapping_add_signed(-tap.dy));
                    tap.value * image.get([py, px]).map_or(0.0, |v| f64::from(*v))
                })
                .sum();
        }
        let first = out[0];
        for (value, sum) in out.iter_mut().zip(&self.sums).skip(1) {
            *value -= sum * first;
        }
    }

    /// The kernel with these coefficients of the fit, an image of odd side.
    pub fn kernel(&self, coefficients: &[f64]) -> Array2<f64> {
        let side = 2 * self.reach + 1;
        let mut kernel = Array2::zeros((side, side));
        let rest: f64 = coefficients.iter().zip(&self.sums).skip(1).map(|(c, s)| c * s).sum();
        for (k, function) in self.functions.iter().enumerate() {
            let coefficient = if k == 0 { coefficients[0] - rest } else { coefficients[k] };
            for tap in function {
                let place = [self.reach.wrapping_add_signed(tap.dy), self.reach.wrapping_add_signed(tap.dx)];
                kernel[place] += coefficient * tap.value;
            }
        }
        kernel
    }
}

fn distance(i: isize, j: isize) -> f64 {
    (i as f64).hypot(j as f64)
}

/// A cubic B-spline bump of unit sum; a single pixel where the grid is the pixels.
fn bump(step: isize) -> Vec<Tap> {
    if step <= 1 {
        return vec![Tap { dx: 0, dy: 0, value: 1.0 }];
    }
    let value = |d: isize| {
        let t = (d as f64 / step as f64).abs();
        if t < 1.0 { 2.0 / 3.0 - t * t + 0.5 * t * t * t } else { (2.0 - t).max(0.0).powi(3) / 6.0 }
    };
    let reach = 2 * step - 1;
    let sum: f64 = (-reach..=reach).map(value).sum();
    (-reach..=reach)
        .flat_map(|dy| (-reach..=reach).map(move |dx| (dx, dy)))
        .map(|(dx, dy)| Tap { dx, dy, value: value(dx) * value(dy) / (sum * sum) })
        .collect()
}

/// Sum of the squared second differences on the grid, zero beyond it (Becker et al. 2012, MNRAS 425, 1341).
fn roughness(places: &[(isize, isize)]) -> DMatrix<f64> {
    let index: std::collections::HashMap<(isize, isize), usize> =
        places.iter().enumerate().map(|(k, place)| (*place, k)).collect();
    let mut laplacian = DMatrix::zeros(places.len(), places.len());
    for (row, &(i, j)) in places.iter().enumerate() {
        laplacian[(row, row)] = -4.0;
        for near in [(i + 1, j), (i - 1, j), (i, j + 1), (i, j - 1)] {
            if let Some(&column) = index.get(&near) {
                laplacian[(row, column)] = 1.0;
            }
        }
    }
    laplacian.transpose() * laplacian
}
