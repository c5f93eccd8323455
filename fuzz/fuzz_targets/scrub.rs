//! Scrub policies over memory that is really there: nobody reads what another one wrote.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Err(what) = devfolio::subject::run_scrub(bytes) {
        panic!("{what}");
    }
});
