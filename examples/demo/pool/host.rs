//! One host: its books, its extents, and the machines that run on them.

use core::cell::RefCell;
use std::collections::BTreeSet;

use devfolio::{
    Added, CapacityError, CapacityRecord, CapacitySlot, DynamicCapacity, Life, ListError, Pfn,
    PfnRange, Pgmap, Poisoned, Reread, Stats,
};

use super::super::generator;
use super::super::rng::Rng;
use super::super::workload::{Event, Op};
use super::claims::{BAD_TOLD, BOOKS, Claims, GIVEN, POSSIBLE, REFUSED, SOUND, TOLD};
use super::device::{Device, Refusal, Returned, Shelf};
use super::machines::Machines;
use super::owner::Owner;

/// Events of a history before the next one is drawn.
const NR_EVENTS: u64 = 20_000;

/// What happens to machines in one round.
const EVENTS_PER_ROUND: usize = 12;

/// One host of the pool.
#[derive(Debug)]
pub(super) struct Host<'a, 'm> {
    books: DynamicCapacity<'a>,
    pub(super) device: Device<'a, 'm>,
    pub(super) machines: Machines<'a, 'm>,
    rng: Rng,
    seed: u64,
    /// The size of the pool that the history is made for.
    demand_pages: u64,
    /// What is still to come, the next event last.
    events: Vec<Event>,
    nr_histories: u64,
    /// There was no room for a machine since the manager last looked.
    pub(super) is_short: bool,
    /// The next folio that is gone is not told: the mistake that `--break told` makes.
    pub(super) is_deaf: bool,
    pub(super) nr_told: u64,
}

impl<'a, 'm> Host<'a, 'm> {
    pub(super) fn new(
        pgmap: &'a Pgmap<'m, Owner>,
        shelf: &'a RefCell<Shelf<'m>>,
        nr_extents: usize,
        books: (PfnRange, &'a mut [CapacitySlot]),
        seed: u64,
        demand_pages: u64,
    ) -> Self {
        Self {
            books: DynamicCapacity::new(books.0, books.1),
            device: Device::new(pgmap, shelf, nr_extents),
            machines: Machines::new(pgmap),
            rng: Rng::new(seed, "host"),
            seed,
            demand_pages,
            events: Vec::new(),
            nr_histories: 0,
            is_short: false,
            is_deaf: false,
            nr_told: 0,
        }
    }

    /// Machines start and end.
    pub(super) fn run(&mut self, round: u64, bad: &BTreeSet<Pfn>, claims: &mut Claims) {
        self.machines.unpin_due(round, claims);
        for _ in 0..EVENTS_PER_ROUND {
            let Some(event) = self.next_event(round, claims) else { return };
            // Numbers of one history after the other.
            let id = (self.nr_histories << 32) | u64::from(event.id);
            let Op::Alloc { len_bytes } = event.op else {
                self.machines.end(id, round, &mut self.rng, claims);
                continue;
            };
            if !self.machines.start(id, len_bytes, bad, &mut self.rng, claims) {
                self.is_short = true;
            }
        }
        self.device.finish_surprises();
    }

    fn next_event(&mut self, round: u64, claims: &mut Claims) -> Option<Event> {
        if self.events.is_empty() {
            // The end of a history would never come for the machines that are left of it.
            self.machines.end_all(round, &mut self.rng, claims);
            self.nr_histories += 1;
            let seed = self.seed.wrapping_add(self.nr_histories << 8);
            self.events = generator::vm(seed, NR_EVENTS, self.demand_pages).events;
            self.events.reverse();
        }
        self.events.pop()
    }

    /// Takes capacity that the manager adds, all of it or nothing.
    pub(super) fn add(&mut self, group: &[CapacityRecord], claims: &mut Claims) -> bool {
        let before = self.image();
        let mut last = None;
        for (index, record) in group.iter().enumerate() {
            let more = index + 1 < group.len();
            last = Some(self.books.add(*record, more, &mut self.device));
        }
        match last {
            Some(Ok(Added::Group(nr))) => {
                claims.same(BOOKS, "records of a group", &nr, &group.len());
                true
            }
            Some(Err(CapacityError::Target { .. })) => {
                self.expect_unchanged(&before, "a refused group", claims);
                false
            }
            other => {
                claims.look(POSSIBLE, Err(format!("an answer to added capacity: {other:?}")));
                false
            }
        }
    }

    /// Gives capacity back, if the host can spare it now.
    pub(super) fn release(
        &mut self,
        pages: PfnRange,
        tag: [u8; 16],
        claims: &mut Claims,
    ) -> Result<u64, Refusal> {
        let before = self.image();
        let result = self.books.release(pages, tag, &mut self.device);
        match result {
            Ok(nr_pages) => Ok(nr_pages),
            Err(CapacityError::Target { error, .. }) => {
                self.expect_unchanged(&before, "a refused release", claims);
                Err(error)
            }
            Err(CapacityError::List(ListError::NoSlot { .. })) => Err(Refusal::NoSlot),
            Err(error) => {
                claims.look(POSSIBLE, Err(format!("release of {pages}: {error}")));
                Err(Refusal::Busy)
            }
        }
    }

    /// Loses capacity without notice.
    pub(super) fn revoke(
        &mut self,
        pages: PfnRange,
        tag: [u8; 16],
        round: u64,
        claims: &mut Claims,
    ) {
        self.before_surprise();
        let result = self.books.revoke(pages, tag, &mut self.device);
        claims.look(POSSIBLE, result.map(|_| ()).map_err(|error| error.to_string()));
        self.after_surprise(round, claims);
    }

    /// Reads the list of the device again: what is not in there is gone.
    pub(super) fn reread(
        &mut self,
        listed: &[CapacityRecord],
        round: u64,
        claims: &mut Claims,
    ) -> Result<Reread, ListError> {
        self.before_surprise();
        let result = self.books.reread(listed, &mut self.device);
        self.after_surprise(round, claims);
        result
    }

    fn before_surprise(&mut self) {
        if core::mem::take(&mut self.is_deaf) {
            self.device.pgmap.ops().be_deaf();
        }
    }

    /// Compares what was told with what is in use, and ends the machines that were told.
    fn after_surprise(&mut self, round: u64, claims: &mut Claims) {
        // Compared before anybody ends: a machine may have lost several extents at once.
        let mut gone = Vec::new();
        for (pages, told) in core::mem::take(&mut self.device.told) {
            let mut heads: Vec<Pfn> = told.iter().map(|folio| folio.head).collect();
            heads.sort_unstable();
            let expected = self.machines.heads_in(pages);
            let differ = || format!("{} of {} folios of {pages}", heads.len(), expected.len());
            claims.look(TOLD, if heads == expected { Ok(()) } else { Err(differ()) });
            gone.append(&mut heads);
        }
        self.nr_told += gone.len() as u64;
        self.machines.kill(&gone, round, &mut self.rng, claims);
        self.device.finish_surprises();
    }

    /// A page goes bad; `None` if there was no room to remember it.
    pub(super) fn poison(&mut self, pfn: Pfn, round: u64, claims: &mut Claims) -> Option<Poisoned> {
        let pgmap = self.device.pgmap;
        let poisoned = pgmap.poison(pfn).ok()?;
        let expected = if poisoned == Poisoned::Known { Vec::new() } else { vec![pfn] };
        claims.same(BAD_TOLD, "told", &pgmap.ops().take_bad(), &expected);
        if let Poisoned::InUse { folio: Some(folio) } = poisoned {
            // Some systems survive the loss of a page, and some read it at once.
            if self.rng.chance(0.5) {
                self.machines.kill(&[folio.head], round, &mut self.rng, claims);
            }
        }
        Some(poisoned)
    }

    /// Returns what the manager has to fetch.
    pub(super) fn take_returned(&mut self) -> Vec<Returned> {
        core::mem::take(&mut self.device.returned)
    }

    /// What a refusal must not change; an extent that stays closed can be seen by its state alone.
    fn image(&self) -> Image {
        let pgmap = self.device.pgmap;
        let states = self.device.extents.iter().map(|pages| pgmap.extent_state(pages.start()));
        (pgmap.stats(), states.collect(), self.books.records().count())
    }

    fn expect_unchanged(&self, before: &Image, what: &str, claims: &mut Claims) {
        let trace = || format!("{what} left a trace in extents, folios or books");
        claims.look(REFUSED, if self.image() == *before { Ok(()) } else { Err(trace()) });
    }

    /// Compares books, extents, machines and the manager's list.
    pub(super) fn compare(&self, granted: &[CapacityRecord], claims: &mut Claims) {
        let sorted = |mut pages: Vec<PfnRange>| {
            pages.sort_unstable_by_key(|pages| pages.start());
            pages
        };
        let books = sorted(self.books.records().map(|record| record.pages).collect());
        let listed = sorted(granted.iter().map(|record| record.pages).collect());
        claims.same(BOOKS, "books", &books, &listed);
        let is_staying = |pages: &&PfnRange| !self.device.leaving.contains(pages);
        let staying = sorted(self.device.extents.iter().filter(is_staying).copied().collect());
        claims.same(BOOKS, "extents", &staying, &books);
        let nr_pages: u64 = self.device.extents.iter().map(|pages| pages.nr_pages()).sum();
        let given = self.device.given_back();
        let nr_given: u64 = given.iter().map(|pages| pages.nr_pages()).sum();
        let pgmap = self.device.pgmap;
        claims.same(BOOKS, "pages", &pgmap.stats().nr_pages, &(nr_pages + nr_given));
        for pages in given {
            let state = pgmap.offline_state(pages);
            claims.same(GIVEN, "a part that was given back", &state, &Some(Life::Drained));
        }
        self.machines.compare(claims);
    }

    /// The crate looks at its own words.
    pub(super) fn check(&self, claims: &mut Claims) {
        let result = self.device.pgmap.check();
        claims.look(SOUND, result.map(|_| ()).map_err(|error| error.to_string()));
    }

    /// Returns a record of what is least in use, with the rest of its group.
    pub(super) fn emptiest(&self, granted: &[CapacityRecord]) -> Option<CapacityRecord> {
        let nr_used = |record: &CapacityRecord| -> u64 {
            let is_same = |it: &&CapacityRecord| record.is_tagged() && it.tag == record.tag;
            let others = granted.iter().filter(is_same).filter(|it| *it != record);
            let group = others.chain([record]);
            group.map(|record| self.machines.pages_in(record.pages)).sum()
        };
        granted.iter().copied().min_by_key(nr_used)
    }

    /// Every machine ends, and everybody lets go.
    pub(super) fn stop(&mut self, round: u64, claims: &mut Claims) {
        self.machines.end_all(round, &mut self.rng, claims);
        self.device.finish_surprises();
    }

    /// Returns the most pages of an extent that nobody uses, in whole blocks of so many.
    pub(super) fn idle_part(&self, pages: PfnRange, block: u64) -> Option<PfnRange> {
        let runs = self.device.pgmap.free_runs();
        let in_blocks = |run: PfnRange| {
            let start = run.start().as_u64().next_multiple_of(block);
            let end = (run.last().as_u64() + 1) / block * block;
            PfnRange::new(Pfn::new(start), end.checked_sub(start)?).ok()
        };
        let parts = runs.filter_map(|run| in_blocks(run.intersection(pages)?));
        parts.max_by_key(|part| part.nr_pages())
    }

    pub(super) fn nr_records(&self) -> usize {
        self.books.records().count()
    }
}

/// Sums over the folios, the states of the extents, and the number of records.
type Image = (Stats, Vec<Option<Life>>, usize);
