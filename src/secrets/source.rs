//! From the declaration of a secret to its content. Starts the commands that print secrets; shows nothing of what they say.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Content, Keyring, SecretError};
use crate::command;
use crate::model::secret::{AgeFile, SecretName, SecretSpec, Source};

/// Longest time for a command that prints a secret: a password manager may ask its server.
const COMMAND: Duration = Duration::from_secs(60);

impl Keyring {
    /// The content of one secret.
    pub async fn fetch(&self, secret: &SecretName, spec: &SecretSpec) -> Result<Content, SecretError> {
        match &spec.source {
            Source::File(path) => file(secret, Path::new(path)),
            Source::Command(words) => output(secret, words).await,
            Source::Age(age) => self.open_age(secret, age),
        }
    }

    /// The content of an encrypted file, by its copy in the store.
    fn open_age(&self, secret: &SecretName, age: &AgeFile) -> Result<Content, SecretError> {
        let ciphertext = ciphertext(secret, age)?;
        match self.decrypt(&ciphertext) {
            Ok(Some(content)) => Ok(content),
            Ok(None) => Err(SecretError::TooLong { secret: secret.clone() }),
            Err(source) => Err(SecretError::Age { secret: secret.clone(), file: age.file.clone(), source }),
        }
    }
}

/// The encrypted file, as it is in the store.
pub fn ciphertext(secret: &SecretName, age: &AgeFile) -> Result<Vec<u8>, SecretError> {
    let Some(stored) = &age.stored else {
        return Err(SecretError::NoCiphertext { secret: secret.clone(), file: age.file.clone() });
    };
    let path = PathBuf::from(stored.as_str());
    std::fs::read(&path).map_err(|source| SecretError::Stored { secret: secret.clone(), path, source })
}

fn file(secret: &SecretName, path: &Path) -> Result<Content, SecretError> {
    let read = || -> io::Result<Content> {
        let file = File::open(path)?;
        let about = file.metadata()?;
        if about.is_dir() {
            return Err(io::Error::new(io::ErrorKind::IsADirectory, "it is a directory"));
        }
        // With room for all of it nothing is moved, and no copy is left behind.
        let room = usize::try_from(about.len()).unwrap_or(usize::MAX).min(Content::MOST) + 1;
        let mut content = Content::with_room(room);
        content.fill(file.take(Content::MOST as u64 + 1))?;
        Ok(content)
    };
    let content = read().map_err(|source| SecretError::File {
        secret: secret.clone(),
        path: path.to_owned(),
        source,
    })?;
    short_enough(secret, content)
}

async fn output(secret: &SecretName, words: &[String]) -> Result<Content, SecretError> {
    let mut words = words.iter();
    let mut command = command::command(words.next().map_or("", String::as_str));
    command.args(words);
    let finished = command::run(command, COMMAND)
        .await
        .map_err(|source| SecretError::Command { secret: secret.clone(), source })?;
    short_enough(secret, Content::new(finished.stdout))
}

fn short_enough(secret: &SecretName, content: Content) -> Result<Content, SecretError> {
    if content.expose().len() > Content::MOST {
        return Err(SecretError::TooLong { secret: secret.clone() });
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::error_chain::error_chain;

    fn spec(source: serde_json::Value) -> SecretSpec {
        let marker = "/nix/store/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-db";
        serde_json::from_value(serde_json::json!({
            "path": "/run/driftless-secrets/x", "marker": marker, "user": "root", "group": "root", "mode": "0400",
            "source": source,
        }))
        .unwrap()
    }

    async fn fetch(source: serde_json::Value) -> Result<Content, String> {
        let fetched = Keyring::default().fetch(&"db".parse().unwrap(), &spec(source)).await;
        fetched.map_err(|error| error_chain(&error))
    }

    #[tokio::test]
    async fn a_secret_is_what_its_file_or_its_command_says_to_the_byte() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("db");
        fs::write(&path, b"a\0b\n").unwrap();
        let read = fetch(serde_json::json!({ "file": path })).await.unwrap();
        assert_eq!(read.expose(), b"a\0b\n");
        let printed = fetch(serde_json::json!({ "command": ["printf", "a\\0b\\n"] })).await.unwrap();
        assert_eq!(printed.expose(), b"a\0b\n");
    }

    #[tokio::test]
    async fn a_secret_that_cannot_be_had_names_itself_its_source_and_the_reason() {
        let missing = fetch(serde_json::json!({ "file": "/no/such/file" })).await.unwrap_err();
        assert!(missing.contains("secret db") && missing.contains("/no/such/file"), "{missing}");
        let failed = fetch(serde_json::json!({ "command": ["sh", "-c", "echo locked >&2; exit 3"] })).await;
        let failed = failed.unwrap_err();
        assert!(failed.contains("secret db") && failed.contains("locked"), "{failed}");
        let absent = serde_json::json!({ "age": { "file": "/infra/db.age", "stored": null, "decrypt": "controller",
            "recipients": [] } });
        let absent = fetch(absent).await.unwrap_err();
        assert!(absent.contains("/infra/db.age") && absent.contains("driftless secrets edit"), "{absent}");
        let endless = fetch(serde_json::json!({ "file": "/dev/zero" })).await.unwrap_err();
        assert!(endless.contains("more than 1048576 bytes"), "{endless}");
    }
}
