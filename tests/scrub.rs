//! Scrub policies: what comes out of free space is zero, whichever call hands it out.
//!
//! The specification says for which pages the hook is called and what becomes of them; worlds of
//! noise and one small world in full are compared with it. Then each promise, and each way to
//! fail, by its name.

#![cfg(not(miri))]
#![allow(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    missing_docs,
    reason = "a test may panic"
)]

#[path = "scrub/model.rs"]
mod model;
#[path = "scrub/promises.rs"]
mod promises;
#[path = "scrub/world.rs"]
mod world;
