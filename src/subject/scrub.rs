//! Scrub policies over memory that is really there: whoever holds a folio writes its mark over all
//! of it, and whoever is handed one finds zeroes, or its own mark.
//!
//! Bytes say what happens and what the hook answers: it zeroes, fails half-way, puts off, knows the
//! last user, lies, or panics. Books say who has which pages; a hook that is asked for pages which
//! somebody has, a mark that is gone and a page that is lost are noticed.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    reason = "numbers below 2^14; an oracle that panics has found something"
)]

mod books;

use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use core::panic::AssertUnwindSafe;
use std::panic::{catch_unwind, resume_unwind};

use books::{Books, FRESH, Held, Keeper, NR_PAGES, START, State, USERS, WORDS, mark};
use spin::Mutex;

use super::bytes::Bytes;
use super::raw;
use crate::folio::RawFolio;
use crate::meta::{MetaLine, MetaSize, Tables};
use crate::pgmap::{
    AllocError, Attach, Contents, ExtentAttrs, ExtentSlot, FolioDesc, Magazine, OnDrop, Pgmap,
    Pieces, Policy, RawUnique, Scrub, SplitError, Stats, UniqueFolio, UniqueSet,
};
use crate::units::{Order, Pfn, PfnRange};
use crate::zone::{Content, Request, SetRequest};

const STEPS_MAX: usize = 96;

/// Runs what bytes say, and looks at every folio that is handed out.
///
/// # Errors
///
/// Returns who was handed what another one left, what was asked of the hook that ought not to be,
/// or what is lost.
pub fn run_scrub(bytes: &[u8]) -> Result<(), String> {
    let mut bytes = Bytes::new(bytes);
    let range = PfnRange::new(Pfn::new(START), NR_PAGES).map_err(|error| error.to_string())?;
    let size = MetaSize::of(range, Tables::Dense).poison(4);
    let mut lines: Vec<_> = (0..size.lines()).map(|_| MetaLine::default()).collect();
    let slots = [ExtentSlot::new()];
    let policy = Policy {
        scrub: bytes.one_of([
            Scrub::OnAlloc,
            Scrub::OnFree,
            Scrub::OnOwnerChange,
            Scrub::OnOwnerChange,
            Scrub::OnFree,
            Scrub::Never,
        ]),
        on_drop: bytes.one_of([OnDrop::Release, OnDrop::Release, OnDrop::Keep]),
        ..Policy::generic()
    };
    let contents = bytes.one_of([Contents::Unknown, Contents::Unknown, Contents::Zeroed]);
    let word = if contents == Contents::Zeroed { 0 } else { FRESH };
    let keeper = Keeper(Mutex::new(Books {
        memory: vec![[word; WORDS]; NR_PAGES as usize],
        scrub: policy.scrub,
        held: Vec::new(),
        answers: VecDeque::new(),
        verdicts: VecDeque::new(),
        left: Vec::new(),
        has_panicked: false,
        was_spoilt: false,
        on_drop: policy.on_drop,
        wrong: None,
    }));
    let pgmap = Pgmap::new(keeper, policy, &slots);
    let attrs = ExtentAttrs { contents, ..ExtentAttrs::NEW };
    let added = pgmap.add_extent(range, attrs, Tables::Dense, &mut lines, Attach::Zeroed);
    added.map_err(|error| error.to_string())?;
    let mut magazines = [pgmap.magazine(Order::ZERO), pgmap.magazine(Order::BLOCK)];
    for number in 0..STEPS_MAX {
        if bytes.is_empty() {
            break;
        }
        let step = bytes.below(32);
        prepare(&pgmap, &mut bytes);
        let mut turn = Turn { pgmap: &pgmap, bytes: &mut bytes };
        let done = catch_unwind(AssertUnwindSafe(|| turn.make(step, &mut magazines)));
        if let Err(what) = done {
            // Only the hook may panic.
            if !pgmap.ops().books().has_panicked {
                resume_unwind(what);
            }
        }
        let nr_idle = magazines[0].len() as u64 + ((magazines[1].len() as u64) << 9);
        look(&pgmap, nr_idle, number % 8 == 0)
            .map_err(|why| format!("step {number}, {step}, {:?}: {why}", policy.scrub))?;
    }
    drop(magazines);
    give_everything_back(&pgmap)?;
    let report = pgmap.check().map_err(|error| error.to_string())?;
    if report.free_pages != NR_PAGES {
        return Err(format!("{report:?} when all is given back"));
    }
    Ok(())
}

/// Says what the hooks do in the next step.
fn prepare(pgmap: &Pgmap<'_, Keeper>, bytes: &mut Bytes<'_>) {
    let (nr_answers, verdict) = (bytes.below(6), bytes.below(8));
    let mut books = pgmap.ops().books();
    books.left.clear();
    books.has_panicked = false;
    books.answers.clear();
    books.answers.extend((0..nr_answers).map(|_| bytes.below(10)));
    books.verdicts.clear();
    books.verdicts.push_back(verdict);
}

/// Compares the books with the sums, and at times with everything.
fn look(pgmap: &Pgmap<'_, Keeper>, nr_idle: u64, is_thorough: bool) -> Result<(), String> {
    let books = pgmap.ops().books();
    if let Some(wrong) = &books.wrong {
        return Err(wrong.clone());
    }
    if let Some(page) = books.lingers() {
        return Err(format!("somebody's mark lingers in page {page:#x}"));
    }
    if is_thorough {
        let Stats { unique, live, kept, retired, .. } = pgmap.stats();
        let seen = [unique, live, kept, retired].map(|tally| tally.nr_pages);
        let noted = [
            books.nr_pages(&[State::Unique]) + nr_idle,
            books.nr_pages(&[State::Live]),
            books.nr_pages(&[State::Kept, State::Pending]),
            books.nr_pages(&[State::Retired]),
        ];
        if seen != noted {
            return Err(format!("{seen:?} pages, of which the books have {noted:?}"));
        }
        drop(books);
        pgmap.check().map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// One step.
struct Turn<'t, 'p, 'm, 'b> {
    pgmap: &'p Pgmap<'m, Keeper>,
    bytes: &'t mut Bytes<'b>,
}

type Folio<'p> = UniqueFolio<'p, Keeper>;

impl<'p> Turn<'_, 'p, '_, '_> {
    fn make(&mut self, step: u8, magazines: &mut [Magazine<'p, Keeper>; 2]) {
        match step {
            0..9 => self.allocate(step),
            9..12 => self.claim(step),
            12..16 => self.use_magazine(step, magazines),
            16..20 => self.give_back(step),
            20..25 => self.reshape(step),
            25..28 => self.park(step),
            28 => self.finish_pending(),
            29 => self.publish(),
            30 => self.let_go(),
            _ => self.spoil(),
        }
    }

    fn order(&mut self) -> Order {
        Order::new(self.bytes.one_of([0, 0, 1, 2, 3, 4, 8, 9])).unwrap_or(Order::ZERO)
    }

    fn user(&mut self) -> u64 {
        u64::from(1 + self.bytes.below(USERS))
    }

    fn pfn(&mut self) -> Pfn {
        let page = u64::from(self.bytes.below(64)) | u64::from(self.bytes.below(9)) << 6;
        Pfn::new(START + page % NR_PAGES)
    }

    fn allocate(&mut self, step: u8) {
        let (order, user) = (self.order(), self.user());
        let request = Request::order(order);
        let request = request.content(self.bytes.one_of([
            Content::Any,
            Content::Any,
            Content::PreferDirty,
            Content::OnlyClean,
        ]));
        // Who does not say who it is gets nothing as it was.
        let is_named = self.bytes.below(4) != 0;
        let request = if is_named { request.for_owner(user) } else { request };
        let mut descs = [FolioDesc::EMPTY; 24];
        let number = usize::from(1 + self.bytes.below(6));
        let set = match step {
            0..3 => return self.receive_one(self.pgmap.alloc(order), user),
            3 | 4 => {
                let least = Order::new(order.as_u8() / 2).unwrap_or(order);
                return self.receive_one(self.pgmap.alloc_with(request.down_to(least)), user);
            }
            5 | 6 => {
                let set = SetRequest::pages(number as u64 * 5).prefer(order);
                let set = if is_named { set.for_owner(user) } else { set };
                self.pgmap.alloc_set(set, &mut descs)
            }
            7 => self.pgmap.alloc_bulk(request, number, &mut descs),
            _ => self.pgmap.alloc_run(number as u64 * 3, request, &mut descs),
        };
        if let Ok(set) = set {
            self.receive_all(set, user);
        }
    }

    fn receive_one(&self, folio: Result<Folio<'p>, AllocError>, user: u64) {
        if let Ok(folio) = folio {
            self.pgmap.ops().receive(folio, user);
        }
    }

    fn receive_all(&self, mut set: UniqueSet<'p, '_, Keeper>, user: u64) {
        // Ends: the set shrinks on every turn.
        while let Some(folio) = set.pop() {
            self.pgmap.ops().receive(folio, user);
        }
    }

    fn claim(&mut self, step: u8) {
        let (pfn, user) = (self.pfn(), self.user());
        if step < 11 {
            let order = self.order();
            if let Ok(folio) = self.pgmap.claim(pfn.head(order), order) {
                self.pgmap.ops().receive(folio, user);
            }
            return;
        }
        let mut descs = [FolioDesc::EMPTY; 24];
        let nr_pages = u64::from(1 + self.bytes.below(40));
        let Ok(range) = PfnRange::new(pfn, nr_pages) else { return };
        if let Ok(set) = self.pgmap.claim_range(range, &mut descs) {
            self.receive_all(set, user);
        }
    }

    fn use_magazine(&mut self, step: u8, magazines: &mut [Magazine<'p, Keeper>; 2]) {
        let (user, which) = (self.user(), usize::from(self.bytes.below(4) == 0));
        let magazine = &mut magazines[which];
        if step < 14 {
            for _ in 0..=self.bytes.below(3) {
                if let Ok(folio) = magazine.alloc() {
                    self.pgmap.ops().receive(folio, user);
                }
            }
            return;
        }
        let Some((folio, _)) = self.unique() else { return };
        match self.bytes.below(8) {
            0 => magazine.drain(),
            1 | 2 => {
                self.pgmap.ops().zero(folio.range());
                return magazine.release_clean(folio);
            }
            _ => {}
        }
        magazine.release(folio);
    }

    /// Takes an exclusive folio out of the books.
    fn unique(&mut self) -> Option<(Folio<'p>, u64)> {
        let which = usize::from(self.bytes.below(64));
        let held = self.pgmap.ops().books().take(State::Unique, which)?;
        let raw = RawUnique::from_u64(held.range.start().as_u64());
        let folio = raw::unique(self.pgmap, raw);
        if folio.as_ref().map(UniqueFolio::range) != Some(held.range) {
            self.pgmap.ops().books().object(format!("{held:?} is {folio:?}"));
        }
        Some((folio?, held.user))
    }

    fn give_back(&mut self, step: u8) {
        let Some((folio, user)) = self.unique() else { return };
        match step {
            16 => folio.release(),
            17 => self.pgmap.ops().drop_unique(folio, user),
            18 => {
                self.pgmap.ops().zero(folio.range());
                folio.release_clean();
            }
            _ => {
                self.pgmap.ops().books().hold(folio.range(), 0, State::Retired);
                folio.retire();
            }
        }
    }

    fn reshape(&mut self, step: u8) {
        let Some((folio, user)) = self.unique() else { return };
        let (head, nr_pages) = (folio.head(), folio.nr_pages());
        let order = Order::new(self.bytes.below(4)).unwrap_or(Order::ZERO);
        let (from, to) = (u64::from(self.bytes.below(16)), u64::from(self.bytes.below(16)));
        // Sixteenths of the folio, at least a page.
        let from = from * nr_pages / 16;
        let len = (to * nr_pages / 16).clamp(1, nr_pages - from);
        let Some(part) = head.checked_add(from).and_then(|it| PfnRange::new(it, len).ok()) else {
            return;
        };
        match step {
            20 => {
                let least = Order::new(folio.order().as_u8().saturating_sub(4));
                self.settle(folio.split(order.max(least.unwrap_or(order))), user);
            }
            21 => match folio.split_around(part.start(), order) {
                Ok((one, rest)) => {
                    self.pgmap.ops().hold_on([(one.range(), one.into_raw())], user);
                    self.settle(Ok(rest), user);
                }
                Err(error) => self.settle(Err(error), user),
            },
            22 => self.settle(folio.trim(part), user),
            23 => self.settle(folio.release_part(part), user),
            _ => self.merge(folio, user),
        }
    }

    fn settle(&self, pieces: Result<Pieces<'p, Keeper>, SplitError<'p, Keeper>>, user: u64) {
        let hold = |folio: Folio<'p>| (folio.range(), folio.into_raw());
        match pieces {
            Ok(pieces) => self.pgmap.ops().hold_on(pieces.map(hold), user),
            Err(error) => self.pgmap.ops().hold_on([hold(error.folio)], user),
        }
    }

    fn merge(&mut self, folio: Folio<'p>, user: u64) {
        let buddy = folio.head().buddy(folio.order());
        let place = {
            let books = self.pgmap.ops().books();
            let is_buddy = |held: &Held| held.range.start() == buddy;
            let mut uniques = books.held.iter().filter(|held| held.state == State::Unique);
            uniques.position(is_buddy)
        };
        let held = place.and_then(|it| self.pgmap.ops().books().take(State::Unique, it));
        let raw = RawUnique::from_u64(buddy.as_u64());
        let other = held.and_then(|held| Some((raw::unique(self.pgmap, raw)?, held.user)));
        let keeper = self.pgmap.ops();
        let hold = |folio: Folio<'p>| (folio.range(), folio.into_raw());
        let Some((other, other_user)) = other else { return keeper.hold_on([hold(folio)], user) };
        match folio.merge(other) {
            Ok(merged) => {
                keeper.books().fill(merged.range(), mark(user));
                keeper.hold_on([hold(merged)], user);
            }
            Err(error) => {
                keeper.hold_on([hold(error.folio)], user);
                keeper.hold_on([hold(error.buddy)], other_user);
            }
        }
    }

    fn park(&mut self, step: u8) {
        let keeper = self.pgmap.ops();
        if step == 25 {
            if let Some((folio, user)) = self.unique() {
                keeper.books().hold(folio.range(), user, State::Kept);
                folio.keep();
            }
            return;
        }
        let which = usize::from(self.bytes.below(64));
        let (is_retired, is_revived) = (step == 27, self.bytes.below(2) == 0);
        let state = if is_retired { State::Retired } else { State::Kept };
        let Some(held) = keeper.books().take(state, which) else { return };
        let head = held.range.start();
        let back = if is_retired {
            self.pgmap.claim_retired(head)
        } else if is_revived {
            match self.pgmap.revive(head) {
                Ok(folio) => {
                    keeper.books().hold(held.range, held.user, State::Live);
                    let _ = folio.into_raw();
                }
                Err(error) => keeper.books().object(format!("{held:?}: {error}")),
            }
            return;
        } else {
            self.pgmap.claim_kept(head)
        };
        match back {
            Ok(folio) => {
                // What is kept is its user's; what was in quarantine is whosever repaired it.
                let user = held.user.max(1);
                keeper.books().fill(held.range, mark(user));
                keeper.hold_on([(folio.range(), folio.into_raw())], user);
            }
            Err(error) => keeper.books().object(format!("{held:?}: {error}")),
        }
    }

    /// Scrubs what was put off.
    fn finish_pending(&mut self) {
        let which = usize::from(self.bytes.below(64));
        finish_pending(self.pgmap, which);
    }

    fn publish(&mut self) {
        if let Some((folio, user)) = self.unique() {
            self.pgmap.ops().books().hold(folio.range(), user, State::Live);
            let _ = folio.publish().into_raw();
        }
    }

    /// Drops the last reference of a folio, or freezes it.
    fn let_go(&mut self) {
        let which = usize::from(self.bytes.below(64));
        let Some(held) = self.pgmap.ops().books().take(State::Live, which) else { return };
        let raw = RawFolio::from_u64(held.range.start().as_u64());
        let Some(folio) = raw::folio(self.pgmap, raw) else { return };
        if self.bytes.below(4) == 0 {
            if let Ok(folio) = folio.try_freeze() {
                self.pgmap.ops().hold_on([(folio.range(), folio.into_raw())], held.user);
            }
            return;
        }
        drop(folio);
    }

    /// Says that a page is bad, or that all are repaired.
    fn spoil(&mut self) {
        let pfn = self.pfn();
        if self.bytes.below(3) == 0 {
            repair(self.pgmap);
        } else {
            self.pgmap.ops().books().was_spoilt = true;
            let _ = self.pgmap.poison(pfn);
        }
    }
}

fn repair(pgmap: &Pgmap<'_, Keeper>) {
    let bad: Vec<_> = pgmap.poisoned().collect();
    for pfn in bad {
        let _ = pgmap.unpoison(pfn);
    }
}

fn finish_pending(pgmap: &Pgmap<'_, Keeper>, which: usize) {
    let keeper = pgmap.ops();
    let Some(held) = keeper.books().take(State::Pending, which) else { return };
    match pgmap.claim_kept(held.range.start()) {
        Ok(folio) => {
            keeper.zero(folio.range());
            folio.release_clean();
        }
        Err(error) => keeper.books().object(format!("{held:?}: {error}")),
    }
}

fn give_everything_back(pgmap: &Pgmap<'_, Keeper>) -> Result<(), String> {
    let keeper = pgmap.ops();
    keeper.books().answers.clear();
    keeper.books().verdicts.clear();
    repair(pgmap);
    // Ends: each turn gives a folio back; one that is dropped may be kept first.
    while let Some(held) = { keeper.books().held.first().copied() } {
        let head = held.range.start();
        let Some(held) = keeper.books().take(held.state, 0) else { break };
        let folio = match held.state {
            State::Unique => raw::unique(pgmap, RawUnique::from_u64(head.as_u64())),
            State::Live => {
                drop(raw::folio(pgmap, RawFolio::from_u64(head.as_u64())));
                continue;
            }
            State::Kept | State::Pending => pgmap.claim_kept(head).ok(),
            State::Retired => pgmap.claim_retired(head).ok(),
        };
        match folio {
            Some(folio) => folio.release(),
            None => return Err(format!("{held:?} is not there any more")),
        }
    }
    look(pgmap, 0, true)
}
