//! Resampling of a whole frame of 3072×3080, beside one plain pass over the same memory.

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use ndarray::{Array2, Zip};
use nightjar::register::polynomial::{Domain, Map};
use nightjar::register::resample::{Source, marks, resample};
use nightjar::register::spline::BSpline;

const SHAPE: (usize, usize) = (3080, 3072);

fn whole_frame(c: &mut Criterion) {
    let image = Array2::from_shape_fn(SHAPE, |(y, x)| ((x * 7919 + y * 104_729) % 1000) as f32);
    let variance = Array2::from_elem(SHAPE, 25.0_f32);
    let flags = Array2::from_shape_fn(SHAPE, |(y, x)| u16::from((x * 31 + y * 17) % 5000 == 0));
    let domain = Domain::of_image(SHAPE.1, SHAPE.0);
    let points: Vec<[f64; 2]> = (0..100).map(|i| [f64::from(i % 10) * 340.0, f64::from(i / 10) * 340.0]).collect();
    let bent = |p: &[f64; 2]| [p[0] * 0.99996 - p[1] * 0.0087 + 13.4, p[1] + p[0] * 0.0087 - 8.9 + p[0] * p[1] * 1e-8];
    let values: Vec<[f64; 2]> = points.iter().map(bent).collect();
    let Some(map) = Map::fit(domain, 3, &points, &values, &[1.0; 100]) else { return };
    let spline = BSpline::new(&image);
    let marked = marks(&flags);

    let mut group = c.benchmark_group("resample 3072x3080");
    group.sample_size(10).measurement_time(Duration::from_secs(3)).warm_up_time(Duration::from_millis(500));
    group.bench_function("one pass over the memory (read, write)", |b| {
        b.iter(|| {
            let mut out = Array2::<f32>::zeros(SHAPE);
            Zip::from(&mut out).and(&image).par_for_each(|out, pixel| *out = *pixel * 1.5);
            black_box(out)
        });
    });
    group.bench_function("prefilter", |b| b.iter(|| black_box(BSpline::new(&image))));
    group.bench_function("marks", |b| b.iter(|| black_box(marks(&flags))));
    group.bench_function("evaluate pixels, variance, mask", |b| {
        let source = Source { spline: &spline, variance: &variance, marks: &marked };
        b.iter(|| black_box(resample(source, &map, SHAPE)));
    });
    group.finish();
}

criterion_group!(benches, whole_frame);
criterion_main!(benches);
