//! When certificates end: those in the settings, and those that brokers show.

use std::path::Path;

use openssl::asn1::Asn1Time;
use openssl::nid::Nid;
use openssl::x509::{X509, X509Ref};

use super::security::{Security, TlsParameters};
use crate::service::finding::Finding;

/// A certificate that ends sooner is worth a warning, days.
pub const WARN_DAYS: i64 = 14;

/// Days until a certificate ends, and its name.
fn end(certificate: &X509Ref, now_s: i64) -> Option<(f64, String)> {
    let now = Asn1Time::from_unix(now_s).ok()?;
    let left = now.diff(certificate.not_after()).ok()?;
    let name = certificate.subject_name().entries_by_nid(Nid::COMMONNAME).next();
    let name = name.and_then(|entry| entry.data().to_string().ok()).unwrap_or_default();
    Some((f64::from(left.days) + f64::from(left.secs) / 86_400.0, name))
}

/// What the end of a certificate means; `whose` begins the sentence.
pub fn judge(whose: &str, certificate: &X509Ref, now_s: i64) -> Finding {
    let Some((days, name)) = end(certificate, now_s) else {
        return Finding::warning(
            "certificate",
            format!("{whose} has no date of its end"),
            "look at it with `openssl x509`",
        );
    };
    let until = certificate.not_after();
    let text = |verb: &str| format!("{whose} ({name}) {verb} {until}");
    if days < 0.0 {
        Finding::fault("certificate", text("ended on"), "put a new one in its place, then `systemctl reload nightjar`")
    } else if days < WARN_DAYS as f64 {
        let text = format!("{}, in {days:.0} days", text("ends on"));
        Finding::warning("certificate", text, "ask who signs it for a new one before then")
    } else {
        Finding::ok("certificate", format!("{}, in {days:.0} days", text("is good until")))
    }
}

/// The certificates that the settings name, each with what its end means.
pub fn in_settings(security: &Security, now_s: i64) -> Vec<Finding> {
    let tls: &TlsParameters = match security {
        Security::Plaintext => return Vec::new(),
        Security::Tls(tls) | Security::SaslTls { tls, .. } => tls,
    };
    let files = [("ca_file", &tls.ca_file), ("certificate_file", &tls.certificate_file)];
    files
        .iter()
        .filter_map(|(key, file)| Some((*key, file.as_deref()?)))
        .flat_map(|(key, f)| in_file(key, f, now_s))
        .collect()
}

fn in_file(key: &str, file: &Path, now_s: i64) -> Vec<Finding> {
    let place = format!("[uplink] {key} {}", file.display());
    let certificates = std::fs::read(file)
        .map_err(|error| error.to_string())
        .and_then(|pem| X509::stack_from_pem(&pem).map_err(|_| "it is no PEM".to_owned()))
        .and_then(|all| if all.is_empty() { Err("there is no certificate in it".to_owned()) } else { Ok(all) });
    match certificates {
        Ok(all) => all.iter().map(|certificate| judge(&place, certificate, now_s)).collect(),
        Err(why) => {
            let text = format!("{place} cannot be read ({why})");
            vec![Finding::fault("certificate", text, "name a PEM file that the user nightjar may read")]
        }
    }
}

#[cfg(test)]
mod tests {
    use openssl::asn1::Asn1Time;
    use openssl::hash::MessageDigest;
    use openssl::pkey::PKey;
    use openssl::rsa::Rsa;
    use openssl::x509::{X509, X509NameBuilder};

    use super::*;
    use crate::service::finding::Severity;

    const NOW: i64 = 1_800_000_000;

    fn ending(in_days: i64) -> X509 {
        let key = PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap();
        let mut name = X509NameBuilder::new().unwrap();
        name.append_entry_by_nid(Nid::COMMONNAME, "kafka.example").unwrap();
        let mut certificate = X509::builder().unwrap();
        certificate.set_subject_name(&name.build()).unwrap();
        certificate.set_pubkey(&key).unwrap();
        certificate.set_not_before(&Asn1Time::from_unix(NOW - 86_400).unwrap()).unwrap();
        certificate.set_not_after(&Asn1Time::from_unix(NOW + in_days * 86_400).unwrap()).unwrap();
        certificate.sign(&key, MessageDigest::sha256()).unwrap();
        certificate.build()
    }

    #[test]
    fn a_certificate_that_ends_within_a_fortnight_is_a_warning() {
        let severity = |days| judge("it", &ending(days), NOW).severity;
        assert_eq!([severity(15), severity(13), severity(-1)], [Severity::Ok, Severity::Warning, Severity::Fault]);
        let text = judge("the broker's certificate", &ending(3), NOW).to_string();
        assert!(text.contains("(kafka.example) ends on") && text.contains("in 3 days"), "{text}");
    }

    #[test]
    fn every_certificate_of_the_settings_is_looked_at() {
        let folder = tempfile::tempdir().unwrap();
        let pem = [ending(2), ending(400)].map(|c| c.to_pem().unwrap()).concat();
        std::fs::write(folder.path().join("ca.pem"), pem).unwrap();
        let tls = TlsParameters {
            ca_file: Some(folder.path().join("ca.pem")),
            certificate_file: Some(folder.path().join("missing.pem")),
            key_pem: None,
        };
        let found: Vec<Severity> = in_settings(&Security::Tls(tls), NOW).iter().map(|f| f.severity).collect();
        assert_eq!(found, [Severity::Warning, Severity::Ok, Severity::Fault]);
    }
}
