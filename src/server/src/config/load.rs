//! The loader: text and environment in, checked configuration or every error out. No file is read here.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::de::{DeTable, DeValue, ValueDeserializer};
use toml::{Spanned, Table, Value};

use super::Config;
use super::check::{Places, check};
use super::error::{ConfigError, ConfigErrors, Place, nearest};
use super::raw::Raw;
use crate::forward::Template;

/// Start of the names of our environment variables: `FRESHET_RTC_LISTEN` is `listen` in `[rtc]`.
const PREFIX: &str = "FRESHET_";

/// Names that installations of SRS set; the later one wins, and `FRESHET_RTC_CANDIDATES` over both.
const CANDIDATE_ALIASES: [&str; 2] = ["CANDIDATE", "SRS_RTC_SERVER_CANDIDATE"];

/// Past so many syntax errors the rest is noise.
const MAX_SYNTAX_ERRORS: usize = 5;

const SRS_HINT: &str = " (it looks like a file of SRS: conf/freshet.toml shows the keys of Freshet)";

/// A configuration that has passed all checks.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Loaded {
    /// What the program uses.
    pub(crate) config: Config,
    /// The same with all defaults filled in, as a TOML text; tokens and credentials are left out.
    pub(crate) text: String,
}

/// Loads a configuration. `file` names the text in errors; `environment` holds all variables of the process.
///
/// # Errors
/// Everything that is wrong, with its place and a suggestion.
pub(crate) fn load(text: &str, file: &str, environment: &BTreeMap<String, String>) -> Result<Loaded, ConfigErrors> {
    let mut draft = Draft::new();
    draft.read_file(text, file);
    draft.read_environment(environment);
    draft.finish()
}

/// The configuration while it is put together.
struct Draft {
    /// The defaults, as a table: the schema of sections, keys and types.
    schema: Table,
    merged: Table,
    places: Places,
    errors: Vec<ConfigError>,
}

impl Draft {
    fn new() -> Draft {
        let schema = Table::try_from(Raw::default()).expect("the defaults are plain tables, texts and numbers");
        Draft { merged: schema.clone(), schema, places: Places::new(), errors: Vec::new() }
    }

    fn read_file(&mut self, text: &str, file: &str) {
        let place = |at: usize| Place::File { name: file.to_owned(), line: line_of(text, at) };
        let (table, errors) = DeTable::parse_recoverable(text);
        if !errors.is_empty() {
            // One line gives several errors when the parser loses its way.
            let lines: BTreeMap<usize, &str> = errors
                .iter()
                .rev()
                .map(|error| (line_of(text, error.span().map_or(0, |span| span.start)), error.message().trim()))
                .collect();
            let hint = if looks_like_srs(text) { SRS_HINT } else { "" };
            self.errors.extend(lines.into_iter().take(MAX_SYNTAX_ERRORS).map(|(line, said)| {
                let place = Place::File { name: file.to_owned(), line };
                ConfigError::new(place, format!("this is not TOML: {said}{hint}"))
            }));
            return;
        }
        let mut sections: Vec<_> = table.into_inner().into_iter().collect();
        // The parsed table is sorted by name; errors are easier to follow in the order of the file.
        sections.sort_by_key(|(name, _)| name.span().start);
        for (name, section) in sections {
            let at = place(name.span().start);
            let name = name.into_inner();
            if !self.schema.contains_key(name.as_ref()) {
                let message = self.unknown_section(&name);
                self.errors.push(ConfigError::new(at, message));
                continue;
            }
            let DeValue::Table(keys) = section.into_inner() else {
                let message = format!("{name} is a section: write [{name}] on a line of its own and its keys below");
                self.errors.push(ConfigError::new(at, message));
                continue;
            };
            let mut keys: Vec<_> = keys.into_iter().collect();
            keys.sort_by_key(|(key, _)| key.span().start);
            for (key, value) in keys {
                let at = place(key.span().start);
                self.set_from_file(&name, &key.into_inner(), value, at);
            }
        }
    }

    fn set_from_file(&mut self, section: &str, key: &str, value: Spanned<DeValue<'_>>, at: Place) {
        let Some(default) = self.default_of(section, key) else {
            let message = self.unknown_key(section, key);
            self.errors.push(ConfigError::new(at, message));
            return;
        };
        match Value::deserialize(ValueDeserializer::from(value)) {
            Ok(value) if value.same_type(default) => self.set(section, key, value, at),
            Ok(value) => {
                let message = wrong_type(section, key, &value, default);
                self.errors.push(ConfigError::new(at, message));
            }
            Err(error) => self.errors.push(ConfigError::new(at, format!("{section}.{key}: {}", error.message()))),
        }
    }

    fn read_environment(&mut self, environment: &BTreeMap<String, String>) {
        for alias in CANDIDATE_ALIASES {
            // `docker run -e CANDIDATE=` means that nothing is said.
            if let Some(text) = environment.get(alias).filter(|text| !text.trim().is_empty()) {
                self.set_from_environment("rtc", "candidates", text, alias);
            }
        }
        let names: BTreeMap<String, (String, String)> = self
            .keys()
            .map(|(section, key)| (variable_name(section, key), (section.to_owned(), key.to_owned())))
            .collect();
        for (variable, text) in environment.iter().filter(|(name, _)| name.starts_with(PREFIX)) {
            if let Some((section, key)) = names.get(variable) {
                self.set_from_environment(section, key, text, variable);
                continue;
            }
            let known = names.keys().map(|name| &name[PREFIX.len()..]);
            let guess = nearest(&variable[PREFIX.len()..], known)
                .map(|name| format!("did you mean {PREFIX}{name}?"))
                .unwrap_or_else(|| "the names are FRESHET_SECTION_KEY, for example FRESHET_RTC_LISTEN".to_owned());
            let place = Place::Environment(variable.clone());
            self.errors.push(ConfigError::new(place, format!("there is no such setting: {guess}")));
        }
    }

    fn set_from_environment(&mut self, section: &str, key: &str, text: &str, variable: &str) {
        let place = Place::Environment(variable.to_owned());
        let Some(default) = self.default_of(section, key) else { return };
        match value_of_text(text, default) {
            Some(value) => self.set(section, key, value, place),
            None => {
                let wanted = describe(default);
                let message = format!("bad value {text:?} for {section}.{key}: {wanted} is wanted");
                self.errors.push(ConfigError::new(place, message));
            }
        }
    }

    /// Takes a value of the right type, if it also fits the struct (entries of lists have shapes of their own).
    fn set(&mut self, section: &str, key: &str, value: Value, place: Place) {
        let alone =
            Table::from_iter([(section.to_owned(), Value::from(Table::from_iter([(key.to_owned(), value.clone())])))]);
        if let Err(error) = Raw::deserialize(Value::from(alone)) {
            let message = format!("bad value for {section}.{key}: {}", error.message().trim());
            self.errors.push(ConfigError::new(place, message));
            return;
        }
        if let Some(table) = self.merged.get_mut(section).and_then(Value::as_table_mut) {
            table.insert(key.to_owned(), value);
        }
        self.places.insert((section.to_owned(), key.to_owned()), place);
    }

    fn finish(self) -> Result<Loaded, ConfigErrors> {
        let Draft { merged, places, mut errors, .. } = self;
        let raw = match Raw::deserialize(Value::from(merged)) {
            Ok(raw) => raw,
            Err(error) => {
                errors.push(ConfigError::new(Place::Default, error.message().to_owned()));
                return Err(ConfigErrors(errors));
            }
        };
        match check(&raw, &places) {
            Ok(config) if errors.is_empty() => Ok(Loaded { config, text: effective_text(raw) }),
            Ok(_) => Err(ConfigErrors(errors)),
            Err(more) => {
                errors.extend(more);
                // A stable sort: environment after file, and file by line.
                errors.sort_by_key(|error| match &error.place {
                    Place::File { line, .. } => *line,
                    Place::Environment(_) | Place::Default => usize::MAX,
                });
                Err(ConfigErrors(errors))
            }
        }
    }

    fn default_of(&self, section: &str, key: &str) -> Option<&Value> {
        self.schema.get(section)?.as_table()?.get(key)
    }

    fn keys(&self) -> impl Iterator<Item = (&str, &str)> {
        let sections = self.schema.iter().filter_map(|(name, keys)| Some((name.as_str(), keys.as_table()?)));
        sections.flat_map(|(name, keys)| keys.keys().map(move |key| (name, key.as_str())))
    }

    fn unknown_section(&self, name: &str) -> String {
        if let Some(guess) = nearest(name, self.schema.keys().map(String::as_str)) {
            return format!("unknown section [{name}]: did you mean [{guess}]?");
        }
        let homes: Vec<_> =
            self.keys().filter(|(_, key)| *key == name).map(|(section, _)| format!("[{section}]")).collect();
        if !homes.is_empty() {
            return format!("key `{name}` stands outside a section: it belongs under {}", homes.join(" or "));
        }
        let all: Vec<_> = self.schema.keys().map(String::as_str).collect();
        format!("unknown section [{name}]: there are {}", all.join(", "))
    }

    fn unknown_key(&self, section: &str, key: &str) -> String {
        let siblings = || self.keys().filter(|(s, _)| *s == section).map(|(_, key)| key);
        if let Some(guess) = nearest(key, siblings()) {
            return format!("unknown key `{key}` in [{section}]: did you mean `{guess}`?");
        }
        let homes: Vec<_> = self.keys().filter(|(_, k)| *k == key).map(|(section, _)| format!("[{section}]")).collect();
        if !homes.is_empty() {
            return format!("unknown key `{key}` in [{section}]: it belongs under {}", homes.join(" or "));
        }
        let all: Vec<_> = siblings().collect();
        format!("unknown key `{key}` in [{section}]: there are {}", all.join(", "))
    }
}

fn variable_name(section: &str, key: &str) -> String {
    format!("{PREFIX}{}_{}", section.to_uppercase(), key.to_uppercase())
}

/// Reads the text of a variable as the type that the default has.
fn value_of_text(text: &str, default: &Value) -> Option<Value> {
    let text = text.trim();
    match default {
        Value::String(_) => Some(Value::from(text)),
        Value::Integer(_) => text.parse::<i64>().ok().map(Value::from),
        Value::Boolean(_) => match text.to_ascii_lowercase().as_str() {
            "true" | "on" | "yes" | "1" => Some(Value::from(true)),
            "false" | "off" | "no" | "0" => Some(Value::from(false)),
            _ => None,
        },
        // SRS separates with spaces, everybody else with commas; no entry of ours holds either.
        Value::Array(_) => {
            let entries = text.split(|c: char| c == ',' || c.is_whitespace()).filter(|entry| !entry.is_empty());
            Some(Value::Array(entries.map(Value::from).collect()))
        }
        Value::Float(_) => text.parse::<f64>().ok().filter(|number| number.is_finite()).map(Value::from),
        Value::Datetime(_) | Value::Table(_) => None,
    }
}

fn describe(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "a text in quotes",
        Value::Integer(_) => "a whole number",
        Value::Float(_) => "a number with a fraction",
        Value::Boolean(_) => "true or false",
        Value::Datetime(_) => "a date",
        Value::Array(_) => "a list in brackets",
        Value::Table(_) => "a table",
    }
}

fn wrong_type(section: &str, key: &str, typed: &Value, default: &Value) -> String {
    let example = match (typed, default) {
        (Value::String(text), Value::Array(_)) => format!(", for example {key} = [{text:?}]"),
        _ => format!(", for example {key} = {default}"),
    };
    format!("bad value for {section}.{key}: {} is wanted, this is {}{example}", describe(default), describe(typed))
}

/// Directives that end with a semicolon, sections in braces.
fn looks_like_srs(text: &str) -> bool {
    let mut lines = text.lines().map(|line| line.split('#').next().unwrap_or("").trim_end());
    lines.clone().any(|line| line.ends_with('{')) || lines.any(|line| line.ends_with(';'))
}

fn line_of(text: &str, at: usize) -> usize {
    1 + text.bytes().take(at).filter(|b| *b == b'\n').count()
}

fn effective_text(mut raw: Raw) -> String {
    for token in raw.publish.tokens.iter_mut().chain(&mut raw.play.tokens) {
        *token = "(hidden)".to_owned();
    }
    for url in raw.hooks.on_record.iter_mut().chain(&mut raw.hooks.on_dvr) {
        if let Some((address, _)) = url.split_once('?') {
            *url = format!("{address}?(hidden)");
        }
    }
    for server in &mut raw.rtc.ice_servers {
        if let super::raw::RawIceServer::Full(full) = server
            && !full.credential.is_empty()
        {
            full.credential = "(hidden)".to_owned();
        }
    }
    for address in raw.forward.rules.iter_mut().flat_map(|rule| &mut rule.to) {
        *address = Template::parse(address).map_or_else(|_| "(hidden)".to_owned(), |template| template.shown());
    }
    toml::to_string(&raw).unwrap_or_default()
}

#[cfg(test)]
#[path = "load_tests.rs"]
mod tests;
