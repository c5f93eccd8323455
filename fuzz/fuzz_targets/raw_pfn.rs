//! Any page number at every entry that takes one, against the specification and naive oracles.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Err(what) = devfolio::subject::run_raw_pfn(bytes) {
        panic!("{what}");
    }
});
