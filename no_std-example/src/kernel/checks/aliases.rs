//! One folio, mapped by leaves of every order at once: what is written through one of them is read
//! through all others.

use devfolio::{Folio, Order, PgmapOps};

use super::{Outcome, ensure};
use crate::machine::serial::say;
use crate::machine::traps;
use crate::space::{self, Space};
use crate::world::{VRAM, leaf_name};

/// Where the aliases are, 1 TiB and more above the kernel.
const ALIASES: [u64; 3] = [0x100_0000_0000, 0x110_0000_0000, 0x120_0000_0000];

/// Folios of 1 GiB, 2 MiB and 4 KiB, by all leaves that are not larger than they are.
pub fn run() -> Outcome {
    space::with(|space| {
        [Order::REGION, Order::BLOCK, Order::ZERO].into_iter().try_for_each(|order| {
            let folio = VRAM.alloc(order)?.publish();
            alias(space, folio)
        })
    })
}

/// Maps a folio by every order of leaves, and lets it go.
fn alias<O: PgmapOps>(space: &mut Space, folio: Folio<'_, O>) -> Outcome {
    let (order, pages) = (folio.order(), folio.range());
    let leaves = [Order::REGION, Order::BLOCK, Order::ZERO];
    let leaves = || leaves.into_iter().filter(|&leaf| leaf <= order).zip(ALIASES);
    let mut nr_leaves = 0;
    for (leaf, address) in leaves() {
        let mapped = space.insert(&folio, space::leaves_of(leaf, address, pages))?;
        let count = pages.nr_pages() >> leaf.as_u8();
        ensure!(u64::from(mapped) == count, "{mapped} leaves, and not {count}");
        nr_leaves += mapped;
    }
    say!("  folio {} of {}: {nr_leaves} leaves", folio.head(), leaf_name(order));
    ensure!(folio.mapcount() == nr_leaves, "{} are counted", folio.mapcount());
    ensure!(folio.order() == order, "it is of order {} now", folio.order());

    for (writer, (_, address)) in leaves().enumerate() {
        same_memory(address, leaves().map(|(_, other)| other), pages.nr_pages(), writer as u64)?;
    }
    unmap(space, folio, leaves().map(|(_, address)| address))
}

/// Writes through one alias, at some pages, and reads through all.
fn same_memory(
    writer: u64,
    readers: impl Iterator<Item = u64> + Clone,
    nr_pages: u64,
    salt: u64,
) -> Outcome {
    let last = nr_pages - 1;
    for page in [0, 1, nr_pages / 3, 511, 512, nr_pages / 2, last].map(|page| page.min(last)) {
        let offset = (page << 12) + 8 * (salt + page % 500);
        let value = writer ^ offset ^ salt << 56;
        ensure!(traps::try_write(writer + offset, value), "{:#x} is not mapped", writer + offset);
        for reader in readers.clone() {
            let found = traps::try_read(reader + offset);
            ensure!(found == Some(value), "{:#x} holds {found:x?}", reader + offset);
        }
    }
    Ok(())
}

/// Takes one alias after the other away: the folio is free with the last of them, not before.
///
/// The hook looks whether the alias can still be read through the TLB.
fn unmap<O: PgmapOps>(
    space: &mut Space,
    folio: Folio<'_, O>,
    aliases: impl Iterator<Item = u64>,
) -> Outcome {
    let (head, nr_pages) = (folio.head(), folio.nr_pages());
    drop(folio);
    let tally = &VRAM.ops().tally;
    let hooks = tally.hooks();
    for address in aliases {
        ensure!(tally.hooks() == hooks, "folio {head} is free while {address:#x} maps it");
        let last = address + ((nr_pages - 1) << 12);
        // Into the TLB, from where only a flush takes it.
        ensure!(traps::try_read(last).is_some(), "{last:#x} cannot be read");
        tally.watch(last);
        space.unmap(space::range(address, nr_pages))?;
        tally.watch(0);
        ensure!(traps::try_read(address).is_none(), "{address:#x} can still be read");
        ensure!(traps::try_read(last).is_none(), "{last:#x} can still be read");
    }
    ensure!(tally.hooks() == hooks + 1, "folio {head} is not free, and nothing maps it");
    let reachable = tally.reachable();
    ensure!(reachable == 0, "a folio was freed while a TLB still led to it");
    Ok(())
}
