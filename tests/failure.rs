//! A page that fails: whoever maps it is told where, once, and nobody else is told anything.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test may panic")]

use core::sync::atomic::{AtomicU64, Ordering};

use devfolio::{
    AddressSpace, Attach, CutError, DirSlot, Directory, ExtentAttrs, ExtentSlot, FolioInfo, Leaf,
    LeafLimit, LeafSet, MapRequest, Mapped, Mappers, MetaLine, MetaSize, Order, PageInfo, Pfn,
    PfnRange, Pgmap, PgmapOps, PoisonError, Poisoned, Policy, Replace, Rights, SoftNode, SoftTable,
    Tables, Unmap, Vpn, VpnRange, for_each_mapping, memory_failure, unmap_mapping_range,
};

/// Counts what it is told.
#[derive(Default)]
struct Owner {
    nr_told: AtomicU64,
}

impl PgmapOps for Owner {
    type Private = ();

    fn page_poisoned(&self, _: Pfn, _: Option<FolioInfo>) {
        self.nr_told.fetch_add(1, Ordering::Relaxed);
    }
}

type Space<'d> = AddressSpace<'d, SoftTable<'d>>;

/// Address spaces, each over these ranges.
struct Named<'a, 's>(&'a mut [&'s mut dyn Unmap], &'a [VpnRange]);

impl Mappers for Named<'_, '_> {
    fn for_each(
        &mut self,
        _: PfnRange,
        visit_fn: &mut dyn FnMut(&mut dyn Unmap, VpnRange) -> Result<(), CutError>,
    ) -> Result<(), CutError> {
        let Self(spaces, ranges) = self;
        spaces.iter_mut().try_for_each(|space| ranges.iter().try_for_each(|r| visit_fn(*space, *r)))
    }
}

fn range(vpn: u64, nr_pages: u64) -> VpnRange {
    VpnRange::new(Vpn::new(vpn), nr_pages).unwrap()
}

fn pages(pfn: u64, nr_pages: u64) -> PfnRange {
    PfnRange::new(Pfn::new(pfn), nr_pages).unwrap()
}

/// All addresses that a test uses.
fn all() -> VpnRange {
    range(0, 1 << 20)
}

/// The first page of the folio.
const HEAD: u64 = 512;
/// Where it is mapped as one leaf, and where as base pages.
const LEAF: u64 = 512;
const SMALL: u64 = 1024;
/// Where four of its pages are mapped once more, from page 6 on, aligned to nothing.
const ALIAS: u64 = 5;

/// Runs a test with 1024 pages, two address spaces and room for eight bad pages. The second block
/// is one folio: one leaf of the first space; of the second all base pages, and four once more.
fn in_world(test_fn: impl FnOnce(&Pgmap<'_, Owner>, &mut Space<'_>, &mut Space<'_>)) {
    let tables = Tables::Dense;
    let nr_lines = MetaSize::of(pages(0, 1024), tables).poison(8).lines();
    let mut lines: Vec<_> = (0..nr_lines).map(|_| MetaLine::ZERO).collect();
    let slots = [ExtentSlot::new()];
    let pgmap = Pgmap::new(Owner::default(), Policy::generic(), &slots);
    let attrs = ExtentAttrs::NEW;
    pgmap.add_extent(pages(0, 1024), attrs, tables, &mut lines, Attach::Zeroed).unwrap();
    let owners = [DirSlot::new()];
    let directory = Directory::new(&owners);
    directory.register(&pgmap).unwrap();
    let mut nodes: [Vec<_>; 2] = [(); 2].map(|()| (0..16).map(|_| SoftNode::new()).collect());
    let [mut one, mut two] = nodes.each_mut().map(|nodes| {
        let table = SoftTable::new(nodes, LeafSet::X86_64, Replace::Atomic).unwrap();
        AddressSpace::new(table, &directory)
    });
    let folio = pgmap.claim(Pfn::new(HEAD), Order::BLOCK).unwrap().publish();
    let request = |vpn, pages| MapRequest::new(Vpn::new(vpn), pages, Rights::READ);
    one.insert(&folio, request(LEAF, folio.range())).unwrap();
    let small = request(SMALL, folio.range()).limit(LeafLimit::Exactly(Order::ZERO));
    two.insert(&folio, small).unwrap();
    two.insert(&folio, request(ALIAS, pages(HEAD + 6, 4))).unwrap();
    // Its mappings keep it alive.
    drop(folio);
    test_fn(&pgmap, &mut one, &mut two);
    for space in [&mut one, &mut two] {
        space.unmap(all()).unwrap();
    }
    pgmap.check().unwrap();
}

fn leaf(pfn: u64, order: Order) -> Leaf {
    Leaf::new(Pfn::new(pfn), order, Rights::READ)
}

/// What is to be told by a visit of all addresses.
fn mapped(visit_index: usize, addresses: VpnRange, leaf: Leaf) -> Mapped {
    Mapped { visit_index, range: all(), addresses, leaf }
}

fn told(mappers: &mut dyn Mappers, pages: PfnRange) -> Vec<Mapped> {
    let mut told = Vec::new();
    for_each_mapping(mappers, pages, |mapped| told.push(mapped));
    told
}

#[test]
fn a_bad_page_is_told_once_with_each_address_that_shows_it() {
    in_world(|pgmap, one, two| {
        let (pfn, mut told) = (Pfn::new(HEAD + 7), Vec::new());
        let nr_told = || pgmap.ops().nr_told.load(Ordering::Relaxed);
        let ranges = [all()];
        let poisoned = {
            let mut mappers: [&mut dyn Unmap; 2] = [one, two];
            let mut mappers = Named(&mut mappers, &ranges);
            memory_failure(pgmap, pfn, &mut mappers, |mapped| {
                assert_eq!(nr_told(), 1, "the owner comes first");
                told.push(mapped);
            })
        };
        let Ok(Poisoned::InUse { folio: Some(folio) }) = poisoned else { panic!("{poisoned:?}") };
        assert_eq!((folio.head, folio.mappings), (Pfn::new(HEAD), 1 + 512 + 4));
        let expected = [
            mapped(0, range(LEAF + 7, 1), leaf(HEAD, Order::BLOCK)),
            mapped(1, range(ALIAS + 1, 1), leaf(HEAD + 7, Order::ZERO)),
            mapped(1, range(SMALL + 7, 1), leaf(HEAD + 7, Order::ZERO)),
        ];
        assert_eq!(told, expected);
        assert_eq!(pgmap.query(pfn), PageInfo::Folio(folio), "nothing is unmapped");

        let mut both: [&mut dyn Unmap; 2] = [one, two];
        let mut mappers = Named(&mut both, &ranges);
        let again = memory_failure(pgmap, pfn, &mut mappers, |mapped| panic!("{mapped:?}"));
        assert_eq!((again, nr_told()), (Ok(Poisoned::Known), 1));

        // Who is told of them may take them away, and then nobody has the page.
        let unmapped = unmap_mapping_range(&mut mappers, PfnRange::block(pfn, Order::ZERO));
        assert_eq!(unmapped.unwrap().nr_pages, 3);
        assert_eq!(self::told(&mut mappers, PfnRange::block(pfn, Order::ZERO)), []);
    });
}

#[test]
fn a_page_that_nobody_can_map_is_told_to_nobody() {
    in_world(|pgmap, one, two| {
        // A foreign page that is mapped, too.
        let foreign = MapRequest::new(Vpn::new(3000), pages(4096, 1), Rights::READ);
        one.insert_foreign(foreign).unwrap();
        let (mut both, ranges): ([&mut dyn Unmap; 2], _) = ([one, two], [all()]);
        let mut mappers = Named(&mut both, &ranges);
        let mut fail = |page| {
            memory_failure(pgmap, Pfn::new(page), &mut mappers, |mapped| panic!("{mapped:?}"))
        };
        assert_eq!(fail(7), Ok(Poisoned::Quarantined));
        assert_eq!(fail(7), Ok(Poisoned::Known));
        let pfn = Pfn::new(4096);
        assert_eq!(fail(4096), Err(PoisonError::Outside { pfn }));
        for page in 8..15 {
            fail(page).unwrap();
        }
        // A page that is mapped, and no room in the list.
        let pfn = Pfn::new(HEAD);
        assert_eq!(fail(HEAD), Err(PoisonError::NoRoom { pfn, max: 8 }));
        assert_eq!(pgmap.ops().nr_told.load(Ordering::Relaxed), 8);
        let foreign = told(&mut mappers, pages(4096, 1));
        assert_eq!(foreign, [mapped(0, range(3000, 1), leaf(4096, Order::ZERO))]);
    });
}

#[test]
fn a_run_of_pages_is_told_leaf_by_leaf_and_cut_to_the_ranges_that_are_named() {
    in_world(|_, one, two| {
        let run = pages(HEAD + 100, 100);
        let block = leaf(HEAD, Order::BLOCK);
        let found = told(&mut Named(&mut [one], &[all()]), run);
        assert_eq!(found, [mapped(0, range(LEAF + 100, 100), block)]);
        let found = told(&mut Named(&mut [two], &[all()]), run);
        let base = |page| leaf(HEAD + page, Order::ZERO);
        let each = (100..200).map(|page| mapped(0, range(SMALL + page, 1), base(page)));
        assert!(found.into_iter().eq(each));

        let halves = [range(0, LEAF + 150), range(LEAF + 150, 3), range(LEAF + 250, 9)];
        let found = told(&mut Named(&mut [one], &halves), run);
        let part = |visit_index, range, addresses| Mapped {
            range,
            ..mapped(visit_index, addresses, block)
        };
        let first = part(0, halves[0], range(LEAF + 100, 50));
        assert_eq!(found, [first, part(1, halves[1], halves[1])]);
    });
}
