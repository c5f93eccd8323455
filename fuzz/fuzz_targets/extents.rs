//! Extents that come, leave, stay after all, and are gone without notice.
#![no_main]

use arbitrary::Unstructured;
use devfolio::model::History;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(history) = History::arbitrary_extents(&mut Unstructured::new(bytes)) else { return };
    if let Err(divergence) = devfolio::subject::run_quickly(&history) {
        panic!("{divergence}");
    }
});
