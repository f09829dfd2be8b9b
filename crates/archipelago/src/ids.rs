//! Indexes into the tables of the engine: one type for each table, so that the compiler rejects the index of another.
//!
//! An index is stored plus one, so that zero is free for `None`: an `Option` of an index is as large as the index.

use std::num::{NonZeroU16, NonZeroU32};

/// An index into one table, from 0.
pub(crate) trait TableIndex: Copy {
    /// The index of an entry by its position; `None` beyond the largest position.
    fn try_new(position: usize) -> Option<Self>;

    /// The position of the entry in its table.
    fn position(self) -> usize;

    /// The index of an entry by its position, which is not beyond the largest.
    fn new(position: usize) -> Self {
        Self::try_new(position).expect("fewer entries than the index type can number")
    }

    /// The indexes of a table with this number of entries.
    fn first(count: usize) -> impl DoubleEndedIterator<Item = Self> + use<Self> {
        (0..count).map(Self::new)
    }
}

macro_rules! table_indexes {
    ($($(#[$doc:meta])* $visibility:vis $name:ident: $representation:ty, $integer:ty;)+) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(transparent)]
        $visibility struct $name($representation);

        impl TableIndex for $name {
            #[inline]
            fn try_new(position: usize) -> Option<Self> {
                let number = <$integer>::try_from(position).ok()?;
                <$representation>::new(number.wrapping_add(1)).map(Self)
            }

            #[inline]
            fn position(self) -> usize {
                self.0.get() as usize - 1
            }
        }

        const _: () = assert!(size_of::<Option<$name>>() == size_of::<$integer>());
    )+};
}

table_indexes! {
    /// A known peer. The index is reused after the peer is removed.
    pub(crate) PeerIndex: NonZeroU32, u32;
    /// An island. The index is reused after the island is closed; its [serial](crate::island_ids::Serial) is not.
    pub(crate) IslandIndex: NonZeroU32, u32;
    /// A node of the registry.
    pub(crate) NodeIndex: NonZeroU16, u16;
    /// A zone. All indexes of zones are invalid after the rules in force changed.
    pub(crate) ZoneIndex: NonZeroU32, u32;
    /// A set of capabilities for which size limits are computed.
    pub(crate) CapabilitySetIndex: NonZeroU16, u16;
    /// A rule, in the order in which rules are tried.
    pub(crate) RuleIndex: NonZeroU32, u32;
    /// An area that rules name: its position in [`Rules::areas`](crate::rules::Rules::areas).
    pub AreaIndex: NonZeroU32, u32;
    /// A cell of the spatial index.
    pub(crate) CellIndex: NonZeroU32, u32;
    /// A group of the spatial index: the members of one island and one zone in one cell.
    pub(crate) GroupIndex: NonZeroU32, u32;
    /// The entry of a peer in the spatial index.
    pub(crate) EntryIndex: NonZeroU32, u32;
    /// A peer that moved since the last flush, in the order of the moves.
    pub(crate) MoveIndex: NonZeroU32, u32;
    /// A piece of a crowd in the cache of the rebalance phase.
    pub(crate) PieceIndex: NonZeroU32, u32;
}

impl ZoneIndex {
    /// The zone of all ground outside every area: the first zone.
    pub(crate) const OPEN: Self = Self(NonZeroU32::MIN);
}
