//! How the connection is protected, as librdkafka properties.

use std::fmt;
use std::path::PathBuf;

/// TLS.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct TlsParameters {
    /// Authorities to trust, PEM; the system's without one.
    pub ca_file: Option<PathBuf>,
    /// This client's certificate, PEM, for mutual TLS.
    pub certificate_file: Option<PathBuf>,
    /// The private key, PEM text.
    pub key_pem: Option<String>,
}

impl fmt::Debug for TlsParameters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsParameters")
            .field("ca_file", &self.ca_file)
            .field("certificate_file", &self.certificate_file)
            .field("key_pem", &self.key_pem.as_ref().map(|_| "…"))
            .finish()
    }
}

/// Protection of the connection.
#[derive(Clone, PartialEq, Eq, Default)]
pub enum Security {
    /// Neither encrypted nor authenticated.
    #[default]
    Plaintext,
    /// TLS, mutual where there is a certificate.
    Tls(TlsParameters),
    /// TLS with user name and password.
    SaslTls {
        /// TLS.
        tls: TlsParameters,
        /// `SCRAM-SHA-512` and the like.
        mechanism: String,
        /// User.
        username: String,
        /// Password.
        password: String,
    },
}

impl fmt::Debug for Security {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plaintext => f.write_str("Plaintext"),
            Self::Tls(tls) => f.debug_tuple("Tls").field(tls).finish(),
            Self::SaslTls { tls, mechanism, username, .. } => {
                f.debug_tuple("SaslTls").field(tls).field(mechanism).field(username).finish()
            }
        }
    }
}

impl Security {
    /// The properties that librdkafka takes.
    pub fn properties(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::Plaintext => vec![("security.protocol", "plaintext".into())],
            Self::Tls(tls) => [vec![("security.protocol", "ssl".into())], tls.properties()].concat(),
            Self::SaslTls { tls, mechanism, username, password } => {
                let login = vec![
                    ("security.protocol", "sasl_ssl".into()),
                    ("sasl.mechanism", mechanism.clone()),
                    ("sasl.username", username.clone()),
                    ("sasl.password", password.clone()),
                ];
                [login, tls.properties()].concat()
            }
        }
    }
}

impl TlsParameters {
    fn properties(&self) -> Vec<(&'static str, String)> {
        let path = |path: &PathBuf| path.display().to_string();
        let mut list = Vec::new();
        if let Some(file) = &self.ca_file {
            list.push(("ssl.ca.location", path(file)));
        }
        if let Some(file) = &self.certificate_file {
            list.push(("ssl.certificate.location", path(file)));
        }
        if let Some(pem) = &self.key_pem {
            list.push(("ssl.key.pem", pem.clone()));
        }
        list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_password_nor_key_is_ever_printed() {
        let tls = TlsParameters { key_pem: Some("KEY-TEXT".into()), ..Default::default() };
        let security = Security::SaslTls {
            tls,
            mechanism: "SCRAM-SHA-512".into(),
            username: "nightjar".into(),
            password: "open sesame".into(),
        };
        let text = format!("{security:?}");
        assert!(!text.contains("KEY-TEXT") && !text.contains("sesame"), "{text}");
        assert!(security.properties().contains(&("sasl.password", "open sesame".into())));
    }
}
