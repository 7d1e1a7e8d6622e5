//! From a file and the environment to [`Settings`], with every fault and not only the first.
//!
//! The tree of the defaults is the list of the keys that exist. Each given key is put into that
//! tree alone and the whole is read as [`Settings`]: when that fails, the fault is this key's.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;

use config::{Config, Environment, FileFormat, Format, Source, ValueKind};
use serde_json::Value;

use super::{Settings, rules};

/// One setting that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The key, `section.key`; empty when the file as a whole cannot be read.
    pub key: String,
    /// The value as it was given.
    pub value: String,
    /// The file or "the environment"; empty for a default.
    pub origin: String,
    /// What is allowed.
    pub allowed: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let origin = if self.origin.is_empty() { String::new() } else { format!(" in {}", self.origin) };
        match (self.key.is_empty(), self.value.is_empty()) {
            (true, _) => write!(f, "settings{origin}: {}", self.allowed),
            (_, true) => write!(f, "setting {}{origin}: {}", self.key, self.allowed),
            _ => write!(f, "setting {} = {}{origin}: {}", self.key, self.value, self.allowed),
        }
    }
}

/// Every fault of the settings, one line each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingsError {
    /// The faults, by key.
    pub faults: Vec<Fault>,
}

impl std::error::Error for SettingsError {}

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.faults.iter().map(ToString::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

/// The origin of what the environment gave.
const ENVIRONMENT: &str = "the environment";

/// Reads the file and the environment, or `variables` in its place, over the `defaults`.
pub(super) fn read(
    file: Option<&Path>,
    variables: Option<HashMap<String, String>>,
    defaults: Settings,
) -> Result<Settings, SettingsError> {
    let sections = collect(file, variables).map_err(|fault| SettingsError { faults: vec![fault] })?;
    let mut tree = serde_json::to_value(defaults).unwrap_or_default();
    let mut faults = Vec::new();
    let mut origins = HashMap::new();
    for (section, content) in sections {
        let origin = content.origin().unwrap_or_default().to_owned();
        let fault = |allowed: String| Fault { key: section.clone(), value: String::new(), origin, allowed };
        if tree.get(&section).is_none() {
            faults.push(fault(format!("there is no such section; the sections are {}", keys_of(&tree))));
            continue;
        }
        let ValueKind::Table(keys) = content.kind else {
            faults.push(fault(format!("is a section: write [{section}] and its keys on the lines below")));
            continue;
        };
        for (key, value) in keys {
            let path = format!("{section}.{key}");
            origins.insert(path, value.origin().unwrap_or_default().to_owned());
            if let Err(fault) = place(&mut tree, &section, &key, value) {
                faults.push(fault);
            }
        }
    }
    let settings: Settings = serde_json::from_value(tree.clone()).unwrap_or_default();
    for rule in rules::broken(&settings) {
        let origin = origins.get(rule.key).cloned().unwrap_or_default();
        let allowed = format!("must be {}", rule.allowed);
        faults.push(Fault { key: rule.key.into(), value: show(&tree, rule.key), origin, allowed });
    }
    faults.sort_by(|a, b| a.key.cmp(&b.key));
    if faults.is_empty() { Ok(settings) } else { Err(SettingsError { faults }) }
}

/// The sections as they were given, the environment over the file.
fn collect(
    file: Option<&Path>,
    variables: Option<HashMap<String, String>>,
) -> Result<HashMap<String, config::Value>, Fault> {
    let unreadable = |allowed: String| Fault {
        key: String::new(),
        value: String::new(),
        origin: file.map(|f| f.display().to_string()).unwrap_or_default(),
        allowed,
    };
    let mut builder = Config::builder();
    if let Some(file) = file {
        let text = std::fs::read_to_string(file)
            .map_err(|e| unreadable(format!("cannot be read ({e}); check the path given with --config")))?;
        builder = builder.add_source(Named { name: file.display().to_string(), text });
    }
    let environment = Environment::with_prefix("NIGHTJAR").separator("__").source(variables);
    let read = builder.add_source(environment).build().and_then(|config| config.collect());
    read.map(|sections| sections.into_iter().collect())
        .map_err(|e| unreadable(format!("not valid TOML; correct it and start again: {}", one_line(&e.to_string()))))
}

/// The text of a settings file under its own name, absolute paths kept as they were given.
#[derive(Debug, Clone)]
struct Named {
    name: String,
    text: String,
}

impl Source for Named {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<config::Map<String, config::Value>, config::ConfigError> {
        FileFormat::Toml
            .parse(Some(&self.name), &self.text)
            .map_err(|cause| config::ConfigError::FileParse { uri: Some(self.name.clone()), cause })
    }
}

/// Puts one value into the tree of settings, or says why it cannot stand there.
fn place(tree: &mut Value, section: &str, key: &str, given: config::Value) -> Result<(), Fault> {
    let path = format!("{section}.{key}");
    let origin = given.origin().unwrap_or_default().to_owned();
    let plain: Value = given.try_deserialize().unwrap_or_default();
    let shown = plain.to_string();
    let keys = &tree[section];
    if section != "filters" && keys.get(key).is_none() {
        let allowed = format!("there is no such key; [{section}] has {}", keys_of(keys));
        return Err(Fault { key: path, value: String::new(), origin, allowed });
    }
    let before = tree[section][key].clone();
    for candidate in readings(plain, origin == ENVIRONMENT) {
        tree[section][key] = candidate;
        if serde_json::from_value::<Settings>(tree.clone()).is_ok() {
            return Ok(());
        }
    }
    match before {
        Value::Null if section == "filters" => _ = tree[section].as_object_mut().map(|keys| keys.remove(key)),
        before => tree[section][key] = before,
    }
    let allowed = format!("must be {}", rules::allowed(section, key));
    Err(Fault { key: path, value: shown, origin, allowed })
}

/// What a value may mean. A variable of the environment is a text that stands for a number, a truth
/// value, a text, or a list separated by commas, whichever the key holds.
fn readings(given: Value, from_environment: bool) -> Vec<Value> {
    match given {
        Value::String(text) if from_environment => {
            let list = text.split(',').map(|item| Value::String(item.trim().to_owned())).collect();
            let scalar = serde_json::from_str(&text).unwrap_or(Value::Null);
            let list = if text.is_empty() { Value::Array(Vec::new()) } else { Value::Array(list) };
            [scalar, Value::String(text), list].into_iter().filter(|v| !v.is_null()).collect()
        }
        other => vec![other],
    }
}

fn keys_of(object: &Value) -> String {
    let keys: Vec<&str> = object.as_object().into_iter().flatten().map(|(key, _)| key.as_str()).collect();
    keys.join(", ")
}

fn show(tree: &Value, path: &str) -> String {
    let (section, key) = path.split_once('.').unwrap_or((path, ""));
    let value = if key.is_empty() { &tree[section] } else { &tree[section][key] };
    if value.is_null() { String::new() } else { value.to_string() }
}

fn one_line(text: &str) -> String {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ")
}
