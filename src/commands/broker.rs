//! Where a command that reads topics finds Kafka.

use std::path::PathBuf;

use rdkafka::config::ClientConfig;

use super::Failure;
use crate::night::values;
use crate::service::credentials;
use crate::settings::Settings;

/// Where Kafka is.
#[derive(Debug, clap::Args)]
pub struct Broker {
    /// The brokers, HOST:PORT with commas between
    #[arg(long, value_name = "HOST:PORT")]
    brokers: Option<String>,
    /// A file of librdkafka's properties, one `name = value` a line; the password may come as the credential kafka-password
    #[arg(long, value_name = "FILE")]
    kafka: Option<PathBuf>,
}

impl Broker {
    /// Whether the command line names one.
    pub fn is_named(&self) -> bool {
        self.brokers.is_some() || self.kafka.is_some()
    }

    /// The client's properties: of the command line, else of the settings.
    pub fn config(&self, settings: &Settings) -> Result<ClientConfig, Failure> {
        if self.is_named() {
            return self.properties();
        }
        if settings.uplink.brokers.is_empty() {
            return Err(Failure::Input("no broker is named; give --brokers HOST:PORT, or [uplink] brokers".into()));
        }
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", settings.uplink.brokers.join(","));
        let security = values::security(settings, credentials::folder().as_deref()).map_err(Failure::input)?;
        for (name, value) in security.properties() {
            config.set(name, value);
        }
        Ok(config)
    }

    /// Those of the command line alone.
    pub fn properties(&self) -> Result<ClientConfig, Failure> {
        let mut config = ClientConfig::new();
        if let Some(path) = &self.kafka {
            let text = std::fs::read_to_string(path).map_err(|error| {
                Failure::Settings(format!("{}: {error}; name a readable file with --kafka", path.display()))
            })?;
            for (number, line) in text.lines().enumerate() {
                let line = line.trim();
                if line.is_empty() || line.starts_with(['#', '!']) {
                    continue;
                }
                let Some((name, value)) = line.split_once('=') else {
                    let what =
                        format!("{}, line {}: '{line}' is not name = value; correct it", path.display(), number + 1);
                    return Err(Failure::Settings(what));
                };
                config.set(name.trim(), value.trim());
            }
            if let Ok(password) = credentials::read(credentials::folder().as_deref(), "kafka-password") {
                config.set("sasl.password", password);
            }
        }
        if let Some(brokers) = &self.brokers {
            config.set("bootstrap.servers", brokers);
        }
        Ok(config)
    }
}
