//! What the history keeps of an alert, read from its record.

use std::collections::HashMap;

use super::kind::{Place, Scalar, Tree, WalkError};
use super::packet::present;
use crate::history::PriorEpoch;

/// A value, out of the record's bytes.
#[derive(Debug, Clone)]
enum Value {
    Whole(i64),
    Real(f64),
    Text(String),
}

/// The values of a packet and of its candidate, by name.
#[derive(Debug, Default)]
pub struct Values {
    packet: HashMap<String, Value>,
    candidate: HashMap<String, Value>,
}

impl Values {
    /// Of a record.
    pub fn of(tree: &Tree, record: &[u8]) -> Result<Self, WalkError> {
        let mut values = Self::default();
        tree.walk(record, &mut |place, name, scalar| {
            let value = match scalar {
                Scalar::Whole(n) => Value::Whole(n),
                Scalar::Real(x) => Value::Real(x),
                Scalar::Text(text) => Value::Text(String::from_utf8_lossy(text).into_owned()),
                Scalar::Truth(truth) => Value::Whole(i64::from(truth)),
            };
            match place {
                Place::Packet => values.packet.insert(name.to_owned(), value),
                _ => values.candidate.insert(name.to_owned(), value),
            };
        })?;
        Ok(values)
    }

    /// Name of the object.
    pub fn object(&self) -> String {
        match self.packet.get("objectId") {
            Some(Value::Text(text)) => text.clone(),
            _ => String::new(),
        }
    }

    /// A number of the candidate that is there and no sentinel.
    pub fn real(&self, name: &str) -> Option<f64> {
        match self.candidate.get(name)? {
            Value::Real(x) => present(*x),
            Value::Whole(n) => present(*n as f64),
            Value::Text(_) => None,
        }
    }

    fn float(&self, name: &str) -> Option<f32> {
        self.real(name).map(|x| x as f32)
    }

    fn whole(&self, name: &str) -> Option<i64> {
        whole(self.candidate.get(name))
    }

    fn packet_whole(&self, name: &str) -> Option<i64> {
        whole(self.packet.get(name))
    }

    /// A whole number of the candidate.
    pub fn small(&self, name: &str) -> Option<i32> {
        self.whole(name).and_then(|n| i32::try_from(n).ok())
    }

    /// Text of the candidate; `null` in letters is none.
    fn text(&self, name: &str) -> Option<String> {
        match self.candidate.get(name)? {
            Value::Text(text) if text != "null" => Some(text.clone()),
            _ => None,
        }
    }
}

fn whole(value: Option<&Value>) -> Option<i64> {
    match value? {
        Value::Whole(n) if present(*n as f64).is_some() => Some(*n),
        _ => None,
    }
}

/// The detection as the history keeps it.
pub fn detection(values: &Values) -> PriorEpoch {
    PriorEpoch {
        jd: values.real("jd").unwrap_or_default(),
        fid: values.small("fid").unwrap_or_default(),
        pid: values.whole("pid").unwrap_or_default(),
        diffmaglim: values.float("diffmaglim"),
        pdiffimfilename: values.text("pdiffimfilename"),
        programpi: values.text("programpi"),
        programid: values.small("programid").unwrap_or_default(),
        candid: values.whole("candid").or_else(|| values.packet_whole("candid")),
        isdiffpos: Some(if matches!(values.text("isdiffpos").as_deref(), Some("t" | "1")) { "t" } else { "f" }),
        tblid: values.whole("tblid"),
        nid: values.small("nid"),
        rcid: values.small("rcid"),
        field: values.small("field"),
        xpos: values.float("xpos"),
        ypos: values.float("ypos"),
        ra: values.real("ra"),
        dec: values.real("dec"),
        magpsf: values.float("magpsf"),
        sigmapsf: values.float("sigmapsf"),
        chipsf: values.float("chipsf"),
        magap: values.float("magap"),
        sigmagap: values.float("sigmagap"),
        distnr: values.float("distnr"),
        magnr: values.float("magnr"),
        sigmagnr: values.float("sigmagnr"),
        chinr: values.float("chinr"),
        sharpnr: values.float("sharpnr"),
        sky: values.float("sky"),
        magdiff: values.float("magdiff"),
        fwhm: values.float("fwhm"),
        classtar: values.float("classtar"),
        mindtoedge: values.float("mindtoedge"),
        magfromlim: values.float("magfromlim"),
        seeratio: values.float("seeratio"),
        aimage: values.float("aimage"),
        bimage: values.float("bimage"),
        aimagerat: values.float("aimagerat"),
        bimagerat: values.float("bimagerat"),
        elong: values.float("elong"),
        nneg: values.small("nneg"),
        nbad: values.small("nbad"),
        rb: values.float("rb"),
        ssdistnr: values.float("ssdistnr"),
        ssmagnr: values.float("ssmagnr"),
        ssnamenr: values.text("ssnamenr"),
        sumrat: values.float("sumrat"),
        magapbig: values.float("magapbig"),
        sigmagapbig: values.float("sigmagapbig"),
        ranr: values.real("ranr"),
        decnr: values.real("decnr"),
        scorr: values.real("scorr"),
        magzpsci: values.float("magzpsci"),
        magzpsciunc: values.float("magzpsciunc"),
        magzpscirms: values.float("magzpscirms"),
        clrcoeff: values.float("clrcoeff"),
        clrcounc: values.float("clrcounc"),
        rbversion: values.text("rbversion").unwrap_or_default(),
    }
}

/// The exposure of a detection as an upper limit: what belongs to the exposure, and nothing of the candidate.
pub fn limit(detection: &PriorEpoch) -> PriorEpoch {
    let d = detection;
    PriorEpoch {
        jd: d.jd,
        fid: d.fid,
        pid: d.pid,
        diffmaglim: d.diffmaglim,
        pdiffimfilename: d.pdiffimfilename.clone(),
        programpi: d.programpi.clone(),
        programid: d.programid,
        nid: d.nid,
        rcid: d.rcid,
        field: d.field,
        magzpsci: d.magzpsci,
        magzpsciunc: d.magzpsciunc,
        magzpscirms: d.magzpscirms,
        clrcoeff: d.clrcoeff,
        clrcounc: d.clrcounc,
        rbversion: d.rbversion.clone(),
        ..PriorEpoch::default()
    }
}
