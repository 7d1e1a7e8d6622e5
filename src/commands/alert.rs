//! `nightjar alert`: shows alert packets, Nightjar's and others'.

use std::collections::HashSet;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::Failure;
use super::broker::Broker;
use crate::alert::{MOST_ON_A_SHEET, Packet, read_packets, sheet};
use crate::archive;
use crate::settings::Settings;

/// Largest file that is opened, bytes.
const LARGEST_FILE: u64 = 512 << 20;

/// Arguments of `nightjar alert`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  nightjar alert /tmp/night/alerts
  nightjar alert --best 10 --png sheet.png /tmp/night/alerts
  nightjar alert --json 2475433850015015000.avro | jq .candidate.magpsf
  nightjar alert --topic nightjar_20261124_programid1 --last 50 --best 10 --png sheet.png

From a topic it shows the newest alerts; it joins no group and leaves no trace there. Without --brokers and --kafka it
goes to [uplink] brokers, as the daemon does.")]
pub struct Args {
    /// Packets (.avro), or folders of them
    #[arg(required_unless_present = "topic", conflicts_with = "topic", value_name = "FILE")]
    files: Vec<PathBuf>,
    /// A topic of Kafka instead of files
    #[arg(long, value_name = "TOPIC")]
    topic: Option<String>,
    /// So many of the topic's newest alerts
    #[arg(long, value_name = "N", default_value_t = 20, requires = "topic", value_parser = clap::value_parser!(u16).range(1..=5000))]
    last: u16,
    #[command(flatten)]
    broker: Broker,
    /// Only the best alert of each of the N best objects, by real-bogus score, then signal to noise
    #[arg(long, value_name = "N")]
    best: Option<usize>,
    /// Write a picture of science, template and difference; several packets make a sheet
    #[arg(long, value_name = "OUT")]
    png: Option<PathBuf>,
    /// One JSON object a line with every field, instead of the table
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: &Args, settings: &Settings) -> Result<(), Failure> {
    let Opened { packets, unreadable, all } = match &args.topic {
        Some(topic) => from_topic(topic, args, settings)?,
        None => from_files(&args.files)?,
    };
    let mut shown: Vec<&Packet> = packets.iter().collect();
    if let Some(best) = args.best {
        shown.sort_by(|a, b| worth(b).partial_cmp(&worth(a)).unwrap_or(std::cmp::Ordering::Equal));
        let mut objects = HashSet::new();
        shown.retain(|packet| packet.object.is_empty() || objects.insert(&packet.object));
        shown.truncate(best);
    }
    let text = if args.json { lines(&shown) } else { table(&shown) };
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(Failure::TryAgain(error.to_string())),
        _ => {}
    }
    if let Some(path) = &args.png {
        picture(&shown, path)?;
    }
    match unreadable {
        0 => Ok(()),
        n if args.topic.is_some() => Err(Failure::Input(format!("{n} of {all} messages are not packets that can be read"))),
        n => Err(Failure::Input(format!("{n} of {all} files are not packets that can be read"))),
    }
}

/// What was found.
struct Opened {
    packets: Vec<Packet>,
    /// Files or messages that hold none; each was told of.
    unreadable: usize,
    /// Files or messages.
    all: usize,
}

fn from_files(named: &[PathBuf]) -> Result<Opened, Failure> {
    let mut files = Vec::new();
    for file in named {
        collect(file, &mut files)?;
    }
    if files.is_empty() {
        return Err(Failure::Input("no .avro file in there; name packets, or a folder that holds some".into()));
    }
    Ok(opened(files.iter().map(|file| read(file))))
}

fn from_topic(topic: &str, args: &Args, settings: &Settings) -> Result<Opened, Failure> {
    let messages = archive::newest(&args.broker.config(settings)?, topic, args.last.into())?;
    if messages.is_empty() {
        eprintln!("nightjar: {topic} holds no message");
    }
    Ok(opened(messages.iter().map(|message| {
        let (partition, offset) = message.place;
        let refused = |error| Failure::Input(format!("{topic}, partition {partition}, offset {offset}: {error}"));
        read_packets(&message.payload).map_err(refused)
    })))
}

/// The packets of all that can be read; the rest is told of.
fn opened(each: impl Iterator<Item = Result<Vec<Packet>, Failure>>) -> Opened {
    let mut opened = Opened { packets: Vec::new(), unreadable: 0, all: 0 };
    for one in each {
        opened.all += 1;
        match one {
            Ok(found) => opened.packets.extend(found),
            Err(failure) => {
                opened.unreadable += 1;
                eprintln!("nightjar: {failure}");
            }
        }
    }
    opened
}

/// `path`, or the packets below it in order of their names.
fn collect(path: &Path, files: &mut Vec<PathBuf>) -> Result<(), Failure> {
    if !path.is_dir() {
        files.push(path.to_owned());
        return Ok(());
    }
    let entries = fs::read_dir(path).map_err(|error| unreadable(path, &error))?;
    let mut inside: Vec<PathBuf> = entries
        .map(|entry| entry.map(|e| e.path()))
        .collect::<Result<_, _>>()
        .map_err(|error| unreadable(path, &error))?;
    inside.sort();
    for entry in inside {
        if entry.is_dir() || entry.extension().is_some_and(|extension| extension == "avro") {
            collect(&entry, files)?;
        }
    }
    Ok(())
}

fn unreadable(path: &Path, error: &io::Error) -> Failure {
    Failure::Input(format!("{}: {error}; check the path and its permissions", path.display()))
}

fn read(file: &Path) -> Result<Vec<Packet>, Failure> {
    let name = file.display();
    let refused = |error: &dyn std::fmt::Display| Failure::Input(format!("{name}: {error}"));
    let length = fs::metadata(file).map_err(|error| unreadable(file, &error))?.len();
    if length > LARGEST_FILE {
        return Err(refused(&"larger than 512 MB; split it into packets"));
    }
    let bytes = fs::read(file).map_err(|error| unreadable(file, &error))?;
    read_packets(&bytes).map_err(|error| refused(&error))
}

/// What `--best` sorts by.
fn worth(packet: &Packet) -> (f64, f64) {
    // Scores within a tenth are alike: then the clearer signal is the better picture.
    ((packet.score.unwrap_or(0.0) * 10.0).floor(), packet.snr.unwrap_or(0.0))
}

fn picture(packets: &[&Packet], path: &Path) -> Result<(), Failure> {
    if packets.len() > MOST_ON_A_SHEET {
        eprintln!("nightjar: the sheet shows the first {MOST_ON_A_SHEET} of {} packets", packets.len());
    }
    let bytes = sheet(packets).map_err(|error| Failure::Defect(error.to_string()))?;
    fs::write(path, bytes).map_err(|error| Failure::Input(format!("cannot write {}: {error}", path.display())))
}

fn lines(packets: &[&Packet]) -> String {
    packets.iter().map(|packet| format!("{}\n", packet.json)).collect()
}

fn table(packets: &[&Packet]) -> String {
    if packets.is_empty() {
        return String::new();
    }
    const HEADINGS: [&str; 11] =
        ["candid", "object", "time (UTC)", "filter", "ra", "dec", "mag", "S/N", "score", "seen", "earlier"];
    let rows: Vec<[String; 11]> = packets.iter().map(|packet| cells(packet)).collect();
    let widths: [usize; 11] = std::array::from_fn(|i| {
        rows.iter().map(|row| row[i].chars().count()).chain([HEADINGS[i].len()]).max().unwrap_or(0)
    });
    let line = |cells: [&str; 11]| {
        let padded = cells.iter().zip(widths).enumerate().map(|(i, (cell, width))| match i {
            0..=3 => format!("{cell:<width$}"),
            _ => format!("{cell:>width$}"),
        });
        format!("{}\n", padded.collect::<Vec<_>>().join("  ").trim_end())
    };
    let mut text = line(HEADINGS);
    for row in &rows {
        text += &line(std::array::from_fn(|i| row[i].as_str()));
    }
    text
}

fn cells(packet: &Packet) -> [String; 11] {
    let number = |value: Option<f64>, decimals: usize| value.map_or("-".to_owned(), |x| format!("{x:.decimals$}"));
    let sign = packet.sign();
    let mag = match (packet.mag, packet.mag_err) {
        (Some(mag), Some(error)) => format!("{sign}{mag:.2}±{error:.2}"),
        (mag, _) => format!("{sign}{}", number(mag, 2)),
    };
    [
        packet.candid.clone(),
        packet.object.clone(),
        packet.time.map_or("-".to_owned(), |time| time.to_string()),
        packet.filter.clone(),
        number(packet.ra, 5),
        packet.dec.map_or("-".to_owned(), |dec| format!("{dec:+.5}")),
        mag,
        number(packet.snr, 1),
        number(packet.score, 2),
        packet.detections.map_or("-".to_owned(), |n| n.to_string()),
        format!("{}+{}", packet.earlier.0, packet.earlier.1),
    ]
}
