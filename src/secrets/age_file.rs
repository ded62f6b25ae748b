//! Files of age: decrypting with a keyring, encrypting to recipients. Pure but for reading the identities.

use std::io::{BufReader, Read, Write};

use age::armor::ArmoredReader;
use age::{DecryptError, Decryptor, Encryptor, Recipient, ssh, x25519};

use super::Content;
use super::error::DecryptFault;
use super::keyring::Keyring;

impl Keyring {
    /// The plaintext of an encrypted file. `None` where it is longer than a secret may be.
    pub fn decrypt(&self, ciphertext: &[u8]) -> Result<Option<Content>, DecryptFault> {
        let decryptor = Decryptor::new_buffered(ArmoredReader::new(BufReader::new(ciphertext)))
            .map_err(|error| DecryptFault::NotAge(error.to_string()))?;
        if decryptor.is_scrypt() {
            return Err(DecryptFault::Passphrase);
        }
        let opened = self.open();
        let identities = opened.identities.iter().map(|identity| &**identity);
        let reader = decryptor.decrypt(identities).map_err(|error| {
            if matches!(error, DecryptError::NoMatchingKeys) {
                return DecryptFault::NotForUs { identities: opened.told.clone() };
            }
            DecryptFault::Damaged(error.to_string())
        })?;
        // A plaintext is shorter than its ciphertext: with this room nothing is moved, and no copy is left behind.
        let mut clear = Content::with_room(ciphertext.len().min(Content::MOST + 1));
        clear
            .fill(reader.take(Content::MOST as u64 + 1))
            .map_err(|error| DecryptFault::Damaged(error.to_string()))?;
        Ok(Some(clear).filter(|clear| clear.expose().len() <= Content::MOST))
    }
}

/// Encrypts to all of these.
pub fn encrypt(content: &Content, recipients: &[Box<dyn Recipient + Send>]) -> Result<Vec<u8>, String> {
    let all = recipients.iter().map(|recipient| &**recipient as &dyn Recipient);
    let encryptor = Encryptor::with_recipients(all).map_err(|error| error.to_string())?;
    let write = || -> std::io::Result<Vec<u8>> {
        let mut ciphertext = Vec::new();
        let mut writer = encryptor.wrap_output(&mut ciphertext)?;
        writer.write_all(content.expose())?;
        writer.finish()?;
        Ok(ciphertext)
    };
    write().map_err(|error| error.to_string())
}

/// A public key of age (`age1...`) or SSH (`ssh-ed25519 ...`, `ssh-rsa ...`).
pub fn parse_recipient(text: &str) -> Result<Box<dyn Recipient + Send>, String> {
    let text = text.trim();
    let wrong = |why: &str| Err(format!("{text:?} is no recipient: {why}"));
    if text.starts_with("age1") {
        return match text.parse::<x25519::Recipient>() {
            Ok(key) => Ok(Box::new(key)),
            Err(why) => wrong(why),
        };
    }
    match text.parse::<ssh::Recipient>() {
        Ok(key) => Ok(Box::new(key)),
        Err(ssh::ParseRecipientKeyError::Unsupported(kind)) => {
            wrong(&format!("age cannot encrypt to {kind}; ssh-ed25519 and ssh-rsa it can"))
        }
        Err(_) => wrong("a public key of age (age1...) or SSH (ssh-ed25519 ..., ssh-rsa ...) is wanted"),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process::Command;

    use age::secrecy::ExposeSecret;

    use super::*;

    fn keygen(folder: &std::path::Path, passphrase: &str) -> (std::path::PathBuf, String) {
        let key = folder.join("key");
        let mut make = Command::new("ssh-keygen");
        make.args(["-q", "-t", "ed25519", "-N", passphrase, "-f"]).arg(&key);
        assert!(make.status().unwrap().success());
        (key.clone(), fs::read_to_string(key.with_extension("pub")).unwrap())
    }

    fn content() -> Content {
        Content::new(b"hunter2\n".to_vec())
    }

    #[test]
    fn what_is_encrypted_to_an_ssh_key_and_an_age_key_opens_with_either() {
        let folder = tempfile::tempdir().unwrap();
        let (key, public) = keygen(folder.path(), "");
        let identity = x25519::Identity::generate();
        let file = folder.path().join("age.txt");
        fs::write(&file, format!("# mine\n{}\n", identity.to_string().expose_secret())).unwrap();
        let recipients =
            [public, identity.to_public().to_string()].map(|text| parse_recipient(&text).unwrap());
        let ciphertext = encrypt(&content(), &recipients).unwrap();
        for path in [key, file] {
            let clear = Keyring::new(&[path]).decrypt(&ciphertext).unwrap().unwrap();
            assert_eq!(clear.expose(), content().expose());
        }
    }

    #[test]
    fn what_cannot_be_opened_says_why_and_never_with_a_word_of_a_key() {
        let folder = tempfile::tempdir().unwrap();
        let (key, public) = keygen(folder.path(), "a passphrase");
        let ciphertext = encrypt(&content(), &[parse_recipient(&public).unwrap()]).unwrap();
        let why = |keyring: Keyring, bytes: &[u8]| keyring.decrypt(bytes).unwrap_err().to_string();
        let locked = why(Keyring::new(std::slice::from_ref(&key)), &ciphertext);
        assert!(
            locked.contains(&key.display().to_string()) && locked.contains("protected by a passphrase"),
            "{locked}"
        );
        let none = why(Keyring::new(&["/no/such/key".into()]), &ciphertext);
        assert!(none.contains("/no/such/key (No such file"), "{none}");
        assert!(why(Keyring::default(), b"hello").contains("not a file that age made"));
        let rubbish = folder.path().join("rubbish");
        fs::write(&rubbish, "hunter2").unwrap();
        let told = why(Keyring::new(&[rubbish]), &ciphertext);
        assert!(told.contains("neither a private SSH key") && !told.contains("hunter2"), "{told}");
    }

    #[test]
    fn a_damaged_file_is_no_secret() {
        let folder = tempfile::tempdir().unwrap();
        let (key, public) = keygen(folder.path(), "");
        let mut ciphertext = encrypt(&content(), &[parse_recipient(&public).unwrap()]).unwrap();
        *ciphertext.last_mut().unwrap() ^= 1;
        let error = Keyring::new(&[key]).decrypt(&ciphertext).unwrap_err();
        assert!(matches!(error, DecryptFault::Damaged(_)), "{error}");
    }

    #[test]
    fn a_recipient_that_is_none_says_what_would_be_one() {
        for bad in ["", "age1xyz", "ecdsa-sha2-nistp256 AAAA", "alice"] {
            assert!(parse_recipient(bad).is_err(), "{bad:?}");
        }
    }
}
