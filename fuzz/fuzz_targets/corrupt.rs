//! Corrupt metadata: a history in the middle of which bits flip; no panic, and it ends.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Err(what) = devfolio::subject::run_corrupt(bytes) {
        panic!("{what}");
    }
});
