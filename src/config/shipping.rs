//! The part of `[nix]` that is about machines beside this one: builders, the binary cache, the signing key. Text that Nix
//! would only refuse in the middle of a release is refused here; nothing is connected to and no key is read.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Deserializer};

/// Machines that build for this one, as Nix's setting `builders` takes them (nix.conf(5)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Builders(String);

/// What `builders` may be written as.
#[derive(Deserialize)]
#[serde(untagged, expecting = "expected text, or a list with a line for each machine")]
enum Written {
    Text(String),
    Lines(Vec<String>),
}

/// Fields of a line: URI, systems, key, jobs, speed, features, mandatory features, host key.
const MOST_FIELDS: usize = 8;
const LINE: &str = "write for example \"ssh-ng://builder.example.org x86_64-linux /root/.ssh/id_ed25519 8\", or \"@/etc/nix/machines\"";

impl Builders {
    /// The setting's value.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn read(written: &Written) -> Result<Self, String> {
        let text = match written {
            Written::Text(text) => text.clone(),
            Written::Lines(lines) => lines.join("\n"),
        };
        let lines: Vec<&str> =
            text.split(['\n', ';']).map(str::trim).filter(|line| !line.is_empty()).collect();
        if lines.is_empty() {
            return Err(format!("nix.builders names no machine; {LINE}, or leave it out"));
        }
        for line in &lines {
            machine(line).map_err(|why| format!("bad line {line:?} in nix.builders: {why}; {LINE}"))?;
        }
        Ok(Self(lines.join(" ; ")))
    }
}

fn machine(line: &str) -> Result<(), String> {
    if let Some(file) = line.strip_prefix('@') {
        // Nix takes a file that does not exist for one without a machine in it, and builds here.
        return match Path::new(file) {
            path if !path.is_absolute() => Err("the file after @ needs an absolute path".into()),
            path if !path.exists() => Err(format!("there is no file {file}")),
            _ => Ok(()),
        };
    }
    let fields: Vec<&str> = line.split_whitespace().collect();
    let field = |at: usize| fields.get(at).copied().filter(|field| *field != "-");
    if fields.len() > MOST_FIELDS {
        return Err(format!("it has {} fields, and there are {MOST_FIELDS}", fields.len()));
    }
    if fields[0].starts_with('-') {
        return Err("the first field is the machine's address".into());
    }
    if let Some((scheme, _)) = fields[0].split_once("://")
        && !matches!(scheme, "ssh" | "ssh-ng")
    {
        return Err(format!("{scheme}:// is no way to a builder; ssh-ng:// and ssh:// are"));
    }
    if field(1).is_some_and(|systems| systems.split(',').any(|system| !system.contains('-'))) {
        return Err("the second field is the systems it builds for, such as x86_64-linux,i686-linux".into());
    }
    if field(2).is_some_and(|key| !Path::new(key).is_absolute()) {
        return Err("the third field is the path of an SSH key, or -".into());
    }
    if field(3).is_some_and(|jobs| jobs.parse::<u32>().is_err()) {
        return Err("the fourth field is how many builds it takes at once, or -".into());
    }
    if field(4).is_some_and(|speed| speed.parse::<f64>().map_or(true, |speed| speed.is_nan() || speed <= 0.0))
    {
        return Err("the fifth field is how fast it is, a number, or -".into());
    }
    let base64 =
        |key: &str| key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'='));
    if field(7).is_some_and(|key| !base64(key)) {
        return Err(
            "the eighth field is its public host key in base64, `base64 -w0 ssh_host_ed25519_key.pub`".into(),
        );
    }
    Ok(())
}

impl<'de> Deserialize<'de> for Builders {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Self::read(&Written::deserialize(from)?).map_err(serde::de::Error::custom)
    }
}

/// The binary cache that each release is pushed to.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CacheConfig {
    /// Where it is.
    pub url: CacheUrl,
    /// Longest time for one push; the nodes are deployed to without the cache then.
    #[serde(default = "push_timeout", deserialize_with = "super::duration")]
    pub timeout: Duration,
}

fn push_timeout() -> Duration {
    Duration::from_secs(30 * 60)
}

/// A store that `nix copy --to` writes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheUrl(String);

/// What a cache is written through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheKind {
    /// Files: whoever writes signs.
    Files,
    /// The same over HTTP, S3 included: curl and the AWS library see for themselves whether anything moves.
    Http,
    /// Another machine's store, over SSH: it takes the signatures that the paths have.
    Ssh,
}

impl CacheUrl {
    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What it is written through.
    pub fn kind(&self) -> CacheKind {
        match self.0.split("://").next().unwrap_or_default() {
            "ssh" | "ssh-ng" => CacheKind::Ssh,
            "file" => CacheKind::Files,
            _ => CacheKind::Http,
        }
    }

    fn read(text: &str) -> Result<Self, String> {
        let examples = "for example \"file:///srv/cache\", \"s3://bucket?region=eu-west-1\", \"https://cache.example.org\" or \
                        \"ssh-ng://cache.example.org\"";
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(format!("bad nix.cache.url {text:?}: write a store's URL, {examples}"));
        };
        if !matches!(scheme, "file" | "s3" | "http" | "https" | "ssh" | "ssh-ng") {
            return Err(format!("bad nix.cache.url {text:?}: {scheme}:// is no cache; write {examples}"));
        }
        if scheme == "file" && !rest.starts_with('/') {
            return Err(format!(
                "bad nix.cache.url {text:?}: the path has to be absolute, as in file:///srv/cache"
            ));
        }
        if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err(format!("bad nix.cache.url {text:?}: a URL has no blanks"));
        }
        let authority = rest.split(['/', '?']).next().unwrap_or_default();
        if let Some((user, _)) = authority.split_once('@')
            && (user.contains(':') || scheme.starts_with("http"))
        {
            // It would be in the arguments of a process, for all users of this host to read.
            return Err(format!(
                "nix.cache.url has a credential in it ({scheme}://...); put it into the file that Nix's setting netrc-file names"
            ));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for CacheUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Parameters say how, not where.
        f.write_str(self.0.split('?').next().unwrap_or_default())
    }
}

impl<'de> Deserialize<'de> for CacheUrl {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Self::read(&String::deserialize(from)?).map_err(serde::de::Error::custom)
    }
}

/// A path of the configuration, which does not depend on where the program was started.
pub(super) fn absolute_path<'de, D: Deserializer<'de>>(from: D) -> Result<Option<PathBuf>, D::Error> {
    let path = PathBuf::deserialize(from)?;
    if path.is_absolute() {
        return Ok(Some(path));
    }
    Err(serde::de::Error::custom(format!("bad path {:?}: it has to be absolute", path.display().to_string())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nix(text: &str) -> Result<crate::config::NixConfig, String> {
        toml::from_str(text).map_err(|error| error.message().to_owned())
    }

    #[test]
    fn builders_are_text_or_lines_and_become_one_setting() {
        let one = nix("builders = \"ssh-ng://b1 x86_64-linux - 4 1 kvm - c3NoLWVkMjU1MTkK\"").unwrap();
        assert_eq!(one.builders.unwrap().as_str(), "ssh-ng://b1 x86_64-linux - 4 1 kvm - c3NoLWVkMjU1MTkK");
        let two = nix("builders = [\"b1 x86_64-linux,i686-linux /k 4 2.5\", \"b2\"]").unwrap();
        assert_eq!(two.builders.unwrap().as_str(), "b1 x86_64-linux,i686-linux /k 4 2.5 ; b2");
    }

    #[test]
    fn a_line_of_a_builder_that_nix_would_not_understand_is_refused_with_its_field() {
        for (line, word) in [
            ("http://b1", "http:// is no way to a builder"),
            ("b1 x86", "the second field"),
            ("b1 - id_ed25519", "the third field"),
            ("b1 - - many", "the fourth field"),
            ("b1 - - 4 fast", "the fifth field"),
            ("b1 - - 4 1 kvm - ssh-ed25519", "the eighth field"),
            ("b1 - - 4 1 kvm - ssh-ed25519 AAAA", "it has 9 fields"),
            ("@machines", "absolute path"),
            ("@/no/such/machines", "there is no file /no/such/machines"),
        ] {
            let error = nix(&format!("builders = {line:?}")).unwrap_err();
            assert!(
                error.contains(word) && error.contains(line) && error.contains("write for example"),
                "{error}"
            );
        }
        assert!(nix("builders = []").unwrap_err().contains("names no machine"));
        assert!(nix("builders = 7").unwrap_err().contains("a list with a line for each machine"));
    }

    #[test]
    fn a_cache_is_a_url_that_can_be_written_to_and_has_no_password() {
        let cache = nix("[cache]\nurl = \"s3://bucket?region=eu-west-1\"").unwrap().cache.unwrap();
        assert_eq!((cache.url.to_string().as_str(), cache.url.kind()), ("s3://bucket", CacheKind::Http));
        for (url, word) in [
            ("/srv/cache", "write a store's URL"),
            ("ftp://x", "ftp:// is no cache"),
            ("file://srv/cache", "absolute"),
            ("https://me:secret@cache.example.org", "netrc-file"),
            ("file:///a b", "no blanks"),
        ] {
            let error = nix(&format!("[cache]\nurl = {url:?}")).unwrap_err();
            assert!(error.contains(word) && !error.contains("secret@"), "{error}");
        }
        assert!(nix("[cache]\nurl = \"file:///c\"\nkey = 1").unwrap_err().contains("`key`"));
        assert!(nix("signing_key_file = \"key\"").unwrap_err().contains("absolute"));
    }
}
