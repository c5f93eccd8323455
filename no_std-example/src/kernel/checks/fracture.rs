//! The fracture cycle: a folio that is mapped in two address spaces, by leaves of different order,
//! parts company with one of its pages.

use devfolio::{
    CutError, Folio, Fracture, FractureReason, Mappers, Order, Pfn, PfnRange, PinKind, Unmap,
    VpnRange, fracture,
};

use super::{Outcome, ensure};
use crate::machine::serial::say;
use crate::machine::traps;
use crate::paging;
use crate::space::{self, Space};
use crate::world::{VRAM, Vram};

const ADDRESS: u64 = 0x100_0000_0000;
/// Where the other address space has it.
const ELSEWHERE: u64 = 0x200_0000_0000;
/// The page that is to be alone, and two that stay with others.
const PAGE: u64 = 0x1_2345;
const OTHERS: [u64; 2] = [PAGE - 1, 0x3_ffff];
/// The page, and one piece of each lower order.
const NR_PIECES: usize = 19;

/// Both address spaces, wherever they map.
struct Both<'a>([&'a mut Space; 2]);

impl Mappers for Both<'_> {
    fn for_each(
        &mut self,
        _: PfnRange,
        visit_fn: &mut dyn FnMut(&mut dyn Unmap, VpnRange) -> Result<(), CutError>,
    ) -> Result<(), CutError> {
        let nr_pages = Order::REGION.nr_pages();
        let places = [ADDRESS, ELSEWHERE].map(|address| space::range(address, nr_pages));
        self.0.iter_mut().zip(places).try_for_each(|(space, range)| visit_fn(*space, range))
    }
}

/// In the address space that is active, and beside another one.
pub fn run() -> Outcome {
    space::with(|space| {
        let mut other = space::new()?;
        let outcome = cycle(space, &mut other);
        other.into_table().destroy();
        outcome
    })
}

fn value(page: u64) -> u64 {
    0x4444_0000_0000 + page
}

fn at(page: u64) -> u64 {
    ADDRESS + (page << 12)
}

fn cycle(space: &mut Space, other: &mut Space) -> Outcome {
    let folio = VRAM.alloc(Order::REGION)?.publish();
    let head = folio.head();
    space.insert(&folio, space::largest(ADDRESS, folio.range()))?;
    other.insert(&folio, space::leaves_of(Order::BLOCK, ELSEWHERE, folio.range()))?;
    for page in [PAGE, OTHERS[0], OTHERS[1]] {
        ensure!(traps::try_write(at(page), value(page)), "page {page:#x} is not mapped");
    }

    // A pin is in the way: nothing changes, in either address space.
    let pin = folio.pin(PinKind::Short)?;
    let pfn = Pfn::new(head.as_u64() + PAGE);
    let how = Fracture::Around(pfn, Order::ZERO);
    let refused = fracture(folio, &mut Both([space, other]), how).map(|_| ());
    let Err(refused) = refused else {
        ensure!(false, "a pinned folio was fractured");
        return Ok(());
    };
    let is_named = matches!(refused.reason, FractureReason::Held(info) if info.pins == 1);
    ensure!(is_named, "the refusal says {}", refused.reason);
    let folio = refused.folio;
    ensure!(folio.mapcount() == 1 + 512, "{} leaves are counted", folio.mapcount());
    ensure!(traps::try_read(at(PAGE)) == Some(value(PAGE)), "a refused fracture has unmapped");
    ensure!(!folio.info().is_closed, "a refused fracture leaves the folio closed");
    drop(pin);

    // Into the TLB, from where the cycle has to take it.
    ensure!(traps::try_read(at(PAGE)).is_some(), "the page cannot be read");
    let pieces = fracture(folio, &mut Both([space, other]), how).map_err(|error| error.reason)?;
    ensure!(traps::try_read(at(PAGE)).is_none(), "the page can be read after the cycle");
    let mut folios = [const { None }; NR_PIECES + 1];
    for (slot, piece) in folios.iter_mut().zip(pieces) {
        *slot = Some(piece);
    }
    elsewhere_is_empty(other)?;
    remap(space, head, folios)
}

/// The other address space has nothing left, in its tables or in the TLB.
fn elsewhere_is_empty(other: &Space) -> Outcome {
    let home = paging::active_root();
    paging::activate(Some(other.table()));
    let found = traps::try_read(ELSEWHERE + (PAGE << 12));
    paging::activate_root(home);
    ensure!(found.is_none(), "another address space still maps the folio");
    Ok(())
}

/// Maps the pieces where the folio was, and lets the one page go alone.
fn remap(
    space: &mut Space,
    head: Pfn,
    folios: [Option<Folio<'static, Vram>>; NR_PIECES + 1],
) -> Outcome {
    let nr_folios = folios.iter().flatten().count();
    say!("  1 folio of 1G, 2 address spaces, 513 leaves -> {nr_folios} folios");
    ensure!(nr_folios == NR_PIECES, "there are {nr_folios} folios");
    let mut nr_pages = 0;
    for folio in folios.into_iter().flatten() {
        let page = folio.head().as_u64() - head.as_u64();
        space.insert(&folio, space::largest(at(page), folio.range()))?;
        nr_pages += folio.nr_pages();
    }
    ensure!(nr_pages == Order::REGION.nr_pages(), "the pieces have {nr_pages} pages");
    for page in [PAGE, OTHERS[0], OTHERS[1]] {
        let found = traps::try_read(at(page));
        ensure!(found == Some(value(page)), "page {page:#x} holds {found:x?}");
    }

    let pfn = Pfn::new(head.as_u64() + PAGE);
    space.unmap(space::range(at(PAGE), 1))?;
    ensure!(traps::try_read(at(PAGE)).is_none(), "the page can be read after its unmap");
    drop(VRAM.claim(pfn, Order::ZERO)?);
    for page in OTHERS {
        let found = traps::try_read(at(page));
        ensure!(found == Some(value(page)), "page {page:#x} went with its neighbour");
    }
    space.unmap(space::range(ADDRESS, Order::REGION.nr_pages()))?;
    Ok(())
}
