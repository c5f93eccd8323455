//! Images: written and read in the middle of a history, and changed on their way.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Err(what) = devfolio::subject::run_image(bytes) {
        panic!("{what}");
    }
});
