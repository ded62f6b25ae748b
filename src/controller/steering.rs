//! What people want of this controller: heard in the loop, which owns it, kept beside the loop, and answered when it is on
//! the disk and in the picture. Decides nothing: `model::intent` and `plan` do.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot};

use super::Desk;
use super::marks::Marks;
use super::memory::MemoryFile;
use super::state_lock::{self, StateError};
use crate::error_chain::error_chain;
use crate::intent::{IntentError, IntentFile};
use crate::model::intent::Intent;
use crate::model::intent::edit::{Asked, Done, Edit, EditError, Fleet};
use crate::model::name::NodeName;
use crate::model::release::Release;
use crate::model::snapshot::NodeView;
use crate::node::Node;
use crate::serve::steer::{Denied, Wish};

/// So many people may say something between two passes; whoever comes then is told to come again.
pub const WISHES: usize = 64;

type Views = BTreeMap<NodeName, Arc<NodeView>>;
type Answer = oneshot::Sender<Result<Done, Denied>>;

/// What people want, and who waits for an answer.
#[derive(Debug)]
pub struct Steering {
    file: IntentFile,
    intent: Arc<Intent>,
    wishes: mpsc::Receiver<Wish>,
    keeping: Option<Keeping>,
    answers: Vec<(Answer, Result<Done, Denied>)>,
    /// The marks on nodes.
    pub marks: Marks,
}

/// What is being written.
#[derive(Debug)]
struct Keeping {
    next: Arc<Intent>,
    done: Done,
    answer: Answer,
    kept: oneshot::Receiver<Result<(), IntentError>>,
}

impl Steering {
    /// Reads what people have said. Where it cannot be read, nothing is done until a person says so.
    pub fn new(state_dir: &Path, wishes: mpsc::Receiver<Wish>) -> Self {
        let file = IntentFile::of(state_dir);
        let intent = Arc::new(read(&file));
        if let Some(own) = intent.suspensions.values().next().filter(|_| intent.is_unreadable()) {
            tracing::error!("only observing until `driftless resume`: {}", own.reason);
        }
        Self { file, intent, wishes, keeping: None, answers: Vec::new(), marks: Marks::default() }
    }

    /// What counts now.
    pub fn intent(&self) -> &Arc<Intent> {
        &self.intent
    }

    /// Hears what people have said since the last pass.
    pub fn hear(&mut self, release: Option<&Release>, views: &Views, now: Timestamp, desk: &Desk) {
        let fleet = |views| release.map(|release| Fleet::of(release, views));
        if self.intent.is_stale(now) {
            Arc::make_mut(&mut self.intent).prune(now);
        }
        if !self.intent.released.is_empty()
            && let Some(fleet) = fleet(views)
        {
            Arc::make_mut(&mut self.intent).forget_released(&fleet);
        }
        loop {
            if !self.is_kept() {
                return;
            }
            let Ok(Wish { edit, by, answer }) = self.wishes.try_recv() else { return };
            let asked = Asked { by: &by, now, random: rand::random() };
            match self.intent.edited(&edit, fleet(views).as_ref(), asked) {
                Ok((next, done)) => self.keep(Arc::new(next), done, answer, desk),
                Err(error) => self.answers.push((answer, Err(error.into()))),
            }
        }
    }

    /// Has the marks on nodes written that are missing or over. Returns the nodes that have new ones.
    pub fn mark(
        &mut self,
        views: &Views,
        now: Timestamp,
        nodes: impl Fn(&NodeName) -> Option<Arc<Node>>,
        desk: &Desk,
    ) -> Vec<NodeName> {
        self.marks.start(&self.intent, views, now, nodes, desk)
    }

    /// Whether nothing is being written any more.
    fn is_kept(&mut self) -> bool {
        let Some(mut keeping) = self.keeping.take() else { return true };
        let outcome = match keeping.kept.try_recv() {
            Err(oneshot::error::TryRecvError::Empty) => {
                self.keeping = Some(keeping);
                return false;
            }
            Ok(Ok(())) => {
                self.intent = keeping.next;
                Ok(keeping.done)
            }
            Ok(Err(error)) => {
                tracing::error!(error = &error as &dyn std::error::Error, "not kept");
                Err(Denied::NotKept(error_chain(&error)))
            }
            Err(oneshot::error::TryRecvError::Closed) => Err(Denied::NotKept("it was not written".into())),
        };
        self.answers.push((keeping.answer, outcome));
        true
    }

    fn keep(&mut self, next: Arc<Intent>, done: Done, answer: Answer, desk: &Desk) {
        let (tell, kept) = oneshot::channel();
        let (file, before, after, desk) =
            (self.file.clone(), Arc::clone(&self.intent), Arc::clone(&next), desk.clone());
        tokio::task::spawn_blocking(move || {
            // The loop is gone only at shutdown, and then nobody wants to know.
            let _ = tell.send(write(&file, &before, &after));
            desk.look_again();
        });
        self.keeping = Some(Keeping { next, done, answer, kept });
    }

    /// Tells people what became of what they said: who asks for the picture after that finds it there.
    pub fn answer(&mut self) {
        for (answer, outcome) in self.answers.drain(..) {
            // Who does not wait any longer looks himself.
            let _ = answer.send(outcome);
        }
    }
}

fn read(file: &IntentFile) -> Intent {
    let now = Timestamp::now();
    match file.load() {
        Ok(mut intent) => {
            intent.prune(now);
            intent
        }
        Err(error) => Intent::unreadable(error_chain(&error), now),
    }
}

fn write(file: &IntentFile, before: &Intent, after: &Intent) -> Result<(), IntentError> {
    if before.is_unreadable() && !after.is_unreadable() {
        return file.store_beside_unreadable(after, Timestamp::now());
    }
    file.store(after)
}

/// Something that cannot be said while no controller runs.
#[derive(Debug, thiserror::Error)]
pub enum AtRestError {
    /// Somebody has the state directory, or it cannot be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// It cannot be.
    #[error(transparent)]
    Edit(#[from] EditError),
    /// It was not kept.
    #[error(transparent)]
    Intent(#[from] IntentError),
}

/// The same for a controller that does not run: it finds it when it starts. The fleet is the one that it knew last.
pub fn edit_at_rest(state_dir: &Path, edit: &Edit, by: &str) -> Result<Done, AtRestError> {
    let _lock = state_lock::take(state_dir)?;
    let file = IntentFile::of(state_dir);
    let before = read(&file);
    let release = MemoryFile::of(state_dir).load().map(|memory| memory.release);
    let fleet = release.map(|release| Fleet::of(&release, &Views::new()));
    let asked = Asked { by, now: Timestamp::now(), random: rand::random() };
    let (after, done) = before.edited(edit, fleet.as_ref(), asked)?;
    write(&file, &before, &after)?;
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::intent::edit::{Resume, Suspend};

    fn suspend(on: &str) -> Edit {
        Edit::Suspend(Suspend { on: on.parse().unwrap(), reason: "disk swap".into(), until: None })
    }

    #[test]
    fn a_controller_that_does_not_run_finds_what_was_said_meanwhile() {
        let dir = tempfile::tempdir().unwrap();
        let done = edit_at_rest(dir.path(), &suspend("web1"), "alice@laptop").unwrap();
        let (_tell, wishes) = mpsc::channel(1);
        let steering = Steering::new(dir.path(), wishes);
        assert!(steering.intent().suspensions.contains_key(&done.id.unwrap()));
        let _running = state_lock::take(dir.path()).unwrap();
        let error = edit_at_rest(dir.path(), &suspend("web1"), "alice@laptop").unwrap_err();
        assert!(matches!(error, AtRestError::State(StateError::InUse { .. })), "{error}");
    }

    #[test]
    fn what_cannot_be_read_is_left_where_it_is_until_a_person_says_resume() {
        let dir = tempfile::tempdir().unwrap();
        let file = IntentFile::of(dir.path());
        std::fs::write(file.path(), "{").unwrap();
        let error = edit_at_rest(dir.path(), &suspend("web1"), "alice").unwrap_err().to_string();
        assert!(error.contains("intent.json is damaged") && error.contains("`driftless resume`"), "{error}");
        assert_eq!(std::fs::read_to_string(file.path()).unwrap(), "{");
        edit_at_rest(dir.path(), &Edit::Resume(Resume::Unreadable), "alice").unwrap();
        assert_eq!(file.load().unwrap(), Intent::default());
        let aside = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name());
        assert!(aside.into_iter().any(|name| name.to_string_lossy().starts_with("intent.json.unreadable-")));
    }
}
