//! The requests that are running, the folios that they hold, and what events do to them.

use core::mem;

use devfolio::{AllocError, Folio, FolioDesc, FolioMap, FolioPin, Order, Pgmap, SetRequest};

use super::human::PAGE_BYTES;
use super::ledger::{Count, Entry, Ledger};
use super::owner::Owner;
use super::plan::{Plan, pages_of};
use super::rng::Rng;
use super::tally::Tally;
use super::workload::{Event, Fate, Holders, Op};

/// So many findings are told; the first ones tell most.
const FINDINGS_MAX: usize = 8;

/// Room for the pieces of a request before a request says that it needs more.
const DESCS_MIN: usize = 1024;

/// One folio of a request, with everybody who holds it.
#[derive(Debug, Default)]
pub(super) struct Piece<'a> {
    pub(super) refs: Vec<Folio<'a, Owner>>,
    pub(super) pins: Vec<FolioPin<'a, Owner>>,
    /// With the number of leaves of each.
    pub(super) maps: Vec<(FolioMap<'a, Owner>, u32)>,
}

/// One request.
#[derive(Debug, Default)]
struct Machine<'a> {
    holders: Holders,
    /// Holders that got no reference because the count was at its limit.
    nr_missed: u32,
    /// In the order of the ledger.
    pieces: Vec<Piece<'a>>,
}

/// Everything that is running.
#[derive(Debug)]
pub(crate) struct World<'a, 'm> {
    pub(super) pgmap: &'a Pgmap<'m, Owner>,
    pub(super) ledger: Ledger,
    pub(super) tally: Tally,
    pub(super) rng: Rng,
    /// What should never happen, and did.
    findings: Vec<String>,
    machines: Vec<Machine<'a>>,
    descs: Vec<FolioDesc>,
    least: Order,
    prefer: Order,
}

impl<'a, 'm> World<'a, 'm> {
    pub(crate) fn new(pgmap: &'a Pgmap<'m, Owner>, plan: &Plan, nr_ids: u32, seed: u64) -> Self {
        let mut machines = Vec::new();
        machines.resize_with(nr_ids as usize, Machine::default);
        Self {
            pgmap,
            ledger: Ledger::new(nr_ids),
            tally: Tally::default(),
            rng: Rng::new(seed, "exercise"),
            findings: Vec::new(),
            machines,
            descs: Vec::new(),
            least: plan.least,
            prefer: plan.prefer,
        }
    }

    /// Lets one event happen.
    pub(crate) fn apply(&mut self, event: Event) {
        let Some(machine) = self.machines.get_mut(event.id as usize) else { return };
        let nr_before = machine.holders.nr();
        let fate = match machine.holders.step(event.op) {
            Ok(fate) => fate,
            Err(error) => return self.find(format!("request {} {error}", event.id)),
        };
        self.tally.nr_events += 1;
        if let Op::Alloc { len_bytes } = event.op {
            self.alloc(event.id, len_bytes);
            return;
        }
        if machine.pieces.is_empty() {
            self.tally.nr_skipped += 1;
            return;
        }
        match (event.op, nr_before, fate) {
            (Op::Get, ..) => self.get(event.id),
            (_, 0, _) => self.end(event.id),
            (_, _, Fate::Gone) => self.end(event.id),
            _ => self.put(event.id),
        }
    }

    /// Frees whatever is still running.
    pub(crate) fn end_all(&mut self) {
        // Ends because each turn closes the account that it starts with.
        while let Some(&id) = self.ledger.open().last() {
            if let Some(machine) = self.machines.get_mut(id as usize) {
                machine.holders = Holders::Absent;
            }
            self.end(id);
        }
    }

    /// Notes what should never happen.
    #[cold]
    pub(super) fn find(&mut self, finding: String) {
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(finding);
        }
    }

    /// Returns what should never have happened.
    pub(crate) fn findings(&self) -> &[String] {
        &self.findings
    }

    /// How many holders of a request have a reference on each of its folios.
    pub(super) fn nr_holders(&self, id: u32) -> u32 {
        let machine = self.machines.get(id as usize);
        machine.map_or(0, |machine| machine.holders.nr().saturating_sub(machine.nr_missed))
    }

    pub(super) fn piece_mut(&mut self, id: u32, index: usize) -> Option<&mut Piece<'a>> {
        self.machines.get_mut(id as usize)?.pieces.get_mut(index)
    }

    /// A request gets a folio, which it alone holds.
    pub(super) fn push(&mut self, id: u32, folio: Folio<'a, Owner>) {
        let Some(machine) = self.machines.get_mut(id as usize) else { return };
        self.ledger.push(id, Entry::new(folio.head(), folio.order()));
        machine.pieces.push(Piece { refs: vec![folio], ..Piece::default() });
    }

    /// A request loses a folio, and whoever still holds it lets go.
    pub(super) fn swap_remove(&mut self, id: u32, index: usize) {
        self.ledger.swap_remove(id, index);
        let Some(machine) = self.machines.get_mut(id as usize) else { return };
        if index < machine.pieces.len() {
            machine.pieces.swap_remove(index);
        }
    }

    fn alloc(&mut self, id: u32, len_bytes: u64) {
        self.tally.nr_requests += 1;
        self.tally.nr_whole_gib += len_bytes >> 30;
        let Some(nr_pages) = pages_of(len_bytes, self.least) else {
            return self.fail(format!("{len_bytes} bytes are too many"));
        };
        let mut folios = match self.alloc_folios(nr_pages) {
            Ok(folios) => folios,
            Err(error @ (AllocError::Exhausted { .. } | AllocError::NoTables { .. })) => {
                return self.fail(error.to_string());
            }
            Err(error) => {
                self.find(format!("request {id} of {nr_pages} pages: {error}"));
                return self.fail(error.to_string());
            }
        };
        folios.reverse();
        self.tally.nr_rounding_pages += nr_pages - len_bytes.div_ceil(PAGE_BYTES);
        for folio in folios {
            self.tally.given.add(folio.order(), 1);
            self.push(id, folio);
        }
        self.tally.peak_refs = self.tally.peak_refs.max(1);
        self.tally.peak_pages = self.tally.peak_pages.max(self.ledger.nr_pages());
    }

    /// A request cannot be served.
    #[cold]
    fn fail(&mut self, reason: String) {
        self.tally.nr_failed += 1;
        self.tally.first_failure.get_or_insert(reason);
    }

    /// Takes one set of folios; its storage is reused, and grows when the crate says how far.
    fn alloc_folios(&mut self, nr_pages: u64) -> Result<Vec<Folio<'a, Owner>>, AllocError> {
        let request = SetRequest::pages(nr_pages).prefer(self.prefer).least(self.least);
        let mut descs = mem::take(&mut self.descs);
        if descs.is_empty() {
            descs.resize(DESCS_MIN, FolioDesc::EMPTY);
        }
        let mut result =
            self.pgmap.alloc_set(request, &mut descs).map(|set| pop_all(set.publish()));
        if let Err(AllocError::TooManyPieces { .. }) = result {
            descs.resize(SetRequest::len_max(nr_pages, self.least), FolioDesc::EMPTY);
            result = self.pgmap.alloc_set(request, &mut descs).map(|set| pop_all(set.publish()));
        }
        self.descs = descs;
        result
    }

    /// Another holder takes a reference on every folio, or on none.
    fn get(&mut self, id: u32) {
        for index in 0..self.ledger.entries(id).len() {
            if let Err(reason) = self.get_piece(id, index) {
                self.tally.nr_get_failures += 1;
                if reason == Refused::Unexpectedly {
                    self.find(format!("request {id} could not be taken hold of again"));
                }
                for taken in 0..index {
                    self.put_piece(id, taken, true);
                }
                if let Some(machine) = self.machines.get_mut(id as usize) {
                    machine.nr_missed += 1;
                }
                return;
            }
        }
    }

    /// Takes a reference on one folio, from wherever it is.
    pub(super) fn get_piece(&mut self, id: u32, index: usize) -> Result<(), Refused> {
        let Some(entry) = self.ledger.entry(id, index) else { return Err(Refused::Unexpectedly) };
        let piece = self.piece_mut(id, index);
        let folio = match piece.and_then(|piece| piece.refs.last()) {
            Some(folio) => folio.try_clone().map_err(|_| Refused::AtLimit)?,
            // Held by a pin or a mapping only, or by nobody.
            None if entry.is_held() => {
                self.pgmap.try_get(entry.head).map_err(|_| Refused::Unexpectedly)?
            }
            None => {
                self.tally.nr_revives += 1;
                self.pgmap.revive(entry.head).map_err(|_| Refused::Unexpectedly)?
            }
        };
        if let Some(piece) = self.piece_mut(id, index) {
            piece.refs.push(folio);
        }
        self.ledger.add(id, index, Count::Refs(1));
        self.tally.nr_gets += 1;
        self.tally.peak_refs = self.tally.peak_refs.max(entry.refs + 1);
        Ok(())
    }

    /// A holder goes; what nobody holds any more stays cached.
    fn put(&mut self, id: u32) {
        let Some(machine) = self.machines.get_mut(id as usize) else { return };
        if machine.nr_missed != 0 {
            machine.nr_missed -= 1;
            return;
        }
        for index in 0..machine.pieces.len() {
            self.put_piece(id, index, true);
        }
    }

    /// Drops a reference on one folio.
    pub(super) fn put_piece(&mut self, id: u32, index: usize, is_caching: bool) {
        self.pgmap.ops().set_caching(is_caching);
        let folio = self.piece_mut(id, index).and_then(|piece| piece.refs.pop());
        if folio.is_some() {
            self.ledger.sub(id, index, Count::Refs(1), is_caching);
            self.tally.nr_puts += 1;
        }
        drop(folio);
    }

    /// Everybody lets go of a request, and its folios go back to the pool.
    fn end(&mut self, id: u32) {
        for index in (0..self.ledger.entries(id).len()).rev() {
            self.end_piece(id, index);
            self.tally.nr_ended += 1;
            self.swap_remove(id, index);
        }
        if let Some(machine) = self.machines.get_mut(id as usize) {
            machine.pieces = Vec::new();
            machine.nr_missed = 0;
        }
    }

    fn end_piece(&mut self, id: u32, index: usize) {
        let Some(entry) = self.ledger.entry(id, index) else { return };
        if !entry.is_held() {
            // The owner's own: nobody else can get at it, so it goes back without a hook.
            self.tally.nr_evictions += 1;
            match self.pgmap.claim_kept(entry.head) {
                Ok(folio) => folio.release(),
                Err(error) => self.find(format!("{entry:?} should be kept: {error}")),
            }
            return;
        }
        // Whichever kind of holder goes last has to run the hook, so each gets its turn.
        let refs_first = self.rng.chance(0.5);
        if refs_first {
            self.put_all(id, index);
        }
        while self.unpin_one(id, index, false) {}
        while self.unmap_one(id, index, false) {}
        self.put_all(id, index);
    }

    fn put_all(&mut self, id: u32, index: usize) {
        let nr_refs = self.ledger.entry(id, index).map_or(0, |entry| entry.refs);
        for _ in 0..nr_refs {
            self.put_piece(id, index, false);
        }
    }

    /// Drops a pin, if there is one.
    pub(super) fn unpin_one(&mut self, id: u32, index: usize, is_caching: bool) -> bool {
        self.pgmap.ops().set_caching(is_caching);
        let pin = self.piece_mut(id, index).and_then(|piece| piece.pins.pop());
        let Some(pin) = pin else { return false };
        self.ledger.sub(id, index, Count::Pins(1), is_caching);
        self.tally.nr_unpins += 1;
        drop(pin);
        true
    }

    /// Drops the mappings that were made last, if there are any.
    pub(super) fn unmap_one(&mut self, id: u32, index: usize, is_caching: bool) -> bool {
        self.pgmap.ops().set_caching(is_caching);
        let map = self.piece_mut(id, index).and_then(|piece| piece.maps.pop());
        let Some((map, nr_leaves)) = map else { return false };
        self.ledger.sub(id, index, Count::Mappings(nr_leaves), is_caching);
        self.tally.nr_unmaps += 1;
        drop(map);
        true
    }
}

/// Why nobody else can hold a folio.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Refused {
    /// Its count is at its limit.
    AtLimit,
    /// There is no reason.
    Unexpectedly,
}

fn pop_all<'a>(mut set: devfolio::FolioSet<'a, '_, Owner>) -> Vec<Folio<'a, Owner>> {
    let mut folios = Vec::with_capacity(set.len());
    while let Some(folio) = set.pop() {
        folios.push(folio);
    }
    folios
}
