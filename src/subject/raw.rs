//! From raw forms back to handles. The table has each raw form once, which is the promise kept; and
//! a step that drops counts of others than its own meets no handle and no borrow of theirs.
#![expect(unsafe_code, reason = "the raw forms are part of what is tested")]

use super::{Data, Owner};
use crate::folio::{
    Busy, CountError, Folio, FolioMap, FolioPin, FolioSet, Put, RawFolio, RawMap, RawPin,
};
use crate::meta::MetaLine;
use crate::model::Kind;
use crate::pgmap::{FolioDesc, Pgmap, PgmapCore, PgmapOps, RawUnique, RemoveError, UniqueFolio};
use crate::units::Pfn;

pub(super) fn unique<O: PgmapOps>(
    core: &PgmapCore<O>,
    raw: RawUnique,
) -> Option<UniqueFolio<'_, O>> {
    // SAFETY: It left the table just now, came from a handle of this pgmap, and is not kept.
    unsafe { core.unique_from_raw(raw) }
}

pub(super) fn folio<O: PgmapOps>(core: &PgmapCore<O>, raw: RawFolio) -> Option<Folio<'_, O>> {
    // SAFETY: As for `unique`. A reference that is found by its page may be another's in the table,
    // of which no handle is alive; the word says that the folio is, and its data with it.
    unsafe { core.folio_from_raw(raw) }
}

pub(super) fn pin<D: Data>(
    core: &PgmapCore<Owner<D>>,
    raw: RawPin,
) -> Option<FolioPin<'_, Owner<D>>> {
    // SAFETY: As for `unique`.
    unsafe { core.pin_from_raw(raw) }
}

pub(super) fn map<D: Data>(
    core: &PgmapCore<Owner<D>>,
    raw: RawMap,
) -> Option<FolioMap<'_, Owner<D>>> {
    // SAFETY: As for `unique`.
    unsafe { core.map_from_raw(raw) }
}

pub(super) fn set<'a, 's, D: Data>(
    core: &'a PgmapCore<Owner<D>>,
    descs: &'s mut [FolioDesc],
) -> FolioSet<'a, 's, Owner<D>> {
    // SAFETY: The descriptors were a set of this pgmap just now.
    unsafe { core.folio_set_from_raw(descs) }
}

/// Takes an extent away, and its metadata memory back.
pub(super) fn detach<'m, D: Data + 'm>(
    pgmap: &Pgmap<'m, Owner<D>>,
    pfn: Pfn,
) -> Result<&'m mut [MetaLine], RemoveError> {
    let detached = pgmap.detach_extent(pfn)?;
    // SAFETY: Nobody but the subject uses the pgmap, and it has neither a handle nor an iterator
    // between two steps, only raw forms; those of this extent are gone, or it would be busy.
    let lent = unsafe { detached.reclaim() };
    lent.map(|lent| lent.meta).ok_or(RemoveError::Outside { pfn })
}

/// Drops raw counts.
pub(super) fn put<D: Data>(
    core: &PgmapCore<Owner<D>>,
    kind: Kind,
    pfn: Pfn,
    nr: u32,
) -> Result<Put, CountError> {
    match kind {
        // SAFETY: No handle of this pgmap is alive, so nobody relies on a count that goes.
        Kind::Refs => unsafe { core.put_raw(pfn, nr) },
        // SAFETY: As above.
        Kind::Pins => unsafe { core.unpin_raw(pfn, nr) },
        // SAFETY: As above.
        Kind::Maps => unsafe { core.unmap_raw(pfn, nr) },
    }
}

/// Freezes a folio, consuming a reference and so many raw ones.
pub(super) fn freeze<D: Data>(
    folio: Folio<'_, Owner<D>>,
    raw_refs: u32,
) -> Result<UniqueFolio<'_, Owner<D>>, Busy<'_, Owner<D>>> {
    if raw_refs == 0 {
        return folio.try_freeze();
    }
    // SAFETY: `folio` is the only handle that is alive, so nobody relies on what is consumed.
    unsafe { folio.try_freeze_raw(raw_refs) }
}
