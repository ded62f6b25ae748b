//! Health checks of a node: before it is touched, between contact and verdict, and again and again while it is left alone.
//! Each has its own pace. Those from here are asked by `probe`, those from the node by `on_node`.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::sync::Semaphore;

use super::{Node, NodeError, Refusal};
use crate::error_chain::error_chain;
use crate::model::health::{Check, Checks, Vantage, What};
use crate::probe::{self, About};

mod on_node;

/// So many are asked of the node at once: an sshd lets few sessions share a connection (sshd_config(5), MaxSessions).
const SESSIONS: usize = 4;
/// A failed check's output in a reason, characters.
const MOST_OUTPUT: usize = 300;
/// The shortest time for one try: a check that has no time left shall say so, not be cut off.
const LEAST: Duration = Duration::from_secs(1);

/// Why a check has not passed.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Failed {
    /// It says so.
    Said(String),
    /// The node runs what its own system declares, and that does not declare it.
    Unknown(String),
}

impl Failed {
    fn into_words(self) -> String {
        match self {
            Self::Said(said) | Self::Unknown(said) => said,
        }
    }
}

/// When a check is asked: a managed node knows those before a switch by names of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    Before,
    After,
}

/// How one check of a round ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// Kind and name: `http web`.
    pub name: String,
    /// What it said, where it failed; one line.
    pub failed: Option<String>,
}

impl Node {
    /// Waits until each check has passed as often in a row as it has to. The error is the reason of the reject: which
    /// checks did not, and what they said last.
    pub(super) async fn await_health(
        &self,
        checks: &Checks,
        within: Duration,
        show: impl Fn(String),
    ) -> Result<(), String> {
        let until = Instant::now() + within;
        let (list, places) = (checks.list(), Semaphore::new(SESSIONS));
        let board = Board { list: &list, passed: Mutex::new(vec![0; list.len()]), show };
        board.told();
        let ended = join_all(list.iter().enumerate().map(async |(number, check)| {
            let (passed, last) = (|passed| board.set(number, passed), Mutex::new(None));
            let waiting = self.until_passed(check, until, &places, (passed, &last));
            // Those that waited for others to be asked have no time left, and the node's own deadline does not wait.
            let cut = tokio::time::timeout_at((until + LEAST).into(), waiting).await;
            let said = || last.into_inner().ok().flatten().unwrap_or_else(|| "no answer in time".into());
            cut.unwrap_or_else(|_| Err(said())).map_err(|said| format!("{check}: {said}"))
        }));
        let failed: Vec<String> = ended.await.into_iter().filter_map(Result::err).collect();
        if failed.is_empty() { Ok(()) } else { Err(failed.join("; ")) }
    }

    async fn until_passed(
        &self,
        check: &Check<'_>,
        until: Instant,
        places: &Semaphore,
        (show, last): (impl Fn(u32), &Mutex<Option<String>>),
    ) -> Result<(), String> {
        let wanted = check.pace.successes.get();
        let mut passed = 0;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let said = match self
                .try_check(check, Moment::After, check.pace.timeout.min(left).max(LEAST), places)
                .await
            {
                Ok(()) => {
                    passed += 1;
                    None
                }
                Err(failed) => {
                    passed = 0;
                    Some(failed.into_words())
                }
            };
            show(passed);
            if let (Ok(mut last), Some(said)) = (last.lock(), &said) {
                *last = Some(said.clone());
            }
            if passed >= wanted {
                return Ok(());
            }
            if Instant::now() + check.pace.period > until {
                return Err(
                    said.unwrap_or_else(|| format!("passed only {passed} of {wanted} times in a row"))
                );
            }
            tokio::time::sleep(check.pace.period).await;
        }
    }

    /// Asks each check of a node that is left alone; one that fails once has failed. What the node does not know is not
    /// told: it runs another system.
    pub async fn check_health(&self) -> Vec<Checked> {
        self.round(&self.spec.health_checks.after, Moment::After).await
    }

    /// What has to hold before anything is brought to the node. It is asked once: the next pass asks again.
    pub(super) async fn is_ready(&self) -> Result<(), NodeError> {
        let round = self.round(&self.spec.health_checks.before, Moment::Before).await;
        match round.into_iter().find_map(|Checked { name, failed }| Some((name, failed?))) {
            None => Ok(()),
            Some((check, said)) => Err(NodeError::Refused {
                node: self.name.clone(),
                refusal: Refusal::NotReady { check, said },
            }),
        }
    }

    async fn round(&self, checks: &Checks, moment: Moment) -> Vec<Checked> {
        let (list, places) = (checks.list(), Semaphore::new(SESSIONS));
        let asked = list.iter().map(async |check| {
            let failed = match self.pass(check, moment, &places).await {
                Ok(()) => None,
                Err(Failed::Said(said)) => Some(said),
                Err(Failed::Unknown(said)) => {
                    tracing::debug!(node = %self.name, %check, said, "not asked");
                    return None;
                }
            };
            Some(Checked { name: check.to_string(), failed })
        });
        join_all(asked).await.into_iter().flatten().collect()
    }

    /// As many times in a row as it has to.
    async fn pass(&self, check: &Check<'_>, moment: Moment, places: &Semaphore) -> Result<(), Failed> {
        for number in 0..check.pace.successes.get() {
            if number > 0 {
                tokio::time::sleep(check.pace.period).await;
            }
            self.try_check(check, moment, check.pace.timeout.max(LEAST), places).await?;
        }
        Ok(())
    }

    async fn try_check(
        &self,
        check: &Check<'_>,
        moment: Moment,
        longest: Duration,
        places: &Semaphore,
    ) -> Result<(), Failed> {
        let about = self.about();
        let outcome = match (check.what, check.vantage()) {
            (What::Http(http), Vantage::Controller) => probe::http(http, &about, longest).await,
            (What::Tcp(tcp), Vantage::Controller) => probe::tcp(tcp, &about, longest).await,
            (What::Prometheus(prometheus), _) => probe::prometheus(prometheus, &about, longest).await,
            (What::Unit | What::Command(_), _) | (What::Http(_) | What::Tcp(_), Vantage::Node) => {
                // Never closed; without a place it would merely be one session too many.
                let _place = places.acquire().await;
                return self.check_on_node(check, moment, &about, longest).await;
            }
        };
        outcome.map_err(|error| Failed::Said(short(&error_chain(&error))))
    }

    /// How checks name the node.
    fn about(&self) -> About {
        let way = self.ways.declared();
        // What ssh connects to instead (ssh_config(5)).
        let named = way.ssh_options.iter().find(|(key, _)| key.eq_ignore_ascii_case("hostname"));
        let host = match (named, way.host.as_str()) {
            (_, "local") => "localhost",
            (Some((_, host)), _) => host,
            (None, host) => host.rsplit_once('@').map_or(host, |(_, host)| host),
        };
        About { node: self.name.to_string(), host: host.to_owned() }
    }
}

/// One line, and not an endless one.
fn short(said: &str) -> String {
    let words: Vec<&str> = said.split_whitespace().collect();
    words.join(" ").chars().take(MOST_OUTPUT).collect()
}

/// What is shown of checks that are waited for.
struct Board<'a, Show> {
    list: &'a [Check<'a>],
    /// How often each has passed in a row.
    passed: Mutex<Vec<u32>>,
    show: Show,
}

impl<Show: Fn(String)> Board<'_, Show> {
    fn set(&self, number: usize, passed: u32) {
        if let Ok(mut all) = self.passed.lock() {
            all[number] = passed;
        }
        self.told();
    }

    fn told(&self) {
        let Ok(passed) = self.passed.lock() else { return };
        let words = words(self.list, &passed);
        drop(passed);
        (self.show)(words);
    }
}

/// The first check that is still waited for, and how many are not.
fn words(list: &[Check<'_>], passed: &[u32]) -> String {
    let is_open = |(check, passed): &(&Check<'_>, &u32)| **passed < check.pace.successes.get();
    let mut open = list.iter().zip(passed).filter(is_open);
    let Some((check, times)) = open.next() else { return "all passed".into() };
    let done = list.len() - 1 - open.count();
    let often = match check.pace.successes.get() {
        1 => String::new(),
        wanted => format!(": {times} of {wanted}"),
    };
    match list.len() {
        1 => format!("{check}{often}"),
        all => format!("{check}{often}; {done} of {all} checks passed"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_waited_for_is_said_with_how_far_it_is() {
        let checks = serde_json::json!({
            "units": ["a.service"], "http": { "web": { "url": "http://x/", "successes": 3 } },
        });
        let checks: Checks = serde_json::from_value(checks).unwrap();
        let list = checks.list();
        assert_eq!(words(&list, &[0, 0]), "unit a.service; 0 of 2 checks passed");
        assert_eq!(words(&list, &[1, 2]), "http web: 2 of 3; 1 of 2 checks passed");
        assert_eq!(words(&list[1..], &[2]), "http web: 2 of 3");
        assert_eq!(words(&list, &[1, 3]), "all passed");
    }

    #[test]
    fn what_a_check_said_is_one_line() {
        assert_eq!(short(" a\n\tb  c\n"), "a b c");
        assert_eq!(short(&"x".repeat(9999)).len(), MOST_OUTPUT);
    }
}
