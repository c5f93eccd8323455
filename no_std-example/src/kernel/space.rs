//! Address spaces over the tables of this machine.

use devfolio::{AddressSpace, LeafLimit, MapRequest, Order, PfnRange, Rights, Vpn, VpnRange};

use crate::checks::Failed;
use crate::paging::{self, Tables};
use crate::world::DIRECTORY;

/// An address space of the kernel's own kind.
pub type Space = AddressSpace<'static, Tables>;

/// Makes an address space in which nothing is mapped but the kernel.
pub fn new() -> Result<Space, Failed> {
    let tables = Tables::new().ok_or_else(|| Failed::from("there is no frame for a root"))?;
    Ok(AddressSpace::new(tables, &DIRECTORY))
}

/// Runs something in an address space, and gives its tables back.
pub fn with<R>(run_fn: impl FnOnce(&mut Space) -> Result<R, Failed>) -> Result<R, Failed> {
    let mut space = new()?;
    paging::activate(Some(space.table()));
    let result = run_fn(&mut space);
    paging::activate(None);
    space.into_table().destroy();
    result
}

/// Asks for leaves of one order, to load from and store to.
pub fn leaves_of(order: Order, address: u64, pages: PfnRange) -> MapRequest {
    largest(address, pages).limit(LeafLimit::Exactly(order))
}

/// Asks for the largest leaves, to load from and store to.
pub fn largest(address: u64, pages: PfnRange) -> MapRequest {
    MapRequest::new(Vpn::new(address >> 12), pages, Rights::READ_WRITE)
}

/// The addresses from one on, in pages.
pub fn range(address: u64, nr_pages: u64) -> VpnRange {
    let start = Vpn::new(address >> 12);
    VpnRange::new(start, nr_pages).unwrap_or(VpnRange::page(start))
}
