//! `nightjar archive`: keeps the alerts of Kafka's topics for ever, as Avro files in folders by night.

use std::path::{Path, PathBuf};

use super::Failure;
use super::broker::Broker;
use crate::archive::{self, Codec, NightReport, Plan};
use crate::service::shutdown::{Request, Shutdown, catch_signals};
use crate::service::systemd;
use crate::settings::Settings;

/// Arguments of `nightjar archive`.
#[derive(Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "Examples:
  nightjar archive --brokers kafka.university.example:9092 --out /archive/alerts
  nightjar archive --topics nightjar_20261124_programid1 --to-end --out /archive/alerts
  nightjar archive verify --brokers kafka.university.example:9092 --out /archive/alerts --night 20261124

Without --brokers and --kafka it goes to [uplink] brokers, as the daemon does. A file ends when it is large or old
enough; what it holds is durable then, and until then it comes again after a crash. Several archives share a topic when they
have one --group and each a folder of its own."
)]
pub struct Args {
    #[command(subcommand)]
    action: Option<Action>,
    #[command(flatten)]
    follow: Follow,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Hold an archive against its index, and where a broker is named, against the topics
    #[command(after_help = "Examples:
  nightjar archive verify --out /archive/alerts
  nightjar archive verify --out /archive/alerts --night 20261124 --brokers kafka.university.example:9092")]
    Verify {
        /// The archive's folder
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// One night instead of all
        #[arg(long, value_name = "YYYYMMDD")]
        night: Option<String>,
        #[command(flatten)]
        broker: Broker,
    },
}

#[derive(Debug, clap::Args)]
struct Follow {
    /// The archive's folder
    #[arg(long, value_name = "DIR", required = true)]
    out: Option<PathBuf>,
    /// A topic, or a pattern that begins with ^; may be given several times [default: the alerts of every night]
    #[arg(long, value_name = "TOPIC|PATTERN")]
    topics: Vec<String>,
    /// The consumer group
    #[arg(long, default_value = "nightjar-archive")]
    group: String,
    #[command(flatten)]
    broker: Broker,
    /// How files are compressed
    #[arg(long, value_enum, default_value = "deflate")]
    codec: Codec,
    /// A file ends at this size, MB
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u64).range(1..=65536))]
    megabytes: u64,
    /// A file ends at this age, seconds
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86400))]
    seconds: u64,
    /// Stop when everything that is there is archived
    #[arg(long)]
    to_end: bool,
    /// Begin where the topics begin, and take what no file of this folder has
    #[arg(long)]
    from_files: bool,
}

/// Runs the command.
pub fn run(args: &Args, settings: &Settings) -> Result<(), Failure> {
    match &args.action {
        Some(Action::Verify { out, night, broker }) => verify(out, night.as_deref(), broker),
        None => follow(&args.follow, settings),
    }
}

fn follow(args: &Follow, settings: &Settings) -> Result<(), Failure> {
    let Some(out) = &args.out else { return Err(Failure::Input("name the archive's folder with --out".into())) };
    let every = format!("^{}_[0-9]{{8}}_programid[0-9]$", settings.alerts.prefix.replace('.', "\\."));
    let plan = Plan {
        topics: if args.topics.is_empty() { vec![every] } else { args.topics.clone() },
        group: args.group.clone(),
        out: out.clone(),
        codec: args.codec,
        most_bytes: args.megabytes * 1_000_000,
        most_seconds: args.seconds as f64,
        to_end: args.to_end,
        from_files: args.from_files,
    };
    let config = args.broker.config(settings)?;
    let shutdown = Shutdown::new();
    let asked = shutdown.clone();
    catch_signals(move |request| {
        if request == Request::Stop {
            asked.request();
        }
    })
    .map_err(|error| Failure::TryAgain(format!("signals: {error}")))?;
    let done = archive::follow(&config, &plan, &shutdown, || {
        systemd::ready(&format!("archiving {}", plan.topics.join(", ")));
        tracing::info!("archiving {} into {}, group {}", plan.topics.join(", "), plan.out.display(), plan.group);
    })?;
    let refused = match done.refused {
        0 => String::new(),
        n => format!("; {n} messages are no alerts and lie in refused/"),
    };
    let megabytes = done.bytes as f64 / 1e6;
    eprintln!("{} alerts archived, {megabytes:.1} MB of messages in {:.1} s{refused}", done.alerts, done.seconds);
    Ok(())
}

fn verify(out: &Path, night: Option<&str>, broker: &Broker) -> Result<(), Failure> {
    if !out.is_dir() {
        return Err(Failure::Input(format!("{} is no folder; name the folder of an archive with --out", out.display())));
    }
    let reports = archive::verify_files(out, night)?;
    let mut faults = 0;
    for NightReport { night, files, alerts, faults: found, .. } in &reports {
        println!("{night}: {files} files, {alerts} alerts, {} faults", found.len());
        for fault in found {
            println!("  {fault}");
        }
        faults += found.len();
    }
    if broker.is_named() {
        let config = broker.properties()?;
        for found in archive::verify_topics(&config, &reports)? {
            println!(
                "{}: {} alerts in the topic, {} of them here, {} missing, {} twice, {} to come, {} here alone",
                found.topic,
                found.in_topic,
                found.in_both,
                found.missing_count,
                found.twice,
                found.to_come,
                found.only_here
            );
            if !found.is_whole() {
                faults += 1;
                let list: Vec<String> = found.missing.iter().map(i64::to_string).collect();
                println!("  missing: {}", list.join(" "));
            }
        }
    }
    match faults {
        0 => Ok(()),
        n => Err(Failure::Input(format!(
            "{n} faults; what is missing is fetched again by `nightjar archive --from-files` while Kafka has it: first move the damaged files away"
        ))),
    }
}
