//! Memory that is mapped when it is touched: the page-fault handler allocates a folio, counts the
//! leaf and maps it.

use devfolio::{InsertError, Leaf, Order, Rights, Vpn};
use spin::Mutex;

use super::{Failed, Outcome, ensure};
use crate::machine::serial::say;
use crate::machine::traps::{self, Resolution, Resolver};
use crate::paging;
use crate::space::{self, Space};
use crate::world::{VRAM, leaf_name};

/// Where pages appear.
pub const PAGES: u64 = 0x130_0000_0000;
/// Where blocks appear.
pub const BLOCKS: u64 = 0x150_0000_0000;
/// How large each of the two parts is.
const LEN: u64 = 1 << 35;

/// What the handler maps into: whoever holds the lock does not touch what is mapped on demand.
static SPACE: Mutex<Option<Space>> = Mutex::new(None);

/// Runs something while what is touched gets memory.
pub fn on_demand<R>(run_fn: impl FnOnce() -> Result<R, Failed>) -> Result<R, Failed> {
    on_demand_by(resolve, run_fn)
}

/// As [`on_demand`], with a handler of one's own.
pub fn on_demand_by<R>(
    resolver: Resolver,
    run_fn: impl FnOnce() -> Result<R, Failed>,
) -> Result<R, Failed> {
    let space = space::new()?;
    paging::activate(Some(space.table()));
    *SPACE.lock() = Some(space);
    let result = traps::with_resolver(resolver, run_fn);
    paging::activate(None);
    if let Some(space) = SPACE.lock().take() {
        space.into_table().destroy();
    }
    result
}

/// Runs something with the address space of the handler.
pub fn with_space<R>(run_fn: impl FnOnce(&mut Space) -> Result<R, Failed>) -> Result<R, Failed> {
    let mut space = SPACE.lock();
    run_fn(space.as_mut().ok_or_else(|| Failed::from("there is no address space"))?)
}

fn order_at(address: u64) -> Option<Order> {
    match address {
        PAGES.. if address < PAGES + LEN => Some(Order::ZERO),
        BLOCKS.. if address < BLOCKS + LEN => Some(Order::BLOCK),
        _ => None,
    }
}

/// The handler: what is touched for the first time gets a folio of the order of its part.
pub fn resolve(address: u64) -> Resolution {
    let Some(order) = order_at(address) else { return Resolution::Refused };
    let Ok(folio) = VRAM.alloc(order) else { return Resolution::Refused };
    let folio = folio.publish();
    let mut space = SPACE.lock();
    let Some(space) = space.as_mut() else { return Resolution::Refused };
    let start = address & !((order.nr_pages() << 12) - 1);
    match space.insert(&folio, space::leaves_of(order, start, folio.range())) {
        // Occupied: another CPU was faster, and this folio goes back.
        Ok(_) | Err(InsertError::Occupied { .. }) => Resolution::Mapped,
        Err(_) => Resolution::Refused,
    }
}

/// The same by hand: counts the leaf, and writes it into the table.
pub fn resolve_by_hand(address: u64) -> Resolution {
    let Some(order) = order_at(address) else { return Resolution::Refused };
    let Ok(folio) = VRAM.alloc(order) else { return Resolution::Refused };
    let folio = folio.publish();
    let Ok(counted) = folio.map(1) else { return Resolution::Refused };
    let mut space = SPACE.lock();
    let Some(space) = space.as_mut() else { return Resolution::Refused };
    let leaf = Leaf::new(folio.head(), order, Rights::READ_WRITE);
    if space.table_mut().put(Vpn::new(address >> 12).head(order), &leaf) {
        // The leaf has the count from here on.
        let _ = counted.into_raw();
    }
    Resolution::Mapped
}

/// Faults pages and blocks in, and lets them all go.
pub fn run() -> Outcome {
    on_demand(|| {
        touch(PAGES, Order::ZERO, 600)?;
        touch(BLOCKS, Order::BLOCK, 8)
    })
}

/// Touches `nr` leaves, twice, and takes them away.
fn touch(start: u64, order: Order, nr: u64) -> Outcome {
    let step = order.nr_pages() << 12;
    let addresses = (0..nr).map(|index| start + index * step + 8 * (index % 512));
    let before = (traps::nr_faults(), VRAM.stats().live.nr_folios);
    for address in addresses.clone() {
        ensure!(traps::try_write(address, !address), "the fault at {address:#x} was refused");
    }
    let (faults, folios) = (traps::nr_faults() - before.0, VRAM.stats().live.nr_folios - before.1);
    say!("  {nr} x {}: {faults} faults", leaf_name(order));
    ensure!(faults == nr && folios == nr, "{faults} faults and {folios} folios for {nr} leaves");
    for address in addresses {
        let found = traps::try_read(address);
        ensure!(found == Some(!address), "{address:#x} holds {found:x?}");
    }
    ensure!(traps::nr_faults() - before.0 == nr, "what is mapped faults again");
    ensure!(traps::try_read(start - 8).is_none(), "the page before the part is mapped");

    let unmapped =
        with_space(|space| Ok(space.unmap(space::range(start, nr * order.nr_pages()))?))?;
    ensure!(unmapped.nr_leaves == nr, "{unmapped:?}");
    ensure!(unmapped.nr_dirty_pages == nr * order.nr_pages(), "{unmapped:?}");
    let left = VRAM.stats().live.nr_folios - before.1;
    ensure!(left == 0, "{left} folios are live and unmapped");
    Ok(())
}
