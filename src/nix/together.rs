//! Asks together what is asked at the same time. Knows no program: what is asked, and how, is the caller's.
//!
//! One process answers at a time. Who asks while it runs goes with the next one, together with all others who came by
//! then; who asks first never waits for company.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;

/// Askers of one kind of question `Q`, to whom an answer `A` can be given that is for several of them.
#[derive(Debug)]
pub(super) struct Together<Q, A, E> {
    /// Those whom no process answers yet, the longest waiting first.
    waiting: Mutex<Vec<Asker<Q, A, E>>>,
    /// Held by the one that asks.
    asking: tokio::sync::Mutex<()>,
}

/// Somebody who waits; one who gave up has dropped the other end of `reply`.
#[derive(Debug)]
struct Asker<Q, A, E> {
    question: Q,
    /// Dropped without a word where the question has to be asked alone.
    reply: oneshot::Sender<Result<Arc<A>, E>>,
}

impl<Q, A, E> Default for Together<Q, A, E> {
    fn default() -> Self {
        Self { waiting: Mutex::default(), asking: tokio::sync::Mutex::default() }
    }
}

impl<Q, A, E> Together<Q, A, E>
where
    Q: Clone + Send + 'static,
    A: Send + Sync + 'static,
    E: Send + 'static,
{
    /// What `run` answers to this question and to those of others; it has to be the same `run` for all who ask here.
    ///
    /// Dropping the future disturbs nobody else; the process ends when none of those is left for whom it was started.
    /// Has to be called within a Tokio runtime.
    ///
    /// # Errors
    ///
    /// Those of `run` for this question alone: where it fails for several, each of them is asked again without the others,
    /// all at once.
    pub(super) async fn ask<F>(
        self: &Arc<Self>,
        question: Q,
        run: impl FnOnce(Vec<Q>) -> F + Clone + Send + 'static,
    ) -> Result<Arc<A>, E>
    where
        F: Future<Output = Result<A, E>> + Send,
    {
        let (reply, answer) = oneshot::channel();
        self.waiting().push(Asker { question: question.clone(), reply });
        // A task of its own: a future that nobody polls for a while, or ever again, must not hold up those behind it.
        let (together, first) = (self.clone(), run.clone());
        tokio::spawn(async move { together.ask_for_all(first).await });
        match answer.await {
            Ok(answer) => answer,
            Err(_) => run(vec![question]).await.map(Arc::new),
        }
    }

    /// Asks for all who wait when it is its turn: mostly for the one who started it, at times for none any more.
    async fn ask_for_all<F>(&self, run: impl FnOnce(Vec<Q>) -> F)
    where
        F: Future<Output = Result<A, E>>,
    {
        let _turn = self.asking.lock().await;
        let mut askers = std::mem::take(&mut *self.waiting());
        askers.retain(|asker| !asker.reply.is_closed());
        if askers.is_empty() {
            return;
        }
        let questions = askers.iter().map(|asker| asker.question.clone()).collect();
        let answer = tokio::select! {
            answer = run(questions) => answer,
            () = all_gone(&mut askers) => return,
        };
        match answer {
            Ok(answer) => {
                let answer = Arc::new(answer);
                for asker in askers {
                    // Whoever gave up meanwhile does not hear it.
                    let _ = asker.reply.send(Ok(answer.clone()));
                }
            }
            Err(error) => {
                // Whose fault it is, nobody can tell where there are several: they are dropped, and ask alone.
                if let (Some(only), true) = (askers.pop(), askers.is_empty()) {
                    let _ = only.reply.send(Err(error));
                }
            }
        }
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, Vec<Asker<Q, A, E>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn all_gone<Q, A, E>(askers: &mut [Asker<Q, A, E>]) {
    for asker in askers {
        asker.reply.closed().await;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::future::poll_fn;
    use std::task::Poll;
    use std::time::Duration;

    use futures_util::future::join_all;
    use tokio::sync::Semaphore;
    use tokio::time::timeout;

    use super::*;

    /// Stands for the program: notes what it is asked, answers when it is let, refuses what has a 13 in it.
    #[derive(Clone)]
    struct Program {
        asked: Arc<Mutex<Vec<Vec<u32>>>>,
        ended: Arc<Mutex<usize>>,
        let_go: Arc<Semaphore>,
        together: Arc<Together<u32, BTreeSet<u32>, String>>,
    }

    /// Counts those that come to an end of any kind.
    struct Running(Arc<Mutex<usize>>);

    impl Drop for Running {
        fn drop(&mut self) {
            *self.0.lock().unwrap() += 1;
        }
    }

    impl Program {
        fn new(let_go: usize) -> Self {
            let let_go = Arc::new(Semaphore::new(let_go));
            Self { asked: Arc::default(), ended: Arc::default(), let_go, together: Arc::default() }
        }

        async fn ask(&self, number: u32) -> Result<Arc<BTreeSet<u32>>, String> {
            let program = self.clone();
            let run = |numbers: Vec<u32>| async move {
                let _running = Running(program.ended.clone());
                program.asked.lock().unwrap().push(numbers.clone());
                program.let_go.acquire().await.unwrap().forget();
                if numbers.contains(&13) {
                    Err(format!("{numbers:?}"))
                } else {
                    Ok(numbers.into_iter().collect())
                }
            };
            timeout(Duration::from_secs(20), self.together.ask(number, run)).await.expect("hangs")
        }

        fn asking(&self, number: u32) -> tokio::task::JoinHandle<Result<Arc<BTreeSet<u32>>, String>> {
            let program = self.clone();
            tokio::spawn(async move { program.ask(number).await })
        }

        /// So many wait, and so many processes were started.
        async fn until(&self, waiting: usize, started: usize) {
            for _ in 0..10_000 {
                if self.together.waiting().len() == waiting && self.asked.lock().unwrap().len() == started {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            panic!("{} wait, asked was {:?}", self.together.waiting().len(), self.asked());
        }

        fn asked(&self) -> Vec<Vec<u32>> {
            self.asked.lock().unwrap().clone()
        }
    }

    #[tokio::test]
    async fn who_asks_while_a_process_runs_goes_with_the_next() {
        let program = Program::new(0);
        let first = program.asking(0);
        program.until(0, 1).await;
        let mut others = Vec::new();
        for number in 1..10 {
            others.push(program.asking(number));
            program.until(others.len(), 1).await;
        }
        program.let_go.add_permits(2);
        assert_eq!(*first.await.unwrap().unwrap(), BTreeSet::from([0]));
        for other in others {
            assert_eq!(*other.await.unwrap().unwrap(), (1..10).collect());
        }
        assert_eq!(program.asked(), [vec![0], (1..10).collect()]);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn a_thousand_at_once_all_get_an_answer_to_their_own_question() {
        let program = Program::new(usize::MAX >> 4);
        let asking: Vec<_> = (100..1100).map(|number| program.asking(number)).collect();
        for (number, answer) in (100..1100).zip(join_all(asking).await) {
            assert!(answer.unwrap().unwrap().contains(&number));
        }
        assert_eq!(program.asked().concat().len(), 1000, "nobody is asked for twice");
    }

    #[tokio::test]
    async fn what_fails_together_is_asked_alone_and_blames_only_itself() {
        let program = Program::new(100);
        let answers = join_all([1, 13, 2].map(|number| program.ask(number))).await;
        assert_eq!(answers[0], Ok(Arc::new(BTreeSet::from([1]))));
        assert_eq!(answers[1], Err("[13]".into()));
        assert_eq!(answers[2], Ok(Arc::new(BTreeSet::from([2]))));
        let asked = program.asked();
        assert_eq!(asked.len(), 4, "once together, and each alone: {asked:?}");
    }

    #[tokio::test]
    async fn what_fails_alone_is_not_asked_again() {
        let program = Program::new(100);
        assert_eq!(program.ask(13).await, Err("[13]".into()));
        assert_eq!(program.asked(), [[13]]);
    }

    #[tokio::test]
    async fn who_gives_up_takes_nobody_along() {
        let program = Program::new(0);
        let first = program.asking(1);
        program.until(0, 1).await;
        let (second, third, fourth) = (program.asking(2), program.asking(3), program.asking(4));
        program.until(3, 1).await;
        // One whose process runs, for nobody else: it ends. One who still waits: it is never asked for.
        first.abort();
        second.abort();
        program.until(0, 2).await;
        assert_eq!(*program.ended.lock().unwrap(), 1, "a process that nobody needs any more");
        assert_eq!(program.asked()[1], [3, 4]);
        // One of several whose process runs.
        third.abort();
        program.let_go.add_permits(1);
        assert_eq!(*fourth.await.unwrap().unwrap(), BTreeSet::from([3, 4]));
    }

    #[tokio::test]
    async fn one_whom_nobody_polls_holds_up_nobody() {
        let program = Program::new(0);
        let mut idle = Box::pin(program.ask(1));
        let once = poll_fn(|context| Poll::Ready(idle.as_mut().poll(context).is_pending())).await;
        assert!(once, "the program is not let yet");
        program.until(0, 1).await;
        program.let_go.add_permits(2);
        assert!(program.ask(2).await.unwrap().contains(&2));
        assert!(idle.await.unwrap().contains(&1));
    }

    #[tokio::test]
    async fn a_run_that_panics_is_its_askers_own_trouble() {
        let together = Arc::new(Together::<u32, u32, String>::default());
        let run = |numbers: Vec<u32>| async move {
            assert!(numbers.len() == 1, "together");
            Ok(numbers[0])
        };
        let answers = join_all([1, 2].map(|number| together.ask(number, run))).await;
        assert_eq!(answers, [Ok(Arc::new(1)), Ok(Arc::new(2))]);
    }
}
