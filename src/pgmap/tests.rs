//! Unit tests of owners and exclusive folios.

use std::vec::Vec;

use super::*;
use crate::meta::{MetaLine, MetaSize, Tables};
use crate::units::{Order, Pfn, PfnRange};
use crate::zone::Request;

struct Plain;

impl PgmapOps for Plain {
    type Private = ();
}

fn lines(range: PfnRange, tables: Tables) -> Vec<MetaLine> {
    (0..MetaSize::of(range, tables).lines()).map(|_| MetaLine::ZERO).collect()
}

fn order(order: u8) -> Order {
    Order::new(order).unwrap()
}

#[test]
fn everything_released_is_whole_again() {
    for (start, nr) in
        [(0_u64, 16_u64), (3, 1000), (0, 1 << 18), (512, 3 << 18), (7, (1 << 19) + 9)]
    {
        let range = PfnRange::new(Pfn::new(start), nr).unwrap();
        let mut meta = lines(range, Tables::Dense);
        let slots = [ExtentSlot::new()];
        let pgmap = Pgmap::new(Plain, Policy::generic(), &slots);
        pgmap
            .add_extent(range, ExtentAttrs::NEW, Tables::Dense, &mut meta, Attach::Zeroed)
            .unwrap();
        pgmap.check().unwrap();
        let whole = pgmap.stats();
        assert_eq!(whole.free_pages, nr);
        for o in 0..=18 {
            let mut folios = Vec::new();
            while let Ok(folio) = pgmap.alloc(order(o)) {
                folios.push(folio);
                if folios.len() > 3000 {
                    break;
                }
            }
            pgmap.check().unwrap();
            assert!(
                !folios.is_empty()
                    || pgmap.stats().free_by_order[usize::from(o)..].iter().sum::<u64>() == 0,
                "{range} {o} {:?}",
                pgmap.stats()
            );
            drop(folios);
            pgmap.check().unwrap();
            assert_eq!(pgmap.stats().free_by_order, whole.free_by_order);
            let _ = pgmap.alloc_with(Request::order(order(o)));
        }
    }
}

#[test]
fn live_folios_split_merge_and_end() {
    let range = PfnRange::new(Pfn::new(0), 1 << 19).unwrap();
    let mut meta = lines(range, Tables::Dense);
    let slots = [ExtentSlot::new()];
    let pgmap = Pgmap::new(Plain, Policy::generic(), &slots);
    pgmap.add_extent(range, ExtentAttrs::NEW, Tables::Dense, &mut meta, Attach::Zeroed).unwrap();
    let folio = pgmap.alloc(order(18)).unwrap().publish();
    let other = pgmap.try_get(Pfn::new(12345)).unwrap();
    assert_eq!(other.head(), folio.head());
    let busy = folio.try_freeze().unwrap_err();
    assert_eq!(busy.info.refs, 2);
    let unique = busy.folio.try_freeze_with([other]).unwrap();
    let (target, rest) = unique.split_around(Pfn::new(12345), order(0)).unwrap();
    assert_eq!(target.head(), Pfn::new(12345));
    pgmap.check().unwrap();
    let mut pieces: Vec<_> = rest.collect();
    assert_eq!(pieces.len(), 18);
    pieces.push(target);
    pieces.sort_by_key(|piece| piece.order());
    let mut whole = pieces.remove(0);
    for piece in pieces {
        whole = whole.merge(piece).unwrap();
    }
    assert_eq!(whole.order(), order(18));
    pgmap.check().unwrap();
    let pieces = whole.split(order(0)).unwrap();
    assert_eq!(pieces.count(), 1 << 18);
    pgmap.check().unwrap();
    assert_eq!(pgmap.stats().free_pages, 1 << 19);
    assert_eq!(pgmap.stats().free_by_order[18], 2);
}
