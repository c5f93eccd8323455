//! Unmapping everywhere, and the fracture cycle.

use super::*;
use crate::PinKind;

/// All spaces of a test, each over all of its addresses.
struct Everywhere<'a, 's>(&'a mut [&'s mut dyn Unmap]);

const ALL: u64 = 1 << 36;

impl Mappers for Everywhere<'_, '_> {
    fn for_each(
        &mut self,
        _: PfnRange,
        visit_fn: &mut dyn FnMut(&mut dyn Unmap, VpnRange) -> Result<(), CutError>,
    ) -> Result<(), CutError> {
        self.0.iter_mut().try_for_each(|space| visit_fn(*space, range(0, ALL)))
    }
}

/// Runs a test with two address spaces of different kind.
fn with_spaces(
    test_fn: impl FnOnce(
        &World<'_>,
        &mut AddressSpace<'_, SoftTable<'_>>,
        &mut AddressSpace<'_, SoftTable<'_>>,
    ),
) {
    with_world(|world| {
        let (mut few, mut more) = (nodes(64), nodes(1100));
        let table = SoftTable::new(&mut few, LeafSet::X86_64, Replace::Atomic).unwrap();
        let mut one = AddressSpace::new(table, world.directory);
        let set = LeafSet::ARM64_4K;
        let table = SoftTable::new(&mut more, set, Replace::BreakBeforeMake).unwrap();
        let mut two = AddressSpace::new(table, world.directory);
        test_fn(world, &mut one, &mut two);
        for space in [one, two] {
            assert_eq!(space.leaves(range(0, ALL)).count(), 0);
        }
    });
}

#[test]
fn pages_are_unmapped_wherever_they_are_and_others_stay() {
    with_spaces(|world, one, two| {
        let folio = world.owner.alloc(Order::REGION).unwrap().publish();
        let other = world.owner.alloc(Order::BLOCK).unwrap().publish();
        let whole = MapRequest::new(Vpn::new(1 << 18), folio.range(), Rights::READ);
        one.insert(&folio, whole).unwrap();
        one.insert(&other, MapRequest::new(Vpn::new(512), other.range(), Rights::READ)).unwrap();
        two.insert(&folio, whole).unwrap();
        // A second alias, aligned to nothing, of the middle only.
        let middle = pages(Pfn::new(folio.head().as_u64() + 1000), 5000);
        two.insert(&folio, MapRequest::new(Vpn::new(3), middle, Rights::READ)).unwrap();

        let part = pages(Pfn::new(folio.head().as_u64() + 2000), 3000);
        let unmapped = unmap_mapping_range(&mut Everywhere(&mut [one, two]), part).unwrap();
        assert_eq!(unmapped.nr_pages, 3 * 3000);
        let mapped = |space: &AddressSpace<'_, SoftTable<'_>>| -> u64 {
            space.leaves(range(0, ALL)).map(|(part, _)| part.nr_pages()).sum()
        };
        assert_eq!(mapped(one), (1 << 18) - 3000 + 512);
        assert_eq!(mapped(two), (1 << 18) - 3000 + 2000);
        for (_, leaf) in one.leaves(range(0, ALL)).chain(two.leaves(range(0, ALL))) {
            assert!(!leaf.pages().overlaps(part));
        }
        let counted = one.nr_leaves_of(range(0, ALL), folio.range())
            + two.nr_leaves_of(range(0, ALL), folio.range());
        assert_eq!(u64::from(folio.mapcount()), counted);
        assert_eq!(other.mapcount(), 1);
        let all = pages(Pfn::new(0), u64::MAX);
        unmap_mapping_range(&mut Everywhere(&mut [one, two]), all).unwrap();
        assert_eq!((folio.mapcount(), other.mapcount()), (0, 0));
    });
}

/// A range that ends within a leaf whose pages are meant only beyond it.
#[test]
fn a_leaf_is_left_alone_where_only_its_other_pages_are_meant() {
    with_spaces(|world, one, _| {
        let folio = world.owner.alloc(Order::BLOCK).unwrap().publish();
        one.insert(&folio, MapRequest::new(Vpn::new(512), folio.range(), Rights::READ)).unwrap();
        let high = pages(Pfn::new(folio.head().as_u64() + 256), 256);
        let unmapped = one.unmap_pages(range(512, 256), high).unwrap();
        assert_eq!((unmapped, folio.mapcount()), (Unmapped::default(), 1));
        one.unmap(range(512, 512)).unwrap();
    });
}

#[test]
fn a_fracture_unmaps_everywhere_and_publishes_the_pieces() {
    with_spaces(|world, one, two| {
        for how in [
            Fracture::Uniform(order(10)),
            Fracture::Uniform(Order::BLOCK),
            Fracture::Around(Pfn::new(FIRST.as_u64() + 700), Order::BLOCK),
            Fracture::Around(Pfn::new(FIRST.as_u64() + 700), Order::ZERO),
        ] {
            let folio = world.owner.claim(FIRST, order(12)).unwrap().publish();
            let request = MapRequest::new(Vpn::new(1 << 12), folio.range(), Rights::READ);
            one.insert(&folio, request).unwrap();
            two.insert(&folio, request.limit(LeafLimit::Exactly(Order::ZERO))).unwrap();
            let whole = folio.range();
            let mut all: [&mut dyn Unmap; 2] = [one, two];
            let pieces = fracture(folio, &mut Everywhere(&mut all), how).unwrap();
            let mut pieces: Vec<_> = pieces.collect();
            for piece in &pieces {
                let info = piece.info();
                assert_eq!((info.refs, info.pins, info.mappings), (1, 0, 0));
                assert!(!info.is_closed && whole.contains_range(piece.range()));
            }
            assert_eq!(pieces.iter().map(|piece| piece.nr_pages()).sum::<u64>(), 1 << 12);
            let first = &pieces[0];
            match how {
                Fracture::Uniform(order) => assert!(pieces.iter().all(|f| f.order() == order)),
                Fracture::Around(pfn, order) => {
                    assert!(first.order() == order && first.range().contains(pfn));
                }
            }
            // Each piece is mapped again by itself, and by leaves of its own order at most.
            for (index, piece) in pieces.iter().enumerate() {
                let vpn = Vpn::new((index as u64 + 1) << 12);
                let request = MapRequest::new(vpn, piece.range(), Rights::READ);
                one.insert(piece, request).unwrap();
                assert!(one.table().read(vpn).leaf().unwrap().order <= piece.order());
            }
            pieces.clear();
            one.unmap(range(0, ALL)).unwrap();
        }
    });
}

#[test]
fn a_pin_a_reference_or_a_mapping_in_the_way_is_named_and_nothing_changes() {
    with_spaces(|world, one, two| {
        let mut folio = world.owner.alloc(order(10)).unwrap().publish();
        let request = MapRequest::new(Vpn::new(1 << 10), folio.range(), Rights::READ);
        one.insert(&folio, request).unwrap();
        two.insert(&folio, request).unwrap();
        let how = Fracture::Uniform(Order::BLOCK);
        let before = folio.info();

        let pin = folio.pin(PinKind::Short).unwrap();
        let error = fracture(folio, &mut Everywhere(&mut [one, two]), how).unwrap_err();
        assert_eq!(
            error.reason,
            FractureReason::Held(FolioInfo { pins: 1, is_closed: true, ..before })
        );
        folio = error.folio;
        drop(pin);
        assert_eq!(folio.info(), before, "every mapping is there, and newcomers may come");

        let clone = folio.try_clone().unwrap();
        let error = fracture(folio, &mut Everywhere(&mut [one, two]), how).unwrap_err();
        assert_eq!(
            error.reason,
            FractureReason::Held(FolioInfo { refs: 2, is_closed: true, ..before })
        );
        folio = error.folio;
        drop(clone);
        assert_eq!(folio.info(), before);

        // A reverse map that has forgotten one of the spaces.
        let error = fracture(folio, &mut Everywhere(&mut [one]), how).unwrap_err();
        let FractureReason::Unknown { nr_found, .. } = error.reason else { panic!("{error}") };
        assert_eq!((nr_found, error.folio.info()), (2, before));
        folio = error.folio;

        let max = order(10);
        let error =
            fracture(folio, &mut Everywhere(&mut []), Fracture::Uniform(order(11))).unwrap_err();
        let reason = SplitReason::OrderTooLarge { order: order(11), max };
        assert_eq!(error.reason, FractureReason::Split(reason));
        folio = error.folio;
        let stray = Fracture::Around(Pfn::new(folio.range().last().as_u64() + 1), Order::ZERO);
        let error = fracture(folio, &mut Everywhere(&mut []), stray).unwrap_err();
        assert!(matches!(error.reason, FractureReason::Split(SplitReason::NotPart { .. })));
        assert_eq!(error.folio.info(), before);

        one.unmap(range(0, ALL)).unwrap();
        two.unmap(range(0, ALL)).unwrap();
    });
}

#[test]
fn a_fracture_without_tables_gives_the_folio_back_whole() {
    with_spaces(|world, one, two| {
        // All tables of the budget are spent on other blocks.
        let mut spent = Vec::new();
        for index in 0..8 {
            let pfn = Pfn::new(FIRST.as_u64() + (index + 8) * 512);
            spent.push(world.owner.claim(pfn, Order::ZERO).unwrap());
        }
        let folio = world.owner.claim(FIRST, Order::BLOCK).unwrap().publish();
        let request = MapRequest::new(Vpn::new(512), folio.range(), Rights::READ);
        one.insert(&folio, request).unwrap();
        let mut all: [&mut dyn Unmap; 2] = [one, two];
        let how = Fracture::Uniform(Order::ZERO);
        let error = fracture(folio, &mut Everywhere(&mut all), how).unwrap_err();
        let reason = SplitReason::NoTables { needed: 1, left: 0 };
        assert_eq!(error.reason, FractureReason::Tables(reason));
        let info = error.folio.info();
        assert_eq!((info.order, info.refs, info.is_closed), (Order::BLOCK, 1, false));
    });
}
