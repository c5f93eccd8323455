//! What the host knows without the pgmap: which 2 MiB are whose, and what they contain.

use devfolio::{Order, PfnRange};

/// Units of 2 MiB are counted, since no folio of a machine is smaller.
const UNIT: u8 = Order::BLOCK.as_u8();

/// Returns the units of some pages.
pub(super) fn units(range: PfnRange) -> core::ops::Range<usize> {
    let first = (range.start().as_u64() >> UNIT) as usize;
    first..first + (range.nr_pages() >> UNIT) as usize
}

/// Whose a unit is.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) enum Use {
    #[default]
    Free,
    Movable,
    Pinned,
}

/// The pool, unit by unit.
#[derive(Debug)]
pub(super) struct Books {
    uses: Vec<Use>,
    /// The largest folio that a unit is part of; of free ones, nothing.
    orders: Vec<u8>,
    memory: Vec<u64>,
}

impl Books {
    pub(super) fn new(range: PfnRange) -> Self {
        let len = units(range).end;
        Self { uses: vec![Use::Free; len], orders: vec![0; len], memory: vec![0; len] }
    }

    pub(super) fn set(&mut self, range: PfnRange, order: Order, now: Use) {
        self.uses[units(range)].fill(now);
        self.orders[units(range)].fill(order.as_u8());
    }

    /// Returns whether a page of the range is pinned.
    pub(super) fn is_pinned(&self, range: PfnRange) -> bool {
        self.uses[units(range)].contains(&Use::Pinned)
    }

    pub(super) fn used_pages(&self) -> u64 {
        let nr = self.uses.iter().filter(|&&it| it != Use::Free).count() as u64;
        nr << UNIT
    }

    /// Writes the contents of a folio: what they are depends on the machine and the offset in it.
    pub(super) fn write(&mut self, range: PfnRange, machine: u32, offset: u64) {
        for (unit, number) in units(range).zip(0..) {
            self.memory[unit] = stamp(machine, offset + number);
        }
    }

    /// Returns whether the contents of a folio are what was written.
    pub(super) fn reads(&self, range: PfnRange, machine: u32, offset: u64) -> bool {
        units(range)
            .zip(0..)
            .all(|(unit, number)| self.memory[unit] == stamp(machine, offset + number))
    }

    /// Copies contents, and leaves nothing where they were.
    pub(super) fn copy(&mut self, from: PfnRange, to: PfnRange) {
        for (from, to) in units(from).zip(units(to)) {
            self.memory[to] = core::mem::take(&mut self.memory[from]);
        }
    }

    /// Returns what each window of `order` costs that can be emptied, in the order of pages.
    pub(super) fn windows(&self, order: Order) -> Vec<u64> {
        let size = 1 << (order.as_u8() - UNIT);
        let windows = self.uses.chunks_exact(size).zip(self.orders.chunks_exact(size));
        let cost = |(uses, orders): (&[Use], &[u8])| {
            let is_out = uses.contains(&Use::Pinned);
            let is_larger =
                uses.iter().zip(orders).any(|(now, &it)| *now != Use::Free && order.as_u8() < it);
            let nr = uses.iter().filter(|&&it| it == Use::Movable).count() as u64;
            (!is_out && !is_larger).then_some(nr << UNIT)
        };
        windows.filter_map(cost).collect()
    }
}

/// Returns what a unit of a machine contains.
fn stamp(machine: u32, unit: u64) -> u64 {
    (u64::from(machine) << 32 | unit).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1
}
