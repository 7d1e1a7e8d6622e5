//! The records of a packet, field by field as `schema/*.avsc` says.
//!
//! The Avro serializer writes fields in the order in which a struct declares them and does not
//! check that order against the schema: the order here is the schema's, and the test below holds it.

use std::sync::Arc;

use serde::{Serialize, Serializer};

use crate::history::PriorEpoch;

/// What ZTF writes where a number is absent.
pub const ABSENT: f64 = -999.0;
/// What ZTF writes where a text is absent.
pub const ABSENT_TEXT: &str = "null";

/// The whole packet.
#[derive(Serialize)]
pub(super) struct AlertRecord<'a> {
    pub schemavsn: &'a str,
    pub publisher: &'a str,
    #[serde(rename = "objectId")]
    pub object_id: &'a str,
    pub candid: i64,
    pub candidate: CandidateRecord,
    pub prv_candidates: Option<Epochs<'a>>,
    pub fp_hists: Option<[(); 0]>,
    #[serde(rename = "cutoutScience")]
    pub science: Option<CutoutRecord>,
    #[serde(rename = "cutoutTemplate")]
    pub template: Option<CutoutRecord>,
    #[serde(rename = "cutoutDifference")]
    pub difference: Option<CutoutRecord>,
}

/// What was seen before, shared between the packets of an exposure.
pub(super) struct Epochs<'a>(pub &'a [Arc<PriorEpoch>]);

impl Serialize for Epochs<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(Arc::as_ref))
    }
}

/// One picture.
#[derive(Serialize)]
pub(super) struct CutoutRecord {
    #[serde(rename = "fileName")]
    pub file_name: String,
    #[serde(rename = "stampData", with = "apache_avro::serde_avro_bytes")]
    pub stamp: Vec<u8>,
}

/// Declares the record and the step that settles what an absent value looks like.
macro_rules! candidate_record {
    ($($field:ident: $kind:ty,)*) => {
        /// The 103 fields of `candidate`; `None` is what Nightjar does not know.
        #[derive(Debug, Clone, Default, Serialize)]
        pub(super) struct CandidateRecord {
            $(pub $field: $kind,)*
        }

        impl CandidateRecord {
            /// Turns what is not a finite number into an absent value, and absent values into
            /// ZTF's sentinels where `sentinels` asks for them (else they stay Avro nulls).
            pub fn settle(&mut self, sentinels: bool) {
                $(self.$field.settle(sentinels);)*
            }
        }
    };
}

candidate_record! {
jd: f64,
fid: i32,
pid: i64,
diffmaglim: Option<f32>,
pdiffimfilename: Option<String>,
programpi: Option<String>,
programid: i32,
candid: i64,
isdiffpos: String,
tblid: Option<i64>,
nid: Option<i32>,
rcid: Option<i32>,
field: Option<i32>,
xpos: Option<f32>,
ypos: Option<f32>,
ra: f64,
dec: f64,
magpsf: f32,
sigmapsf: f32,
chipsf: Option<f32>,
magap: Option<f32>,
sigmagap: Option<f32>,
distnr: Option<f32>,
magnr: Option<f32>,
sigmagnr: Option<f32>,
chinr: Option<f32>,
sharpnr: Option<f32>,
sky: Option<f32>,
magdiff: Option<f32>,
fwhm: Option<f32>,
classtar: Option<f32>,
mindtoedge: Option<f32>,
magfromlim: Option<f32>,
seeratio: Option<f32>,
aimage: Option<f32>,
bimage: Option<f32>,
aimagerat: Option<f32>,
bimagerat: Option<f32>,
elong: Option<f32>,
nneg: Option<i32>,
nbad: Option<i32>,
rb: Option<f32>,
ssdistnr: Option<f32>,
ssmagnr: Option<f32>,
ssnamenr: Option<String>,
sumrat: Option<f32>,
magapbig: Option<f32>,
sigmagapbig: Option<f32>,
ranr: f64,
decnr: f64,
sgmag1: Option<f32>,
srmag1: Option<f32>,
simag1: Option<f32>,
szmag1: Option<f32>,
sgscore1: Option<f32>,
distpsnr1: Option<f32>,
ndethist: i32,
ncovhist: i32,
jdstarthist: Option<f64>,
jdendhist: Option<f64>,
scorr: Option<f64>,
tooflag: Option<i32>,
objectidps1: Option<i64>,
objectidps2: Option<i64>,
sgmag2: Option<f32>,
srmag2: Option<f32>,
simag2: Option<f32>,
szmag2: Option<f32>,
sgscore2: Option<f32>,
distpsnr2: Option<f32>,
objectidps3: Option<i64>,
sgmag3: Option<f32>,
srmag3: Option<f32>,
simag3: Option<f32>,
szmag3: Option<f32>,
sgscore3: Option<f32>,
distpsnr3: Option<f32>,
nmtchps: i32,
rfid: i64,
jdstartref: f64,
jdendref: f64,
nframesref: i32,
rbversion: String,
dsnrms: Option<f32>,
ssnrms: Option<f32>,
dsdiff: Option<f32>,
magzpsci: Option<f32>,
magzpsciunc: Option<f32>,
magzpscirms: Option<f32>,
nmatches: i32,
clrcoeff: Option<f32>,
clrcounc: Option<f32>,
zpclrcov: Option<f32>,
zpmed: Option<f32>,
clrmed: Option<f32>,
clrrms: Option<f32>,
neargaia: Option<f32>,
neargaiabright: Option<f32>,
maggaia: Option<f32>,
maggaiabright: Option<f32>,
exptime: Option<f32>,
drb: Option<f32>,
drbversion: String,}

/// A value that may be absent.
trait Settle {
    fn settle(&mut self, sentinels: bool);
}

impl Settle for f64 {
    fn settle(&mut self, _: bool) {
        if !self.is_finite() {
            *self = ABSENT;
        }
    }
}

impl Settle for f32 {
    fn settle(&mut self, _: bool) {
        if !self.is_finite() {
            *self = ABSENT as f32;
        }
    }
}

impl Settle for Option<f64> {
    fn settle(&mut self, sentinels: bool) {
        *self = self.filter(|x| x.is_finite()).or(sentinels.then_some(ABSENT));
    }
}

impl Settle for Option<f32> {
    fn settle(&mut self, sentinels: bool) {
        *self = self.filter(|x| x.is_finite()).or(sentinels.then_some(ABSENT as f32));
    }
}

impl Settle for Option<i32> {
    fn settle(&mut self, sentinels: bool) {
        *self = self.or(sentinels.then_some(ABSENT as i32));
    }
}

impl Settle for Option<i64> {
    fn settle(&mut self, sentinels: bool) {
        *self = self.or(sentinels.then_some(ABSENT as i64));
    }
}

impl Settle for Option<String> {
    fn settle(&mut self, sentinels: bool) {
        if self.is_none() && sentinels {
            *self = Some(ABSENT_TEXT.to_owned());
        }
    }
}

impl Settle for i32 {
    fn settle(&mut self, _: bool) {}
}

impl Settle for i64 {
    fn settle(&mut self, _: bool) {}
}

impl Settle for String {
    fn settle(&mut self, _: bool) {}
}

#[cfg(test)]
mod tests {
    use apache_avro::Schema;

    use super::*;
    use crate::alert::alert_schema;

    /// The fields of a record of the schema, in order.
    fn fields_of(name: &str) -> Vec<String> {
        fn find(schema: &Schema, name: &str) -> Option<Vec<String>> {
            match schema {
                Schema::Record(record) if record.name.name == name => {
                    Some(record.fields.iter().map(|field| field.name.clone()).collect())
                }
                Schema::Record(record) => record.fields.iter().find_map(|field| find(&field.schema, name)),
                Schema::Union(union) => union.variants().iter().find_map(|one| find(one, name)),
                Schema::Array(array) => find(&array.items, name),
                _ => None,
            }
        }
        find(&alert_schema().resolved, name).unwrap()
    }

    /// The fields of a struct in the order in which it is written.
    fn written(record: &impl Serialize) -> Vec<String> {
        let text = serde_json::to_string(record).unwrap();
        text.split('"').skip(1).step_by(2).filter(|word| !word.is_empty()).map(str::to_owned).collect()
    }

    #[test]
    fn records_are_written_in_the_order_of_the_schema() {
        assert_eq!(written(&CandidateRecord::default()), fields_of("candidate"));
        assert_eq!(written(&PriorEpoch::default()), fields_of("prv_candidate"));
        let cutout = CutoutRecord { file_name: String::new(), stamp: Vec::new() };
        assert_eq!(written(&cutout), fields_of("cutout"));
        let alert = AlertRecord {
            schemavsn: "",
            publisher: "",
            object_id: "",
            candid: 0,
            candidate: CandidateRecord::default(),
            prv_candidates: None,
            fp_hists: None,
            science: None,
            template: None,
            difference: None,
        };
        let inner = fields_of("candidate");
        let mut found = written(&alert);
        let first = found.iter().position(|name| *name == inner[0]).unwrap();
        found.drain(first..first + inner.len());
        assert_eq!(found, fields_of("alert"));
    }

    #[test]
    fn what_is_not_a_number_becomes_the_sentinel_or_a_null() {
        let record = CandidateRecord { ra: 10.0, ranr: f64::NAN, sky: Some(f32::NAN), ..CandidateRecord::default() };
        let (mut ztf, mut registry) = (record.clone(), record);
        ztf.settle(true);
        registry.settle(false);
        assert_eq!((ztf.ra, ztf.ranr, ztf.sky, ztf.ssnamenr.as_deref()), (10.0, -999.0, Some(-999.0), Some("null")));
        assert_eq!((registry.ranr, registry.sky, registry.ssnamenr), (-999.0, None, None));
    }
}
