//! The index: which pages are free, and nothing else.
//!
//! `zone` knows neither counts nor owners. It hands out runs of pages and takes them back, in a
//! number of steps that depends on the levels of the tree and not on what is allocated, without a
//! lock, from any context. What it needs to know about a folio is its head and its order.

mod ample;
mod bits;
mod check;
mod hand;
mod hints;
mod index;
mod line;
mod request;
mod runs;
mod search;
mod supply;
mod want;

#[cfg(all(test, loom))]
mod loom_tests;
#[cfg(all(test, not(loom)))]
mod tests;

pub use check::CheckError;
pub(crate) use hand::Handful;
pub(crate) use index::{Contents as After, Index};
pub use request::{Content, Direction, Request, SetRequest};
pub(crate) use search::{Grant, Miss};
pub(crate) use supply::{Plan, Shortage, Units};
pub(crate) use want::Want;
