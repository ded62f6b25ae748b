//! A plaintext in memory. Cannot be printed, cloned or serialised.

use std::fmt;
use std::io;

use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// The content of one secret. Wiped when dropped.
pub struct Content(Zeroizing<Vec<u8>>);

impl Content {
    /// The longest secret: they are keys and passwords, and several are held in memory.
    pub const MOST: usize = 1 << 20;

    /// Takes bytes over.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// An empty one with room for so many bytes.
    pub(super) fn with_room(bytes: usize) -> Self {
        Self::new(Vec::with_capacity(bytes))
    }

    /// Reads all there is into it.
    pub(super) fn fill(&mut self, mut from: impl io::Read) -> io::Result<()> {
        from.read_to_end(&mut self.0).map(drop)
    }

    /// The bytes, for the connection to a node or an editor's file in memory.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// What a node answers that has the same content, asked with this nonce: `secrets.sh`, `compare`.
    pub fn answer(&self, nonce: &str) -> String {
        format!("{:x}", Sha256::new().chain_update(nonce).chain_update(&*self.0).finalize())
    }
}

/// Says that there is one.
impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Content(not shown)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_content_that_is_printed_is_not_shown() {
        let shown = format!("{:?}", Some(Content::new(b"hunter2".to_vec())));
        assert_eq!(shown, "Some(Content(not shown))");
    }

    #[test]
    fn two_nonces_have_two_answers() {
        let content = Content::new(b"x".to_vec());
        assert_eq!(content.answer("a"), Content::new(b"x".to_vec()).answer("a"));
        assert_ne!(content.answer("a"), content.answer("b"));
    }
}
