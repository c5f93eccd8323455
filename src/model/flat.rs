//! Address spaces without page tables: for each page of addresses, the leaf that maps it.
//!
//! Every rule of a mapping is here in its naive form, over all pages: a plan is the largest leaf
//! that fits, again and again; a count is the number of leaves that are there.

use alloc::vec::Vec;

/// A leaf.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct FlatLeaf {
    /// The first address.
    pub vpn: u64,
    /// The first page.
    pub pfn: u64,
    /// Log2 of the pages.
    pub order: u8,
    /// What it allows: 1 for loads, 2 for stores, 4 for instruction fetches.
    pub rights: u8,
    /// Whether it has been used.
    pub accessed: bool,
    /// Whether there have been stores.
    pub dirty: bool,
}

impl FlatLeaf {
    fn nr_pages(&self) -> u64 {
        1 << self.order
    }

    fn pages(&self) -> impl Iterator<Item = u64> + use<> {
        self.pfn..self.pfn + self.nr_pages()
    }
}

/// An address space.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FlatSpace {
    /// The orders of leaf that there are, ascending from 0.
    pub orders: Vec<u8>,
    /// The leaf behind each address.
    pub pages: Vec<Option<FlatLeaf>>,
}

/// A live folio.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct FlatFolio {
    /// The first page.
    pub head: u64,
    /// Log2 of the pages.
    pub order: u8,
    /// References.
    pub refs: u32,
    /// Pins.
    pub pins: u32,
}

impl FlatFolio {
    fn contains(&self, pfn: u64) -> bool {
        pfn >> self.order == self.head >> self.order
    }
}

/// How large leaves may be.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum FlatLimit {
    /// Up to this order.
    UpTo(u8),
    /// Of this order.
    Exactly(u8),
}

/// Why something was refused.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum FlatRefusal {
    /// A leaf above the order of the folio.
    AboveFolio,
    /// No leaves of that order.
    NoSuchLeaf,
    /// Not aligned to the leaf.
    Misaligned,
    /// Beyond the addresses.
    Outside,
    /// Something is mapped there.
    Occupied,
    /// Old and new addresses overlap.
    Overlap,
    /// More mappings than can be counted.
    Limit,
    /// Nothing is mapped there.
    NotMapped,
    /// The leaf does not allow it.
    Denied,
    /// The page has no owner.
    Foreign,
    /// There is a pin or another reference.
    Held,
}

type Answer<T> = Result<T, FlatRefusal>;

/// Folios and the address spaces that map them.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Flat {
    /// The address spaces.
    pub spaces: Vec<FlatSpace>,
    /// The live folios.
    pub folios: Vec<FlatFolio>,
    /// The limit of mappings of one folio.
    pub mappings_max: u64,
}

impl FlatSpace {
    /// Creates an empty space; bit *n* of `set` is order *n*.
    #[must_use]
    pub fn new(set: u32, nr_pages: usize) -> Self {
        let orders = (0..19).filter(|order| *order == 0 || set >> order & 1 == 1).collect();
        Self { orders, pages: alloc::vec![None; nr_pages] }
    }

    fn size(&self) -> u64 {
        self.pages.len() as u64
    }

    fn at(&self, vpn: u64) -> Option<FlatLeaf> {
        *self.pages.get(usize::try_from(vpn).ok()?)?
    }

    /// Returns the leaves of a range, whole ones.
    #[must_use]
    pub fn leaves(&self, first: u64, nr: u64) -> Vec<FlatLeaf> {
        let mut leaves: Vec<_> = (first..first + nr).filter_map(|vpn| self.at(vpn)).collect();
        leaves.dedup_by_key(|leaf| leaf.vpn);
        leaves
    }

    fn put(&mut self, leaf: FlatLeaf) {
        for vpn in leaf.vpn..leaf.vpn + leaf.nr_pages() {
            self.pages[usize::try_from(vpn).expect("small")] = Some(leaf);
        }
    }

    fn take(&mut self, first: u64, nr: u64) {
        for vpn in first..(first + nr).min(self.size()) {
            self.pages[usize::try_from(vpn).expect("small")] = None;
        }
    }

    /// The largest leaf that fits, again and again.
    fn tile(&self, vpn: u64, pfn: u64, nr: u64, max: u8) -> Vec<(u64, u64, u8)> {
        let mut leaves = Vec::new();
        let mut at = 0;
        while at < nr {
            let fits = |order: &&u8| {
                let size = 1u64 << **order;
                let is_aligned = (vpn + at) % size == 0 && (pfn + at) % size == 0;
                **order <= max && is_aligned && size <= nr - at
            };
            let order = *self.orders.iter().rev().find(fits).expect("order 0 fits");
            leaves.push((vpn + at, pfn + at, order));
            at += 1 << order;
        }
        leaves
    }

    fn split(&mut self, leaf: FlatLeaf, order: u8) {
        for index in 0..1u64 << (leaf.order - order) {
            let offset = index << order;
            self.put(FlatLeaf { vpn: leaf.vpn + offset, pfn: leaf.pfn + offset, order, ..leaf });
        }
    }

    fn cut_at(&mut self, vpn: u64) {
        while let Some(leaf) = self.at(vpn).filter(|leaf| leaf.vpn < vpn) {
            let below = self.orders.iter().rev().find(|order| **order < leaf.order);
            self.split(leaf, *below.expect("order 0 has no middle"));
        }
    }

    fn cut(&mut self, first: u64, nr: u64) {
        self.cut_at(first);
        self.cut_at(first + nr);
    }
}

impl Flat {
    /// Returns the folio with a page.
    #[must_use]
    pub fn folio_of(&self, pfn: u64) -> Option<FlatFolio> {
        self.folios.iter().find(|folio| folio.contains(pfn)).copied()
    }

    /// Returns the number of leaves that map a folio.
    #[must_use]
    pub fn mappings(&self, folio: FlatFolio) -> u64 {
        let leaves = self.spaces.iter().flat_map(|space| space.leaves(0, space.size()));
        leaves.filter(|leaf| folio.contains(leaf.pfn)).count() as u64
    }

    /// Returns the addresses that have a page of a run behind them: (space, address, leaf) each.
    #[must_use]
    pub fn addresses_of(&self, pfn: u64, nr: u64) -> Vec<(usize, u64, FlatLeaf)> {
        let mut found = Vec::new();
        for (index, space) in self.spaces.iter().enumerate() {
            for vpn in 0..space.size() {
                let Some(leaf) = space.at(vpn) else { continue };
                if (pfn..pfn + nr).contains(&(leaf.pfn + (vpn - leaf.vpn))) {
                    found.push((index, vpn, leaf));
                }
            }
        }
        found
    }

    /// Does something wholly or not at all.
    fn attempt<T>(&mut self, act_fn: impl FnOnce(&mut Self) -> Answer<T>) -> Answer<T> {
        let before = self.clone();
        let answer = act_fn(self).and_then(|answer| self.check().map(|()| answer));
        if answer.is_err() {
            *self = before;
        }
        answer
    }

    fn check(&self) -> Answer<()> {
        let is_over = |folio: &&FlatFolio| self.mappings_max < self.mappings(**folio);
        self.folios.iter().find(is_over).map_or(Ok(()), |_| Err(FlatRefusal::Limit))
    }

    /// Removes folios that nobody holds, and returns how many.
    pub fn reap(&mut self) -> u64 {
        let is_held =
            |folio: &FlatFolio| folio.refs + folio.pins != 0 || self.mappings(*folio) != 0;
        let (held, free): (Vec<_>, Vec<_>) = self.folios.iter().copied().partition(is_held);
        self.folios = held;
        free.len() as u64
    }

    /// Maps pages, of the folio around them if there is one; returns the number of leaves.
    ///
    /// # Errors
    ///
    /// Says why not.
    pub fn insert(
        &mut self,
        space: usize,
        (vpn, pfn, nr): (u64, u64, u64),
        limit: FlatLimit,
        rights: u8,
    ) -> Answer<usize> {
        let folio = self.folio_of(pfn).map_or(18, |folio| folio.order);
        self.attempt(|flat| {
            let space = &mut flat.spaces[space];
            let max = match limit {
                FlatLimit::UpTo(max) => max,
                FlatLimit::Exactly(order) => {
                    let size = 1u64 << order;
                    if folio < order {
                        return Err(FlatRefusal::AboveFolio);
                    }
                    if !space.orders.contains(&order) {
                        return Err(FlatRefusal::NoSuchLeaf);
                    }
                    if vpn % size != 0 || pfn % size != 0 || nr % size != 0 {
                        return Err(FlatRefusal::Misaligned);
                    }
                    order
                }
            };
            if space.size() < vpn + nr {
                return Err(FlatRefusal::Outside);
            }
            if !space.leaves(vpn, nr).is_empty() {
                return Err(FlatRefusal::Occupied);
            }
            let leaves = space.tile(vpn, pfn, nr, max.min(folio));
            for &(vpn, pfn, order) in &leaves {
                let (accessed, dirty) = (false, false);
                space.put(FlatLeaf { vpn, pfn, order, rights, accessed, dirty });
            }
            Ok(leaves.len())
        })
    }

    /// Unmaps a range; returns the leaves that are gone.
    ///
    /// # Errors
    ///
    /// Says why not.
    pub fn unmap(&mut self, space: usize, first: u64, nr: u64) -> Answer<Vec<FlatLeaf>> {
        self.attempt(|flat| {
            flat.spaces[space].cut(first, nr);
            // Cutting may take more mappings than there are.
            flat.check()?;
            let gone = flat.spaces[space].leaves(first, nr);
            flat.spaces[space].take(first, nr);
            Ok(gone)
        })
    }

    /// Unmaps pages in all spaces; returns the leaves that are gone.
    ///
    /// # Errors
    ///
    /// Says why not.
    pub fn unmap_pages(&mut self, pfn: u64, nr: u64) -> Answer<Vec<FlatLeaf>> {
        self.attempt(|flat| {
            let mut gone = Vec::new();
            for space in 0..flat.spaces.len() {
                let size = flat.spaces[space].size();
                for leaf in flat.spaces[space].leaves(0, size) {
                    let low = leaf.pfn.max(pfn);
                    let high = (leaf.pfn + leaf.nr_pages()).min(pfn + nr);
                    if low < high {
                        flat.spaces[space].cut(leaf.vpn + (low - leaf.pfn), high - low);
                    }
                }
                flat.check()?;
                for leaf in flat.spaces[space].leaves(0, size) {
                    if leaf.pages().any(|page| (pfn..pfn + nr).contains(&page)) {
                        flat.spaces[space].take(leaf.vpn, leaf.nr_pages());
                        gone.push(leaf);
                    }
                }
            }
            Ok(gone)
        })
    }

    /// Changes what a range allows; returns the number of leaves.
    ///
    /// # Errors
    ///
    /// Says why not.
    pub fn protect(&mut self, space: usize, first: u64, nr: u64, rights: u8) -> Answer<usize> {
        self.attempt(|flat| {
            let space = &mut flat.spaces[space];
            space.cut(first, nr);
            let leaves = space.leaves(first, nr);
            leaves.iter().for_each(|leaf| space.put(FlatLeaf { rights, ..*leaf }));
            Ok(leaves.len())
        })
    }

    /// Splits leaves of a range down to `max`; returns how many.
    ///
    /// # Errors
    ///
    /// Says why not.
    pub fn demote(&mut self, space: usize, first: u64, nr: u64, max: u8) -> Answer<usize> {
        self.attempt(|flat| {
            let space = &mut flat.spaces[space];
            space.cut(first, nr);
            let max = *space.orders.iter().rev().find(|order| **order <= max).expect("order 0");
            let large: Vec<_> =
                space.leaves(first, nr).into_iter().filter(|leaf| max < leaf.order).collect();
            large.iter().for_each(|leaf| space.split(*leaf, max));
            Ok(large.len())
        })
    }

    /// Joins leaves of a range up to `max`; returns how many leaves that made.
    pub fn promote(&mut self, space: usize, first: u64, nr: u64, max: u8) -> usize {
        let orders: Vec<u8> =
            self.spaces[space].orders.iter().copied().filter(|order| *order <= max).collect();
        let mut nr_joined = 0;
        for order in orders {
            let size = 1u64 << order;
            let heads = (first..first + nr).filter(|head| head % size == 0);
            for head in heads.filter(|head| head + size <= first + nr) {
                let leaves = self.spaces[space].leaves(head, size);
                let Some(&low) = leaves.first().filter(|leaf| leaf.vpn == head) else { continue };
                let pages: Vec<_> = leaves.iter().flat_map(FlatLeaf::pages).collect();
                let is_run = pages.iter().copied().eq(low.pfn..low.pfn + size);
                let is_alike = leaves.iter().all(|leaf| leaf.rights == low.rights);
                let is_small = leaves.iter().all(|leaf| leaf.order < order);
                let is_one = (low.pfn..low.pfn + size)
                    .all(|page| self.folio_of(page) == self.folio_of(low.pfn));
                if is_run && is_alike && is_small && is_one && low.pfn % size == 0 {
                    let accessed = leaves.iter().any(|leaf| leaf.accessed);
                    let dirty = leaves.iter().any(|leaf| leaf.dirty);
                    self.spaces[space].put(FlatLeaf { order, accessed, dirty, ..low });
                    nr_joined += 1;
                }
            }
        }
        nr_joined
    }

    /// Moves what a range maps; returns the number of leaves at the new place.
    ///
    /// # Errors
    ///
    /// Says why not.
    pub fn remap(&mut self, space: usize, first: u64, nr: u64, to: u64) -> Answer<usize> {
        self.attempt(|flat| {
            let space = &mut flat.spaces[space];
            if to < first + nr && first < to + nr {
                return Err(FlatRefusal::Overlap);
            }
            if space.size() < to + nr {
                return Err(FlatRefusal::Outside);
            }
            if !space.leaves(to, nr).is_empty() {
                return Err(FlatRefusal::Occupied);
            }
            space.cut(first, nr);
            let old = space.leaves(first, nr);
            space.take(first, nr);
            let mut nr_leaves = 0;
            for leaf in old {
                let vpn = to + (leaf.vpn - first);
                for (vpn, pfn, order) in space.tile(vpn, leaf.pfn, leaf.nr_pages(), leaf.order) {
                    space.put(FlatLeaf { vpn, pfn, order, ..leaf });
                    nr_leaves += 1;
                }
            }
            Ok(nr_leaves)
        })
    }

    /// Maps in `other` what a range of `space` maps; returns the number of leaves there.
    ///
    /// # Errors
    ///
    /// Says why not.
    pub fn duplicate(
        &mut self,
        space: usize,
        other: usize,
        (first, nr): (u64, u64),
        rights: u8,
    ) -> Answer<usize> {
        self.attempt(|flat| {
            if flat.spaces[other].size() < first + nr {
                return Err(FlatRefusal::Outside);
            }
            if !flat.spaces[other].leaves(first, nr).is_empty() {
                return Err(FlatRefusal::Occupied);
            }
            let mut nr_leaves = 0;
            for leaf in flat.spaces[space].leaves(first, nr) {
                let low = leaf.vpn.max(first);
                let high = (leaf.vpn + leaf.nr_pages()).min(first + nr);
                let pfn = leaf.pfn + (low - leaf.vpn);
                let rights = leaf.rights & rights;
                let other = &mut flat.spaces[other];
                for (vpn, pfn, order) in other.tile(low, pfn, high - low, leaf.order) {
                    let (accessed, dirty) = (false, false);
                    other.put(FlatLeaf { vpn, pfn, order, rights, accessed, dirty });
                    nr_leaves += 1;
                }
            }
            Ok(nr_leaves)
        })
    }

    /// Uses an address as a CPU does; returns the page.
    ///
    /// # Errors
    ///
    /// Says why not.
    pub fn touch(&mut self, space: usize, vpn: u64, is_store: bool) -> Answer<u64> {
        let leaf = self.spaces[space].at(vpn).ok_or(FlatRefusal::NotMapped)?;
        let needed = if is_store { 3 } else { 1 };
        if leaf.rights & needed != needed {
            return Err(FlatRefusal::Denied);
        }
        let dirty = leaf.dirty || is_store;
        self.spaces[space].put(FlatLeaf { accessed: true, dirty, ..leaf });
        Ok(leaf.pfn + (vpn - leaf.vpn))
    }

    /// Returns the pages that one lookup of a range finds: the first one and how many.
    ///
    /// # Errors
    ///
    /// Says why not.
    pub fn look(&self, space: usize, first: u64, nr: u64, is_store: bool) -> Answer<(u64, u64)> {
        let needed = if is_store { 3 } else { 1 };
        let page = |vpn: u64| {
            let leaf = self.spaces[space].at(vpn).ok_or(FlatRefusal::NotMapped)?;
            if leaf.rights & needed != needed {
                return Err(FlatRefusal::Denied);
            }
            Ok(leaf.pfn + (vpn - leaf.vpn))
        };
        let pfn = page(first)?;
        let folio = self.folio_of(pfn).ok_or(FlatRefusal::Foreign)?;
        let follows =
            |index: &u64| page(first + index) == Ok(pfn + index) && folio.contains(pfn + index);
        Ok((pfn, (0..nr).take_while(follows).count() as u64))
    }

    /// Unmaps a folio everywhere and makes others of it: (head, order) each.
    ///
    /// # Errors
    ///
    /// Says why not.
    pub fn fracture(&mut self, head: u64, pieces: &[(u64, u8)]) -> Answer<()> {
        let folio = self.folio_of(head).ok_or(FlatRefusal::NotMapped)?;
        if folio.refs != 1 || folio.pins != 0 {
            return Err(FlatRefusal::Held);
        }
        self.unmap_pages(folio.head, 1 << folio.order)?;
        self.folios.retain(|other| other.head != folio.head);
        let piece = |&(head, order): &_| FlatFolio { head, order, refs: 1, pins: 0 };
        self.folios.extend(pieces.iter().map(piece));
        Ok(())
    }
}
