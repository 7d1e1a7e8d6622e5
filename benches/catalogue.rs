//! What known stars and asteroids cost an exposure: a thousand look-ups in a catalogue of ten million stars, and the
//! asteroids of a field among 1.4 million orbits on two cores.
//!
//! `NIGHTJAR_BENCH_STARS` and `NIGHTJAR_BENCH_ORBITS` set other numbers.
#![allow(clippy::unwrap_used)]

use std::hint::black_box;
use std::io::{BufWriter, Write};
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use nightjar::asteroids::{Asteroids, Observatory, Orbits};
use nightjar::catalogue::{StarCatalogue, build};
use nightjar::service::Stopwatch;
use nightjar::time::Mjd;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

const LOOK_UPS: usize = 1_000;
const FIELD_DEG: f64 = 0.6;

fn number(variable: &str, default: usize) -> usize {
    std::env::var(variable).ok().and_then(|n| n.parse().ok()).unwrap_or(default)
}

fn stars(c: &mut Criterion) {
    let count = number("NIGHTJAR_BENCH_STARS", 10_000_000);
    let folder = tempfile::tempdir().unwrap();
    let (table, file) = (folder.path().join("stars.csv"), folder.path().join("stars"));
    let mut random = ChaCha8Rng::seed_from_u64(1);
    let mut out = BufWriter::new(std::fs::File::create(&table).unwrap());
    writeln!(out, "objid,ra,dec,g,r,i,z,G").unwrap();
    for id in 0..count {
        let (ra, dec) = (random.random_range(0.0..360.0), random.random_range(-1.0_f64..1.0).asin().to_degrees());
        let g: f64 = random.random_range(12.0..22.0);
        writeln!(out, "{id},{ra:.7},{dec:.7},{g:.3},{:.3},{:.3},{:.3},{:.3}", g - 0.5, g - 0.7, g - 0.8, g - 0.3)
            .unwrap();
    }
    out.into_inner().unwrap();
    let begun = Stopwatch::start();
    let built = build(std::slice::from_ref(&table), &file, &|_| ()).unwrap();
    println!("catalogue/build: {count} stars in {:.1} s, {:.1} MB", begun.seconds(), built.bytes as f64 / 1e6);
    std::fs::remove_file(&table).unwrap();
    let begun = Stopwatch::start();
    let catalogue = StarCatalogue::open(&file).unwrap();
    println!("catalogue/open: {:.1} ms", begun.seconds() * 1e3);
    // Each round looks at another field, so that its cells are verified within it.
    let mut field = || -> Vec<(f64, f64)> {
        let (ra, dec) = (random.random_range(1.0..359.0), random.random_range(-80.0..80.0));
        let mut near = || random.random_range(-0.45..0.45);
        (0..LOOK_UPS).map(|_| (ra + near(), dec + near())).collect()
    };
    let mut group = c.benchmark_group(format!("{LOOK_UPS} look-ups of 90 arcsec among {count} stars"));
    group.sample_size(20).measurement_time(Duration::from_secs(4)).warm_up_time(Duration::from_millis(500));
    group.bench_function("one core", |b| {
        b.iter_batched(
            &mut field,
            |places| places.iter().map(|(ra, dec)| catalogue.within(*ra, *dec, 90.0 / 3600.0).len()).sum::<usize>(),
            criterion::BatchSize::SmallInput,
        );
    });
    group.finish();
}

/// Orbits like those of the main belt, as the Minor Planet Center writes them.
fn orbits(count: usize) -> Orbits {
    let mut random = ChaCha8Rng::seed_from_u64(2);
    let mut text = Vec::with_capacity(count * 200);
    for i in 0..count {
        let mut angle = |most: f64| random.random_range(0.0..most);
        let (m, w, node, inclination) = (angle(360.0), angle(360.0), angle(360.0), angle(25.0));
        let (e, a) = (angle(0.3), 2.1 + angle(1.2));
        let motion = 0.985_607_668_6 / a.powf(1.5);
        let packed = i % 100_000;
        writeln!(
            text,
            "{packed:05}   17.1   0.15 K26BL {m:9.5}  {w:9.5}  {node:9.5}  {inclination:9.5}  {e:9.7} {motion:11.8} {a:11.7}  0 MPO000000{:>60}({i})",
            ""
        )
        .unwrap();
    }
    let begun = Stopwatch::start();
    let (orbits, rubbish) = Orbits::parse(&mut text.as_slice());
    assert!(rubbish.is_none(), "{rubbish:?}");
    println!("asteroids/read: {} orbits in {:.2} s", orbits.len(), begun.seconds());
    orbits
}

fn asteroids(c: &mut Criterion) {
    let count = number("NIGHTJAR_BENCH_ORBITS", 1_400_000);
    let asteroids = Asteroids::new(orbits(count), Observatory::default());
    let two = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
    let mut day = 0.0;
    let mut group = c.benchmark_group(format!("asteroids of a field among {count} orbits, two cores"));
    group.sample_size(10).measurement_time(Duration::from_secs(4)).warm_up_time(Duration::from_millis(500));
    let place = (40.0, 12.0);
    // A day apart, so that each is the first of its night.
    group.bench_function("first exposure of a night", |b| {
        b.iter(|| {
            day += 1.0;
            two.install(|| black_box(asteroids.near(Mjd(61_100.0 + day), place, FIELD_DEG)))
        });
    });
    let last = Mjd(61_100.3 + day);
    let found = two.install(|| asteroids.near(last, place, FIELD_DEG)).len();
    println!("asteroids/found: {found} within {FIELD_DEG} degrees");
    group.bench_function("every other exposure", |b| {
        b.iter(|| two.install(|| black_box(asteroids.near(last, place, FIELD_DEG))));
    });
    group.finish();
}

criterion_group!(benches, stars, asteroids);
criterion_main!(benches);
