//! The report for programs. Versioned, so that a reader can refuse what it does not know.

use serde::Serialize;

use super::Report;

/// Version of the document.
pub const VERSION: u32 = 1;

/// The report with its version.
#[derive(Debug, Serialize)]
pub struct Document<'a> {
    version: u32,
    #[serde(flatten)]
    report: &'a Report,
}

/// Wraps a report for serialisation.
pub fn document(report: &Report) -> Document<'_> {
    Document { version: VERSION, report }
}
