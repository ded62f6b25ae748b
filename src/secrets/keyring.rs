//! The identities of whoever deploys: which files may hold them, and what is in each. Read anew for each use, so that no
//! private key stays in memory and a new one needs no restart.

use std::fs;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use age::{Identity, IdentityFile, ssh};
use zeroize::Zeroizing;

/// Files with identities: of age, or private SSH keys.
#[derive(Debug, Clone, Default)]
pub struct Keyring(Vec<PathBuf>);

/// What the files hold.
pub(super) struct Opened {
    /// Those that can be used.
    pub identities: Vec<Box<dyn Identity>>,
    /// For people: each file, and what is wrong with it.
    pub told: String,
}

impl Keyring {
    /// The files that are named, else the SSH keys in the home directory, as ssh itself would use them.
    pub fn new(named: &[PathBuf]) -> Self {
        if !named.is_empty() {
            return Self(named.to_vec());
        }
        let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
        let usual = [".ssh/id_ed25519", ".ssh/id_rsa"].map(|key| home.join(key));
        Self(usual.into_iter().filter(|key| key.exists()).collect())
    }

    /// Reads them all. One that cannot be used hinders no other.
    pub(super) fn open(&self) -> Opened {
        let mut opened = Opened { identities: Vec::new(), told: String::new() };
        let mut told = Vec::new();
        for path in &self.0 {
            match read(path) {
                Ok(identities) => {
                    opened.identities.extend(identities);
                    told.push(path.display().to_string());
                }
                Err(why) => told.push(format!("{} ({why})", path.display())),
            }
        }
        opened.told =
            if told.is_empty() { "any identity here: there is none".into() } else { told.join(", ") };
        opened
    }
}

/// The identities of one file, or why it has none that can be used. Never with a word of what is in it.
fn read(path: &Path) -> Result<Vec<Box<dyn Identity>>, String> {
    let bytes = Zeroizing::new(fs::read(path).map_err(|error| error.to_string())?);
    if bytes.starts_with(b"-----BEGIN ") {
        return match ssh::Identity::from_buffer(BufReader::new(&bytes[..]), None) {
            Ok(key @ ssh::Identity::Unencrypted(_)) => Ok(vec![Box::new(key)]),
            Ok(ssh::Identity::Encrypted(_)) => Err(
                "protected by a passphrase, which nobody is here to type; name a key without one, or one of age".into(),
            ),
            Ok(ssh::Identity::Unsupported(_)) => {
                Err("a kind of SSH key that cannot decrypt; ssh-ed25519 and ssh-rsa can".into())
            }
            Err(_) => Err("not a private SSH key that can be read".into()),
        };
    }
    let file = IdentityFile::from_buffer(BufReader::new(&bytes[..]))
        .map_err(|_| "neither a private SSH key nor a file of age identities")?;
    let identities = file.into_identities().map_err(|_| "its identities cannot be used")?;
    if identities.is_empty() {
        return Err("it holds no identity".into());
    }
    Ok(identities.into_iter().map(|identity| identity as Box<dyn Identity>).collect())
}
