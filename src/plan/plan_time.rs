//! The time of one plan, which remembers on what later moments the plan depends: then it is made anew.

use std::cell::Cell;

use jiff::Timestamp;

/// Now, and the next time at which something that was asked would be answered otherwise.
#[derive(Debug)]
pub struct PlanTime {
    now: Timestamp,
    next: Cell<Option<Timestamp>>,
}

impl PlanTime {
    /// The time at which the plan is made.
    pub fn at(now: Timestamp) -> Self {
        Self { now, next: Cell::new(None) }
    }

    /// Now.
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// Whether `end` is still to come.
    pub fn is_before(&self, end: Timestamp) -> bool {
        self.look_again(end);
        self.now < end
    }

    /// The answer changes then.
    pub fn look_again(&self, at: Timestamp) {
        if at > self.now {
            self.next.set(Some(self.next.get().map_or(at, |next| next.min(at))));
        }
    }

    /// The next time on which an answer depends.
    pub fn next(&self) -> Option<Timestamp> {
        self.next.get()
    }
}
