//! The machines of one host: sets of folios with lifetimes, pins, and whoever else holds them.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use devfolio::{
    AllocError, Folio, FolioDesc, FolioPin, FolioSet, Life, Order, Pfn, PfnRange, Pgmap, PinKind,
    SetRequest,
};

use super::super::plan::pages_of;
use super::super::rng::Rng;
use super::claims::{BAD_GIVEN, Claims, FOLIOS, GONE, HOOK, POSSIBLE};
use super::owner::Owner;

/// The smallest folio of a machine: what a page table maps with one entry above the last level.
const LEAST: Order = Order::BLOCK;

/// Pieces of the largest machine, even if it got nothing but the smallest folios.
const DESCS: usize = 1 << 16;

/// So many rounds a device may go on with what was pinned for it when its machine ends.
const LINGER_MAX: u64 = 8;

/// One folio, with everybody who holds it.
#[derive(Debug)]
struct Piece<'a> {
    head: Pfn,
    order: Order,
    refs: Vec<Folio<'a, Owner>>,
    pins: Vec<FolioPin<'a, Owner>>,
}

impl Piece<'_> {
    fn is_held(&self) -> bool {
        !self.refs.is_empty() || !self.pins.is_empty()
    }

    fn range(&self) -> Option<PfnRange> {
        PfnRange::folio(self.head, self.order)
    }

    fn counts(&self) -> (Order, usize, usize) {
        (self.order, self.refs.len(), self.pins.len())
    }

    fn is_in(&self, pages: PfnRange) -> bool {
        pages.contains(self.head)
    }
}

/// What the machines of a host did.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    pub(super) nr_started: u64,
    pub(super) nr_refused: u64,
    pub(super) nr_ended: u64,
    pub(super) nr_killed: u64,
    pub(super) nr_folios: u64,
    pub(super) nr_pins: u64,
    pub(super) nr_puts: u64,
    pub(super) nr_freed: u64,
}

/// The machines of one host.
#[derive(Debug)]
pub(super) struct Machines<'a, 'm> {
    pgmap: &'a Pgmap<'m, Owner>,
    machines: HashMap<u64, Vec<Piece<'a>>>,
    /// What is still pinned of machines that are gone, and until when.
    lingering: Vec<(u64, Piece<'a>)>,
    descs: Vec<FolioDesc>,
    pub(super) tally: Tally,
    /// The next folio that is dropped is forgotten: the mistake that `--break leak` makes.
    pub(super) is_forgetful: bool,
}

impl<'a, 'm> Machines<'a, 'm> {
    pub(super) fn new(pgmap: &'a Pgmap<'m, Owner>) -> Self {
        Self {
            pgmap,
            machines: HashMap::new(),
            lingering: Vec::new(),
            descs: vec![FolioDesc::EMPTY; DESCS],
            tally: Tally::default(),
            is_forgetful: false,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.machines.len()
    }

    /// A machine starts; false if there is no room for it.
    pub(super) fn start(
        &mut self,
        id: u64,
        len_bytes: u64,
        bad: &BTreeSet<Pfn>,
        rng: &mut Rng,
        claims: &mut Claims,
    ) -> bool {
        let Some(nr_pages) = pages_of(len_bytes, LEAST) else { return false };
        let request = SetRequest::pages(nr_pages).least(LEAST);
        let set = match self.pgmap.alloc_set(request, &mut self.descs) {
            Ok(set) => set.publish(),
            Err(error) => {
                let is_live = |pfn| self.pgmap.extent_state(pfn) == Some(Life::Live);
                let is_possible = match error {
                    AllocError::Exhausted { .. } => true,
                    // All that this host has is leaving, or gone.
                    AllocError::Dying => !self.pgmap.extents().any(|(it, _)| is_live(it.start())),
                    _ => false,
                };
                claims.look(POSSIBLE, if is_possible { Ok(()) } else { Err(error.to_string()) });
                self.tally.nr_refused += 1;
                return false;
            }
        };
        let is_pinned = rng.chance(0.3);
        let is_shared = rng.chance(0.2);
        let mut pieces = Vec::with_capacity(set.len());
        for folio in pop_all(set) {
            let (head, order) = (folio.head(), folio.order());
            let is_bad = bad.range(head..=folio.range().last()).next();
            claims.look(BAD_GIVEN, is_bad.map_or(Ok(()), |pfn| Err(format!("page {pfn}"))));
            let mut piece = Piece { head, order, refs: Vec::new(), pins: Vec::new() };
            // A device that was passed through to the machine.
            piece.pins.extend(is_pinned.then(|| folio.pin(PinKind::Longterm).ok()).flatten());
            // Somebody who copies the machine elsewhere.
            piece.refs.extend(is_shared.then(|| folio.try_clone().ok()).flatten());
            piece.refs.push(folio);
            self.tally.nr_pins += piece.pins.len() as u64;
            pieces.push(piece);
        }
        self.tally.nr_folios += pieces.len() as u64;
        self.tally.nr_started += 1;
        self.machines.insert(id, pieces);
        true
    }

    /// A machine ends, if it is there; devices may go on for a while with what they pinned.
    pub(super) fn end(&mut self, id: u64, round: u64, rng: &mut Rng, claims: &mut Claims) {
        let Some(pieces) = self.machines.remove(&id) else { return };
        self.tally.nr_ended += 1;
        let due = round + rng.below(LINGER_MAX);
        for mut piece in pieces {
            // Ends: with the references, of which there are few.
            while let Some(folio) = piece.refs.pop() {
                if core::mem::take(&mut self.is_forgetful) {
                    core::mem::forget(folio);
                } else {
                    drop(folio);
                }
                self.after_put(&piece, claims);
            }
            if piece.is_held() {
                self.lingering.push((due, piece));
            }
        }
    }

    /// Compares what the hook heard with what a put had to lead to.
    fn after_put(&mut self, piece: &Piece<'_>, claims: &mut Claims) {
        self.tally.nr_puts += 1;
        let freed = self.pgmap.ops().take_freed();
        self.tally.nr_freed += freed.len() as u64;
        let mut expected = Vec::new();
        if !piece.is_held() {
            expected.push((piece.head, piece.order));
        }
        claims.same(HOOK, "freed", &freed, &expected);
    }

    /// Devices let go of what is due.
    pub(super) fn unpin_due(&mut self, round: u64, claims: &mut Claims) {
        let lingering = core::mem::take(&mut self.lingering);
        for (due, mut piece) in lingering {
            if round < due {
                self.lingering.push((due, piece));
                continue;
            }
            // Ends: with the pins, of which there are few.
            while let Some(pin) = piece.pins.pop() {
                drop(pin);
                self.after_put(&piece, claims);
            }
        }
    }

    /// Ends the machines that have one of these folios, each of which was told so.
    pub(super) fn kill(&mut self, heads: &[Pfn], round: u64, rng: &mut Rng, claims: &mut Claims) {
        let is_hit = |piece: &Piece<'_>| heads.contains(&piece.head);
        let hit = self.machines.iter().filter(|(_, pieces)| pieces.iter().any(is_hit));
        let mut ids: Vec<u64> = hit.map(|(id, _)| *id).collect();
        // The order of a hash map is another one in each run.
        ids.sort_unstable();
        self.tally.nr_killed += ids.len() as u64;
        for id in ids {
            self.end(id, round, rng, claims);
        }
    }

    /// Everything ends, and everybody lets go.
    pub(super) fn end_all(&mut self, round: u64, rng: &mut Rng, claims: &mut Claims) {
        let mut ids: Vec<u64> = self.machines.keys().copied().collect();
        ids.sort_unstable();
        for id in ids {
            self.end(id, round, rng, claims);
        }
        self.unpin_due(u64::MAX, claims);
    }

    fn pieces(&self) -> impl Iterator<Item = &Piece<'a>> {
        self.machines.values().flatten().chain(self.lingering.iter().map(|(_, piece)| piece))
    }

    /// Returns the folios in use of some pages, in ascending order.
    pub(super) fn heads_in(&self, pages: PfnRange) -> Vec<Pfn> {
        let mut heads: Vec<Pfn> =
            self.pieces().filter(|piece| piece.is_in(pages)).map(|piece| piece.head).collect();
        heads.sort_unstable();
        heads
    }

    /// Returns how many pages of an extent are in use.
    pub(super) fn pages_in(&self, pages: PfnRange) -> u64 {
        let pieces = self.pieces().filter(|piece| piece.is_in(pages));
        pieces.map(|piece| piece.order.nr_pages()).sum()
    }

    /// Compares the folios of the machines with those of the pgmap.
    pub(super) fn compare(&self, claims: &mut Claims) {
        let mut expected: BTreeMap<Pfn, _> =
            self.pieces().map(|piece| (piece.head, piece.counts())).collect();
        let mut strangers = Vec::new();
        self.pgmap.for_each_busy(|busy| {
            let found = busy.folio.map(|it| (it.order, it.refs as usize, it.pins as usize));
            if expected.remove(&busy.pfn) != found {
                strangers.push(busy);
            }
        });
        let result = match (strangers.first(), expected.first_key_value()) {
            (Some(busy), _) => Err(format!("no machine says so of {:?}", busy.folio)),
            (_, Some((pfn, _))) => Err(format!("folio {pfn} of a machine is not in use")),
            (None, None) => Ok(()),
        };
        claims.look(FOLIOS, result);

        let mut running = self.machines.values().flatten();
        let gone = running.find(|piece| self.pgmap.is_gone(piece.head));
        let lost = gone.and_then(Piece::range);
        claims.look(GONE, lost.map_or(Ok(()), |pages| Err(format!("one runs on {pages}"))));
    }
}

fn pop_all<'a>(mut set: FolioSet<'a, '_, Owner>) -> Vec<Folio<'a, Owner>> {
    let mut folios = Vec::with_capacity(set.len());
    // Ends: with the set.
    while let Some(folio) = set.pop() {
        folios.push(folio);
    }
    folios
}
