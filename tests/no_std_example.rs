//! The life cycle that the bare-metal image runs, run here.
//!
//! `.ci/no-panic` links it for a machine without an operating system.

#![allow(missing_docs, unreachable_pub, reason = "the file belongs to a binary")]

#[path = "../no_std-example/src/life.rs"]
mod life;

#[test]
fn the_life_cycle_of_the_bare_metal_image_succeeds() {
    assert_eq!(life::run(), Ok(()));
}
