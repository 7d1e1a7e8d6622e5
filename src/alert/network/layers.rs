//! The layers of a convolutional network, on one image at a time.
//!
//! Images are `[[y, x, channel]]` (Keras' `channels_last`). A convolution is one matrix product: the
//! patches of an image as rows times the kernels as columns.

use ndarray::{Array1, Array2, Array3, s};

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

/// One layer; dropout, which does nothing when a network is asked, is left out.
#[derive(Debug)]
pub(super) enum Layer {
    /// Kernels of `rows` × `columns` pixels without padding, step 1: `weights` is (row, column,
    /// channel) by kernel.
    Convolution { rows: usize, columns: usize, weights: Array2<f32>, bias: Array1<f32>, activation: Activation },
    /// The largest of each block of `rows` × `columns` pixels; what does not fill a block is left out.
    MaxPooling { rows: usize, columns: usize },
    /// All pixels and channels in a row.
    Flatten,
    /// `weights` is input by unit.
    Dense { weights: Array2<f32>, bias: Array1<f32>, activation: Activation },
}

/// Shape of an image between layers: rows, columns, channels.
pub(super) type Shape = (usize, usize, usize);

impl Layer {
    /// The shape that this layer makes of `input`; `None` when it cannot take it.
    pub fn output(&self, input: Shape) -> Option<Shape> {
        match self {
            Self::Convolution { rows, columns, weights, .. } => {
                let fits = weights.nrows() == rows * columns * input.2 && input.0 >= *rows && input.1 >= *columns;
                fits.then(|| (input.0 - rows + 1, input.1 - columns + 1, weights.ncols()))
            }
            Self::MaxPooling { rows, columns } => {
                let out = (input.0 / (*rows).max(1), input.1 / (*columns).max(1), input.2);
                (out.0 > 0 && out.1 > 0).then_some(out)
            }
            Self::Flatten => Some((1, 1, input.0 * input.1 * input.2)),
            Self::Dense { weights, .. } => {
                (input.0 == 1 && input.1 == 1 && weights.nrows() == input.2).then(|| (1, 1, weights.ncols()))
            }
        }
    }

    /// Applies the layer to an image of a shape that [`Layer::output`] takes.
    pub fn apply(&self, input: Array3<f32>) -> Array3<f32> {
        match self {
            Self::Convolution { rows, columns, weights, bias, activation } => {
                let (height, width, channels) = input.dim();
                let (out_h, out_w) = (height - rows + 1, width - columns + 1);
                let mut patches = Array2::zeros((out_h * out_w, rows * columns * channels));
                for (index, mut patch) in patches.outer_iter_mut().enumerate() {
                    let (y, x) = (index / out_w, index % out_w);
                    for row in 0..*rows {
                        let from = input.slice(s![y + row, x..x + columns, ..]);
                        let length = columns * channels;
                        let to = patch.slice_mut(s![row * length..(row + 1) * length]);
                        for (to, from) in to.into_iter().zip(from) {
                            *to = *from;
                        }
                    }
                }
                image(dense(&patches, weights, bias, *activation), (out_h, out_w, weights.ncols()))
            }
            Self::MaxPooling { rows, columns } => {
                let (height, width, channels) = input.dim();
                Array3::from_shape_fn((height / rows, width / columns, channels), |(y, x, channel)| {
                    let block = input.slice(s![y * rows..(y + 1) * rows, x * columns..(x + 1) * columns, channel]);
                    block.fold(f32::NEG_INFINITY, |largest, value| largest.max(*value))
                })
            }
            Self::Flatten => {
                let length = input.len();
                image(
                    Array2::from_shape_fn((1, length), {
                        let flat: Vec<f32> = input.iter().copied().collect();
                        move |(_, i)| flat[i]
                    }),
                    (1, 1, length),
                )
            }
            Self::Dense { weights, bias, activation } => {
                let row = Array2::from_shape_fn((1, input.len()), |(_, i)| input[[0, 0, i]]);
                image(dense(&row, weights, bias, *activation), (1, 1, weights.ncols()))
            }
        }
    }
}

fn dense(rows: &Array2<f32>, weights: &Array2<f32>, bias: &Array1<f32>, activation: Activation) -> Array2<f32> {
    let mut sums = rows.dot(weights);
    sums += bias;
    sums.mapv_inplace(|x| activation.apply(x));
    sums
}

/// Rows of channels as an image of `shape`, which holds as many values.
fn image(rows: Array2<f32>, shape: Shape) -> Array3<f32> {
    Array3::from_shape_vec(shape, rows.into_iter().collect()).unwrap_or_else(|_| Array3::zeros(shape))
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    #[test]
    fn a_convolution_is_the_sum_over_its_patch() {
        let layer = Layer::Convolution {
            rows: 2,
            columns: 2,
            weights: array![[1.0], [2.0], [3.0], [4.0]],
            bias: array![-20.0],
            activation: Activation::Relu,
        };
        let image = Array3::from_shape_vec((2, 3, 1), vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0]).unwrap();
        assert_eq!(layer.output((2, 3, 1)), Some((1, 2, 1)));
        // 1 + 4 + 12 + 20 - 20 and 2 + 6 + 15 + 24 - 20.
        assert_eq!(layer.apply(image).into_iter().collect::<Vec<_>>(), [17.0, 27.0]);
    }

    #[test]
    fn pooling_leaves_out_what_does_not_fill_a_block() {
        let layer = Layer::MaxPooling { rows: 2, columns: 2 };
        let image = Array3::from_shape_fn((3, 5, 1), |(y, x, _)| (y * 5 + x) as f32);
        assert_eq!(layer.apply(image).into_iter().collect::<Vec<_>>(), [6.0, 8.0]);
    }

    #[test]
    fn a_layer_refuses_an_image_of_the_wrong_shape() {
        let dense =
            Layer::Dense { weights: Array2::zeros((4, 2)), bias: Array1::zeros(2), activation: Activation::Linear };
        assert_eq!(dense.output((1, 1, 5)), None);
        assert_eq!(Layer::MaxPooling { rows: 4, columns: 4 }.output((3, 3, 1)), None);
    }
}
