//! The registry's HTTP interface, as far as it is used here
//! (<https://docs.confluent.io/platform/current/schema-registry/develop/api.html>).

use std::time::Duration;

use serde::Deserialize;
use ureq::Agent;
use ureq::tls::{RootCerts, TlsConfig, TlsProvider};

use super::RegistryError;

/// How long a registry may take to answer.
const ANSWER: Duration = Duration::from_secs(5);
/// Longest answer that is read, bytes.
const LONGEST: u64 = 1 << 20;
const JSON: &str = "application/vnd.schemaregistry.v1+json";

/// A registry at an address.
pub struct Client {
    address: String,
    /// `Authorization`, where the registry asks who one is.
    authorization: Option<String>,
    agent: Agent,
}

#[derive(Deserialize)]
struct Registered {
    id: u32,
}

#[derive(Deserialize)]
struct Complaint {
    message: String,
}

impl Client {
    /// The registry at `address`, asked as `user:password` where that is given. The system's authorities vouch for
    /// `https` ones.
    pub fn new(address: &str, user_and_password: Option<&str>) -> Self {
        let tls = TlsConfig::builder().provider(TlsProvider::NativeTls).root_certs(RootCerts::PlatformVerifier).build();
        let config = Agent::config_builder()
            .timeout_global(Some(ANSWER))
            .http_status_as_error(false)
            .tls_config(tls)
            .user_agent(concat!("nightjar/", env!("CARGO_PKG_VERSION")))
            .build();
        let authorization =
            user_and_password.map(|text| format!("Basic {}", openssl::base64::encode_block(text.as_bytes())));
        Self { address: address.trim_end_matches('/').to_owned(), authorization, agent: config.new_agent() }
    }

    /// Its address.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Registers a schema (JSON) under a subject and gives its number; one that is registered already has it.
    ///
    /// # Errors
    ///
    /// When the registry does not answer, refuses, or is none.
    pub fn register(&self, subject: &str, schema: &str) -> Result<u32, RegistryError> {
        let url = format!("{}/subjects/{subject}/versions", self.address);
        let body = serde_json::json!({ "schema": schema, "schemaType": "AVRO" }).to_string();
        let mut request = self.agent.post(url).header("Content-Type", JSON).header("Accept", JSON);
        if let Some(authorization) = &self.authorization {
            request = request.header("Authorization", authorization);
        }
        let (status, answer) = self.read(request.send(body))?;
        match status {
            200..=299 => serde_json::from_str(&answer)
                .map(|Registered { id }| id)
                .map_err(|_| RegistryError::Foreign { address: self.address.clone(), answer: beginning(&answer) }),
            _ => Err(RegistryError::Refused {
                address: self.address.clone(),
                subject: subject.to_owned(),
                status,
                reason: serde_json::from_str(&answer)
                    .map_or_else(|_| beginning(&answer), |c: Complaint| beginning(&c.message)),
            }),
        }
    }

    /// How many subjects there are: proves address and rights, and changes nothing.
    ///
    /// # Errors
    ///
    /// As above.
    pub fn subjects(&self) -> Result<usize, RegistryError> {
        let mut request = self.agent.get(format!("{}/subjects", self.address)).header("Accept", JSON);
        if let Some(authorization) = &self.authorization {
            request = request.header("Authorization", authorization);
        }
        let (status, answer) = self.read(request.call())?;
        match (status, serde_json::from_str::<Vec<String>>(&answer)) {
            (200, Ok(subjects)) => Ok(subjects.len()),
            (200, Err(_)) => Err(RegistryError::Foreign { address: self.address.clone(), answer: beginning(&answer) }),
            _ => Err(RegistryError::Refused {
                address: self.address.clone(),
                subject: "any subject".into(),
                status,
                reason: beginning(&answer),
            }),
        }
    }

    fn read(
        &self,
        answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    ) -> Result<(u16, String), RegistryError> {
        let away =
            |error: ureq::Error| RegistryError::Away { address: self.address.clone(), reason: error.to_string() };
        let mut response = answer.map_err(away)?;
        let text = response.body_mut().with_config().limit(LONGEST).read_to_string().map_err(away)?;
        Ok((response.status().as_u16(), text))
    }
}

/// The beginning of what was answered, on one line.
fn beginning(answer: &str) -> String {
    let line: String = answer.split_whitespace().collect::<Vec<_>>().join(" ");
    line.chars().take(160).collect()
}
