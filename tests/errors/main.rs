//! Every refusal of the public API: it says what was in the way, and nothing has changed.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::panic,
    clippy::unwrap_used,
    missing_docs,
    unreachable_pub,
    reason = "a test may panic"
)]

mod world;

mod alloc;
mod attach;
mod claim;
mod counts;
mod directory;
mod image;
mod panics;
mod park;
mod shape;
