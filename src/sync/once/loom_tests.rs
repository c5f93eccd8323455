//! Every interleaving of those who fill a cell and those who read it.

use alloc::sync::Arc;

use super::FillOnce;
use crate::sync::models::{Bytes, explore, race, race_of_three};

/// Fills the cell with bytes that were just made and touched, if it is to be had.
fn fill(once: &FillOnce<Bytes>) -> bool {
    let is_mine = once.claim();
    if is_mine {
        let bytes = Bytes::new();
        bytes.write();
        once.fill(bytes);
    }
    is_mine
}

/// Edge `fill-slot`: weakening either half breaks it.
#[test]
fn get_races_with_fill() {
    explore(|| {
        let once = Arc::new(FillOnce::new());
        let read_fn = |once: &FillOnce<Bytes>| {
            once.get().is_some_and(|bytes| {
                bytes.read();
                true
            })
        };
        let (is_filled, _) = race(&once, fill, read_fn);
        assert!(is_filled && once.get().is_some());
    });
}

/// One of two claimers fills the cell; a claim that is given up leaves it to the other.
#[test]
fn claim_races_with_claims() {
    explore(|| {
        let once = Arc::new(FillOnce::new());
        let give_up = |once: &FillOnce<Bytes>| {
            let is_mine = once.claim();
            if is_mine {
                once.unclaim();
            }
        };
        let (a, b, ()) = race_of_three(&once, fill, fill, give_up);
        assert!(!(a && b), "filled twice");
        assert_eq!(once.get().is_some(), a || b);
        assert!(a || b || once.claim(), "claimed by nobody");
    });
}
