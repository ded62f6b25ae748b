//! Replies of `switch.sh`: from the bytes a login shell lets through to typed lines. Pure.

use std::str::FromStr;

use jiff::Timestamp;

use crate::model::intent::SuspensionMark;
use crate::model::journal::{Cause, Entry, Forgiven, Outcome, Phase, Pin, PinEnd};
use crate::model::observed::{KernelPair, NodeState, RebootOrder};

/// An answer that is not a reply.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The first line of a reply is not there.
    #[error(
        "no line begins with `driftless/1`; is there a shell behind this login, and no forced command? It said {noise:?}"
    )]
    NoFrame {
        /// The end of what was said instead.
        noise: String,
    },
    /// The last line is not there.
    #[error("it was cut short after {lines} lines")]
    CutShort {
        /// How many lines had come.
        lines: usize,
    },
    /// A line that must be there is not.
    #[error("the line `{key}` is missing")]
    Missing {
        /// Its first word.
        key: &'static str,
    },
    /// A line says something it cannot say.
    #[error("the line `{key}` is wrong: {value:?}")]
    Wrong {
        /// Its first word.
        key: &'static str,
        /// The rest of it.
        value: String,
    },
}

/// The lines of one reply, as key and value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply(Vec<(String, String)>);

impl Reply {
    /// Finds the reply with this frame in whatever came; banners before it are dropped.
    pub fn parse(bytes: &[u8], frame: &str) -> Result<Self, FrameError> {
        let text = String::from_utf8_lossy(bytes);
        let mut lines = text.lines().map(|line| line.trim_end_matches('\r'));
        let begin = format!("driftless/1 {frame}");
        if !lines.by_ref().any(|line| line == begin) {
            let noise: String = text.trim().chars().take(300).collect();
            return Err(FrameError::NoFrame { noise });
        }
        let end = format!("end {frame}");
        let mut reply = Vec::new();
        for line in lines {
            if line == end {
                return Ok(Self(reply));
            }
            let (key, value) = line.split_once(' ').unwrap_or((line, ""));
            reply.push((key.to_owned(), value.to_owned()));
        }
        Err(FrameError::CutShort { lines: reply.len() })
    }

    /// The first value of a key.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(found, _)| found == key).map(|(_, value)| value.as_str())
    }

    /// Every value of a key.
    pub fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(found, _)| found == key).map(|(_, value)| value.as_str())
    }

    fn required<T: FromStr>(&self, key: &'static str) -> Result<T, FrameError> {
        let value = self.get(key).ok_or(FrameError::Missing { key })?;
        value.parse().map_err(|_| FrameError::Wrong { key, value: value.to_owned() })
    }

    /// A value that may be missing, or empty where the node could not tell.
    pub fn optional<T: FromStr>(&self, key: &str) -> Option<T> {
        self.get(key).and_then(|value| value.parse().ok())
    }

    /// The reply to `observe`.
    pub fn node_state(&self) -> Result<NodeState, FrameError> {
        let texts = |key| self.all(key).map(str::to_owned).collect();
        // In the node's order: ids carry the clocks of those who asked, and clocks go back. One that cannot be read (a power
        // cut half-way, another version) hides neither the others nor the node.
        let journal: Vec<Entry> = self.all("entry").filter_map(|line| entry(line).ok()).collect();
        Ok(NodeState {
            boot_id: self.required("boot-id")?,
            machine_id: self.optional("machine-id"),
            clock: self.get("clock").and_then(seconds),
            uptime: self.required("uptime")?,
            running: self.required("running")?,
            boot_default: self.optional("boot-default"),
            staged: self.optional("staged"),
            booted: self.optional("booted"),
            generation: self.optional("generation"),
            kernel: KernelPair { booted: texts("booted-kernel"), running: texts("running-kernel") },
            failed_units: texts("failed-unit"),
            baseline: texts("baseline-unit"),
            nix_version: self
                .get("nix-version")
                .and_then(|line| line.split(' ').next_back())
                .map(str::to_owned),
            free_nix: self.optional("free-nix"),
            free_boot: self.optional("free-boot"),
            journal: journal.into(),
            pin: self.pin(),
            reboot: self.reboot_order(),
            suspended: self.all("suspended").filter_map(mark).collect(),
        })
    }

    /// The one entry of an `attach` reply.
    pub fn entry(&self) -> Result<Entry, FrameError> {
        entry(self.get("entry").ok_or(FrameError::Missing { key: "entry" })?)
    }

    /// `BOOT CLOCK SYSTEM`.
    fn reboot_order(&self) -> Option<RebootOrder> {
        let mut words = self.get("reboot")?.splitn(3, ' ');
        let mut next = || words.next();
        Some(RebootOrder {
            boot: next()?.parse().ok()?,
            at: seconds(next()?)?,
            toplevel: next()?.parse().ok()?,
        })
    }

    fn pin(&self) -> Option<Pin> {
        let part = |wanted: &str| {
            self.all("pin").find_map(|line| line.strip_prefix(wanted).map(|rest| rest.trim().to_owned()))
        };
        let until = part("until ")?;
        let until = match until.split_once(' ') {
            Some(("at", time)) => PinEnd::At(seconds(time)?),
            Some(("release", path)) => PinEnd::NextRelease(path.parse().ok()?),
            _ => return None,
        };
        Some(Pin { by: part("by ").unwrap_or_default(), reason: part("reason ").unwrap_or_default(), until })
    }
}

/// One suspension: its id, its end in seconds or `-`, who, and why; separated by tabs.
fn mark(line: &str) -> Option<SuspensionMark> {
    let mut fields = line.splitn(4, '\t');
    let id = fields.next()?.parse().ok()?;
    let until = match fields.next()? {
        "-" => None,
        time => Some(seconds(time)?),
    };
    let (by, reason) = (fields.next()?.to_owned(), fields.next()?.to_owned());
    Some(SuspensionMark { id, by, reason, until })
}

/// How a pin's end is written on the node.
pub fn pin_end(until: &PinEnd) -> String {
    match until {
        PinEnd::At(time) => format!("at {}", time.as_second()),
        PinEnd::NextRelease(path) => format!("release {path}"),
    }
}

/// Unix time in seconds.
fn seconds(text: &str) -> Option<Timestamp> {
    Timestamp::from_second(text.parse().ok()?).ok()
}

/// One line of the journal: twelve fields of the entry, this boot's id, whether the entry's switch is alive, and whether
/// it was forgiven; separated by tabs.
fn entry(line: &str) -> Result<Entry, FrameError> {
    let wrong = || FrameError::Wrong { key: "entry", value: line.to_owned() };
    let fields: Vec<&str> = line.split('\t').collect();
    let [
        id,
        system,
        previous,
        phase,
        outcome,
        cause,
        started,
        finished,
        revision,
        asker,
        boot,
        detail,
        now,
        alive,
        forgiven,
    ] = fields.as_slice()
    else {
        return Err(wrong());
    };
    let optional = |text: &str| if text == "-" { None } else { Some(text.to_owned()) };
    let mut outcome = match optional(outcome) {
        None => None,
        Some(word) => Some(known(&Outcome::ALL, |o| o.as_str(), &word).ok_or_else(wrong)?),
    };
    let mut cause = match optional(cause) {
        None => None,
        Some(word) => Some(known(&Cause::ALL, |c| c.as_str(), &word).ok_or_else(wrong)?),
    };
    // Nobody is left who could finish it: the lock is free, or the machine has booted since.
    if outcome.is_none() && (*alive != "yes" || boot != now) {
        outcome = Some(Outcome::Interrupted);
        cause = Some(Cause::Killed);
    }
    Ok(Entry {
        id: id.parse().map_err(|_| wrong())?,
        system: system.parse().map_err(|_| wrong())?,
        previous: previous.parse().map_err(|_| wrong())?,
        phase: known(&Phase::ALL, |p| p.as_str(), phase).ok_or_else(wrong)?,
        outcome,
        cause,
        started: seconds(started).ok_or_else(wrong)?,
        finished: seconds(finished),
        revision: (*revision).to_owned(),
        asker: (*asker).to_owned(),
        forgiven: if *forgiven == "yes" { Forgiven::Yes } else { Forgiven::No },
        detail: optional(detail).unwrap_or_default(),
    })
}

/// The value whose word this is.
pub fn known<T: Copy>(all: &[T], word_of: impl Fn(T) -> &'static str, word: &str) -> Option<T> {
    all.iter().copied().find(|value| word_of(*value) == word)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SYSTEM: &str = "/nix/store/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-nixos-system-web1-1";
    const OTHER: &str = "/nix/store/bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb-nixos-system-web1-2";

    fn line(phase: &str, outcome: &str, boot: &str, alive: &str) -> String {
        let id = "20261122T170102Z-1f2e3d4c";
        format!(
            "{id}\t{OTHER}\t{SYSTEM}\t{phase}\t{outcome}\t-\t1795000000\t-\tabc\tcontroller x\t{boot}\t-\tB1\t{alive}\tno"
        )
    }

    #[test]
    fn a_banner_before_the_reply_is_dropped() {
        let reply = Reply::parse(b"Welcome!\r\nfoo\r\ndriftless/1 f00\r\nok\r\nend f00\r\n", "f00").unwrap();
        assert_eq!(reply.get("ok"), Some(""));
    }

    #[test]
    fn an_answer_that_was_cut_short_is_no_answer() {
        assert_eq!(Reply::parse(b"driftless/1 f\nok\n", "f"), Err(FrameError::CutShort { lines: 1 }));
        assert!(matches!(Reply::parse(b"sh: not found\n", "f"), Err(FrameError::NoFrame { .. })));
        assert!(matches!(Reply::parse(b"driftless/1 old\nend old\n", "f"), Err(FrameError::NoFrame { .. })));
    }

    #[test]
    fn an_unfinished_switch_without_its_watcher_was_interrupted() {
        assert_eq!(entry(&line("contact", "-", "B1", "yes")).unwrap().outcome, None);
        assert_eq!(entry(&line("contact", "-", "B1", "no")).unwrap().outcome, Some(Outcome::Interrupted));
        assert_eq!(entry(&line("contact", "-", "B0", "yes")).unwrap().outcome, Some(Outcome::Interrupted));
        assert_eq!(
            entry(&line("finished", "succeeded", "B0", "no")).unwrap().outcome,
            Some(Outcome::Succeeded)
        );
    }

    #[test]
    fn a_journal_line_that_says_nonsense_is_an_error_not_a_guess() {
        assert!(entry("too\tfew").is_err());
        assert!(entry(&line("dancing", "-", "B1", "yes")).is_err());
        assert!(entry(&line("finished", "great", "B1", "yes")).is_err());
    }

    #[test]
    fn an_entry_that_cannot_be_read_hides_neither_the_others_nor_the_node() {
        let good = line("finished", "succeeded", "B1", "no");
        let text = format!(
            "driftless/1 f\nboot-id 11111111-2222-3333-4444-555555555555\nuptime 9\nrunning {SYSTEM}\ngeneration 3\n\
             entry {good}\nentry \u{0}\u{0}\u{0}\nentry {}\nend f\n",
            line("dancing", "-", "B1", "no")
        );
        let state = Reply::parse(text.as_bytes(), "f").unwrap().node_state().unwrap();
        assert_eq!(*state.journal, [entry(&good).unwrap()]);
        assert_eq!(state.generation, Some(3));
    }

    #[test]
    fn the_journal_is_in_the_order_of_the_node_whatever_the_clocks_of_those_who_asked() {
        let (old, new) = ("20200101T000000Z-00000001", "20261122T170102Z-1f2e3d4c");
        let first = line("finished", "succeeded", "B1", "no");
        let second = first.replace(new, old);
        let text = format!(
            "driftless/1 f\nboot-id 11111111-2222-3333-4444-555555555555\nuptime 1\nrunning {SYSTEM}\nentry {first}\nentry {second}\nend f\n"
        );
        let state = Reply::parse(text.as_bytes(), "f").unwrap().node_state().unwrap();
        let ids: Vec<&str> = state.journal.iter().map(|entry| entry.id.as_str()).collect();
        assert_eq!(ids, [new, old]);
    }

    #[test]
    fn a_pin_reads_back_as_it_was_written() {
        let until = PinEnd::NextRelease(SYSTEM.parse().unwrap());
        let text = format!(
            "driftless/1 f\npin by alice\npin until {}\npin reason 3 a.m. fix\nend f\n",
            pin_end(&until)
        );
        let pin = Reply::parse(text.as_bytes(), "f").unwrap().pin().unwrap();
        assert_eq!(pin, Pin { by: "alice".into(), reason: "3 a.m. fix".into(), until });
    }
}
