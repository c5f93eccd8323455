//! The state word: the whole truth of a folio in 64 bits.
//!
//! ```text
//!  63      49 48      33 32         10   9        8      7..3    2..0
//! +----------+----------+-------------+--------+--------+-------+------+
//! |   refs   |   pins   |  mappings   | closed | waiter | order | kind |
//! +----------+----------+-------------+--------+--------+-------+------+
//! ```
//!
//! All zero means that no folio starts here. References are the top-most field: neither a carry
//! nor a borrow out of them can reach a neighbour. In a condemned folio the three counts are zero
//! by definition, and their place holds the link to the next one that waits for the reaper.
//!
//! # Synchronization
//!
//! | edge | release half | acquire half | what it carries |
//! |------|--------------|--------------|-----------------|
//! | `publish` | [`Word::publish`], [`Word::restore`], [`Word::park`] | [`Word::add`], [`Word::revive`], [`Word::claim`] | the set-up of a folio happens before anybody finds it by its page |
//! | `use-before-free` | every decrement, [`Word::try_freeze`] | the last decrement, [`Word::try_freeze`] | all uses of a folio happen before its owner has it alone |
//!
//! Whoever holds a folio alone (`Unique`) writes its word with plain stores. That is sound because
//! every read-modify-write that others may attempt succeeds only on a `Live`, `Kept` or `Retired`
//! word.

use core::fmt;

pub(crate) use outcome::{Dropped, Frozen, Gate, Refused, Underflow};
pub(crate) use restore::Counts;

use crate::sync::{AtomicU64, Ordering};
use crate::units::Order;

mod flags;
#[cfg(all(test, loom))]
mod loom_tests;
mod outcome;
mod restore;
mod show;
#[cfg(all(test, not(loom)))]
mod tests;

const KIND_BITS: u32 = 3;
const ORDER_SHIFT: u32 = KIND_BITS;
const ORDER_BITS: u32 = 5;
const WAITER: u64 = 1 << 8;
const CLOSED: u64 = 1 << 9;
const MAPS_SHIFT: u32 = 10;
const MAPS_BITS: u32 = 23;
const PINS_SHIFT: u32 = 33;
const PINS_BITS: u32 = 16;
const REFS_SHIFT: u32 = 49;
const REFS_BITS: u32 = 15;
/// The three counts, or the link of a condemned folio.
const COUNTS: u64 = !((1 << MAPS_SHIFT) - 1);

/// The bits of a link of [`Word::condemn`].
pub(crate) const LINK_BITS: u32 = 64 - MAPS_SHIFT;

const _: () = {
    assert!(ORDER_SHIFT + ORDER_BITS == 8);
    assert!(MAPS_SHIFT + MAPS_BITS == PINS_SHIFT);
    assert!(PINS_SHIFT + PINS_BITS == REFS_SHIFT);
    assert!(REFS_SHIFT + REFS_BITS == 64);
    assert!((Order::MAX.as_u8() as u32) < (1 << ORDER_BITS));
};

/// What a head word says about its folio.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    /// No folio starts here.
    None,
    /// Held by exactly one owner; all counts are zero.
    Unique,
    /// Idle, parked with its owner.
    Kept,
    /// Counted; everybody may find it.
    Live,
    /// In quarantine.
    Retired,
    /// Its last count is gone, its hook has yet to run.
    Condemned,
    /// In quarantine for a page that is bad; has no owner data.
    Poisoned,
    /// Given back to the device; has no owner data.
    Offline,
    /// No transition writes this: the metadata is corrupt.
    Undefined,
}

impl Kind {
    /// Returns the bits of a kind; of what is undefined nothing is made.
    const fn bits(self) -> u64 {
        self as u64 & ((1 << KIND_BITS) - 1)
    }

    const fn from_bits(bits: u64) -> Self {
        match bits & ((1 << KIND_BITS) - 1) {
            0 => Self::None,
            1 => Self::Unique,
            2 => Self::Kept,
            3 => Self::Live,
            4 => Self::Retired,
            5 => Self::Condemned,
            6 => Self::Poisoned,
            _ => Self::Offline,
        }
    }
}

/// One of the three disjoint counts of a live folio.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Count {
    /// References: handles and speculative gets.
    Refs,
    /// Pins: promises that the pages stay where they are.
    Pins,
    /// Mappings: leaves in page tables.
    Mappings,
}

impl Count {
    const fn shift(self) -> u32 {
        match self {
            Self::Refs => REFS_SHIFT,
            Self::Pins => PINS_SHIFT,
            Self::Mappings => MAPS_SHIFT,
        }
    }

    /// Returns the largest value that this count ever reaches.
    ///
    /// The limit of the references leaves a guard band below the end of their field, wider than
    /// the CPUs that may be in the middle of a clone.
    #[must_use]
    pub const fn max(self) -> u32 {
        let narrow = cfg!(narrow);
        match self {
            Self::Refs if narrow => 6,
            Self::Pins if narrow => 5,
            Self::Mappings if narrow => 7,
            Self::Refs => 1 << 14,
            Self::Pins => (1 << PINS_BITS) - 1,
            Self::Mappings => (1 << MAPS_BITS) - 1,
        }
    }

    const fn one(self) -> u64 {
        1 << self.shift()
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Refs => "references",
            Self::Pins => "pins",
            Self::Mappings => "mappings",
        })
    }
}

/// A value that a state word had at some instant.
#[derive(Clone, Copy, Eq, PartialEq)]
pub(crate) struct Bits(u64);

impl Bits {
    pub(crate) const fn raw(self) -> u64 {
        self.0
    }

    const fn new(kind: Kind, order: Order) -> Self {
        Self(kind.bits() | ((order.as_u8() as u64) << ORDER_SHIFT))
    }

    /// Returns the kind, or [`Kind::Undefined`] for an order that no folio has.
    pub(crate) const fn kind(self) -> Kind {
        if self.raw_order() > Order::MAX.as_u8() {
            Kind::Undefined
        } else {
            Kind::from_bits(self.0)
        }
    }

    const fn raw_order(self) -> u8 {
        ((self.0 >> ORDER_SHIFT) & ((1 << ORDER_BITS) - 1)) as u8
    }

    pub(crate) const fn order(self) -> Order {
        match Order::new(self.raw_order()) {
            Some(order) => order,
            None => Order::MAX,
        }
    }

    pub(crate) const fn is_folio(self) -> bool {
        !matches!(self.kind(), Kind::None | Kind::Undefined)
    }

    #[expect(
        clippy::arithmetic_side_effects,
        clippy::cast_possible_truncation,
        reason = "no field is wider than 23 bits"
    )]
    const fn field(self, shift: u32, bits: u32) -> u32 {
        ((self.0 >> shift) & ((1 << bits) - 1)) as u32
    }

    pub(crate) const fn count(self, count: Count) -> u32 {
        match count {
            Count::Refs => self.field(REFS_SHIFT, REFS_BITS),
            Count::Pins => self.field(PINS_SHIFT, PINS_BITS),
            Count::Mappings => self.field(MAPS_SHIFT, MAPS_BITS),
        }
    }

    pub(crate) const fn is_closed(self) -> bool {
        self.0 & CLOSED != 0
    }

    pub(crate) const fn has_waiter(self) -> bool {
        self.0 & WAITER != 0
    }

    /// Returns whether the folio is live and somebody holds a count: what a get demands.
    ///
    /// A live word without counts is already dead to everybody but the one who brought it there.
    pub(crate) const fn is_held(self) -> bool {
        matches!(self.kind(), Kind::Live) && self.0 & COUNTS != 0
    }

    /// Returns the link of a condemned folio.
    pub(crate) const fn link(self) -> u64 {
        self.0 >> MAPS_SHIFT
    }

    /// Returns whether every field without a meaning in this state is zero.
    pub(crate) const fn is_canonical(self) -> bool {
        match self.kind() {
            Kind::None => self.0 == 0,
            Kind::Unique | Kind::Kept | Kind::Retired | Kind::Poisoned | Kind::Offline => {
                self.0 & (COUNTS | WAITER | CLOSED) == 0
            }
            Kind::Live => {
                self.0 & COUNTS != 0
                    && self.count(Count::Refs) <= Count::Refs.max()
                    && self.count(Count::Pins) <= Count::Pins.max()
                    && self.count(Count::Mappings) <= Count::Mappings.max()
            }
            Kind::Condemned => self.0 & CLOSED == 0,
            Kind::Undefined => false,
        }
    }
}

/// The state word of one head.
#[derive(Clone, Copy)]
pub(crate) struct Word<'a>(&'a AtomicU64);

impl fmt::Debug for Word<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.read().fmt(f)
    }
}

impl<'a> Word<'a> {
    pub(crate) const fn new(cell: &'a AtomicU64) -> Self {
        Self(cell)
    }

    /// Returns the present value; stale as soon as it is returned, unless the caller is unique.
    pub(crate) fn read(self) -> Bits {
        // ORDERING: Relaxed. A value read here decides nothing by itself: every transition
        // compares the whole word again.
        Bits(self.0.load(Ordering::Relaxed))
    }

    fn write(self, bits: Bits) {
        // ORDERING(use-before-free): Release half, for who waits for the counts of a range, and has
        // none: the word is held alone, and shows that they are gone.
        self.0.store(bits.0, Ordering::Release);
    }

    // Transitions of an exclusive holder.

    /// A folio of `order` is born here, held alone.
    pub(crate) fn begin(self, order: Order) {
        debug_intact!(self.read().raw() == 0, "a folio is born on a word in use");
        self.write(Bits::new(Kind::Unique, order));
    }

    /// The folio here is gone; its pages go elsewhere.
    pub(crate) fn end(self) {
        debug_intact!(self.read().kind() == Kind::Unique, "only a unique folio dissolves");
        if seeded!(RebirthKeepsWord) {
            return;
        }
        self.write(Bits(0));
    }

    /// The unique folio here has another order from now on.
    pub(crate) fn reshape(self, order: Order) {
        debug_intact!(self.read().kind() == Kind::Unique, "only a unique folio changes shape");
        self.write(Bits::new(Kind::Unique, order));
    }

    /// The unique folio becomes live with `refs` references.
    pub(crate) fn publish(self, refs: u32) {
        let bits = self.read();
        debug_intact!(bits.kind() == Kind::Unique, "only a unique folio is published");
        debug_assert!((1..=Count::Refs.max()).contains(&refs));
        let refs = refs.wrapping_add(u32::from(seeded!(UnfreezeWrongCount)));
        let live = Bits::new(Kind::Live, bits.order()).0 | (u64::from(refs) << REFS_SHIFT);
        self.go_live(Bits(live));
    }

    fn go_live(self, live: Bits) {
        if seeded!(PublishRelaxed) {
            // ORDERING: Relaxed, which is the fault.
            return self.0.store(live.0, Ordering::Relaxed);
        }
        // ORDERING(publish): Release half. The word is held alone, so a store is enough.
        self.0.store(live.0, Ordering::Release);
    }

    /// The unique folio is parked: with its owner, or in quarantine.
    pub(crate) fn park(self, kind: Kind) {
        debug_assert!(!matches!(kind, Kind::None | Kind::Unique | Kind::Live | Kind::Condemned));
        let bits = self.read();
        debug_intact!(bits.kind() == Kind::Unique, "only a unique folio is parked");
        // ORDERING(publish): Release half; whoever brings the folio back sees what was done.
        self.0.store(Bits::new(kind, bits.order()).0, Ordering::Release);
    }

    /// The unique folio waits for its hook, in front of `link`; `wake` is remembered.
    ///
    /// The list carries the ordering.
    pub(crate) fn condemn(self, link: u64, wake: bool) {
        debug_assert!(link >> LINK_BITS == 0);
        let waiter = if wake { WAITER } else { 0 };
        let order = self.read().order();
        self.write(Bits(Bits::new(Kind::Condemned, order).0 | (link << MAPS_SHIFT) | waiter));
    }

    /// The condemned folio is unique again; returns what was condemned.
    pub(crate) fn absolve(self) -> Bits {
        let bits = self.read();
        debug_intact!(bits.kind() == Kind::Condemned, "only a condemned folio is absolved");
        self.write(Bits::new(Kind::Unique, bits.order()));
        bits
    }

    // Transitions that race.

    /// Takes a parked folio of `kind` over; returns its order, or what was there instead.
    pub(crate) fn claim(self, kind: Kind) -> Result<Order, Bits> {
        self.leave(kind, |order| Bits::new(Kind::Unique, order))
    }

    /// Takes a parked folio of exactly this kind and order over; false if something else is there.
    pub(crate) fn claim_exactly(self, kind: Kind, order: Order) -> bool {
        let (parked, unique) = (Bits::new(kind, order).0, Bits::new(Kind::Unique, order).0);
        // ORDERING(publish): Acquire half.
        let taken = self.0.compare_exchange(parked, unique, Ordering::Acquire, Ordering::Relaxed);
        taken.is_ok()
    }

    /// The kept folio is live again, with one reference.
    pub(crate) fn revive(self) -> Result<Order, Bits> {
        self.leave(Kind::Kept, |order| Bits(Bits::new(Kind::Live, order).0 | Count::Refs.one()))
    }

    fn leave(self, kind: Kind, next_fn: impl Fn(Order) -> Bits) -> Result<Order, Bits> {
        let bits = self.read();
        if bits.kind() != kind {
            return Err(bits);
        }
        // One attempt is enough: nobody but another taker changes a parked word.
        // ORDERING(publish): Acquire half. A revival continues the release sequence of the park.
        match self.0.compare_exchange(
            bits.0,
            next_fn(bits.order()).0,
            Ordering::Acquire,
            Ordering::Relaxed,
        ) {
            Ok(_) => Ok(bits.order()),
            Err(now) => Err(Bits(now)),
        }
    }

    /// Adds `nr` counts of one kind to a live folio.
    ///
    /// `covers_fn` judges the very value that is about to be exchanged, so success proves that the
    /// folio covered what the caller asked for. Returns the value before.
    pub(crate) fn add(
        self,
        count: Count,
        nr: u32,
        gate: Gate,
        covers_fn: impl Fn(Order) -> bool,
    ) -> Result<Bits, Refused> {
        let mut bits = self.read();
        // Ends: a turn is repeated only when another transition succeeded, or by chance.
        loop {
            let is_held = bits.is_held()
                || seeded!(GetNotLive) && bits.is_folio()
                || seeded!(GetFromZero) && bits.kind() == Kind::Live;
            if !is_held || !covers_fn(bits.order()) {
                return Err(Refused::NotLive);
            }
            if bits.is_closed() && gate == Gate::Newcomer {
                if seeded!(RefusedGetLeaks) {
                    let _ = self.get();
                }
                return Err(Refused::Closed);
            }
            let have = bits.count(count);
            match have.checked_add(nr) {
                Some(sum) if sum <= count.max() => {}
                Some(sum) if seeded!(LimitOffByOne) && sum == count.max().wrapping_add(1) => {}
                _ => return Err(Refused::Limit { have }),
            }
            let next = bits.0.wrapping_add(u64::from(nr) << count.shift());
            // ORDERING(publish): Acquire half. What is written here continues the release sequence
            // of the publish, so whoever reads it is ordered after the set-up, too.
            match self.0.compare_exchange_weak(bits.0, next, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return Ok(bits),
                Err(now) => bits = Bits(now),
            }
        }
    }

    /// Drops `nr` counts of one kind, checked.
    pub(crate) fn sub(self, count: Count, nr: u32) -> Result<Dropped, Underflow> {
        let mut bits = self.read();
        // Ends: a turn is repeated only when another transition succeeded, or by chance.
        loop {
            if !bits.is_held() {
                return Err(Underflow::NotLive);
            }
            let have = bits.count(count);
            let is_borrowed = seeded!(PutOnMappings) && nr <= bits.count(Count::Mappings);
            if have < nr && !is_borrowed {
                return Err(Underflow::TooFew { have });
            }
            let wake = bits.has_waiter();
            let from = if have < nr { Count::Mappings } else { count };
            let left = Bits(bits.0.wrapping_sub(u64::from(nr) << from.shift()) & !WAITER);
            let left = if seeded!(UnmapForgetsOne) && count == Count::Mappings && have == 1 {
                bits
            } else {
                left
            };
            let is_early = seeded!(HookBeforeUnmap)
                && left.count(Count::Refs) == 0
                && left.count(Count::Pins) == 0;
            let (next, dropped) = if left.0 & COUNTS == 0 || is_early {
                let order = bits.order();
                (Bits::new(Kind::Unique, order), Dropped::Last { order, wake })
            } else {
                (left, Dropped::StillHeld { wake })
            };
            // ORDERING(use-before-free): Release half for every decrement, Acquire half for the
            // one that finds itself the last.
            match self.0.compare_exchange_weak(bits.0, next.0, Ordering::AcqRel, Ordering::Relaxed)
            {
                Ok(_) => return Ok(dropped),
                Err(now) => bits = Bits(now),
            }
        }
    }

    /// Adds one reference on behalf of a holder, in one step; returns the count at the limit.
    #[inline]
    pub(crate) fn get(self) -> Result<(), u32> {
        // ORDERING: Relaxed. The holder's own count keeps the folio alive, as in `Arc::clone`.
        let old = Bits(self.0.fetch_add(Count::Refs.one(), Ordering::Relaxed));
        debug_intact!(old.is_held(), "a counted handle to a folio without counts: {old:?}");
        let have = old.count(Count::Refs);
        if have < Count::Refs.max() {
            return Ok(());
        }
        // ORDERING: Relaxed. The holder's own count remains, so this is never the last one. The
        // guard band keeps a carry away from the end of the word meanwhile.
        self.0.fetch_sub(Count::Refs.one(), Ordering::Relaxed);
        Err(have)
    }

    /// Drops one reference on behalf of a safe handle, in one step.
    ///
    /// The handle is the proof that there is a reference to drop.
    #[inline]
    pub(crate) fn put(self) -> Dropped {
        let old = if seeded!(PutRelaxed) {
            // ORDERING: Relaxed, which is the fault.
            Bits(self.0.fetch_sub(Count::Refs.one(), Ordering::Relaxed))
        } else {
            // ORDERING(use-before-free): Release half for everyone, Acquire half for the last one.
            Bits(self.0.fetch_sub(Count::Refs.one(), Ordering::AcqRel))
        };
        debug_intact!(old.count(Count::Refs) != 0, "put of a reference that nobody held: {old:?}");
        let wake = old.has_waiter();
        if old.0 & COUNTS == Count::Refs.one() {
            let order = old.order();
            self.write(Bits::new(Kind::Unique, order));
            return Dropped::Last { order, wake };
        }
        Dropped::StillHeld { wake: wake && (seeded!(WaiterClearedLate) || self.clear_waiter()) }
    }

    /// Clears the waiter flag of a folio that is still held; true if this call did it.
    ///
    /// A folio that is no longer held took its flag along: whoever dropped the last count wakes.
    #[cold]
    pub(crate) fn clear_waiter(self) -> bool {
        let mut bits = self.read();
        // Ends: a turn is repeated only when another transition succeeded, or by chance.
        while bits.is_held() && bits.has_waiter() {
            // ORDERING: Relaxed. The wake-up follows; what it announces is in the word itself.
            match self.0.compare_exchange_weak(
                bits.0,
                bits.0 & !WAITER,
                Ordering::Relaxed,
                Ordering::Relaxed,
            ) {
                Ok(_) => return true,
                Err(now) => bits = Bits(now),
            }
        }
        false
    }

    /// Makes the folio unique if exactly `refs` references and nothing else hold it.
    pub(crate) fn try_freeze(self, refs: u32) -> Result<Frozen, Bits> {
        let mut bits = self.read();
        // No folio has more references, and the shift below would lose the excess.
        if Count::Refs.max() < refs {
            return Err(bits);
        }
        // Ends: a turn is repeated only when another transition succeeded, or by chance.
        loop {
            let expected = u64::from(refs) << REFS_SHIFT;
            let is_left = seeded!(FreezeLeavesHandle) && expected <= bits.0 & COUNTS;
            if !bits.is_held() || bits.0 & COUNTS != expected && !is_left {
                return Err(bits);
            }
            let (order, wake) = (bits.order(), bits.has_waiter());
            let next = Bits::new(Kind::Unique, order);
            let (is_stored, is_left_to_split) =
                (seeded!(FreezeByStore), seeded!(SplitChecksThenWrites));
            if is_stored {
                self.write(next);
            }
            if is_stored || is_left_to_split {
                return Ok(Frozen { order, wake });
            }
            // ORDERING(use-before-free): both halves; a freeze is the last put of its holders, and
            // whoever waits without a count sees that it took place.
            let both = if seeded!(FreezeUnreleased) { Ordering::Acquire } else { Ordering::AcqRel };
            match self.0.compare_exchange_weak(bits.0, next.0, both, Ordering::Relaxed) {
                Ok(_) => return Ok(Frozen { order, wake }),
                Err(now) => bits = Bits(now),
            }
        }
    }
}
