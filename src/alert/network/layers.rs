//! The layers of a convolutional network, on one image at a time.
//!
//! Images are `[[y, x, channel]]` (Keras' `channels_last`), so that a patch of an image is one stretch of
//! memory a row. The sums of four neighbouring places over sixteen kernels stay in registers while a patch
//! is read, and are added in the same order on every processor.

use ndarray::{Array2, Array3, ArrayView3, s};

/// Kernels that are summed together.
const ABREAST: usize = 16;
/// Neighbouring places that are summed together.
const PLACES: usize = 4;

/// What a layer does to its sums.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Activation {
    Linear,
    Relu,
    Sigmoid,
}

impl Activation {
    fn apply(self, x: f32) -> f32 {
        match self {
            Self::Linear => x,
            Self::Relu => x.max(0.0),
            Self::Sigmoid => 1.0 / (1.0 + (-x).exp()),
        }
    }
}

/// Kernels with their biases and what is done to the sums.
#[derive(Debug)]
pub(super) struct Kernels {
    rows: usize,
    columns: usize,
    /// Weights of a kernel: rows × columns × channels.
    length: usize,
    /// How many.
    units: usize,
    /// Sixteen kernels after sixteen kernels, each weight of them side by side; zero where there is none.
    panels: Vec<[f32; ABREAST]>,
    bias: Vec<f32>,
    activation: Activation,
}

impl Kernels {
    /// From `weights`, (row, column, channel) by kernel.
    pub fn new((rows, columns): (usize, usize), weights: &Array2<f32>, bias: &[f32], activation: Activation) -> Self {
        let (length, units) = weights.dim();
        let panel = |first: usize, k: usize| {
            std::array::from_fn(|lane| weights.get((k, first + lane)).copied().unwrap_or_default())
        };
        let panels = (0..units).step_by(ABREAST).flat_map(|first| (0..length).map(move |k| panel(first, k))).collect();
        let bias = (0..units.next_multiple_of(ABREAST)).map(|i| bias.get(i).copied().unwrap_or_default()).collect();
        Self { rows, columns, length, units, panels, bias, activation }
    }

    /// The image of the sums, of `shape` (rows, columns).
    fn over(&self, input: ArrayView3<'_, f32>, (height, width): (usize, usize)) -> Array3<f32> {
        let standard = input.as_standard_layout();
        let mut out = vec![0.0; height * width * self.units];
        if let Some(values) = standard.as_slice() {
            sum(self, values, input.dim(), (height, width), &mut out);
        }
        out.iter_mut().for_each(|x| *x = self.activation.apply(*x));
        Array3::from_shape_vec((height, width, self.units), out)
            .unwrap_or_else(|_| Array3::zeros((height, width, self.units)))
    }
}

/// The sums of `kernels` over the patches of `input`, before the activation.
#[multiversion::multiversion(targets("x86_64+avx2+fma", "aarch64+neon"))]
fn sum(
    kernels: &Kernels,
    input: &[f32],
    (_, input_width, channels): (usize, usize, usize),
    (height, width): (usize, usize),
    out: &mut [f32],
) {
    let stretch = kernels.columns * channels;
    for (panel, first) in kernels.panels.chunks(kernels.length).zip((0..).step_by(ABREAST)) {
        let Some(bias) = kernels.bias[first..].first_chunk::<ABREAST>() else { continue };
        let lanes = ABREAST.min(kernels.units - first);
        for y in 0..height {
            let row = |row: usize| &input[(y + row) * input_width * channels..][..input_width * channels];
            let mut x = 0;
            while x < width {
                let mut write = |x: usize, sums: &[f32; ABREAST]| {
                    let at = (y * width + x) * kernels.units + first;
                    out[at..at + lanes].copy_from_slice(&sums[..lanes]);
                };
                if x + PLACES <= width {
                    let mut sums = [*bias; PLACES];
                    for (k, weights) in panel.chunks(stretch).enumerate() {
                        add(&mut sums, weights, &row(k)[x * channels..], channels);
                    }
                    (x..).zip(&sums).for_each(|(x, sums)| write(x, sums));
                    x += PLACES;
                } else {
                    let mut sums = [*bias];
                    for (k, weights) in panel.chunks(stretch).enumerate() {
                        add(&mut sums, weights, &row(k)[x * channels..], channels);
                    }
                    write(x, &sums[0]);
                    x += 1;
                }
            }
        }
    }
}

/// Adds a row of a patch at `N` neighbouring places; `values` begins at the first of them.
#[inline(always)]
fn add<const N: usize>(sums: &mut [[f32; ABREAST]; N], weights: &[[f32; ABREAST]], values: &[f32], channels: usize) {
    let mut own = *sums;
    let places: [&[f32]; N] = std::array::from_fn(|n| &values[n * channels..][..weights.len()]);
    for (k, weights) in weights.iter().enumerate() {
        for n in 0..N {
            let value = places[n][k];
            for lane in 0..ABREAST {
                own[n][lane] += value * weights[lane];
            }
        }
    }
    *sums = own;
}

/// One layer; dropout, which does nothing when a network is asked, is left out.
#[derive(Debug)]
pub(super) enum Layer {
    /// Kernels without padding, step 1.
    Convolution(Kernels),
    /// The largest of each block of `rows` × `columns` pixels; what does not fill a block is left out.
    MaxPooling { rows: usize, columns: usize },
    /// All pixels and channels in a row.
    Flatten,
    /// Kernels of one pixel, its channels the inputs.
    Dense(Kernels),
}

/// Shape of an image between layers: rows, columns, channels.
pub(super) type Shape = (usize, usize, usize);

impl Layer {
    /// The shape that this layer makes of `input`; `None` when it cannot take it.
    pub fn output(&self, input: Shape) -> Option<Shape> {
        match self {
            Self::Convolution(Kernels { rows, columns, length, units, .. }) => {
                let fits =
                    *length == rows * columns * input.2 && input.0 >= *rows && input.1 >= *columns && *length > 0;
                fits.then(|| (input.0 - rows + 1, input.1 - columns + 1, *units))
            }
            Self::MaxPooling { rows, columns } => {
                let out = (input.0 / (*rows).max(1), input.1 / (*columns).max(1), input.2);
                (out.0 > 0 && out.1 > 0).then_some(out)
            }
            Self::Flatten => Some((1, 1, input.0 * input.1 * input.2)),
            Self::Dense(kernels) => (input.0 == 1 && input.1 == 1 && kernels.length == input.2 && input.2 > 0)
                .then_some((1, 1, kernels.units)),
        }
    }

    /// Applies the layer to an image of a shape that [`Layer::output`] takes.
    pub fn apply(&self, input: Array3<f32>) -> Array3<f32> {
        match self {
            Self::Convolution(kernels) => {
                let (height, width, _) = input.dim();
                kernels.over(input.view(), (height - kernels.rows + 1, width - kernels.columns + 1))
            }
            Self::MaxPooling { rows, columns } => {
                let (height, width, channels) = input.dim();
                let mut largest = Array3::from_elem((height / rows, width / columns, channels), f32::NEG_INFINITY);
                for ((y, x), mut pixel) in (0..height / rows)
                    .flat_map(|y| (0..width / columns).map(move |x| (y, x)))
                    .zip(largest.lanes_mut(ndarray::Axis(2)))
                {
                    for lane in input.slice(s![y * rows..(y + 1) * rows, x * columns..(x + 1) * columns, ..]).rows() {
                        pixel.zip_mut_with(&lane, |most, value| *most = most.max(*value));
                    }
                }
                largest
            }
            Self::Flatten => {
                let flat: Vec<f32> = input.into_iter().collect();
                let length = flat.len();
                Array3::from_shape_vec((1, 1, length), flat).unwrap_or_else(|_| Array3::zeros((1, 1, length)))
            }
            Self::Dense(kernels) => kernels.over(input.view(), (1, 1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    #[test]
    fn a_convolution_is_the_sum_over_its_patch() {
        let weights = array![[1.0], [2.0], [3.0], [4.0]];
        let layer = Layer::Convolution(Kernels::new((2, 2), &weights, &[-20.0], Activation::Relu));
        let image = Array3::from_shape_vec((2, 3, 1), vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0]).unwrap();
        assert_eq!(layer.output((2, 3, 1)), Some((1, 2, 1)));
        // 1 + 4 + 12 + 20 - 20 and 2 + 6 + 15 + 24 - 20.
        assert_eq!(layer.apply(image).into_iter().collect::<Vec<_>>(), [17.0, 27.0]);
    }

    #[test]
    fn many_kernels_over_many_places_are_the_sums_one_by_one() {
        // Neither the kernels nor the places of a row fill their groups.
        let (rows, columns, channels, units) = (3, 2, 5, 19);
        let noise = |i: usize| ((i * 7919) % 101) as f32 - 50.0;
        let image = Array3::from_shape_fn((6, 8, channels), |(y, x, c)| noise(y * 100 + x * 10 + c));
        let weights = Array2::from_shape_fn((rows * columns * channels, units), |(k, u)| noise(k * 31 + u));
        let bias: Vec<f32> = (0..units).map(noise).collect();
        let layer = Layer::Convolution(Kernels::new((rows, columns), &weights, &bias, Activation::Linear));
        let found = layer.apply(image.clone());
        assert_eq!(layer.output((6, 8, channels)), Some(found.dim()));
        for ((y, x, u), sum) in found.indexed_iter() {
            let patch = image.slice(s![y..y + rows, x..x + columns, ..]);
            let wanted = bias[u] + patch.iter().zip(weights.column(u)).map(|(a, b)| a * b).sum::<f32>();
            assert_eq!(*sum, wanted, "{y} {x} {u}");
        }
    }

    #[test]
    fn pooling_leaves_out_what_does_not_fill_a_block() {
        let layer = Layer::MaxPooling { rows: 2, columns: 2 };
        let image = Array3::from_shape_fn((3, 5, 1), |(y, x, _)| (y * 5 + x) as f32);
        assert_eq!(layer.apply(image).into_iter().collect::<Vec<_>>(), [6.0, 8.0]);
    }

    #[test]
    fn a_layer_refuses_an_image_of_the_wrong_shape() {
        let dense = Layer::Dense(Kernels::new((1, 1), &Array2::zeros((4, 2)), &[0.0; 2], Activation::Linear));
        assert_eq!(dense.output((1, 1, 5)), None);
        assert_eq!(Layer::MaxPooling { rows: 4, columns: 4 }.output((3, 3, 1)), None);
    }
}
