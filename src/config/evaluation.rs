//! How deployments are evaluated: `[eval]` of driftless.toml. Only what is said there; `nix/share.rs` makes shares of it.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Deserializer};

use super::Text;

/// How deployments are evaluated.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EvalConfig {
    /// Evaluations at a time; default: the number of processors.
    #[serde(deserialize_with = "count")]
    pub workers: usize,
    /// Memory for all evaluations together; default: three quarters of what is available when they begin.
    #[serde(deserialize_with = "memory")]
    pub memory: Option<Bytes>,
    /// Most nodes per evaluation; default: chosen by what the nodes needed before.
    #[serde(deserialize_with = "counted")]
    pub chunk: Option<usize>,
    /// Longest time for one evaluation.
    #[serde(deserialize_with = "super::duration")]
    pub timeout: Duration,
    /// Whether the nodes that a commit touches are evaluated first.
    pub affected_first: bool,
}

impl Default for EvalConfig {
    fn default() -> Self {
        Self {
            workers: std::thread::available_parallelism().map_or(1, usize::from),
            memory: None,
            chunk: None,
            timeout: Duration::from_secs(15 * 60),
            affected_first: true,
        }
    }
}

/// An amount of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes(pub u64);

/// Units, the largest first, as they are written.
const UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

/// Not even a deployment without nodes evaluates with less.
const LEAST_MEMORY: u64 = 128 << 20;

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exact = UNITS.iter().find(|(_, size)| self.0 >= *size && self.0.is_multiple_of(*size));
        match exact {
            Some((unit, size)) => write!(f, "{} {unit}", self.0 / size),
            None => write!(f, "{} MiB", self.0 >> 20),
        }
    }
}

impl Bytes {
    /// Reads "8GiB" or "512 MiB".
    fn parse(text: &str) -> Option<Self> {
        let (number, size) =
            UNITS.iter().find_map(|(unit, size)| text.strip_suffix(unit).map(|number| (number, *size)))?;
        number.trim_end().parse::<u64>().ok()?.checked_mul(size).map(Self)
    }
}

fn memory<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Bytes>, D::Error> {
    const EXAMPLE: &str = "write for example \"8GiB\" or \"1536MiB\"";
    let text = from.deserialize_str(Text("an amount of memory such as \"8GiB\" or \"1536MiB\""))?;
    let refused = |why: &str| serde::de::Error::custom(format!("bad amount {text:?}{why}; {EXAMPLE}"));
    let bytes = Bytes::parse(&text).ok_or_else(|| refused(""))?;
    if bytes.0 < LEAST_MEMORY {
        return Err(refused(&format!(": no deployment evaluates with less than {}", Bytes(LEAST_MEMORY))));
    }
    Ok(Some(bytes))
}

fn counted<'de, D: Deserializer<'de>>(from: D) -> Result<Option<usize>, D::Error> {
    count(from).map(Some)
}

fn count<'de, D: Deserializer<'de>>(from: D) -> Result<usize, D::Error> {
    std::num::NonZeroUsize::deserialize(from).map(usize::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<EvalConfig, String> {
        toml::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn an_amount_of_memory_has_a_unit() {
        for (text, bytes) in [("8GiB", 8 << 30), ("1536 MiB", 1536 << 20), ("262144KiB", 256 << 20)] {
            let config = parse(&format!("memory = \"{text}\"")).unwrap();
            assert_eq!(config.memory, Some(Bytes(bytes)));
        }
        for bad in ["8", "8GB", "much", "-1GiB", "1.5GiB", "99999999999GiB"] {
            let error = parse(&format!("memory = \"{bad}\"")).unwrap_err();
            assert!(error.contains(&format!("bad amount {bad:?}")) && error.contains("\"8GiB\""), "{error}");
        }
        let error = parse("memory = 8").unwrap_err();
        assert!(error.contains("expected an amount of memory such as \"8GiB\""), "{error}");
        let error = parse("memory = \"16MiB\"").unwrap_err();
        assert!(error.contains("less than 128 MiB"), "{error}");
    }

    #[test]
    fn no_workers_are_refused() {
        for key in ["workers", "chunk"] {
            let error = parse(&format!("{key} = 0")).unwrap_err();
            assert!(error.contains("line 1") && error.contains("nonzero"), "{error}");
        }
    }

    #[test]
    fn amounts_are_shown_in_the_largest_unit_that_fits() {
        assert_eq!(Bytes(8 << 30).to_string(), "8 GiB");
        assert_eq!(Bytes(1536 << 20).to_string(), "1536 MiB");
        assert_eq!(Bytes((300 << 20) + 5).to_string(), "300 MiB");
    }
}
