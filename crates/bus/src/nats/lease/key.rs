//! The key of one lease: reading, writing and deleting its entry.

use async_nats::jetstream::kv::{Operation, Store};

use super::error::{LeaseError, with_timeout};

/// The key of one lease in the open bucket.
#[derive(Clone)]
pub(super) struct LeaseKey {
    pub(super) store: Store,
    pub(super) name: &'static str,
}

/// The entry in the key.
pub(super) enum Entry {
    /// No entry, or a deleted one. The revision to replace.
    Free(u64),
    /// A candidate's entry.
    Held(HeldEntry),
}

/// The entry of the candidate that holds the lease, `<candidate> <epoch>`: 16 hex digits and a decimal.
pub(super) struct HeldEntry {
    pub(super) candidate: String,
    /// `None` if it is malformed.
    pub(super) epoch: Option<u64>,
    /// The revision to replace.
    pub(super) revision: u64,
}

impl LeaseKey {
    /// Reads the key.
    pub(super) async fn read(&self) -> Result<Entry, LeaseError> {
        let found = with_timeout(self.store.entry(self.name)).await?;
        let found = found.map_err(|error| LeaseError::from_client_error(&error))?;
        Ok(match found {
            None => Entry::Free(0),
            Some(entry) if entry.operation != Operation::Put => Entry::Free(entry.revision),
            Some(entry) => {
                let text = String::from_utf8_lossy(&entry.value);
                let (candidate, epoch) = text.split_once(' ').unwrap_or((&text, ""));
                let (candidate, epoch) = (candidate.to_owned(), epoch.parse().ok());
                Entry::Held(HeldEntry { candidate, epoch, revision: entry.revision })
            }
        })
    }

    /// Replaces the entry of this revision with one of this candidate. Returns the revision of the new entry.
    pub(super) async fn write(&self, candidate: &str, epoch: u64, revision: u64) -> Result<u64, LeaseError> {
        let entry = format!("{candidate} {epoch}");
        let written = with_timeout(self.store.update(self.name, entry.into(), revision)).await?;
        written.map_err(|error| LeaseError::from_update_error(&error))
    }

    /// Deletes the entry of this revision. Returns whether that succeeded.
    pub(super) async fn delete(&self, revision: u64) -> Result<bool, LeaseError> {
        let deleted = with_timeout(self.store.delete_expect_revision(self.name, Some(revision))).await?;
        Ok(deleted.is_ok())
    }
}
