//! What an address space does, and what it counts.

use super::*;
use crate::PinKind;

/// A virtual address that is aligned as the first page of the owner is.
const VPN: u64 = 1 << 30;
const REGION: u64 = 1 << 18;

#[test]
fn a_region_is_mapped_by_one_512_and_262144_leaves_and_stays_one_folio() {
    with_world(|world| {
        let folio = world.owner.alloc(Order::REGION).unwrap().publish();
        let mut nodes = nodes(1200);
        let table = SoftTable::new(&mut nodes, LeafSet::X86_64, Replace::Atomic).unwrap();
        let mut space = AddressSpace::new(table, world.directory);
        let mut sum = 0;
        for (index, limit) in [Order::REGION, Order::BLOCK, Order::ZERO].into_iter().enumerate() {
            let vpn = Vpn::new(VPN + index as u64 * REGION);
            let request = MapRequest::new(vpn, folio.range(), Rights::READ_WRITE)
                .limit(LeafLimit::Exactly(limit));
            let nr_leaves = space.insert(&folio, request).unwrap();
            assert_eq!(u64::from(nr_leaves), REGION / limit.nr_pages());
            sum += nr_leaves;
            assert_eq!((folio.mapcount(), folio.order()), (sum, Order::REGION));
        }
        drop(folio);
        assert_eq!(world.owner.ops().nr_freed.load(Ordering::Relaxed), 0, "mapped, so it stays");
        let unmapped = space.unmap(range(VPN, 3 * REGION)).unwrap();
        assert_eq!((unmapped.nr_leaves, unmapped.nr_pages), (u64::from(sum), 3 * REGION));
        assert_eq!(world.owner.ops().nr_freed.load(Ordering::Relaxed), 1);
        assert_eq!(space.table().nr_free_nodes(), 1199, "no table page is left behind");
    });
}

#[test]
fn a_leaf_changes_its_order_in_place_and_keeps_everything() {
    for (replace, set) in BOTH.into_iter().flat_map(|replace| {
        [LeafSet::X86_64, LeafSet::ARM64_4K, LeafSet::PAGES.with(order(18)), LeafSet::ARM64_16K]
            .map(|set| (replace, set))
    }) {
        with_world(|world| {
            let top = if set == LeafSet::ARM64_16K { order(16) } else { order(18) };
            let folio = world.owner.alloc(top).unwrap().publish();
            let mut nodes = nodes(600);
            let table = SoftTable::new(&mut nodes, set, replace).unwrap();
            let mut space = AddressSpace::new(table, world.directory);
            let all = range(VPN, top.nr_pages());
            let request = MapRequest::new(Vpn::new(VPN), folio.range(), Rights::READ_WRITE);
            let request = MapRequest { attrs: 0x5a5, ..request };
            assert_eq!(space.insert(&folio, request), Ok(1));
            let reader = space.table().reader();
            reader.touch(Vpn::new(VPN + 7), Access::Write).unwrap();

            for max in set.orders().rev().skip(1) {
                space.demote(all, max).unwrap();
                let nr_leaves = top.nr_pages() / max.nr_pages();
                assert_eq!(orders(&space, all), [(max.as_u8(), nr_leaves as usize)]);
                assert_eq!(u64::from(folio.mapcount()), nr_leaves);
                for (part, leaf) in space.leaves(all) {
                    let pfn = folio.head().as_u64() + (part.start().as_u64() - VPN);
                    let expected = Leaf::new(Pfn::new(pfn), max, Rights::READ_WRITE);
                    let expected = Leaf { attrs: 0x5a5, ..expected };
                    assert!(leaf.is_same(&expected), "{leaf:?}");
                    assert!(leaf.accessed && leaf.dirty, "each piece may be the one written to");
                }
            }
            // Only one small leaf is still dirty, and the large one is dirty again.
            space.unmap(all).unwrap();
            let small = request.limit(LeafLimit::Exactly(Order::ZERO));
            assert_eq!(u64::from(space.insert(&folio, small).unwrap()), top.nr_pages());
            reader.touch(Vpn::new(VPN + 77), Access::Write).unwrap();
            assert!(space.promote(all, Order::MAX) > 0);
            let leaf = space.leaves(all).next().unwrap().1;
            let whole = Leaf { attrs: 0x5a5, ..Leaf::new(folio.head(), top, Rights::READ_WRITE) };
            assert_eq!(leaf, Leaf { accessed: true, dirty: true, ..whole });
            assert_eq!(folio.mapcount(), 1);
            assert_eq!(space.unmap(all).unwrap().nr_dirty_pages, top.nr_pages());
            assert_eq!(space.table().nr_free_nodes(), 599);
        });
    }
}

#[test]
fn any_range_can_be_unmapped_and_the_rest_stays() {
    for (replace, set) in BOTH.into_iter().flat_map(|replace| {
        [LeafSet::X86_64, LeafSet::ARM64_4K, LeafSet::RISCV_SVNAPOT].map(|set| (replace, set))
    }) {
        with_world(|world| {
            let folio = world.owner.alloc(Order::REGION).unwrap().publish();
            let mut nodes = nodes(64);
            let table = SoftTable::new(&mut nodes, set, replace).unwrap();
            let mut space = AddressSpace::new(table, world.directory);
            let all = range(VPN, REGION);
            let request = MapRequest::new(Vpn::new(VPN), folio.range(), Rights::READ);
            for (first, nr_pages) in [(1, 1), (0, 513), (511, 2), (REGION - 1, 1), (777, 70_000)] {
                space.insert(&folio, request).unwrap();
                let unmapped = space.unmap(range(VPN + first, nr_pages)).unwrap();
                assert_eq!(unmapped.nr_pages, nr_pages);
                let mut nr_leaves = 0;
                let mut nr_mapped = 0;
                for (part, leaf) in space.leaves(all) {
                    nr_leaves += 1;
                    nr_mapped += part.nr_pages();
                    assert!(!part.overlaps(range(VPN + first, nr_pages)));
                    let offset = part.start().as_u64() - VPN;
                    assert_eq!(leaf.pfn.as_u64(), folio.head().as_u64() + offset);
                    assert!(set.contains(leaf.order) && leaf.pfn.is_aligned_to(leaf.order));
                }
                assert_eq!((nr_mapped, folio.mapcount()), (REGION - nr_pages, nr_leaves));
                space.unmap(all).unwrap();
                assert_eq!((folio.mapcount(), space.table().nr_free_nodes()), (0, 63));
            }
        });
    }
}

#[test]
fn owners_of_different_type_and_foreign_pages_live_side_by_side() {
    with_world(|world| {
        let one = world.owner.alloc(Order::BLOCK).unwrap().publish();
        let two = world.other.claim(Pfn::new(1 << 24), Order::BLOCK).unwrap().publish();
        let ram = pages(Pfn::new(0x200), 512);
        let mut nodes = nodes(8);
        let table = SoftTable::new(&mut nodes, LeafSet::X86_64, Replace::Atomic).unwrap();
        let mut space = AddressSpace::new(table, world.directory);
        let request =
            |index: u64, pages| MapRequest::new(Vpn::new(index << 9), pages, Rights::READ);
        space.insert(&one, request(1, one.range())).unwrap();
        let any = match world.directory.try_get(two.head()) {
            Lookup::Folio(folio) => folio,
            other => panic!("{other:?}"),
        };
        space.insert_any(&any, request(2, two.range())).unwrap();
        drop(any);
        assert_eq!(space.insert_foreign(request(3, ram)), Ok(1));
        let refused = space.insert_foreign(request(4, pages(Pfn::new(FIRST.as_u64() - 1), 2)));
        assert!(matches!(refused, Err(InsertError::Owned { .. })));
        assert_eq!((one.mapcount(), two.mapcount()), (1, 1));

        // Foreign pages are zapped, demoted and moved like others, and never counted.
        space.demote(range(3 << 9, 512), Order::ZERO).unwrap();
        space.remap(range(3 << 9, 512), Vpn::new(5 << 9)).unwrap();
        let gather = space.zap(range(0, 10 << 9)).unwrap();
        assert_eq!((one.mapcount(), two.mapcount()), (1, 1), "until the flush");
        let runs: Vec<_> = gather.runs().map(|run| (run.pages, run.is_foreign)).collect();
        assert_eq!(runs, [(one.range(), false), (two.range(), false), (ram, true)]);
        assert_eq!(gather.flush(), None);
        assert_eq!((one.mapcount(), two.mapcount()), (0, 0));
        two.try_freeze().unwrap().release();
    });
}

#[test]
fn a_gather_that_is_forgotten_leaks_and_frees_nothing() {
    with_world(|world| {
        let folio = world.owner.alloc(Order::BLOCK).unwrap().publish();
        let mut nodes = nodes(8);
        let table = SoftTable::new(&mut nodes, LeafSet::X86_64, Replace::Atomic).unwrap();
        let mut space = AddressSpace::new(table, world.directory);
        let request = MapRequest::new(Vpn::new(512), folio.range(), Rights::READ);
        space.insert(&folio, request).unwrap();
        core::mem::forget(space.zap(range(512, 512)).unwrap());
        assert_eq!(folio.mapcount(), 1);
        let leaked = Count::Mappings;
        assert_eq!(world.directory.drop_leaked(folio.head(), leaked), 1);
    });
}

use crate::meta::Count;

impl Directory<'_> {
    /// Drops a count that a test has leaked; returns how many.
    fn drop_leaked(&self, pfn: Pfn, count: Count) -> u32 {
        match self.place_of(pfn) {
            Known::Folio(place) => place.sub(count, 1).map_or(0, |()| 1),
            _ => 0,
        }
    }
}

#[test]
fn dirty_reaches_the_gather_with_its_pages() {
    with_world(|world| {
        let folio = world.owner.alloc(order(10)).unwrap().publish();
        let mut nodes = nodes(8);
        let table = SoftTable::new(&mut nodes, LeafSet::X86_64, Replace::Atomic).unwrap();
        let mut space = AddressSpace::new(table, world.directory);
        let request = MapRequest::new(Vpn::new(0x400), folio.range(), Rights::READ_WRITE)
            .limit(LeafLimit::UpTo(Order::ZERO));
        space.insert(&folio, request).unwrap();
        let reader = space.table().reader();
        for offset in [3, 5] {
            reader.touch(Vpn::new(0x400 + offset), Access::Write).unwrap();
        }
        reader.touch(Vpn::new(0x500), Access::Read).unwrap();
        let gather = space.zap(range(0x400, 1024)).unwrap();
        let runs: Vec<_> = gather.runs().collect();
        let dirty = pages(Pfn::new(folio.head().as_u64() + 3), 3);
        let run = ZapRun {
            pages: folio.range(),
            dirty: Some(dirty),
            accessed: true,
            nr_leaves: 1024,
            is_foreign: false,
        };
        assert_eq!(runs, [run]);
        assert_eq!(gather.totals().nr_dirty_pages, 2);
    });
}

#[test]
fn more_folios_than_a_gather_holds_are_unmapped_in_turns() {
    with_world(|world| {
        let mut nodes = nodes(8);
        let table = SoftTable::new(&mut nodes, LeafSet::X86_64, Replace::Atomic).unwrap();
        let mut space = AddressSpace::new(table, world.directory);
        for index in 0..100 {
            let folio = world.owner.alloc(Order::ZERO).unwrap().publish();
            let request = MapRequest::new(Vpn::new(3 * index), folio.range(), Rights::READ);
            space.insert(&folio, request).unwrap();
        }
        assert_eq!(space.zap(range(0, 9)).unwrap().rest(), None);
        let rest = space.zap(range(0, 300)).unwrap().flush().unwrap();
        assert_eq!(rest.last(), Vpn::new(299));
        let unmapped = space.unmap(range(0, 300)).unwrap();
        assert_eq!(unmapped.nr_leaves, 100 - 3 - 24);
        assert_eq!(world.owner.ops().nr_freed.load(Ordering::Relaxed), 100);
    });
}

#[test]
fn rights_change_without_a_count_and_without_losing_dirty() {
    with_world(|world| {
        let folio = world.owner.alloc(Order::BLOCK).unwrap().publish();
        let mut nodes = nodes(8);
        let table = SoftTable::new(&mut nodes, LeafSet::X86_64, Replace::Atomic).unwrap();
        let mut space = AddressSpace::new(table, world.directory);
        let request = MapRequest::new(Vpn::new(0x200), folio.range(), Rights::READ_WRITE);
        space.insert(&folio, request).unwrap();
        let reader = space.table().reader();
        reader.touch(Vpn::new(0x200), Access::Write).unwrap();

        let flushes = space.table().nr_flushes();
        assert_eq!(space.protect(range(0x200, 512), Rights::ALL), Ok(1));
        assert_eq!(space.table().nr_flushes(), flushes, "nothing was taken away");
        assert_eq!(space.protect(range(0x200, 512), Rights::READ), Ok(1));
        assert!(space.table().nr_flushes() > flushes);
        assert!(reader.touch(Vpn::new(0x200), Access::Write).is_err());
        assert_eq!(folio.mapcount(), 1);

        // Counted and not present; and a part of it only.
        assert_eq!(space.protect(range(0x2ff, 2), Rights::NONE), Ok(2));
        assert!(reader.touch(Vpn::new(0x2ff), Access::Read).is_err());
        assert!(reader.touch(Vpn::new(0x301), Access::Read).is_ok());
        assert_eq!(folio.mapcount(), 512);
        let dirty = space.leaves(range(0x200, 512)).filter(|(_, leaf)| leaf.dirty).count();
        assert_eq!(dirty, 512, "no piece has forgotten it");
        assert_eq!(space.promote(range(0x200, 512), Order::MAX), 0, "rights differ");
        space.protect(range(0x200, 512), Rights::READ).unwrap();
        assert_eq!(space.promote(range(0x200, 512), Order::MAX), 1);
        space.unmap(range(0x200, 512)).unwrap();
    });
}

#[test]
fn a_mapping_moves_with_its_counts_and_bits() {
    for replace in BOTH {
        with_world(|world| {
            let folio = world.owner.alloc(order(10)).unwrap().publish();
            let mut nodes = nodes(32);
            let table = SoftTable::new(&mut nodes, LeafSet::X86_64, replace).unwrap();
            let mut space = AddressSpace::new(table, world.directory);
            let request = MapRequest::new(Vpn::new(0x400), folio.range(), Rights::READ_WRITE);
            space.insert(&folio, request).unwrap();
            space.table().reader().touch(Vpn::new(0x400), Access::Write).unwrap();
            // Aligned alike, then not, then a part.
            assert_eq!(space.remap(range(0x400, 1024), Vpn::new(0x1000)), Ok(2));
            assert_eq!(folio.mapcount(), 2);
            assert_eq!(space.remap(range(0x1000, 1024), Vpn::new(0x2001)), Ok(1024));
            assert_eq!(folio.mapcount(), 1024);
            assert_eq!(space.leaves(range(0x2001, 1024)).filter(|(_, l)| l.dirty).count(), 512);
            assert_eq!(space.promote(range(0x2001, 1024), Order::MAX), 0, "not aligned alike");
            assert_eq!(space.remap(range(0x2001, 512), Vpn::new(0x3000)), Ok(512));
            assert_eq!(space.promote(range(0x3000, 512), Order::MAX), 1);
            assert_eq!(folio.mapcount(), 513);
            assert_eq!(space.leaves(range(0x400, 0x1c01)).count(), 0, "nothing at the old places");
            assert_eq!(space.unmap(range(0, 0x4000)).unwrap().nr_pages, 1024);
            assert_eq!(space.table().nr_free_nodes(), 31);
        });
    }
}

#[test]
fn a_fork_counts_its_copies_once_a_folio() {
    with_world(|world| {
        let folio = world.owner.alloc(order(10)).unwrap().publish();
        let (mut nodes, mut more) = (nodes(32), nodes(32));
        let table = SoftTable::new(&mut nodes, LeafSet::X86_64, Replace::Atomic).unwrap();
        let mut parent = AddressSpace::new(table, world.directory);
        let table =
            SoftTable::new(&mut more, LeafSet::RISCV_SVNAPOT, Replace::BreakBeforeMake).unwrap();
        let mut child = AddressSpace::new(table, world.directory);
        let request = MapRequest::new(Vpn::new(0x400), folio.range(), Rights::READ_WRITE);
        parent.insert(&folio, request).unwrap();
        parent.table().reader().touch(Vpn::new(0x400), Access::Write).unwrap();
        // All but the first page: one leaf stays, the other one has to be 15 + 31 smaller ones.
        let part = range(0x401, 1023);
        assert_eq!(parent.duplicate(part, &mut child, Rights::READ), Ok(15 + 31 + 1));
        assert_eq!((folio.mapcount(), folio.ref_count()), (2 + 47, 2 + 47 + 1));
        for (_, leaf) in child.leaves(range(0, 0x1000)) {
            assert_eq!((leaf.rights, leaf.accessed, leaf.dirty), (Rights::READ, false, false));
        }
        assert_eq!(parent.unmap(range(0x400, 1024)).unwrap().nr_dirty_pages, 512);
        let _folio = folio;
        child.unmap(range(0x400, 1024)).unwrap();
    });
}

#[test]
fn a_pin_outlives_all_mappings() {
    with_world(|world| {
        let folio = world.owner.alloc(Order::BLOCK).unwrap().publish();
        let mut nodes = nodes(4);
        let table = SoftTable::new(&mut nodes, LeafSet::X86_64, Replace::Atomic).unwrap();
        let mut space = AddressSpace::new(table, world.directory);
        let request = MapRequest::new(Vpn::new(0x200), folio.range(), Rights::READ);
        space.insert(&folio, request).unwrap();
        let pin = folio.pin(PinKind::Short).unwrap();
        drop(folio);
        space.unmap(range(0x200, 512)).unwrap();
        assert_eq!(world.owner.ops().nr_freed.load(Ordering::Relaxed), 0);
        drop(pin);
        assert_eq!(world.owner.ops().nr_freed.load(Ordering::Relaxed), 1);
    });
}
