//! Every handle, in `Debug`. Counts are left out: they are stale before the line is written.

use devfolio::{
    Count, DirSlot, Directory, ExtentSlot, Failure, FolioDesc, Holder, LeaseInfo, LeaseSlot,
    Leases, Lookup, MetaLine, Order, Orphan, Park, ParkKey, Pfn, PgmapCore, PinKind, Policy,
    Request, Revoke, RevokeSlot, SpinPark, StaticMeta, Tables, Tighten,
};

use super::world::{BLOCK, Plain, attach, bare, order, range, world, world_of};
use super::{debug, error};

#[test]
fn owners() {
    let pgmap = bare(Plain, Policy::generic(), 2);
    debug! { pgmap => "Pgmap(Generic, Live)" }
    attach(pgmap, range(0x1000, BLOCK), Tables::Dense);
    attach(pgmap, range(0, 1), Tables::Dense);
    debug! {
        pgmap => "Pgmap(Generic, Live, 0x1000..=0x11ff, 0x0..=0x0)",
        **pgmap => "Pgmap(Generic, Live, 0x1000..=0x11ff, 0x0..=0x0)",
    }
    let folio = pgmap.alloc(Order::ZERO).unwrap();
    pgmap.kill();
    debug! { pgmap => "Pgmap(Generic, Dying, 0x1000..=0x11ff, 0x0..=0x0)" }
    drop(folio);
    debug! { pgmap => "Pgmap(Generic, Drained, 0x1000..=0x11ff, 0x0..=0x0)" }
}

#[test]
fn folios() {
    let pgmap = world();
    let unique = pgmap.claim(Pfn::new(0x1004), order(2)).unwrap();
    debug! { unique => "UniqueFolio(0x1004, order 2)" }
    let folio = unique.publish();
    let pin = folio.pin(PinKind::Short).unwrap();
    let map = folio.map(3).unwrap();
    debug! {
        folio.idle() => "FolioWait(0x1004, Idle)",
        folio.unpinned() => "FolioWait(0x1004, Unpinned)",
        pgmap.drained() => "Drained(Live)",
        folio => "Folio(0x1004, order 2)",
        pin => "FolioPin(0x1004, order 2)",
        map => "FolioMap(0x1004, order 2, 3 leaves)",
        folio.info() =>
            "FolioInfo { head: Pfn(0x1004), order: Order(2), kind: Live, refs: 1, pins: 1, \
             mappings: 3, is_closed: false }",
        pgmap.query(Pfn::new(0)) => "Outside",
        pgmap.query(Pfn::new(0x1000)) => "Free",
    }
}

#[test]
fn sets_and_pieces() {
    let pgmap = world();
    let mut descs = [FolioDesc::EMPTY; 4];
    let mut copies = descs;
    let set = pgmap.claim_range(range(0x1003, 3), &mut descs).unwrap();
    debug! { set => "UniqueSet(2 folios, 3 pages)" }
    let set = set.publish();
    let copy = set.try_clone_into(&mut copies).unwrap();
    debug! { (&set, copy) => "(FolioSet(2 folios, 3 pages), FolioSet(2 folios, 3 pages))" }

    let unique = pgmap.claim(Pfn::new(0x1010), order(4)).unwrap();
    let (page, mut rest) = unique.split_around(Pfn::new(0x1010), Order::ZERO).unwrap();
    debug! {
        page => "UniqueFolio(0x1010, order 0)",
        rest => "Pieces(0x1011..=0x101f)",
    }
    drop(rest.next());
    debug! { rest => "Pieces(0x1012..=0x101f)" }
    rest.by_ref().for_each(drop);
    debug! { rest => "Pieces()" }
}

#[test]
fn numbers() {
    let pgmap = world();
    let unique = pgmap.claim(Pfn::new(0x1004), order(2)).unwrap().into_raw();
    debug! { unique => "RawUnique(4100)" }
    // SAFETY: The number was made from a handle just now, and is used once.
    let folio = unsafe { pgmap.unique_from_raw(unique) }.unwrap().publish();
    debug! {
        folio.map(3).unwrap().into_raw() => "RawMap { head: 4100, nr_leaves: 3 }",
        folio.pin(PinKind::Short).unwrap().into_raw() => "RawPin(4100)",
        folio.into_raw() => "RawFolio(4100)",
    }
}

#[test]
fn erased_folios() {
    let slots = core::iter::repeat_with(DirSlot::new).take(2).collect::<Vec<_>>().leak();
    let (pgmap, directory) = (world(), Directory::new(slots));
    directory.register(pgmap).unwrap();
    let folio = pgmap.alloc(order(2)).unwrap().publish();
    debug! {
        slots => "[DirSlot(owner), DirSlot(empty)]",
        directory => "Directory(1 owners)",
        directory.try_get(folio.head()) => "Folio(AnyFolio(0x1000, order 2))",
        directory.try_get(Pfn::new(0)) => "Foreign",
        directory.try_get(Pfn::new(0x1004)) => "Miss(NotLive { pfn: Pfn(0x1004) })",
    }
    let Lookup::Folio(erased) = directory.try_get(folio.head()) else { panic!("it is live") };
    debug! { erased.downcast(pgmap) => "Ok(Folio(0x1000, order 2))" }
}

#[test]
fn leases() {
    struct Holder;
    impl Revoke for Holder {
        fn revoked(&self, lease: LeaseInfo) {
            debug! { lease => "LeaseInfo { head: Pfn(0x1000), order: Order(2), state: Revoked }" }
        }
    }
    let pgmap = world();
    let slots = [const { LeaseSlot::new() }; 2];
    let closed = [const { RevokeSlot::new() }; 1];
    let leases = Leases::new(pgmap, &slots, &closed);
    let folio = pgmap.alloc(order(2)).unwrap().publish();
    let lease = leases.lease(&folio, Holder).unwrap();
    debug! { lease => "Lease(0x1000, order 2, Ok)" }
    let revocation = leases.revoke(range(0x1003, 9)).unwrap();
    debug! {
        leases => "Leases(2 slots, 1 for revocations)",
        slots => "[LeaseSlot(0x1000, Revoked), LeaseSlot]",
        closed => "[RevokeSlot(0x1003..=0x100b)]",
        revocation => "Revocation(0x1003..=0x100b, 1 told)",
        lease => "Lease(0x1000, order 2, Revoked)",
    }
    lease.end();
    debug! { lease => "Lease(0x1000, order 2, Dead)" }
}

#[test]
fn holders() {
    struct FileSystem;
    impl Holder<Plain> for FileSystem {
        fn notify_failure(&self, _: &PgmapCore<Plain>, failure: Failure) {
            debug! { failure => "Leaving { extent: PfnRange(0x1000..=0x17ff) }" }
        }
    }
    let pgmap = world();
    let holding = pgmap.attach_holder(&FileSystem, Tighten::Leases).unwrap();
    debug! {
        holding => "Holding(Leases)",
        Failure::Gone { extent: range(1, 2) } => "Gone { extent: PfnRange(0x1..=0x2) }",
        Failure::Poisoned { pfn: Pfn::new(3), folio: None } =>
            "Poisoned { pfn: Pfn(0x3), folio: None }",
        Failure::Killed => "Killed",
    }
    pgmap.remove_extent(Pfn::new(0x1000)).unwrap();
    debug! { Tighten::Refuse => "Refuse" }
}

#[test]
fn errors_that_carry_handles() {
    let pgmap = world_of(Policy::generic(), Tables::Budget(0));
    let unique = pgmap.alloc(order(10)).unwrap();
    let split = unique.split(Order::ZERO).unwrap_err();
    error! {
        split =>
            "SplitError(UniqueFolio(0x1000, order 10), NoTables { needed: 2, left: 0 })",
            "2 fracture tables needed, 0 left";
    }
    let buddy = pgmap.alloc(Order::BLOCK).unwrap();
    let merge = split.folio.merge(buddy).unwrap_err();
    error! {
        merge =>
            "MergeError(UniqueFolio(0x1000, order 10), UniqueFolio(0x1400, order 9), \
             NotBuddies { folio: PfnRange(0x1000..=0x13ff), buddy: PfnRange(0x1400..=0x15ff) })",
            "0x1000..=0x13ff and 0x1400..=0x15ff are no buddies";
    }
    let folio = merge.folio.publish();
    let map = folio.map(2).unwrap();
    let busy = folio.try_freeze().unwrap_err();
    error! {
        busy =>
            "Busy(Folio(0x1000, order 10), FolioInfo { head: Pfn(0x1000), order: Order(10), \
             kind: Live, refs: 1, pins: 0, mappings: 2, is_closed: false })",
            "folio 0x1000 has 1 references, 0 pins and 2 mappings";
    }
    let twin = busy.folio.try_clone().unwrap();
    let busy = busy.folio.try_freeze_with([twin]).unwrap_err();
    error! {
        busy =>
            "BusyAll(Folio(0x1000, order 10), [Folio(0x1000, order 10)], \
             FolioInfo { head: Pfn(0x1000), order: Order(10), kind: Live, refs: 2, pins: 0, \
             mappings: 2, is_closed: false })",
            "folio 0x1000 has 2 references, 0 pins and 2 mappings";
    }
    drop(map);
    struct Nobody;
    impl Revoke for Nobody {
        fn revoked(&self, _: LeaseInfo) {}
    }
    let leases = Leases::<_, Nobody>::new(pgmap, &[], &[]);
    let refused = leases.convert(busy.folio.pin(PinKind::Short).unwrap(), Nobody).unwrap_err();
    error! {
        refused =>
            "ConvertError(FolioPin(0x1000, order 10), NoSlot { nr_slots: 0 })",
            "all 0 slots hold leases";
    }
    drop(refused);
    let still_busy = pgmap.try_drain().unwrap_err();
    error! {
        still_busy =>
            "StillBusy { pfn: Pfn(0x1000), folio: Some(FolioInfo { head: Pfn(0x1000), \
             order: Order(10), kind: Live, refs: 2, pins: 0, mappings: 0, is_closed: false }) }",
            "page 0x1000 is still in use";
    }
}

#[test]
fn lent_things() {
    static META: StaticMeta<3> = StaticMeta::new();
    let pgmap = bare(Plain, Policy::generic(), 1);
    let slot = ExtentSlot::new();
    debug! {
        MetaLine::default() => "MetaLine",
        META => "StaticMeta(3 lines)",
        slot => "ExtentSlot(empty)",
        FolioDesc::EMPTY => "FolioDesc(0)",
        DirSlot::new() => "DirSlot(empty)",
        LeaseSlot::<&dyn Revoke>::new() => "LeaseSlot",
        RevokeSlot::new() => "RevokeSlot",
        ParkKey::Lease(Pfn::new(1)) => "Lease(Pfn(0x1))",
        ParkKey::Holder => "Holder",
        SpinPark => "SpinPark",
        ParkKey::ExtentRemoval(Pfn::new(1)) => "ExtentRemoval(Pfn(0x1))",
        SpinPark.token(ParkKey::Folio(Pfn::new(1))) => "0",
        pgmap.free_runs().next() => "None",
        Count::Refs => "Refs",
        Request::order(order(3)).down_to(order(1)).node(2) =>
            "Request { order: Order(3), least: Order(1), align: Order(0), within: None, \
             direction: BottomUp, content: Any, node: Some(2), tier: None, tag: None, \
             owner: None }",
    }
}

#[test]
fn a_picture_has_a_character_for_each_part() {
    let pgmap = world();
    let block = pgmap.alloc(Order::BLOCK).unwrap();
    let page = pgmap.alloc(Order::ZERO).unwrap();
    assert_eq!(
        pgmap.draw(4, 2).to_string(),
        "0x1000..=0x17ff: 256 pages a character\n==-.\n....\n"
    );
    drop((block, page));
}

#[test]
fn orphans() {
    let (old, new) = (world(), world());
    let _ = old.claim(Pfn::new(0x1004), order(2)).unwrap().into_raw();
    let mut image = [0; 256];
    old.export_at_rest(&mut image, |_| 0).unwrap();
    let mut orphans = [Orphan::default(); 1];
    debug! { orphans => "[Orphan(none)]" }
    let mut imported = new.import(&image, &mut orphans, |_, _, ()| {}).unwrap();
    debug! { imported => "Imported(1 folios with orphans)" }
    drop(imported.adopt_unique(Pfn::new(0x1005)).unwrap());
    debug! { imported => "Imported(0 folios with orphans)" }
    let new = world();
    new.import(&image, &mut orphans, |_, _, ()| {}).map(|_| ()).unwrap();
    debug! {
        orphans =>
            "[Orphan(FolioInfo { head: Pfn(0x1004), order: Order(2), kind: Unique, refs: 0, \
             pins: 0, mappings: 0, is_closed: false })]",
    }
}
