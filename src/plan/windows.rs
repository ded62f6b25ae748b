//! stub
use jiff::Timestamp;
use crate::model::rollout::{Span, Window};
/// stub
pub struct Standing { #[allow(missing_docs)] pub open: bool, #[allow(missing_docs)] pub changes_at: Option<Timestamp>, #[allow(missing_docs)] pub by: Option<String> }
/// stub
pub fn standing<'a>(_w: impl Iterator<Item = &'a Window>, _now: Timestamp) -> Standing { Standing { open: true, changes_at: None, by: None } }
/// stub
pub fn span_standing(_s: &Span, _now: Timestamp) -> (bool, Option<Timestamp>) { (true, None) }
