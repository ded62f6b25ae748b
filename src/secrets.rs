//! Secrets: from where they are kept (a file, a command, an encrypted file of the repository) to bytes in memory, and back
//! into an encrypted file for a person who edits. The way to a node is `node`'s.
//!
//! A plaintext is held in [`Content`] alone, which nothing prints and which is wiped when it is dropped. None is written
//! here, neither to a disk nor to a log; no digest of one is made but with a nonce that nobody keeps.

mod age_file;
mod content;
mod error;
mod keyring;
mod source;

pub use age_file::{encrypt, parse_recipient};
pub use content::Content;
pub use error::{DecryptFault, SecretError};
pub use keyring::Keyring;
pub use source::ciphertext;
