//! A hypervisor that replaces itself under its guests.
//!
//! Guests and a device go on while the hypervisor does not exist: their nested page tables and the
//! device's DMA reach the same pages before and after. What the old one knew of the pages goes over
//! as an image; what it knew of guests, as a few numbers of its own. With `--time` it says how long
//! an image of 1 TiB with 100,000 folios takes.
#![deny(unsafe_code)]
#![allow(clippy::arithmetic_side_effects, reason = "the numbers of this example are small")]

use core::error::Error;
use core::iter::repeat_with;
use core::mem::MaybeUninit;
use std::time::Instant;

use devfolio::{
    Attach, ExtentAttrs, ExtentSlot, FolioDesc, FolioMap, FolioPin, HeapMeta, MetaLine, MetaSize,
    Order, Orphan, Pfn, PfnRange, Pgmap, PgmapOps, PinKind, Policy, Put, RawMap, SetRequest,
    Tables,
};

const GIB: u64 = Order::REGION.nr_pages();
const GUEST_PAGES: u64 = GIB + GIB / 2;
const TABLES: Tables = Tables::Budget(4);

/// Beside each folio stands the guest that it belongs to.
struct Pool;

impl PgmapOps for Pool {
    type Private = u64;
}

fn pages() -> Result<PfnRange, Box<dyn Error>> {
    Ok(PfnRange::new(Pfn::new(0x100_0000), 8 * GIB)?)
}

/// Lines, and places of owner data.
type Metadata = (Vec<MetaLine>, Vec<MaybeUninit<u64>>);

/// The metadata of one life of the pool.
fn metadata() -> Result<Metadata, Box<dyn Error>> {
    let size = MetaSize::of(pages()?, TABLES);
    let lines = repeat_with(MetaLine::default).take(size.lines()).collect();
    Ok((lines, vec![MaybeUninit::uninit(); size.private_slots()]))
}

/// What the old hypervisor tells the new one beside the image.
struct Handover {
    image: Vec<u8>,
    /// Where the device goes on with DMA.
    dma: Pfn,
    /// The leaves in the nested page table of the guest 1.
    leaves: Vec<RawMap>,
}

pub(crate) fn main() -> Result<(), Box<dyn Error>> {
    if std::env::args().any(|arg| arg == "--time") {
        return time();
    }
    let handover = old_life()?;
    println!("live update: an image of {} bytes", handover.image.len());
    new_life(&handover)
}

fn old_life() -> Result<Handover, Box<dyn Error>> {
    let (mut lines, mut private) = metadata()?;
    let slots = [const { ExtentSlot::new() }];
    let mut pool = Pgmap::new(Pool, Policy::generic(), &slots);
    let (attrs, attach) = (ExtentAttrs::NEW, Attach::Zeroed);
    pool.add_extent_with_private(pages()?, attrs, TABLES, &mut lines, attach, &mut private)?;

    let mut leaves = Vec::new();
    let mut dma = Pfn::new(0);
    for guest in [1, 2] {
        let mut descs = [FolioDesc::EMPTY; 8];
        let request = SetRequest::pages(GUEST_PAGES).least(Order::BLOCK);
        let mut memory = pool.alloc_set(request, &mut descs)?;
        // Ends: a folio is taken out of the set on every turn.
        while let Some(mut folio) = memory.pop() {
            *folio.private_mut() = guest;
            let folio = folio.publish();
            let map = folio.map(u32::try_from(folio.nr_pages() / 512)?)?.into_raw();
            if guest == 1 {
                dma = folio.head();
                leaves.push(map);
            }
            let _ = folio.into_raw();
        }
    }
    // A device writes into the last folio of guest 1, and does not stop for anybody.
    let _ = pool.try_get(dma)?.pin(PinKind::Longterm)?.into_raw();

    // The borrow is exclusive, so there is no handle: what holds pages is out of Rust's sight.
    let mut image = vec![0; pool.image_len()?];
    pool.export(&mut image, |_, guest| *guest)?;
    Ok(Handover { image, dma, leaves })
}

fn new_life(handover: &Handover) -> Result<(), Box<dyn Error>> {
    let (mut lines, mut private) = metadata()?;
    let slots = [const { ExtentSlot::new() }];
    let pool = Pgmap::new(Pool, Policy::generic(), &slots);
    let (attrs, attach) = (ExtentAttrs::NEW, Attach::Zeroed);
    pool.add_extent_with_private(pages()?, attrs, TABLES, &mut lines, attach, &mut private)?;

    let mut places = vec![Orphan::EMPTY; usize::try_from(Orphan::nr_in(&handover.image)?)?];
    let mut imported = pool
        .import(&handover.image, &mut places, |_, guest, data| *data = guest)
        .map_err(|error| error.to_string())?;
    assert_eq!(pool.stats().free_pages, 8 * GIB - 2 * GUEST_PAGES);

    // Guest 1 has come over, with its device: each holder adopts what is its own.
    let mut memory = Vec::new();
    let mut mappings: Vec<FolioMap<'_, Pool>> = Vec::new();
    for leaf in &handover.leaves {
        let head = Pfn::new(leaf.head);
        let folio = imported.adopt_folio(head).map_err(|error| error.to_string())?;
        assert_eq!(*folio.private(), 1);
        mappings.push(imported.adopt_map(head, leaf.nr_leaves)?);
        memory.push(folio);
    }
    let dma: FolioPin<'_, Pool> = imported.adopt_pin(handover.dma)?;
    assert!(imported.adopt_pin(handover.dma).is_err(), "there was one pin, and it has a handle");

    // Guest 2 has not: nobody comes for its folios, and their list says so.
    let orphans: Vec<_> = imported.orphans().collect();
    assert_eq!(orphans.iter().map(|folio| folio.order.nr_pages()).sum::<u64>(), GUEST_PAGES);
    for folio in orphans {
        assert_eq!((folio.refs, folio.pins), (1, 0));
        // Its nested page table is gone, so no leaf reaches the pages any more.
        assert_eq!(imported.put_orphans(folio.head)?, Put::Last);
    }
    assert_eq!(pool.stats().free_pages, 8 * GIB - GUEST_PAGES);

    // From here on it is as if there had been one life.
    drop((memory, mappings));
    assert!(pool.stats().free_pages < 8 * GIB, "the device goes on");
    drop(dma);
    assert_eq!(pool.stats().free_pages, 8 * GIB);
    println!("live update: every page is accounted for");
    Ok(())
}

/// An owner without data.
struct Plain;

impl PgmapOps for Plain {
    type Private = ();
}

/// Says how long an image of 1 TiB takes that has 100,000 folios, two lives five times.
fn time() -> Result<(), Box<dyn Error>> {
    let (range, tables) = (PfnRange::new(Pfn::new(1 << 30), 1 << 28)?, Tables::Budget(512));
    let nr_lines = MetaSize::of(range, tables).lines();
    let (attrs, attach) = (ExtentAttrs::NEW, Attach::Zeroed);
    for _ in 0..5 {
        let (old_slots, new_slots) = ([ExtentSlot::new()], [ExtentSlot::new()]);
        let mut metas = [(); 2].map(|()| HeapMeta::zeroed(nr_lines));
        let [Some(old_meta), Some(new_meta)] = &mut metas else { return Err("no memory".into()) };

        let mut old = Pgmap::new(Plain, Policy::generic(), &old_slots);
        old.add_extent(range, attrs, tables, old_meta.lines_mut(), attach)?;
        let order = |index: u32| match index {
            0..400 => Order::REGION,
            _ if index % 2 == 0 => Order::BLOCK,
            _ => Order::ZERO,
        };
        for index in 0..100_000 {
            let folio = old.alloc(order(index)).map_err(|error| error.to_string())?.publish();
            let _ = folio.map(1).map_err(|error| error.to_string())?.into_raw();
            let _ = folio.into_raw();
        }
        let start = Instant::now();
        let mut image = vec![0; old.image_len()?];
        let measured = start.elapsed();
        let start = Instant::now();
        old.export(&mut image, |_, ()| 0)?;
        let exported = start.elapsed();

        let new = Pgmap::new(Plain, Policy::generic(), &new_slots);
        new.add_extent(range, attrs, tables, new_meta.lines_mut(), attach)?;
        let mut places = vec![Orphan::EMPTY; usize::try_from(Orphan::nr_in(&image)?)?];
        let start = Instant::now();
        let mut imported = new.import(&image, &mut places, |_, _, ()| {})?;
        let read = start.elapsed();
        let heads: Vec<_> = imported.orphans().map(|folio| folio.head).collect();
        let start = Instant::now();
        for &head in &heads {
            core::mem::forget((imported.adopt_folio(head)?, imported.adopt_map(head, 1)?));
        }
        let adopted = start.elapsed();
        println!(
            "{} bytes: length {measured:.1?}, export {exported:.1?}, import {read:.1?}, \
             adoption of {} counts {adopted:.1?}",
            image.len(),
            2 * heads.len(),
        );
    }
    Ok(())
}
