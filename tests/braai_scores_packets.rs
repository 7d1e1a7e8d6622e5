//! braai, as its authors publish it, gives ZTF's packets the scores that ZTF gave them.
#![allow(clippy::unwrap_used)]

mod packets;
mod support {
    pub mod beside;
}

use std::path::Path;
use std::sync::Arc;

use nightjar::alert::{AlertParameters, Network, Packet, read_packets, stamp_pixels};
use nightjar::history::History;
use packets::{night, parameters, three_visits};
use support::beside::real_data;

fn files(data: &Path, name: &str) -> (Vec<u8>, Vec<u8>) {
    let file = |end: &str| std::fs::read(data.join(format!("dmitryduev+braai/{name}.{end}"))).unwrap();
    (file("architecture.json"), file("weights.h5"))
}

fn braai(data: &Path, name: &str) -> Network {
    let (architecture, weights) = files(data, name);
    Network::from_keras(name, &architecture, &weights).unwrap()
}

/// Score of the packet's pictures, and the packet's own.
fn scores(network: &Network, packet: &Packet) -> Option<(f64, f64)> {
    let candidate = &packet.json["candidate"];
    let own = candidate["drb"].as_f64().filter(|_| candidate["drbversion"] == "d6_m7")?;
    let [science, template, difference] =
        packet.cutouts.clone().map(|bytes| stamp_pixels(bytes.as_deref().unwrap()).unwrap());
    Some((f64::from(network.score([&science, &template, &difference])), own))
}

#[test]
fn d6_m7_reproduces_the_scores_of_real_packets() {
    let Some(data) = real_data() else { return };
    let network = braai(&data, "d6_m7");
    let mut checked = 0;
    for folder in ["astrolabsoftware+fink-broker/alerts", "boom-astro+boom/alerts", "skyportal+kowalski/alerts"] {
        for entry in std::fs::read_dir(data.join(folder)).unwrap() {
            for packet in read_packets(&std::fs::read(entry.unwrap().path()).unwrap()).unwrap() {
                let Some((ours, own)) = scores(&network, &packet) else { continue };
                assert!((ours - own).abs() < 1e-4, "{} {}: {ours} is not {own}", packet.schema, packet.candid);
                checked += 1;
            }
        }
    }
    println!("{checked} packets");
    assert!(checked > 70);
}

#[test]
fn a_packet_carries_the_score_and_the_version_of_the_network() {
    let Some(data) = real_data() else { return };
    let network = Arc::new(braai(&data, "braai_d6_m9"));
    let parameters = AlertParameters { network: Some(network), ..parameters() };
    let alerts = night(&mut History::in_memory().unwrap(), &three_visits()[0], &parameters).1;
    let packet = &read_packets(&alerts[0].payload).unwrap()[0];
    let candidate = &packet.json["candidate"];
    assert_eq!(candidate["drbversion"], "braai_d6_m9");
    assert!((0.0..=1.0).contains(&candidate["drb"].as_f64().unwrap()));
}

#[test]
fn a_network_that_is_cut_off_or_of_wrong_shapes_is_refused_in_one_line() {
    let Some(data) = real_data() else { return };
    let (architecture, weights) = files(&data, "d6_m7");
    for length in (0..weights.len()).step_by(60_000) {
        let message = Network::from_keras("x", &architecture, &weights[..length]).unwrap_err().to_string();
        assert!(!message.contains('\n'), "{message}");
    }
    let text = String::from_utf8(architecture).unwrap();
    for (from, to, word) in [
        ("\"pool_size\": [4, 4]", "\"pool_size\": [3, 3]", "step"),
        ("\"kernel_size\": [3, 3]", "\"kernel_size\": [5, 5]", "shape"),
        ("\"name\": \"fc_1\"", "\"name\": \"fc_9\"", "missing"),
        ("Flatten", "Attention", "Attention"),
        ("\"padding\": \"valid\"", "\"padding\": \"same\"", "padding"),
    ] {
        assert!(text.contains(from), "{from}");
        let message = Network::from_keras("x", text.replace(from, to).as_bytes(), &weights).unwrap_err().to_string();
        assert!(message.contains(word) && !message.contains('\n'), "{message}");
    }
}
