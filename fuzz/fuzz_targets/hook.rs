//! Hooks that do anything: allocate, split, publish, hand over, nest and panic, against a ledger.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Err(what) = devfolio::subject::run_hook(bytes) {
        panic!("{what}");
    }
});
