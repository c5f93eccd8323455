//! The owner of a host's memory: writes down what its hooks are told, for the host to compare.

use std::sync::{Mutex, MutexGuard, PoisonError};

use devfolio::{FolioInfo, HookCx, Order, Pfn, PgmapOps, UniqueFolio};

/// What the hooks said since somebody looked.
#[derive(Debug, Default)]
struct Heard {
    freed: Vec<(Pfn, Order)>,
    gone: Vec<FolioInfo>,
    bad: Vec<Pfn>,
    /// One telling will be lost: the mistake that `--break told` makes.
    is_deaf: bool,
}

/// The owner of the memory of one host.
#[derive(Debug, Default)]
pub(super) struct Owner(Mutex<Heard>);

impl Owner {
    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the folios that came back, each with the order that was in force.
    pub(super) fn take_freed(&self) -> Vec<(Pfn, Order)> {
        core::mem::take(&mut self.heard().freed)
    }

    /// Returns the folios in use of which it was said that their device is gone.
    pub(super) fn take_gone(&self) -> Vec<FolioInfo> {
        core::mem::take(&mut self.heard().gone)
    }

    /// Returns the pages that were said to be bad.
    pub(super) fn take_bad(&self) -> Vec<Pfn> {
        core::mem::take(&mut self.heard().bad)
    }

    /// Loses the next telling that a folio's device is gone.
    pub(super) fn be_deaf(&self) {
        self.heard().is_deaf = true;
    }
}

impl PgmapOps for Owner {
    type Private = ();

    fn folio_free<'a>(&'a self, folio: UniqueFolio<'a, Self>, _: &mut HookCx<'a, Self>) {
        self.heard().freed.push((folio.head(), folio.order()));
        folio.release();
    }

    fn page_poisoned(&self, pfn: Pfn, _: Option<FolioInfo>) {
        self.heard().bad.push(pfn);
    }

    fn folio_gone(&self, folio: FolioInfo) {
        let mut heard = self.heard();
        if !core::mem::take(&mut heard.is_deaf) {
            heard.gone.push(folio);
        }
    }
}
