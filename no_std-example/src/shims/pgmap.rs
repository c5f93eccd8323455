//! Shims of what an owner and a directory do.

use core::mem::MaybeUninit;
use core::pin::pin;
use core::task::{Context, Poll};

use devfolio::*;

use super::{
    Core, Descs, Mapping, Owner, Pages, Pin, Plain, Shared, SharedDescs, Unique, UniqueDescs,
};

super::shims! {
    /// Shim of `Pgmap::new`.
    fn shim_pgmap_new(
        ops: Owner,
        policy: Policy,
        slots: &'static [ExtentSlot],
    ) -> Pgmap<'static, Owner> {
        Pgmap::new(ops, policy, slots)
    }

    /// Shim of `Pgmap::add_extent`.
    fn shim_pgmap_add_extent(
        pgmap: &Pgmap<'static, Plain>,
        range: PfnRange,
        attrs: ExtentAttrs,
        tables: Tables,
        meta: &'static mut [MetaLine],
        attach: Attach,
    ) -> Result<(), AddExtentError> {
        pgmap.add_extent(range, attrs, tables, meta, attach)
    }

    /// Shim of `Pgmap::add_extent_with_private`.
    fn shim_pgmap_add_extent_with_private(
        pgmap: &Pgmap<'static, Owner>,
        range: PfnRange,
        attrs: ExtentAttrs,
        tables: Tables,
        meta: &'static mut [MetaLine],
        attach: Attach,
        private: &'static mut [MaybeUninit<u64>],
    ) -> Result<(), AddExtentError> {
        pgmap.add_extent_with_private(range, attrs, tables, meta, attach, private)
    }

    /// Shim of `Pgmap::add_closed_extent`.
    fn shim_pgmap_add_closed_extent(
        pgmap: &Pgmap<'static, Owner>,
        range: PfnRange,
        attrs: ExtentAttrs,
        tables: Tables,
        meta: &'static mut [MetaLine],
        attach: Attach,
        private: &'static mut [MaybeUninit<u64>],
    ) -> Result<(), AddExtentError> {
        pgmap.add_closed_extent(range, attrs, tables, meta, attach, private)
    }

    /// Shim of `PgmapCore::ops`.
    fn shim_pgmap_core_ops(pgmap: Core) -> &'static Owner {
        pgmap.ops()
    }

    /// Shim of `PgmapCore::policy`.
    fn shim_pgmap_core_policy(pgmap: Core) -> Policy {
        pgmap.policy()
    }

    /// Shim of `PgmapCore::extents`.
    fn shim_pgmap_core_extents(pgmap: Core) -> Option<(PfnRange, ExtentAttrs)> {
        pgmap.extents().last()
    }

    /// Shim of `PgmapCore::alloc`.
    fn shim_pgmap_core_alloc(pgmap: Core, order: Order) -> Result<Unique, AllocError> {
        pgmap.alloc(order)
    }

    /// Shim of `PgmapCore::magazine`.
    fn shim_pgmap_core_magazine(pgmap: Core, order: Order) -> Pages {
        pgmap.magazine(order)
    }

    /// Shim of `Magazine::alloc`.
    fn shim_magazine_alloc(magazine: &mut Pages) -> Result<Unique, AllocError> {
        magazine.alloc()
    }

    /// Shim of `Magazine::release`.
    fn shim_magazine_release(magazine: &mut Pages, folio: Unique) {
        magazine.release(folio)
    }

    /// Shim of `Magazine::release_clean`.
    fn shim_magazine_release_clean(magazine: &mut Pages, folio: Unique) {
        magazine.release_clean(folio)
    }

    /// Shim of `Magazine::drain`.
    fn shim_magazine_drain(magazine: &mut Pages) {
        magazine.drain()
    }

    /// Shim of `Magazine::len`.
    fn shim_magazine_len(magazine: &Pages) -> usize {
        magazine.len()
    }

    /// Shim of `Magazine::is_empty`.
    fn shim_magazine_is_empty(magazine: &Pages) -> bool {
        magazine.is_empty()
    }

    /// Shim of `PgmapCore::alloc_with`.
    fn shim_pgmap_core_alloc_with(pgmap: Core, request: Request) -> Result<Unique, AllocError> {
        pgmap.alloc_with(request)
    }

    /// Shim of `PgmapCore::alloc_set`.
    fn shim_pgmap_core_alloc_set(
        pgmap: Core,
        request: SetRequest,
        descs: Descs,
    ) -> Result<UniqueDescs, AllocError> {
        pgmap.alloc_set(request, descs)
    }

    /// Shim of `PgmapCore::alloc_bulk`.
    fn shim_pgmap_core_alloc_bulk(
        pgmap: Core,
        request: Request,
        nr_folios: usize,
        descs: Descs,
    ) -> Result<UniqueDescs, AllocError> {
        pgmap.alloc_bulk(request, nr_folios, descs)
    }

    /// Shim of `PgmapCore::alloc_run`.
    fn shim_pgmap_core_alloc_run(
        pgmap: Core,
        nr_pages: u64,
        request: Request,
        descs: Descs,
    ) -> Result<UniqueDescs, AllocError> {
        pgmap.alloc_run(nr_pages, request, descs)
    }

    /// Shim of `PgmapCore::claim`.
    fn shim_pgmap_core_claim(pgmap: Core, head: Pfn, order: Order) -> Result<Unique, ClaimError> {
        pgmap.claim(head, order)
    }

    /// Shim of `PgmapCore::claim_range`.
    fn shim_pgmap_core_claim_range(
        pgmap: Core,
        range: PfnRange,
        descs: Descs,
    ) -> Result<UniqueDescs, ClaimError> {
        pgmap.claim_range(range, descs)
    }

    /// Shim of `PgmapCore::claim_kept`.
    fn shim_pgmap_core_claim_kept(pgmap: Core, head: Pfn) -> Result<Unique, ReviveError> {
        pgmap.claim_kept(head)
    }

    /// Shim of `PgmapCore::claim_retired`.
    fn shim_pgmap_core_claim_retired(pgmap: Core, head: Pfn) -> Result<Unique, ReviveError> {
        pgmap.claim_retired(head)
    }

    /// Shim of `PgmapCore::poison`.
    fn shim_pgmap_core_poison(pgmap: Core, pfn: Pfn) -> Result<Poisoned, PoisonError> {
        pgmap.poison(pfn)
    }

    /// Shim of `PgmapCore::poison_list`.
    fn shim_pgmap_core_poison_list(pgmap: Core, pages: &[Pfn]) -> Result<usize, PoisonListError> {
        pgmap.poison_list(pages)
    }

    /// Shim of `PgmapCore::unpoison`.
    fn shim_pgmap_core_unpoison(pgmap: Core, pfn: Pfn) -> Result<(), UnpoisonError> {
        pgmap.unpoison(pfn)
    }

    /// Shim of `PgmapCore::offline`.
    fn shim_pgmap_core_offline(pgmap: Core, range: PfnRange) -> Result<Life, OfflineError> {
        pgmap.offline(range)
    }

    /// Shim of `PgmapCore::online`.
    fn shim_pgmap_core_online(pgmap: Core, range: PfnRange) -> Result<(), OnlineError> {
        pgmap.online(range)
    }

    /// Shim of `PgmapCore::offline_state`.
    fn shim_pgmap_core_offline_state(pgmap: Core, range: PfnRange) -> Option<Life> {
        pgmap.offline_state(range)
    }

    /// Shim of `PgmapCore::for_each_busy_in`.
    fn shim_pgmap_core_for_each_busy_in(pgmap: Core, range: PfnRange) -> Option<StillBusy> {
        let mut last = None;
        pgmap.for_each_busy_in(range, |busy| last = Some(busy));
        last
    }

    /// Shim of `PgmapCore::wait_offline`.
    fn shim_pgmap_core_wait_offline(pgmap: Core, range: PfnRange) -> Result<(), DrainError> {
        pgmap.wait_offline(range)
    }

    /// Shim of `PgmapCore::wait_offline_until`.
    fn shim_pgmap_core_wait_offline_until(
        pgmap: Core,
        range: PfnRange,
        deadline: u64,
    ) -> Result<(), DrainError> {
        pgmap.wait_offline_until(range, deadline)
    }

    /// Shim of `PgmapCore::offline_drained`.
    fn shim_pgmap_core_offline_drained(
        pgmap: Core,
        range: PfnRange,
        cx: &mut Context<'_>,
    ) -> Result<Poll<Result<(), DrainError>>, DrainError> {
        pgmap.offline_drained(range).map(|end| pin!(end).poll(cx))
    }

    /// Shim of `PgmapCore::poisoned`.
    fn shim_pgmap_core_poisoned(pgmap: Core) -> Option<Pfn> {
        pgmap.poisoned().last()
    }

    /// Shim of `PgmapCore::revive`.
    fn shim_pgmap_core_revive(pgmap: Core, head: Pfn) -> Result<Shared, ReviveError> {
        pgmap.revive(head)
    }

    /// Shim of `PgmapCore::try_get`.
    fn shim_pgmap_core_try_get(pgmap: Core, pfn: Pfn) -> Result<Shared, GetError> {
        pgmap.try_get(pfn)
    }

    /// Shim of `PgmapCore::query`.
    fn shim_pgmap_core_query(pgmap: Core, pfn: Pfn) -> PageInfo {
        pgmap.query(pfn)
    }

    /// Shim of `PgmapCore::kill`.
    fn shim_pgmap_core_kill(pgmap: Core) -> Life {
        pgmap.kill()
    }

    /// Shim of `PgmapCore::state`.
    fn shim_pgmap_core_state(pgmap: Core) -> Life {
        pgmap.state()
    }

    /// Shim of `PgmapCore::try_drain`.
    fn shim_pgmap_core_try_drain(pgmap: Core) -> Result<(), StillBusy> {
        pgmap.try_drain()
    }

    /// Shim of `PgmapCore::wait_drained`.
    fn shim_pgmap_core_wait_drained(pgmap: Core) {
        pgmap.wait_drained()
    }

    /// Shim of `PgmapCore::wait_drained_until`.
    fn shim_pgmap_core_wait_drained_until(pgmap: Core, deadline: u64) -> Result<(), DrainError> {
        pgmap.wait_drained_until(deadline)
    }

    /// Shim of `PgmapCore::drained`, polled and dropped.
    fn shim_pgmap_core_drained(pgmap: Core, cx: &mut Context<'_>) -> Poll<()> {
        pin!(pgmap.drained()).poll(cx)
    }

    /// Shim of `PgmapCore::for_each_busy`.
    fn shim_pgmap_core_for_each_busy(pgmap: Core, each_fn: fn(StillBusy)) {
        pgmap.for_each_busy(each_fn)
    }

    /// Shim of `PgmapCore::remove_extent`.
    fn shim_pgmap_core_remove_extent(pgmap: Core, pfn: Pfn) -> Result<Life, RemoveError> {
        pgmap.remove_extent(pfn)
    }

    /// Shim of `PgmapCore::surprise_remove_extent`.
    fn shim_pgmap_core_surprise_remove_extent(pgmap: Core, pfn: Pfn) -> Result<Life, RemoveError> {
        pgmap.surprise_remove_extent(pfn)
    }

    /// Shim of `PgmapCore::restore_extent`.
    fn shim_pgmap_core_restore_extent(pgmap: Core, pfn: Pfn) -> Result<(), RemoveError> {
        pgmap.restore_extent(pfn)
    }

    /// Shim of `PgmapCore::extent_state`.
    fn shim_pgmap_core_extent_state(pgmap: Core, pfn: Pfn) -> Option<Life> {
        pgmap.extent_state(pfn)
    }

    /// Shim of `PgmapCore::is_gone`.
    fn shim_pgmap_core_is_gone(pgmap: Core, pfn: Pfn) -> bool {
        pgmap.is_gone(pfn)
    }

    /// Shim of `PgmapCore::try_drain_extent`.
    fn shim_pgmap_core_try_drain_extent(pgmap: Core, pfn: Pfn) -> Result<(), RemoveError> {
        pgmap.try_drain_extent(pfn)
    }

    /// Shim of `PgmapCore::for_each_busy_in_extent`.
    fn shim_pgmap_core_for_each_busy_in_extent(pgmap: Core, pfn: Pfn, each_fn: fn(StillBusy)) {
        pgmap.for_each_busy_in_extent(pfn, each_fn)
    }

    /// Shim of `PgmapCore::wait_extent_drained`.
    fn shim_pgmap_core_wait_extent_drained(pgmap: Core, pfn: Pfn) -> Result<(), DrainError> {
        pgmap.wait_extent_drained(pfn)
    }

    /// Shim of `PgmapCore::wait_extent_drained_until`.
    fn shim_pgmap_core_wait_extent_drained_until(
        pgmap: Core,
        pfn: Pfn,
        deadline: u64,
    ) -> Result<(), DrainError> {
        pgmap.wait_extent_drained_until(pfn, deadline)
    }

    /// Shim of `PgmapCore::extent_drained`.
    fn shim_pgmap_core_extent_drained(
        pgmap: Core,
        pfn: Pfn,
        cx: &mut Context<'_>,
    ) -> Result<Poll<Result<(), DrainError>>, DrainError> {
        pgmap.extent_drained(pfn).map(|end| pin!(end).poll(cx))
    }

    /// Shim of `Pgmap::detach_extent`.
    fn shim_pgmap_detach_extent(pgmap: &Pgmap<'static, Owner>, pfn: Pfn) -> Option<PfnRange> {
        pgmap.detach_extent(pfn).ok()?.range()
    }

    /// Shim of `Detached::range`.
    fn shim_detached_range(detached: &Detached<'static, 'static, Owner>) -> Option<PfnRange> {
        detached.range()
    }

    /// Shim of `Detached::reclaim`.
    fn shim_detached_reclaim(detached: Detached<'static, 'static, Owner>) -> usize {
        // SAFETY: The caller promises what the operation asks for.
        unsafe { detached.reclaim() }.map_or(0, |lent| lent.meta.len())
    }

    /// Shim of `Pgmap::take_extent`.
    fn shim_pgmap_take_extent(pgmap: &'static mut Pgmap<'static, Owner>, pfn: Pfn) -> usize {
        pgmap.take_extent(pfn).map_or(0, |lent| lent.meta.len())
    }

    /// Shim of `PgmapCore::reap`.
    fn shim_pgmap_core_reap(pgmap: Core, budget: usize) -> Reaped {
        pgmap.reap(budget)
    }

    /// Shim of `PgmapCore::stats`.
    fn shim_pgmap_core_stats(pgmap: Core) -> Stats {
        pgmap.stats()
    }

    /// Shim of `PgmapCore::extent_stats`.
    fn shim_pgmap_core_extent_stats(pgmap: Core, pfn: Pfn) -> Option<Stats> {
        pgmap.extent_stats(pfn)
    }

    /// Shim of `PgmapCore::check`.
    fn shim_pgmap_core_check(pgmap: Core) -> Result<CheckReport, CheckError> {
        pgmap.check()
    }

    /// Shim of `PgmapCore::draw`.
    fn shim_pgmap_core_draw(pgmap: Core, columns: u32, rows: u32) -> Map<'static, Owner> {
        pgmap.draw(columns, rows)
    }

    /// Shim of `PgmapCore::free_runs`.
    fn shim_pgmap_core_free_runs(pgmap: Core) -> Option<PfnRange> {
        pgmap.free_runs().last()
    }

    /// Shim of `PgmapCore::for_each_folio`.
    fn shim_pgmap_core_for_each_folio(pgmap: Core, each_fn: fn(FolioInfo)) {
        pgmap.for_each_folio(each_fn)
    }

    /// Shim of `PgmapCore::get_raw`.
    fn shim_pgmap_core_get_raw(pgmap: Core, pfn: Pfn, nr: u32) -> Result<(), CountError> {
        pgmap.get_raw(pfn, nr)
    }

    /// Shim of `PgmapCore::map_raw`.
    fn shim_pgmap_core_map_raw(pgmap: Core, pfn: Pfn, nr: u32) -> Result<(), CountError> {
        pgmap.map_raw(pfn, nr)
    }

    /// Shim of `PgmapCore::pin_raw`.
    fn shim_pgmap_core_pin_raw(
        pgmap: Core,
        pfn: Pfn,
        nr: u32,
        kind: PinKind,
    ) -> Result<(), PinError> {
        pgmap.pin_raw(pfn, nr, kind)
    }

    /// Shim of `PgmapCore::put_raw`.
    fn shim_pgmap_core_put_raw(pgmap: Core, pfn: Pfn, nr: u32) -> Result<Put, CountError> {
        // SAFETY: The caller promises what the operation asks for.
        unsafe { pgmap.put_raw(pfn, nr) }
    }

    /// Shim of `PgmapCore::unmap_raw`.
    fn shim_pgmap_core_unmap_raw(pgmap: Core, pfn: Pfn, nr: u32) -> Result<Put, CountError> {
        // SAFETY: The caller promises what the operation asks for.
        unsafe { pgmap.unmap_raw(pfn, nr) }
    }

    /// Shim of `PgmapCore::unpin_raw`.
    fn shim_pgmap_core_unpin_raw(pgmap: Core, pfn: Pfn, nr: u32) -> Result<Put, CountError> {
        // SAFETY: The caller promises what the operation asks for.
        unsafe { pgmap.unpin_raw(pfn, nr) }
    }

    /// Shim of `PgmapCore::unique_from_raw`.
    fn shim_pgmap_core_unique_from_raw(pgmap: Core, raw: RawUnique) -> Option<Unique> {
        // SAFETY: The caller promises what the operation asks for.
        unsafe { pgmap.unique_from_raw(raw) }
    }

    /// Shim of `PgmapCore::unique_set_from_raw`.
    fn shim_pgmap_core_unique_set_from_raw(pgmap: Core, descs: Descs) -> UniqueDescs {
        // SAFETY: The caller promises what the operation asks for.
        unsafe { pgmap.unique_set_from_raw(descs) }
    }

    /// Shim of `PgmapCore::folio_from_raw`.
    fn shim_pgmap_core_folio_from_raw(pgmap: Core, raw: RawFolio) -> Option<Shared> {
        // SAFETY: The caller promises what the operation asks for.
        unsafe { pgmap.folio_from_raw(raw) }
    }

    /// Shim of `PgmapCore::folio_set_from_raw`.
    fn shim_pgmap_core_folio_set_from_raw(pgmap: Core, descs: Descs) -> SharedDescs {
        // SAFETY: The caller promises what the operation asks for.
        unsafe { pgmap.folio_set_from_raw(descs) }
    }

    /// Shim of `PgmapCore::pin_from_raw`.
    fn shim_pgmap_core_pin_from_raw(pgmap: Core, raw: RawPin) -> Option<Pin> {
        // SAFETY: The caller promises what the operation asks for.
        unsafe { pgmap.pin_from_raw(raw) }
    }

    /// Shim of `PgmapCore::map_from_raw`.
    fn shim_pgmap_core_map_from_raw(pgmap: Core, raw: RawMap) -> Option<Mapping> {
        // SAFETY: The caller promises what the operation asks for.
        unsafe { pgmap.map_from_raw(raw) }
    }

    /// Shim of `FolioInfo::ref_count`.
    fn shim_folio_info_ref_count(info: &FolioInfo) -> u32 {
        info.ref_count()
    }

    /// Shim of `HookCx::pgmap`.
    fn shim_hook_cx_pgmap(cx: &HookCx<'static, Owner>) -> Core {
        cx.pgmap()
    }

    /// Shim of `HookCx::drop_later`.
    fn shim_hook_cx_drop_later(cx: &mut HookCx<'static, Owner>, folio: Shared) {
        cx.drop_later(folio)
    }

    /// Shim of `Directory::register`.
    fn shim_directory_register(
        directory: &Directory<'static>,
        pgmap: &'static Pgmap<'static, Owner>,
    ) -> Result<(), RegisterError> {
        directory.register(pgmap)
    }

    /// Shim of `Directory::add_extent`.
    fn shim_directory_add_extent(
        directory: &Directory<'static>,
        pgmap: &Pgmap<'static, Plain>,
        range: PfnRange,
        attrs: ExtentAttrs,
        tables: Tables,
        meta: &'static mut [MetaLine],
        attach: Attach,
    ) -> Result<(), AddExtentError> {
        directory.add_extent(pgmap, range, attrs, tables, meta, attach)
    }

    /// Shim of `Directory::add_extent_with_private`.
    fn shim_directory_add_extent_with_private(
        directory: &Directory<'static>,
        pgmap: &Pgmap<'static, Owner>,
        extent: NewExtent,
        meta: &'static mut [MetaLine],
        private: &'static mut [MaybeUninit<u64>],
    ) -> Result<(), AddExtentError> {
        directory.add_extent_with_private(pgmap, extent, meta, private)
    }

    /// Shim of `Directory::query`.
    fn shim_directory_query(directory: &Directory<'static>, pfn: Pfn) -> Option<PageInfo> {
        directory.query(pfn)
    }

    /// Shim of `Directory::try_get`.
    fn shim_directory_try_get(directory: &Directory<'static>, pfn: Pfn) -> Lookup<'static> {
        directory.try_get(pfn)
    }

    /// Shim of `Directory::request_free_range`.
    fn shim_directory_request_free_range(
        directory: &Directory<'static>,
        nr_pages: u64,
        align: Order,
        within: PfnRange,
    ) -> Result<PfnRange, FreeRangeError> {
        directory.request_free_range(nr_pages, align, within)
    }

    /// Shim of `AnyPin::head`.
    fn shim_any_pin_head(pin: &AnyPin<'static>) -> Pfn {
        pin.head()
    }

    /// Shim of `AnyPin::order`.
    fn shim_any_pin_order(pin: &AnyPin<'static>) -> Order {
        pin.order()
    }

    /// Shim of `AnyPin::range`.
    fn shim_any_pin_range(pin: &AnyPin<'static>) -> PfnRange {
        pin.range()
    }

    /// Shim of `AnyPin::policy`.
    fn shim_any_pin_policy(pin: &AnyPin<'static>) -> Policy {
        pin.policy()
    }

    /// Shim of `AnyFolio::head`.
    fn shim_any_folio_head(folio: &AnyFolio<'static>) -> Pfn {
        folio.head()
    }

    /// Shim of `AnyFolio::order`.
    fn shim_any_folio_order(folio: &AnyFolio<'static>) -> Order {
        folio.order()
    }

    /// Shim of `AnyFolio::info`.
    fn shim_any_folio_info(folio: &AnyFolio<'static>) -> FolioInfo {
        folio.info()
    }

    /// Shim of `AnyFolio::policy`.
    fn shim_any_folio_policy(folio: &AnyFolio<'static>) -> Policy {
        folio.policy()
    }

    /// Shim of `AnyFolio::try_clone`.
    fn shim_any_folio_try_clone(folio: &AnyFolio<'static>) -> Result<AnyFolio<'static>, GetError> {
        folio.try_clone()
    }

    /// Shim of `AnyFolio::downcast`.
    fn shim_any_folio_downcast(
        folio: AnyFolio<'static>,
        pgmap: Core,
    ) -> Result<Shared, AnyFolio<'static>> {
        folio.downcast(pgmap)
    }
}
