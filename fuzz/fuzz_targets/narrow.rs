//! The same as `ops` with small words, so that the limits of the counts lie within reach.
//!
//! Build it with `RUSTFLAGS="--cfg narrow"`; without, it is `ops` once more.
#![no_main]

use devfolio::model::History;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|history: History| {
    if let Err(divergence) = devfolio::subject::run_quickly(&history) {
        panic!("{divergence}");
    }
});
