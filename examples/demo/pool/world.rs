//! The pool at work, round by round, and how it ends.

use core::cell::RefCell;
use std::io::{self, Write};
use std::time::Instant;

use devfolio::{CapacityRecord, Life, PfnRange, Reread};

use super::super::human::{Bytes, Count};
use super::super::rng::Rng;
use super::super::verdict::Verdict;
use super::claims::{BOOKS, Claims, POSSIBLE};
use super::device::Shelf;
use super::fabric::Fabric;
use super::host::Host;
use super::{Args, Mistake, Span};

/// Rounds between two looks at every folio of every host, and between two readings of a list.
const LOOK_ROUNDS: u64 = 8;
const LIST_ROUNDS: u64 = 32;
/// Rounds until the host that lost its device has another one.
const AWAY_ROUNDS: u64 = 20;
const NR_COLUMNS: u32 = 64;

/// The host that loses its whole device.
#[derive(Clone, Copy, Debug)]
struct Strike {
    host: usize,
    round: u64,
    nr_extents: usize,
    nr_pages: u64,
    nr_told: u64,
    /// Extents whose last holder had yet to let go.
    nr_late: usize,
}

/// The manager and its hosts.
#[derive(Debug)]
pub(super) struct World<'a, 'm> {
    pool: PfnRange,
    shelf: &'a RefCell<Shelf<'m>>,
    nr_pieces: usize,
    hosts: Vec<Host<'a, 'm>>,
    fabric: Fabric,
    claims: Claims,
    rng: Rng,
    round: u64,
    strikes: Vec<Strike>,
}

impl<'a, 'm> World<'a, 'm> {
    pub(super) fn new(
        pool: PfnRange,
        shelf: &'a RefCell<Shelf<'m>>,
        hosts: Vec<Host<'a, 'm>>,
        seed: u64,
    ) -> Self {
        Self {
            pool,
            shelf,
            nr_pieces: shelf.borrow().len(),
            fabric: Fabric::new(pool, hosts.len(), seed),
            hosts,
            claims: Claims::default(),
            rng: Rng::new(seed, "pool"),
            round: 0,
            strikes: Vec::new(),
        }
    }

    /// Lets rounds pass; in the middle a host loses its device.
    pub(super) fn live(&mut self, args: &Args, out: &mut dyn Write) -> io::Result<()> {
        match args.mistake {
            Some(Mistake::Leak) => self.hosts[0].machines.is_forgetful = true,
            Some(Mistake::Lose) => self.fabric.is_losing = true,
            Some(Mistake::Twice) => self.fabric.is_giving_twice = true,
            Some(Mistake::Meta) => self.shelf.borrow_mut().is_dropping = true,
            Some(Mistake::Part) => self.hosts.iter_mut().for_each(|host| {
                host.device.is_grasping = true;
            }),
            Some(Mistake::Told) | None => {}
        }
        let start = Instant::now();
        // Ends: with the rounds, or the time.
        loop {
            let (is_middle, is_over) = match args.span {
                Span::Rounds(nr) => (nr / 2 <= self.round, nr <= self.round),
                Span::Time(time) => (time / 2 <= start.elapsed(), time <= start.elapsed()),
            };
            if is_middle && self.strikes.is_empty() {
                self.strike(args.mistake, out)?;
            }
            if is_over {
                return self.draw("at the end", out);
            }
            self.step();
            self.round += 1;
        }
    }

    /// Returns how many rounds have passed.
    pub(super) const fn round(&self) -> u64 {
        self.round
    }

    /// One round.
    fn step(&mut self) {
        for host in &mut self.hosts {
            host.run(self.round, &self.fabric.bad, &mut self.claims);
            self.fabric.fetch(host, &mut self.claims);
        }
        for at in 0..self.hosts.len() {
            self.serve(at);
        }
        let at = self.rng.index(self.hosts.len());
        if self.rng.chance(0.25) {
            self.ask(at);
        }
        self.fabric.retry(&mut self.hosts, self.round, &mut self.claims);
        if self.rng.chance(0.1) {
            self.fabric.poison(&mut self.hosts, self.round, &mut self.claims);
        }
        if let Some(record) = self.any_record(at) {
            let host = &mut self.hosts[at];
            if self.rng.chance(0.02) {
                self.fabric.force((at, host), record, self.round, &mut self.claims);
            } else if self.rng.chance(0.1) {
                self.fabric.ask_for_part((at, host), record, &mut self.claims);
            }
        }
        if self.round % LIST_ROUNDS == LIST_ROUNDS - 1 {
            self.reread(at);
        }
        self.look();
        if self.round % LOOK_ROUNDS == 0 {
            self.look_at_all();
        }
    }

    /// Gives a host more if it could not start a machine; if there is no more, another gives.
    fn serve(&mut self, at: usize) {
        let is_away = |strike: &Strike| {
            strike.host == at && self.round < strike.round.saturating_add(AWAY_ROUNDS)
        };
        if self.strikes.iter().any(is_away) {
            return;
        }
        let is_heard = self.rng.chance(0.2);
        let host = &mut self.hosts[at];
        let is_asking = core::mem::take(&mut host.is_short) && is_heard;
        if is_asking && !self.fabric.add(at, host, &mut self.claims) {
            let other = (at + 1 + self.rng.index(self.hosts.len() - 1)) % self.hosts.len();
            self.ask(other);
        }
    }

    /// Asks a host for capacity: for what it uses least, or for anything.
    fn ask(&mut self, at: usize) {
        let record = if self.rng.chance(0.7) {
            self.hosts[at].emptiest(&self.fabric.granted[at])
        } else {
            self.any_record(at)
        };
        let Some(record) = record else { return };
        let host = &mut self.hosts[at];
        self.fabric.release((at, host), record, (self.round, 0), &mut self.claims);
    }

    fn any_record(&mut self, at: usize) -> Option<CapacityRecord> {
        let granted = &self.fabric.granted[at];
        granted.get(self.rng.index(granted.len())).copied()
    }

    /// A host reads its list again, as after a crash, and finds what it has.
    fn reread(&mut self, at: usize) {
        let listed = &self.fabric.granted[at];
        let reread = self.hosts[at].reread(listed, self.round, &mut self.claims);
        let expected = Reread { nr_known: listed.len(), ..Reread::default() };
        self.claims.same(BOOKS, "a list read again", &reread, &Ok(expected));
        self.fabric.tally.nr_lists += 1;
    }

    /// Looks whether everything is in its place.
    fn look(&mut self) {
        self.fabric.compare(&self.hosts, &mut self.claims);
        for finding in self.hosts.iter_mut().flat_map(|host| host.device.findings.drain(..)) {
            self.claims.look(POSSIBLE, Err(finding));
        }
    }

    /// Looks at every folio of every host.
    fn look_at_all(&mut self) {
        for (host, granted) in self.hosts.iter().zip(&self.fabric.granted) {
            host.compare(granted, &mut self.claims);
            host.check(&mut self.claims);
        }
    }

    /// The whole device of a host is gone, all at once.
    fn strike(&mut self, mistake: Option<Mistake>, out: &mut dyn Write) -> io::Result<()> {
        // The one with most machines, so that there is somebody to tell.
        let busiest = (0..self.hosts.len()).max_by_key(|&at| self.hosts[at].machines.len());
        let at = busiest.unwrap_or(0);
        self.draw("before a host loses its device", out)?;
        let host = &mut self.hosts[at];
        writeln!(out, "\nHost {}, with its device", name(at))?;
        write!(out, "{}", host.device.pgmap.draw(NR_COLUMNS, 1))?;
        host.is_deaf = mistake == Some(Mistake::Told);
        let (nr_told, lost) = (host.nr_told, core::mem::take(&mut self.fabric.granted[at]));
        let nr_leaving = host.device.leaving.len();
        // Its list is empty.
        let reread = host.reread(&[], self.round, &mut self.claims);
        let expected = Reread { nr_gone: lost.len(), ..Reread::default() };
        self.claims.same(BOOKS, "the list of a lost device", &reread, &Ok(expected));
        writeln!(out, "and without: what is left is still pinned")?;
        write!(out, "{}", host.device.pgmap.draw(NR_COLUMNS, 1))?;
        self.strikes.push(Strike {
            host: at,
            round: self.round,
            nr_extents: lost.len(),
            nr_pages: lost.iter().map(|record| record.pages.nr_pages()).sum(),
            nr_told: host.nr_told - nr_told,
            nr_late: host.device.leaving.len().saturating_sub(nr_leaving),
        });
        self.fabric.fetch(host, &mut self.claims);
        self.look();
        self.look_at_all();
        Ok(())
    }

    fn draw(&self, when: &str, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "\nThe pool {when}, in round {}", Count(self.round))?;
        writeln!(out, "{}", self.fabric.picture(&self.hosts, NR_COLUMNS.into()))
    }

    /// Every machine ends and all capacity comes back; notes whether that is so.
    pub(super) fn end(&mut self, verdict: &mut Verdict) {
        for at in 0..self.hosts.len() {
            let host = &mut self.hosts[at];
            host.stop(self.round, &mut self.claims);
            self.fabric.fetch(host, &mut self.claims);
            for record in self.fabric.granted[at].clone() {
                // It may have come back with its group.
                if self.fabric.granted[at].contains(&record) {
                    let when = (self.round, u32::MAX);
                    self.fabric.release((at, host), record, when, &mut self.claims);
                }
            }
        }
        self.look();
        self.look_at_all();
        core::mem::take(&mut self.claims).tell(verdict);

        let pages = self.fabric.free_pages() + self.fabric.withdrawn_pages();
        verdict.note_same("all capacity came back", pages, self.pool.nr_pages());
        let nr_pieces = self.shelf.borrow().len() as u64;
        let claim = "all metadata memory came back";
        verdict.note_same(claim, nr_pieces, self.nr_pieces as u64);
        let mut nr_busy = 0;
        let each = self.hosts.iter().map(|host| (host.device.pgmap, host.nr_records()));
        let mut nr_drained = 0;
        for (pgmap, nr_records) in each {
            pgmap.for_each_busy(|_| nr_busy += 1);
            nr_drained += u64::from(pgmap.kill() == Life::Drained && nr_records == 0);
        }
        verdict.note_same("no folio is in use", nr_busy, 0);
        verdict.note_same("each host is drained", nr_drained, self.hosts.len() as u64);
        let sum = |nr: fn(&Host<'_, '_>) -> u64| self.hosts.iter().map(nr).sum::<u64>();
        let nr_freed = sum(|host| host.machines.tally.nr_freed);
        let nr_folios = sum(|host| host.machines.tally.nr_folios);
        verdict.note_same("each folio was freed once", nr_freed, nr_folios);
        verdict.note_same("one host lost its device", self.strikes.len() as u64, 1);
    }

    /// Writes what was done.
    pub(super) fn report(&self, nr_rounds: u64, out: &mut dyn Write) -> io::Result<()> {
        let tally = &self.fabric.tally;
        let sum = |nr: fn(&Host<'_, '_>) -> u64| Count(self.hosts.iter().map(nr).sum());
        let mut rows = vec![
            ("rounds", Count(nr_rounds).to_string()),
            ("machines started", sum(|host| host.machines.tally.nr_started).to_string()),
            ("  turned away", sum(|host| host.machines.tally.nr_refused).to_string()),
            ("  ended by a loss", sum(|host| host.machines.tally.nr_killed).to_string()),
            ("folios given", sum(|host| host.machines.tally.nr_folios).to_string()),
            ("  pinned", sum(|host| host.machines.tally.nr_pins).to_string()),
            ("puts and unpins", sum(|host| host.machines.tally.nr_puts).to_string()),
        ];
        let mut add = |name, nr| rows.push((name, Count(nr).to_string()));
        add("groups added", tally.nr_groups);
        add("single extents added", tally.nr_alone);
        add("  refused, no room", tally.nr_refused);
        add("releases", tally.nr_released);
        add("  refused, in use", tally.nr_busy);
        add("  granted later", tally.nr_late);
        add("  given up", tally.nr_given_up);
        add("parts given back", tally.nr_parts);
        add("  refused, part in use", tally.nr_busy_parts);
        add("forced releases", tally.nr_forced);
        add("holders told", self.hosts.iter().map(|host| host.nr_told).sum());
        add("lists read again", tally.nr_lists);
        add("metadata lent", self.shelf.borrow().nr_lent);
        add("bad pages, in use", tally.nr_bad_in_use);
        add("  free at a host", tally.nr_bad_idle);
        add("  free at the manager", tally.nr_bad_free);
        add("  met again", tally.nr_bad_known);
        add("  without room", tally.nr_bad_unheard);
        add("blocks withdrawn", tally.nr_withdrawn);
        add("  repaired", tally.nr_repaired);
        writeln!(out, "\nWhat happened")?;
        for (name, value) in rows {
            writeln!(out, "  {name:<22}{value}")?;
        }
        for Strike { host, round, nr_extents, nr_pages, nr_told, nr_late } in &self.strikes {
            let (host, size) = (name(*host), Bytes::of_pages(*nr_pages));
            write!(out, "  device lost           host {host}, round {}: ", Count(*round))?;
            write!(out, "{nr_extents} extents, {size}, {} folios told, ", Count(*nr_told))?;
            writeln!(out, "{nr_late} extents drained later")?;
        }
        let [free, withdrawn] = [self.fabric.free_pages(), self.fabric.withdrawn_pages()];
        let (free, withdrawn) = (Bytes::of_pages(free), Bytes::of_pages(withdrawn));
        let rest = self.hosts.iter().flat_map(|host| &host.device.extents);
        let rest = Bytes::of_pages(rest.map(|pages| pages.nr_pages()).sum());
        write!(out, "  when all had ended    {free} with the manager, ")?;
        writeln!(out, "{withdrawn} withdrawn, {rest} with hosts")?;
        Ok(())
    }
}

/// Returns the letter of a host.
fn name(at: usize) -> char {
    (0..at).fold('A', |letter, _| char::from_u32(letter as u32 + 1).unwrap_or(letter))
}
