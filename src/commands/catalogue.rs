//! `nightjar catalogue`: a star catalogue of the tables that surveys publish, and what it holds at a place.

use std::path::PathBuf;

use super::Failure;
use crate::catalogue::{COLUMNS_HELP, CatalogueStar, StarCatalogue, build};
use crate::settings::Settings;

/// Arguments of `nightjar catalogue`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    nightjar catalogue build gaia-*.csv.gz ps1.fits -o /var/lib/nightjar/stars.catalogue\n  \
    nightjar catalogue near /var/lib/nightjar/stars.catalogue 10.6847 41.2687\n\n\
    [catalogues] stars in the settings names the file that the daemon uses.")]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Make a catalogue of tables
    #[command(after_help = COLUMNS_HELP)]
    Build {
        /// Tables: CSV or FITS, gzipped or not
        #[arg(required = true)]
        tables: Vec<PathBuf>,
        /// The catalogue to write; what is there before is replaced once the new one is whole
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
    },
    /// Show the stars near a place, the nearest first
    #[command(after_help = "Example:\n  nightjar catalogue near stars.catalogue 10.6847 41.2687 --radius 60")]
    Near {
        /// A catalogue
        file: PathBuf,
        /// Right ascension, degrees
        ra: f64,
        /// Declination, degrees
        #[arg(allow_negative_numbers = true)]
        dec: f64,
        /// How far, arcseconds
        #[arg(long, default_value_t = 30.0)]
        radius: f64,
    },
}

/// Runs the command.
pub fn run(args: &Args, _: &Settings) -> Result<(), Failure> {
    match &args.action {
        Action::Build { tables, output } => {
            let say = |line: &str| eprintln!("nightjar: {line}");
            let built = build(tables, output, &say).map_err(Failure::input)?;
            for refused in &built.refused {
                let (line, reason) = refused.first;
                let table = refused.path.display();
                eprintln!("nightjar: {table}: {} lines are no stars and left out; the first, {line}: {reason}", refused.count);
            }
            println!(
                "{}: {} stars, {} with g, r, i or z, {} of Gaia; {:.1} MB",
                output.display(),
                built.stars,
                built.with_griz,
                built.with_gaia,
                built.bytes as f64 / 1e6
            );
        }
        Action::Near { file, ra, dec, radius } => {
            if !((0.0..=360.0).contains(ra) && (-90.0..=90.0).contains(dec)) {
                return Err(Failure::input("give right ascension (0 to 360) and declination (-90 to 90) in degrees"));
            }
            let catalogue = StarCatalogue::open(file).map_err(Failure::input)?;
            let mut stars = catalogue.within(*ra, *dec, radius / 3600.0);
            if let Some(damage) = catalogue.damage() {
                return Err(Failure::input(damage));
            }
            stars.sort_by(|a, b| a.0.total_cmp(&b.0));
            println!("{:>8} {:>20} {:>12} {:>12} {}", "arcsec", "number", "ra", "dec", "      g       r       i       z       G   star");
            for (distance, star) in &stars {
                println!("{}", line(distance * 3600.0, star));
            }
        }
    }
    Ok(())
}

fn line(arcsec: f64, star: &CatalogueStar) -> String {
    let number = |value: f32, width: usize| match value.is_finite() {
        true => format!("{value:>width$.3}"),
        false => format!("{:>width$}", "-"),
    };
    let magnitudes: Vec<String> = star.griz.into_iter().chain([star.gaia]).map(|m| number(m, 7)).collect();
    let CatalogueStar { id, ra, dec, .. } = star;
    format!("{arcsec:>8.3} {id:>20} {ra:>12.7} {dec:>+12.7} {} {}", magnitudes.join(" "), number(star.score, 6))
}
