//! Where a fleet is declared, as far as a person says it or a directory shows it. Evaluates nothing.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::model::format::Format;
use crate::nix::Trace;

/// Where a fleet is declared when no controller is asked.
#[derive(Debug, Clone, Default, clap::Args)]
#[group(skip)]
pub struct Declared {
    /// Use this deployment file instead of a running controller
    #[arg(long, value_name = "FILE", group = "declared")]
    pub file: Option<PathBuf>,
    /// Use this flake instead of a running controller
    #[arg(long, value_name = "URL", group = "declared")]
    pub flake: Option<String>,
    /// Use this release, as a deployment's ./result carries it
    #[arg(long, value_name = "FILE", group = "declared")]
    pub release: Option<PathBuf>,
    /// Read the deployment in this format, where it has several
    #[arg(long = "as", value_name = "FORMAT", conflicts_with = "release")]
    pub read_as: Option<Format>,
    /// Evaluate here, and show all of Nix's trace where that fails
    #[arg(long, conflicts_with = "release")]
    pub show_trace: bool,
}

/// How a deployment is evaluated.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct How {
    /// The format that it is read in; `None`: whatever it is recognised as.
    pub format: Option<Format>,
    /// What an error tells.
    pub trace: Trace,
}

/// Where a fleet is declared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A deployment file.
    File {
        /// The file.
        path: PathBuf,
        /// How it is evaluated.
        how: How,
    },
    /// A flake.
    Flake {
        /// A URL or a directory.
        url: String,
        /// How it is evaluated.
        how: How,
    },
    /// A manifest of systems that are built.
    Release(PathBuf),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, .. } | Self::Release(path) => path.display().fmt(f),
            Self::Flake { url, .. } => f.write_str(url),
        }
    }
}

impl Declared {
    /// What was named on the command line. Whoever names a format, or wants a trace, means what is here.
    pub fn named(&self) -> Option<Origin> {
        let how = self.how();
        let file = self.file.clone().map(|path| Origin::File { path, how });
        let flake = || self.flake.clone().map(|url| Origin::Flake { url, how });
        let release = || self.release.clone().map(Origin::Release);
        let here = || if how == How::default() { None } else { here(Path::new("."), how) };
        file.or_else(flake).or_else(release).or_else(here)
    }

    /// What was named, else what the current directory declares.
    pub fn named_or_here(&self) -> Option<Origin> {
        self.named().or_else(|| here(Path::new("."), self.how()))
    }

    fn how(&self) -> How {
        How { format: self.read_as, trace: Trace::shown(self.show_trace) }
    }
}

/// The files that a directory's deployment is looked for in, the first one first. A repository with a deployment.nix was
/// deployed by that; one with a hive and a flake by the flake, as Colmena does it.
pub const FILES: [&str; 5] = ["deployment.nix", "flake.nix", "hive.nix", "network.nix", "nixops.nix"];

/// What a directory declares.
pub fn here(directory: &Path, how: How) -> Option<Origin> {
    let name = FILES.into_iter().find(|name| directory.join(name).is_file())?;
    Some(if name == "flake.nix" {
        Origin::Flake { url: directory.display().to_string(), how }
    } else {
        Origin::File { path: directory.join(name), how }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flake_comes_before_a_hive_and_a_deployment_file_before_both() {
        let folder = tempfile::tempdir().unwrap();
        let how = How::default();
        assert_eq!(here(folder.path(), how), None);
        for (name, is_flake) in
            [("nixops.nix", false), ("hive.nix", false), ("flake.nix", true), ("deployment.nix", false)]
        {
            std::fs::write(folder.path().join(name), "{ }").unwrap();
            let expected = if is_flake {
                Origin::Flake { url: folder.path().display().to_string(), how }
            } else {
                Origin::File { path: folder.path().join(name), how }
            };
            assert_eq!(here(folder.path(), how), Some(expected));
        }
    }
}
