//! The specification as a subject: it answers as it judges, taking the first place that fits.
//!
//! It is the yardstick's own yardstick: histories run against it without any implementation, and a
//! fault put into its answers has to be found.

use alloc::string::String;
use alloc::vec::Vec;

use super::geometry::Geometry;
use super::op::Op;
use super::outcome::{ExtentView, FolioView, HookEvent, Outcome, PageView, Totals};
use super::spec::Spec;
use super::subject::{Caps, Limits, Subject};
use crate::units::{Pfn, PfnRange};

/// A subject that cannot be wrong, except where the specification is.
#[derive(Clone, Debug)]
pub struct Reference {
    spec: Spec,
    limits: Limits,
    log: Vec<HookEvent>,
}

impl Reference {
    /// Creates the subject for a world.
    #[must_use]
    pub fn new(geometry: &Geometry, limits: Limits) -> Self {
        Self { spec: Spec::new(geometry, limits), limits, log: Vec::new() }
    }
}

impl Subject for Reference {
    fn caps(&self) -> Caps {
        Caps::all(self.limits)
    }

    fn apply(&mut self, op: &Op) -> Outcome {
        let (outcome, events) = self.spec.play(op);
        self.log.extend(events);
        outcome
    }

    fn hook_log(&mut self, log: &mut Vec<HookEvent>) {
        log.append(&mut self.log);
    }

    fn page(&self, pfn: Pfn) -> PageView {
        self.spec.page(pfn)
    }

    fn folios(&self, list: &mut Vec<FolioView>) -> bool {
        list.extend(self.spec.folios());
        true
    }

    fn free_runs(&self, list: &mut Vec<PfnRange>) -> bool {
        list.extend(self.spec.free_ranges());
        true
    }

    fn extents(&self, list: &mut Vec<ExtentView>) -> bool {
        list.extend(self.spec.extent_views());
        true
    }

    fn totals(&self) -> Option<Totals> {
        Some(self.spec.totals())
    }

    fn image(&self, words: &mut Vec<u64>) {
        for folio in self.spec.folios() {
            let counts = [folio.refs, folio.pins, folio.maps, u32::from(folio.closed)];
            words.push(folio.head.as_u64());
            words.push(folio.order.as_u8().into());
            words.extend(counts.map(u64::from));
        }
        words.extend(self.spec.extent_views().iter().map(|extent| extent.life as u64));
        words.push(self.spec.totals().clean_pages);
    }

    fn check(&self) -> Result<(), String> {
        self.spec.audit()
    }
}
