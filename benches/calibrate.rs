//! Calibration of a whole frame of 3072×3080, all steps with cosmic rays, beside one plain pass over the same memory.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use ndarray::{Array2, Zip};
use nightjar::calibrate::background::{BOX_SIZE, measure};
use nightjar::calibrate::masters::{Masters, combine_bias, combine_dark, combine_flat};
use nightjar::calibrate::{CalibrationParameters, calibrate};
use nightjar::camera::{DetectorFallbacks, HeaderFallbacks, RawFrame, raw_frame};
use nightjar::fits::{FitsImage, Header};
use nightjar::image::Mask;
use rand::{Rng, SeedableRng};
use rand_distr::{Distribution, Normal};

const WIDTH: usize = 3072;
const OVERSCAN: usize = 48;
const HEIGHT: usize = 3080;

/// A raw frame with an overscan: pedestal, light, noise, and 5,000 stars on a light frame.
fn frame(kind: &str, seconds: f64, light: f32, seed: u64) -> Result<RawFrame, String> {
    let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
    let noise = Normal::new(0.0_f32, 1.0).map_err(|e| e.to_string())?;
    let mut sky = Array2::<f32>::from_elem((HEIGHT, WIDTH), light);
    for _ in 0..if kind == "light" { 5_000 } else { 0 } {
        let (cx, cy) = (random.random_range(20.0..3050.0_f32), random.random_range(20.0..3050.0_f32));
        let peak = 30.0 * 10.0_f32.powf(random.random_range(0.0..3.2));
        for y in cy as usize - 12..cy as usize + 13 {
            for x in cx as usize - 12..cx as usize + 13 {
                let r2 = (x as f32 - cx).powi(2) + (y as f32 - cy).powi(2);
                sky[[y, x]] += peak * (1.0 + r2 / 4.0).powf(-2.5);
            }
        }
    }
    let pixels = Array2::from_shape_fn((HEIGHT, WIDTH + OVERSCAN), |(y, x)| {
        let light = if x < WIDTH { sky[[y, x]] } else { 0.0 };
        (1000.0 + light + (4.0 + light / 2.0).sqrt() * noise.sample(&mut random)).round().clamp(0.0, 65_535.0)
    });
    let mut header = Header::new();
    header.set("IMAGETYP", kind, "").set("EXPTIME", seconds, "").set("GAIN", 2.0, "").set("RDNOISE", 4.0, "");
    header
        .set("DATE-OBS", format!("2026-11-24T03:15:{seed:02}"), "")
        .set("FILTER", "r", "")
        .set("SATURATE", 60_000.0, "");
    header.set("BIASSEC", format!("[{}:{},1:{HEIGHT}]", WIDTH + 1, WIDTH + OVERSCAN), "");
    let image = FitsImage { path: format!("{kind}-{seed}.fits").into(), name: String::new(), header, pixels };
    raw_frame(image, 0.0, &HeaderFallbacks::default(), &DetectorFallbacks::default()).map_err(|e| e.to_string())
}

fn masters() -> Option<Masters> {
    let bias = combine_bias(3, &|n| frame("bias", 0.0, 0.0, n as u64)).ok()?.master;
    let mut masters = Masters { bias: Some(bias), ..Masters::default() };
    masters.dark = Some(combine_dark(3, &|n| frame("dark", 60.0, 20.0, 10 + n as u64), &masters).ok()?.master);
    let flat = combine_flat(3, &|n| frame("flat", 3.0, 20_000.0, 20 + n as u64), &masters).ok()?.master;
    masters.flats.insert(flat.filter.clone(), flat);
    Some(masters)
}

fn whole_frame(c: &mut Criterion) {
    let (Some(masters), Ok(raw)) = (masters(), frame("light", 30.0, 400.0, 30)) else { return };
    let trimmed = raw.pixels.pixels.slice(ndarray::s![.., ..WIDTH]).to_owned();
    let nothing = Mask::zeros((HEIGHT, WIDTH));
    let mut group = c.benchmark_group("calibrate 3072x3080");
    group.sample_size(10).measurement_time(Duration::from_secs(5)).warm_up_time(Duration::from_millis(500));
    group.bench_function("one pass over the memory (read, write)", |b| {
        b.iter(|| {
            let mut out = Array2::<f32>::zeros((HEIGHT, WIDTH));
            Zip::from(&mut out).and(&trimmed).par_for_each(|out, pixel| *out = *pixel * 1.5);
            black_box(out)
        });
    });
    group.bench_function("background", |b| b.iter(|| black_box(measure(trimmed.view(), &nothing, BOX_SIZE))));
    let quick = CalibrationParameters { cosmic_rays: false, trails: false, ..CalibrationParameters::default() };
    group.bench_function("without cosmic rays and trails", |b| {
        b.iter_batched(|| raw.clone(), |raw| black_box(calibrate(raw, &masters, &quick)), BatchSize::PerIteration);
    });
    let all = CalibrationParameters::default();
    group.bench_function("all steps", |b| {
        b.iter_batched(|| raw.clone(), |raw| black_box(calibrate(raw, &masters, &all)), BatchSize::PerIteration);
    });
    group.finish();
}

criterion_group!(benches, whole_frame);
criterion_main!(benches);
