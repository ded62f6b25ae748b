//! What a source URL is: local or remote, and how it is shown without its credentials.
//!
//! Touches neither network nor disk.

use std::borrow::Cow;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use crate::config::SourceConfig;

/// Stands where a credential was.
const HIDDEN: &str = "***";

impl SourceConfig {
    /// The URL as it may be shown and logged: without user and password (`https`), password (`ssh`) and query.
    pub fn display_url(&self) -> String {
        shown(&self.url).into_owned()
    }
}

/// A URL without its credentials.
///
/// The user of an HTTP URL goes too: forges take a token in its place. An SSH user (`git@`) is no secret.
pub fn shown(url: &str) -> Cow<'_, str> {
    let Some((scheme, rest)) = url.split_once("://") else { return Cow::Borrowed(url) };
    let (authority, path) = rest.find(['/', '?', '#']).map_or((rest, ""), |at| rest.split_at(at));
    let authority = match authority.rsplit_once('@') {
        None => authority.to_owned(),
        Some((user, host)) if is_ssh(scheme) => match user.split_once(':') {
            None => format!("{user}@{host}"),
            Some((user, _)) => format!("{user}:{HIDDEN}@{host}"),
        },
        Some((_, host)) => format!("{HIDDEN}@{host}"),
    };
    let path = match path.split_once('?') {
        Some((path, _)) if scheme != "file" => format!("{path}?{HIDDEN}"),
        Some(_) | None => path.to_owned(),
    };
    Cow::Owned(format!("{scheme}://{authority}{path}"))
}

/// A line of git's without credentials: those of `url`, and of any other URL that the user's configuration put in its
/// place (`url.*.insteadOf`).
pub fn scrubbed(line: &str, url: &str) -> String {
    let mut line = line.replace(url, &shown(url));
    for secret in secrets(url) {
        line = line.replace(&secret, HIDDEN);
    }
    line.split_inclusive([' ', '\'', '"', '<', '>', '\t'])
        .map(|word| {
            word.find("http").map_or(Cow::Borrowed(word), |at| {
                Cow::Owned(format!("{}{}", &word[..at], shown(&word[at..])))
            })
        })
        .collect()
}

/// The parts of a URL that nobody may read, as written and as decoded, longest first.
fn secrets(url: &str) -> Vec<String> {
    let Some((scheme, rest)) = url.split_once("://") else { return Vec::new() };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest);
    let Some((user_info, _)) = authority.rsplit_once('@') else { return Vec::new() };
    let (user, password) =
        user_info.split_once(':').map_or((user_info, None), |(user, pass)| (user, Some(pass)));
    let user = (!is_ssh(scheme) && password.is_none_or(|pass| pass.is_empty() || pass == "x-oauth-basic"))
        .then_some(user);
    let mut secrets: Vec<String> = [user, password]
        .into_iter()
        .flatten()
        .flat_map(|secret| [secret.to_owned(), String::from_utf8_lossy(&decoded(secret)).into_owned()])
        // A shorter one would tear holes into ordinary words, and is no secret either.
        .filter(|secret| secret.len() >= 4)
        .collect();
    secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    secrets
}

fn is_ssh(scheme: &str) -> bool {
    matches!(scheme, "ssh" | "git+ssh" | "ssh+git")
}

/// The local path that git would read for this URL, by git's own rule: a path, or `file://`; `host:path` is SSH, unless
/// a slash comes before the colon (git-clone(1), "GIT URLS").
pub fn local_path(url: &str) -> Option<PathBuf> {
    if let Some(path) = url.strip_prefix("file://") {
        return Some(PathBuf::from(OsString::from_vec(decoded(path))));
    }
    let head = url.split('/').next().unwrap_or(url);
    (!url.is_empty() && !head.contains(':')).then(|| PathBuf::from(url))
}

/// Percent-decoding (RFC 3986, 2.1); what is not an escape stays as it is.
fn decoded(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escape = (bytes[at] == b'%')
            .then(|| text.get(at + 1..at + 3))
            .flatten()
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        out.push(escape.unwrap_or(bytes[at]));
        at += if escape.is_some() { 3 } else { 1 };
    }
    out
}

/// Percent-encoding of a path for a URL.
pub fn encoded(path: &[u8]) -> String {
    path.iter()
        .map(|byte| match byte {
            b'/' | b'-' | b'_' | b'.' | b'~' | b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => {
                char::from(*byte).to_string()
            }
            other => format!("%{other:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_not_shown() {
        for (url, expected) in [
            ("https://git.example.org/infra.git", "https://git.example.org/infra.git"),
            ("https://alice:s3cret@git.example.org/infra.git", "https://***@git.example.org/infra.git"),
            ("https://ghp_token@git.example.org/infra.git", "https://***@git.example.org/infra.git"),
            ("https://a:p@ss@git.example.org/infra.git", "https://***@git.example.org/infra.git"),
            ("https://git.example.org/infra.git?private_token=x", "https://git.example.org/infra.git?***"),
            ("ssh://git@git.example.org:22/infra.git", "ssh://git@git.example.org:22/infra.git"),
            ("ssh://git:pw@git.example.org/infra.git", "ssh://git:***@git.example.org/infra.git"),
            ("git@git.example.org:infra.git", "git@git.example.org:infra.git"),
            ("/srv/infra.git", "/srv/infra.git"),
            ("file:///srv/a?b", "file:///srv/a?b"),
        ] {
            assert_eq!(shown(url), expected, "{url}");
        }
    }

    #[test]
    fn what_git_says_is_scrubbed() {
        let url = "https://bot:t%40ken@h/x.git";
        assert_eq!(
            scrubbed("fatal: unable to access 'https://bot:t%40ken@h/x.git/': no", url),
            "fatal: unable to access 'https://***@h/x.git/': no"
        );
        assert_eq!(scrubbed("the password t@ken is wrong", url), "the password *** is wrong");
        assert_eq!(
            scrubbed("fatal: 'https://other:pw@mirror/x' gone", url),
            "fatal: 'https://***@mirror/x' gone"
        );
        assert_eq!(scrubbed("fatal: plain words stay", url), "fatal: plain words stay");
    }

    #[test]
    fn only_paths_are_local() {
        for (url, expected) in [
            ("/srv/infra.git", Some("/srv/infra.git")),
            ("infra", Some("infra")),
            ("./a:b", Some("./a:b")),
            ("file:///srv/my%20infra", Some("/srv/my infra")),
            ("git@host:infra.git", None),
            ("host:infra.git", None),
            ("https://host/infra.git", None),
            ("", None),
        ] {
            assert_eq!(local_path(url), expected.map(PathBuf::from), "{url}");
        }
    }
}
