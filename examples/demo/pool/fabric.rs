//! The fabric manager: what of the pool is free, which host has what, and what is withdrawn.

use std::collections::BTreeSet;

use devfolio::{CapacityRecord, Order, Pfn, PfnRange, Poisoned};

use super::super::rng::Rng;
use super::claims::{BAD_LEFT, BOOKS, Claims, ONE_PLACE, POSSIBLE};
use super::device::{Refusal, Returned};
use super::host::Host;

/// Pages of 1 GiB.
pub(super) const GIB: u64 = 1 << 18;

/// Pages of a block.
const BLOCK: u64 = Order::BLOCK.nr_pages();

/// So many blocks are withdrawn at a time; then the one that was first is repaired.
const WITHDRAWN_MAX: usize = 64;

/// How often a host is asked for the same capacity, and how many rounds lie between.
const TRIES_MAX: u32 = 4;
const RETRY_ROUNDS: u64 = 6;

/// What the manager did.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    pub(super) nr_groups: u64,
    pub(super) nr_alone: u64,
    pub(super) nr_refused: u64,
    pub(super) nr_released: u64,
    pub(super) nr_busy: u64,
    pub(super) nr_late: u64,
    pub(super) nr_given_up: u64,
    pub(super) nr_parts: u64,
    pub(super) nr_busy_parts: u64,
    pub(super) nr_forced: u64,
    pub(super) nr_lists: u64,
    pub(super) nr_bad_free: u64,
    pub(super) nr_bad_idle: u64,
    pub(super) nr_bad_in_use: u64,
    pub(super) nr_bad_known: u64,
    pub(super) nr_bad_unheard: u64,
    pub(super) nr_withdrawn: u64,
    pub(super) nr_repaired: u64,
}

/// Capacity that a host could not spare when it was asked.
#[derive(Clone, Copy, Debug)]
struct Retry {
    host: usize,
    record: CapacityRecord,
    nr_tries: u32,
    due: u64,
}

/// The manager of the pool.
#[derive(Debug)]
pub(super) struct Fabric {
    pool: PfnRange,
    /// In ascending order, and never two that touch.
    free: Vec<PfnRange>,
    /// Blocks with a bad page, the oldest first.
    withdrawn: Vec<PfnRange>,
    /// What each host has, as the manager sees it.
    pub(super) granted: Vec<Vec<CapacityRecord>>,
    retries: Vec<Retry>,
    /// The bad pages of the hosts.
    pub(super) bad: BTreeSet<Pfn>,
    next_tag: u64,
    pub(super) rng: Rng,
    pub(super) tally: Tally,
    /// The next extent that comes back is dropped: the mistake that `--break lose` makes.
    pub(super) is_losing: bool,
    /// The next extent goes to a host and stays free: the mistake that `--break twice` makes.
    pub(super) is_giving_twice: bool,
}

impl Fabric {
    pub(super) fn new(pool: PfnRange, nr_hosts: usize, seed: u64) -> Self {
        Self {
            pool,
            free: vec![pool],
            withdrawn: Vec::new(),
            granted: vec![Vec::new(); nr_hosts],
            retries: Vec::new(),
            bad: BTreeSet::new(),
            next_tag: 1,
            rng: Rng::new(seed, "fabric"),
            tally: Tally::default(),
            is_losing: false,
            is_giving_twice: false,
        }
    }

    /// Takes pages out of the smallest free run that has so many.
    fn take(&mut self, nr_pages: u64) -> Option<PfnRange> {
        let runs = self.free.iter().copied().filter(|run| nr_pages <= run.nr_pages());
        let run = runs.min_by_key(|run| run.nr_pages())?;
        // At a whole GiB if there is one, so that machines can have folios of that size.
        let aligned = run.start().as_u64().next_multiple_of(GIB);
        let [aligned, any] = [Pfn::new(aligned), run.start()].map(|it| PfnRange::new(it, nr_pages));
        let taken = aligned.ok().filter(|pages| run.contains_range(*pages)).or(any.ok())?;
        if !core::mem::take(&mut self.is_giving_twice) {
            self.cut(taken);
        }
        Some(taken)
    }

    /// Takes pages that are free out of the list.
    fn cut(&mut self, pages: PfnRange) {
        let is_cut = |run: &&PfnRange| run.contains_range(pages);
        let Some(run) = self.free.iter().find(is_cut).copied() else { return };
        self.free.retain(|other| *other != run);
        self.free.extend(around(run, pages));
        self.free.sort_unstable_by_key(|run| run.start());
    }

    /// Puts pages back into the list.
    fn put(&mut self, pages: PfnRange) {
        self.free.push(pages);
        self.free.sort_unstable_by_key(|run| run.start());
        let mut merged: Vec<PfnRange> = Vec::with_capacity(self.free.len());
        for run in self.free.drain(..) {
            let touches = |last: &PfnRange| last.last().checked_add(1) == Some(run.start());
            let below = merged.last().copied().filter(touches);
            let first = below.map_or(run.start(), PfnRange::start);
            merged.truncate(merged.len() - usize::from(below.is_some()));
            merged.push(PfnRange::between(first, run.last()).unwrap_or(run));
        }
        self.free = merged;
    }

    /// Takes the block of a bad page that is free out of service.
    fn withdraw(&mut self, pfn: Pfn) {
        let block = PfnRange::block(pfn, Order::BLOCK);
        if self.withdrawn.contains(&block) {
            return;
        }
        self.cut(block);
        self.withdrawn.push(block);
        self.tally.nr_withdrawn += 1;
        if WITHDRAWN_MAX < self.withdrawn.len() {
            let repaired = self.withdrawn.remove(0);
            self.put(repaired);
            self.tally.nr_repaired += 1;
        }
    }

    /// Draws what to add: an extent that stands alone, or a group of some.
    fn draw_group(&mut self) -> Option<Vec<CapacityRecord>> {
        let is_alone = self.rng.chance(0.5);
        let nr = if is_alone { 1 } else { 2 + self.rng.below(2) };
        let mut tag = [0; 16];
        if !is_alone {
            tag[..8].copy_from_slice(&self.next_tag.to_le_bytes());
            self.next_tag += 1;
        }
        let mut group = Vec::new();
        for sequence in 0..nr {
            let shift = if is_alone { 2 + self.rng.below(4) } else { 2 + self.rng.below(2) };
            let Some(pages) = self.take(GIB << shift) else {
                group.iter().for_each(|record: &CapacityRecord| self.put(record.pages));
                return None;
            };
            group.push(CapacityRecord { pages, tag, sequence: sequence as u16 });
        }
        Some(group)
    }

    /// Adds capacity to a host; false if the pool has none.
    pub(super) fn add(&mut self, at: usize, host: &mut Host<'_, '_>, claims: &mut Claims) -> bool {
        let Some(group) = self.draw_group() else { return false };
        if host.add(&group, claims) {
            let is_tagged = group.first().is_some_and(CapacityRecord::is_tagged);
            self.tally.nr_groups += u64::from(is_tagged);
            self.tally.nr_alone += u64::from(!is_tagged);
            self.granted[at].extend(group);
        } else {
            self.tally.nr_refused += 1;
            group.iter().for_each(|record| self.put(record.pages));
        }
        true
    }

    /// Takes a record and its group off the list of a host.
    fn strike_out(&mut self, at: usize, record: CapacityRecord) -> u64 {
        let is_meant = |other: &CapacityRecord| {
            *other == record || record.is_tagged() && other.tag == record.tag
        };
        let granted = &mut self.granted[at];
        let nr_pages = granted.iter().filter(|it| is_meant(it)).map(|it| it.pages.nr_pages()).sum();
        granted.retain(|other| !is_meant(other));
        nr_pages
    }

    /// Asks a host for a record and its group; later once more, if it is in use.
    pub(super) fn release(
        &mut self,
        (at, host): (usize, &mut Host<'_, '_>),
        record: CapacityRecord,
        (round, nr_tries): (u64, u32),
        claims: &mut Claims,
    ) {
        match host.release(record.pages, record.tag, claims) {
            Ok(nr_pages) => {
                let expected = self.strike_out(at, record);
                claims.same(BOOKS, "pages of a release", &nr_pages, &expected);
                self.tally.nr_released += 1;
                self.tally.nr_late += u64::from(nr_tries != 0);
                self.fetch(host, claims);
            }
            Err(Refusal::Busy) if nr_tries < TRIES_MAX => {
                self.tally.nr_busy += 1;
                let (due, nr_tries) = (round + RETRY_ROUNDS, nr_tries + 1);
                self.retries.push(Retry { host: at, record, nr_tries, due });
            }
            Err(Refusal::Busy) => {
                self.tally.nr_busy += 1;
                self.tally.nr_given_up += 1;
            }
            Err(refusal) => claims.look(POSSIBLE, Err(format!("a release: {refusal}"))),
        }
    }

    /// Asks once more for what is due.
    pub(super) fn retry(&mut self, hosts: &mut [Host<'_, '_>], round: u64, claims: &mut Claims) {
        let (due, later) = core::mem::take(&mut self.retries).into_iter().partition(|retry| {
            let Retry { due, .. } = *retry;
            due <= round
        });
        self.retries = later;
        let due: Vec<Retry> = due;
        for Retry { host: at, record, nr_tries, .. } in due {
            // It may have gone by other means.
            if self.granted[at].contains(&record) {
                let host = &mut hosts[at];
                self.release((at, host), record, (round, nr_tries), claims);
            }
        }
    }

    /// Asks for a part of an extent that stands alone: what the host says is idle, or any blocks.
    pub(super) fn ask_for_part(
        &mut self,
        (at, host): (usize, &mut Host<'_, '_>),
        record: CapacityRecord,
        claims: &mut Claims,
    ) {
        let nr_blocks = record.pages.nr_pages() / BLOCK;
        let nr = 1 + self.rng.below(nr_blocks / 2);
        let skipped = self.rng.below(nr_blocks - nr) * BLOCK;
        let start = record.pages.start().checked_add(skipped);
        let part = start.and_then(|start| PfnRange::new(start, nr * BLOCK).ok());
        let idle = host.idle_part(record.pages, BLOCK).filter(|_| self.rng.chance(0.7));
        let part = idle.or(part);
        let Some(part) = part.filter(|_| !record.is_tagged()) else { return };
        match host.release(part, record.tag, claims) {
            Ok(nr_pages) => {
                claims.same(BOOKS, "pages of a part", &nr_pages, &part.nr_pages());
                self.strike_out(at, record);
                let rest = around(record.pages, part);
                self.granted[at].extend(rest.map(|pages| CapacityRecord { pages, ..record }));
                self.tally.nr_parts += 1;
                self.fetch(host, claims);
            }
            Err(_) => self.tally.nr_busy_parts += 1,
        }
    }

    /// Takes a record and its group away without asking.
    pub(super) fn force(
        &mut self,
        (at, host): (usize, &mut Host<'_, '_>),
        record: CapacityRecord,
        round: u64,
        claims: &mut Claims,
    ) {
        host.revoke(record.pages, record.tag, round, claims);
        self.strike_out(at, record);
        self.tally.nr_forced += 1;
        self.fetch(host, claims);
    }

    /// A page goes bad, wherever it is.
    pub(super) fn poison(&mut self, hosts: &mut [Host<'_, '_>], round: u64, claims: &mut Claims) {
        let offset = self.rng.below(self.pool.nr_pages());
        // What is bad is often met again.
        let known = self.bad.iter().nth(self.rng.index(self.bad.len())).copied();
        let known = known.filter(|_| self.rng.chance(0.2));
        let Some(pfn) = known.or(self.pool.start().checked_add(offset)) else { return };
        if self.free.iter().any(|run| run.contains(pfn)) {
            self.tally.nr_bad_free += 1;
            return self.withdraw(pfn);
        }
        let has = |host: &&mut Host<'_, '_>| host.device.extents.iter().any(|it| it.contains(pfn));
        let Some(host) = hosts.iter_mut().find(has) else { return };
        match host.poison(pfn, round, claims) {
            Some(Poisoned::InUse { .. }) => self.tally.nr_bad_in_use += 1,
            Some(Poisoned::Known) => self.tally.nr_bad_known += 1,
            Some(_) => self.tally.nr_bad_idle += 1,
            None => {
                self.tally.nr_bad_unheard += 1;
                return;
            }
        }
        self.bad.insert(pfn);
        self.fetch(host, claims);
    }

    /// Fetches what a host has given up.
    pub(super) fn fetch(&mut self, host: &mut Host<'_, '_>, claims: &mut Claims) {
        for Returned { pages, bad } in host.take_returned() {
            let range = pages.start()..=pages.last();
            let expected: Vec<Pfn> = self.bad.range(range).copied().collect();
            claims.same(BAD_LEFT, "bad pages", &bad, &expected);
            if core::mem::take(&mut self.is_losing) {
                continue;
            }
            self.put(pages);
            for pfn in expected {
                self.bad.remove(&pfn);
                self.withdraw(pfn);
            }
        }
    }

    /// Looks whether every page of the pool is in exactly one place.
    pub(super) fn compare(&self, hosts: &[Host<'_, '_>], claims: &mut Claims) {
        let extents = hosts.iter().flat_map(|host| &host.device.extents);
        let mut all: Vec<PfnRange> =
            self.free.iter().chain(&self.withdrawn).chain(extents).copied().collect();
        all.sort_unstable_by_key(|pages| pages.start());
        let mut next = Some(self.pool.start());
        let mut result = Ok(());
        for pages in all {
            if next != Some(pages.start()) && result.is_ok() {
                let is_twice = next.is_none_or(|next| pages.start() < next);
                let problem = if is_twice { "is in two places" } else { "comes after nowhere" };
                result = Err(format!("{pages} {problem}"));
            }
            next = pages.last().checked_add(1);
        }
        if result.is_ok() && next != self.pool.last().checked_add(1) {
            result = Err(format!("the end of the pool, from {next:?} on, is nowhere"));
        }
        claims.look(ONE_PLACE, result);
    }

    pub(super) fn free_pages(&self) -> u64 {
        self.free.iter().map(|run| run.nr_pages()).sum()
    }

    pub(super) fn withdrawn_pages(&self) -> u64 {
        self.withdrawn.iter().map(|run| run.nr_pages()).sum()
    }

    /// Draws the pool: of each share, who has its first page.
    pub(super) fn picture(&self, hosts: &[Host<'_, '_>], nr_columns: u64) -> String {
        let share = self.pool.nr_pages().div_ceil(nr_columns).max(1);
        let letter = |pfn: Pfn| {
            let is_in = |pages: &[PfnRange]| pages.iter().any(|pages| pages.contains(pfn));
            let host = hosts.iter().zip('A'..).find(|(host, _)| is_in(&host.device.extents));
            match host {
                Some((host, letter)) if is_in(&host.device.leaving) => letter.to_ascii_lowercase(),
                Some((_, letter)) => letter,
                None if is_in(&self.withdrawn) => '!',
                None if is_in(&self.free) => '.',
                None => '?',
            }
        };
        let pfns = (0..nr_columns).filter_map(|at| self.pool.start().checked_add(at * share));
        pfns.map(letter).collect()
    }
}

/// Returns what is left of `whole` below and above `part`.
pub(super) fn around(whole: PfnRange, part: PfnRange) -> impl Iterator<Item = PfnRange> {
    let below = part.start().checked_sub(1).and_then(|last| PfnRange::between(whole.start(), last));
    let above = part.last().checked_add(1).and_then(|next| PfnRange::between(next, whole.last()));
    [below, above].into_iter().flatten()
}
