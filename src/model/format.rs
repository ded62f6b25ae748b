//! The formats that a deployment may be written in. Which one a deployment has is found out by `nix/manifest.nix`; a person
//! may name another, where a repository has several.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::ParseError;

/// A format, by the name that `nix/manifest.nix` knows it by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Format {
    /// Our own.
    Driftless,
    /// What the original nixus returns.
    Nixus,
    /// A flake's `colmenaHive`.
    ColmenaHive,
    /// A Colmena hive: a file, or a flake's `colmena`.
    Colmena,
    /// A morph network.
    Morph,
    /// A NixOps network.
    Nixops,
    /// A flake's `deploy.nodes`.
    DeployRs,
    /// A flake's `nixosConfigurations`.
    Flake,
}

impl Format {
    /// All of them, in the order in which they are tried.
    pub const ALL: [Self; 8] = [
        Self::Driftless,
        Self::Nixus,
        Self::ColmenaHive,
        Self::Colmena,
        Self::Morph,
        Self::Nixops,
        Self::DeployRs,
        Self::Flake,
    ];

    /// The name in files, on the command line and in the manifest.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Driftless => "driftless",
            Self::Nixus => "nixus",
            Self::ColmenaHive => "colmena-hive",
            Self::Colmena => "colmena",
            Self::Morph => "morph",
            Self::Nixops => "nixops",
            Self::DeployRs => "deploy-rs",
            Self::Flake => "flake",
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Format {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|format| format.as_str() == text).ok_or_else(|| ParseError {
            what: "deployment format",
            input: text.to_owned(),
            expected: "driftless, nixus, colmena-hive, colmena, morph, nixops, deploy-rs or flake",
        })
    }
}

impl TryFrom<String> for Format {
    type Error = ParseError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Format> for String {
    fn from(format: Format) -> Self {
        format.as_str().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_format_is_parsed_and_named_where_one_is_not_known() {
        let error = "hive".parse::<Format>().unwrap_err().to_string();
        for format in Format::ALL {
            assert_eq!(format.as_str().parse(), Ok(format));
            assert!(error.contains(format.as_str()), "{error}");
        }
    }
}
