//! From the settings to the values that the stages get: the one place where both are named.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use super::fallbacks::Fallbacks;
use crate::alert::{AlertParameters, Network, Profile, alert_schema};
use crate::asteroids::{Asteroids, Observatory, Orbits, OrbitsError, Rubbish};
use crate::camera::HeaderFallbacks;
use crate::catalogue::{CatalogueError, StarCatalogue};
use crate::detect::real_bogus;
use crate::registry::{Client, Numbers};
use crate::service::credentials::{self, CredentialError};
use crate::settings::{self, Settings, SubtractMethod};
use crate::spool::disk::Disk;
use crate::spool::{Order, SpoolParameters};
use crate::subtract::method::Method;
use crate::uplink::{Delivery, Security, TlsParameters, TopicParameters, UplinkParameters};

/// For headers that lack something. The settings have been checked.
pub fn header_fallbacks(settings: &Settings) -> HeaderFallbacks {
    Fallbacks::of(&settings.detector).unwrap_or_default().header
}

/// What is the same for every alert, with the catalogues and the network that the observatory has installed.
pub fn alert_parameters(settings: &Settings) -> AlertParameters {
    AlertParameters {
        star_catalogue: installed_catalogue(settings),
        asteroids: installed_orbits(settings),
        network: installed_network(settings),
        ..bare_alert_parameters(settings)
    }
}

/// The same without what is installed.
pub fn bare_alert_parameters(settings: &Settings) -> AlertParameters {
    AlertParameters {
        profile: Profile::Ztf,
        publisher: settings.observatory.publisher.clone(),
        topic: settings.alerts.topic.clone(),
        topic_prefix: settings.alerts.prefix.clone(),
        program_id: settings.alerts.programid,
        program_pi: settings.observatory.name.clone(),
        rcid: settings.detector.rcid,
        filters: settings.filters.clone(),
        rb_version: real_bogus::VERSION.to_owned(),
        star_catalogue: None,
        asteroids: None,
        network: None,
        software: concat!("nightjar ", env!("CARGO_PKG_VERSION")).to_owned(),
    }
}

/// The schema registry, with the registry profile.
///
/// # Errors
///
/// When the credential that the settings name is not there.
pub fn registry_client(settings: &Settings, folder: Option<&Path>) -> Result<Option<Client>, CredentialError> {
    let alerts = &settings.alerts;
    if alerts.profile != settings::Profile::Registry {
        return Ok(None);
    }
    let secret = match alerts.registry_credential.as_str() {
        "" => None,
        name => Some(credentials::read(folder, name)?),
    };
    Ok(Some(Client::new(&alerts.schema_registry, secret.as_deref())))
}

/// The schema's numbers, with the registry profile; they are kept in the spool in `folder`.
///
/// # Errors
///
/// As above.
pub fn schema_numbers(settings: &Settings, folder: &Path) -> Result<Option<Numbers>, CredentialError> {
    let client = registry_client(settings, credentials::folder().as_deref())?;
    Ok(client.map(|client| Numbers::new(client, &alert_schema().json, Box::new(Disk::at(folder)))))
}

/// The star catalogue that the settings name.
///
/// # Errors
///
/// Why it cannot be used.
pub fn star_catalogue(settings: &Settings) -> Result<Option<StarCatalogue>, CatalogueError> {
    settings.catalogues.stars.as_deref().map(StarCatalogue::open).transpose()
}

/// The same for the alerts. One that cannot be used is said in one line, and the night goes on without it.
fn installed_catalogue(settings: &Settings) -> Option<Arc<StarCatalogue>> {
    star_catalogue(settings)
        .inspect_err(|error| {
            tracing::error!(
                "the star catalogue is not used: {error}; alerts say nothing of catalogue stars until then"
            );
        })
        .ok()
        .flatten()
        .map(Arc::new)
}

/// The orbits that the settings name, and the lines among them that are none.
///
/// # Errors
///
/// Why they cannot be used.
pub fn asteroids(settings: &Settings) -> Result<Option<(Asteroids, Option<Rubbish>)>, OrbitsError> {
    let Some(path) = &settings.catalogues.orbits else { return Ok(None) };
    let site = &settings.observatory;
    let observatory = Observatory {
        longitude_deg: site.longitude_deg,
        latitude_deg: site.latitude_deg,
        elevation_m: site.elevation_m,
    };
    let (orbits, rubbish) = Orbits::read(path)?;
    Ok(Some((Asteroids::new(orbits, observatory), rubbish)))
}

/// The same for the alerts. What cannot be used is said in one line, and the night goes on without it.
fn installed_orbits(settings: &Settings) -> Option<Arc<Asteroids>> {
    let path = settings.catalogues.orbits.as_deref().unwrap_or(Path::new("")).display();
    match asteroids(settings) {
        Ok(found) => found.map(|(asteroids, rubbish)| {
            if let Some(rubbish) = rubbish {
                tracing::warn!("{path}: {rubbish}");
            }
            Arc::new(asteroids)
        }),
        Err(error) => {
            tracing::error!("the orbits are not used: {error}; alerts say nothing of asteroids until then");
            None
        }
    }
}

/// The real-bogus network that the settings name. One that cannot be used is said in one line, and
/// the night goes on without it.
fn installed_network(settings: &Settings) -> Option<Arc<Network>> {
    let weights = settings.alerts.real_bogus_model.as_deref()?;
    match read_network(weights) {
        Ok(network) => Some(Arc::new(network)),
        Err(why) => {
            let path = weights.display();
            tracing::error!(
                "the real-bogus model {path} is not used: {why}; alerts have no drb until [alerts] real_bogus_model is put right"
            );
            None
        }
    }
}

/// The network of `NAME.weights.h5` and `NAME.architecture.json` beside it.
///
/// # Errors
///
/// Why they are none.
pub fn read_network(weights: &Path) -> Result<Network, String> {
    let name = weights.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let version = name.strip_suffix(".weights.h5").ok_or("its name does not end in .weights.h5")?;
    let architecture = weights.with_file_name(format!("{version}.architecture.json"));
    let read = |path: &Path| fs::read(path).map_err(|error| format!("{}: {error}", path.display()));
    Network::from_keras(version, &read(&architecture)?, &read(weights)?).map_err(|error| error.to_string())
}

/// How the reference is subtracted.
pub fn subtraction(method: SubtractMethod) -> Method {
    match method {
        SubtractMethod::Auto => Method::Auto,
        SubtractMethod::Zogy => Method::Zogy,
        SubtractMethod::KernelFit => Method::KernelFit,
    }
}

/// The disk buffer.
pub fn spool_parameters(settings: &Settings) -> SpoolParameters {
    SpoolParameters { keep_sent_hours: f64::from(settings.spool.keep_sent_hours) }
}

/// The uplink without what protects its connection.
pub fn uplink_values(settings: &Settings) -> UplinkParameters {
    let uplink = &settings.uplink;
    UplinkParameters {
        brokers: uplink.brokers.clone(),
        publish: uplink.publish,
        delivery: match uplink.delivery {
            settings::Delivery::ExactlyOnce => Delivery::ExactlyOnce,
            settings::Delivery::Idempotent => Delivery::Idempotent,
        },
        order: match uplink.drain {
            settings::Drain::NewestFirst => Order::NewestFirst,
            settings::Drain::OldestFirst => Order::OldestFirst,
        },
        topics: TopicParameters {
            partitions: uplink.partitions,
            replication: uplink.replication,
            retention_days: uplink.retention_days,
            ..TopicParameters::default()
        },
        cursor_topic: uplink.cursor_topic.clone(),
        buffer_bytes: uplink.buffer_mb as usize * 1_000_000,
        ..UplinkParameters::default()
    }
}

/// How the connection is protected; secrets come from `folder`, where systemd puts them.
///
/// # Errors
///
/// When a credential that the settings name is not there.
pub fn security(settings: &Settings, folder: Option<&Path>) -> Result<Security, CredentialError> {
    let uplink = &settings.uplink;
    let secret = |name: &str| match name {
        "" => Ok(None),
        name => credentials::read(folder, name).map(Some),
    };
    let tls = || -> Result<TlsParameters, CredentialError> {
        Ok(TlsParameters {
            ca_file: uplink.ca_file.clone(),
            certificate_file: uplink.certificate_file.clone(),
            key_pem: secret(&uplink.key_credential)?,
        })
    };
    Ok(match uplink.security {
        settings::Security::Plaintext => Security::Plaintext,
        settings::Security::Tls => Security::Tls(tls()?),
        settings::Security::SaslTls => Security::SaslTls {
            tls: tls()?,
            mechanism: uplink.sasl_mechanism.clone(),
            username: uplink.sasl_username.clone(),
            password: secret(&uplink.password_credential)?.unwrap_or_default(),
        },
    })
}
