//! What `driftless.toml` may hold, as data for `nix/config-schema.json`, from which the NixOS module makes its options. Found out
//! by asking the parser itself, key by key, what it expects; descriptions are those of `deploy/driftless.example.toml`. Only
//! compiled for the test that keeps the file equal.

use std::fmt::{self, Display};

use serde::de::{self, Deserialize, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value, json};

use super::Config;

const EXAMPLE: &str = include_str!("../../deploy/driftless.example.toml");

/// What the parser expects in one place.
#[derive(Debug, Clone, PartialEq)]
enum Kind {
    Struct(&'static [&'static str]),
    Enum(&'static [&'static str]),
    List,
    Map,
    Bool,
    Integer,
    Number,
    /// With what it says it should be.
    Text(String),
    /// Several, in its words.
    Any(String),
}

/// Why the parser stops: always before it has a value.
#[derive(Debug)]
enum Stopped {
    /// Here is what was asked for.
    Found(Kind),
    /// This key has to be there.
    Missing(&'static str),
    Other(String),
}

impl Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Found(kind) => write!(f, "{kind:?}"),
            Self::Missing(key) => write!(f, "{key} is missing"),
            Self::Other(said) => f.write_str(said),
        }
    }
}

impl std::error::Error for Stopped {}

impl de::Error for Stopped {
    fn custom<T: Display>(message: T) -> Self {
        Self::Other(message.to_string())
    }

    fn missing_field(field: &'static str) -> Self {
        Self::Missing(field)
    }
}

/// Leads the parser along a path of keys (a star is any element), and hears there what it expects.
#[derive(Clone, Copy)]
struct Probe<'a>(&'a [&'a str]);

struct Expected<'a, V>(&'a V);

impl<'de, V: Visitor<'de>> Display for Expected<'_, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.expecting(f)
    }
}

macro_rules! leaves {
    ($($method:ident => $kind:expr),* $(,)?) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stopped> {
            let kind: fn(String) -> Kind = $kind;
            Err(Stopped::Found(kind(Expected(&visitor).to_string())))
        })*
    };
}

impl<'de> Deserializer<'de> for Probe<'_> {
    type Error = Stopped;

    leaves! {
        deserialize_any => Kind::Any,
        deserialize_bool => |_| Kind::Bool,
        deserialize_i8 => |_| Kind::Integer, deserialize_i16 => |_| Kind::Integer,
        deserialize_i32 => |_| Kind::Integer, deserialize_i64 => |_| Kind::Integer,
        deserialize_u8 => |_| Kind::Integer, deserialize_u16 => |_| Kind::Integer,
        deserialize_u32 => |_| Kind::Integer, deserialize_u64 => |_| Kind::Integer,
        deserialize_f32 => |_| Kind::Number, deserialize_f64 => |_| Kind::Number,
        deserialize_char => Kind::Text, deserialize_str => Kind::Text, deserialize_string => Kind::Text,
        deserialize_bytes => Kind::Any, deserialize_byte_buf => Kind::Any, deserialize_unit => Kind::Any,
        deserialize_identifier => Kind::Any, deserialize_ignored_any => Kind::Any,
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stopped> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Stopped> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, name: &'static str, _: V) -> Result<V::Value, Stopped> {
        Err(Stopped::Found(Kind::Any(name.into())))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Stopped> {
        Err(Stopped::Found(Kind::Enum(variants)))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Stopped> {
        match self.0 {
            [] => Err(Stopped::Found(Kind::Struct(fields))),
            [key, ..] => visitor.visit_map(One(Some(key), Probe(&self.0[1..]))),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stopped> {
        match self.0 {
            [] => Err(Stopped::Found(Kind::Map)),
            [key, ..] => visitor.visit_map(One(Some(key), Probe(&self.0[1..]))),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stopped> {
        match self.0 {
            [] => Err(Stopped::Found(Kind::List)),
            [key, ..] => visitor.visit_seq(One(Some(key), Probe(&self.0[1..]))),
        }
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Stopped> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, Stopped> {
        self.deserialize_seq(visitor)
    }
}

/// A table of one key, or a list of one element; none where the key is `-`.
struct One<'a>(Option<&'a str>, Probe<'a>);

/// No key: what has to be there is missing.
const NOTHING: &str = "-";

impl<'de> MapAccess<'de> for One<'_> {
    type Error = Stopped;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Stopped> {
        match self.0.take() {
            None | Some(NOTHING) => Ok(None),
            Some(key) => seed.deserialize(de::value::StrDeserializer::new(key)).map(Some),
        }
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Stopped> {
        seed.deserialize(self.1)
    }
}

impl<'de> SeqAccess<'de> for One<'_> {
    type Error = Stopped;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Stopped> {
        match self.0.take() {
            None => Ok(None),
            Some(_) => seed.deserialize(self.1).map(Some),
        }
    }
}

/// What is expected at a path.
fn kind_at(path: &[&str]) -> Kind {
    match Config::deserialize(Probe(path)) {
        Err(Stopped::Found(kind)) => kind,
        Err(other) => panic!("what {path:?} may be cannot be found out: {other}"),
        Ok(_) => panic!("{path:?} has a value that nobody gave"),
    }
}

/// Whether a table without this key is refused.
fn is_required(table: &[&str], key: &str) -> bool {
    let nothing = [table, &[NOTHING]].concat();
    matches!(Config::deserialize(Probe(&nothing)), Err(Stopped::Missing(missing)) if missing == key)
}

/// The type of the value at a path.
fn described(path: &[&str]) -> Map<String, Value> {
    let element = || Value::Object(described(&[path, &["*"]].concat()));
    let value = match kind_at(path) {
        Kind::Struct(fields) => json!({ "type": "table", "keys": keys(path, fields) }),
        Kind::Enum(values) => json!({ "type": "enum", "values": values }),
        Kind::List => json!({ "type": "list", "of": element() }),
        Kind::Map => json!({ "type": "map", "of": element() }),
        Kind::Bool => json!({ "type": "bool" }),
        Kind::Integer => json!({ "type": "integer" }),
        Kind::Number => json!({ "type": "number" }),
        Kind::Text(said) if said.starts_with("a duration") => json!({ "type": "duration" }),
        Kind::Text(said) if said.starts_with("an address") => json!({ "type": "address" }),
        Kind::Text(said) if said == "path string" => json!({ "type": "path" }),
        Kind::Text(_) => json!({ "type": "string" }),
        Kind::Any(said) => json!({ "type": "any", "expected": said }),
    };
    let Value::Object(map) = value else { panic!("no table: {value}") };
    map
}

fn keys(table: &[&str], fields: &[&str]) -> Value {
    let of = |key: &&str| {
        let path = [table, &[*key]].concat();
        let mut entry = described(&path);
        if is_required(table, key) {
            entry.insert("required".into(), true.into());
        }
        let (description, shown) = documented(&path);
        entry.insert("description".into(), description.into());
        if let Some(shown) = shown {
            entry.insert("shown".into(), shown.into());
        }
        (key.to_string(), Value::Object(entry))
    };
    Value::Object(fields.iter().map(of).collect())
}

/// The comment above a key in the example, and the value that stands there.
fn documented(path: &[&str]) -> (String, Option<String>) {
    let (mut section, mut comment) = (String::new(), Vec::new());
    let wanted = path.join(".");
    for line in EXAMPLE.lines() {
        let bare = line.strip_prefix('#').unwrap_or(line);
        let key = bare
            .split_once(" = ")
            .filter(|(key, _)| key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'));
        match (bare.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')), key) {
            (Some(name), _) => {
                section = name.to_owned();
                if section == wanted {
                    return (comment.join(" "), None);
                }
            }
            (None, Some((key, value))) if format!("{section}.{key}") == wanted => {
                return (comment.join(" "), Some(value.to_owned()));
            }
            (None, Some(_)) => {}
            (None, None) if line.starts_with("# ") && !line.starts_with("# ---") => {
                comment.push(line[2..].to_owned());
                continue;
            }
            // Several keys may share the comment above them.
            (None, None) => {}
        }
        if key.is_none() {
            comment.clear();
        }
    }
    (String::new(), None)
}

/// The whole document.
fn schema() -> String {
    let Kind::Struct(sections) = kind_at(&[]) else { panic!("the configuration is a table") };
    let text = serde_json::to_string_pretty(&keys(&[], sections)).expect("JSON of strings");
    text + "\n"
}

#[test]
fn the_schema_of_the_nixos_module_is_that_of_the_parser() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/nix/config-schema.json");
    let now = schema();
    if std::env::var_os("UPDATE_SCHEMA").is_some() {
        std::fs::write(path, &now).expect("the file can be written");
    }
    let written = std::fs::read_to_string(path).unwrap_or_default();
    let first = now.lines().zip(written.lines().chain(std::iter::repeat(""))).find(|(new, old)| new != old);
    assert!(
        now == written,
        "nix/config-schema.json is not what the parser expects, first in {first:?}; run UPDATE_SCHEMA=1 cargo test --lib schema"
    );
}

#[test]
fn every_key_of_the_schema_is_described() {
    let schema: Value = serde_json::from_str(&schema()).expect("it is JSON");
    for (section, table) in schema.as_object().expect("a table of tables") {
        for (key, entry) in table["keys"].as_object().expect("a table") {
            assert_ne!(entry["description"], "", "{section}.{key} is not in the example");
        }
    }
}
