//! A master is on every exposure of the night, so a bad one floods the world: each way of making a bad
//! one is refused with a sentence that has its numbers.

#![allow(clippy::unwrap_used)]

use ndarray::Array2;
use nightjar::calibrate::masters::{
    Master, MasterError, Masters, Refusal, combine_bias, combine_dark, combine_flat, of_night, read_folder,
};
use nightjar::camera::{DetectorFallbacks, HeaderFallbacks, RawFrame, raw_frame};
use nightjar::fits::{FitsImage, Header};
use rand::SeedableRng;
use rand_distr::{Distribution, Normal};

const WIDTH: usize = 120;
const HEIGHT: usize = 100;
const GAIN: f64 = 2.0;

/// What a frame is made of; each test spoils one thing.
#[derive(Clone)]
struct Recipe {
    kind: &'static str,
    seconds: f64,
    filter: &'static str,
    celsius: f64,
    gain: f64,
    width: usize,
    mode: &'static str,
    /// Light in ADU at a place between 0 and 1 in each axis.
    light: fn(f32, f32) -> f32,
    seed: u64,
}

fn dark_sky(_: f32, _: f32) -> f32 {
    0.0
}

fn lamp(x: f32, y: f32) -> f32 {
    20_000.0 * (1.0 - 0.2 * ((x - 0.5).powi(2) + (y - 0.5).powi(2)))
}

fn bias(seed: u64) -> Recipe {
    let (kind, filter, mode) = ("bias", "", "slow");
    Recipe { kind, seconds: 0.0, filter, celsius: -20.0, gain: GAIN, width: WIDTH, mode, light: dark_sky, seed }
}

fn dark(seed: u64) -> Recipe {
    Recipe { kind: "dark", seconds: 60.0, light: |_, _| 30.0, ..bias(seed) }
}

fn flat(seed: u64) -> Recipe {
    Recipe { kind: "flat", seconds: 3.0, filter: "r", light: lamp, ..bias(seed) }
}

fn frame(recipe: &Recipe) -> RawFrame {
    let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(recipe.seed);
    let noise = Normal::new(0.0_f32, 1.0).unwrap();
    let pixels = Array2::from_shape_fn((HEIGHT, recipe.width), |(y, x)| {
        let light = (recipe.light)(x as f32 / recipe.width as f32, y as f32 / HEIGHT as f32);
        let sigma = (9.0 + light.max(0.0) / GAIN as f32).sqrt();
        (500.0 + 5.0 * (x % 3) as f32 + light + sigma * noise.sample(&mut random)).round().clamp(0.0, 65_535.0)
    });
    raw(recipe, pixels)
}

fn raw(recipe: &Recipe, pixels: Array2<f32>) -> RawFrame {
    let mut header = Header::new();
    header.set("IMAGETYP", recipe.kind, "").set("EXPTIME", recipe.seconds, "").set("GAIN", recipe.gain, "");
    header.set("DATE-OBS", format!("2026-11-24T03:{:02}:00", recipe.seed % 60), "").set("FILTER", recipe.filter, "");
    header.set("CCD-TEMP", recipe.celsius, "").set("READOUTM", recipe.mode, "");
    let path = format!("{}-{}.fits", recipe.kind, recipe.seed).into();
    let image = FitsImage { path, name: String::new(), header, pixels };
    raw_frame(image, 0.0, &HeaderFallbacks::default(), &DetectorFallbacks::default()).unwrap()
}

fn loader(recipes: &[Recipe]) -> impl Fn(usize) -> Result<RawFrame, String> + Sync {
    let recipes = recipes.to_vec();
    move |number| Ok(frame(&recipes[number]))
}

fn masters() -> Masters {
    let biases: Vec<Recipe> = (0..5).map(bias).collect();
    let darks: Vec<Recipe> = (10..15).map(dark).collect();
    let mut masters = Masters { bias: Some(combine_bias(5, &loader(&biases)).unwrap().master), ..Masters::default() };
    masters.dark = Some(combine_dark(5, &loader(&darks), &masters).unwrap().master);
    masters
}

/// The one refusal among good frames; its sentence holds every one of `words`.
fn assert_refused(refused: &[Refusal], file: &str, words: &[&str]) {
    assert_eq!(refused.len(), 1, "{refused:?}");
    let sentence = refused[0].to_string();
    assert!(sentence.contains(file), "{sentence}");
    words.iter().for_each(|word| assert!(sentence.contains(word), "'{word}' is not in: {sentence}"));
}

#[test]
fn good_frames_make_masters_with_the_noise_that_statistics_gives() {
    let masters = masters();
    let bias = masters.bias.unwrap();
    assert!((bias.read_noise / 3.0 - 1.0).abs() < 0.1, "{}", bias.read_noise);
    let scatter = |image: &Array2<f32>, expected: &dyn Fn(usize) -> f32| {
        let squares = image.indexed_iter().map(|((_, x), value)| f64::from(value - expected(x)).powi(2));
        (squares.sum::<f64>() / image.len() as f64).sqrt()
    };
    let bias_scatter = scatter(&bias.image.pixels, &|x| 500.0 + 5.0 * (x % 3) as f32);
    assert!((bias_scatter / bias.noise - 1.0).abs() < 0.1, "{bias_scatter} for {}", bias.noise);
    let dark = masters.dark.unwrap();
    let dark_scatter = scatter(&dark.image.pixels, &|_| 1.0);
    assert!((dark_scatter / dark.noise - 1.0).abs() < 0.15, "{dark_scatter} for {}", dark.noise);
    assert_eq!(dark.provenance.files.len(), 5);
}

#[test]
fn a_flat_is_flat_where_the_light_was_and_its_noise_is_known() {
    let masters = masters();
    let flats: Vec<Recipe> = (20..30).map(flat).collect();
    let made = combine_flat(10, &loader(&flats), &masters).unwrap();
    assert!(made.refused.is_empty(), "{:?}", made.refused);
    let image = &made.master.image.pixels;
    let mut squares = 0.0;
    for ((y, x), value) in image.indexed_iter() {
        let truth = lamp(x as f32 / WIDTH as f32, y as f32 / HEIGHT as f32) / 20_000.0;
        squares += f64::from(value / truth * 0.968 - 1.0).powi(2);
    }
    let scatter = (squares / image.len() as f64).sqrt();
    assert!((scatter / made.master.noise - 1.0).abs() < 0.2, "{scatter} for {}", made.master.noise);
}

#[test]
fn a_bias_that_does_not_belong_is_left_out_by_name() {
    let spoilt: [(Recipe, &[&str]); 7] = [
        (Recipe { width: 90, ..bias(7) }, &["90 x 100", "120 x 100"]),
        (Recipe { light: |x, _| 100.0 * x, ..bias(7) }, &["light in it", "ADU"]),
        (Recipe { gain: 4.0, ..bias(7) }, &["gain is 4", "2"]),
        (Recipe { celsius: -10.0, ..bias(7) }, &["-10.0 C", "-20.0 C"]),
        (Recipe { mode: "fast", ..bias(7) }, &["readout mode", "fast", "slow"]),
        (Recipe { kind: "light", filter: "r", ..bias(7) }, &["light frame"]),
        (Recipe { seconds: 5.0, ..bias(7) }, &["5 s"]),
    ];
    for (bad, words) in spoilt {
        let name = format!("{}-7.fits", bad.kind);
        let recipes: Vec<Recipe> = (0..4).map(bias).chain([bad]).collect();
        let made = combine_bias(5, &loader(&recipes)).unwrap();
        assert_refused(&made.refused, &name, words);
        assert_eq!(made.master.provenance.files.len(), 4);
    }
}

#[test]
fn the_same_frame_twice_counts_once_and_two_are_too_few() {
    let recipes = [bias(1), bias(2), bias(2)];
    let message = combine_bias(3, &loader(&recipes)).unwrap_err().to_string();
    assert!(message.contains("2 good bias frames") && message.contains("copy of bias-2.fits"), "{message}");
    let message = combine_bias(1, &loader(&recipes)).unwrap_err().to_string();
    assert!(message.contains("1 good bias frames, at least 3"), "{message}");
    assert!(matches!(combine_bias(0, &loader(&[])), Err(MasterError::NoFrames)));
}

#[test]
fn a_bias_of_one_value_is_no_bias() {
    let load = |number: usize| Ok(raw(&bias(number as u64), Array2::from_elem((HEIGHT, WIDTH), 32.0 + number as f32)));
    let message = combine_bias(4, &load).unwrap_err().to_string();
    assert!(message.contains("every pixel is 32.0") && message.contains("no read noise"), "{message}");
}

#[test]
fn a_dark_with_light_in_it_is_left_out() {
    let masters = masters();
    let bad = Recipe { light: |_, _| 400.0, ..dark(7) };
    let recipes: Vec<Recipe> = (0..4).map(dark).chain([bad]).collect();
    let made = combine_dark(5, &loader(&recipes), &masters).unwrap();
    assert_refused(&made.refused, "dark-7.fits", &["light in it", "905.0"]);
    // Twice the exposure and twice the dark current is no light.
    let long = Recipe { seconds: 120.0, light: |_, _| 60.0, ..dark(7) };
    let recipes: Vec<Recipe> = (0..4).map(dark).chain([long]).collect();
    assert!(combine_dark(5, &loader(&recipes), &masters).unwrap().refused.is_empty());
    let message = combine_dark(5, &loader(&recipes), &Masters::default()).unwrap_err().to_string();
    assert!(message.contains("master bias"), "{message}");
}

#[test]
fn bad_flats_are_left_out_by_name() {
    let masters = masters();
    let spoilt: [(Recipe, &[&str]); 4] = [
        (Recipe { light: |_, _| 70_000.0, ..flat(7) }, &["saturated", "%"]),
        (Recipe { light: |_, _| 100.0, ..flat(7) }, &["100 ADU above bias", "500"]),
        (Recipe { filter: "g", ..flat(7) }, &["filter is g", "r"]),
        (Recipe { kind: "dark", light: |_, _| 30.0, ..flat(7) }, &["dark frame"]),
    ];
    for (bad, words) in spoilt {
        let name = format!("{}-7.fits", bad.kind);
        let recipes: Vec<Recipe> = (20..24).map(flat).chain([bad]).collect();
        let made = combine_flat(5, &loader(&recipes), &masters).unwrap();
        assert_refused(&made.refused, &name, words);
    }
    let load = |number: usize| {
        let ramp = Array2::from_shape_fn((HEIGHT, WIDTH), |(y, x)| 9_000.0 + (x / 8 + y / 8) as f32 + number as f32);
        Ok(raw(&flat(number as u64), ramp))
    };
    let message = combine_flat(4, &load, &masters).unwrap_err().to_string();
    assert!(message.contains("featureless"), "{message}");
}

#[test]
fn a_night_keeps_its_old_master_when_the_new_one_fails() {
    let before = masters();
    let recipes = [bias(1), bias(1), bias(1), flat(20), flat(21), flat(22)];
    let frames: Vec<_> = recipes.iter().map(|recipe| frame(recipe).exposure).collect();
    let night = of_night(&frames, &loader(&recipes), before);
    assert_eq!(night.masters.bias.unwrap().provenance.files.len(), 5);
    assert!(night.masters.flats.contains_key("r"));
    let said = night.findings.join("\n");
    assert!(said.contains("master bias: not made: 1 good") && said.contains("master flat r: made from 3"), "{said}");
}

#[test]
fn masters_are_written_and_read_back_and_the_newest_counts() {
    let folder = tempfile::tempdir().unwrap();
    let masters = masters();
    let (bias, dark) = (masters.bias.clone().unwrap(), masters.dark.clone().unwrap());
    let mut older = bias.clone();
    older.provenance.mjd = Some((50_000.0, 50_001.0));
    Master::Bias(older).write(&folder.path().join("z-older.fits")).unwrap();
    Master::Bias(bias.clone()).write(&folder.path().join("bias.fits")).unwrap();
    Master::Dark(dark.clone()).write(&folder.path().join("dark.fits")).unwrap();
    let read = read_folder(folder.path(), None).unwrap();
    let (read_bias, read_dark) = (read.bias.unwrap(), read.dark.unwrap());
    assert_eq!(read_bias.image.pixels, bias.image.pixels);
    assert_eq!(read_bias.provenance, bias.provenance);
    assert_eq!((read_bias.noise, read_bias.read_noise), (bias.noise, bias.read_noise));
    assert_eq!(read_dark.image.pixels, dark.image.pixels);
    assert_eq!(read_dark.hot_limit, dark.hot_limit);
}
