//! Shims of what the handles do.

use core::pin::pin;
use core::task::{Context, Poll};

use devfolio::*;

use super::{Core, Descs, Mapping, Orphans, Owner, Pin, Shared, SharedDescs, Unique, UniqueDescs};

super::shims! {
    /// Shim of `UniqueFolio::pgmap`.
    fn shim_unique_folio_pgmap(folio: &Unique) -> Core {
        folio.pgmap()
    }

    /// Shim of `UniqueFolio::head`.
    fn shim_unique_folio_head(folio: &Unique) -> Pfn {
        folio.head()
    }

    /// Shim of `UniqueFolio::order`.
    fn shim_unique_folio_order(folio: &Unique) -> Order {
        folio.order()
    }

    /// Shim of `UniqueFolio::nr_pages`.
    fn shim_unique_folio_nr_pages(folio: &Unique) -> u64 {
        folio.nr_pages()
    }

    /// Shim of `UniqueFolio::range`.
    fn shim_unique_folio_range(folio: &Unique) -> PfnRange {
        folio.range()
    }

    /// Shim of `UniqueFolio::is_clean`.
    fn shim_unique_folio_is_clean(folio: &Unique) -> bool {
        folio.is_clean()
    }

    /// Shim of `UniqueFolio::mark_clean`.
    fn shim_unique_folio_mark_clean(folio: &mut Unique) {
        folio.mark_clean()
    }

    /// Shim of `UniqueFolio::private`.
    fn shim_unique_folio_private(folio: &Unique) -> &u64 {
        folio.private()
    }

    /// Shim of `UniqueFolio::private_mut`.
    fn shim_unique_folio_private_mut(folio: &mut Unique) -> &mut u64 {
        folio.private_mut()
    }

    /// Shim of `UniqueFolio::publish`.
    fn shim_unique_folio_publish(folio: Unique) -> Shared {
        folio.publish()
    }

    /// Shim of `UniqueFolio::release`.
    fn shim_unique_folio_release(folio: Unique) {
        folio.release()
    }

    /// Shim of `UniqueFolio::release_clean`.
    fn shim_unique_folio_release_clean(folio: Unique) {
        folio.release_clean()
    }

    /// Shim of `UniqueFolio::keep`.
    fn shim_unique_folio_keep(folio: Unique) {
        folio.keep()
    }

    /// Shim of `UniqueFolio::retire`.
    fn shim_unique_folio_retire(folio: Unique) {
        folio.retire()
    }

    /// Shim of `UniqueFolio::into_raw`.
    fn shim_unique_folio_into_raw(folio: Unique) -> RawUnique {
        folio.into_raw()
    }

    /// Shim of `UniqueFolio::split`.
    fn shim_unique_folio_split(
        folio: Unique,
        order: Order,
    ) -> Result<Pieces<'static, Owner>, SplitError<'static, Owner>> {
        folio.split(order)
    }

    /// Shim of `UniqueFolio::split_around`.
    fn shim_unique_folio_split_around(
        folio: Unique,
        pfn: Pfn,
        order: Order,
    ) -> Result<(Unique, Pieces<'static, Owner>), SplitError<'static, Owner>> {
        folio.split_around(pfn, order)
    }

    /// Shim of `UniqueFolio::trim`.
    fn shim_unique_folio_trim(
        folio: Unique,
        keep: PfnRange,
    ) -> Result<Pieces<'static, Owner>, SplitError<'static, Owner>> {
        folio.trim(keep)
    }

    /// Shim of `UniqueFolio::release_part`.
    fn shim_unique_folio_release_part(
        folio: Unique,
        part: PfnRange,
    ) -> Result<Pieces<'static, Owner>, SplitError<'static, Owner>> {
        folio.release_part(part)
    }

    /// Shim of `UniqueFolio::merge`.
    fn shim_unique_folio_merge(
        folio: Unique,
        buddy: Unique,
    ) -> Result<Unique, MergeError<'static, Owner>> {
        folio.merge(buddy)
    }

    /// Shim of `RawUnique::as_u64`.
    fn shim_raw_unique_as_u64(raw: RawUnique) -> u64 {
        raw.as_u64()
    }

    /// Shim of `RawUnique::from_u64`.
    fn shim_raw_unique_from_u64(raw: u64) -> RawUnique {
        RawUnique::from_u64(raw)
    }

    /// Shim of `UniqueSet::len`.
    fn shim_unique_set_len(set: &UniqueDescs) -> usize {
        set.len()
    }

    /// Shim of `UniqueSet::is_empty`.
    fn shim_unique_set_is_empty(set: &UniqueDescs) -> bool {
        set.is_empty()
    }

    /// Shim of `UniqueSet::nr_pages`.
    fn shim_unique_set_nr_pages(set: &UniqueDescs) -> u64 {
        set.nr_pages()
    }

    /// Shim of `UniqueSet::iter`.
    fn shim_unique_set_iter(set: &UniqueDescs) -> Option<(Pfn, Order)> {
        set.iter().last()
    }

    /// Shim of `UniqueSet::for_each_private`.
    fn shim_unique_set_for_each_private(set: &mut UniqueDescs, each_fn: fn(Pfn, Order, &mut u64)) {
        set.for_each_private(each_fn)
    }

    /// Shim of `UniqueSet::pop`.
    fn shim_unique_set_pop(set: &mut UniqueDescs) -> Option<Unique> {
        set.pop()
    }

    /// Shim of `UniqueSet::split_off`.
    fn shim_unique_set_split_off(set: &mut UniqueDescs, at: usize) -> UniqueDescs {
        set.split_off(at)
    }

    /// Shim of `UniqueSet::publish`.
    fn shim_unique_set_publish(set: UniqueDescs) -> SharedDescs {
        set.publish()
    }

    /// Shim of `UniqueSet::into_raw`.
    fn shim_unique_set_into_raw(set: UniqueDescs) -> Descs {
        set.into_raw()
    }

    /// Shim of `FolioSet::len`.
    fn shim_folio_set_len(set: &SharedDescs) -> usize {
        set.len()
    }

    /// Shim of `FolioSet::is_empty`.
    fn shim_folio_set_is_empty(set: &SharedDescs) -> bool {
        set.is_empty()
    }

    /// Shim of `FolioSet::nr_pages`.
    fn shim_folio_set_nr_pages(set: &SharedDescs) -> u64 {
        set.nr_pages()
    }

    /// Shim of `FolioSet::iter`.
    fn shim_folio_set_iter(set: &SharedDescs) -> Option<(Pfn, Order)> {
        set.iter().last()
    }

    /// Shim of `FolioSet::for_each`.
    fn shim_folio_set_for_each(set: &SharedDescs, each_fn: fn(&Shared)) {
        set.for_each(each_fn)
    }

    /// Shim of `FolioSet::try_clone_at`.
    fn shim_folio_set_try_clone_at(
        set: &SharedDescs,
        index: usize,
    ) -> Option<Result<Shared, CountError>> {
        set.try_clone_at(index)
    }

    /// Shim of `FolioSet::try_clone_into`.
    fn shim_folio_set_try_clone_into(
        set: &SharedDescs,
        descs: Descs,
    ) -> Result<SharedDescs, CloneError> {
        set.try_clone_into(descs)
    }

    /// Shim of `FolioSet::pop`.
    fn shim_folio_set_pop(set: &mut SharedDescs) -> Option<Shared> {
        set.pop()
    }

    /// Shim of `FolioSet::split_off`.
    fn shim_folio_set_split_off(set: &mut SharedDescs, at: usize) -> SharedDescs {
        set.split_off(at)
    }

    /// Shim of `FolioSet::into_raw`.
    fn shim_folio_set_into_raw(set: SharedDescs) -> Descs {
        set.into_raw()
    }

    /// Shim of `Folio::pgmap`.
    fn shim_folio_pgmap(folio: &Shared) -> Core {
        folio.pgmap()
    }

    /// Shim of `Folio::head`.
    fn shim_folio_head(folio: &Shared) -> Pfn {
        folio.head()
    }

    /// Shim of `Folio::order`.
    fn shim_folio_order(folio: &Shared) -> Order {
        folio.order()
    }

    /// Shim of `Folio::nr_pages`.
    fn shim_folio_nr_pages(folio: &Shared) -> u64 {
        folio.nr_pages()
    }

    /// Shim of `Folio::range`.
    fn shim_folio_range(folio: &Shared) -> PfnRange {
        folio.range()
    }

    /// Shim of `Folio::private`.
    fn shim_folio_private(folio: &Shared) -> &u64 {
        folio.private()
    }

    /// Shim of `Folio::info`.
    fn shim_folio_info(folio: &Shared) -> FolioInfo {
        folio.info()
    }

    /// Shim of `Folio::ref_count`.
    fn shim_folio_ref_count(folio: &Shared) -> u32 {
        folio.ref_count()
    }

    /// Shim of `Folio::mapcount`.
    fn shim_folio_mapcount(folio: &Shared) -> u32 {
        folio.mapcount()
    }

    /// Shim of `Folio::pincount`.
    fn shim_folio_pincount(folio: &Shared) -> u32 {
        folio.pincount()
    }

    /// Shim of `Folio::maybe_dma_pinned`.
    fn shim_folio_maybe_dma_pinned(folio: &Shared) -> bool {
        folio.maybe_dma_pinned()
    }

    /// Shim of `Folio::try_clone`.
    fn shim_folio_try_clone(folio: &Shared) -> Result<Shared, CountError> {
        folio.try_clone()
    }

    /// Shim of `Folio::get_many`.
    fn shim_folio_get_many(folio: &Shared, nr: u32) -> Result<(), CountError> {
        folio.get_many(nr)
    }

    /// Shim of `Folio::wait_idle`.
    fn shim_folio_wait_idle(folio: &Shared) {
        folio.wait_idle()
    }

    /// Shim of `Folio::wait_idle_until`.
    fn shim_folio_wait_idle_until(folio: &Shared, deadline: u64) -> Result<(), WaitError> {
        folio.wait_idle_until(deadline)
    }

    /// Shim of `Folio::wait_idle_with`.
    fn shim_folio_wait_idle_with(
        folio: &Shared,
        deadline: Option<u64>,
        sleep_fn: fn(Sleep<'_>),
    ) -> Result<(), WaitError> {
        folio.wait_idle_with(deadline, sleep_fn)
    }

    /// Shim of `Folio::idle`, polled and dropped.
    fn shim_folio_idle(folio: &Shared, cx: &mut Context<'_>) -> Poll<()> {
        pin!(folio.idle()).poll(cx)
    }

    /// Shim of `Folio::wait_unpinned`.
    fn shim_folio_wait_unpinned(folio: &Shared) {
        folio.wait_unpinned()
    }

    /// Shim of `Folio::wait_unpinned_until`.
    fn shim_folio_wait_unpinned_until(folio: &Shared, deadline: u64) -> Result<(), WaitError> {
        folio.wait_unpinned_until(deadline)
    }

    /// Shim of `Folio::wait_unpinned_with`.
    fn shim_folio_wait_unpinned_with(
        folio: &Shared,
        deadline: Option<u64>,
        sleep_fn: fn(Sleep<'_>),
    ) -> Result<(), WaitError> {
        folio.wait_unpinned_with(deadline, sleep_fn)
    }

    /// Shim of `PgmapCore::wait_idle_in`.
    fn shim_pgmap_core_wait_idle_in(pgmap: Core, range: PfnRange) {
        pgmap.wait_idle_in(range)
    }

    /// Shim of `PgmapCore::wait_idle_in_until`.
    fn shim_pgmap_core_wait_idle_in_until(
        pgmap: Core,
        range: PfnRange,
        deadline: u64,
    ) -> Result<(), WaitError> {
        pgmap.wait_idle_in_until(range, deadline)
    }

    /// Shim of `PgmapCore::wait_idle_in_with`.
    fn shim_pgmap_core_wait_idle_in_with(
        pgmap: Core,
        range: PfnRange,
        deadline: Option<u64>,
        sleep_fn: fn(Sleep<'_>),
    ) -> Result<(), WaitError> {
        pgmap.wait_idle_in_with(range, deadline, sleep_fn)
    }

    /// Shim of `PgmapCore::idle_in`.
    fn shim_pgmap_core_idle_in(pgmap: Core, range: PfnRange, cx: &mut Context<'_>) -> Poll<()> {
        pin!(pgmap.idle_in(range)).poll(cx)
    }

    /// Shim of `PgmapCore::wait_unpinned_in`.
    fn shim_pgmap_core_wait_unpinned_in(pgmap: Core, range: PfnRange) {
        pgmap.wait_unpinned_in(range)
    }

    /// Shim of `PgmapCore::wait_unpinned_in_until`.
    fn shim_pgmap_core_wait_unpinned_in_until(
        pgmap: Core,
        range: PfnRange,
        deadline: u64,
    ) -> Result<(), WaitError> {
        pgmap.wait_unpinned_in_until(range, deadline)
    }

    /// Shim of `PgmapCore::wait_unpinned_in_with`.
    fn shim_pgmap_core_wait_unpinned_in_with(
        pgmap: Core,
        range: PfnRange,
        deadline: Option<u64>,
        sleep_fn: fn(Sleep<'_>),
    ) -> Result<(), WaitError> {
        pgmap.wait_unpinned_in_with(range, deadline, sleep_fn)
    }

    /// Shim of `PgmapCore::unpinned_in`.
    fn shim_pgmap_core_unpinned_in(pgmap: Core, range: PfnRange, cx: &mut Context<'_>) -> Poll<()> {
        pin!(pgmap.unpinned_in(range)).poll(cx)
    }

    /// Shim of `Folio::unpinned`, polled and dropped.
    fn shim_folio_unpinned(folio: &Shared, cx: &mut Context<'_>) -> Poll<()> {
        pin!(folio.unpinned()).poll(cx)
    }

    /// Shim of `Folio::pin`.
    fn shim_folio_pin(folio: &Shared, kind: PinKind) -> Result<Pin, PinError> {
        folio.pin(kind)
    }

    /// Shim of `Folio::map`.
    fn shim_folio_map(folio: &Shared, nr_leaves: u32) -> Result<Mapping, CountError> {
        folio.map(nr_leaves)
    }

    /// Shim of `Folio::close`.
    fn shim_folio_close(folio: &Shared) {
        folio.close()
    }

    /// Shim of `Folio::reopen`.
    fn shim_folio_reopen(folio: &Shared) {
        folio.reopen()
    }

    /// Shim of `Folio::try_freeze`.
    fn shim_folio_try_freeze(folio: Shared) -> Result<Unique, Busy<'static, Owner>> {
        folio.try_freeze()
    }

    /// Shim of `Folio::try_freeze_with`.
    fn shim_folio_try_freeze_with(
        folio: Shared,
        others: [Shared; 2],
    ) -> Result<Unique, BusyAll<'static, Owner, 2>> {
        folio.try_freeze_with(others)
    }

    /// Shim of `Folio::try_freeze_raw`.
    fn shim_folio_try_freeze_raw(
        folio: Shared,
        extra_refs: u32,
    ) -> Result<Unique, Busy<'static, Owner>> {
        // SAFETY: The caller promises what the operation asks for.
        unsafe { folio.try_freeze_raw(extra_refs) }
    }

    /// Shim of `Folio::into_raw`.
    fn shim_folio_into_raw(folio: Shared) -> RawFolio {
        folio.into_raw()
    }

    /// Shim of `FolioPin::head`.
    fn shim_folio_pin_head(pin: &Pin) -> Pfn {
        pin.head()
    }

    /// Shim of `FolioPin::order`.
    fn shim_folio_pin_order(pin: &Pin) -> Order {
        pin.order()
    }

    /// Shim of `FolioPin::range`.
    fn shim_folio_pin_range(pin: &Pin) -> PfnRange {
        pin.range()
    }

    /// Shim of `FolioPin::into_raw`.
    fn shim_folio_pin_into_raw(pin: Pin) -> RawPin {
        pin.into_raw()
    }

    /// Shim of `FolioMap::head`.
    fn shim_folio_map_head(map: &Mapping) -> Pfn {
        map.head()
    }

    /// Shim of `FolioMap::order`.
    fn shim_folio_map_order(map: &Mapping) -> Order {
        map.order()
    }

    /// Shim of `FolioMap::range`.
    fn shim_folio_map_range(map: &Mapping) -> PfnRange {
        map.range()
    }

    /// Shim of `FolioMap::nr_leaves`.
    fn shim_folio_map_nr_leaves(map: &Mapping) -> u32 {
        map.nr_leaves()
    }

    /// Shim of `FolioMap::split_off`.
    fn shim_folio_map_split_off(map: &mut Mapping, nr_leaves: u32) -> Mapping {
        map.split_off(nr_leaves)
    }

    /// Shim of `FolioMap::into_raw`.
    fn shim_folio_map_into_raw(map: Mapping) -> RawMap {
        map.into_raw()
    }

    /// Shim of `$name::as_u64`.
    fn shim_raw_as_u64(folio: RawFolio, pin: RawPin) -> u64 {
        folio.as_u64() ^ pin.as_u64()
    }

    /// Shim of `$name::from_u64`.
    fn shim_raw_from_u64(raw: u64) -> (RawFolio, RawPin) {
        (RawFolio::from_u64(raw), RawPin::from_u64(raw))
    }

    /// Drops each kind of handle.
    fn shim_drops(unique: Unique, shared: Shared, pin: Pin, map: Mapping, any: AnyFolio<'static>) {
        drop((unique, shared, pin, map, any));
    }

    /// Drops each kind of handle on several folios.
    fn shim_drops_of_sets(
        unique: UniqueDescs,
        shared: SharedDescs,
        pieces: Pieces<'static, Owner>,
    ) {
        drop((unique, shared, pieces));
    }

    /// Takes the next piece of a split.
    fn shim_pieces_next(pieces: &mut Pieces<'static, Owner>) -> Option<Unique> {
        pieces.next()
    }

    /// Shim of `Imported::adopt_folio`.
    fn shim_imported_adopt_folio(imported: &mut Orphans, pfn: Pfn) -> Result<Shared, AdoptError> {
        imported.adopt_folio(pfn)
    }

    /// Shim of `Imported::adopt_pin`.
    fn shim_imported_adopt_pin(imported: &mut Orphans, pfn: Pfn) -> Result<Pin, AdoptError> {
        imported.adopt_pin(pfn)
    }

    /// Shim of `Imported::adopt_map`.
    fn shim_imported_adopt_map(
        imported: &mut Orphans,
        pfn: Pfn,
        nr_leaves: u32,
    ) -> Result<Mapping, AdoptError> {
        imported.adopt_map(pfn, nr_leaves)
    }

    /// Shim of `Imported::put_orphans`.
    fn shim_imported_put_orphans(imported: &mut Orphans, pfn: Pfn) -> Result<Put, AdoptError> {
        imported.put_orphans(pfn)
    }
}
