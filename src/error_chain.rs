//! An error with all its causes, as one text. No `Display` of ours repeats its source, so this is where they meet.

use std::error::Error;
use std::fmt::Write as _;

/// The error and its causes, outermost first, separated by ": ".
pub fn error_chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let _ = write!(text, ": {error}");
        cause = error.source();
    }
    text
}
