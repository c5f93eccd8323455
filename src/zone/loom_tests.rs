//! Every interleaving of claims, frees, merges and searches, on extents that are as small as the
//! case allows.
//!
//! Each model ends with the index at rest: it is checked, and an order can be had exactly if there
//! is an aligned run of it.

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::index::Contents;
use super::*;
use crate::meta::{Meta, MetaLine, MetaSize, Tables};
use crate::units::{Order, Pfn, PfnRange};

mod hints;
mod line;
mod meta;
mod movers;
mod runs;

/// The metadata of an extent, with the memory that it lies in.
struct World {
    meta: Meta,
    lines: Vec<MetaLine>,
}

impl World {
    /// Lays out an extent whose pages are all free.
    fn new(start: u64, nr_pages: u64, tables: Tables) -> Arc<Self> {
        let world = Self::bare(start, nr_pages, tables, true);
        assert!(world.index().attach(false));
        world
    }

    /// Lays out an extent in memory that is all zero, or only said to hold anything.
    #[expect(unsafe_code, reason = "the memory is kept beside what is made of it")]
    fn bare(start: u64, nr_pages: u64, tables: Tables, is_trusted: bool) -> Arc<Self> {
        let range = PfnRange::new(Pfn::new(start), nr_pages).unwrap();
        let nrlines = MetaSize::of(range, tables).lines();
        let lines: Vec<MetaLine> = (0..nrlines).map(|_| MetaLine::default()).collect();
        // SAFETY: The lines live beside what is made of them, and never move.
        let meta = unsafe { Meta::new(&lines, range, tables, is_trusted) }.unwrap();
        Arc::new(Self { meta, lines })
    }

    fn index(&self) -> Index<'_> {
        Index::new(&self.meta)
    }

    /// Takes a run of `order` on behalf of `cpu`.
    fn claim(&self, order: u8, cpu: usize) -> Result<u64, Miss> {
        let order = Order::new(order).unwrap();
        let Some(want) = Want::inside(self.range(), order, order, false) else {
            return Err(Miss::Exhausted);
        };
        let grant = self.index().claim(&want, Content::Any, cpu, true);
        grant.map(|grant| grant.head.as_u64())
    }

    fn claim_at(&self, head: u64, order: u8) -> Result<(), Miss> {
        self.index().claim_at(Pfn::new(head), Order::new(order).unwrap()).map(|_| ())
    }

    fn free(&self, head: u64, order: u8) {
        self.index().free(Pfn::new(head), Order::new(order).unwrap(), Contents::Dirty);
    }

    fn range(&self) -> PfnRange {
        self.meta.geometry().range()
    }

    /// Checks the index, and that an order can be had exactly if there is a run of it.
    ///
    /// Nobody else is at work any more.
    fn assert_at_rest(&self) {
        loom::stop_exploring();
        self.index().check().unwrap();
        let runs: Vec<PfnRange> = self.index().free_runs(self.range()).collect();
        let largest = runs.iter().flat_map(|run| run.tiles()).map(|(_, order)| order).max();
        if let Some(order) = largest.map_or(Some(Order::ZERO), Order::grow) {
            assert_eq!(self.claim(order.as_u8(), 0), Err(Miss::Exhausted), "{runs:?}");
        }
        if let Some(order) = largest {
            let head = self.claim(order.as_u8(), 0).unwrap();
            self.free(head, order.as_u8());
            self.index().check().unwrap();
        }
        loom::explore();
    }
}
