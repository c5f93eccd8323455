//! A page that turns out to be bad while its folio is put for the last time.

use super::*;
use crate::meta::Tables;
use crate::pgmap::loom_tests::poison::with_list_and_tables;
use crate::pgmap::{FolioKind, PageInfo, Poisoned};

/// A page in the middle of a folio.
const BAD: Pfn = Pfn::new(2);

/// Edge `poison`: the page goes into quarantine by the last put or by whoever says that it is bad,
/// never back to free space, and its neighbours do. Weakening the fence of the record breaks it, or
/// a free that looks before its fence. One switch against the order of the threads is allowed: two
/// take minutes.
#[test]
fn poison_races_with_last_put() {
    explore_up_to(1, || {
        with_list_and_tables(BLOCK, Tables::Budget(1), |pgmap| {
            let folio = pgmap.alloc(order(2)).unwrap();
            assert!(folio.range().contains(BAD));
            pgmap.ops().write(folio.range());
            let folio = folio.publish();
            let poison_fn = |pgmap: &Shared| pgmap.poison(BAD);
            let ((), poisoned) = race(pgmap, |_| use_and_drop(folio), poison_fn);
            assert!(matches!(poisoned, Ok(Poisoned::InUse { .. } | Poisoned::Quarantined)));
            assert_eq!(pgmap.ops().nr_poisoned(), 1, "the owner was told");
            assert_eq!(pgmap.ops().nr_freed(), 1, "hooks");
            let PageInfo::Folio(bad) = pgmap.query(BAD) else { panic!("a bad page is free") };
            assert_eq!((bad.head, bad.order), (BAD, Order::ZERO));
            assert_eq!(bad.kind, FolioKind::Poisoned);
            for neighbour in [0, 1, 3, 4] {
                assert_eq!(pgmap.query(Pfn::new(neighbour)), PageInfo::Free, "{neighbour}");
            }
            assert_eq!(pgmap.stats().free_pages, BLOCK - 1);
        });
    });
}
