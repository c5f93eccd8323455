//! Waits: for the counts of a folio and for the end of a pgmap, on a clock that only sleepers move.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::panic,
    clippy::unwrap_used,
    missing_docs,
    unreachable_pub,
    reason = "a test may panic"
)]

#[path = "errors/world.rs"]
#[expect(dead_code, reason = "the other tests use the rest")]
mod world;

mod sleepers;

#[path = "waits/between.rs"]
mod between;
#[path = "waits/clock.rs"]
mod clock;
#[path = "waits/extents.rs"]
mod extents;
#[path = "waits/folios.rs"]
mod folios;
#[path = "waits/futures.rs"]
mod futures;
#[path = "waits/load.rs"]
mod load;
#[path = "waits/offline.rs"]
mod offline;
#[path = "waits/ranges.rs"]
mod ranges;
#[path = "waits/removal.rs"]
mod removal;
