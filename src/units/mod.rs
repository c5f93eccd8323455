//! Units as types: a page frame number, the size of a folio, a run of pages.
//!
//! A page frame number is a `u64` of an abstract index space and may take any value; everything
//! here is total over that space. The last page is `u64::MAX`, so a run is named by its first page
//! and its length, or by its first and its last page, and never by one past its end.

mod cold;
mod order;
mod pfn;
mod range;

pub(crate) use cold::cold;
pub use order::Order;
pub use pfn::Pfn;
pub use range::{PfnRange, RangeError, Tiles};

#[cfg(all(test, not(loom)))]
mod tests;
