//! Metadata: where every bit of it lies, in memory that the caller lends.
//!
//! One extent has one run of [`MetaLine`]s, cut up by plain index arithmetic ([`layout`]): a few
//! lines for the pool of tables, the movers and the CPUs; bitmaps over all regions; thirteen lines
//! for a region; a word and a half for a block, its state and the index of its table; a word for
//! the owner of each table; and 66 lines for a table. Nothing here knows what the bits mean, except
//! for the state word, whose every transition lives in [`word`].
//!
//! # Synchronization
//!
//! | edge | release half | acquire half | what it carries |
//! |------|--------------|--------------|-----------------|
//! | `init-region` | [`Meta::init_region`] | [`Meta::is_init`] | a region's words are cleared before anybody reads them |
//! | `open-table` | [`Meta::assign_reserved`] | [`Meta::table_of`] | a table's words are cleared before anybody reads them |

#[cfg(feature = "model")]
mod corrupt;
#[cfg(all(feature = "std", not(all(test, loom))))]
mod heap;
mod layout;
mod lent;
mod line;
mod memory;
mod private;
pub(crate) mod word;

#[cfg(feature = "model")]
pub use corrupt::ExpectCorrupt;
#[cfg(feature = "model")]
pub(crate) use corrupt::is_expected as is_corruption_expected;
#[cfg(all(feature = "std", not(all(test, loom))))]
pub use heap::HeapMeta;
pub(crate) use layout::{
    BLOCK_PAGES, Block, CPUS, Geometry, HINTS_BLOCK, LINE_WORDS, PAGE_LEVELS, REGION_BLOCKS,
    Region, RootMap, WORD_BITS, page_bit,
};
pub use layout::{MetaSize, Tables};
pub(crate) use lent::Lent;
#[cfg(any(test, feature = "model"))]
pub(crate) use line::WordKind;
pub use line::{MetaLine, StaticMeta};
pub(crate) use memory::{Meta, RegionLine, Table};
pub(crate) use private::PrivateMem;
pub use word::Count;
