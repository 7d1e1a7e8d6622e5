//! A frame of 3072×3080 over the readout link into the frame journal, on lines of several speeds: `nightjar camera` at
//! one end of a connection, `nightjar run` at the other. The time begins when the camera has read the detector out and
//! ends when the file of the frame has its name in the journal, synchronised; it stands beside the time of the bytes alone. The
//! simulated camera forgets its pace while it waits for credit, so that fast lines are somewhat faster than they say.
//!
//! `cargo bench --bench wired_frame`.
#![allow(clippy::unwrap_used, reason = "a benchmark that cannot go on fails")]

#[path = "../tests/support"]
mod support {
    pub mod kafka;
    pub mod night;
    pub mod site;
}

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::Duration;

use nightjar::service::clock::Stopwatch;
use support::night::nightjar;
use support::site::Site;

const SIZE: (usize, usize) = (3072, 3080);
/// Bits a second, ten a byte: 5, 20 and 40 MB/s.
const SPEEDS: [u32; 3] = [50_000_000, 200_000_000, 400_000_000];
const FRAMES: usize = 5;

/// Seconds that each frame took from the camera's memory to the journal.
fn frames_at(site: &Site, baud: u32, every: f64) -> Vec<f64> {
    let [port] = support::kafka::free_ports();
    let address = format!("tcp://127.0.0.1:{port}");
    let night = site.frames[0].parent().unwrap();
    let mut command = nightjar();
    command.arg("camera").args(["--listen", &address, "--loop", "--exposure", "0.1", "--every", &every.to_string()]);
    command.args(["--baud", &baud.to_string()]).arg(night);
    let mut camera = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    site.wire(&address);
    let daemon = site.start();
    let mut taken = Vec::new();
    let before = site.in_journal();
    for line in BufReader::new(camera.stderr.take().unwrap()).lines().map_while(Result::ok) {
        if !line.starts_with("frame ") {
            continue;
        }
        let watch = Stopwatch::start();
        while site.in_journal() <= before + taken.len() {
            assert!(watch.seconds() < 60.0, "no frame in a minute:\n{}", daemon.said());
            std::thread::sleep(Duration::from_millis(1));
        }
        taken.push(watch.seconds());
        if taken.len() == FRAMES {
            break;
        }
    }
    camera.kill().unwrap();
    camera.wait().unwrap();
    taken
}

fn main() {
    let site = Site::with_frames(SIZE, 2, "publish = false");
    let size = nightjar::fits::read_header(&site.frames[0]).unwrap();
    let pixels = size.number(&["NAXIS1"]).unwrap() * size.number(&["NAXIS2"]).unwrap();
    let megabytes = pixels * 2.0 / 1e6;
    println!("{:.2} Mpx, {megabytes:.1} MB a frame; median of {FRAMES}; the aim is 1.2", pixels / 1e6);
    for baud in SPEEDS {
        let bytes_s = megabytes * 1e7 / f64::from(baud);
        // The daemon is done with one frame before the next one comes.
        let mut seconds = frames_at(&site, baud, bytes_s + 6.0);
        seconds.sort_by(f64::total_cmp);
        let median = seconds[FRAMES / 2];
        println!(
            "{:5.0} MB/s: the bytes alone {bytes_s:.2} s, in the journal after {median:.2} s, ratio {:.2}",
            f64::from(baud) / 1e7,
            median / bytes_s
        );
    }
}
