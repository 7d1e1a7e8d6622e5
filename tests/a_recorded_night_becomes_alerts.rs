//! One command takes a recorded night from raw frames to alerts that a consumer reads, and leaves
//! the files that say so.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support {
    pub mod night;
}

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use support::night::{both, nightjar, small_night, succeed};

/// The bytes of every packet by its path below `alerts/`.
fn packets(run: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut packets = BTreeMap::new();
    for exposure in std::fs::read_dir(run.join("alerts")).unwrap() {
        for packet in std::fs::read_dir(exposure.unwrap().path()).unwrap() {
            let path = packet.unwrap().path();
            packets.insert(path.strip_prefix(run).unwrap().to_owned(), std::fs::read(&path).unwrap());
        }
    }
    packets
}

#[test]
fn a_night_becomes_alerts_that_agree_wherever_they_are_counted() {
    let folder = tempfile::tempdir().unwrap();
    let night = small_night(folder.path(), 3);
    let run = folder.path().join("run");
    let output = succeed(nightjar().arg("simulate").arg(&night).arg("--out").arg(&run));

    let summary: serde_json::Value = serde_json::from_slice(&std::fs::read(run.join("summary.json")).unwrap()).unwrap();
    let exposures = summary["exposures"].as_array().unwrap();
    assert_eq!(exposures.len(), 3);
    let first = packets(&run);
    let mut total = 0;
    for exposure in exposures {
        let name = exposure["exposure"].as_str().unwrap();
        let alerts = exposure["alerts"].as_u64().unwrap();
        assert!(alerts > 0 && exposure["reason"].is_null(), "{name} made no alerts: {exposure}");
        assert_eq!(exposure["acknowledged"], exposure["alerts"]);
        let below = Path::new("alerts").join(name);
        assert_eq!(first.keys().filter(|path| path.starts_with(&below)).count() as u64, alerts);
        for stage in ["read", "calibrate", "register", "subtract", "detect", "alert", "spool"] {
            assert!(exposure["seconds"][stage].as_f64().unwrap() > 0.0, "{stage} took no time");
        }
        let planes = nightjar::fits::read_planes(&run.join(format!("difference/{name}.fits"))).unwrap();
        let names: Vec<&str> = planes.iter().map(|plane| plane.name.as_str()).collect();
        assert_eq!(names, ["DIFFERENCE", "SCORE", "MASK"]);
        assert_eq!(planes[0].pixels.dim(), (512, 512));
        total += alerts;
    }
    assert_eq!(summary["totals"]["alerts"], total);
    assert_eq!(summary["totals"]["acknowledged"], total);
    assert!(summary["totals"]["peak_rss_mb"].as_f64().unwrap() > 10.0);
    let said = both(&output);
    assert!(said.contains(&format!("{total} read back by a consumer")), "{said}");

    let mut table = csv::Reader::from_path(run.join("candidates.csv")).unwrap();
    let header: Vec<String> = table.headers().unwrap().iter().map(str::to_owned).collect();
    let designed = "exposure,x,y,ra,dec,flux,flux_err,snr,mag,mag_err,positive,fwhm,elong,flags,rejected";
    assert_eq!(header[..15].join(","), designed);
    let kept = table.records().filter(|line| line.as_ref().unwrap()[14].is_empty()).count() as u64;
    assert_eq!(kept, total, "candidates without a rule against them are the alerts");

    // A second run into the same folder replaces the first and gives the same bytes.
    succeed(nightjar().arg("simulate").arg(&night).arg("--out").arg(&run));
    assert_eq!(packets(&run), first);
}
