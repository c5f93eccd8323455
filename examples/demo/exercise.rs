//! What machines do with their memory while they run: share it, pin it for devices, map it,
//! look it up by page, split and merge its folios, and give parts of it back.

use devfolio::{Order, Pfn, PfnRange, PinKind, UniqueFolio};

use super::ledger::{Count, Entry};
use super::owner::Owner;
use super::world::World;

/// How far the exercise may go.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Exercise {
    /// Only the events of the workload.
    Off,
    /// Nothing that changes how much memory a request holds.
    SamePages,
    /// Also giving parts of it back.
    Full,
}

/// The chance that something happens to some request between two events.
const CHANCE: f64 = 0.5;

/// Holders of a kind that one folio gets at most.
const HOLDERS_MAX: usize = 4;

/// Folios of a request beyond which none is split any more.
const PIECES_MAX: usize = 64;

impl<'a> World<'a, '_> {
    /// Lets something happen to a request, or nothing.
    pub(crate) fn exercise(&mut self, exercise: Exercise) {
        if exercise == Exercise::Off || !self.rng.chance(CHANCE) {
            return;
        }
        let place = self.rng.index(self.ledger.open().len());
        let Some(&id) = self.ledger.open().get(place) else { return };
        let index = self.rng.index(self.ledger.entries(id).len());
        let Some(entry) = self.ledger.entry(id, index) else { return };
        if !entry.is_held() {
            // The owner's cache is nobody's business.
            return;
        }
        match self.rng.below(100) {
            0..15 => self.share(id, index),
            15..30 => self.pin(id, index),
            30..45 => self.map(id, index),
            45..60 => self.look_up(id, index, entry),
            60..70 => self.let_go(id, index, entry),
            70..78 => {
                self.unpin_one(id, index, true);
            }
            78..86 => {
                self.unmap_one(id, index, true);
            }
            86..92 => self.split(id, index, exercise),
            92..98 => self.merge(id, index),
            _ if exercise == Exercise::Full => self.give_back(id, index),
            _ => {}
        }
    }

    fn share(&mut self, id: u32, index: usize) {
        let piece = self.piece_mut(id, index);
        if piece.is_some_and(|piece| piece.refs.len() < HOLDERS_MAX)
            && self.get_piece(id, index).is_err()
        {
            self.find(format!("request {id} could not be shared"));
        }
    }

    /// One of several holders lets go; the first one is the request itself.
    fn let_go(&mut self, id: u32, index: usize, entry: Entry) {
        if entry.refs > self.nr_holders(id).max(1) {
            self.put_piece(id, index, true);
        }
    }

    fn pin(&mut self, id: u32, index: usize) {
        let kind = if self.rng.chance(0.5) { PinKind::Short } else { PinKind::Longterm };
        let Some(piece) = self.piece_mut(id, index) else { return };
        let Some(folio) = piece.refs.last().filter(|_| piece.pins.len() < HOLDERS_MAX) else {
            return;
        };
        match folio.pin(kind) {
            Ok(pin) => {
                piece.pins.push(pin);
                self.ledger.add(id, index, Count::Pins(1));
                self.tally.nr_pins += 1;
            }
            Err(error) => self.find(format!("request {id} could not be pinned: {error}")),
        }
    }

    fn map(&mut self, id: u32, index: usize) {
        // As many leaves as a page table of some leaf order takes for the whole folio, up to one
        // for each page of 2 MiB.
        let log2_leaves = self.rng.below(10) as u32;
        let nr_leaves = 1 << log2_leaves;
        let Some(piece) = self.piece_mut(id, index) else { return };
        let Some(folio) = piece.refs.last().filter(|_| piece.maps.len() < HOLDERS_MAX) else {
            return;
        };
        match folio.map(nr_leaves) {
            Ok(map) => {
                piece.maps.push((map, nr_leaves));
                self.ledger.add(id, index, Count::Mappings(nr_leaves));
                self.tally.nr_maps += 1;
            }
            Err(error) => self.find(format!("request {id} could not be mapped: {error}")),
        }
    }

    /// A device or a debugger asks for the folio of some page.
    fn look_up(&mut self, id: u32, index: usize, entry: Entry) {
        let offset = self.rng.below(entry.order.nr_pages());
        let Some(pfn) = entry.head.checked_add(offset) else { return };
        self.tally.nr_lookups += 1;
        self.pgmap.ops().set_caching(true);
        match self.pgmap.try_get(pfn) {
            Ok(folio) if (folio.head(), folio.order()) == (entry.head, entry.order) => {}
            Ok(folio) => self.find(format!("{pfn:?} of {entry:?} led to {folio:?}")),
            Err(error) => {
                self.find(format!("{pfn:?} of request {id}, folio {index}: {error}"));
            }
        }
    }

    /// Takes a folio out of its request, frozen, if the request is its only holder.
    fn freeze(&mut self, id: u32, index: usize) -> Option<UniqueFolio<'a, Owner>> {
        let entry = self.ledger.entry(id, index)?;
        let folio = self.piece_mut(id, index)?.refs.pop()?;
        self.tally.nr_freezes += 1;
        match (folio.try_freeze(), entry.is_sole()) {
            (Ok(unique), true) => {
                self.swap_remove(id, index);
                Some(unique)
            }
            (Ok(unique), false) => {
                self.find(format!("{entry:?} was frozen under its holders"));
                self.take_back(id, unique);
                None
            }
            (Err(busy), is_sole) => {
                self.tally.nr_refusals += 1;
                if let Some(piece) = self.piece_mut(id, index) {
                    piece.refs.push(busy.folio);
                }
                if is_sole {
                    self.find(format!("{entry:?} was not frozen: {:?}", busy.info));
                }
                None
            }
        }
    }

    /// Publishes a folio as one of the request.
    fn take_back(&mut self, id: u32, unique: UniqueFolio<'a, Owner>) {
        self.push(id, unique.publish());
    }

    fn split(&mut self, id: u32, index: usize, exercise: Exercise) {
        let Some(entry) = self.ledger.entry(id, index) else { return };
        let nr_pieces = self.ledger.entries(id).len();
        let lower = entry.order.as_u8().saturating_sub(1 + self.rng.below(3) as u8);
        let Some(lower) = Order::new(lower).filter(|&lower| lower < entry.order) else { return };
        // Below a block each split takes a fracture table; that is left to what is given back.
        if PIECES_MAX < nr_pieces || (lower < Order::BLOCK && exercise == Exercise::SamePages) {
            return;
        }
        let Some(unique) = self.freeze(id, index) else { return };
        match unique.split(lower) {
            Ok(pieces) => {
                self.tally.nr_splits += 1;
                for piece in pieces {
                    self.take_back(id, piece);
                }
            }
            Err(error) => {
                self.tally.nr_refusals += 1;
                self.take_back(id, error.folio);
            }
        }
    }

    /// Puts two halves together, if the request holds both and nobody else does.
    fn merge(&mut self, id: u32, index: usize) {
        let Some(entry) = self.ledger.entry(id, index).filter(Entry::is_sole) else { return };
        let head = entry.head.buddy(entry.order);
        let is_buddy = |other: &Entry| {
            (other.head, other.order) == (head, entry.order)
                && other.is_sole()
                && entry.order < Order::MAX
        };
        if !self.ledger.entries(id).iter().any(is_buddy) {
            return;
        }
        let Some(unique) = self.freeze(id, index) else { return };
        // Taking the first one out may have moved the second one.
        let buddy = self.ledger.entries(id).iter().position(is_buddy);
        let Some(buddy) = buddy.and_then(|buddy| self.freeze(id, buddy)) else {
            self.take_back(id, unique);
            return;
        };
        match unique.merge(buddy) {
            Ok(merged) => {
                self.tally.nr_merges += 1;
                self.take_back(id, merged);
            }
            Err(error) => {
                self.find(format!("buddies at {head:?} did not merge: {error}"));
                self.take_back(id, error.folio);
                self.take_back(id, error.buddy);
            }
        }
    }

    /// Gives a part of a folio back to the pool: what a balloon does.
    fn give_back(&mut self, id: u32, index: usize) {
        let Some(entry) = self.ledger.entry(id, index) else { return };
        let Some(part) = self.draw_part(entry) else { return };
        let Some(unique) = self.freeze(id, index) else { return };
        let result =
            if self.rng.chance(0.5) { unique.release_part(part) } else { unique.trim(part) };
        match result {
            Ok(pieces) => {
                self.tally.nr_returns += 1;
                let nr_before = self.ledger.nr_pages();
                for piece in pieces {
                    self.take_back(id, piece);
                }
                let nr_kept = self.ledger.nr_pages() - nr_before;
                self.tally.nr_returned_pages += entry.order.nr_pages() - nr_kept;
            }
            Err(error) => {
                self.tally.nr_refusals += 1;
                self.take_back(id, error.folio);
            }
        }
    }

    /// Draws a part of a folio: of 2 MiB pages mostly, sometimes of single pages.
    fn draw_part(&mut self, entry: Entry) -> Option<PfnRange> {
        let grain = if self.rng.chance(0.8) { Order::BLOCK } else { Order::ZERO };
        let nr_grains = entry.order.nr_pages() / grain.nr_pages();
        let start = self.rng.below(nr_grains);
        let nr = 1 + self.rng.below(nr_grains.saturating_sub(start));
        // A part that is the whole leaves nothing to keep or nothing to give back.
        if nr_grains <= nr {
            return None;
        }
        let start = Pfn::new(entry.head.as_u64() + start * grain.nr_pages());
        PfnRange::new(start, nr * grain.nr_pages()).ok()
    }
}
