//! A hypervisor that gives a whole GiB back to its host, under its guests.
//!
//! Guests of half a GiB came and went, and what is left of them lies in every GiB of the pool; one
//! is pinned by a device. The plan empties the GiB that costs least, which is not the one with the
//! pin. Its pages are offline before the first folio moves, so nobody is given them in between.
#![deny(unsafe_code)]
#![allow(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    reason = "the numbers of this example are small"
)]

use core::error::Error;
use core::iter::repeat_with;

use devfolio::{
    Attach, ExtentAttrs, ExtentSlot, Folio, Goal, Life, MetaLine, MetaSize, Migrate, Migration,
    Move, Order, Pfn, PfnRange, Pgmap, PgmapOps, PinKind, Policy, StepRefused, Tables, UniqueFolio,
    Window,
};

const GIB: u64 = Order::REGION.nr_pages();
const NR_GIB: u64 = 4;
/// One number stands for the bytes of 2 MiB.
const UNIT: u64 = Order::BLOCK.nr_pages();

/// The pool needs no hook of its own: what a guest gives back is free again.
struct Pool;

impl PgmapOps for Pool {
    type Private = ();
}

/// A folio of a guest; its nested page table has one leaf for it.
struct Memory<'p> {
    guest: u64,
    folio: Folio<'p, Pool>,
}

/// All guests, and the bytes of the pool.
struct Hypervisor<'p> {
    guests: Vec<Memory<'p>>,
    /// The guest whose folio is on its way.
    moving: u64,
    bytes: Vec<u64>,
}

impl<'p> Migrate<'p, Pool> for Hypervisor<'p> {
    type Error = &'static str;

    fn freeze(&mut self, planned: Move) -> Option<(UniqueFolio<'p, Pool>, u32)> {
        // The leaf of the nested page table goes first; the guest waits at its next access.
        let at = self.guests.iter().position(|it| it.folio.head() == planned.from)?;
        let Memory { guest, folio } = self.guests.swap_remove(at);
        match folio.try_freeze() {
            Ok(folio) => {
                self.moving = guest;
                Some((folio, 1))
            }
            Err(busy) => {
                self.guests.push(Memory { guest, folio: busy.folio });
                None
            }
        }
    }

    fn copy(&mut self, from: PfnRange, to: PfnRange) -> Result<(), &'static str> {
        let [from, to] = [from, to].map(|range| (range.start().as_u64() / UNIT) as usize);
        let nr_units = (Order::new(17).ok_or("no order")?.nr_pages() / UNIT) as usize;
        self.bytes.copy_within(from..from + nr_units, to);
        Ok(())
    }

    fn rehome(&mut self, _: Move, (): &mut (), (): &mut ()) -> Result<(), &'static str> {
        Ok(())
    }

    fn moved(&mut self, _: Move, folio: Folio<'p, Pool>) {
        // From here on the guest finds its memory at the new place.
        self.guests.push(Memory { guest: self.moving, folio });
    }

    fn stayed(
        &mut self,
        planned: Move,
        why: StepRefused<&'static str>,
        folio: Option<Folio<'p, Pool>>,
    ) {
        println!("give back: {} stays: {why}", planned.source());
        let guest = self.moving;
        self.guests.extend(folio.map(|folio| Memory { guest, folio }));
    }
}

pub(crate) fn main() -> Result<(), Box<dyn Error>> {
    let range = PfnRange::new(Pfn::new(0), NR_GIB * GIB)?;
    let size = MetaSize::of(range, Tables::Budget(0)).poison(4);
    let mut lines: Vec<_> = repeat_with(MetaLine::default).take(size.lines()).collect();
    let slots = [const { ExtentSlot::new() }];
    let policy = Policy { migration: Migration::Allow, ..Policy::generic() };
    let pool = Pgmap::new(Pool, policy, &slots);
    pool.add_extent(range, ExtentAttrs::NEW, Tables::Budget(0), &mut lines, Attach::Zeroed)?;

    let half_gib = Order::new(17).ok_or("no order")?;
    let mut hypervisor = Hypervisor {
        guests: Vec::new(),
        moving: 0,
        bytes: vec![0; (range.nr_pages() / UNIT) as usize],
    };
    // The halves that are in use: one of each GiB, and both of the second.
    for (guest, half) in [(1, 0), (2, 2), (3, 3), (4, 5), (5, 7)] {
        let head = Pfn::new(half * half_gib.nr_pages());
        let folio = pool.claim(head, half_gib)?.publish();
        let first = (head.as_u64() / UNIT) as usize;
        hypervisor.bytes[first..first + 256].fill(guest);
        hypervisor.guests.push(Memory { guest, folio });
    }
    let pin = hypervisor.guests[0].folio.pin(PinKind::Short)?;

    let (mut windows, mut moves) = ([Window::EMPTY; 2], [Move::EMPTY; 8]);
    let goal = Goal::Runs { order: Order::REGION, count: 1, within: None };
    let plan = pool.plan_release(goal, GIB, &mut windows, &mut moves)?;
    let window = plan.windows[0].range;
    println!("give back: {window} for {} moves of {} pages", plan.moves.len(), plan.nr_pages);
    assert_eq!((window.start(), plan.nr_pages), (Pfn::new(2 * GIB), GIB / 2));

    assert_eq!(pool.offline(window)?, Life::Dying);
    let progress = pool.run_moves(plan.moves, GIB, &mut hypervisor);
    assert_eq!(progress.done, 1);
    assert_eq!(pool.offline_state(window), Some(Life::Drained));

    // Every guest has its bytes, the pinned one where it was.
    for Memory { guest, folio } in &hypervisor.guests {
        let first = (folio.head().as_u64() / UNIT) as usize;
        assert!(hypervisor.bytes[first..first + 256].iter().all(|byte| byte == guest));
    }
    assert_eq!(pin.head(), Pfn::new(0));
    drop((pin, hypervisor));
    assert_eq!(pool.stats().free_pages, (NR_GIB - 1) * GIB);
    Ok(())
}
