//! Finished alerts a second on one core, beside Python's fastavro and gzip on the same packets; a
//! thousand scores of braai; and what a thousand candidates cost the history.
//!
//! Seconds of the processor are told beside those of the clock: they say the same on a machine that has
//! other work.
//!
//! `NIGHTJAR_BENCH_DETECTIONS` sets how many detections the history holds (default 200,000; the
//! promise is for 20 million, of 6 GB). `NIGHTJAR_BENCH_HISTORY` names a folder where such histories are made once
//! and stay.
#![allow(clippy::unwrap_used)]

#[path = "../tests/packets/mod.rs"]
mod packets;

use std::hint::black_box;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use nightjar::alert::{Network, packets as make};
use nightjar::detect::Detections;
use nightjar::history::{Footprint, History, Outcome, Past, PriorEpoch, Question, Searched, Sighting};
use nightjar::time::Mjd;
use nix::time::{ClockId, clock_gettime};
use packets::{CODE, candidate, conditions, detections, exposure, parameters, three_visits};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Normal};
use rayon::prelude::*;

const ALERTS: usize = 500;
const CANDIDATES: usize = 1_000;

/// Alerts on an exposure, their pictures with the noise of a real sky: it is what gzip works on.
fn noisy_exposure() -> Detections {
    let mut random = ChaCha8Rng::seed_from_u64(7);
    let noise = Normal::new(0.0_f32, 12.0).unwrap();
    let candidates = (0..ALERTS).map(|_| {
        let flux = 10f64.powf(random.random_range(3.3..4.8));
        let mut one = candidate(random.random_range(40.0..3030.0), random.random_range(40.0..3040.0), flux);
        let cutouts = one.cutouts.as_mut().unwrap();
        for picture in [&mut cutouts.science, &mut cutouts.template, &mut cutouts.difference] {
            picture.mapv_inplace(|pixel| pixel + noise.sample(&mut random));
        }
        one
    });
    detections("2026-11-24T03:15:22.12", candidates.collect())
}

/// A past of twenty epochs, a detection in every fourth, as a real object has it.
fn past_of_twenty(seen: &Detections) -> Vec<Past> {
    let mut history = History::in_memory().unwrap();
    let visit = three_visits().remove(0);
    let sighting = packets::night(&mut history, &visit, &parameters()).1.remove(0).sighting.detection;
    let limit = nightjar::alert::upper_limit(&visit, &parameters());
    let epochs: Vec<Arc<PriorEpoch>> =
        (0..20).map(|i| Arc::new(if i % 4 == 0 { sighting.clone() } else { limit.clone() })).collect();
    let past = |i: usize| Past {
        object_id: format!("NJR26aaaa{:03}", i),
        object_place: (10.0, 41.0),
        epochs: epochs.clone(),
        detections: 6,
        coverages: 21,
        first_jd: seen.exposure.start.jd() - 20.0,
        last_jd: seen.exposure.start.jd(),
    };
    (0..ALERTS).map(past).collect()
}

fn finished_alerts(c: &mut Criterion) {
    let seen = noisy_exposure();
    let pasts = past_of_twenty(&seen);
    let parameters = parameters();
    let one_core = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    let mut group = c.benchmark_group("alerts");
    group.sample_size(10).measurement_time(Duration::from_secs(4)).warm_up_time(Duration::from_millis(500));
    group.throughput(Throughput::Elements(ALERTS as u64));
    group.bench_function("finished, one core", |b| {
        b.iter(|| one_core.install(|| black_box(make(&seen, &pasts, &parameters).unwrap())));
    });
    group.finish();
    let busy = processor_seconds(|| drop(one_core.install(|| make(&seen, &pasts, &parameters).unwrap())));
    println!("alerts/finished, one core: {:.0} a second of the processor", ALERTS as f64 / busy);
    beside_python(&one_core.install(|| make(&seen, &pasts, &parameters).unwrap()));
}

/// Seconds of the processor, in all threads, that `work` takes: the median of nine runs.
fn processor_seconds(mut work: impl FnMut()) -> f64 {
    let now = || {
        let time = clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).unwrap();
        time.tv_sec() as f64 + time.tv_nsec() as f64 * 1e-9
    };
    let mut seconds: Vec<f64> = (0..9)
        .map(|_| {
            let begun = now();
            work();
            now() - begun
        })
        .collect();
    seconds.sort_by(f64::total_cmp);
    seconds[4]
}

/// A thousand scores of braai on two cores.
fn network_scores(c: &mut Criterion) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/dmitryduev+braai");
    let file = |end: &str| std::fs::read(folder.join(format!("d6_m7.{end}"))).ok();
    let Some((architecture, weights)) = file("architecture.json").zip(file("weights.h5")) else {
        println!("braai: not run: no real data in ../shared/data");
        return;
    };
    let network = Network::from_keras("d6_m7", &architecture, &weights).unwrap();
    let seen = noisy_exposure();
    let pictures: Vec<_> = seen.candidates.iter().filter_map(|one| one.cutouts.as_ref()).collect();
    let score = || {
        let scores = (0..CANDIDATES).into_par_iter().map(|i| {
            let cutouts = pictures[i % pictures.len()];
            network.score([&cutouts.science, &cutouts.template, &cutouts.difference])
        });
        scores.sum::<f32>()
    };
    let two_cores = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
    let mut group = c.benchmark_group(format!("braai, {CANDIDATES} candidates"));
    group.sample_size(10).measurement_time(Duration::from_secs(4)).warm_up_time(Duration::from_millis(500));
    group.bench_function("two cores", |b| b.iter(|| two_cores.install(|| black_box(score()))));
    group.finish();
    let busy = processor_seconds(|| {
        black_box(two_cores.install(score));
    });
    println!("braai, {CANDIDATES} candidates: {busy:.2} seconds of the processor");
}

/// The same packets written by fastavro with gzip of the pictures, timed by Python itself.
fn beside_python(alerts: &[nightjar::alert::Alert]) {
    let home = std::env::var("XDG_CACHE_HOME").or_else(|_| std::env::var("HOME").map(|home| home + "/.cache"));
    let python = std::env::var("NIGHTJAR_PYTHON").or(home.map(|cache| cache + "/nightjar/python/bin/python3"));
    let folder = tempfile::tempdir().unwrap();
    for alert in &alerts[..100] {
        std::fs::write(folder.path().join(format!("{}.avro", alert.candid)), &alert.payload).unwrap();
    }
    let bytes: usize = alerts.iter().map(|alert| alert.payload.len()).sum();
    println!("alerts/size: {:.1} kB a packet", bytes as f64 / alerts.len() as f64 / 1e3);
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/alerts_in_python.py");
    match python.map(|python| Command::new(python).arg(script).arg(folder.path()).status()) {
        Ok(Ok(status)) if status.success() => {}
        _ => println!("alerts/python: not run: no Python with fastavro"),
    }
}

/// A history of fields that were visited again and again; half of what is seen was seen before.
fn history_of(detections: usize, folder: &std::path::Path) -> History {
    // A folder gets its name when all of it is there.
    let unfinished = folder.with_extension("unfinished");
    if folder.exists() {
        return History::open(&folder.join("history.sqlite")).unwrap().history;
    }
    let _ = std::fs::remove_dir_all(&unfinished);
    std::fs::create_dir_all(&unfinished).unwrap();
    let mut history = History::open(&unfinished.join("history.sqlite")).unwrap().history;
    let mut random = ChaCha8Rng::seed_from_u64(11);
    let visits = detections / CANDIDATES;
    let seen = three_visits().remove(0);
    let template = packets::night(&mut History::in_memory().unwrap(), &seen, &parameters()).1.remove(0).sighting;
    let limit = nightjar::alert::upper_limit(&seen, &parameters());
    let first: Mjd = "2026-10-25T00:00:00".parse().unwrap();
    for visit in 0..visits {
        // Thirty fields along a circle of declination; the first is the one that is asked about.
        let field = visit % 30;
        let start = first.plus_seconds(visit as f64 * 30.0 * 86_400.0 / visits as f64);
        let shift = 12.0 * field as f64;
        let sightings: Vec<Sighting> = (0..CANDIDATES)
            .map(|i| {
                let known = i < CANDIDATES / 2;
                let (x, y) =
                    if known { place(i) } else { (random.random::<f64>() * 3072.0, random.random::<f64>() * 3080.0) };
                let (ra, dec) = packets::sky(x, y);
                let place = (ra + shift, dec);
                let object_id =
                    if known { format!("NJR26k{field:02}{i:04}") } else { format!("NJR26n{visit:05}{i:04}") };
                let mut detection = template.detection.clone();
                detection.jd = start.jd();
                detection.candid = Some((visit * CANDIDATES + i) as i64);
                (detection.ra, detection.dec) = (Some(place.0), Some(place.1));
                Sighting { object_id, object_place: place, detection }
            })
            .collect();
        let searched = Searched {
            limit: PriorEpoch { jd: start.jd(), ..limit.clone() },
            footprint: Footprint(conditions().corners.map(|(ra, dec)| (ra + shift, dec))),
            sightings: sightings.iter().collect(),
        };
        let done = Outcome::Done { spool: None, reason: String::new() };
        history.record(&exposure(&start.to_string()), &done, Some(&searched)).unwrap();
    }
    drop(history);
    std::fs::rename(&unfinished, folder).unwrap();
    History::open(&folder.join("history.sqlite")).unwrap().history
}

/// Where the `i`-th object of every field is, pixels.
fn place(i: usize) -> (f64, f64) {
    (50.0 + (i % 25) as f64 * 119.0, 50.0 + (i / 25) as f64 * 148.0)
}

fn history(c: &mut Criterion) {
    let wanted = std::env::var("NIGHTJAR_BENCH_DETECTIONS").ok().and_then(|n| n.parse().ok()).unwrap_or(200_000);
    let scratch = tempfile::tempdir().unwrap();
    let kept = std::env::var_os("NIGHTJAR_BENCH_HISTORY");
    let folder = kept.map_or(scratch.path().to_owned(), std::path::PathBuf::from).join(format!("of-{wanted}"));
    let mut history = history_of(wanted, &folder);
    let seen = detections("2026-11-24T03:15:22.12", Vec::new());
    let mut random = ChaCha8Rng::seed_from_u64(13);
    let places: Vec<(f64, f64)> = (0..CANDIDATES)
        .map(|i| match i % 2 {
            0 => place(i / 2),
            _ => (random.random::<f64>() * 3072.0, random.random::<f64>() * 3080.0),
        })
        .map(|(x, y)| packets::sky(x, y))
        .collect();
    let mut group = c.benchmark_group(format!("history of {wanted} detections, {CANDIDATES} candidates"));
    group.sample_size(10).measurement_time(Duration::from_secs(4)).warm_up_time(Duration::from_millis(500));
    let question = Question::about(&seen.exposure, CODE, 30.0);
    group.bench_function("look up", |b| b.iter(|| black_box(history.look_up(&places, &question).unwrap())));
    let pasts = history.look_up(&places, &question).unwrap();
    let sightings: Vec<Sighting> = pasts
        .iter()
        .zip(&places)
        .enumerate()
        .map(|(i, (past, (ra, dec)))| Sighting {
            object_id: past.object_id.clone(),
            object_place: past.object_place,
            detection: PriorEpoch {
                jd: seen.exposure.start.jd(),
                candid: Some(-1 - i as i64),
                ra: Some(*ra),
                dec: Some(*dec),
                ..PriorEpoch::default()
            },
        })
        .collect();
    let searched = Searched {
        limit: nightjar::alert::upper_limit(&seen, &parameters()),
        footprint: Footprint(seen.conditions.corners),
        sightings: sightings.iter().collect(),
    };
    let done = Outcome::Done { spool: Some(1), reason: String::new() };
    group.bench_function("record again, durably", |b| {
        b.iter(|| history.record(&seen.exposure, &done, Some(&searched)).unwrap());
    });
    group.finish();
}

criterion_group!(benches, finished_alerts, network_scores, history);
criterion_main!(benches);
