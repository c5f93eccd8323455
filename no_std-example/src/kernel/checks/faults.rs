//! Memory that is mapped when it is touched: the page-fault handler allocates a folio, counts the
//! leaf and maps it.

use devfolio::{Leaf, Order, Rights, Vpn};

use super::{Failed, Outcome, ensure};
use crate::machine::serial::say;
use crate::machine::traps::{self, Resolution};
use crate::paging::{self, SetError, Tables};
use crate::world::{VRAM, leaf_name};

/// Where pages appear.
pub const PAGES: u64 = 0x130_0000_0000;
/// Where blocks appear.
pub const BLOCKS: u64 = 0x150_0000_0000;
/// How large each of the two parts is.
const LEN: u64 = 1 << 35;

/// Faults pages and blocks in, and lets them all go.
pub fn run() -> Outcome {
    let tables = Tables::new().ok_or(Failed)?;
    paging::activate(Some(&tables));
    let outcome = traps::with_resolver(resolve, || {
        touch(&tables, PAGES, Order::ZERO, 600)?;
        touch(&tables, BLOCKS, Order::BLOCK, 8)
    });
    paging::activate(None);
    tables.destroy();
    outcome
}

/// The handler: what is touched for the first time gets a folio of the order of its part.
pub fn resolve(address: u64) -> Resolution {
    let order = match address {
        PAGES.. if address < PAGES + LEN => Order::ZERO,
        BLOCKS.. if address < BLOCKS + LEN => Order::BLOCK,
        _ => return Resolution::Refused,
    };
    let Ok(folio) = VRAM.alloc(order) else { return Resolution::Refused };
    let folio = folio.publish();
    let Ok(counted) = folio.map(1) else { return Resolution::Refused };
    let leaf = Leaf::new(folio.head(), order, Rights::READ_WRITE);
    let vpn = Vpn::new(address >> 12).head(order);
    match Tables::insert_at(paging::active_root(), vpn, &leaf) {
        Ok(()) => {
            let _ = counted.into_raw();
            Resolution::Mapped
        }
        // Another CPU was faster; the folio goes back with its handles.
        Err(SetError::Occupied) => Resolution::Mapped,
        Err(_) => Resolution::Refused,
    }
}

/// Touches `nr` leaves, twice, and takes them away.
fn touch(tables: &Tables, start: u64, order: Order, nr: u64) -> Outcome {
    let step = order.nr_pages() << 12;
    let addresses = (0..nr).map(|index| start + index * step + 8 * (index % 512));
    let before = (traps::nr_faults(), VRAM.stats().live.nr_folios);
    for address in addresses.clone() {
        ensure!(traps::try_write(address, !address), "the fault at {address:#x} was refused");
    }
    let (faults, folios) = (traps::nr_faults() - before.0, VRAM.stats().live.nr_folios - before.1);
    say!("  {nr} x {}: {faults} faults", leaf_name(order));
    ensure!(faults == nr && folios == nr, "{faults} faults and {folios} folios for {nr} leaves");
    for address in addresses.clone() {
        let found = traps::try_read(address);
        ensure!(found == Some(!address), "{address:#x} holds {found:x?}");
        let leaf = tables.leaf(Vpn::new(address >> 12));
        ensure!(leaf.is_some_and(|leaf| leaf.order == order), "{address:#x}: {leaf:?}");
    }
    ensure!(traps::nr_faults() - before.0 == nr, "what is mapped faults again");
    ensure!(traps::try_read(start - 8).is_none(), "the page before the part is mapped");

    for address in addresses {
        let leaf = tables.take(Vpn::new(address >> 12)).ok_or(Failed)?;
        paging::flush_leaf(address);
        // SAFETY: The handler has counted the leaf, and no TLB has a translation left.
        unsafe { VRAM.unmap_raw(leaf.pfn, 1) }?;
    }
    let left = VRAM.stats().live.nr_folios - before.1;
    ensure!(left == 0, "{left} folios are live and unmapped");
    Ok(())
}
