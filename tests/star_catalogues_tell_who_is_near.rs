//! A star catalogue is built of the tables that surveys publish, tells the stars around a place as a search of
//! the whole table does, fills the fields of a packet as ZTF does, and is left out in one line where it is damaged.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod packets;
mod support {
    pub mod beside;
    pub mod night;
}

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nightjar::alert::{Alert, AlertParameters, Packet, read_packets};
use nightjar::catalogue::{CatalogueError, CatalogueStar, StarCatalogue, build, separation};
use nightjar::history::History;
use packets::{night, parameters, three_visits};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use support::beside::{python, real_data, run};
use support::night::{both, nightjar};

/// A table of stars all over the sky, crowded about both poles and 0h.
fn table(folder: &Path) -> (PathBuf, Vec<(f64, f64, f64)>) {
    let mut random = ChaCha8Rng::seed_from_u64(3);
    let mut stars = Vec::new();
    for i in 0..30_000 {
        let (ra, dec) = match i % 4 {
            0 => (random.random_range(0.0..360.0), random.random_range(-1.0_f64..1.0).asin().to_degrees()),
            1 => (random.random_range(0.0..360.0), 90.0 - random.random_range(0.0_f64..0.2)),
            2 => (random.random_range(0.0..360.0), -90.0 + random.random_range(0.0_f64..0.2)),
            _ => (random.random_range(-0.2_f64..0.2).rem_euclid(360.0), random.random_range(-0.2_f64..0.2)),
        };
        stars.push((ra, dec, random.random_range(10.0..21.0)));
    }
    let mut text = String::from("objID,raMean,decMean,gMeanPSFMag,rMeanPSFMag,iMeanPSFMag,zMeanPSFMag,ps_score\n");
    for (i, (ra, dec, g)) in stars.iter().enumerate() {
        text += &format!("{i},{ra},{dec},{g:.3},{:.3},-999,,{}\n", g - 0.4, (i % 11) as f64 / 10.0);
    }
    let path = folder.join("ps1.csv");
    fs::write(&path, text).unwrap();
    (path, stars)
}

fn built(tables: &[PathBuf], output: &Path) -> StarCatalogue {
    build(tables, output, &|_| ()).unwrap();
    StarCatalogue::open(output).unwrap()
}

#[test]
fn a_look_up_finds_what_a_search_of_the_whole_table_finds() {
    let folder = tempfile::tempdir().unwrap();
    let (table, stars) = table(folder.path());
    let catalogue = built(&[table], &folder.path().join("stars"));
    assert_eq!(catalogue.len(), 30_000);
    let mut random = ChaCha8Rng::seed_from_u64(4);
    let mut found_in_all = 0;
    for i in 0..400 {
        let place = match i % 4 {
            0 => stars[random.random_range(0..stars.len())],
            1 => (random.random_range(0.0..360.0), 89.95, 0.0),
            2 => (random.random_range(0.0..360.0), -89.99, 0.0),
            _ => (359.999, random.random_range(-0.2..0.2), 0.0),
        };
        let (ra, dec) = (place.0, place.1);
        let radius = [30.0, 90.0, 600.0][i % 3] / 3600.0;
        let mut found: Vec<i64> = catalogue.within(ra, dec, radius).iter().map(|(_, star)| star.id).collect();
        let near = |place: &(f64, f64, f64)| separation((ra, dec), (place.0, place.1)) <= radius;
        let wanted: Vec<i64> = (0..).zip(&stars).filter(|(_, star)| near(star)).map(|(i, _)| i).collect();
        found.sort_unstable();
        assert_eq!(found, wanted, "{ra} {dec} {radius}");
        found_in_all += found.len();
    }
    assert!(found_in_all > 2_000, "{found_in_all}");
}

#[test]
fn tables_in_fits_and_text_and_in_any_order_give_the_same_file() {
    let folder = tempfile::tempdir().unwrap();
    let (csv, _) = table(folder.path());
    let script = "
import sys, gzip, numpy as np
from astropy.table import Table
t = Table.read(sys.argv[1], format='ascii.csv')
t['objID'] = np.asarray(t['objID'], dtype='i8')
t['name'] = ['star'] * len(t)
t[:12000].write(sys.argv[2] + '/a.fits')
t[12000:].write(sys.argv[2] + '/b.fits.gz')
open(sys.argv[2] + '/c.ecsv', 'w').write('# %ECSV 1.0\\n# ---\\n' + open(sys.argv[1]).read())
gzip.open(sys.argv[2] + '/d.csv.gz', 'wt').write(open(sys.argv[1]).read())
print(len(t))";
    let Some(python) = python() else { return };
    run(&python, script, &[&csv, folder.path()]);
    let path = |name: &str| folder.path().join(name);
    built(&[csv], &path("one"));
    let bytes = fs::read(path("one")).unwrap();
    for tables in [vec!["a.fits", "b.fits.gz"], vec!["b.fits.gz", "a.fits"], vec!["c.ecsv"], vec!["d.csv.gz"]] {
        built(&tables.iter().map(|name| path(name)).collect::<Vec<_>>(), &path("other"));
        assert!(fs::read(path("other")).unwrap() == bytes, "{tables:?}");
    }
}

#[test]
fn a_real_surveys_table_is_read_as_astropy_reads_it() {
    let Some(data) = real_data() else { return };
    let folder = tempfile::tempdir().unwrap();
    let table = data.join("AstroHuntsman+huntsman-drp/refcat.csv.gz");
    let catalogue = built(std::slice::from_ref(&table), &folder.path().join("stars"));
    let script = "
import sys
from astropy.table import Table
t = Table.read(sys.argv[1], format='ascii.csv')
for row in t[::40]: print(row['object_id'], row['raj2000'], row['dej2000'], row['g_psf'], row['class_star'])
print(len(t))";
    let Some(python) = python() else { return };
    let out = run(&python, script, &[&table]);
    let lines: Vec<&str> = out.lines().collect();
    let (count, rows) = lines.split_last().unwrap();
    assert_eq!(catalogue.len(), count.parse::<u64>().unwrap());
    let mut compared = 0;
    for row in rows {
        let mut numbers = row.split(' ').map(|text| text.parse::<f64>().unwrap_or(f64::NAN));
        let mut next = || numbers.next().unwrap();
        let (id, ra, dec, g, score) = (next() as i64, next(), next(), next(), next());
        let found: Vec<(f64, CatalogueStar)> = catalogue.within(ra, dec, 0.001 / 3600.0);
        let (_, star) = found.iter().find(|(_, star)| star.id == id).unwrap_or_else(|| panic!("{row}"));
        assert!(
            (f64::from(star.griz[0]) - g).abs() < 0.0006 || (g.is_nan() && star.griz[0].is_nan()),
            "{row} {star:?}"
        );
        assert!((f64::from(star.score) - score).abs() < 0.003, "{row} {star:?}");
        compared += 1;
    }
    assert!(compared >= 5, "{compared}");
}

/// Alerts of three visits with these parameters.
fn alerts(parameters: &AlertParameters) -> Vec<Alert> {
    let mut history = History::in_memory().unwrap();
    three_visits().iter().flat_map(|visit| night(&mut history, visit, parameters).1).collect()
}

fn candidate_of(alert: &Alert) -> serde_json::Value {
    let packet: Packet = read_packets(&alert.payload).unwrap().remove(0);
    packet.json["candidate"].clone()
}

#[test]
fn a_packet_tells_the_nearest_three_and_gaias_two_as_ztf_defines_them() {
    let folder = tempfile::tempdir().unwrap();
    let plain = candidate_of(&alerts(&parameters())[0]);
    let (ra, dec) = (plain["ra"].as_f64().unwrap(), plain["dec"].as_f64().unwrap());
    assert_eq!((plain["nmtchps"].as_i64(), plain["distpsnr1"].as_f64()), (Some(0), Some(-999.0)));
    // Arcseconds to the north, g, Gaia's G.
    let stars = [
        (2.0, "18.1", ""),
        (29.9, "17.5", ""),
        (-5.0, "19.25", "19.0"),
        (12.0, "20", ""),
        (40.0, "", "15.5"),
        (-80.0, "13", "13.2"),
    ];
    let mut text = String::from("id,ra,dec,g,G\n");
    for (i, (north, g, gaia)) in stars.iter().enumerate() {
        text += &format!("{},{ra},{},{g},{gaia}\n", 100 + i, dec + north / 3600.0);
    }
    let table = folder.path().join("stars.csv");
    fs::write(&table, text).unwrap();
    let catalogue = built(&[table], &folder.path().join("stars"));
    let with = AlertParameters { star_catalogue: Some(Arc::new(catalogue)), ..parameters() };
    let told = candidate_of(&alerts(&with)[0]);
    let number = |field: &str| told[field].as_f64().unwrap();
    for (field, wanted) in [
        ("nmtchps", 4.0),
        ("objectidps1", 100.0),
        ("objectidps2", 102.0),
        ("objectidps3", 103.0),
        ("distpsnr1", 2.0),
        ("distpsnr2", 5.0),
        ("distpsnr3", 12.0),
        ("sgmag2", 19.25),
        ("srmag2", -999.0),
        ("sgscore1", 0.5),
        ("neargaia", 5.0),
        ("maggaia", 19.0),
        ("neargaiabright", 80.0),
        ("maggaiabright", 13.2),
    ] {
        assert!((number(field) - wanted).abs() < 0.002, "{field} is {}, not {wanted}", number(field));
    }
}

#[test]
fn a_catalogue_that_is_cut_or_damaged_anywhere_is_told_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let (csv, stars) = table(folder.path());
    let whole = folder.path().join("stars");
    built(&[csv], &whole);
    let bytes = fs::read(&whole).unwrap();
    let refused = |content: &[u8]| {
        let path = folder.path().join("damaged");
        fs::write(&path, content).unwrap();
        let error: CatalogueError = StarCatalogue::open(&path).unwrap_err();
        let line = error.to_string();
        assert!(
            !line.contains('\n') && line.contains("damaged: ") && line.contains("nightjar catalogue build"),
            "{line}"
        );
    };
    refused(&bytes[..bytes.len() / 2]);
    refused(&bytes[..bytes.len() - 1]);
    refused(&bytes[..40]);
    refused(b"ra,dec\n1,2\n");
    for at in [3, 10, 18, 61, 64, 200, 5000] {
        let mut one = bytes.clone();
        one[at] ^= 0x10;
        refused(&one);
    }
    // A row that is damaged costs its cell, and is told.
    let mut one = bytes.clone();
    let at = bytes.len() - 14;
    one[at] ^= 0x10;
    let path = folder.path().join("row");
    fs::write(&path, &one).unwrap();
    let catalogue = StarCatalogue::open(&path).unwrap();
    assert!(catalogue.is_whole());
    let all: usize = stars.iter().map(|(ra, dec, _)| catalogue.within(*ra, *dec, 1e-6).len()).sum();
    assert!((20_000..30_000).contains(&all), "{all}");
    assert!(catalogue.damage().unwrap().contains("are damaged") && !catalogue.is_whole());
    // One that is cut while it is in use is not read again.
    let catalogue = StarCatalogue::open(&whole).unwrap();
    fs::OpenOptions::new().write(true).open(&whole).unwrap().set_len(500).unwrap();
    let with = AlertParameters { star_catalogue: Some(Arc::new(catalogue)), ..parameters() };
    assert_eq!(alerts(&with).len(), 6);
    assert!(with.star_catalogue.unwrap().damage().unwrap().contains("cut while it was in use"));
}

#[test]
fn what_cannot_be_built_of_a_table_is_said_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let output = folder.path().join("stars");
    let make =
        |table: &Path| nightjar().args(["catalogue", "build"]).arg(table).arg("-o").arg(&output).output().unwrap();
    for (table, wanted) in [
        (write("x.csv", "x,y,g\n1,2,3\n"), "no column for the right ascension"),
        (write("empty.csv", "ra,dec,g\n"), "no star with a place"),
        (write("broken.fits", "SIMPLE  =                    T"), "FITS"),
        (write("a.parquet", "PAR1"), "make FITS of it first"),
        (folder.path().join("absent.csv"), "absent.csv"),
    ] {
        let said = make(&table);
        assert_eq!(said.status.code(), Some(1));
        let errors = String::from_utf8(said.stderr).unwrap();
        assert!(errors.contains(wanted) && !errors.contains("panicked"), "{errors}");
        assert!(!output.exists() && !output.with_file_name("stars.parts").exists());
    }
    let table = write("some.csv", "ra,dec,g\n1,2,20\nrubbish\n400,2,20\n3,4,-999\n0.5,-3,19.5\n");
    let said = both(&make(&table));
    assert!(said.contains("3 lines are no stars and left out; the first, 3: no right ascension"), "{said}");
    assert!(said.contains("stars: 2 stars, 2 with g, r, i or z, 0 of Gaia"), "{said}");
    let near = both(&nightjar().args(["catalogue", "near"]).arg(&output).args(["0.5", "-3.0001"]).output().unwrap());
    assert!(near.contains("0.360") && near.contains("19.500") && near.lines().count() == 2, "{near}");
}
