//! The steps of a history of mappings.

use super::*;
use crate::folio::{CountError, PinKind};
use crate::model::FlatLimit;

/// The spaces of a history, each over all of its addresses.
pub(super) struct Everywhere<'a, 'd>(pub(super) &'a mut [Space<'d>]);

impl Mappers for Everywhere<'_, '_> {
    fn for_each(
        &mut self,
        _: PfnRange,
        visit_fn: &mut dyn FnMut(&mut dyn Unmap, VpnRange) -> Result<(), CutError>,
    ) -> Result<(), CutError> {
        self.0.iter_mut().try_for_each(|space| {
            let all = space.table().addresses();
            visit_fn(space, all)
        })
    }
}

fn count_refusal(error: CountError) -> Option<FlatRefusal> {
    matches!(error, CountError::Limit { .. }).then_some(FlatRefusal::Limit)
}

fn cut_refusal(error: &CutError) -> Option<FlatRefusal> {
    match error {
        CutError::Count(error) => count_refusal(*error),
        CutError::NoTable(_) => None,
    }
}

fn move_refusal(error: &MoveError) -> Option<FlatRefusal> {
    match error {
        MoveError::Overlap { .. } => Some(FlatRefusal::Overlap),
        MoveError::OutsideTable { .. } => Some(FlatRefusal::Outside),
        MoveError::Occupied { .. } => Some(FlatRefusal::Occupied),
        MoveError::Count(error) => count_refusal(*error),
        _ => None,
    }
}

fn insert_refusal(error: &InsertError) -> Option<FlatRefusal> {
    match error {
        InsertError::Plan(PlanError::AboveFolio { .. }) => Some(FlatRefusal::AboveFolio),
        InsertError::Plan(PlanError::NoSuchLeaf { .. }) => Some(FlatRefusal::NoSuchLeaf),
        InsertError::Plan(PlanError::Misaligned { .. }) => Some(FlatRefusal::Misaligned),
        InsertError::OutsideTable { .. } => Some(FlatRefusal::Outside),
        InsertError::Occupied { .. } => Some(FlatRefusal::Occupied),
        InsertError::Count(error) => count_refusal(*error),
        _ => None,
    }
}

/// What unmapping leaves comes to.
fn totals(gone: &[FlatLeaf]) -> Unmapped {
    let nr_pages = |leaf: &FlatLeaf| 1u64 << leaf.order;
    Unmapped {
        nr_leaves: gone.len() as u64,
        nr_pages: gone.iter().map(nr_pages).sum(),
        nr_dirty_pages: gone.iter().filter(|leaf| leaf.dirty).map(nr_pages).sum(),
    }
}

impl World<'_> {
    pub(super) fn step(&mut self, bytes: &mut Bytes<'_>) -> Check {
        let space = bytes.index(self.spaces.len());
        match bytes.below(18) {
            0 | 1 => self.alloc(bytes),
            2 => self.drop_handle(bytes),
            3..=5 => self.insert(bytes, space),
            6 => self.insert_foreign(bytes, space),
            7 => self.unmap(bytes, space),
            8 => self.zap(bytes, space),
            9 => self.protect(bytes, space),
            10 => self.demote(bytes, space),
            11 => self.promote(bytes, space),
            12 => self.remap(bytes, space),
            13 => self.duplicate(bytes, space),
            14 => self.touch(bytes, space),
            15 => self.look(bytes, space),
            16 => self.unmap_pages(bytes),
            _ => self.fracture(bytes),
        }
    }

    fn alloc(&mut self, bytes: &mut Bytes<'_>) -> Check {
        let owner = if bytes.below(4) == 0 { self.second } else { self.first };
        let order = order(u8::try_from(bytes.below(u64::from(self.order_max) + 1)).unwrap_or(0));
        let Ok(folio) = owner.alloc(order) else { return Ok(()) };
        let folio = folio.publish();
        let head = folio.head();
        let Lookup::Folio(handle) = self.directory.try_get(head) else {
            return Err(format!("folio {head} is not found"));
        };
        self.handles.push(handle);
        let head = head.as_u64();
        self.flat.folios.push(FlatFolio { head, order: order.as_u8(), refs: 1, pins: 0 });
        Ok(())
    }

    fn refs(&mut self, head: u64) -> &mut FlatFolio {
        let folio = self.flat.folios.iter_mut().find(|folio| folio.head == head);
        folio.unwrap_or_else(|| unreachable!("no folio at {head:#x}"))
    }

    fn drop_handle(&mut self, bytes: &mut Bytes<'_>) -> Check {
        if bytes.below(2) == 0 && !self.holds.is_empty() {
            let (head, hold) = self.holds.swap_remove(bytes.index(self.holds.len()));
            match hold {
                GupHold::Reference(_) => self.refs(head).refs -= 1,
                GupHold::Pin(_) => self.refs(head).pins -= 1,
            }
        } else if !self.handles.is_empty() {
            let handle = self.handles.swap_remove(bytes.index(self.handles.len()));
            self.refs(handle.head().as_u64()).refs -= 1;
        }
        Ok(())
    }

    /// A part of a range, often all of it, often one end.
    fn part(bytes: &mut Bytes<'_>, nr: u64) -> (u64, u64) {
        match bytes.below(4) {
            0 | 1 => (0, nr),
            2 => (0, 1 + bytes.below(nr)),
            _ => {
                let first = bytes.below(nr);
                (first, 1 + bytes.below(nr - first))
            }
        }
    }

    /// A range of addresses: that of a leaf, or any other.
    fn range(&self, bytes: &mut Bytes<'_>, space: usize) -> (u64, u64) {
        let leaves = self.flat.spaces[space].leaves(0, self.size);
        if bytes.below(3) != 0 && !leaves.is_empty() {
            let leaf = leaves[bytes.index(leaves.len())];
            let (first, nr) = Self::part(bytes, 1 << leaf.order);
            let nr = if bytes.below(2) == 0 { nr } else { nr + bytes.below(32) };
            return (leaf.vpn + first, nr.min(self.size - leaf.vpn - first).max(1));
        }
        Self::part(bytes, self.size)
    }

    fn insert(&mut self, bytes: &mut Bytes<'_>, space: usize) -> Check {
        if self.handles.is_empty() {
            return Ok(());
        }
        let index = bytes.index(self.handles.len());
        let folio = &self.handles[index];
        let (head, log2) = (folio.head().as_u64(), folio.order().as_u8());
        let (first, nr) = Self::part(bytes, 1 << log2);
        let pfn = head + first;
        // Mostly where neighbours come to lie side by side.
        let skew = match bytes.below(4) {
            0 | 1 => 0,
            2 => bytes.below(8) << self.order_max.min(4),
            _ => bytes.next(),
        };
        let vpn = (pfn + skew) % self.size;
        let limit = match bytes.below(4) {
            0 => FlatLimit::Exactly(u8::try_from(bytes.below(8)).unwrap_or(0)),
            1 => FlatLimit::UpTo(u8::try_from(bytes.below(8)).unwrap_or(0)),
            _ => FlatLimit::UpTo(18),
        };
        let rights = Self::rights(bytes);
        if self.is_beyond(space, vpn + nr) {
            return Ok(());
        }
        let request = Self::request((vpn, pfn, nr), limit, rights)?;
        let free = self.spaces[space].table().inner.nr_free_nodes();
        let real = self.spaces[space].insert_any(folio, request).map(|nr| nr as usize);
        self.inserted(space, (vpn, pfn, nr), (limit, rights), (free, real))
    }

    fn rights(bytes: &mut Bytes<'_>) -> u8 {
        [3, 3, 3, 1, 0, 7][bytes.index(6)]
    }

    fn request(
        (vpn, pfn, nr): (u64, u64, u64),
        limit: FlatLimit,
        rights: u8,
    ) -> Result<MapRequest, String> {
        let pages = PfnRange::new(Pfn::new(pfn), nr).map_err(|error| error.to_string())?;
        let limit = match limit {
            FlatLimit::Exactly(log2) => LeafLimit::Exactly(order(log2)),
            FlatLimit::UpTo(log2) => LeafLimit::UpTo(order(log2)),
        };
        let rights = Rights::from_bits(rights);
        Ok(MapRequest::new(Vpn::new(vpn), pages, rights).limit(limit))
    }

    /// Whether the table has these addresses, and the history does not use them.
    fn is_beyond(&self, space: usize, end: u64) -> bool {
        let last = self.spaces[space].table().addresses().last().as_u64();
        self.size < end && self.size <= last
    }

    fn inserted(
        &mut self,
        space: usize,
        what: (u64, u64, u64),
        (limit, rights): (FlatLimit, u8),
        (free, real): (usize, Result<usize, InsertError>),
    ) -> Check {
        let before = self.flat.clone();
        let expected = self.flat.insert(space, what, limit, rights);
        if !self.judge("insert", real, &expected, insert_refusal)? {
            self.flat = before;
            same("table pages", &free, &self.spaces[space].table().inner.nr_free_nodes())?;
        }
        Ok(())
    }

    fn insert_foreign(&mut self, bytes: &mut Bytes<'_>, space: usize) -> Check {
        let nr = 1 + bytes.below(64);
        let pfn = bytes.below(FIRST - 64);
        let vpn = (pfn + if bytes.below(2) == 0 { 0 } else { bytes.next() }) % self.size;
        let (limit, rights) = (FlatLimit::UpTo(18), Self::rights(bytes));
        if self.is_beyond(space, vpn + nr) {
            return Ok(());
        }
        let request = Self::request((vpn, pfn, nr), limit, rights)?;
        let free = self.spaces[space].table().inner.nr_free_nodes();
        let real = self.spaces[space].insert_foreign(request);
        let real = real.map(|nr| usize::try_from(nr).unwrap_or(0));
        self.inserted(space, (vpn, pfn, nr), (limit, rights), (free, real))
    }

    fn vpns((first, nr): (u64, u64)) -> Result<VpnRange, String> {
        VpnRange::new(Vpn::new(first), nr).map_err(|error| error.to_string())
    }

    fn unmap(&mut self, bytes: &mut Bytes<'_>, space: usize) -> Check {
        let (first, nr) = self.range(bytes, space);
        let before = self.flat.clone();
        let expected = self.flat.unmap(space, first, nr).map(|gone| totals(&gone));
        let real = self.spaces[space].unmap(Self::vpns((first, nr))?);
        if !self.judge("unmap", real, &expected, cut_refusal)? {
            self.flat = before;
        }
        Ok(())
    }

    /// Unmaps by gathers, and looks at what they carry.
    fn zap(&mut self, bytes: &mut Bytes<'_>, space: usize) -> Check {
        let (first, nr) = self.range(bytes, space);
        let before = self.flat.clone();
        let expected = self.flat.unmap(space, first, nr);
        let (mut rest, mut dirty, mut nr_leaves) = (Some(Self::vpns((first, nr))?), Vec::new(), 0);
        while let Some(range) = rest {
            let error = match self.spaces[space].zap(range) {
                Ok(gather) => {
                    for run in gather.runs() {
                        nr_leaves += u64::from(run.nr_leaves);
                        dirty.extend(run.dirty);
                    }
                    rest = gather.flush();
                    continue;
                }
                Err(error) => error,
            };
            if !self.judge("zap", Err(error), &expected, cut_refusal)? {
                self.flat = before;
            }
            return Ok(());
        }
        let gone = expected.map_err(|refusal| format!("zap went on where {refusal:?} is due"))?;
        same("leaves of a zap", &nr_leaves, &(gone.len() as u64))?;
        for leaf in gone.iter().filter(|leaf| leaf.dirty) {
            let pages = PfnRange::block(Pfn::new(leaf.pfn), order(leaf.order));
            if !dirty.iter().any(|dirty| dirty.contains_range(pages)) {
                return Err(format!("{leaf:?} was dirty, and no gather says so"));
            }
        }
        Ok(())
    }

    fn protect(&mut self, bytes: &mut Bytes<'_>, space: usize) -> Check {
        let ((first, nr), rights) = (self.range(bytes, space), Self::rights(bytes));
        let before = self.flat.clone();
        let expected = self.flat.protect(space, first, nr, rights).map(|nr| nr as u64);
        let rights = Rights::from_bits(rights);
        let real = self.spaces[space].protect(Self::vpns((first, nr))?, rights);
        if !self.judge("protect", real, &expected, cut_refusal)? {
            self.flat = before;
        }
        Ok(())
    }

    fn demote(&mut self, bytes: &mut Bytes<'_>, space: usize) -> Check {
        let (first, nr) = self.range(bytes, space);
        let max = u8::try_from(bytes.below(8)).unwrap_or(0);
        let before = self.flat.clone();
        let expected = self.flat.demote(space, first, nr, max).map(|nr| nr as u64);
        let real = self.spaces[space].demote(Self::vpns((first, nr))?, order(max));
        if !self.judge("demote", real, &expected, cut_refusal)? {
            self.flat = before;
        }
        Ok(())
    }

    fn promote(&mut self, bytes: &mut Bytes<'_>, space: usize) -> Check {
        let (first, nr) =
            if bytes.below(2) == 0 { (0, self.size) } else { self.range(bytes, space) };
        let max = u8::try_from(bytes.below(8)).unwrap_or(0);
        let max = if max == 0 { 18 } else { max };
        let expected = self.flat.promote(space, first, nr, max) as u64;
        let real = self.spaces[space].promote(Self::vpns((first, nr))?, order(max));
        same("promote", &real, &expected)
    }

    fn remap(&mut self, bytes: &mut Bytes<'_>, space: usize) -> Check {
        let (first, nr) = self.range(bytes, space);
        let to = bytes.below(self.size);
        let to = if bytes.below(2) == 0 { to } else { to & !0xf | first & 0xf };
        if self.size < to + nr {
            return Ok(());
        }
        let before = self.flat.clone();
        let expected = self.flat.remap(space, first, nr, to).map(|nr| nr as u64);
        let real = self.spaces[space].remap(Self::vpns((first, nr))?, Vpn::new(to));
        if !self.judge("remap", real, &expected, move_refusal)? {
            self.flat = before;
        }
        Ok(())
    }

    fn duplicate(&mut self, bytes: &mut Bytes<'_>, space: usize) -> Check {
        let other = (space + 1) % self.spaces.len();
        if other == space {
            return Ok(());
        }
        let ((first, nr), rights) = (self.range(bytes, space), Self::rights(bytes));
        let before = self.flat.clone();
        let expected = self.flat.duplicate(space, other, (first, nr), rights).map(|nr| nr as u64);
        let range = Self::vpns((first, nr))?;
        let (low, high) = self.spaces.split_at_mut(space.max(other));
        let (Some(high), index) = (high.first_mut(), space.min(other)) else { return Ok(()) };
        let rights = Rights::from_bits(rights);
        let real = if space < other {
            low[index].duplicate(range, high, rights)
        } else {
            high.duplicate(range, &mut low[index], rights)
        };
        if !self.judge("duplicate", real, &expected, move_refusal)? {
            self.flat = before;
        }
        Ok(())
    }

    fn touch(&mut self, bytes: &mut Bytes<'_>, space: usize) -> Check {
        let (vpn, _) = self.range(bytes, space);
        let is_store = bytes.below(3) != 0;
        let access = if is_store { Access::Write } else { Access::Read };
        let real = self.spaces[space].table().inner.reader().touch(Vpn::new(vpn), access);
        let real = real.map(Pfn::as_u64);
        let expected = self.flat.touch(space, vpn, is_store);
        let refusal = |entry: &Entry| match entry {
            Entry::Empty { .. } => Some(FlatRefusal::NotMapped),
            Entry::Leaf(_) => Some(FlatRefusal::Denied),
        };
        self.judge("touch", real, &expected, refusal).map(|_| ())
    }

    fn look(&mut self, bytes: &mut Bytes<'_>, space: usize) -> Check {
        let (first, nr) = self.range(bytes, space);
        let is_store = bytes.below(2) == 0;
        let access = if is_store { Access::Write } else { Access::Read };
        let take = match bytes.below(2) {
            0 => GupTake::Reference,
            _ => GupTake::Pin(PinKind::Short),
        };
        let reader = self.spaces[space].table().inner.reader();
        let real = gup_fast(&reader, self.directory, Self::vpns((first, nr))?, access, take);
        let expected = self.flat.look(space, first, nr, is_store);
        if let Err(GupError::Count(CountError::Limit { .. })) = real {
            return Ok(());
        }
        let (real, hold) = match real {
            Ok(run) => (Ok((run.pages.start().as_u64(), run.pages.nr_pages())), Some(run.hold)),
            Err(error) => (Err(error), None),
        };
        let refusal = |error: &GupError| match error {
            GupError::NotMapped { .. } => Some(FlatRefusal::NotMapped),
            GupError::Denied { .. } => Some(FlatRefusal::Denied),
            GupError::Foreign { .. } => Some(FlatRefusal::Foreign),
            _ => None,
        };
        self.judge("look", real, &expected, refusal)?;
        let Some(hold) = hold.filter(|_| self.holds.len() < 4) else { return Ok(()) };
        let head = match &hold {
            GupHold::Reference(folio) => folio.head().as_u64(),
            GupHold::Pin(pin) => pin.head().as_u64(),
        };
        match take {
            GupTake::Reference => self.refs(head).refs += 1,
            GupTake::Pin(_) => self.refs(head).pins += 1,
        }
        self.holds.push((head, hold));
        Ok(())
    }

    fn unmap_pages(&mut self, bytes: &mut Bytes<'_>) -> Check {
        let folios = &self.flat.folios;
        let (pfn, nr) = match bytes.below(4) {
            0 => (bytes.below(FIRST), 1 + bytes.below(64)),
            _ if folios.is_empty() => return Ok(()),
            _ => {
                let folio = folios[bytes.index(folios.len())];
                let (first, nr) = Self::part(bytes, 1 << folio.order);
                (folio.head + first, nr)
            }
        };
        let pages = PfnRange::new(Pfn::new(pfn), nr).map_err(|error| error.to_string())?;
        let expected = self.flat.unmap_pages(pfn, nr).map(|gone| totals(&gone));
        let real = unmap_mapping_range(&mut Everywhere(&mut self.spaces), pages);
        let is_refused = real.is_err();
        self.judge("unmap_pages", real, &expected, cut_refusal)?;
        if is_refused {
            // What was cut, or unmapped in other spaces, stays so.
            self.adopt();
        }
        Ok(())
    }

    /// Takes the leaves over as they are.
    fn adopt(&mut self) {
        for (space, flat) in self.spaces.iter().zip(&mut self.flat.spaces) {
            flat.pages.fill(None);
            for (part, leaf) in space.leaves(space.table().addresses()) {
                let leaf = view(part, leaf);
                for vpn in leaf.vpn..leaf.vpn + (1 << leaf.order) {
                    flat.pages[usize::try_from(vpn).unwrap_or(0)] = Some(leaf);
                }
            }
        }
    }

    fn fracture(&mut self, bytes: &mut Bytes<'_>) -> Check {
        if self.handles.is_empty() {
            return Ok(());
        }
        let handle = self.handles.swap_remove(bytes.index(self.handles.len()));
        let (head, log2) = (handle.head().as_u64(), handle.order().as_u8());
        let to = u8::try_from(bytes.below(u64::from(log2) + 1)).unwrap_or(0);
        let pfn = head + bytes.below(1 << log2);
        let (how, pieces) = if bytes.below(2) == 0 {
            let pieces = (0..1u64 << (log2 - to)).map(|index| (head + (index << to), to));
            (Fracture::Uniform(order(to)), pieces.collect::<Vec<_>>())
        } else {
            let target = pfn >> to << to;
            let rest = (to..log2).map(|log2| ((target >> log2 ^ 1) << log2, log2));
            (
                Fracture::Around(Pfn::new(pfn), order(to)),
                core::iter::once((target, to)).chain(rest).collect(),
            )
        };
        let expected = self.flat.fracture(head, &pieces);
        let owner = if head < SECOND { self.first } else { self.second };
        let folio = match handle.downcast(owner) {
            Ok(folio) => folio,
            Err(handle) => return Err(format!("{handle:?} has another owner")),
        };
        match fracture(folio, &mut Everywhere(&mut self.spaces), how) {
            Ok(made) => {
                let mut real = Vec::new();
                for folio in made {
                    real.push((folio.head().as_u64(), folio.order().as_u8()));
                    let Lookup::Folio(handle) = self.directory.try_get(folio.head()) else {
                        return Err(format!("{folio:?} is not found"));
                    };
                    self.handles.push(handle);
                }
                real.sort_unstable();
                let mut pieces = pieces;
                pieces.sort_unstable();
                same("pieces", &real, &pieces)?;
                same("fracture", &Ok(()), &expected)
            }
            Err(error) => {
                let held = matches!(error.reason, FractureReason::Held(_));
                let Lookup::Folio(handle) = self.directory.try_get(error.folio.head()) else {
                    return Err(format!("{error:?} is not found"));
                };
                self.handles.push(handle);
                same("fracture held", &held, &(expected == Err(FlatRefusal::Held)))
            }
        }
    }
}
