//! The reasons why a signature could not be checked.

/// The reason why a signature could not be checked with its contract wallet. Its text is sent to the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ContractError {
    /// The circuit breaker is open: the provider failed too often lately.
    #[error("the Ethereum provider is not well, come back later")]
    BreakerOpen,
    /// All slots were in use until the deadline.
    #[error("too many contract wallets are signing in, come back later")]
    Busy,
    /// The provider did not answer before the deadline.
    #[error("the Ethereum provider did not answer in time, come back later")]
    Timeout,
    /// The provider failed.
    #[error("the Ethereum provider failed, come back later")]
    Failed,
    /// The provider answered that it is called too often, just now or a moment ago.
    #[error("the Ethereum provider is asked too often, come back later")]
    RateLimited,
    /// The budget of this network is used up.
    #[error("too many contract wallets of this network sign in, come back later")]
    NetworkBudget,
    /// The budget of the day is used up.
    #[error("too many contract wallets sign in today, come back later")]
    DayBudget,
}
