//! Device memory is there, answers, and is given to owners.

use devfolio::{Order, Request};

use super::{Outcome, check, ensure};
use crate::machine::pci::{self, Bar};
use crate::machine::serial::say;
use crate::machine::start::StartInfo;
use crate::machine::{acpi, memory};
use crate::world::{self, DIRECTORY, STORE, VRAM};

/// The window of the `ivshmem` device: its size and place, and that it holds what is written.
pub fn window(bar: Bar) -> Outcome {
    say!("  window: {:#x} + {} MiB", bar.base, bar.len >> 20);
    ensure!(bar.base != 0, "there is no ivshmem-plain device");
    ensure!(2 << 30 <= bar.len, "the window is smaller than 2 GiB");
    ensure!(bar.base.is_multiple_of(bar.len), "the window is not aligned to its size");
    answers(bar)?;
    world::add_window(bar)?;
    DIRECTORY.register(&VRAM)?;
    DIRECTORY.register(&STORE)?;
    let pages = VRAM.stats().nr_pages + STORE.stats().nr_pages;
    ensure!(pages == bar.len >> 12 || 4 << 30 < bar.len, "{pages} pages have an owner");
    Ok(())
}

/// Both ends of a device hold different words at the same time, so it is memory of that size.
fn answers(bar: Bar) -> Outcome {
    ensure!(bar.base + bar.len <= memory::DIRECT_END, "it is out of reach");
    let ends = [bar.base, bar.base + bar.len / 2, bar.base + bar.len - 8];
    for address in ends {
        // SAFETY: The memory of a device, of which no Rust object is a part.
        unsafe { memory::write(address, address ^ 0x5555) };
    }
    for address in ends {
        let found: u64 = memory::read(address);
        ensure!(found == address ^ 0x5555, "{address:#x} holds {found:#x}");
    }
    Ok(())
}

/// An NVDIMM and a `virtio-pmem` device, each if the machine has one.
pub fn modules(info: &StartInfo) -> Outcome {
    let nvdimm = info.rsdp.and_then(acpi::nvdimm);
    for (number, (name, found)) in
        [("NVDIMM found", nvdimm), ("virtio-pmem found", pci::virtio_pmem())].iter().enumerate()
    {
        if let Some(bar) = *found {
            check(name, module(number, bar))?;
        }
    }
    Ok(())
}

/// The memory answers, becomes an extent, and gives folios of its own tier.
fn module(number: usize, bar: Bar) -> Outcome {
    say!("  memory: {:#x} + {} MiB", bar.base, bar.len >> 20);
    answers(bar)?;
    let nr_pages = world::add_module(number, bar)?;
    ensure!(nr_pages != 0, "there is no metadata for it");
    let request = Request::order(Order::BLOCK).tier(world::tier_of(number));
    let folio = STORE.alloc_with(request)?;
    let address = world::address_of(folio.head());
    ensure!((bar.base..bar.base + bar.len).contains(&address), "{address:#x} is not of it");
    Ok(())
}
