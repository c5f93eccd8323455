//! What should be true: every folio that is out, with its counts, kept in the plainest way.
//!
//! Nothing in here asks the crate for anything but its answers.

use std::collections::HashMap;

use devfolio::{FolioInfo, FolioKind, Order, PageInfo, Pfn, Pgmap};

use super::owner::{HookCalls, Owner};
use super::rng::Rng;

/// One folio.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Entry {
    pub(crate) head: Pfn,
    pub(crate) order: Order,
    pub(crate) refs: u32,
    pub(crate) pins: u32,
    pub(crate) mappings: u32,
}

impl Entry {
    /// A folio that was just published.
    pub(crate) const fn new(head: Pfn, order: Order) -> Self {
        Self { head, order, refs: 1, pins: 0, mappings: 0 }
    }

    /// Whether anybody holds it.
    pub(crate) fn is_held(&self) -> bool {
        self.refs != 0 || self.pins != 0 || self.mappings != 0
    }

    /// Whether exactly one reference holds it.
    pub(crate) fn is_sole(&self) -> bool {
        (self.refs, self.pins, self.mappings) == (1, 0, 0)
    }

    fn matches(&self, info: &FolioInfo) -> bool {
        let kind = if self.is_held() { FolioKind::Live } else { FolioKind::Kept };
        info.head == self.head
            && info.order == self.order
            && info.kind == kind
            && (info.refs, info.pins, info.mappings) == (self.refs, self.pins, self.mappings)
    }
}

/// Which of the counts a step is about.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Count {
    Refs(u32),
    Pins(u32),
    Mappings(u32),
}

/// Which page of a folio a comparison asks about.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Depth {
    /// The first one.
    Heads,
    /// Any one, so that the way from a page to its head is compared, too.
    Tails,
}

/// The folios of one request, in the order in which it holds them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Account {
    pub(crate) entries: Vec<Entry>,
    /// Its place in the list of requests that have folios.
    place: usize,
}

/// The folios of all requests.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// By the number of the request.
    accounts: Vec<Account>,
    /// The requests that have folios.
    open: Vec<u32>,
    nr_pages: u64,
    nr_folios: u64,
    hook_calls: HookCalls,
}

impl Ledger {
    pub(crate) fn new(nr_ids: u32) -> Self {
        Self { accounts: vec![Account::default(); nr_ids as usize], ..Self::default() }
    }

    /// The requests that have folios, in no order.
    pub(crate) fn open(&self) -> &[u32] {
        &self.open
    }

    pub(crate) fn entries(&self, id: u32) -> &[Entry] {
        self.accounts.get(id as usize).map_or(&[], |account| &account.entries)
    }

    pub(crate) fn entry(&self, id: u32, index: usize) -> Option<Entry> {
        self.entries(id).get(index).copied()
    }

    /// The request of each folio, by its head.
    pub(crate) fn owners(&self) -> HashMap<Pfn, u32> {
        let entries = |&id| self.entries(id).iter().map(move |entry| (entry.head, id));
        self.open.iter().flat_map(entries).collect()
    }

    /// The pages of all folios.
    pub(crate) fn nr_pages(&self) -> u64 {
        self.nr_pages
    }

    pub(crate) fn nr_folios(&self) -> u64 {
        self.nr_folios
    }

    /// How often the hook should have run.
    pub(crate) fn hook_calls(&self) -> HookCalls {
        self.hook_calls
    }

    /// A request gets a folio.
    pub(crate) fn push(&mut self, id: u32, entry: Entry) {
        let Some(account) = self.accounts.get_mut(id as usize) else { return };
        if account.entries.is_empty() {
            account.place = self.open.len();
            self.open.push(id);
        }
        account.entries.push(entry);
        self.nr_pages += entry.order.nr_pages();
        self.nr_folios += 1;
    }

    /// A request loses a folio; the last one of the request takes its place.
    pub(crate) fn swap_remove(&mut self, id: u32, index: usize) {
        let Some(account) = self.accounts.get_mut(id as usize) else { return };
        if account.entries.len() <= index {
            return;
        }
        let entry = account.entries.swap_remove(index);
        self.nr_pages -= entry.order.nr_pages();
        self.nr_folios -= 1;
        if !account.entries.is_empty() {
            return;
        }
        let place = account.place;
        account.entries = Vec::new();
        if place < self.open.len() {
            self.open.swap_remove(place);
        }
        let moved = self.open.get(place).copied();
        if let Some(account) = moved.and_then(|id| self.accounts.get_mut(id as usize)) {
            account.place = place;
        }
    }

    /// Somebody takes hold of a folio.
    pub(crate) fn add(&mut self, id: u32, index: usize, count: Count) {
        if let Some(entry) = self.entry_mut(id, index) {
            match count {
                Count::Refs(nr) => entry.refs += nr,
                Count::Pins(nr) => entry.pins += nr,
                Count::Mappings(nr) => entry.mappings += nr,
            }
        }
    }

    /// Somebody lets go of a folio; the last one runs the hook, which keeps it if `is_caching`.
    pub(crate) fn sub(&mut self, id: u32, index: usize, count: Count, is_caching: bool) {
        let Some(entry) = self.entry_mut(id, index) else { return };
        match count {
            Count::Refs(nr) => entry.refs -= nr,
            Count::Pins(nr) => entry.pins -= nr,
            Count::Mappings(nr) => entry.mappings -= nr,
        }
        if !entry.is_held() {
            self.hook_calls.nr_kept += u64::from(is_caching);
            self.hook_calls.nr_released += u64::from(!is_caching);
        }
    }

    fn entry_mut(&mut self, id: u32, index: usize) -> Option<&mut Entry> {
        self.accounts.get_mut(id as usize)?.entries.get_mut(index)
    }

    /// Compares every folio with what the crate says about its head or about one of its pages,
    /// drawn at random.
    ///
    /// # Errors
    ///
    /// Returns the first difference.
    pub(crate) fn compare(
        &self,
        pgmap: &Pgmap<'_, Owner>,
        depth: Depth,
        rng: &mut Rng,
    ) -> Result<(), String> {
        for &id in &self.open {
            for entry in self.entries(id) {
                let offset = match depth {
                    Depth::Heads => 0,
                    Depth::Tails => rng.below(entry.order.nr_pages()),
                };
                let pfn = entry.head.checked_add(offset).unwrap_or(entry.head);
                match pgmap.query(pfn) {
                    PageInfo::Folio(info) if entry.matches(&info) => {}
                    found => {
                        return Err(format!(
                            "request {id} should have {entry:?} at {pfn:?}, but found {found:?}"
                        ));
                    }
                }
            }
        }
        Ok(())
    }

    /// Compares the pages of all folios with those that are not free, and returns the rest.
    ///
    /// # Errors
    ///
    /// Returns the difference.
    pub(crate) fn compare_total(&self, pgmap: &Pgmap<'_, Owner>) -> Result<u64, String> {
        let stats = pgmap.stats();
        if stats.free_pages + self.nr_pages != stats.nr_pages {
            return Err(format!(
                "{} pages are free and {} given out, which are not the {} of the pool",
                stats.free_pages, self.nr_pages, stats.nr_pages
            ));
        }
        Ok(stats.free_pages)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(head: u64) -> Entry {
        Entry::new(Pfn::new(head), Order::ZERO)
    }

    #[test]
    fn the_open_requests_are_those_with_folios() {
        let mut ledger = Ledger::new(3);
        for id in [0, 1, 2, 1] {
            ledger.push(id, entry(u64::from(id)));
        }
        assert_eq!((ledger.nr_pages(), ledger.nr_folios()), (4, 4));
        ledger.swap_remove(0, 0);
        ledger.swap_remove(2, 0);
        assert_eq!(ledger.open(), [1]);
        ledger.swap_remove(1, 1);
        ledger.swap_remove(1, 0);
        ledger.swap_remove(1, 0);
        assert!(ledger.open().is_empty());
        assert_eq!((ledger.nr_pages(), ledger.nr_folios()), (0, 0));
    }

    #[test]
    fn only_the_last_to_let_go_runs_the_hook() {
        let mut ledger = Ledger::new(1);
        ledger.push(0, entry(0));
        ledger.add(0, 0, Count::Mappings(5));
        ledger.sub(0, 0, Count::Refs(1), false);
        assert_eq!(ledger.hook_calls(), HookCalls::default());
        ledger.sub(0, 0, Count::Mappings(5), true);
        assert_eq!(ledger.hook_calls(), HookCalls { nr_kept: 1, nr_released: 0 });
    }
}
