//! Shims of what maps pages.

use devfolio::*;

use super::{Core, Owner, Shared};

type Space = AddressSpace<'static, SoftTable<'static>>;
type Zapped = Gather<'static, 'static, SoftTable<'static>>;
type Places = &'static Directory<'static>;

/// A reverse map of one space.
struct One(&'static mut Space);

impl Mappers for One {
    fn for_each(
        &mut self,
        pages: PfnRange,
        visit_fn: &mut dyn FnMut(&mut dyn Unmap, VpnRange) -> Result<(), CutError>,
    ) -> Result<(), CutError> {
        let all = VpnRange::block(Vpn::new(pages.start().as_u64()), Order::MAX);
        visit_fn(self.0, all)
    }
}

super::shims! {
    /// Shim of `Vpn::new`, `Vpn::as_u64`, `Vpn::checked_add`, `Vpn::offset_from`,
    /// `Vpn::is_aligned_to`, `Vpn::head`.
    fn shim_vpn(vpn: u64, nr_pages: u64, order: Order) -> Option<u64> {
        let vpn = Vpn::new(vpn).checked_add(nr_pages)?;
        let head = vpn.head(order);
        let offset = vpn.offset_from(head).filter(|_| head.is_aligned_to(order));
        offset.map(|nr| nr ^ vpn.as_u64())
    }

    /// Shim of `VpnRange::new`, `VpnRange::between`, `VpnRange::start`, `VpnRange::last`,
    /// `VpnRange::nr_pages`, `VpnRange::contains`.
    fn shim_vpn_range(vpn: Vpn, nr_pages: u64) -> Option<u64> {
        let range = VpnRange::new(vpn, nr_pages).ok()?;
        let again = VpnRange::between(range.start(), range.last())?;
        again.contains(vpn).then(|| again.nr_pages())
    }

    /// Shim of `VpnRange::block`, `VpnRange::page`, `VpnRange::contains_range`,
    /// `VpnRange::overlaps`, `VpnRange::intersection`.
    fn shim_vpn_range_pairs(vpn: Vpn, order: Order, other: VpnRange) -> Option<VpnRange> {
        let block = VpnRange::block(vpn, order);
        let meets = block.overlaps(other) ^ block.contains_range(VpnRange::page(vpn));
        block.intersection(other).filter(|_| meets)
    }

    /// Shim of `VpnRange::from`, `VpnRange::behind`.
    fn shim_vpn_range_rest(range: VpnRange, vpn: Vpn) -> Option<VpnRange> {
        range.from(vpn)?.behind(vpn)
    }

    /// Shim of `Rights::bits`, `Rights::from_bits`, `Rights::contains`, `Access::rights`.
    fn shim_rights(bits: u8, access: Access) -> u8 {
        let rights = Rights::from_bits(bits);
        if rights.contains(access.rights()) { (rights | Rights::READ).bits() } else { 0 }
    }

    /// Shim of `Leaf::new`, `Leaf::pages`, `Leaf::addresses`, `Leaf::page_at`.
    fn shim_leaf(pfn: Pfn, order: Order, vpn: Vpn) -> (PfnRange, VpnRange, Pfn) {
        let leaf = Leaf::new(pfn, order, Rights::READ);
        (leaf.pages(), leaf.addresses(vpn), leaf.page_at(vpn))
    }

    /// Shim of `Leaf::piece`, `Leaf::is_same`, `Entry::leaf`, `Entry::last`.
    fn shim_entry(entry: Entry, vpn: Vpn, order: Order) -> Option<Vpn> {
        let leaf = entry.leaf()?;
        leaf.is_same(&leaf.piece(vpn, order)).then(|| entry.last(vpn))
    }

    /// Shim of `LeafSet::with`, `LeafSet::up_to`, `LeafSet::contains`, `LeafSet::floor`,
    /// `LeafSet::max`, `LeafSet::below`, `LeafSet::above`.
    fn shim_leaf_set(set: LeafSet, order: Order) -> Option<Order> {
        let set = set.with(order).up_to(order);
        if set.contains(order) { set.above(set.floor(order)) } else { set.below(set.max()) }
    }

    /// Shim of `LeafSet::orders`.
    fn shim_leaf_set_orders(set: LeafSet) -> Option<Order> {
        set.orders().rev().chain(set.orders()).last()
    }

    /// Shim of `LeafPlan::new`, `LeafPlan::addresses`, `LeafPlan::pages`.
    fn shim_leaf_plan_new(
        vpn: Vpn,
        pages: PfnRange,
        folio: Order,
        set: LeafSet,
        limit: LeafLimit,
    ) -> Result<(VpnRange, PfnRange), PlanError> {
        LeafPlan::new(vpn, pages, folio, set, limit).map(|plan| (plan.addresses(), plan.pages()))
    }

    /// Shim of `LeafPlan::runs`, `LeafPlan::leaves`, `LeafPlan::nr_leaves`, `LeafRun::leaves`.
    fn shim_leaf_plan_leaves(plan: LeafPlan) -> u64 {
        let in_runs = plan.runs().flat_map(LeafRun::leaves).count() as u64;
        plan.nr_leaves() ^ in_runs ^ plan.leaves().count() as u64
    }

    /// Shim of `SoftTable::new`, `SoftTable::with_level_bits`.
    fn shim_soft_table_new(
        nodes: &'static mut [SoftNode],
        set: LeafSet,
        bits: u8,
    ) -> Option<SoftTable<'static>> {
        match bits {
            9 => SoftTable::new(nodes, set, Replace::Atomic),
            _ => SoftTable::with_level_bits(nodes, bits, set, Replace::BreakBeforeMake),
        }
    }

    /// Shim of `SoftTable::reader`, `SoftTable::nr_free_nodes`, `SoftTable::nr_flushes`.
    fn shim_soft_table(table: &SoftTable<'static>) -> (SoftReader<'static>, u64) {
        (table.reader(), table.nr_free_nodes() as u64 ^ table.nr_flushes())
    }

    /// Shim of `SoftReader::touch`.
    fn shim_soft_reader_touch(reader: SoftReader<'static>, vpn: Vpn) -> Result<Pfn, Entry> {
        reader.touch(vpn, Access::Write)
    }

    /// Shim of `AddressSpace::new`, `AddressSpace::table_mut`, `AddressSpace::into_table`.
    fn shim_address_space_new(table: SoftTable<'static>, places: Places) -> SoftTable<'static> {
        let mut space = AddressSpace::new(table, places);
        space.table_mut().flush(VpnRange::page(Vpn::new(0)));
        space.into_table()
    }

    /// Shim of `AddressSpace::table`, `AddressSpace::leaves`.
    fn shim_address_space_leaves(space: &Space, range: VpnRange) -> Option<(VpnRange, Leaf)> {
        space.leaves(range.intersection(space.table().addresses())?).last()
    }

    /// Shim of `MapRequest::new`, `MapRequest::limit`, `AddressSpace::insert`.
    fn shim_address_space_insert(
        space: &mut Space,
        folio: &Shared,
        vpn: Vpn,
        limit: LeafLimit,
    ) -> Result<u32, InsertError> {
        let request = MapRequest::new(vpn, folio.range(), Rights::READ).limit(limit);
        space.insert(folio, request)
    }

    /// Shim of `AddressSpace::insert_any`.
    fn shim_address_space_insert_any(
        space: &mut Space,
        folio: &AnyFolio<'static>,
        request: MapRequest,
    ) -> Result<u32, InsertError> {
        space.insert_any(folio, request)
    }

    /// Shim of `AddressSpace::insert_foreign`.
    fn shim_address_space_insert_foreign(
        space: &mut Space,
        request: MapRequest,
    ) -> Result<u64, InsertError> {
        space.insert_foreign(request)
    }

    /// Shim of `AddressSpace::protect`.
    fn shim_address_space_protect(space: &mut Space, range: VpnRange) -> Result<u64, CutError> {
        space.protect(range, Rights::NONE)
    }

    /// Shim of `AddressSpace::zap`.
    fn shim_address_space_zap(
        space: &'static mut Space,
        range: VpnRange,
    ) -> Result<Zapped, CutError> {
        space.zap(range)
    }

    /// Shim of `Gather::runs`, `Gather::rest`, `Gather::totals`, `Gather::flush`.
    fn shim_gather(gather: Zapped) -> (Option<ZapRun>, Option<VpnRange>, Unmapped) {
        let (last, totals) = (gather.runs().last(), gather.totals());
        let rest = gather.rest();
        (last, gather.flush().or(rest), totals)
    }

    /// Shim of `AddressSpace::unmap`.
    fn shim_address_space_unmap(space: &mut Space, range: VpnRange) -> Result<Unmapped, CutError> {
        space.unmap(range)
    }

    /// Shim of `AddressSpace::demote`.
    fn shim_address_space_demote(
        space: &mut Space,
        range: VpnRange,
        max: Order,
    ) -> Result<u64, CutError> {
        space.demote(range, max)
    }

    /// Shim of `AddressSpace::promote`.
    fn shim_address_space_promote(space: &mut Space, range: VpnRange, max: Order) -> u64 {
        space.promote(range, max)
    }

    /// Shim of `AddressSpace::remap`.
    fn shim_address_space_remap(
        space: &mut Space,
        range: VpnRange,
        to: Vpn,
    ) -> Result<u64, MoveError> {
        space.remap(range, to)
    }

    /// Shim of `AddressSpace::duplicate`.
    fn shim_address_space_duplicate(
        space: &Space,
        range: VpnRange,
        other: &mut Space,
    ) -> Result<u64, MoveError> {
        space.duplicate(range, other, Rights::READ)
    }

    /// Shim of `gup_fast`, `GupError::is_transient`.
    fn shim_gup_fast(
        reader: SoftReader<'static>,
        places: Places,
        range: VpnRange,
        take: GupTake,
    ) -> Result<GupRun<'static>, bool> {
        let run = gup_fast(&reader, places, range, Access::Read, take);
        run.map_err(|error| error.is_transient())
    }

    /// Shim of `gup`.
    fn shim_gup(
        reader: SoftReader<'static>,
        places: Places,
        range: VpnRange,
        fault_fn: fn(Vpn, Access) -> Result<(), u8>,
    ) -> Result<GupRun<'static>, GupSlowError<u8>> {
        gup(&reader, places, range, Access::Write, GupTake::Reference, fault_fn)
    }

    /// Shim of `unmap_mapping_range`.
    fn shim_unmap_mapping_range(
        space: &'static mut Space,
        pages: PfnRange,
    ) -> Result<Unmapped, CutError> {
        unmap_mapping_range(&mut One(space), pages)
    }

    /// Shim of `for_each_mapping`.
    fn shim_for_each_mapping(space: &'static mut Space, pages: PfnRange) -> Option<Mapped> {
        let mut last = None;
        for_each_mapping(&mut One(space), pages, |mapped| last = Some(mapped));
        last
    }

    /// Shim of `memory_failure`.
    fn shim_memory_failure(
        pgmap: Core,
        pfn: Pfn,
        space: &'static mut Space,
        each_fn: fn(Mapped),
    ) -> Result<Poisoned, PoisonError> {
        memory_failure(pgmap, pfn, &mut One(space), each_fn)
    }

    /// Shim of `fracture`.
    fn shim_fracture(
        space: &'static mut Space,
        folio: Shared,
        how: Fracture,
    ) -> Result<Fractured<'static, Owner>, FractureError<'static, Owner>> {
        fracture(folio, &mut One(space), how)
    }

    /// Takes the next folio of a fracture.
    fn shim_fractured_next(fractured: &mut Fractured<'static, Owner>) -> Option<Shared> {
        fractured.next()
    }
}
