//! What mapping costs, in instructions, beside Linux.
//!
//! Only with a clock that counts them: `-icount shift=0`. The same run gives the same numbers on
//! any host, which no time does.

use devfolio::{Access, GupTake, Leaf, Order, PinKind, Rights, Vpn, gup_fast};

use super::{Outcome, ensure, faults};
use crate::machine::clock;
use crate::machine::serial::say;
use crate::machine::traps::{self, Resolver};
use crate::paging::{self, Reader};
use crate::space::{self, Space};
use crate::world::{DIRECTORY, VRAM};

/// How often each thing is done.
const ROUNDS: u64 = 500;
const ADDRESS: u64 = 0x160_0000_0000;

/// The sum of many, and the dearest of them.
#[derive(Clone, Copy, Debug, Default)]
struct Cost {
    nr: u64,
    sum: u64,
    max: u64,
}

impl Cost {
    /// Runs something, and adds what it takes without the reading of the clock.
    #[inline(always)]
    fn add<R>(&mut self, empty: u64, run_fn: impl FnOnce() -> R) -> R {
        let start = clock::now();
        let result = run_fn();
        let taken = clock::now().wrapping_sub(start).wrapping_sub(empty);
        self.nr += 1;
        self.sum += taken;
        self.max = self.max.max(taken);
        result
    }

    fn mean(self) -> u64 {
        self.sum / self.nr.max(1)
    }

    /// Prints the cost beside the goal, if there is one, and that of Linux 7.2.
    fn say(self, what: &str, goal: Option<u64>, linux: &str) {
        let mean = self.mean();
        let verdict = match goal {
            None => "",
            Some(goal) if mean <= goal => "met",
            Some(_) => "missed",
        };
        let bound: &dyn core::fmt::Display = goal.as_ref().map_or(&"-", |goal| goal);
        say!("  {what:<28} {mean:>6} {:>6}  {bound:>5} {verdict:<7} {linux}", self.max);
    }
}

/// Returns what reading the clock twice takes.
fn empty() -> u64 {
    let mut cost = Cost::default();
    for _ in 0..ROUNDS {
        cost.add(0, || {});
    }
    cost.mean()
}

/// Measures and prints everything.
pub fn run() -> Outcome {
    let empty = empty();
    say!("  instructions                   mean    max   goal         Linux 7.2");
    say!("  by hand: the folio counts a leaf, and the kernel writes it");
    fault(empty, faults::resolve_by_hand, Order::ZERO)?;
    fault(empty, faults::resolve_by_hand, Order::BLOCK)?;
    space::with(|space| mapping_by_hand(space, empty))?;
    say!("  by address space");
    fault(empty, faults::resolve, Order::ZERO)?;
    fault(empty, faults::resolve, Order::BLOCK)?;
    space::with(|space| mapping(space, empty))?;
    say!("  of what is mapped");
    space::with(|space| pinning(space, empty))?;
    say!(
        "  Linux: device-dax, one run under the same emulator, and an upper anchor: it has areas,"
    );
    say!("  locks and file systems on the way, which this kernel has not.");
    Ok(())
}

/// Faults, and unmaps that free: what the last mapping holds goes to the hook.
fn fault(empty: u64, resolver: Resolver, order: Order) -> Outcome {
    let (start, [what, linux, linux_unmap]) = match order {
        Order::ZERO => (faults::PAGES, ["page fault, 4K", "3069", "456"]),
        _ => (faults::BLOCKS, ["page fault, 2M", "1873", "758"]),
    };
    let [mut fault, mut unmap] = [Cost::default(); 2];
    let addresses = (0..ROUNDS).map(|index| start + index * (order.nr_pages() << 12));
    faults::on_demand_by(resolver, || {
        for address in addresses.clone() {
            fault.add(empty, || traps::touch(address));
        }
        faults::with_space(|space| {
            let range = space::range(start, ROUNDS * order.nr_pages());
            let unmapped = unmap.add(empty, || space.unmap(range))?;
            ensure!(unmapped.nr_leaves == ROUNDS, "{unmapped:?}");
            Ok(())
        })
    })?;
    fault.say(what, Some(400), linux);
    allocation(empty, order)?;
    let each = unmap.sum / ROUNDS;
    let unmap = Cost { nr: 1, sum: each, max: each };
    unmap.say("  unmap of all, for each leaf", None, linux_unmap);
    Ok(())
}

/// The part of a fault that is the search for a folio.
fn allocation(empty: u64, order: Order) -> Outcome {
    let mut cost = Cost::default();
    let mut folios = [const { None }; ROUNDS as usize];
    for slot in &mut folios {
        *slot = Some(cost.add(empty, || VRAM.alloc(order))?);
    }
    cost.say("  of which the allocation", None, "");
    Ok(())
}

/// A leaf of a folio that somebody else holds, by the crate's address space.
fn mapping(space: &mut Space, empty: u64) -> Outcome {
    let folio = VRAM.alloc(Order::BLOCK)?.publish();
    let [mut map, mut unmap] = [Cost::default(); 2];
    let request = space::leaves_of(Order::BLOCK, ADDRESS, folio.range());
    for _ in 0..ROUNDS {
        map.add(empty, || space.insert(&folio, request))?;
        traps::touch(ADDRESS);
        unmap.add(empty, || space.unmap(space::range(ADDRESS, folio.nr_pages())))?;
    }
    map.say("map a leaf", None, "");
    unmap.say("unmap a leaf, with flush", Some(150), "456 (4K), 758 (2M), 621 (1G)");
    Ok(())
}

/// The same by hand: whoever keeps the handle of a mapping needs no lookup to uncount it.
fn mapping_by_hand(space: &mut Space, empty: u64) -> Outcome {
    let folio = VRAM.alloc(Order::BLOCK)?.publish();
    let [mut map, mut unmap] = [Cost::default(); 2];
    let (vpn, table) = (Vpn::new(ADDRESS >> 12), space.table_mut());
    for _ in 0..ROUNDS {
        let leaf = Leaf::new(folio.head(), Order::BLOCK, Rights::READ_WRITE);
        let counted = map.add(empty, || {
            let counted = folio.map(1);
            table.put(vpn, &leaf);
            counted
        })?;
        traps::touch(ADDRESS);
        let leaf = unmap.add(empty, || {
            let leaf = table.take(vpn);
            paging::flush_leaf(ADDRESS);
            drop(counted);
            leaf
        });
        ensure!(leaf.is_some_and(|leaf| leaf.dirty), "the leaf was {leaf:?}");
    }
    map.say("map a leaf", None, "");
    unmap.say("unmap a leaf, with flush", Some(150), "456 (4K), 758 (2M), 621 (1G)");
    Ok(())
}

/// Pins, by the handle of a folio and by an address.
fn pinning(space: &mut Space, empty: u64) -> Outcome {
    let folio = VRAM.alloc(Order::BLOCK)?.publish();
    space.insert(&folio, space::largest(ADDRESS, folio.range()))?;
    let [mut pin, mut unpin, mut look, mut leave] = [Cost::default(); 4];
    let (reader, range) = (Reader(space.table().root()), space::range(ADDRESS, 1));
    let take = GupTake::Pin(PinKind::Short);
    for _ in 0..ROUNDS {
        let pinned = pin.add(empty, || folio.pin(PinKind::Short))?;
        unpin.add(empty, || drop(pinned));
        let write = Access::Write;
        let run = look.add(empty, || gup_fast(&reader, &DIRECTORY, range, write, take))?;
        leave.add(empty, || drop(run));
    }
    space.unmap(space::range(ADDRESS, folio.nr_pages()))?;
    pin.say("pin a folio", None, "");
    unpin.say("unpin it", None, "");
    look.say("GUP: pin by address", None, "1400-1500 (with a copy)");
    leave.say("unpin that", None, "");
    Ok(())
}
