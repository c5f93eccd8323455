//! Leaves change their order where they are, and are never larger than their folio.

use devfolio::{InsertError, Order, Pfn, PfnRange, PlanError, Vpn};

use super::{Outcome, ensure};
use crate::machine::serial::say;
use crate::machine::traps;
use crate::space::{self, Space};
use crate::world::{VRAM, leaf_name};

const ADDRESS: u64 = 0x100_0000_0000;

/// Down and up again, and what is refused.
pub fn run() -> Outcome {
    space::with(|space| {
        in_place(space)?;
        above_the_folio(space)
    })
}

fn order_at(space: &Space, address: u64) -> Option<Order> {
    space.table().leaf(Vpn::new(address >> 12)).map(|leaf| leaf.order)
}

/// 1 GiB to 2 MiB to 4 KiB and back: the bytes, the dirty bits, the folio and its counts stay.
fn in_place(space: &mut Space) -> Outcome {
    let folio = VRAM.alloc(Order::REGION)?.publish();
    let (pages, range) = (folio.range(), space::range(ADDRESS, folio.nr_pages()));
    space.insert(&folio, space::largest(ADDRESS, pages))?;
    let probe = ADDRESS + (0x2_3456 << 12) + 0x18;
    ensure!(traps::try_write(probe, 0x1234), "{probe:#x} is not mapped");

    for leaf in [Order::REGION, Order::BLOCK, Order::ZERO, Order::REGION] {
        if leaf == Order::REGION {
            space.promote(range, leaf);
        } else {
            space.demote(range, leaf)?;
        }
        let found = order_at(space, probe);
        let nr_leaves = pages.nr_pages() >> leaf.as_u8();
        ensure!(found == Some(leaf), "{probe:#x} is mapped by a leaf of order {found:?}");
        ensure!(u64::from(folio.mapcount()) == nr_leaves, "{} are counted", folio.mapcount());
        ensure!(traps::try_read(probe) == Some(0x1234), "what was written is gone");
        ensure!(folio.order() == Order::REGION, "the folio is of order {}", folio.order());
        let dirty = space.table().leaf(Vpn::new(probe >> 12)).is_some_and(|leaf| leaf.dirty);
        ensure!(dirty, "the leaf of order {leaf} is not dirty");
        say!("  as leaves of {}: {nr_leaves} counts", leaf_name(leaf));
    }
    let unmapped = space.unmap(range)?;
    ensure!(unmapped.nr_dirty_pages == folio.nr_pages(), "{unmapped:?}");
    ensure!(folio.mapcount() == 0, "{} leaves are still counted", folio.mapcount());
    Ok(())
}

/// Two folios of half a block lie side by side, and could be one leaf of 2 MiB; they are not.
fn above_the_folio(space: &mut Space) -> Outcome {
    let block = VRAM.alloc(Order::BLOCK)?;
    let Some(half) = Order::BLOCK.shrink() else { return Ok(()) };
    let nr_half = half.nr_pages();
    let mut halves = block.split(half)?.map(|piece| piece.publish());
    let (Some(low), Some(high)) = (halves.next(), halves.next()) else { return Ok(()) };
    let second = ADDRESS + (nr_half << 12);

    // Asked for outright.
    let both = PfnRange::new(low.head(), 2 * nr_half)?;
    let refused = space.insert(&low, space::leaves_of(Order::BLOCK, ADDRESS, low.range()));
    let is_plain =
        matches!(refused, Err(InsertError::Plan(PlanError::AboveFolio { leaf: Order::BLOCK, .. })));
    ensure!(is_plain, "a leaf of 2M for a folio of 1M is {refused:?}");
    ensure!(traps::try_read(ADDRESS).is_none(), "a refused mapping can be read");

    // By joining what lies side by side.
    space.insert(&low, space::largest(ADDRESS, low.range()))?;
    space.insert(&high, space::largest(second, high.range()))?;
    space.promote(space::range(ADDRESS, 2 * nr_half), Order::REGION);
    let found = order_at(space, ADDRESS);
    ensure!(found < Some(Order::BLOCK), "one leaf maps two folios, {both}");

    // Each is freed by its own unmap, and only the other one can be read after that.
    let (low, high): (Pfn, Pfn) = {
        let heads = (low.head(), high.head());
        drop((low, high));
        heads
    };
    ensure!(traps::try_write(second, 0x77), "{second:#x} is not mapped");
    space.unmap(space::range(ADDRESS, nr_half))?;
    ensure!(VRAM.try_get(low).is_err(), "folio {low} is live, and nothing maps it");
    ensure!(VRAM.try_get(high).is_ok(), "folio {high} is free, and it is mapped");
    ensure!(traps::try_read(second) == Some(0x77), "{second:#x} went with its neighbour");
    space.unmap(space::range(second, nr_half))?;
    ensure!(VRAM.try_get(high).is_err(), "folio {high} is live, and nothing maps it");
    Ok(())
}
