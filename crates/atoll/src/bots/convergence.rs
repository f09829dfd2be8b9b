//! Whether what bots were told is what the director told them, as far as it knows.

use std::{collections::HashMap, fmt, time::Duration};

use serde::Serialize;
use tokio::time::{Instant, sleep};

use super::{bot_pool::BotPool, sessions::SessionStatus};
use crate::admin::Assignment;

/// How long a difference may last: two heartbeats, and a second for the answer.
const CONVERGENCE_LIMIT: Duration = Duration::from_secs(3);
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// How long a director may take to answer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);
/// Those who differ that are named.
const MAX_LISTED: usize = 5;

/// Where directors answer their operators.
#[derive(Debug, Clone)]
pub(crate) struct Directors {
    urls: Vec<String>,
}

/// What was found.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Convergence {
    /// Every bot that has a session was seen in the island where the director had it; and every other
    /// bot was told why it has none.
    pub(crate) converged: bool,
    /// How long that took.
    seconds: f64,
    differ: usize,
    /// The first of those who differ.
    who: Vec<Difference>,
    /// Why no director could be asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

#[derive(Debug, Serialize)]
struct Difference {
    address: String,
    /// The island of which its gateway told it last; `None`: of none, or it has no session.
    bot: Option<String>,
    /// The island of which the director told it last.
    director: Option<String>,
}

impl Directors {
    pub(crate) fn new(urls: &[String]) -> Self {
        let urls = urls.iter().map(|url| format!("{}/assignments", url.trim_end_matches('/'))).collect();
        Self { urls }
    }

    /// Looks until everybody has been seen where the director had them, or a difference has lasted for
    /// too long. People walk meanwhile: it is enough to agree once.
    pub(crate) async fn compare(&self, crowd: &BotPool) -> Convergence {
        let began = Instant::now();
        let mut unsettled: Vec<usize> = (0..crowd.count()).collect();
        loop {
            let answer = self.assignments().await;
            let seconds = began.elapsed().as_secs_f64();
            let is_over = began.elapsed() >= CONVERGENCE_LIMIT;
            match answer {
                Ok(assignments) => {
                    let mut who = Vec::new();
                    unsettled.retain(|&bot| {
                        let difference = difference(crowd, bot, &assignments);
                        let differs = difference.is_some();
                        who.extend(difference);
                        differs
                    });
                    if unsettled.is_empty() || is_over {
                        who.truncate(MAX_LISTED);
                        let (differ, converged) = (unsettled.len(), unsettled.is_empty());
                        return Convergence { converged, seconds, differ, who, error: None };
                    }
                }
                Err(error) if is_over => {
                    let (differ, error) = (unsettled.len(), Some(error));
                    return Convergence { seconds, differ, error, ..Convergence::default() };
                }
                Err(_) => {}
            }
            sleep(POLL_INTERVAL).await;
        }
    }

    /// What the director that leads told everybody, by address.
    async fn assignments(&self) -> Result<HashMap<String, Assignment>, String> {
        let mut errors = Vec::new();
        for url in &self.urls {
            match self.fetch(url).await {
                Ok(assignments) => {
                    let by_address = |assignment: Assignment| (assignment.address.clone(), assignment);
                    return Ok(assignments.into_iter().map(by_address).collect());
                }
                Err(error) => errors.push(error.to_string()),
            }
        }
        Err(errors.join("; "))
    }

    async fn fetch(&self, url: &str) -> reqwest::Result<Vec<Assignment>> {
        client::http_client(url)?
            .get(url)
            .timeout(REQUEST_TIMEOUT)
            .send()
            .await?
            .error_for_status()?
            .json()
            .await
    }
}

fn difference(crowd: &BotPool, bot: usize, assignments: &HashMap<String, Assignment>) -> Option<Difference> {
    let (address, whereabouts) = {
        let log = crowd.log(bot);
        (log.address?.to_string(), log.sessions.status())
    };
    let director = assignments.get(&address).map(|assignment| assignment.island.clone());
    let bot = match whereabouts {
        SessionStatus::ClosedWithReason => return None,
        SessionStatus::SignedIn(island) => island.map(|island| island.to_string()),
        SessionStatus::Lost => None,
    };
    let agree = bot.is_some() && bot == director;
    (!agree).then_some(Difference { address, bot, director })
}

impl fmt::Display for Convergence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { converged, seconds, differ, who, error } = self;
        if *converged {
            return write!(f, "everybody is where the director has them, seen after {seconds:.1} s");
        }
        write!(f, "NOT CONVERGED after {seconds:.1} s: {differ} differ")?;
        if let Some(error) = error {
            write!(f, "; no director could be asked: {error}")?;
        }
        let island = |island: &Option<String>| island.clone().unwrap_or_else(|| "nowhere".to_owned());
        who.iter().try_for_each(|Difference { address, bot, director }| {
            write!(f, "; {address} is in {}, and the director has it in {}", island(bot), island(director))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_island_or_unexplained_disconnect_differs() {
        let crowd = BotPool::new(5);
        let now = Instant::now();
        let address = |bot: usize| protocol::Address::new([bot as u8; 20]);
        for bot in 0..5 {
            crowd.register(bot, address(bot));
            crowd.log(bot).sessions.signed_in(now);
            crowd.log(bot).sessions.assigned(now, &"I1".parse().unwrap());
        }
        let closed = client::Disconnect::Closed { code: 1012, reason: String::new() };
        crowd.log(3).sessions.session_ended(now, &closed);
        crowd.log(4).sessions.session_ended(now, &client::Disconnect::Broken("gone".to_owned()));
        let told = |bot: usize, island: &str| {
            let (session, island, node) = (None, island.to_owned(), "rooms-1".to_owned());
            (
                address(bot).to_string(),
                Assignment { address: address(bot).to_string(), session, island, node },
            )
        };
        // The third is unknown to the director.
        let assignments = HashMap::from([told(0, "I1"), told(1, "I2"), told(3, "I1"), told(4, "I1")]);
        let differ: Vec<usize> =
            (0..5).filter(|&bot| difference(&crowd, bot, &assignments).is_some()).collect();
        assert_eq!(differ, [1, 2, 4]);
    }
}
