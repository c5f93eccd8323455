//! Every interleaving of those who fill a cell and those who read it.

use alloc::sync::Arc;

use super::{FillOnce, Link};
use crate::sync::models::{Bytes, explore, race, race_of_three};
use crate::sync::{AtomicU64, Ordering, fence};

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

/// Edge `fill-slot`: a value is out before the next one is in. Weakening either half breaks it.
#[test]
#[expect(unsafe_code, reason = "the promise is what is tested")]
fn claim_races_with_take() {
    explore(|| {
        let once = Arc::new(FillOnce::new());
        assert!(fill(&once));
        let take = |once: &FillOnce<Bytes>| {
            // SAFETY: Nobody reads the cell meanwhile.
            unsafe { once.take() }.unwrap().write();
        };
        let ((), is_filled) = race(&once, take, fill);
        assert_eq!(once.get().is_some(), is_filled);
    });
}

/// Edge `fill-slot`: a cell that serves again shows what it was filled with last to whoever finds
/// it by its name. Weakening either half of the name breaks it.
///
/// The grace period is a counter of those who are looking.
#[test]
#[expect(unsafe_code, reason = "the promise is what is tested")]
fn get_by_name_races_with_reuse() {
    struct Named {
        once: FillOnce<Bytes>,
        link: Link,
        nr_looking: AtomicU64,
    }
    explore(|| {
        let (once, link, nr_looking) = (FillOnce::new(), Link::new(), AtomicU64::new(0));
        let named = Arc::new(Named { once, link, nr_looking });
        assert!(fill(&named.once));
        named.link.set(1);
        let look = |named: &Named| {
            named.nr_looking.fetch_add(1, Ordering::Relaxed);
            fence(Ordering::SeqCst);
            if named.link.get() == 1 {
                named.once.get().unwrap().read();
            }
            named.nr_looking.fetch_sub(1, Ordering::Release);
        };
        let reuse = |named: &Named| {
            named.link.set(0);
            fence(Ordering::SeqCst);
            if named.nr_looking.load(Ordering::Acquire) == 0 {
                // SAFETY: Nobody is looking, and who begins to look finds no name.
                unsafe { named.once.take() }.unwrap().write();
                assert!(fill(&named.once));
                named.link.set(1);
            }
        };
        race(&named, look, reuse);
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
