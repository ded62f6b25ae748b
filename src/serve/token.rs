//! The token that acting over HTTP takes: read anew for each request, so that a new one counts at once, and compared in a time
//! that says nothing about it.

use std::fmt;
use std::fs;
use std::hint::black_box;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Shorter ones could be guessed.
const SHORTEST: usize = 16;

/// A token that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The file cannot be read.
    #[error("cannot read the token {}; correct serve.token_file, or the file's owner and mode", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Others may read it.
    #[error("everybody on this host may read the token {} (mode {mode:o}); `chmod o= {}`", path.display(), path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// It is none.
    #[error("the token {} has fewer than {SHORTEST} characters; make one with `openssl rand -hex 32`", path.display())]
    Short {
        /// The file.
        path: PathBuf,
    },
}

/// A token. `Debug` does not show it.
pub struct Token(String);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

impl Token {
    /// Whether it is this one. How long that takes depends on nothing but the length of what is given.
    pub fn is(&self, given: &str) -> bool {
        let own = self.0.as_bytes();
        let differs = given
            .bytes()
            .enumerate()
            .fold(0, |differs, (at, byte)| black_box(differs | (byte ^ own[at % own.len()])));
        black_box(differs) == 0 && given.len() == own.len()
    }
}

/// Reads the first line of a file that not everybody may read.
pub fn read(path: &Path) -> Result<Token, TokenError> {
    let unreadable = |source| TokenError::Read { path: path.to_owned(), source };
    let mode = fs::metadata(path).map_err(unreadable)?.permissions().mode() & 0o777;
    if mode & 0o007 != 0 {
        return Err(TokenError::Open { path: path.to_owned(), mode });
    }
    let text = fs::read_to_string(path).map_err(unreadable)?;
    let token = text.trim();
    if token.chars().count() < SHORTEST || token.contains(char::is_whitespace) {
        return Err(TokenError::Short { path: path.to_owned() });
    }
    Ok(Token(token.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_itself_and_nothing_else() {
        let token = Token("0123456789abcdef".into());
        assert!(token.is("0123456789abcdef"));
        for other in ["", "0123456789abcde", "0123456789abcdef0123456789abcdef", "0123456789abcdeF", "é"] {
            assert!(!token.is(other), "{other}");
        }
        assert_eq!(format!("{token:?}"), "Token");
    }

    #[test]
    fn a_token_that_others_could_know_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        assert!(matches!(read(&path), Err(TokenError::Read { .. })));
        let write = |text: &str, mode| {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        };
        write("0123456789abcdef\n", 0o640);
        assert!(read(&path).unwrap().is("0123456789abcdef"));
        write("0123456789abcdef\n", 0o644);
        assert!(matches!(read(&path), Err(TokenError::Open { mode: 0o644, .. })));
        for short in ["", "\n", "short", "one two three four five"] {
            write(short, 0o600);
            assert!(matches!(read(&path), Err(TokenError::Short { .. })), "{short:?}");
        }
    }
}
