//! A neural network that tells real from bogus by a candidate's three pictures (`drb`).
//!
//! The observatory installs it: braai (Duev et al. 2019, MNRAS 489, 3582) as its authors publish it,
//! an architecture in Keras' JSON and weights in HDF5, or another sequential network of the same
//! kinds of layers. It takes 63×63 pixels of science, template and difference.
//!
//! Before the network sees a picture, NaN becomes 0, the picture is divided by its norm, and what is
//! missing to 63×63 is filled with 10⁻⁹. Up to version 7 of braai (`d6_m7`) each row is divided by
//! its own norm, later ones divide the whole picture: [`Normalise`].

mod hdf5;
mod layers;

use std::collections::BTreeMap;

use ndarray::{Array1, Array2, Array3, Axis};
use serde::Deserialize;

use crate::detect::CUTOUT_SIDE;
pub use hdf5::WeightsError;
use hdf5::{Array, read_arrays};
use layers::{Activation, Kernels, Layer, Shape};

/// What is put where a picture is too small.
const PADDING: f32 = 1e-9;

/// What a picture is divided by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Normalise {
    /// Each row by its own L2 norm.
    Row,
    /// All of it by its L2 norm.
    Cutout,
}

/// Why a network cannot be used. The night goes on without `drb`.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// The architecture is no JSON, or not Keras'.
    #[error("its architecture cannot be read ({0}); give the JSON that Keras' to_json writes")]
    Architecture(#[from] serde_json::Error),
    /// The weights cannot be read.
    #[error("{0}; give the weights that Keras' save_weights writes as .h5")]
    Weights(#[from] WeightsError),
    /// A layer or an option of one that is not known.
    #[error(
        "layer {layer}: {what} is not known; layers may be Conv2D (valid, step 1), MaxPooling2D, Dropout, Flatten and Dense"
    )]
    Layer {
        /// Name of the layer.
        layer: String,
        /// What is not known.
        what: String,
    },
    /// Weights that are not there, or of the wrong shape.
    #[error("layer {0}: its weights are missing or of another shape; architecture and weights are not of one network")]
    Shapes(String),
    /// It does not take three pictures to one number.
    #[error("it does not take 63x63x3 pixels to one score, but to {0:?}")]
    Ends(Shape),
}

/// A network, ready to be asked.
#[derive(Debug)]
pub struct Network {
    /// `drbversion`.
    pub version: String,
    normalise: Normalise,
    layers: Vec<Layer>,
}

#[derive(Deserialize)]
struct Architecture {
    config: Sequential,
    normalise: Option<Normalise>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Sequential {
    Named { layers: Vec<LayerOf> },
    Bare(Vec<LayerOf>),
}

#[derive(Deserialize)]
struct LayerOf {
    class_name: String,
    config: LayerConfig,
}

#[derive(Deserialize)]
struct LayerConfig {
    #[serde(default)]
    name: String,
    kernel_size: Option<(usize, usize)>,
    pool_size: Option<(usize, usize)>,
    strides: Option<(usize, usize)>,
    dilation_rate: Option<(usize, usize)>,
    padding: Option<String>,
    data_format: Option<String>,
    activation: Option<String>,
}

impl Network {
    /// From the `architecture` (JSON) and the `weights` (HDF5) of a network called `version`.
    ///
    /// A top-level key `"normalise": "row"` or `"cutout"` in the architecture says what pictures are
    /// divided by; without it the version tells: `…_m7` and lower rows, everything else cut-outs.
    pub fn from_keras(version: &str, architecture: &[u8], weights: &[u8]) -> Result<Self, NetworkError> {
        let architecture: Architecture = serde_json::from_slice(architecture)?;
        let mut arrays = read_arrays(weights)?;
        let (Sequential::Named { layers } | Sequential::Bare(layers)) = architecture.config;
        let mut shape = (CUTOUT_SIDE, CUTOUT_SIDE, 3);
        let mut network = Vec::new();
        for layer in &layers {
            if let Some(made) = layer_of(layer, &mut arrays)? {
                shape = made.output(shape).ok_or_else(|| NetworkError::Shapes(layer.config.name.clone()))?;
                network.push(made);
            }
        }
        if shape != (1, 1, 1) {
            return Err(NetworkError::Ends(shape));
        }
        let normalise = architecture.normalise.unwrap_or_else(|| normalise_of(version));
        Ok(Self { version: version.to_owned(), normalise, layers: network })
    }

    /// The score of science, template and difference picture: 0 (bogus) to 1 (real).
    pub fn score(&self, pictures: [&Array2<f32>; 3]) -> f32 {
        let mut image = Array3::from_elem((CUTOUT_SIDE, CUTOUT_SIDE, 3), PADDING);
        for (channel, picture) in pictures.into_iter().enumerate() {
            let ready = normalised(picture, self.normalise);
            let mut plane = image.index_axis_mut(Axis(2), channel);
            for ((y, x), value) in ready.indexed_iter() {
                if let Some(pixel) = plane.get_mut((y, x)) {
                    *pixel = *value;
                }
            }
        }
        let out = self.layers.iter().fold(image, |image, layer| layer.apply(image));
        out.iter().copied().next().unwrap_or(f32::NAN)
    }
}

/// `picture` without NaN, divided by its norm.
fn normalised(picture: &Array2<f32>, by: Normalise) -> Array2<f32> {
    let mut ready = picture.mapv(|x| if x.is_finite() { x } else { 0.0 });
    let norm = |values: ndarray::ArrayView1<'_, f32>| match values.dot(&values).sqrt() {
        0.0 => 1.0,
        norm => norm,
    };
    match by {
        Normalise::Row => {
            for mut row in ready.rows_mut() {
                let norm = norm(row.view());
                row.mapv_inplace(|x| x / norm);
            }
        }
        Normalise::Cutout => {
            let all: Array1<f32> = ready.iter().copied().collect();
            let norm = norm(all.view());
            ready.mapv_inplace(|x| x / norm);
        }
    }
    ready
}

/// What braai of this version divides by.
fn normalise_of(version: &str) -> Normalise {
    let number = version.rsplit_once("_m").and_then(|(_, n)| n.parse::<u32>().ok());
    match number {
        Some(0..=7) => Normalise::Row,
        _ => Normalise::Cutout,
    }
}

fn layer_of(layer: &LayerOf, arrays: &mut BTreeMap<String, Array>) -> Result<Option<Layer>, NetworkError> {
    let config = &layer.config;
    let unknown = |what: &str| NetworkError::Layer { layer: config.name.clone(), what: what.to_owned() };
    if config.data_format.as_deref().is_some_and(|format| format != "channels_last") {
        return Err(unknown("data_format other than channels_last"));
    }
    if config.padding.as_deref().is_some_and(|padding| padding != "valid") {
        return Err(unknown("padding other than valid"));
    }
    let activation = || match config.activation.as_deref() {
        None | Some("linear") => Ok(Activation::Linear),
        Some("relu") => Ok(Activation::Relu),
        Some("sigmoid") => Ok(Activation::Sigmoid),
        Some(other) => Err(unknown(&format!("activation {other}"))),
    };
    let shapes = || NetworkError::Shapes(config.name.clone());
    let mut weights = |axes: usize| {
        let mut take = |what: &str| {
            let path =
                arrays.keys().find(|p| p.starts_with(&format!("{}/", config.name)) && p.ends_with(what))?.clone();
            arrays.remove(&path)
        };
        let (kernel, bias) = take("/kernel:0").zip(take("/bias:0")).ok_or_else(shapes)?;
        let units = *kernel.shape.last().ok_or_else(shapes)?;
        if kernel.shape.len() != axes || bias.shape != [units] || units == 0 {
            return Err(shapes());
        }
        let matrix =
            Array2::from_shape_vec((kernel.values.len() / units, units), kernel.values).map_err(|_| shapes())?;
        Ok((matrix, bias.values, kernel.shape))
    };
    Ok(match layer.class_name.as_str() {
        "InputLayer" | "Dropout" => None,
        "Conv2D" => {
            if config.strides.unwrap_or((1, 1)) != (1, 1) || config.dilation_rate.unwrap_or((1, 1)) != (1, 1) {
                return Err(unknown("a step or dilation other than 1"));
            }
            let (matrix, bias, shape) = weights(4)?;
            if config.kernel_size != Some((shape[0], shape[1])) {
                return Err(shapes());
            }
            Some(Layer::Convolution(Kernels::new((shape[0], shape[1]), &matrix, &bias, activation()?)))
        }
        "MaxPooling2D" => {
            let (rows, columns) = config.pool_size.unwrap_or((2, 2));
            if config.strides.is_some_and(|strides| strides != (rows, columns)) || rows == 0 || columns == 0 {
                return Err(unknown("a step other than the block"));
            }
            Some(Layer::MaxPooling { rows, columns })
        }
        "Flatten" => Some(Layer::Flatten),
        "Dense" => {
            let (matrix, bias, _) = weights(2)?;
            Some(Layer::Dense(Kernels::new((1, 1), &matrix, &bias, activation()?)))
        }
        other => return Err(unknown(other)),
    })
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    #[test]
    fn pictures_are_divided_row_by_row_or_whole() {
        let picture = array![[3.0, 4.0], [0.0, f32::NAN]];
        assert_eq!(normalised(&picture, Normalise::Row), array![[0.6, 0.8], [0.0, 0.0]]);
        assert_eq!(normalised(&(&picture * 2.0), Normalise::Cutout), array![[0.6, 0.8], [0.0, 0.0]]);
        assert_eq!((normalise_of("d6_m7"), normalise_of("braai_d6_m9")), (Normalise::Row, Normalise::Cutout));
    }

    #[test]
    fn what_is_no_network_is_refused_in_one_line() {
        for (architecture, weights) in [("{}", &b""[..]), ("{\"config\": {\"layers\": []}}", b"nonsense")] {
            let message = Network::from_keras("x", architecture.as_bytes(), weights).unwrap_err().to_string();
            assert!(!message.contains('\n') && message.contains("give the"), "{message}");
        }
    }
}
