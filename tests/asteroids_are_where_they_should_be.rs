//! Orbits of an MPCORB file are where two other programs put them, the sweep misses none, a packet names the asteroid,
//! and rubbish in the file costs its lines and one sentence.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod packets;
mod support {
    pub mod beside;
}

use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use nightjar::alert::{AlertParameters, read_packets};
use nightjar::asteroids::{Asteroid, Asteroids, Observatory, Orbits};
use nightjar::history::History;
use nightjar::time::Mjd;
use packets::{exposure, night, parameters, three_visits};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use support::beside::{python, real_data};

const PALOMAR: Observatory = Observatory { longitude_deg: -116.865, latitude_deg: 33.358, elevation_m: 1712.0 };
/// MJD (TT) of the elements: packed, `K205V`.
const EPOCH: f64 = 59_000.0;

/// Epoch, mean anomaly, argument of perihelion, node, inclination, eccentricity, semi-major axis.
type Elements = [f64; 7];

/// A line as the Minor Planet Center writes it.
fn line(number: usize, [_, mean, perihelion, node, inclination, e, a]: Elements) -> String {
    let motion = 0.985_607_668_6 / a.powf(1.5);
    format!(
        "{number:05}   17.1   0.15 K205V {mean:9.5}  {perihelion:9.5}  {node:9.5}  {inclination:9.5}  {e:9.7} {motion:11.8} {a:11.7}  0 MPO000000{:>60}({number}) Name{number:<14} 20200101",
        ""
    )
}

/// Orbits from Earth-crossers to beyond Jupiter, rounded as the file rounds them.
fn made_up(count: usize) -> Vec<Elements> {
    let mut random = ChaCha8Rng::seed_from_u64(5);
    let round = |x: f64, digits: i32| (x * 10f64.powi(digits)).round() / 10f64.powi(digits);
    (0..count)
        .map(|i| {
            let (e, a) = match i % 4 {
                0 => (random.random_range(0.3..0.95), random.random_range(0.8..2.5)),
                1 => (random.random_range(0.0..0.2), random.random_range(30.0..60.0)),
                _ => (random.random_range(0.0..0.35), random.random_range(2.0..3.4)),
            };
            let mut angle = || round(random.random_range(0.0..360.0), 5);
            let (mean, perihelion, node) = (angle(), angle(), angle());
            [EPOCH, mean, perihelion, node, round(angle() / 10.0, 5), round(e, 7), round(a, 7)]
        })
        .collect()
}

fn asteroids(text: &str) -> Asteroids {
    Asteroids::new(Orbits::parse(&mut text.as_bytes()).0, PALOMAR)
}

/// What `tests/asteroids/orbits.py` says: right ascension, declination, distance, by time and orbit.
fn by_python(python: &Path, what: &str, times: &[f64], orbits: &[Elements]) -> Vec<Vec<[f64; 3]>> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let site = [PALOMAR.longitude_deg, PALOMAR.latitude_deg, PALOMAR.elevation_m];
    write!(file, "{}", serde_json::json!({ "site": site, "times": times, "orbits": orbits })).unwrap();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/asteroids/orbits.py");
    let output = Command::new(python).args(["-W", "ignore", script, what]).arg(file.path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn arcsec(one: &Asteroid, (ra, dec): (f64, f64)) -> f64 {
    nightjar::catalogue::separation((one.ra, one.dec), (ra, dec)) * 3600.0
}

/// Largest separation from what the script says, arcsec.
fn largest(text: &str, what: &str, python: &Path, times: &[f64], orbits: &[Elements]) -> f64 {
    let asteroids = asteroids(text);
    let truth = by_python(python, what, times, orbits);
    let mut worst = 0f64;
    for (time, row) in times.iter().zip(&truth) {
        let all = asteroids.near(Mjd(*time), (0.0, 0.0), 180.0);
        assert_eq!(all.len(), orbits.len());
        for asteroid in &all {
            let [ra, dec, distance] = row[asteroid.name.parse::<usize>().unwrap() - 1];
            worst = worst.max(arcsec(asteroid, (ra, dec)));
            let tolerance = if what == "two-body" { 1e-5 } else { 1e-3 };
            assert!((asteroid.distance_au / distance - 1.0).abs() < tolerance, "{asteroid:?} {distance}");
        }
    }
    worst
}

#[test]
fn two_bodies_light_time_and_parallax_agree_with_astropy_within_an_arcsecond() {
    let Some(python) = python() else { return };
    let orbits = made_up(60);
    let text: String = (1..).zip(&orbits).map(|(i, elements)| line(i, *elements) + "\n").collect();
    let times = [EPOCH - 180.3, EPOCH + 0.12, EPOCH + 95.77, EPOCH + 2300.4];
    let worst = largest(&text, "two-body", &python, &times, &orbits);
    println!("largest difference from astropy: {worst:.2} arcsec");
    assert!(worst < 1.0, "{worst}");
}

#[test]
fn the_largest_asteroids_are_within_the_search_radius_of_where_the_planets_pull_them() {
    let (Some(python), Some(data)) = (python(), real_data()) else { return };
    let text = std::fs::read_to_string(data.join("skyfielders+python-skyfield/MPCORB.excerpt.DAT")).unwrap();
    let field = |line: &str, from: usize, to: usize| line[from - 1..to].trim().parse::<f64>().unwrap();
    let orbits: Vec<Elements> = text
        .lines()
        .map(|line| {
            let columns = [(27, 35), (38, 46), (49, 57), (60, 68), (71, 79), (93, 103)];
            let [m, w, node, i, e, a] = columns.map(|(from, to)| field(line, from, to));
            [EPOCH, m, w, node, i, e, a]
        })
        .collect();
    for (days, limit) in [(30.0, 1.5), (100.0, 12.0), (200.0, 30.0)] {
        let worst = largest(&text, "perturbed", &python, &[EPOCH - days, EPOCH + days], &orbits);
        println!("{days} days from the epoch: {worst:.1} arcsec");
        assert!(worst < limit, "{days} days: {worst}");
    }
}

#[test]
fn the_sweep_misses_none() {
    let orbits = made_up(20_000);
    let text: String = (1..).zip(&orbits).map(|(i, elements)| line(i, *elements) + "\n").collect();
    let asteroids = asteroids(&text);
    let mut random = ChaCha8Rng::seed_from_u64(6);
    let mut found = 0;
    for step in 0..12 {
        // The first question of a half day makes the sweep that the others use.
        let time = Mjd(EPOCH + 40.0 + 0.11 * f64::from(step));
        let place = (random.random_range(0.0..360.0), random.random_range(-25.0..25.0));
        let near = asteroids.near(time, place, 3.0).len();
        assert_eq!(near, asteroids.near_by_all(time, place, 3.0), "{time}");
        found += near;
    }
    assert!(found > 60, "{found}");
    // Half a day after the sweep each has moved far beyond this radius, and is found where it is then.
    let (begun, later) = (Mjd(EPOCH + 60.0), Mjd(EPOCH + 60.49));
    asteroids.near(begun, (0.0, 0.0), 1.0);
    let all = asteroids.near(later, (0.0, 0.0), 180.0);
    for one in all.iter().step_by(37) {
        let near = asteroids.near(later, (one.ra, one.dec), 0.002);
        assert!(near.iter().any(|other| other.name == one.name), "{one:?}");
    }
}

#[test]
fn a_packet_names_the_asteroid_within_half_an_arcminute_and_no_other() {
    // An asteroid at the place of the first candidate: the mean anomaly that takes it there is looked for.
    let visit = exposure("2026-11-24T03:00:00");
    let middle = visit.start.plus_seconds(0.5 * visit.exposure_s);
    let wanted = three_visits()[0].candidates[0].clone();
    let close = |mean: f64, inclination: f64, node: f64| {
        let text = line(50_281, [EPOCH, mean, 0.0, node, inclination, 0.0, 2.5]);
        asteroids(&text).near(middle, (wanted.ra, wanted.dec), 180.0).remove(0)
    };
    let off = |found: &Asteroid| nightjar::catalogue::separation((found.ra, found.dec), (wanted.ra, wanted.dec));
    let mut best = (f64::INFINITY, [0.0; 3]);
    let mut step = 10.0;
    // The node is a quarter of the ecliptic behind the candidate: inclination is latitude there.
    let mut centre = [220.0, 30.0, 297.0];
    let mut spread = 6;
    while step > 1e-6 {
        for i in -spread..=spread {
            for j in -spread..=spread {
                let at = [
                    centre[0] + f64::from(i) * step,
                    (centre[1] + f64::from(j) * step * 0.5).clamp(0.0, 89.0),
                    centre[2],
                ];
                let distance = off(&close(at[0].rem_euclid(360.0), at[1], at[2]));
                if distance < best.0 {
                    best = (distance, at);
                }
            }
        }
        centre = best.1;
        (step, spread) = (step * 0.4, 3);
    }
    let [mean, inclination, node] = best.1;
    assert!(best.0 * 3600.0 < 5.0, "no orbit was found: {best:?}");
    let text = line(50_281, [EPOCH, mean.rem_euclid(360.0), 0.0, node, inclination, 0.0, 2.5]);
    let expected = close(mean.rem_euclid(360.0), inclination, node);
    let with = AlertParameters { asteroids: Some(Arc::new(asteroids(&text))), ..parameters() };
    let seen = &three_visits()[0];
    let (_, alerts) = night(&mut History::in_memory().unwrap(), seen, &with);
    let told: Vec<serde_json::Value> =
        alerts.iter().map(|alert| read_packets(&alert.payload).unwrap().remove(0).json["candidate"].clone()).collect();
    let named: Vec<_> = told.iter().filter(|c| c["ssnamenr"] == "50281").collect();
    assert_eq!(named.len(), 1, "{told:?}");
    let number = |c: &serde_json::Value, key: &str| c[key].as_f64().unwrap();
    assert!((number(named[0], "ra") - wanted.ra).abs() < 1e-9);
    assert!((number(named[0], "ssdistnr") - off(&expected) * 3600.0).abs() < 0.01);
    assert!((number(named[0], "ssmagnr") - expected.mag).abs() < 0.001 && (17.0..25.0).contains(&expected.mag));
    let other = told.iter().find(|c| c["ssnamenr"] != "50281").unwrap();
    assert_eq!((number(other, "ssdistnr"), number(other, "ssmagnr")), (-999.0, -999.0));
    assert_eq!(other["ssnamenr"], "null");
}

#[test]
fn rubbish_costs_its_lines_and_is_told_once() {
    let folder = tempfile::tempdir().unwrap();
    let good: Vec<String> = (1..).zip(made_up(50)).map(|(i, elements)| line(i, elements)).collect();
    let mut text = String::from("MINOR PLANET CENTER ORBIT DATABASE\n\nDes'n     H     G   Epoch\n----------------\n");
    for (i, line) in good.iter().enumerate() {
        text += line;
        text.push('\n');
        if i % 10 == 3 {
            text += &line.replace("K205V", "?????");
            text += "\n\u{fffd}\u{fffd} rubbish \0\n\n";
        }
    }
    let path = folder.path().join("MPCORB.DAT");
    std::fs::write(&path, &text).unwrap();
    let (orbits, rubbish) = Orbits::read(&path).unwrap();
    assert_eq!(orbits.len(), 50);
    let told = rubbish.unwrap().to_string();
    assert_eq!(told, "10 lines are no orbits and left out; the first, line 9: no packed epoch in columns 21 to 25");
    // Gzipped, and cut in the middle: what is there is used.
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(text.as_bytes()).unwrap();
    let packed = gzip.finish().unwrap();
    std::fs::write(&path, &packed).unwrap();
    assert_eq!(Orbits::read(&path).unwrap().0.len(), 50);
    std::fs::write(&path, &packed[..packed.len() / 2]).unwrap();
    let (cut, rubbish) = Orbits::read(&path).unwrap();
    assert!(!cut.is_empty() && cut.len() < 50 && rubbish.is_some());
    std::fs::write(&path, "no orbit at all\n").unwrap();
    assert!(Orbits::read(&path).unwrap_err().to_string().contains("holds no orbits; get MPCORB.DAT"));
}
