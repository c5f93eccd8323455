//! A hypervisor: the memory of a guest is one set of folios.
//!
//! A guest of 3.5 GiB gets the largest folios that the pool has, in one transaction. The set is
//! shared with a vhost process, mapped into the guest, and partly returned while the guest runs.
#![deny(unsafe_code)]
#![allow(clippy::arithmetic_side_effects, reason = "the numbers of this example are small")]

use core::error::Error;
use core::iter::repeat_with;

use devfolio::{
    Attach, ExtentAttrs, ExtentSlot, FolioDesc, FolioMap, FolioSet, MetaLine, MetaSize, Order, Pfn,
    PfnRange, Pgmap, PgmapOps, Policy, SetRequest, Tables,
};

const GIB: u64 = Order::REGION.nr_pages();
const POOL_PAGES: u64 = 8 * GIB;
const GUEST_PAGES: u64 = 3 * GIB + GIB / 2;

/// No folio of a guest is smaller than what its nested page table maps with one leaf.
const LEAST: Order = Order::BLOCK;

/// The pool needs no hook of its own: what a guest gives back is free again.
struct Pool;

impl PgmapOps for Pool {
    type Private = ();
}

/// A running guest: what it owns, and the leaves of its nested page table.
struct Guest<'a, 's> {
    memory: FolioSet<'a, 's, Pool>,
    mappings: Vec<FolioMap<'a, Pool>>,
}

pub(crate) fn main() -> Result<(), Box<dyn Error>> {
    let range = PfnRange::new(Pfn::new(0x100_0000), POOL_PAGES)?;
    let tables = Tables::Budget(8);
    let mut lines: Vec<_> =
        repeat_with(MetaLine::default).take(MetaSize::of(range, tables).lines()).collect();
    let slots = [const { ExtentSlot::new() }; 1];
    let pool = Pgmap::new(Pool, Policy::generic(), &slots);
    pool.add_extent(range, ExtentAttrs::NEW, tables, &mut lines, Attach::Zeroed)?;

    let mut descs = vec![FolioDesc::EMPTY; SetRequest::len_max(GUEST_PAGES, LEAST)];
    let mut guest = start_guest(&pool, &mut descs)?;
    assert_eq!(pool.stats().free_pages, POOL_PAGES - GUEST_PAGES);

    // A vhost process shares all of it; its set lives in storage of its own.
    let mut vhost_descs = vec![FolioDesc::EMPTY; guest.memory.len()];
    let mut vhost = guest.memory.try_clone_into(&mut vhost_descs)?;
    assert_eq!(vhost.nr_pages(), GUEST_PAGES);

    // The balloon returns the last half GiB, which is one folio. Nobody may pull it away from
    // under the guest's leaves or from under vhost, and the refusal says who is in the way.
    let last = guest.memory.pop().ok_or("the guest has memory")?;
    let half_gib = last.nr_pages();
    assert_eq!(half_gib, GIB / 2);
    let Err(busy) = last.try_freeze() else { return Err("a shared folio was frozen".into()) };
    assert_eq!((busy.info.refs, busy.info.mappings), (2, 256));

    drop(guest.mappings.pop());
    drop(vhost.pop());
    let Ok(unique) = busy.folio.try_freeze() else { return Err("nobody else holds it".into()) };

    // Only the upper half of it goes; the guest keeps on running on the lower one.
    let upper = PfnRange::new(Pfn::new(unique.head().as_u64() + half_gib / 2), half_gib / 2)?;
    let Ok(kept) = unique.release_part(upper) else { return Err("no table is needed".into()) };
    let kept: Vec<_> = kept.map(|piece| piece.publish()).collect();
    assert_eq!(kept.iter().map(|folio| folio.nr_pages()).sum::<u64>(), half_gib / 2);
    assert_eq!(pool.stats().free_pages, POOL_PAGES - GUEST_PAGES + half_gib / 2);

    // The end of the guest, in any order: the last holder of each folio frees it.
    drop(guest);
    drop(kept);
    assert_eq!(pool.stats().free_pages, GIB * 5, "vhost still holds the three whole GiBs");
    drop(vhost);
    let stats = pool.stats();
    assert_eq!(stats.free_pages, POOL_PAGES);
    assert_eq!(stats.tables_used, 0, "no folio was ever smaller than a block");
    println!("hypervisor: {GUEST_PAGES} pages came and went, largest run {POOL_PAGES}");
    Ok(())
}

/// Takes the memory of a guest, all or nothing, and maps every folio of it.
fn start_guest<'a, 's>(
    pool: &'a Pgmap<'_, Pool>,
    descs: &'s mut [FolioDesc],
) -> Result<Guest<'a, 's>, Box<dyn Error>> {
    let request = SetRequest::pages(GUEST_PAGES).prefer(Order::REGION).least(LEAST);
    let memory = pool.alloc_set(request, descs)?.publish();
    assert_eq!(memory.nr_pages(), GUEST_PAGES);
    assert_eq!(memory.iter().filter(|(_, order)| *order == Order::REGION).count(), 3);

    // The nested page table uses 2 MiB leaves even where the folio is larger: a mapping counts,
    // it never fractures, and all leaves of one folio are counted at once.
    let mut mappings = Vec::new();
    for (head, _) in memory.iter() {
        let folio = pool.try_get(head)?;
        let nr_leaves = folio.nr_pages() / Order::BLOCK.nr_pages();
        mappings.push(folio.map(u32::try_from(nr_leaves)?)?);
        assert_eq!(u64::from(folio.mapcount()), nr_leaves);
    }
    Ok(Guest { memory, mappings })
}
