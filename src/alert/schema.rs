//! The schema of the packets: `schema/*.avsc`, one record a file, joined into one document.
//!
//! Names, order, types, unions and defaults are those of the ZTF packet 4.02, because every
//! community broker reads those; the documentation of each field says how Nightjar fills it. The
//! files refer to one another by full name (`ztf.alert.candidate`). A reader of an object container
//! file wants them in one document, so the first reference to a record is replaced by the record
//! itself, and later ones (`cutoutTemplate`, `cutoutDifference`) stay names, as the Avro
//! specification (1.12, "Names") asks.

use std::sync::LazyLock;

use apache_avro::Schema;
use serde_json::Value;

/// Version that the packets carry in `schemavsn`.
pub const VERSION: &str = "4.02";

const ALERT: &str = include_str!("schema/alert.avsc");
const PARTS: [(&str, &str); 4] = [
    ("ztf.alert.candidate", include_str!("schema/candidate.avsc")),
    ("ztf.alert.prv_candidate", include_str!("schema/prv_candidate.avsc")),
    ("ztf.alert.fp_hist", include_str!("schema/fp_hist.avsc")),
    ("ztf.alert.cutout", include_str!("schema/cutout.avsc")),
];

/// The schema as JSON and as the tree by which a record is written.
#[derive(Debug)]
pub struct AlertSchema {
    /// One document with every record in it, as packets and registries carry it.
    pub json: String,
    /// The same with every name replaced by what it stands for: the serializer of the Avro crate
    /// looks up no names.
    pub resolved: Schema,
}

static SCHEMA: LazyLock<AlertSchema> = LazyLock::new(|| {
    #[expect(clippy::expect_used, reason = "the schema files are part of the program and read by every test")]
    load().expect("the schema files that are compiled in form one Avro schema")
});

/// The schema of alert packets.
pub fn alert_schema() -> &'static AlertSchema {
    &SCHEMA
}

#[derive(Debug, thiserror::Error)]
enum SchemaError {
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    #[error(transparent)]
    Avro(#[from] Box<apache_avro::Error>),
}

fn load() -> Result<AlertSchema, SchemaError> {
    let parts: Vec<(&str, Value)> = PARTS
        .iter()
        .map(|(name, text)| Ok((*name, serde_json::from_str(text)?)))
        .collect::<Result<_, SchemaError>>()?;
    let document = joined(serde_json::from_str(ALERT)?, &parts, &mut Vec::new());
    let schema = Schema::parse(&document).map_err(Box::new)?;
    let resolved = resolved(schema, &mut Vec::new())?;
    Ok(AlertSchema { json: document.to_string(), resolved })
}

/// `node` with the first reference to each of `parts` replaced by the part.
fn joined(node: Value, parts: &[(&str, Value)], seen: &mut Vec<String>) -> Value {
    match node {
        Value::String(name) if !seen.contains(&name) => match parts.iter().find(|(full, _)| *full == name) {
            Some((_, part)) => {
                seen.push(name);
                joined(part.clone(), parts, seen)
            }
            None => Value::String(name),
        },
        Value::Array(items) => items.into_iter().map(|item| joined(item, parts, seen)).collect(),
        // Only types are references; a field called "candidate" is not.
        Value::Object(mut map) => {
            for key in ["type", "items", "fields"] {
                if let Some(child) = map.remove(key) {
                    map.insert(key.to_owned(), joined(child, parts, seen));
                }
            }
            Value::Object(map)
        }
        other => other,
    }
}

/// `schema` with every reference replaced by the record that came before under that name.
fn resolved(schema: Schema, records: &mut Vec<Schema>) -> Result<Schema, Box<apache_avro::Error>> {
    Ok(match schema {
        Schema::Record(mut record) => {
            for field in &mut record.fields {
                field.schema = resolved(std::mem::replace(&mut field.schema, Schema::Null), records)?;
            }
            records.push(Schema::Record(record.clone()));
            Schema::Record(record)
        }
        Schema::Union(union) => {
            let variants =
                union.variants().iter().map(|one| resolved(one.clone(), records)).collect::<Result<Vec<_>, _>>()?;
            Schema::Union(apache_avro::schema::UnionSchema::new(variants)?)
        }
        Schema::Array(array) => Schema::array(resolved(*array.items, records)?),
        Schema::Ref { name } => {
            records.iter().find(|record| record.name() == Some(&name)).cloned().unwrap_or(Schema::Ref { name })
        }
        other => other,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_defines_every_record_once_and_names_it_afterwards() {
        let json = &alert_schema().json;
        for name in ["candidate", "prv_candidate", "fp_hist", "cutout"] {
            assert_eq!(json.matches(&format!("\"name\":\"{name}\",\"namespace\"")).count(), 1, "{name}");
        }
        assert_eq!(json.matches("\"ztf.alert.cutout\"").count(), 2);
    }

    #[test]
    fn no_name_is_left_in_what_the_serializer_walks() {
        let text = format!("{:?}", alert_schema().resolved);
        assert!(!text.contains("Ref {"), "{text}");
    }
}
