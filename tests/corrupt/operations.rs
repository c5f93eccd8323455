//! What is done with pages and folios, once for each page where it is about one.

use devfolio::{
    Content, DirSlot, Direction, Directory, Folio, FolioDesc, Lookup, Order, Pfn, PfnRange, Pgmap,
    PinKind, RawFolio, RawMap, RawPin, RawUnique, Request, SetRequest, UniqueFolio,
};

use super::world::Owner;

pub type P<'p, 'm> = &'p Pgmap<'m, Owner<'m>>;
/// A name, whether it is about a page, and what is done.
pub type Operation = (&'static str, bool, fn(P<'_, '_>, Pfn));

pub const ORDERS: [Order; 6] = {
    const fn order(log2_pages: u8) -> Order {
        match Order::new(log2_pages) {
            Some(order) => order,
            None => panic!(),
        }
    }
    [order(0), order(1), order(2), order(8), order(9), order(18)]
};

pub fn range(pfn: Pfn, nr_pages: u64) -> PfnRange {
    // The last page of space has none behind it.
    PfnRange::new(pfn, nr_pages).unwrap_or(PfnRange::block(pfn, Order::ZERO))
}

pub fn unique<'p, 'm>(pgmap: P<'p, 'm>, pfn: Pfn) -> Option<UniqueFolio<'p, Owner<'m>>> {
    unsafe { pgmap.unique_from_raw(RawUnique::from_u64(pfn.as_u64())) }
}

pub fn folio<'p, 'm>(pgmap: P<'p, 'm>, pfn: Pfn) -> Option<Folio<'p, Owner<'m>>> {
    unsafe { pgmap.folio_from_raw(RawFolio::from_u64(pfn.as_u64())) }
}

/// Ends the life of whatever came of it.
pub fn done<T>(_: T) {}

fn descs() -> [FolioDesc; 8] {
    [FolioDesc::EMPTY; 8]
}

pub const OPERATIONS: &[Operation] = &[
    ("alloc", false, |pgmap, _| ORDERS.iter().for_each(|&order| done(pgmap.alloc(order)))),
    ("alloc and leak", false, |pgmap, _| {
        ORDERS.iter().for_each(|&order| core::mem::forget(pgmap.alloc(order)));
    }),
    ("alloc downwards", false, |pgmap, _| {
        for order in ORDERS {
            done(pgmap.alloc_with(Request::order(order).direction(Direction::TopDown)));
        }
    }),
    ("alloc clean", false, |pgmap, _| {
        for content in [Content::OnlyClean, Content::PreferClean, Content::PreferDirty] {
            done(pgmap.alloc_with(Request::order(ORDERS[1]).down_to(ORDERS[0]).content(content)));
        }
    }),
    ("alloc set", false, |pgmap, _| {
        done(pgmap.alloc_set(SetRequest::pages(2), &mut descs()));
        done(pgmap.alloc_set(SetRequest::pages(512).content(Content::OnlyClean), &mut descs()));
    }),
    ("alloc bulk", false, |pgmap, _| {
        done(pgmap.alloc_bulk(Request::order(ORDERS[0]), 2, &mut descs()));
        done(pgmap.alloc_bulk(Request::order(ORDERS[3]), 3, &mut descs()));
    }),
    ("alloc run", false, |pgmap, _| {
        done(pgmap.alloc_run(1, Request::order(ORDERS[0]), &mut descs()));
        let request = Request::order(ORDERS[0]).direction(Direction::TopDown);
        done(pgmap.alloc_run(3, request, &mut descs()));
    }),
    ("magazine", false, |pgmap, _| {
        for order in [Order::ZERO, Order::BLOCK] {
            let mut magazine = pgmap.magazine(order);
            let folios: Vec<_> = (0..3).map_while(|_| magazine.alloc().ok()).collect();
            folios.into_iter().for_each(|folio| magazine.release(folio));
        }
    }),
    ("look", false, |pgmap, _| {
        done((pgmap.free_runs().count(), pgmap.stats(), pgmap.check(), pgmap.try_drain()));
        pgmap.for_each_folio(|_| {});
        pgmap.for_each_busy(|_| {});
        done((pgmap.poisoned().count(), pgmap.draw(8, 2).to_string()));
    }),
    ("drain", false, |pgmap, _| done((pgmap.try_drain(), pgmap.kill(), pgmap.try_drain()))),
    ("reap", false, |pgmap, _| done(pgmap.reap(usize::MAX))),
    ("query", true, |pgmap, pfn| done((pgmap.query(pfn), pgmap.extent_stats(pfn)))),
    ("claim", true, |pgmap, pfn| ORDERS.iter().for_each(|&order| done(pgmap.claim(pfn, order)))),
    ("claim and leak", true, |pgmap, pfn| {
        ORDERS.iter().for_each(|&order| core::mem::forget(pgmap.claim(pfn, order)));
    }),
    ("claim range", true, |pgmap, pfn| {
        for nr_pages in [1, 2, 3, 512] {
            done(pgmap.claim_range(range(pfn, nr_pages), &mut descs()));
        }
    }),
    ("alloc within", true, |pgmap, pfn| {
        done(pgmap.alloc_with(Request::order(Order::ZERO).within(range(pfn, 1))));
        done(pgmap.alloc_with(Request::order(ORDERS[4]).within(range(pfn, 512))));
    }),
    ("try_get", true, |pgmap, pfn| done(pgmap.try_get(pfn))),
    ("try_get and clone", true, |pgmap, pfn| {
        if let Ok(folio) = pgmap.try_get(pfn) {
            done(folio.try_clone());
            done(folio.range());
        }
    }),
    ("get_raw", true, |pgmap, pfn| done((pgmap.get_raw(pfn, 1), pgmap.get_raw(pfn, 0x4000)))),
    ("map_raw", true, |pgmap, pfn| done((pgmap.map_raw(pfn, 1), pgmap.map_raw(pfn, 1 << 22)))),
    ("pin_raw", true, |pgmap, pfn| done(pgmap.pin_raw(pfn, 1, PinKind::Longterm))),
    ("put_raw", true, |pgmap, pfn| done(unsafe { pgmap.put_raw(pfn, 1) })),
    ("unmap_raw", true, |pgmap, pfn| done(unsafe { pgmap.unmap_raw(pfn, 1) })),
    ("unpin_raw", true, |pgmap, pfn| done(unsafe { pgmap.unpin_raw(pfn, 1) })),
    ("revive", true, |pgmap, pfn| done(pgmap.revive(pfn))),
    ("claim_kept", true, |pgmap, pfn| done(pgmap.claim_kept(pfn))),
    ("claim_retired", true, |pgmap, pfn| done(pgmap.claim_retired(pfn))),
    ("poison", true, |pgmap, pfn| done((pgmap.poison(pfn), pgmap.check()))),
    ("unpoison", true, |pgmap, pfn| done(pgmap.unpoison(pfn))),
    ("drop folio", true, |pgmap, pfn| done(folio(pgmap, pfn))),
    ("drop folio, reap", true, |pgmap, pfn| done((folio(pgmap, pfn), pgmap.reap(9)))),
    ("clone folio", true, |pgmap, pfn| {
        let Some(folio) = folio(pgmap, pfn) else { return };
        done(folio.try_clone());
        done((folio.info(), folio.get_many(2)));
    }),
    ("pin and map folio", true, |pgmap, pfn| {
        let Some(folio) = folio(pgmap, pfn) else { return };
        let held = (folio.pin(PinKind::Short), folio.map(2));
        done(folio);
        done(held);
    }),
    ("freeze folio", true, |pgmap, pfn| {
        let Some(folio) = folio(pgmap, pfn) else { return };
        folio.close();
        match folio.try_freeze() {
            Ok(folio) => done(folio),
            Err(busy) => busy.folio.reopen(),
        }
    }),
    ("drop pin", true, |pgmap, pfn| {
        done(unsafe { pgmap.pin_from_raw(RawPin::from_u64(pfn.as_u64())) });
    }),
    ("drop map", true, |pgmap, pfn| {
        let raw = RawMap { head: pfn.as_u64(), nr_leaves: 1 };
        done(unsafe { pgmap.map_from_raw(raw) });
    }),
    ("release", true, |pgmap, pfn| done(unique(pgmap, pfn).map(UniqueFolio::release))),
    ("release clean, alloc", true, |pgmap, pfn| {
        done(unique(pgmap, pfn).map(UniqueFolio::release_clean));
        ORDERS.iter().for_each(|&order| core::mem::forget(pgmap.alloc(order)));
    }),
    ("publish", true, |pgmap, pfn| done(unique(pgmap, pfn).map(UniqueFolio::publish))),
    ("keep", true, |pgmap, pfn| done(unique(pgmap, pfn).map(UniqueFolio::keep))),
    ("retire", true, |pgmap, pfn| done(unique(pgmap, pfn).map(UniqueFolio::retire))),
    ("split", true, |pgmap, pfn| {
        for order in [ORDERS[0], ORDERS[4]] {
            let Some(folio) = unique(pgmap, pfn) else { return };
            done(folio.split(order));
        }
    }),
    ("split around", true, |pgmap, pfn| {
        let Some(folio) = unique(pgmap, pfn) else { return };
        done(folio.split_around(pfn, Order::ZERO));
    }),
    ("trim", true, |pgmap, pfn| {
        let Some(folio) = unique(pgmap, pfn) else { return };
        done(folio.trim(range(pfn, 1)));
    }),
    ("release part", true, |pgmap, pfn| {
        let Some(folio) = unique(pgmap, pfn) else { return };
        done(folio.release_part(range(pfn, 1)));
    }),
    ("merge", true, |pgmap, pfn| {
        let Some(folio) = unique(pgmap, pfn) else { return };
        let order = folio.order();
        match unique(pgmap, folio.head().buddy(order)) {
            Some(buddy) => done(folio.merge(buddy)),
            None => done(folio),
        }
    }),
    ("directory", true, |pgmap, pfn| {
        let slots = [const { DirSlot::new() }; 1];
        let directory = Directory::new(&slots);
        directory.register(pgmap).unwrap();
        done(directory.query(pfn));
        if let Lookup::Folio(any) = directory.try_get(pfn) {
            done(any.downcast(pgmap));
        }
        done(directory.try_get(pfn));
    }),
];
