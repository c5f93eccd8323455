//! Everything, sequential: any byte string is a history.
#![no_main]

use devfolio::model::History;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|history: History| {
    if let Err(divergence) = devfolio::subject::run_quickly(&history) {
        panic!("{divergence}");
    }
});
