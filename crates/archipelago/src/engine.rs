//! The [`Engine`]: a [world](crate::world), the inputs that change it, and the flush that evaluates it.

use std::time::Duration;

use crate::{
    event::{Input, Output},
    flush,
    inputs::{Counters, InputHandler},
    settings::{Settings, SettingsError},
    world::World,
};

/// The island engine. See the crate's documentation for its contract.
#[derive(Debug, Clone)]
pub struct Engine {
    pub(crate) settings: Settings,
    pub(crate) world: World,
    pub(crate) scratch: flush::Scratch,
    pub(crate) counters: Counters,
    /// Whether members of crowds are exchanged so that neighbours share an island. Simulations switch
    /// it off to compare.
    pub(crate) rebalances: bool,
}

impl Engine {
    /// An engine without peers or islands. `started_ms`, in milliseconds since the Unix epoch, is part
    /// of each island id: two engines that share an id prefix must not be given the same value.
    ///
    /// # Errors
    ///
    /// A value of `settings` is out of its bounds.
    pub fn new(settings: Settings, started_ms: u64) -> Result<Self, SettingsError> {
        settings.validate()?;
        Ok(Self {
            world: World::new(&settings, started_ms),
            settings,
            scratch: flush::Scratch::default(),
            counters: Counters::default(),
            rebalances: true,
        })
    }

    /// Records an event that happened at `now`. Nothing is decided before the next
    /// [`flush`](Self::flush).
    pub fn handle(&mut self, input: Input, now: Duration) {
        InputHandler { world: &mut self.world, counters: &mut self.counters, now }.handle(input);
    }

    /// Evaluates all events handled so far, updates the islands, and appends the difference to the
    /// state after the flush before to `outputs`.
    pub fn flush(&mut self, now: Duration, outputs: &mut Vec<Output>) {
        let Self { settings, world, scratch, rebalances, .. } = self;
        flush::run(world, settings, *rebalances, scratch, now, outputs);
    }
}
