//! Dynamic capacity: what a device says against the rules of its lists, told page by page.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Err(what) = devfolio::subject::run_capacity(bytes) {
        panic!("{what}");
    }
});
