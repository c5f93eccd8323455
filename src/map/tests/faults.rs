//! What a failure at each step leaves behind: nothing.

use super::*;
use crate::meta::Count;
use crate::{CountError, RangeError};

const ANY_PAGE: Pfn = Pfn::new(u64::MAX);

/// A table whose reservations fail from some call on, and which asks before it flushes.
struct Faulty<'t, F> {
    inner: SoftTable<'t>,
    /// How many reservations still succeed.
    nr_left: usize,
    nr_calls: usize,
    /// The last page that an entry can name.
    highest: Pfn,
    on_flush: F,
}

impl<F> LeafReader for Faulty<'_, F> {
    fn read(&self, vpn: Vpn) -> Entry {
        self.inner.read(vpn)
    }
}

impl<F: FnMut(VpnRange)> PageTable for Faulty<'_, F> {
    fn leaf_set(&self) -> LeafSet {
        self.inner.leaf_set()
    }

    fn addresses(&self) -> VpnRange {
        self.inner.addresses()
    }

    fn can_hold(&self, pages: PfnRange) -> bool {
        pages.last() <= self.highest
    }

    fn reserve(&mut self, range: VpnRange, order: Order) -> Result<(), NoTable> {
        self.nr_calls += 1;
        self.nr_left = self.nr_left.checked_sub(1).ok_or(NoTable { vpn: range.start() })?;
        self.inner.reserve(range, order)
    }

    fn trim(&mut self, range: VpnRange) {
        self.inner.trim(range);
    }

    fn set(&mut self, vpn: Vpn, leaf: Leaf) {
        self.inner.set(vpn, leaf);
    }

    fn clear(&mut self, vpn: Vpn) -> Option<Leaf> {
        self.inner.clear(vpn)
    }

    fn protect(&mut self, vpn: Vpn, rights: Rights) {
        self.inner.protect(vpn, rights);
    }

    fn flush(&mut self, range: VpnRange) {
        (self.on_flush)(range);
        self.inner.flush(range);
    }

    fn split(&mut self, vpn: Vpn, order: Order) {
        self.inner.split(vpn, order);
    }

    fn join(&mut self, vpn: Vpn, order: Order) {
        self.inner.join(vpn, order);
    }
}

fn faulty(nodes: &mut [SoftNode], replace: Replace) -> Faulty<'_, impl FnMut(VpnRange)> {
    let inner = SoftTable::new(nodes, LeafSet::ARM64_4K, replace).unwrap();
    Faulty { inner, nr_left: usize::MAX, nr_calls: 0, highest: ANY_PAGE, on_flush: |_| () }
}

#[derive(Debug, PartialEq)]
struct State {
    leaves: Vec<(VpnRange, Leaf)>,
    nr_free: usize,
    info: FolioInfo,
}

type FaultySpace<'t, 'd, F> = AddressSpace<'d, Faulty<'t, F>>;

fn state<F: FnMut(VpnRange)>(
    space: &FaultySpace<'_, '_, F>,
    folio: &crate::Folio<'_, Owner>,
) -> State {
    let leaves = space.leaves(space.table().addresses()).collect();
    State { leaves, nr_free: space.table().inner.nr_free_nodes(), info: folio.info() }
}

/// A way to change an address space that holds a folio of 1 GiB, with the error if it fails.
macro_rules! steps {
    ($($name:ident: |$space:ident, $folio:ident| $act:expr;)*) => {$(
        #[test]
        fn $name() {
            for replace in BOTH {
                with_world(|world| {
                    let mut nodes = nodes(600);
                    let table = faulty(&mut nodes, replace);
                    let mut $space = AddressSpace::new(table, world.directory);
                    let $folio = &world.owner.alloc(Order::REGION).unwrap().publish();
                    let request = MapRequest::new(Vpn::new(1 << 30), $folio.range(), Rights::ALL);
                    $space.insert($folio, request).unwrap();
                    let before = state(&$space, $folio);
                    // Every reservation fails in turn, and then none of them.
                    let mut nr_left = 0;
                    loop {
                        $space.table_mut().nr_left = nr_left;
                        $space.table_mut().nr_calls = 0;
                        let is_done: bool = $act;
                        let nr_calls = $space.table().nr_calls;
                        assert_eq!(is_done, nr_calls <= nr_left, "{nr_left} of {nr_calls} calls");
                        if is_done {
                            break;
                        }
                        assert!(before == state(&$space, $folio), "after {nr_left} calls");
                        nr_left += 1;
                    }
                    assert!(nr_left > 0, "it takes no table page");
                    let all = $space.table().addresses();
                    $space.table_mut().nr_left = usize::MAX;
                    $space.unmap(all).unwrap();
                    assert_eq!($space.table().inner.nr_free_nodes(), 599);
                    assert_eq!($folio.mapcount(), 0);

                    // The same with fewer and fewer table pages, until there are enough.
                    for nr_nodes in 4.. {
                        let mut nodes = super::nodes(nr_nodes);
                        let table = faulty(&mut nodes, replace);
                        let mut $space = AddressSpace::new(table, world.directory);
                        $space.insert($folio, request).unwrap();
                        let before = state(&$space, $folio);
                        let is_done: bool = $act;
                        if !is_done {
                            assert!(before == state(&$space, $folio), "with {nr_nodes} nodes");
                        }
                        let all = $space.table().addresses();
                        // What is left of the leaf is cut where it was cut already.
                        $space.unmap(all).unwrap();
                        assert_eq!($folio.mapcount(), 0);
                        if is_done {
                            break;
                        }
                    }
                });
            }
        }
    )*};
}

fn is_no_table<T, E: core::fmt::Debug>(
    result: Result<T, E>,
    judge_fn: impl FnOnce(&E) -> bool,
) -> bool {
    match result {
        Ok(_) => true,
        Err(error) => {
            assert!(judge_fn(&error), "{error:?}");
            false
        }
    }
}

steps! {
    a_table_page_that_is_missing_at_any_step_of_insert_changes_nothing: |space, folio| {
        let pages = pages(Pfn::new(folio.head().as_u64() + 5), 5000);
        let result = space.insert(folio, MapRequest::new(Vpn::new(0x4_0005), pages, Rights::READ));
        is_no_table(result, |error| matches!(error, InsertError::NoTable(_)))
    };
    a_table_page_that_is_missing_at_any_step_of_unmap_changes_nothing: |space, _folio| {
        let result = space.unmap(range((1 << 30) + 777, 100_000));
        is_no_table(result, |error| matches!(error, CutError::NoTable(_)))
    };
    a_table_page_that_is_missing_at_any_step_of_protect_changes_nothing: |space, _folio| {
        let result = space.protect(range((1 << 30) + 16, 1 << 10), Rights::READ);
        is_no_table(result, |error| matches!(error, CutError::NoTable(_)))
    };
    a_table_page_that_is_missing_at_any_step_of_demote_changes_nothing: |space, _folio| {
        let result = space.demote(range((1 << 30) + 777, 9_000), Order::ZERO);
        is_no_table(result, |error| matches!(error, CutError::NoTable(_)))
    };
    a_table_page_that_is_missing_at_any_step_of_remap_changes_nothing: |space, _folio| {
        let result = space.remap(range((1 << 30) + 777, 9_000), Vpn::new(0x1234));
        is_no_table(result, |error| matches!(error, MoveError::NoTable(_)))
    };
}

#[test]
fn a_table_page_that_is_missing_at_any_step_of_a_fork_changes_nothing() {
    with_world(|world| {
        let (mut nodes, mut more) = (nodes(32), nodes(32));
        let mut parent = AddressSpace::new(faulty(&mut nodes, Replace::Atomic), world.directory);
        let mut child = AddressSpace::new(faulty(&mut more, Replace::Atomic), world.directory);
        let folio = world.owner.alloc(Order::REGION).unwrap().publish();
        let request = MapRequest::new(Vpn::new(1 << 30), folio.range(), Rights::ALL);
        parent.insert(&folio, request).unwrap();
        parent.unmap(range((1 << 30) + 3, 5000)).unwrap();
        let before = state(&child, &folio);
        for nr_left in 0.. {
            child.table_mut().nr_left = nr_left;
            match parent.duplicate(range(1 << 30, 1 << 18), &mut child, Rights::READ) {
                Err(MoveError::NoTable(_)) => assert!(before == state(&child, &folio)),
                Err(other) => panic!("{other}"),
                Ok(_) => break,
            }
        }
        for space in [&mut parent, &mut child] {
            space.unmap(range(1 << 30, 1 << 18)).unwrap();
            assert_eq!(space.table().inner.nr_free_nodes(), 31);
        }
        assert_eq!(folio.mapcount(), 0);
    });
}

#[test]
fn counts_are_held_until_the_flush() {
    with_world(|world| {
        let folio = world.owner.alloc(Order::BLOCK).unwrap().publish();
        let head = folio.head();
        let mut nodes = nodes(8);
        let inner = SoftTable::new(&mut nodes, LeafSet::X86_64, Replace::Atomic).unwrap();
        let mut seen = Vec::new();
        let on_flush = |range| seen.push((range, world.owner.query(head)));
        let table = Faulty { inner, nr_left: usize::MAX, nr_calls: 0, highest: ANY_PAGE, on_flush };
        let mut space = AddressSpace::new(table, world.directory);
        space.insert(&folio, MapRequest::new(Vpn::new(0), folio.range(), Rights::READ)).unwrap();
        drop(folio);
        space.unmap(range(0, 1000)).unwrap();
        let _ = space.into_table();
        let [(flushed, PageInfo::Folio(info))] = seen.as_slice() else { panic!("{seen:?}") };
        assert_eq!((*flushed, info.mappings), (range(0, 512), 1));
    });
}

#[test]
fn refusals_of_insert_change_nothing_and_say_why() {
    let policy = Policy { mapping_max: Order::BLOCK, ..Policy::generic() };
    with_policy(policy, |world| {
        let folio = world.owner.alloc(order(10)).unwrap().publish();
        let mut nodes = nodes(8);
        let mut space = AddressSpace::new(faulty(&mut nodes, Replace::Atomic), world.directory);
        let at = |vpn| MapRequest::new(Vpn::new(vpn), folio.range(), Rights::READ);
        let before = state(&space, &folio);
        let [leaf, max] = [order(13), Order::BLOCK];
        let above = at(0).limit(LeafLimit::Exactly(leaf));
        assert_eq!(space.insert(&folio, above), Err(InsertError::AbovePolicy { leaf, max }));
        let (leaf, limit) = (order(3), LeafLimit::Exactly(order(3)));
        let refused = Err(InsertError::Plan(PlanError::NoSuchLeaf { leaf }));
        assert_eq!(space.insert(&folio, at(0).limit(limit)), refused);
        let beyond = pages(folio.head(), 1025);
        let refused = InsertError::OutsideFolio { pages: beyond, folio: folio.range() };
        let request = MapRequest::new(Vpn::new(0), beyond, Rights::READ);
        assert_eq!(space.insert(&folio, request), Err(refused));
        let table = space.table().addresses();
        let addresses = range((1 << 36) - 1, 1024);
        let refused = InsertError::OutsideTable { addresses, table };
        assert_eq!(space.insert(&folio, at((1 << 36) - 1)), Err(refused));
        let refused = Err(InsertError::Plan(PlanError::Range(RangeError::PastTop {
            start: Pfn::new(u64::MAX),
            nr_pages: 1024,
        })));
        assert_eq!(space.insert(&folio, at(u64::MAX)), refused);
        folio.close();
        let refused = InsertError::Count(CountError::Closed { head: folio.head() });
        assert_eq!(space.insert(&folio, at(0)), Err(refused));
        folio.reopen();
        assert_eq!(before, state(&space, &folio));

        space.insert(&folio, at(0x400)).unwrap();
        let before = state(&space, &folio);
        let refused = InsertError::Occupied { vpn: Vpn::new(0x400), pfn: folio.head() };
        assert_eq!(space.insert(&folio, at(0x3ff)), Err(refused));
        let refused = MoveError::Occupied { vpn: Vpn::new(0x400), pfn: folio.head() };
        assert_eq!(
            space.remap(range(0, 0x400), Vpn::new(0x200)),
            Err(MoveError::Overlap { from: range(0, 0x400), to: range(0x200, 0x400) })
        );
        assert_eq!(space.remap(range(0x800, 0x400), Vpn::new(0x200)), Err(refused));
        assert_eq!(before, state(&space, &folio));
        space.unmap(range(0x400, 1024)).unwrap();

        // An owner that is not in the directory of the address space.
        let slots = [DirSlot::new()];
        let empty = Directory::new(&slots);
        let mut nodes = super::nodes(8);
        let table = SoftTable::new(&mut nodes, LeafSet::X86_64, Replace::Atomic).unwrap();
        let mut stranger = AddressSpace::new(table, &empty);
        let refused = InsertError::NotRegistered { head: folio.head() };
        assert_eq!(stranger.insert(&folio, at(0)), Err(refused));
        assert_eq!(folio.mapcount(), 0);
    });
}

#[test]
fn refusals_of_a_single_leaf_change_nothing_and_say_why() {
    let policy = Policy { mapping_max: Order::BLOCK, ..Policy::generic() };
    with_policy(policy, |world| {
        let folio = world.owner.alloc(order(13)).unwrap().publish();
        let mut nodes = nodes(5);
        let mut space = AddressSpace::new(faulty(&mut nodes, Replace::Atomic), world.directory);
        let page = PfnRange::block(folio.head(), Order::ZERO);
        let at = |vpn| MapRequest::new(Vpn::new(vpn), page, Rights::READ);
        let before = state(&space, &folio);
        let [addresses, table] = [range(1 << 36, 1), space.table().addresses()];
        let refused = InsertError::OutsideTable { addresses, table };
        assert_eq!(space.insert(&folio, at(1 << 36)), Err(refused));
        space.table_mut().highest = Pfn::new(page.start().as_u64() - 1);
        let refused = InsertError::Unencodable { pages: page };
        assert_eq!(space.insert(&folio, at(0)), Err(refused));
        space.table_mut().highest = ANY_PAGE;
        folio.close();
        let refused = InsertError::Count(CountError::Closed { head: folio.head() });
        assert_eq!(space.insert(&folio, at(0)), Err(refused));
        folio.reopen();
        assert_eq!(before, state(&space, &folio));
        let no_table = NoTable { vpn: Vpn::new(0) };
        space.table_mut().nr_left = 0;
        assert_eq!(space.insert(&folio, at(0)), Err(InsertError::NoTable(no_table)));
        space.table_mut().nr_left = usize::MAX;
        assert_eq!(before, state(&space, &folio));

        // What is aligned to a leaf that the policy does not allow takes smaller ones.
        let whole = MapRequest::new(Vpn::new(0), folio.range(), Rights::READ);
        assert_eq!(space.insert(&folio, whole), Ok(16));
        let refused =
            InsertError::Occupied { vpn: Vpn::new(3), pfn: page.start().checked_add(3).unwrap() };
        assert_eq!(space.insert(&folio, at(3)), Err(refused));
        space.unmap(range(0, 1 << 13)).unwrap();
    });
}

#[test]
fn a_limit_of_mappings_refuses_and_undoes() {
    with_world(|world| {
        let mut nodes = nodes(600);
        let mut space = AddressSpace::new(faulty(&mut nodes, Replace::Atomic), world.directory);
        let [one, two] = [(); 2].map(|()| world.owner.alloc(Order::BLOCK).unwrap().publish());
        for (index, folio) in [&one, &two].into_iter().enumerate() {
            let vpn = Vpn::new(0x200 * (index as u64 + 1));
            space.insert(folio, MapRequest::new(vpn, folio.range(), Rights::READ)).unwrap();
        }
        // The second folio has no room for as many leaves as it would take.
        let max = Count::Mappings.max();
        let map = two.map(max - 3).unwrap();
        let (before, info) = (state(&space, &one), two.info());
        let have = info.mappings;
        let limit = CountError::Limit { count: Count::Mappings, have, max };
        let both = range(0x200, 1024);
        assert_eq!(space.demote(both, Order::ZERO), Err(CutError::Count(limit)));
        assert_eq!(space.unmap(range(0x3ff, 3)), Err(CutError::Count(limit)));
        assert_eq!(space.protect(range(0x3ff, 3), Rights::NONE), Err(CutError::Count(limit)));
        assert_eq!(space.remap(both, Vpn::new(0x1001)), Err(MoveError::Count(limit)));
        assert_eq!((before, info), (state(&space, &one), two.info()));
        drop(map);
        space.unmap(both).unwrap();
    });
}
