//! What a thread does: the operations of a program on the crate itself.
//!
//! Also part of the fuzz target `sched`, so it names nothing but what is public; whoever declares
//! this module has those names in scope, and says how long a block is.

use std::vec::Vec;

use super::reference::{Op, Piece, Said, Seen};
use super::{
    AllocError, BLOCK, Folio, FolioInfo, FolioKind, FolioMap, FolioPin, Order, PageInfo, Pfn,
    PfnRange, PgmapCore, PgmapOps, PinKind, UniqueFolio,
};

/// An owner whose pages are raced for.
pub(super) trait Touch {
    /// What one of several holders does.
    fn read(&self, pages: PfnRange);

    /// What a holder does who is alone.
    fn write(&self, pages: PfnRange);
}

/// A page of a block that is neither its first nor its last.
const INNER: u64 = 77;

/// What a thread has.
pub(super) struct Hand<'a, O: PgmapOps> {
    refs: Vec<Folio<'a, O>>,
    pins: Vec<FolioPin<'a, O>>,
    maps: Vec<FolioMap<'a, O>>,
    blocks: Vec<UniqueFolio<'a, O>>,
}

/// Writes to a folio that is its caller's alone.
fn write<O: PgmapOps + Touch>(folio: &UniqueFolio<'_, O>) {
    folio.pgmap().ops().write(folio.range());
}

impl<'a, O: PgmapOps + Touch> Hand<'a, O> {
    /// Does one operation; `None` if there is nothing that it could act on.
    pub(super) fn act(&mut self, pgmap: &'a PgmapCore<O>, op: Op) -> Option<Said> {
        match op {
            Op::GetLow => return Some(self.get(pgmap, INNER)),
            Op::GetHigh => return Some(self.get(pgmap, BLOCK + INNER)),
            Op::Alloc => return Some(self.alloc(pgmap)),
            Op::Split => return self.split(),
            Op::Merge => return self.merge(),
            Op::Put => {
                let folio = self.refs.pop()?;
                pgmap.ops().read(folio.range());
                drop(folio);
            }
            Op::Map => self.maps.push(self.refs.last()?.map(1).unwrap()),
            Op::Pin => self.pins.push(self.refs.last()?.pin(PinKind::Short).unwrap()),
            Op::Unmap => {
                let map = self.maps.pop()?;
                pgmap.ops().read(map.range());
                drop(map);
            }
            Op::Unpin => {
                let pin = self.pins.pop()?;
                pgmap.ops().read(pin.range());
                drop(pin);
            }
            Op::Free => {
                let block = self.blocks.pop()?;
                write(&block);
                block.release();
            }
        }
        Some(Said::Done)
    }

    fn get(&mut self, pgmap: &'a PgmapCore<O>, pfn: u64) -> Said {
        let Ok(folio) = pgmap.try_get(Pfn::new(pfn)) else { return Said::Refused };
        pgmap.ops().read(folio.range());
        let piece = piece_of(folio.head(), folio.order());
        self.refs.push(folio);
        Said::Got(piece)
    }

    fn alloc(&mut self, pgmap: &'a PgmapCore<O>) -> Said {
        match pgmap.alloc(Order::BLOCK) {
            Ok(block) => {
                write(&block);
                let head = block.head().as_u64() / BLOCK;
                self.blocks.push(block);
                Said::Block(head)
            }
            Err(AllocError::Exhausted { .. }) => Said::Exhausted,
            Err(AllocError::Contended { .. }) => Said::Refused,
            Err(error) => panic!("{error}"),
        }
    }

    fn split(&mut self) -> Option<Said> {
        self.refs.last().filter(|folio| folio.order() != Order::BLOCK)?;
        let folio = self.refs.pop()?;
        match folio.try_freeze() {
            Ok(folio) => {
                write(&folio);
                let pieces = folio.split(Order::BLOCK).unwrap();
                self.refs.extend(pieces.map(UniqueFolio::publish));
                Some(Said::Done)
            }
            Err(busy) => {
                self.refs.push(busy.folio);
                Some(Said::Refused)
            }
        }
    }

    fn merge(&mut self) -> Option<Said> {
        let place = |head| {
            let is_half = |folio: &Folio<'_, _>| {
                folio.order() == Order::BLOCK && folio.head() == Pfn::new(head)
            };
            self.refs.iter().position(is_half)
        };
        let places = (place(0)?, place(BLOCK)?);
        let is_low_first = places.0 < places.1;
        let (first, second) = (places.0.min(places.1), places.0.max(places.1));
        let mut halves = (self.refs.remove(second), self.refs.remove(first));
        if is_low_first {
            halves = (halves.1, halves.0);
        }
        let (low, high) = match halves.0.try_freeze() {
            Ok(low) => match halves.1.try_freeze() {
                Ok(high) => {
                    write(&low);
                    write(&high);
                    self.refs.push(low.merge(high).unwrap().publish());
                    return Some(Said::Done);
                }
                Err(busy) => (low.publish(), busy.folio),
            },
            Err(busy) => (busy.folio, halves.1),
        };
        let (a, b) = if is_low_first { (low, high) } else { (high, low) };
        self.refs.insert(first, a);
        self.refs.insert(second, b);
        Some(Said::Refused)
    }
}

fn piece_of(head: Pfn, order: Order) -> Piece {
    Piece { head: head.as_u64() / BLOCK, blocks: order.nr_pages() / BLOCK }
}

/// Returns what a block is part of.
pub(super) fn seen<O: PgmapOps>(pgmap: &PgmapCore<O>, block: u64) -> Seen {
    match pgmap.query(Pfn::new(block * BLOCK + INNER)) {
        PageInfo::Free => Seen::Free,
        PageInfo::Folio(FolioInfo { kind: FolioKind::Unique, .. }) => Seen::Held,
        PageInfo::Folio(info @ FolioInfo { kind: FolioKind::Live, .. }) => {
            Seen::Live(piece_of(info.head, info.order), [info.refs, info.pins, info.mappings])
        }
        info => panic!("{info:?}"),
    }
}

/// Gives all threads what they begin with.
pub(super) fn hands<'a, O: PgmapOps + Touch>(
    pgmap: &'a PgmapCore<O>,
    start: &[&[Piece]],
) -> Vec<Hand<'a, O>> {
    let folio = pgmap.alloc(Order::new(10).unwrap()).unwrap();
    let order = if start.concat().contains(&Piece::WHOLE) { folio.order() } else { Order::BLOCK };
    let folios: Vec<_> = folio.split(order).unwrap().map(UniqueFolio::publish).collect();
    let is_at = |folio: &Folio<'_, O>, piece| piece_of(folio.head(), folio.order()) == piece;
    let find = |piece| folios.iter().find(|folio| is_at(folio, piece)).unwrap();
    let give = |pieces: &&[Piece]| {
        let refs = pieces.iter().map(|&piece| find(piece).try_clone().unwrap()).collect();
        Hand { refs, pins: Vec::new(), maps: Vec::new(), blocks: Vec::new() }
    };
    start.iter().map(give).collect()
}
