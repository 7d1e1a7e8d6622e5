//! Exposures from raw file to durable alerts, stage by stage, in one table: on frames of 1, 4, 9.5 and 38 million
//! pixels, on one and on two threads, one after the other and queueing; with the peak of memory of each, beside
//! floors measured in the same run.
//!
//! `cargo bench --bench exposure`; `NIGHTJAR_BENCH_FOLDER` names a folder for the synthetic nights (4 GB, made
//! once), `NIGHTJAR_BENCH_SIZES` the sizes that are wanted (`1,4,9.5,38`). Every case is a process of its own,
//! `nightjar simulate` on four raw frames with their masters and reference; medians over all but the first, which
//! reads the reference. Figures mean something only on an otherwise idle machine.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;

use ndarray::{Array2, Zip};
use nightjar::service::clock::Stopwatch;
use rayon::prelude::*;
use rustfft::FftPlanner;
use rustfft::num_complex::Complex32;
use serde_json::Value;

/// Million pixels, width, height, and a pace at which each exposure is done before the next one comes.
const SIZES: [(&str, usize, usize, &str); 4] =
    [("1", 1024, 1024, "30x"), ("4", 2048, 2048, "15x"), ("9.5", 3072, 3080, "9x"), ("38", 6144, 6160, "2.5x")];
const STAGES: [&str; 7] = ["read", "calibrate", "register", "subtract", "detect", "alert", "spool"];
const NIGHTJAR: &str = env!("CARGO_BIN_EXE_nightjar");

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> Outcome<()> {
    let folder = std::env::var_os("NIGHTJAR_BENCH_FOLDER")
        .map_or_else(|| Path::new(env!("CARGO_TARGET_TMPDIR")).join("nights"), PathBuf::from);
    let wanted = std::env::var("NIGHTJAR_BENCH_SIZES").unwrap_or_else(|_| "1,4,9.5,38".into());
    let mut cases = Vec::new();
    for (name, width, height, pace) in SIZES.into_iter().filter(|size| wanted.split(',').any(|name| name == size.0)) {
        let night = night(&folder.join(name), width, height)?;
        let pixels = (width * height) as f64 / 1e6;
        let mut add = |title: String, threads: usize, pace: &str| -> Outcome<()> {
            eprintln!("-- {title}");
            cases.push(Case { title, pixels, ..Case::run(&night, threads, pace)? });
            Ok(())
        };
        add(format!("{name} Mpx"), 2, pace)?;
        if name == "9.5" {
            add("one thread".into(), 1, pace)?;
            add("queueing".into(), 2, "max")?;
        }
    }
    print(&cases);
    let (width, height) = (3072, 3080);
    println!("\nfloors for 3072 x 3080 on {} threads, seconds", rayon::current_num_threads());
    println!("  a pass over the memory (read, write)      {:.3}", one_pass(width, height));
    println!("  a real two-dimensional transform          {:.3}", real_transform(width, height));
    Ok(())
}

/// Raw frames, masters and reference of a night in `folder`, made where they are not there.
fn night(folder: &Path, width: usize, height: usize) -> Outcome<PathBuf> {
    let night = folder.join("night");
    if folder.join("complete").exists() {
        return Ok(night);
    }
    eprintln!("-- making the frames of {width} x {height}");
    let _ = std::fs::remove_dir_all(folder);
    std::fs::create_dir_all(folder)?;
    let (width, height) = (width.to_string(), height.to_string());
    let made =
        ["--exposures", "4", "--fields", "1", "--calibration-frames", "6", "--width", &width, "--height", &height];
    run(Command::new(NIGHTJAR).args(["sky", "--out"]).arg(&night).args(made))?;
    let masters = night.join("masters");
    std::fs::create_dir_all(&masters)?;
    for kind in ["bias", "dark", "flat"] {
        let files = std::fs::read_dir(&night)?.filter_map(|entry| Some(entry.ok()?.path()));
        let starts = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(kind));
        let mut frames: Vec<PathBuf> = files.filter(starts).collect();
        frames.sort();
        let output = masters.join(format!("{kind}.fits"));
        run(Command::new(NIGHTJAR)
            .args(["master", kind])
            .args(frames)
            .arg("--masters")
            .arg(&masters)
            .arg("-o")
            .arg(output))?;
    }
    std::fs::write(folder.join("complete"), "")?;
    Ok(night)
}

fn run(command: &mut Command) -> Outcome<()> {
    let output = command.output()?;
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned().into()),
    }
}

/// A column of the table.
#[derive(Default)]
struct Case {
    title: String,
    pixels: f64,
    /// Medians of the stages.
    seconds: [f64; 7],
    candidates: f64,
    /// Largest resident memory, MB.
    memory: f64,
    /// From frame to frame.
    interval: f64,
}

impl Case {
    fn run(night: &Path, threads: usize, pace: &str) -> Outcome<Self> {
        let out = tempfile::tempdir()?;
        let threads = threads.to_string();
        run(Command::new(NIGHTJAR)
            .env("RAYON_NUM_THREADS", &threads)
            .arg("simulate")
            .arg(night)
            .args(["--speed", pace, "--out"])
            .arg(out.path()))?;
        let summary: Value = serde_json::from_slice(&std::fs::read(out.path().join("summary.json"))?)?;
        let exposures = summary["exposures"].as_array().cloned().unwrap_or_default();
        let number = |value: &Value| value.as_f64().unwrap_or(f64::NAN);
        let middle = |of: &dyn Fn(&Value) -> f64| median(exposures.iter().skip(1).map(of).collect());
        Ok(Self {
            seconds: STAGES.map(|stage| middle(&|exposure| number(&exposure["seconds"][stage]))),
            candidates: middle(&|exposure| number(&exposure["candidates"])),
            memory: number(&summary["totals"]["peak_rss_mb"]),
            interval: number(&summary["totals"]["seconds"]) / exposures.len().max(1) as f64,
            ..Self::default()
        })
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn print(cases: &[Case]) {
    let line = |name: &str, value: &dyn Fn(&Case) -> String| {
        print!("{name:<34}");
        cases.iter().for_each(|case| print!("{:>12}", value(case)));
        println!();
    };
    line("seconds an exposure", &|case| case.title.clone());
    for (i, stage) in STAGES.iter().enumerate() {
        line(&format!("  {stage}"), &|case| format!("{:.3}", case.seconds[i]));
    }
    let difference = |case: &Case| case.seconds[2..5].iter().sum::<f64>();
    let whole = |case: &Case| case.seconds.iter().sum::<f64>();
    line("register + subtract + detect", &|case| format!("{:.3}", difference(case)));
    line("raw file to durable alerts", &|case| format!("{:.3}", whole(case)));
    line("  the same a million pixels", &|case| format!("{:.3}", whole(case) / case.pixels));
    line("frame to frame, queueing", &|case| match case.title.as_str() {
        "queueing" => format!("{:.3}", case.interval),
        _ => String::new(),
    });
    line("candidates", &|case| format!("{:.0}", case.candidates));
    line("peak memory, MB", &|case| format!("{:.0}", case.memory));
}

/// Seconds of the quickest of five.
fn quickest(mut work: impl FnMut()) -> f64 {
    let once = |_| {
        let watch = Stopwatch::start();
        work();
        watch.seconds()
    };
    (0..5).map(once).fold(f64::INFINITY, f64::min)
}

fn one_pass(width: usize, height: usize) -> f64 {
    let image = Array2::from_elem((height, width), 1.0_f32);
    let mut out = Array2::<f32>::zeros((height, width));
    quickest(|| Zip::from(&mut out).and(&image).par_for_each(|out, pixel| *out = *pixel * 1.5))
}

/// Rows of real numbers as half as many complex ones, then columns eight at a time: what a transform of a
/// real image costs without untangling its halves.
fn real_transform(width: usize, height: usize) -> f64 {
    const STRIP: usize = 8;
    let columns = width / 2;
    let mut planner = FftPlanner::<f32>::new();
    let (rows, across) = (planner.plan_fft_forward(columns), planner.plan_fft_forward(height));
    let mut image = vec![Complex32::new(1.0, 0.5); columns * height];
    let mut spectrum = image.clone();
    quickest(|| {
        image.par_chunks_mut(columns * 16).for_each(|rows_of_image| rows.process(rows_of_image));
        spectrum.par_chunks_mut(STRIP * height).enumerate().for_each(|(strip, out)| {
            for (y, row) in image.chunks_exact(columns).enumerate() {
                for (k, value) in row[strip * STRIP..][..STRIP].iter().enumerate() {
                    out[k * height + y] = value * 1e-3;
                }
            }
            across.process(out);
        });
        image.par_chunks_mut(4096).zip(spectrum.par_chunks(4096)).for_each(|(image, spectrum)| {
            image.iter_mut().zip(spectrum).for_each(|(a, b)| *a = b * 1e-3);
        });
    })
}
