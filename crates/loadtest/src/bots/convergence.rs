//! Compares the island of each bot with the director's assignment for it.

use std::{collections::HashMap, fmt, time::Duration};

use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};

use super::{log::SessionStatus, pool::BotPool};

/// How long a difference may last: two heartbeats, and one second for the assignment.
const CONVERGENCE_LIMIT: Duration = Duration::from_secs(3);
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// How long a director may take to respond.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);
/// At most so many differences are listed.
const MAX_LISTED: usize = 5;

/// The admin endpoints of the realm's directors.
#[derive(Debug, Clone)]
pub(crate) struct Directors {
    urls: Vec<String>,
}

/// The result of a comparison.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Convergence {
    /// Every bot with a session was seen at least once in the island that the director had for it; and
    /// every other bot received the reason why it has no session.
    pub(crate) converged: bool,
    /// How long the comparison took.
    seconds: f64,
    differ: usize,
    /// The first of the differences.
    who: Vec<Difference>,
    /// Why no director responded.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

#[derive(Debug, Serialize)]
struct Difference {
    address: String,
    /// The bot's last assigned island; `None`: none yet, or the bot has no session.
    bot: Option<String>,
    /// The island that the director assigned last.
    director: Option<String>,
}

/// An entry of a director's `/assignments`, as far as bots compare it.
#[derive(Debug, Deserialize)]
struct Assignment {
    address: String,
    island: String,
}

impl Directors {
    pub(crate) fn new(urls: &[String]) -> Self {
        let urls = urls.iter().map(|url| format!("{}/assignments", url.trim_end_matches('/'))).collect();
        Self { urls }
    }

    /// Compares until each bot has agreed with the director once, or a difference has lasted too long.
    /// Bots walk meanwhile, so one agreement is enough.
    pub(crate) async fn compare(&self, pool: &BotPool) -> Convergence {
        let began = Instant::now();
        let mut differing: Vec<usize> = (0..pool.count()).collect();
        loop {
            let fetched = self.assignments().await;
            let seconds = began.elapsed().as_secs_f64();
            let is_over = began.elapsed() >= CONVERGENCE_LIMIT;
            match fetched {
                Ok(assignments) => {
                    let mut who = Vec::new();
                    differing.retain(|&bot| {
                        let difference = difference(pool, bot, &assignments);
                        let differs = difference.is_some();
                        who.extend(difference);
                        differs
                    });
                    if differing.is_empty() || is_over {
                        who.truncate(MAX_LISTED);
                        let (differ, converged) = (differing.len(), differing.is_empty());
                        return Convergence { converged, seconds, differ, who, error: None };
                    }
                }
                Err(error) if is_over => {
                    let (differ, error) = (differing.len(), Some(error));
                    return Convergence { seconds, differ, error, ..Convergence::default() };
                }
                Err(_) => {}
            }
            sleep(POLL_INTERVAL).await;
        }
    }

    /// The leader's assignments, by address. A standby responds with an error, and the next URL is
    /// tried.
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

fn difference(pool: &BotPool, bot: usize, assignments: &HashMap<String, Assignment>) -> Option<Difference> {
    let (address, whereabouts) = {
        let log = pool.log(bot);
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
            return write!(f, "all bots are in the islands that the director assigned, after {seconds:.1} s");
        }
        write!(f, "NOT CONVERGED after {seconds:.1} s: {differ} differ")?;
        if let Some(error) = error {
            write!(f, "; no director responded: {error}")?;
        }
        let island = |island: &Option<String>| island.clone().unwrap_or_else(|| "no island".to_owned());
        who.iter().try_for_each(|Difference { address, bot, director }| {
            write!(f, "; {address} is in {}, and the director assigned {}", island(bot), island(director))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bots::numbering::Numbering;

    #[test]
    fn wrong_island_or_unexplained_disconnect_differs() {
        let reliable_every = 10.try_into().unwrap();
        let pool = BotPool::new(5, Numbering { reliable_every });
        let now = Instant::now();
        let address = |bot: usize| protocol::Address::new([bot as u8; 20]);
        for bot in 0..5 {
            pool.register(bot, address(bot));
            pool.log(bot).sessions.signed_in(now);
            pool.log(bot).sessions.assigned(now, &"I1".parse().unwrap());
        }
        let closed = client::Disconnect::Closed { code: 1012, reason: String::new() };
        pool.log(3).sessions.session_ended(now, &closed);
        pool.log(4).sessions.session_ended(now, &client::Disconnect::Broken("gone".to_owned()));
        let assigned = |bot: usize, island: &str| {
            let (address, island) = (address(bot).to_string(), island.to_owned());
            (address.clone(), Assignment { address, island })
        };
        // The director does not know the third bot.
        let assignments =
            HashMap::from([assigned(0, "I1"), assigned(1, "I2"), assigned(3, "I1"), assigned(4, "I1")]);
        let differ: Vec<usize> =
            (0..5).filter(|&bot| difference(&pool, bot, &assignments).is_some()).collect();
        assert_eq!(differ, [1, 2, 4]);
    }
}
