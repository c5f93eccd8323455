//! Two or three threads: the input is what they do, and who runs when.
//!
//! Build it with `RUSTFLAGS="--cfg sched"`, which lets others run at every access to an atomic;
//! without, each operation is one step. What a run comes to is judged as the programs of
//! `.ci/programs` are, and more closely: what was over before another operation began comes first.
#![no_main]

use devfolio::{
    AllocError, Folio, FolioInfo, FolioKind, FolioMap, FolioPin, Order, PageInfo, Pfn, PfnRange,
    PgmapCore, PgmapOps, PinKind, UniqueFolio,
};
use libfuzzer_sys::fuzz_target;

#[path = "../../src/folio/programs/hand.rs"]
mod hand;
#[path = "sched/judge.rs"]
mod judge;
#[allow(dead_code, reason = "the judge walks one history, and not all")]
#[path = "../../src/folio/programs/reference.rs"]
mod reference;
#[path = "sched/schedule.rs"]
mod schedule;
#[path = "sched/source.rs"]
mod source;
#[path = "sched/world.rs"]
mod world;

use source::Source;

/// The pages of a block of the reference.
const BLOCK: u64 = Order::BLOCK.nr_pages();

fuzz_target!(|bytes: &[u8]| {
    #[cfg(seeded_bugs)]
    if let Ok(name) = std::env::var("SEEDED_BUG") {
        assert!(devfolio::seeded::activate_concurrent(&name), "there is no bug {name}");
    }
    let mut source = Source::new(bytes);
    let (start, program) = world::program(&mut source);
    schedule::run(source, move || {
        if let Err(history) = world::run(start, &program) {
            panic!("nothing that could happen one after the other: {history:#?}");
        }
    });
});
