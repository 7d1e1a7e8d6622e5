//! One broker, looked at without a Kafka client: does it answer, is its certificate trusted and for
//! how long, what does it speak.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use openssl::pkey::PKey;
use openssl::ssl::{SslConnector, SslMethod, SslStream};
use openssl::x509::X509;

use super::versions::{self, Versions};
use crate::service::finding::Finding;
use crate::uplink::certificate;
use crate::uplink::security::{Security, TlsParameters};

const PATIENCE: Duration = Duration::from_secs(5);
/// No answer of this kind is longer, bytes.
const MOST: usize = 1 << 20;

/// What is found out about the broker at `address` (`host:port`).
pub fn look(address: &str, security: &Security, now_s: i64) -> Vec<Finding> {
    let stream = match connect(address) {
        Ok(stream) => stream,
        Err(error) => {
            let text = format!("nobody answers at {address} ({error})");
            return vec![Finding::fault(
                "broker",
                text,
                "check [uplink] brokers, the link and whether Kafka runs there",
            )];
        }
    };
    let tls = match security {
        Security::Plaintext => return vec![speak(address, stream)],
        Security::Tls(tls) | Security::SaslTls { tls, .. } => tls,
    };
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host).trim_matches(['[', ']']);
    match handshake(host, stream, tls) {
        Ok(stream) => {
            let shown = stream.ssl().peer_certificate();
            let whose = format!("the certificate of {address}");
            let mut findings: Vec<Finding> = shown.iter().map(|c| certificate::judge(&whose, c, now_s)).collect();
            findings.push(speak(address, stream));
            findings
        }
        Err(error) => {
            let text = format!("TLS with {address} fails ({error})");
            let remedy = "check [uplink] ca_file and the certificates, their dates and host names";
            vec![Finding::fault("broker", text, remedy)]
        }
    }
}

fn connect(address: &str) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for place in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&place, PATIENCE) {
            Ok(stream) => {
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.set_write_timeout(Some(PATIENCE))?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn handshake(host: &str, stream: TcpStream, tls: &TlsParameters) -> Result<SslStream<TcpStream>, String> {
    let text = |error: openssl::error::ErrorStack| error.to_string();
    let mut connector = SslConnector::builder(SslMethod::tls()).map_err(text)?;
    if let Some(file) = &tls.ca_file {
        connector.set_ca_file(file).map_err(text)?;
    }
    if let Some(file) = &tls.certificate_file {
        let pem = std::fs::read(file).map_err(|error| format!("{}: {error}", file.display()))?;
        let mut certificates = X509::stack_from_pem(&pem).map_err(text)?.into_iter();
        if let Some(own) = certificates.next() {
            connector.set_certificate(&own).map_err(text)?;
        }
        for other in certificates {
            connector.add_extra_chain_cert(other).map_err(text)?;
        }
    }
    if let Some(pem) = &tls.key_pem {
        let key = PKey::private_key_from_pem(pem.as_bytes()).map_err(|_| "the private key is no PEM".to_owned())?;
        connector.set_private_key(&key).map_err(text)?;
    }
    connector.build().connect(host, stream).map_err(|error| match &error {
        openssl::ssl::HandshakeError::Failure(failed)
            if failed.ssl().verify_result() != openssl::x509::X509VerifyResult::OK =>
        {
            failed.ssl().verify_result().error_string().to_owned()
        }
        _ => error.to_string(),
    })
}

fn ask(mut stream: impl Read + Write) -> io::Result<Versions> {
    stream.write_all(&versions::request())?;
    stream.flush()?;
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length) as usize;
    if length > MOST {
        return Err(io::Error::other("it does not speak Kafka"));
    }
    let mut answer = vec![0; length];
    stream.read_exact(&mut answer)?;
    versions::parse(&answer).ok_or_else(|| io::Error::other("it does not speak Kafka"))
}

fn speak(address: &str, stream: impl Read + Write) -> Finding {
    match ask(stream) {
        Err(error) => {
            let text = format!("{address} answers and does not speak Kafka so ({error})");
            Finding::fault(
                "broker",
                text,
                "check the port and [uplink] security: each protection has a port of its own",
            )
        }
        Ok(versions) if !versions.transactions() => {
            let text = format!("{address} is {} and has no transactions", versions.release());
            Finding::fault("broker", text, "set [uplink] delivery = \"idempotent\", or ask for a newer cluster")
        }
        Ok(versions) if !versions.new_epochs() => {
            let text = format!("{address} is {}: a producer cannot go on after some failures", versions.release());
            Finding::warning("broker", text, "ask who runs the cluster for Kafka 2.5 or newer")
        }
        Ok(versions) => Finding::ok("broker", format!("{address} answers and is {}", versions.release())),
    }
}
