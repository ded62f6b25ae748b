//! Secrets that cannot be had: which one, why, and what to do.

use std::io;
use std::path::PathBuf;

use crate::command::CommandError;
use crate::model::secret::SecretName;

/// One secret that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// Its file cannot be read.
    #[error("the secret {secret}: cannot read {}; correct secrets.files.{secret}.file, or put it there", path.display())]
    File {
        /// Which.
        secret: SecretName,
        /// Its file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Its command failed.
    #[error("the secret {secret}: its command failed")]
    Command {
        /// Which.
        secret: SecretName,
        /// How.
        #[source]
        source: CommandError,
    },
    /// There is no encrypted file.
    #[error(
        "the secret {secret}: there is no file {file}; `driftless secrets edit` makes it (a flake sees only what was added to Git)"
    )]
    NoCiphertext {
        /// Which.
        secret: SecretName,
        /// The file of the repository.
        file: String,
    },
    /// The copy of its encrypted file is gone.
    #[error(
        "the secret {secret}: cannot read its ciphertext {}; was it collected as garbage? `driftless sync` or another evaluation brings it back",
        path.display()
    )]
    Stored {
        /// Which.
        secret: SecretName,
        /// The store's copy.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It cannot be decrypted.
    #[error("the secret {secret} cannot be decrypted ({})", name_of(file))]
    Age {
        /// Which.
        secret: SecretName,
        /// The file of the repository.
        file: String,
        /// Why not.
        #[source]
        source: DecryptFault,
    },
    /// It is longer than a secret may be.
    #[error(
        "the secret {secret} has more than {} bytes; a secret is a key or a password",
        super::Content::MOST
    )]
    TooLong {
        /// Which.
        secret: SecretName,
    },
}

/// A file of the repository by its name: the rest of its path is that of a checkout.
fn name_of(file: &str) -> &str {
    file.rsplit('/').next().unwrap_or(file)
}

/// An encrypted file that is not decrypted.
#[derive(Debug, thiserror::Error)]
pub enum DecryptFault {
    /// Nobody here is a recipient.
    #[error(
        "it is encrypted to others than {identities}; name the right identity in `secrets.identity_files`, or add this one \
         to secrets.recipients and run `driftless secrets rekey` where it can be decrypted"
    )]
    NotForUs {
        /// With what it was tried, and what was wrong with each.
        identities: String,
    },
    /// It wants a passphrase.
    #[error("it is encrypted with a passphrase; encrypt it to keys, with `driftless secrets edit`")]
    Passphrase,
    /// It is no such file.
    #[error("it is not a file that age made ({0})")]
    NotAge(String),
    /// It was changed or cut short.
    #[error("it is damaged ({0}); bring an older commit's back")]
    Damaged(String),
}
