//! What `nightjar check` asks about everything but spool, clock and Kafka: folders, camera, masters,
//! references, pointing, figures.

use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use nix::unistd::{AccessFlags, access};

use super::science::{library, masters_of};
use super::status::Status;
use super::values;
use crate::camera::fields::FieldList;
use crate::camera::link::{Host, HostParameters};
use crate::camera::pointing::Pointing;
use crate::camera::port::{Port, is_server};
use crate::camera::readout::{Happening, Readout};
use crate::camera::replay::{RecordedNight, fits_files};
use crate::camera::sg4::{Binning, Sg4Host};
use crate::service::{Finding, Severity, Stopwatch, command, disk};
use crate::settings::{CameraKind, Settings, Trigger};

/// How long a camera may take to answer.
const ANSWER: Duration = Duration::from_secs(12);
/// Room below which a night of raw frames may not fit, bytes.
const A_NIGHT: u64 = 20_000_000_000;

/// Findings about the site. `running` is what the daemon says of itself, where it runs: the camera is
/// its own then.
pub fn findings(settings: &Settings, running: Option<&Status>) -> Vec<Finding> {
    let mut findings = folders(settings);
    findings.push(match running {
        Some(status) if status.camera_ok => Finding::ok("camera", format!("the daemon has it: {}", status.camera)),
        Some(status) => Finding::fault("camera", status.camera.clone(), "the daemon goes on trying; see its journal"),
        None => camera(settings),
    });
    findings.push(masters(settings));
    findings.push(references(settings));
    findings.extend(telescope(settings));
    findings.extend(model(settings));
    findings.extend(stars(settings));
    findings.extend(orbits(settings));
    if let (false, None) = (settings.metrics.listen.is_empty(), running) {
        findings.push(match TcpListener::bind(&settings.metrics.listen) {
            Ok(_) => Finding::ok("metrics", format!("http://{}/metrics", settings.metrics.listen)),
            Err(error) => Finding::warning(
                "metrics",
                format!("{} cannot be listened on ({error})", settings.metrics.listen),
                "correct [metrics] listen",
            ),
        });
    }
    findings
}

fn folders(settings: &Settings) -> Vec<Finding> {
    let history = settings.history.file.parent().unwrap_or(Path::new("/"));
    let mut folders = vec![
        ("frames", settings.frames.folder.as_path()),
        ("spool", settings.spool.folder.as_path()),
        ("history", history),
        ("masters", settings.calibration.masters.as_path()),
        ("references", settings.references.folder.as_path()),
    ];
    if let (CameraKind::Folder, Some(folder)) = (settings.camera.kind, &settings.camera.folder) {
        folders.push(("camera", folder.as_path()));
    }
    let mut findings: Vec<Finding> =
        folders.into_iter().filter_map(|(name, folder)| writable(name, folder, settings.instance())).collect();
    if findings.is_empty() {
        findings.push(Finding::ok("folders", "all of them can be written"));
    }
    if let Some(free) = disk::free_bytes(&settings.frames.folder) {
        let text = format!("{:.0} GB are free for raw frames", free as f64 / 1e9);
        findings.push(match free {
            ..A_NIGHT => {
                Finding::warning("disk", text, "a night of 9.5 megapixels takes 18 GB: make room in [frames] folder")
            }
            _ => Finding::ok("disk", text),
        });
    }
    findings
}

/// What keeps the daemon from starting, as it finds out itself, inside its sandbox: folders of its own
/// that it cannot write, a sentence each.
pub fn in_the_way(settings: &Settings) -> Vec<String> {
    let own = ["frames", "spool", "history"];
    let faults = folders(settings).into_iter().filter(|f| f.severity == Severity::Fault && own.contains(&&*f.subject));
    faults.map(|fault| format!("[{}] {}; {}", fault.subject, fault.text, fault.remedy)).collect()
}

/// Why a folder cannot be written, and the drop-in that lets the service do it.
fn writable(name: &str, folder: &Path, instance: Option<&str>) -> Option<Finding> {
    let there = folder.ancestors().find(|folder| folder.exists()).filter(|there| there.is_dir())?;
    // Where the package's unit lets the service write.
    let (ours, unit) = match instance {
        Some(name) => (format!("/var/lib/nightjar-{name}"), format!("nightjar@{name}")),
        None => ("/var/lib/nightjar".into(), "nightjar".into()),
    };
    let error = access(there, AccessFlags::R_OK | AccessFlags::W_OK | AccessFlags::X_OK).err()?;
    let shown = folder.display();
    let remedy = if folder.starts_with(ours) {
        format!("chown -R nightjar: {shown}, or run the check as root or nightjar")
    } else {
        format!(
            "let the user nightjar write there, and the service: `systemctl edit {unit}` with [Service] \
             ReadWritePaths={shown}{}",
            if folder.starts_with("/home") { " and ProtectHome=no" } else { "" }
        )
    };
    let text = format!("{shown} cannot be written ({})", error.desc());
    // What somebody else fills, the daemon only reads; what it fills, it needs.
    Some(match name {
        "camera" if access(there, AccessFlags::R_OK | AccessFlags::X_OK).is_ok() => {
            Finding::warning(name, format!("{text}: broken files stay where they are"), remedy)
        }
        "masters" | "references" => Finding::warning(name, format!("{text}: none can be made there"), remedy),
        _ => Finding::fault(name, text, remedy),
    })
}

fn camera(settings: &Settings) -> Finding {
    let camera = &settings.camera;
    match (camera.kind, &camera.folder) {
        (CameraKind::Folder, Some(folder)) => match fits_files(folder) {
            Ok(files) => Finding::ok("camera", format!("{} holds {} FITS files", folder.display(), files.len())),
            Err(error) => Finding::fault("camera", error.to_string(), "frames are taken as soon as it is there"),
        },
        (CameraKind::Replay, Some(folder)) => {
            let (longitude, fallbacks) = (settings.observatory.longitude_deg, values::header_fallbacks(settings));
            match RecordedNight::read(folder, longitude, &fallbacks) {
                Ok(night) => Finding::ok("camera", format!("a recorded night of {} frames", night.frames.len())),
                Err(error) => Finding::fault("camera", error.to_string(), "name the folder of a recorded night"),
            }
        }
        (CameraKind::Serial | CameraKind::Sg4, _) => on_wire(settings),
        (_, None) => Finding::fault("camera", "no [camera] folder is set", "name the folder of the camera's frames"),
    }
}

/// Opens the line and waits for the camera to say what it is.
fn on_wire(settings: &Settings) -> Finding {
    let camera = &settings.camera;
    let readout = match camera.kind {
        CameraKind::Sg4 => Readout::Sg4(Box::new(Sg4Host::new(camera.baud, Binning::Full, 0))),
        _ => {
            let baud = (!is_server(&camera.device)).then_some(camera.baud);
            Readout::Link(Box::new(Host::new(HostParameters { baud, ..HostParameters::default() })))
        }
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return Finding::fault("camera", format!("no event loop ({error})"), "run the check again"),
    };
    match runtime.block_on(introduced(readout, &camera.device)) {
        Ok(what) => Finding::ok("camera", format!("{what} at {}", camera.device)),
        Err(reason) => Finding::fault("camera", reason, "exposures begin as soon as it answers"),
    }
}

async fn introduced(mut readout: Readout, device: &str) -> Result<String, String> {
    let mut port = Port::open(device, readout.initial_baud()).await.map_err(|error| error.to_string())?;
    let (watch, mut bytes) = (Stopwatch::start(), vec![0; 4096]);
    let gone = |error: std::io::Error| format!("{device}: the line is gone ({error})");
    readout.connected(Duration::ZERO);
    while watch.elapsed() < ANSWER {
        while let Some(happening) = readout.poll() {
            match happening {
                Happening::Up(what) => return Ok(what),
                Happening::SetBaud(baud) => port.set_baud(baud).map_err(gone)?,
                _ => {}
            }
        }
        while let Some(packet) = readout.poll_transmit() {
            port.write_all(&packet).await.map_err(gone)?;
        }
        tokio::select! {
            read = port.read(&mut bytes) => match read.map_err(gone)? {
                0 => return Err(format!("{device}: the line was closed")),
                length => readout.receive(&bytes[..length], watch.elapsed()),
            },
            () = tokio::time::sleep(Duration::from_millis(50)) => {}
        }
        if readout.deadline().is_some_and(|at| at <= watch.elapsed()) {
            readout.timeout(watch.elapsed());
        }
    }
    Err(format!("{device}: the camera does not answer; switch it on, look at the cable and [camera] baud"))
}

fn masters(settings: &Settings) -> Finding {
    match masters_of(&settings.calibration.masters, settings) {
        Ok(masters) => {
            let flats: Vec<&str> = masters.flats.keys().map(String::as_str).collect();
            let word = |there: bool, name: &str| if there { name.to_owned() } else { format!("no {name}") };
            let text = format!(
                "{}, {}, flats in {}",
                word(masters.bias.is_some(), "bias"),
                word(masters.dark.is_some(), "dark"),
                if flats.is_empty() { "no filter".to_owned() } else { flats.join(", ") }
            );
            match masters.flats.is_empty() || masters.bias.is_none() {
                true => Finding::warning(
                    "masters",
                    text,
                    "take bias frames and twilight flats: they are made into masters by themselves",
                ),
                false => Finding::ok("masters", text),
            }
        }
        Err(error) => Finding::fault("masters", error.to_string(), "frames are kept until there are some"),
    }
}

fn references(settings: &Settings) -> Finding {
    let files = fits_files(&settings.references.folder).unwrap_or_default();
    let library = library(settings, &files);
    let refused = library.refused().len();
    let text = format!("{} in {}", library.entries().len(), settings.references.folder.display());
    match (library.entries().len(), refused) {
        (0, 0) if settings.references.build => Finding::warning(
            "references",
            format!("{text}: no exposure makes alerts yet"),
            format!(
                "observe: {} good frames of a field make one, or build one with `nightjar reference`",
                settings.references.frames_needed
            ),
        ),
        (0, _) => Finding::fault(
            "references",
            format!("{text}, {refused} refused"),
            "build some with `nightjar reference FRAMES... -o FILE`",
        ),
        (_, 0) => Finding::ok("references", text),
        _ => {
            let first = library.refused().first().map(ToString::to_string).unwrap_or_default();
            Finding::warning(
                "references",
                format!("{text}, {refused} are not used; the first: {first}"),
                "mend or remove them",
            )
        }
    }
}

fn telescope(settings: &Settings) -> Vec<Finding> {
    let mut findings = Vec::new();
    let (telescope, camera) = (&settings.telescope, &settings.camera);
    if let Ok(text) = std::fs::read_to_string(&telescope.fields) {
        let file = telescope.fields.display();
        findings.push(match FieldList::parse(&text) {
            Ok(fields) => Finding::ok("fields", format!("{} in {file}", fields.len())),
            Err(error) => Finding::warning("fields", format!("{file}: {error}"), "correct it, or remove the file"),
        });
    }
    if !telescope.pointing_command.is_empty() && camera.trigger == Trigger::Cadence {
        let deadline = Duration::from_secs_f64((camera.cadence_s / 2.0).clamp(0.05, 10.0));
        let answer = command::output(&telescope.pointing_command, deadline).map_err(|error| error.to_string());
        findings.push(match answer.and_then(|text| Pointing::parse(&text)) {
            Ok(pointing) => match pointing.reason_to_wait() {
                Some(reason) => Finding::ok("telescope", format!("{reason}: no exposures now")),
                None => Finding::ok("telescope", "the pointing command answers"),
            },
            Err(error) => Finding::fault(
                "telescope",
                format!("the pointing command {error}"),
                "correct [telescope] pointing_command; without an answer there are no exposures",
            ),
        });
    }
    findings
}

fn model(settings: &Settings) -> Option<Finding> {
    let weights = settings.alerts.real_bogus_model.as_ref()?;
    Some(match values::read_network(weights) {
        Ok(_) => Finding::ok("model", format!("{} fills drb", weights.display())),
        Err(why) => Finding::warning(
            "model",
            format!("{}: {why}", weights.display()),
            "correct [alerts] real_bogus_model; alerts have no drb until then",
        ),
    })
}

fn stars(settings: &Settings) -> Option<Finding> {
    match values::star_catalogue(settings) {
        Ok(catalogue) => catalogue.map(|c| Finding::ok("stars", format!("{} in {}", c.len(), c.path().display()))),
        Err(error) => Some(Finding::warning(
            "stars",
            error.to_string(),
            "correct [catalogues] stars; zero points come from the references until then",
        )),
    }
}

fn orbits(settings: &Settings) -> Option<Finding> {
    let path = settings.catalogues.orbits.as_ref()?.display();
    match values::asteroids(settings) {
        Ok(found) => found.map(|(asteroids, rubbish)| {
            let text = format!("{} asteroids in {path}", asteroids.len());
            match (rubbish, asteroids.stale(crate::service::clock::now())) {
                (None, None) => Finding::ok("orbits", text),
                (Some(rubbish), None) => {
                    Finding::warning("orbits", format!("{text}: {rubbish}"), "get a new MPCORB.DAT")
                }
                (_, Some(stale)) => Finding::warning("orbits", format!("{text}: {stale}"), "get a new MPCORB.DAT"),
            }
        }),
        Err(error) => Some(Finding::warning(
            "orbits",
            error.to_string(),
            "correct [catalogues] orbits; alerts say nothing of asteroids until then",
        )),
    }
}
