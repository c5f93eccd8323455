//! What mapping costs, in instructions, beside Linux.
//!
//! Only with a clock that counts them: `-icount shift=0`. The same run gives the same numbers on
//! any host, which no time does.

use devfolio::{Order, PinKind};

use super::{Outcome, faults};
use crate::machine::clock;
use crate::machine::serial::say;
use crate::machine::traps;
use crate::space::{self, Space};
use crate::world::VRAM;

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
        let goal = goal.unwrap_or_default();
        say!("  {what:<28} {mean:>6} {:>6}  {goal:>5} {verdict:<7} {linux}", self.max);
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
    fault(empty, faults::PAGES, Order::ZERO, ["3069", "456"])?;
    fault(empty, faults::BLOCKS, Order::BLOCK, ["1873", "758"])?;
    space::with(|space| counts(space, empty))?;
    say!(
        "  Linux: device-dax, one run under the same emulator, and an upper anchor: it has areas,"
    );
    say!("  locks and file systems on the way, which this kernel has not.");
    Ok(())
}

/// Faults, and unmaps that free: what the last mapping holds goes to the hook.
fn fault(empty: u64, start: u64, order: Order, linux: [&str; 2]) -> Outcome {
    let (mut fault, mut unmap) = (Cost::default(), Cost::default());
    let addresses = (0..ROUNDS).map(|index| start + index * (order.nr_pages() << 12));
    faults::on_demand(|| {
        for address in addresses.clone() {
            fault.add(empty, || traps::touch(address));
        }
        faults::with_space(|space| {
            for address in addresses {
                let range = space::range(address, order.nr_pages());
                unmap.add(empty, || space.unmap(range))?;
            }
            Ok(())
        })
    })?;
    let what = if order == Order::ZERO { "page fault, 4K" } else { "page fault, 2M" };
    fault.say(what, Some(400), linux[0]);
    unmap.say("  its unmap, flush and free", None, linux[1]);
    Ok(())
}

/// What counting, mapping and pinning take by themselves, of a folio that somebody else holds.
fn counts(space: &mut Space, empty: u64) -> Outcome {
    let folio = VRAM.alloc(Order::BLOCK)?.publish();
    let [mut map, mut unmap, mut pin, mut unpin] = [Cost::default(); 4];
    let request = space::leaves_of(Order::BLOCK, ADDRESS, folio.range());
    for _ in 0..ROUNDS {
        map.add(empty, || space.insert(&folio, request))?;
        traps::touch(ADDRESS);
        unmap.add(empty, || space.unmap(space::range(ADDRESS, folio.nr_pages())))?;
        let pinned = pin.add(empty, || folio.pin(PinKind::Short))?;
        unpin.add(empty, || drop(pinned));
    }
    map.say("map a leaf", None, "");
    unmap.say("unmap a leaf, with flush", Some(150), "456 (4K), 758 (2M), 621 (1G)");
    pin.say("pin", None, "1400-1500 (GUP and copy)");
    unpin.say("unpin", None, "");
    Ok(())
}
