//! Mapping: several address spaces over real page tables, against flat ones.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Err(what) = devfolio::subject::run_mapping(bytes) {
        panic!("{what}");
    }
});
