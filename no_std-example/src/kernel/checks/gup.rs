//! From an address to pinned pages: lockless where something is mapped, and through the page-fault
//! handler where nothing is.

use devfolio::{
    Access, GupError, GupHold, GupRun, GupTake, Order, Pfn, PfnRange, PinKind, Rights, gup,
    gup_fast,
};

use super::faults::{self, BLOCKS, PAGES};
use super::{Failed, Outcome, ensure};
use crate::machine::{frames, memory, traps};
use crate::paging::{self, Reader};
use crate::space;
use crate::world::{DIRECTORY, VRAM, address_of};

const PIN: GupTake = GupTake::Pin(PinKind::Short);

/// What is touched gets memory, and keeps it while it is pinned.
pub fn run() -> Outcome {
    faults::on_demand(|| {
        let nr_faults = traps::nr_faults();
        refusals()?;
        // A page, and some pages in the middle of a block.
        pinned(PAGES, 1, Order::ZERO)?;
        pinned(BLOCKS + (100 << 12), 7, Order::BLOCK)?;
        let nr_faults = traps::nr_faults() - nr_faults;
        ensure!(2 <= nr_faults, "there were {nr_faults} page faults");
        Ok(())
    })
}

/// What cannot be had: holes, pages of nobody, rights that are not there.
fn refusals() -> Outcome {
    let reader = Reader(paging::active_root());
    let look = |address, access| {
        gup_fast(&reader, &DIRECTORY, space::range(address, 1), access, PIN).map(|run| run.pages)
    };
    let hole = look(PAGES, Access::Read);
    ensure!(matches!(hole, Err(GupError::NotMapped { .. })), "a hole is {hole:?}");

    let frame = frames::take().ok_or_else(|| Failed::from("there is no frame"))?;
    let ram = PfnRange::block(Pfn::new(frame >> 12), Order::ZERO);
    let folio = VRAM.alloc(Order::ZERO)?.publish();
    let [first, second] = [0x160_0000_0000, 0x160_0000_1000];
    faults::with_space(|space| {
        space.insert_foreign(space::largest(first, ram))?;
        space.insert(&folio, space::largest(second, folio.range()))?;
        space.protect(space::range(second, 1), Rights::READ)?;
        Ok(())
    })?;
    let foreign = look(first, Access::Read);
    ensure!(matches!(foreign, Err(GupError::Foreign { .. })), "RAM is {foreign:?}");
    let denied = look(second, Access::Write);
    ensure!(matches!(denied, Err(GupError::Denied { .. })), "read-only is {denied:?}");
    ensure!(!traps::try_write(second, 1), "a page that is read-only was written");
    ensure!(look(second, Access::Read).is_ok(), "a page that can be read was refused");
    faults::with_space(|space| Ok(space.unmap(space::range(first, 2))?))?;
    frames::give_zeroed(frame);
    Ok(())
}

/// Pins what is not mapped yet; the pin outlives the mapping, and is one count for the run.
fn pinned(address: u64, nr_pages: u64, order: Order) -> Outcome {
    let reader = Reader(paging::active_root());
    let range = space::range(address, nr_pages);
    let fault_fn = |_, _| {
        let written = traps::try_write(address, address);
        if written { Ok(()) } else { Err("the page-fault handler refuses") }
    };
    let run = gup(&reader, &DIRECTORY, range, Access::Write, PIN, fault_fn)?;
    let GupRun { pages, hold: GupHold::Pin(pin) } = run else {
        ensure!(false, "a reference, and not a pin");
        return Ok(());
    };
    let folio = VRAM.try_get(pages.start())?;
    ensure!(pages.nr_pages() == nr_pages && folio.order() == order, "{pages} of {folio:?}");
    ensure!(folio.pincount() == 1, "{} pins", folio.pincount());
    drop(folio);

    // A device would write to these addresses.
    let last = address + ((nr_pages - 1) << 12) + 8;
    // SAFETY: Device memory, of which no Rust object is a part.
    unsafe { memory::write(address_of(pages.last()) + 8, !address) };
    ensure!(traps::try_read(last) == Some(!address), "the pin is on other pages");

    let hooks = VRAM.ops().tally.hooks();
    faults::with_space(|space| Ok(space.unmap(space::range(address & !0x1f_ffff, 512))?))?;
    ensure!(VRAM.ops().tally.hooks() == hooks, "the page was freed under its pin");
    let found: u64 = memory::read(address_of(pages.start()));
    ensure!(found == address, "the pinned page holds {found:#x}");
    drop(pin);
    ensure!(VRAM.ops().tally.hooks() == hooks + 1, "the last unpin did not free the folio");
    Ok(())
}
