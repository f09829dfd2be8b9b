use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;

/// How many sockets may be on their way in at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DoorLimits {
    /// In total.
    pub total: usize,
    /// From one IP address.
    pub per_ip: usize,
}

/// Counts sockets that have not signed in yet. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Door(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    limits: DoorLimits,
    waiting: Mutex<Waiting>,
    closed: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct Waiting {
    total: usize,
    by_ip: HashMap<IpAddr, usize>,
}

/// Why a socket must come back later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// The server is busy with others.
    #[error("too many connections are signing in, come back later")]
    Total,
    /// The server is about to stop.
    #[error("the server is restarting, come back later")]
    Closed,
    /// This address has too many of its own under way.
    #[error("too many connections of this address are signing in, come back later")]
    PerIp,
}

/// A place in the door, given back when dropped.
#[derive(Debug)]
pub struct Ticket {
    door: Arc<Inner>,
    ip: IpAddr,
}

impl Door {
    /// A door that lets so many through at a time.
    pub fn new(limits: DoorLimits) -> Self {
        Self(Arc::new(Inner { limits, waiting: Mutex::default(), closed: watch::Sender::new(false) }))
    }

    /// Takes a place for a socket from `ip`, or says what is full.
    pub fn enter(&self, ip: IpAddr) -> Result<Ticket, Full> {
        let limits = self.0.limits;
        let mut waiting = self.0.lock();
        if *self.0.closed.borrow() {
            return Err(Full::Closed);
        }
        if waiting.total >= limits.total {
            return Err(Full::Total);
        }
        let of_ip = waiting.by_ip.entry(ip).or_default();
        if *of_ip >= limits.per_ip {
            return Err(Full::PerIp);
        }
        *of_ip += 1;
        waiting.total += 1;
        Ok(Ticket { door: self.0.clone(), ip })
    }

    /// Lets nobody in any more.
    pub fn close(&self) {
        self.0.closed.send_replace(true);
    }

    /// Waits until the door is closed, so that whoever is half way in can be told.
    pub async fn closed(&self) {
        // The sender is this door's own; it does not go before.
        let _ = self.0.closed.subscribe().wait_for(|&closed| closed).await;
    }

    /// How many are on their way in.
    pub fn waiting(&self) -> usize {
        self.0.lock().total
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut waiting = self.door.lock();
        waiting.total -= 1;
        if let Some(of_ip) = waiting.by_ip.get_mut(&self.ip) {
            *of_ip -= 1;
            if *of_ip == 0 {
                waiting.by_ip.remove(&self.ip);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_and_all_together_are_limited() {
        let door = Door::new(DoorLimits { total: 3, per_ip: 2 });
        let (one, two) = (IpAddr::from([127, 0, 0, 1]), IpAddr::from([127, 0, 0, 2]));
        let first = door.enter(one).unwrap();
        let _second = door.enter(one).unwrap();
        assert_eq!(door.enter(one).unwrap_err(), Full::PerIp);
        let _third = door.enter(two).unwrap();
        assert_eq!(door.enter(two).unwrap_err(), Full::Total);
        drop(first);
        assert!(door.enter(two).is_ok());
    }

    #[tokio::test]
    async fn a_closed_door_lets_nobody_in_and_says_so_to_those_inside() {
        let door = Door::new(DoorLimits { total: 9, per_ip: 9 });
        let _ticket = door.enter(IpAddr::from([127, 0, 0, 1])).unwrap();
        door.close();
        door.closed().await;
        assert_eq!(door.enter(IpAddr::from([127, 0, 0, 1])).unwrap_err(), Full::Closed);
    }

    #[test]
    fn nothing_stays_of_those_who_went() {
        let door = Door::new(DoorLimits { total: 9, per_ip: 9 });
        drop(door.enter(IpAddr::from([127, 0, 0, 1])));
        assert_eq!(door.waiting(), 0);
        assert!(door.0.lock().by_ip.is_empty());
    }
}
