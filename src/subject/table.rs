//! The table of outstanding handles, all of them raw.

use alloc::vec::Vec;

use crate::folio::{RawFolio, RawMap, RawPin};
use crate::model::Token;
use crate::pgmap::RawUnique;

/// One outstanding handle.
#[derive(Clone, Copy, Debug)]
pub(super) enum Held {
    /// An exclusive folio, and whether it is clean: its raw form does not say.
    Unique(RawUnique, bool),
    /// An exclusive folio in its raw form.
    RawUnique(RawUnique),
    Folio(RawFolio),
    Pin(RawPin),
    Map(RawMap),
    /// A lease or a revocation, by its place in the list of them.
    Lent(usize),
}

/// All of them; a token is an index.
#[derive(Debug, Default)]
pub(super) struct Table(Vec<Option<Held>>);

impl Table {
    pub(super) const fn new() -> Self {
        Self(Vec::new())
    }

    /// Puts a new handle into the lowest free slot.
    pub(super) fn insert(&mut self, held: Held) {
        match self.0.iter_mut().find(|slot| slot.is_none()) {
            Some(slot) => *slot = Some(held),
            None => self.0.push(Some(held)),
        }
    }

    pub(super) fn take(&mut self, token: Token) -> Option<Held> {
        self.0.get_mut(usize::from(token.0))?.take()
    }

    /// Puts a handle back into the slot that it came from.
    pub(super) fn put_back(&mut self, token: Token, held: Held) {
        if let Some(slot) = self.0.get_mut(usize::from(token.0)) {
            *slot = Some(held);
        }
    }

    /// Takes the reference out of the lowest slot that holds one.
    pub(super) fn take_first_folio(&mut self) -> Option<RawFolio> {
        self.0.iter_mut().find_map(|slot| match *slot {
            Some(Held::Folio(raw)) => {
                *slot = None;
                Some(raw)
            }
            _ => None,
        })
    }
}
