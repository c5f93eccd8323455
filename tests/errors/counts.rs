//! Counts that are refused: references, pins, mappings, and freezes that find too many of them.

use devfolio::{
    CloneError, Count, CountError, Folio, FolioInfo, FolioKind, GetError, LongtermPins, Order, Pfn,
    PinError, PinKind, Policy, Put, Tables,
};

use crate::world::{BLOCK, Plain, Static, order, refused, world, world_of};

fn live(pgmap: Static<Plain>) -> Folio<'static, Plain> {
    pgmap.alloc(order(2)).unwrap().publish()
}

/// What everybody says who wants a new count by page number.
fn newcomers(pgmap: Static<Plain>, pfn: Pfn) -> (GetError, [CountError; 3]) {
    let PinError::Count(pin) = refused(pgmap, || pgmap.pin_raw(pfn, 1, PinKind::Short)) else {
        panic!("short pins are granted by every policy");
    };
    let raw =
        [refused(pgmap, || pgmap.get_raw(pfn, 1)), refused(pgmap, || pgmap.map_raw(pfn, 1)), pin];
    (refused(pgmap, || pgmap.try_get(pfn)), raw)
}

/// What everybody says who drops a count that is not there.
fn droppers(pgmap: Static<Plain>, pfn: Pfn, nr: u32) -> [CountError; 3] {
    // SAFETY: The counts do not exist, which is what these calls have to notice.
    let put = refused(pgmap, || unsafe { pgmap.put_raw(pfn, nr) });
    // SAFETY: As above.
    let unmap = refused(pgmap, || unsafe { pgmap.unmap_raw(pfn, nr) });
    // SAFETY: As above.
    let unpin = refused(pgmap, || unsafe { pgmap.unpin_raw(pfn, nr) });
    [put, unmap, unpin]
}

#[test]
fn pages_outside_have_no_counts() {
    let pgmap = world();
    for pfn in [0, 0xfff, 0x1000 + 4 * BLOCK, u64::MAX].map(Pfn::new) {
        let expected = (GetError::Outside { pfn }, [CountError::Outside { pfn }; 3]);
        assert_eq!(newcomers(pgmap, pfn), expected);
        assert_eq!(droppers(pgmap, pfn, 1), [CountError::Outside { pfn }; 3]);
    }
}

#[test]
fn what_is_not_live_has_no_counts() {
    let pgmap = world();
    let refuse = |pfn: Pfn| {
        let expected = (GetError::NotLive { pfn }, [CountError::NotLive { pfn }; 3]);
        assert_eq!(newcomers(pgmap, pfn), expected);
        assert_eq!(droppers(pgmap, pfn, 1), [CountError::NotLive { pfn }; 3]);
    };
    let unique = pgmap.alloc(Order::ZERO).unwrap();
    let head = unique.head();
    refuse(Pfn::new(0x1000 + 4 * BLOCK - 1));
    refuse(head);
    unique.keep();
    refuse(head);
    pgmap.claim_kept(head).unwrap().retire();
    refuse(head);
}

#[test]
fn a_second_put_is_noticed() {
    let pgmap = world();
    let token = live(pgmap).into_raw();
    let pfn = Pfn::new(token.as_u64());
    // SAFETY: The token is this reference.
    assert_eq!(unsafe { pgmap.put_raw(pfn, 1) }, Ok(Put::Last));
    assert_eq!(droppers(pgmap, pfn, 1)[0], CountError::NotLive { pfn });
}

#[test]
fn a_count_by_page_is_refused_with_that_page() {
    let pgmap = world();
    let kept = pgmap.alloc(order(3)).unwrap();
    let (head, pfn) = (kept.head(), kept.range().last());
    kept.keep();
    let (get, raw) = newcomers(pgmap, pfn);
    assert_eq!((get, raw), (GetError::NotLive { pfn }, [CountError::NotLive { pfn }; 3]));
    pgmap.claim_kept(head).unwrap().release();
}

#[test]
fn the_removal_is_named_before_the_place() {
    let pgmap = world();
    let held = pgmap.alloc(order(0)).unwrap();
    pgmap.kill();
    let outside = Pfn::new(0);
    let dying = (GetError::Dying, [CountError::Dying; 3]);
    assert_eq!(newcomers(pgmap, outside), dying);
    let claim = refused(pgmap, || pgmap.claim(Pfn::new(1), order(3)));
    assert_eq!(claim, devfolio::ClaimError::Dying);
    held.release();
}

#[test]
fn more_leaves_than_are_counted_make_no_handle() {
    let pgmap = world();
    let folio = live(pgmap);
    let raw = folio.map(3).unwrap().into_raw();
    drop(folio.map(2));
    let more = devfolio::RawMap { nr_leaves: 4, ..raw };
    // SAFETY: No handle is made of it.
    assert!(unsafe { pgmap.map_from_raw(more) }.is_none());
    // SAFETY: These are the leaves of the handle above.
    drop(unsafe { pgmap.map_from_raw(raw) }.unwrap());
}

#[test]
fn no_count_drops_below_zero() {
    let pgmap = world();
    let folio = live(pgmap);
    let (pin, map) = (folio.pin(PinKind::Short).unwrap(), folio.map(3).unwrap());
    let dropped = 4;
    let underflow = |count, have| CountError::Underflow { count, have, dropped };
    let expected =
        [underflow(Count::Refs, 1), underflow(Count::Mappings, 3), underflow(Count::Pins, 1)];
    // Any page of the folio will do.
    for pfn in [folio.head(), folio.range().last()] {
        assert_eq!(droppers(pgmap, pfn, dropped), expected);
    }
    drop((pin, map));

    // The counts do not stand in for each other: not even while the sum would suffice.
    let dropped = u32::MAX;
    let expected = [(Count::Refs, 1), (Count::Mappings, 0), (Count::Pins, 0)]
        .map(|(count, have)| CountError::Underflow { count, have, dropped });
    assert_eq!(droppers(pgmap, folio.head(), dropped), expected);
}

#[test]
fn every_count_has_a_limit() {
    let pgmap = world();
    let folio = live(pgmap);
    let pfn = folio.head();
    for (count, mut have) in [(Count::Refs, 1), (Count::Mappings, 0), (Count::Pins, 0)] {
        let max = count.max();
        let add = |nr| match count {
            Count::Refs => pgmap.get_raw(pfn, nr),
            Count::Mappings => pgmap.map_raw(pfn, nr),
            _ => pgmap.pin_raw(pfn, nr, PinKind::Short).map_err(|error| match error {
                PinError::Count(error) => error,
                error => panic!("{error}"),
            }),
        };
        for nr in [max - have + 1, max + 1, u32::MAX] {
            let error = refused(pgmap, || add(nr));
            assert_eq!(error, CountError::Limit { count, have, max });
        }
        add(max - have).unwrap();
        have = max;
        assert_eq!(refused(pgmap, || add(1)), CountError::Limit { count, have, max });
    }

    // The safe handles come up against the same limits.
    let limit = |count: Count| CountError::Limit { count, have: count.max(), max: count.max() };
    assert_eq!(refused(pgmap, || folio.try_clone()), limit(Count::Refs));
    assert_eq!(refused(pgmap, || folio.map(1)), limit(Count::Mappings));
    let error = refused(pgmap, || folio.pin(PinKind::Short));
    assert_eq!(error, PinError::Count(limit(Count::Pins)));
    let (head, have, max) = (pfn, Count::Refs.max(), Count::Refs.max());
    let error = refused(pgmap, || pgmap.try_get(pfn));
    assert_eq!(error, GetError::Limit { head, have, max });

    // SAFETY: These are the counts that were added above.
    unsafe { pgmap.put_raw(pfn, Count::Refs.max() - 1) }.unwrap();
    // SAFETY: As above.
    unsafe { pgmap.unmap_raw(pfn, Count::Mappings.max()) }.unwrap();
    // SAFETY: As above.
    unsafe { pgmap.unpin_raw(pfn, Count::Pins.max()) }.unwrap();
    drop(folio);
    assert_eq!(pgmap.stats().free_pages, 4 * BLOCK);
}

#[test]
fn a_closed_folio_refuses_newcomers() {
    let pgmap = world();
    let folio = live(pgmap);
    let (head, pfn) = (folio.head(), folio.range().last());
    folio.close();
    let expected = (GetError::Closed { pfn }, [CountError::Closed { head }; 3]);
    assert_eq!(newcomers(pgmap, pfn), expected);
    assert_eq!(refused(pgmap, || folio.map(1)), CountError::Closed { head });
    let error = refused(pgmap, || folio.pin(PinKind::Short));
    assert_eq!(error, PinError::Count(CountError::Closed { head }));

    folio.reopen();
    drop((pgmap.try_get(pfn).unwrap(), folio.map(1).unwrap()));
}

#[test]
fn a_dying_pgmap_grants_no_new_counts() {
    let pgmap = world();
    let folio = live(pgmap);
    pgmap.kill();
    let expected = (GetError::Dying, [CountError::Dying; 3]);
    assert_eq!(newcomers(pgmap, folio.head()), expected);
    let error = refused(pgmap, || folio.pin(PinKind::Short));
    assert_eq!(error, PinError::Count(CountError::Dying));
}

#[test]
fn a_policy_refuses_long_term_pins() {
    let policy = Policy { longterm_pins: LongtermPins::Refuse, ..Policy::generic() };
    let pgmap = world_of(policy, Tables::Dense);
    let folio = live(pgmap);
    let head = folio.head();
    let error = refused(pgmap, || folio.pin(PinKind::Longterm));
    assert_eq!(error, PinError::LongtermRefused { head });
    let pfn = folio.range().last();
    let error = refused(pgmap, || pgmap.pin_raw(pfn, 1, PinKind::Longterm));
    assert_eq!(error, PinError::LongtermRefused { head });
    drop(folio.pin(PinKind::Short).unwrap());
}

#[test]
fn a_policy_grants_long_term_pins_as_leases_only() {
    let policy = Policy { longterm_pins: LongtermPins::Lease, ..Policy::generic() };
    let pgmap = world_of(policy, Tables::Dense);
    let folio = live(pgmap);
    let error = PinError::LeaseNeeded { head: folio.head() };
    assert_eq!(refused(pgmap, || folio.pin(PinKind::Longterm)), error);
    let pfn = folio.range().last();
    assert_eq!(refused(pgmap, || pgmap.pin_raw(pfn, 1, PinKind::Longterm)), error);
    drop(folio.pin(PinKind::Short).unwrap());
}

#[test]
fn a_freeze_names_the_counts_in_the_way() {
    let pgmap = world();
    let folio = live(pgmap);
    let (head, order) = (folio.head(), folio.order());
    let info = |refs, pins, mappings| {
        let kind = FolioKind::Live;
        FolioInfo { head, order, kind, refs, pins, mappings, is_closed: false }
    };
    let twin = folio.try_clone().unwrap();
    let busy = refused(pgmap, || folio.try_freeze());
    assert_eq!(busy.info, info(2, 0, 0));
    drop(twin);
    let pin = busy.folio.pin(PinKind::Short).unwrap();
    let busy = refused(pgmap, || busy.folio.try_freeze());
    assert_eq!(busy.info, info(1, 1, 0));
    drop(pin);
    let map = busy.folio.map(3).unwrap();
    let busy = refused(pgmap, || busy.folio.try_freeze());
    assert_eq!(busy.info, info(1, 0, 3));
    drop(map);
    busy.folio.try_freeze().unwrap().release();
}

#[test]
fn a_freeze_of_several_references_takes_those_of_one_folio() {
    let pgmap = world();
    let (folio, other) = (live(pgmap), live(pgmap));
    let twin = folio.try_clone().unwrap();
    let busy = refused(pgmap, || folio.try_freeze_with([other]));
    assert_eq!((busy.info.head, busy.info.refs), (busy.folio.head(), 2));
    let third = busy.folio.try_clone().unwrap();
    let busy = refused(pgmap, || busy.folio.try_freeze_with([twin]));
    assert_eq!(busy.info.refs, 3);
    drop(third);
    busy.folio.try_freeze_with(busy.others).unwrap().release();
}

#[test]
fn a_freeze_does_not_mix_pgmaps_up() {
    let (mine, theirs) = (world(), world());
    let (one, two) = (live(mine), live(theirs));
    assert_eq!(one.head(), two.head(), "the same page number means another page");
    // Two references are expected and two are there, but only one of them was given.
    let twin = one.try_clone().unwrap();
    let busy = refused(mine, || one.try_freeze_with([two]));
    assert_eq!((busy.info.refs, theirs.stats().live.nr_folios), (2, 1));
    drop(twin);
}

#[test]
fn a_raw_freeze_expects_exactly_its_references() {
    let pgmap = world();
    let folio = live(pgmap);
    pgmap.get_raw(folio.head(), 4).unwrap();
    // SAFETY: The caller owns four raw references; success would consume at most these.
    let busy = refused(pgmap, || unsafe { folio.try_freeze_raw(3) });
    assert_eq!(busy.info.refs, 5);
    // SAFETY: As above; one more than there are is refused, too.
    let busy = refused(pgmap, || unsafe { busy.folio.try_freeze_raw(5) });
    // SAFETY: As above.
    let busy = refused(pgmap, || unsafe { busy.folio.try_freeze_raw(u32::MAX) });
    // SAFETY: These are the four references that were added above.
    unsafe { busy.folio.try_freeze_raw(4) }.unwrap().release();
}

#[test]
fn a_set_is_cloned_as_a_whole_or_not_at_all() {
    let pgmap = world();
    let mut descs = [devfolio::FolioDesc::EMPTY; 3];
    let mut copies = descs;
    let request = devfolio::Request::order(Order::ZERO);
    let set = pgmap.alloc_bulk(request, 3, &mut descs).unwrap().publish();
    let last = set.iter().last().unwrap().0;
    let (count, max) = (Count::Refs, Count::Refs.max());
    pgmap.get_raw(last, max - 1).unwrap();
    let error = refused(pgmap, || set.try_clone_into(&mut copies));
    assert_eq!(error, CloneError::Count(CountError::Limit { count, have: max, max }));
    let error = refused(pgmap, || set.try_clone_into(&mut copies[..2]));
    assert_eq!(error, CloneError::TooManyPieces { needed: 3, len: 2 });

    // SAFETY: These are the references that were added above.
    unsafe { pgmap.put_raw(last, max - 1) }.unwrap();
    assert_eq!(set.try_clone_into(&mut copies).unwrap().len(), 3);
}
