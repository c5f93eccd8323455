//! The host: machines, their page tables, and what happens when memory is asked back.

use std::collections::HashMap;

use devfolio::{
    Folio, FolioDesc, FolioMap, FolioPin, Goal, Life, Migrate, Move, Order, Pfn, PfnRange, Pgmap,
    PinKind, Request, SetRequest, StepRefused, UniqueFolio, Window,
};

use super::super::human::Count;
use super::super::rng::Rng;
use super::super::verdict::Verdict;
use super::super::workload::{Op, Workload};
use super::books::{Books, Use, units};
use super::{Args, GIB_PAGES, Mistake, Owner, pages_of};

/// More windows than are asked for are looked at.
const NR_SPARE: usize = 64;
/// Finding all that goes wrong takes no more lines than this.
const FINDINGS: usize = 3;

/// What is asked for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Wish {
    Regions,
    Blocks,
}

impl Wish {
    pub(super) const ALL: [Self; 2] = [Self::Regions, Self::Blocks];

    pub(super) const fn order(self) -> Order {
        match self {
            Self::Regions => Order::REGION,
            Self::Blocks => Order::BLOCK,
        }
    }
}

/// What came of one wish.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) order: Order,
    pub(super) free_pages: u64,
    /// How many GiB are asked for.
    pub(super) nr_gib: u64,
    /// Machines that are pinned.
    pub(super) nr_pinned: u64,
    pub(super) nr_moves: u64,
    pub(super) moved_pages: u64,
    /// What the cheapest windows cost, as the books say.
    pub(super) least_pages: u64,
    /// What the first windows cost that can be emptied.
    pub(super) scan_pages: Option<u64>,
    pub(super) refused: Option<String>,
}

/// A folio of a machine: a reference, a leaf in its nested page table, and perhaps a pin.
struct Part<'p> {
    head: Pfn,
    order: Order,
    /// Where it is in the machine, in units.
    offset: u64,
    folio: Option<Folio<'p, Owner>>,
    map: Option<FolioMap<'p, Owner>>,
    pin: Option<FolioPin<'p, Owner>>,
}

impl Part<'_> {
    fn range(&self) -> PfnRange {
        PfnRange::block(self.head, self.order)
    }
}

/// What may turn out to be wrong.
#[derive(Default)]
struct Findings {
    contents: Vec<String>,
    pins: Vec<String>,
    goals: Vec<String>,
    pages: Vec<String>,
    costs: Vec<String>,
    steps: Vec<String>,
}

pub(super) struct Host<'p, 'm> {
    pgmap: &'p Pgmap<'m, Owner>,
    range: PfnRange,
    unit: Order,
    args: &'p Args,
    books: Books,
    rng: Rng,
    /// By number.
    machines: Vec<Option<Vec<Part<'p>>>>,
    /// The machine and the part that a head belongs to.
    heads: HashMap<Pfn, (u32, usize)>,
    findings: Findings,
    nr_refused: u64,
    nr_pinned: u64,
    nr_moves: u64,
    moved_pages: u64,
    has_erred: bool,
}

impl<'p, 'm> Host<'p, 'm> {
    pub(super) fn new(
        pgmap: &'p Pgmap<'m, Owner>,
        range: PfnRange,
        unit: Order,
        args: &'p Args,
    ) -> Self {
        Self {
            pgmap,
            range,
            unit,
            args,
            books: Books::new(range),
            rng: Rng::new(args.seed, "places"),
            machines: Vec::new(),
            heads: HashMap::new(),
            findings: Findings::default(),
            nr_refused: 0,
            nr_pinned: 0,
            nr_moves: 0,
            moved_pages: 0,
            has_erred: false,
        }
    }

    pub(super) const fn nr_refused(&self) -> u64 {
        self.nr_refused
    }

    /// Replays a history, and asks for memory at some moments of its last two thirds.
    pub(super) fn replay(
        &mut self,
        workload: &Workload,
    ) -> Result<Vec<Row>, Box<dyn core::error::Error>> {
        self.machines.resize_with(workload.nr_ids as usize, || None);
        let (len, nr) = (workload.events.len(), self.args.nr_moments);
        let moments: Vec<usize> =
            (1..=nr).map(|k| len / 3 + (len - len / 3) * k / (nr + 1)).collect();
        let mut rows = Vec::new();
        for (index, event) in workload.events.iter().enumerate() {
            match event.op {
                Op::Alloc { len_bytes } => self.start(event.id, len_bytes)?,
                Op::Free => self.stop(event.id),
                Op::Get | Op::Put => {}
            }
            if moments.contains(&index) {
                for wish in Wish::ALL {
                    rows.push(self.give_back(wish)?);
                    self.inspect();
                }
            }
        }
        Ok(rows)
    }

    fn is_broken(&mut self, mistake: Mistake) -> bool {
        self.args.mistake == Some(mistake)
    }

    /// Finds memory for a machine.
    fn allocate(&mut self, nr_pages: u64, is_pinned: bool) -> Option<Vec<UniqueFolio<'p, Owner>>> {
        let (unit, nr_parts) = (self.unit, self.args.scatter);
        let request = SetRequest::pages(nr_pages).least(unit).prefer(self.args.largest);
        let mut folios = Vec::new();
        let is_scattered = 1 < nr_parts && !is_pinned && nr_pages <= self.pgmap.stats().free_pages;
        for _ in 0..if is_scattered { nr_pages / unit.nr_pages() } else { 0 } {
            let size = self.range.nr_pages() / nr_parts;
            let first = Pfn::new(self.rng.below(nr_parts) * size).head(unit);
            let part = PfnRange::new(first, size.max(unit.nr_pages())).ok()?;
            let request = Request::order(unit);
            let folio = self.pgmap.alloc_with(request.within(part));
            folios.push(folio.or_else(|_| self.pgmap.alloc_with(request)).ok()?);
        }
        if is_scattered {
            return Some(folios);
        }
        let mut descs = vec![FolioDesc::EMPTY; SetRequest::len_max(nr_pages, unit)];
        let mut set = self.pgmap.alloc_set(request, &mut descs).ok()?;
        folios.extend(core::iter::from_fn(|| set.pop()));
        Some(folios)
    }

    /// Starts a machine, if there is room for it.
    fn start(&mut self, id: u32, len_bytes: u64) -> Result<(), Box<dyn core::error::Error>> {
        let nr_pages = pages_of(len_bytes, self.unit);
        let is_pinned = self.args.pinned != 0 && u64::from(id) % self.args.pinned == 0;
        let Some(folios) = self.allocate(nr_pages, is_pinned) else {
            self.nr_refused += 1;
            return Ok(());
        };
        let (mut parts, mut offset) = (Vec::new(), 0);
        for folio in folios {
            let (head, order, folio) = (folio.head(), folio.order(), folio.publish());
            let pin = if is_pinned { Some(folio.pin(PinKind::Short)?) } else { None };
            let part =
                Part { head, order, offset, map: Some(folio.map(1)?), pin, folio: Some(folio) };
            let now = if is_pinned { Use::Pinned } else { Use::Movable };
            self.books.set(part.range(), order, now);
            self.books.write(part.range(), id, offset);
            self.heads.insert(head, (id, parts.len()));
            offset += units(part.range()).len() as u64;
            parts.push(part);
        }
        self.nr_pinned += u64::from(is_pinned);
        self.machines[id as usize] = Some(parts);
        Ok(())
    }

    fn stop(&mut self, id: u32) {
        let Some(parts) = self.machines[id as usize].take() else { return };
        let is_pinned = parts.first().is_some_and(|part| self.books.is_pinned(part.range()));
        self.nr_pinned -= u64::from(is_pinned);
        for part in parts {
            self.books.set(part.range(), Order::ZERO, Use::Free);
            self.heads.remove(&part.head);
        }
    }

    /// Gives memory back, and takes it again.
    fn give_back(&mut self, wish: Wish) -> Result<Row, Box<dyn core::error::Error>> {
        if self.is_broken(Mistake::Pin) {
            // A device forgets the pins of all machines, and tells nobody.
            self.machines.iter_mut().flatten().flatten().for_each(|part| part.pin = None);
        }
        let order = wish.order();
        let free_pages = self.range.nr_pages() - self.books.used_pages();
        let nr_gib = (free_pages / GIB_PAGES * self.args.share / 100).max(1);
        let count = (nr_gib << (Order::REGION.as_u8() - order.as_u8())) as usize;
        let scan = self.books.windows(order);
        let scan_pages = scan.get(..count).map(|costs| costs.iter().sum());
        let mut costs = scan;
        costs.sort_unstable();
        let least_pages = costs.iter().take(count).sum();
        let (nr_pinned, refused) = (self.nr_pinned, None);
        let (nr_moves, moved_pages) = (0, 0);
        let mut row = Row {
            order,
            free_pages,
            nr_gib,
            nr_pinned,
            nr_moves,
            moved_pages,
            least_pages,
            scan_pages,
            refused,
        };

        let mut windows = vec![Window::EMPTY; count + NR_SPARE];
        let mut moves = vec![Move::EMPTY; (nr_gib as usize) << 9];
        let goal = Goal::Runs { order, count, within: None };
        let max_pages = nr_gib * GIB_PAGES;
        let plan = match self.pgmap.plan_release(goal, max_pages, &mut windows, &mut moves) {
            Ok(plan) => plan,
            Err(why) => {
                row.refused = Some(why.to_string());
                return Ok(row);
            }
        };
        if (plan.least_pages, plan.moves.len()) != (least_pages, plan.moves.len()) {
            let found = Count(plan.least_pages);
            self.findings
                .costs
                .push(format!("{found} pages at least where the books say {}", Count(least_pages)));
        }
        let is_offline = wish == Wish::Regions;
        for window in plan.windows.iter().filter(|_| is_offline) {
            self.pgmap.offline(window.range)?;
        }
        let before = (self.nr_moves, self.moved_pages);
        let is_skipped = self.is_broken(Mistake::Skip);
        let nr = plan.moves.len() - usize::from(is_skipped && !plan.moves.is_empty());
        self.carry_out(&plan.moves[..nr]);
        if self.is_broken(Mistake::Cost) {
            self.move_one_more(plan.moves);
        }
        row.nr_moves = self.nr_moves - before.0;
        row.moved_pages = self.moved_pages - before.1;
        if row.moved_pages != plan.nr_pages && !is_skipped {
            let (moved, planned) = (Count(row.moved_pages), Count(plan.nr_pages));
            self.findings.costs.push(format!("{moved} pages moved where {planned} were planned"));
        }
        for window in plan.windows {
            self.check_window(window.range, is_offline)?;
        }
        Ok(row)
    }

    /// Makes the moves of a plan, a GiB in each call.
    fn carry_out(&mut self, moves: &[Move]) {
        let mut left = moves;
        // Ends: at least one move is tried on every turn, since none is larger than the budget.
        while !left.is_empty() {
            let progress = self.pgmap.run_moves(left, GIB_PAGES, self);
            left = left.get(progress.tried..).unwrap_or_default();
            if progress.tried == 0 {
                break;
            }
        }
    }

    /// Moves a folio that nobody asked for.
    fn move_one_more(&mut self, moves: &[Move]) {
        let is_free = |part: &&Part<'_>| {
            let is_planned = moves.iter().any(|it| it.to == part.head);
            part.pin.is_none() && !is_planned
        };
        let part = self.machines.iter().flatten().flatten().find(is_free);
        let Some((from, order)) = part.map(|part| (part.head, part.order)) else { return };
        // The place is found by taking it, and is free again for the move.
        let to = self.pgmap.alloc(order).map(|target| target.head());
        if let Ok(to) = to {
            self.carry_out(&[Move { from, to, order }]);
        }
    }

    /// Looks whether a window is empty, and takes it back.
    fn check_window(
        &mut self,
        range: PfnRange,
        is_offline: bool,
    ) -> Result<(), Box<dyn core::error::Error>> {
        let order = Order::floor_log2(range.nr_pages()).unwrap_or(Order::ZERO);
        let is_empty = if is_offline {
            self.pgmap.offline_state(range) == Some(Life::Drained)
        } else {
            self.pgmap.claim(range.start(), order).is_ok()
        };
        if !is_empty {
            self.findings.goals.push(format!("{range} is not empty"));
        }
        if is_offline {
            self.pgmap.online(range)?;
        }
        Ok(())
    }

    /// Looks at every folio of every machine.
    fn inspect(&mut self) {
        for (id, parts) in (0..).zip(&self.machines) {
            for part in parts.iter().flatten() {
                let info = part
                    .folio
                    .as_ref()
                    .map(|folio| (folio.head(), folio.order(), folio.mapcount()));
                let is_there = info.is_none_or(|info| info == (part.head, part.order, 1));
                if !is_there || !self.books.reads(part.range(), id, part.offset) {
                    self.findings.contents.push(format!("machine {id} at {}", part.head));
                }
            }
        }
        let (free, used) = (self.pgmap.stats().free_pages, self.books.used_pages());
        if free + used != self.range.nr_pages() {
            let why = format!("{} pages free and {} used", Count(free), Count(used));
            self.findings.pages.push(why);
        }
    }

    /// Stops all machines, and says what was found.
    pub(super) fn end(mut self, verdict: &mut Verdict) {
        for id in 0..self.machines.len() as u32 {
            self.stop(id);
        }
        self.inspect();
        let Findings { contents, pins, goals, pages, costs, steps } = &self.findings;
        let (moves, moved) = (Count(self.nr_moves), Count(self.moved_pages));
        let mut note = |claim: &str, findings: &[String]| {
            let found = match findings {
                [] => Ok(format!("{moves} folios, {moved} pages")),
                _ => Err(findings[..findings.len().min(FINDINGS)].join("; ")),
            };
            verdict.note(claim, found);
        };
        note("what was moved has the same contents", contents);
        note("no pinned page was moved", pins);
        note("every window that was planned is empty", goals);
        note("pages are free or used, and none is lost", pages);
        note("what was moved is what was planned, and the least is known", costs);
        note("every step was made", steps);
        let sound = self.pgmap.check().map(|_| "checked".to_owned());
        verdict.note("the metadata is sound", sound.map_err(|error| error.to_string()));
        let free = self.pgmap.stats().free_pages;
        verdict.note_same("in the end all pages are free", free, self.range.nr_pages());
    }
}

impl<'p> Migrate<'p, Owner> for Host<'p, '_> {
    type Error = ();

    fn freeze(&mut self, planned: Move) -> Option<(UniqueFolio<'p, Owner>, u32)> {
        let &(id, part) = self.heads.get(&planned.from)?;
        let part = self.machines[id as usize].as_mut()?.get_mut(part)?;
        // The leaf goes, and the guest waits at its next access.
        part.map = None;
        let folio = part.folio.take()?;
        match folio.try_freeze() {
            Ok(folio) => Some((folio, 1)),
            Err(busy) => {
                part.map = busy.folio.map(1).ok();
                part.folio = Some(busy.folio);
                None
            }
        }
    }

    fn copy(&mut self, from: PfnRange, to: PfnRange) -> Result<(), ()> {
        if self.books.is_pinned(from) {
            self.findings.pins.push(format!("{from} was pinned"));
        }
        if !self.is_broken(Mistake::Copy) {
            self.books.copy(from, to);
        }
        self.moved_pages += from.nr_pages();
        self.nr_moves += 1;
        Ok(())
    }

    fn rehome(&mut self, planned: Move, (): &mut (), (): &mut ()) -> Result<(), ()> {
        let (id, index) = self.heads.remove(&planned.from).ok_or(())?;
        let parts = self.machines[id as usize].as_mut().ok_or(())?;
        let now = if self.books.is_pinned(planned.source()) { Use::Pinned } else { Use::Movable };
        self.books.set(planned.source(), Order::ZERO, Use::Free);
        self.books.set(planned.target(), planned.order, now);
        parts[index].head = planned.to;
        self.heads.insert(planned.to, (id, index));
        Ok(())
    }

    fn moved(&mut self, planned: Move, folio: Folio<'p, Owner>) {
        if self.is_broken(Mistake::Leak) && !core::mem::replace(&mut self.has_erred, true) {
            let _ = folio.into_raw();
            return;
        }
        let Some(&(id, index)) = self.heads.get(&planned.to) else { return };
        let Some(parts) = self.machines[id as usize].as_mut() else { return };
        parts[index].map = folio.map(1).ok();
        parts[index].folio = Some(folio);
    }

    fn stayed(&mut self, planned: Move, why: StepRefused<()>, folio: Option<Folio<'p, Owner>>) {
        self.findings.steps.push(format!("{planned:?}: {why:?}"));
        let Some(&(id, index)) = self.heads.get(&planned.from) else { return };
        let Some(parts) = self.machines[id as usize].as_mut() else { return };
        if let Some(folio) = folio {
            parts[index].map = folio.map(1).ok();
            parts[index].folio = Some(folio);
        }
    }
}
