//! What the deployment declares about a secret: where it is kept and whose it becomes. Never what it is.

use serde::{Deserialize, Serialize};

use super::store_path::StorePath;

parsed_string!(
    /// The attribute name of a secret. It becomes a file name, and a word in a line that the node reads.
    SecretName,
    "name of a secret",
    "1 to 100 letters, digits, '.', '_' or '-', starting with a letter or digit",
    |text| text.len() <= 100
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
);

parsed_string!(
    /// A user or a group of the node, by name or number.
    Account,
    "user or group",
    "a name (letters, digits, '_', '.', '-', perhaps '$' at its end) or a number",
    |text| {
        let name = text.strip_suffix('$').unwrap_or(text);
        !name.is_empty()
            && name.len() <= 64
            && !name.starts_with(['-', '.'])
            && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
    }
);

parsed_string!(
    /// Permissions in octal, as chmod(1) takes them.
    Mode,
    "file mode",
    "3 or 4 octal digits, as in \"0440\"",
    |text| matches!(text.len(), 3 | 4) && text.bytes().all(|b| matches!(b, b'0'..=b'7'))
);

/// One secret of a node; `nix/modules/secrets.nix` says it so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SecretSpec {
    /// Where the node's programs find it.
    pub path: String,
    /// In the closure of a system that uses it.
    pub marker: StorePath,
    /// Whose it becomes.
    pub user: Account,
    /// Whose group's.
    pub group: Account,
    /// With which permissions.
    pub mode: Mode,
    /// Where its content is.
    pub source: Source,
}

impl SecretSpec {
    /// The last part of its path on the node.
    pub fn file_name(&self) -> String {
        format!("{}-{}", self.marker.hash(), self.marker.name())
    }

    /// The store's copy of its encrypted file, where it has one.
    pub fn ciphertext(&self) -> Option<&StorePath> {
        match &self.source {
            Source::Age(age) => age.stored.as_ref(),
            Source::File(_) | Source::Command(_) => None,
        }
    }
}

/// Where the content of a secret is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Source {
    /// In a file of the machine that deploys.
    File(String),
    /// A command, run on the machine that deploys, prints it.
    Command(Vec<String>),
    /// In the repository, encrypted.
    Age(AgeFile),
}

/// An encrypted file of the repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AgeFile {
    /// The file that is edited.
    pub file: String,
    /// Its copy in the store; `None`: there is no such file.
    pub stored: Option<StorePath>,
    /// Who decrypts it.
    pub decrypt: Decrypt,
    /// To whom it is encrypted, the host keys of a node that decrypts left out.
    pub recipients: Vec<String>,
}

/// Who decrypts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Decrypt {
    /// Whoever deploys, with its identity.
    Controller,
    /// The node, with its host key.
    Node,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_be_two_words_or_an_option_to_the_node_is_refused() {
        for bad in ["", "-R", "a b", "a:b", "a\nb", "..", "a/b", "$"] {
            assert!(bad.parse::<SecretName>().is_err(), "{bad:?}");
            assert!(bad.parse::<Account>().is_err(), "{bad:?}");
            assert!(bad.parse::<Mode>().is_err(), "{bad:?}");
        }
        assert!("db.password_2".parse::<SecretName>().is_ok());
        assert!(["www-data", "1000", "samba$"].iter().all(|name| name.parse::<Account>().is_ok()));
        assert!("0440".parse::<Mode>().is_ok() && "8".parse::<Mode>().is_err());
    }

    #[test]
    fn a_declaration_is_read_as_nix_writes_it() {
        let json = r#"{ "path": "/run/driftless-secrets/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-db", "user": "root",
            "marker": "/nix/store/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-db", "group": "root", "mode": "0400",
            "source": { "age": { "file": "/infra/db.age", "stored": null, "decrypt": "node", "recipients": [] } } }"#;
        let read: SecretSpec = serde_json::from_str(json).unwrap();
        assert_eq!(read.file_name(), "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-db");
        assert!(matches!(read.source, Source::Age(AgeFile { decrypt: Decrypt::Node, stored: None, .. })));
        let command = read_source(r#"{ "command": ["pass", "db"] }"#);
        assert_eq!(command, Source::Command(vec!["pass".into(), "db".into()]));
    }

    fn read_source(json: &str) -> Source {
        serde_json::from_str(json).unwrap()
    }
}
