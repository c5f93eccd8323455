//! The books: who has which pages, and what is in them; and the owner, whose hooks read them.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use std::panic::resume_unwind;

use spin::{Mutex, MutexGuard};

use crate::pgmap::{
    HookCx, OnDrop, PgmapOps, RawUnique, Scrub, ScrubJob, ScrubWhen, Scrubbed, UniqueFolio,
};
use crate::units::{Pfn, PfnRange};

/// A whole block, and parts of two.
pub(super) const START: u64 = 0x1f8;
pub(super) const NR_PAGES: u64 = 8 + 512 + 40;
/// Sixty-four bytes, which stand for those of a page.
pub(super) const WORDS: usize = 8;
type Page = [u64; WORDS];
/// What memory is full of that nobody scrubbed yet.
pub(super) const FRESH: u64 = 0xdead_beef_dead_beef;
/// Users have numbers from 1 on.
pub(super) const USERS: u8 = 3;

pub(super) const fn mark(user: u64) -> u64 {
    0xc0ff_ee00_0000_0000 | user
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum State {
    /// In its raw form.
    Unique,
    /// With one reference, in its raw form.
    Live,
    Kept,
    /// Kept until it is scrubbed.
    Pending,
    Retired,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    pub(super) range: PfnRange,
    pub(super) user: u64,
    pub(super) state: State,
}

/// Who has which pages, what is in them, and what the hooks do next.
#[derive(Debug)]
pub(super) struct Books {
    pub(super) memory: Vec<Page>,
    pub(super) scrub: Scrub,
    pub(super) held: Vec<Held>,
    pub(super) answers: VecDeque<u8>,
    pub(super) verdicts: VecDeque<u8>,
    /// What was left for its last user in this step.
    pub(super) left: Vec<(PfnRange, u64)>,
    /// One panic in a step is enough.
    pub(super) has_panicked: bool,
    /// Whether there was a bad page, whose folio nobody scrubs.
    pub(super) was_spoilt: bool,
    pub(super) on_drop: OnDrop,
    pub(super) wrong: Option<String>,
}

fn index(pfn: Pfn) -> usize {
    (pfn.as_u64() - START) as usize
}

impl Books {
    fn pages(&mut self, range: PfnRange) -> &mut [Page] {
        &mut self.memory[index(range.start())..=index(range.last())]
    }

    pub(super) fn fill(&mut self, range: PfnRange, word: u64) {
        self.pages(range).fill([word; WORDS]);
    }

    pub(super) fn is_full_of(&mut self, range: PfnRange, word: u64) -> bool {
        self.pages(range).iter().all(|page| *page == [word; WORDS])
    }

    pub(super) fn object(&mut self, why: String) {
        self.wrong.get_or_insert(why);
    }

    pub(super) fn hold(&mut self, range: PfnRange, user: u64, state: State) {
        if let Some(other) = self.held.iter().find(|held| held.range.overlaps(range)) {
            let why = format!("{range} of {user} is {other:?}");
            self.object(why);
        }
        self.held.push(Held { range, user, state });
    }

    /// Takes the entry of a folio out, the mark of whose user has to be there still.
    pub(super) fn take(&mut self, state: State, which: usize) -> Option<Held> {
        let places = || self.held.iter().enumerate().filter(|(_, held)| held.state == state);
        let place = which % places().count().max(1);
        let place = places().nth(place).map(|(place, _)| place)?;
        let held = self.held.swap_remove(place);
        let has_mark = matches!(state, State::Unique | State::Live | State::Kept);
        if has_mark && !self.is_full_of(held.range, mark(held.user)) {
            self.object(format!("{held:?} has lost its mark"));
        }
        Some(held)
    }

    pub(super) fn nr_pages(&self, states: &[State]) -> u64 {
        let held = self.held.iter().filter(|held| states.contains(&held.state));
        held.map(|held| held.range.nr_pages()).sum()
    }

    /// Returns a page that somebody has given back with its mark, where nothing is to linger.
    pub(super) fn lingers(&self) -> Option<u64> {
        if self.scrub != Scrub::OnFree || self.was_spoilt {
            return None;
        }
        let is_marked = |page: &Page| (1..=USERS).any(|user| page[0] == mark(user.into()));
        let mut marked: Vec<bool> = self.memory.iter().map(is_marked).collect();
        for held in &self.held {
            marked[index(held.range.start())..=index(held.range.last())].fill(false);
        }
        marked.iter().position(|marked| *marked).map(|page| START + page as u64)
    }

    fn is_for_last_user(&mut self, job: ScrubJob) -> bool {
        job.owner.is_some_and(|user| self.is_full_of(job.range, mark(user)))
    }

    /// Notes a call of the hook that scrubs; returns what it answers, or that it panics.
    fn scrubs(&mut self, job: ScrubJob) -> Option<Scrubbed> {
        let is_due = match self.scrub {
            Scrub::OnFree => true,
            Scrub::OnAlloc | Scrub::OnOwnerChange => job.when == ScrubWhen::Alloc,
            Scrub::Never => false,
        };
        let is_held = self.held.iter().any(|held| held.range.overlaps(job.range));
        if !is_due || is_held {
            let why = format!("the hook is called for {job:?}");
            self.object(why);
        }
        let may_know = self.scrub == Scrub::OnOwnerChange && job.owner.is_some();
        match self.answers.pop_front().unwrap_or(0) {
            4 | 5 => {
                // It fails half-way.
                let half = job.range.nr_pages().div_ceil(2) as usize;
                self.pages(job.range)[..half].fill([0; WORDS]);
                self.hold(job.range, 0, State::Retired);
                return Some(Scrubbed::Failed);
            }
            6 => {
                self.hold(job.range, 0, State::Pending);
                return Some(Scrubbed::Later);
            }
            7 | 8 if may_know && self.is_for_last_user(job) => {
                self.left.push((job.range, job.owner.unwrap_or(0)));
                return Some(Scrubbed::SameOwner);
            }
            7 | 8 if !may_know => {
                self.hold(job.range, 0, State::Retired);
                return Some(Scrubbed::SameOwner);
            }
            // What is dropped on the way out must not be kept, for nobody would write it down.
            9 if !self.has_panicked && self.on_drop == OnDrop::Release => {
                self.has_panicked = true;
                self.hold(job.range, 0, State::Retired);
                return None;
            }
            _ => {}
        }
        self.fill(job.range, 0);
        Some(Scrubbed::Done)
    }
}

/// The owner of the memory.
#[derive(Debug)]
pub(super) struct Keeper(pub(super) Mutex<Books>);

impl Keeper {
    /// Locks the books; never across a call into the pgmap, whose hooks lock them again.
    pub(super) fn books(&self) -> MutexGuard<'_, Books> {
        self.0.lock()
    }

    /// Gives a folio to a user, who looks what is in it and writes its mark.
    pub(super) fn receive(&self, folio: UniqueFolio<'_, Self>, user: u64) {
        let mut books = self.books();
        let (range, is_clean) = (folio.range(), folio.is_clean());
        let is_left = books.left.contains(&(range, user));
        let is_fit = match (is_clean, is_left, books.scrub) {
            (true, ..) => books.is_full_of(range, 0),
            (false, true, _) => books.is_full_of(range, mark(user)),
            (false, false, scrub) => scrub == Scrub::Never,
        };
        if !is_fit {
            let found = books.pages(range).to_vec();
            books.object(format!("{user} is handed {range}, clean: {is_clean}: {found:x?}"));
        }
        books.fill(range, mark(user));
        books.hold(range, user, State::Unique);
        let _ = folio.into_raw();
    }

    /// Notes folios that a user has already.
    pub(super) fn hold_on(
        &self,
        folios: impl IntoIterator<Item = (PfnRange, RawUnique)>,
        user: u64,
    ) {
        for (range, _) in folios {
            self.books().hold(range, user, State::Unique);
        }
    }

    pub(super) fn zero(&self, range: PfnRange) {
        self.books().fill(range, 0);
    }

    /// Drops an exclusive folio, of which the policy says what becomes.
    pub(super) fn drop_unique(&self, folio: UniqueFolio<'_, Self>, user: u64) {
        if self.books().on_drop == OnDrop::Keep {
            self.books().hold(folio.range(), user, State::Kept);
        }
        drop(folio);
    }
}

impl PgmapOps for Keeper {
    type Private = ();

    fn scrub(&self, job: ScrubJob) -> Scrubbed {
        let answer = self.books().scrubs(job);
        answer.unwrap_or_else(|| resume_unwind(Box::new("a hook that panics")))
    }

    fn folio_free<'a>(&'a self, folio: UniqueFolio<'a, Self>, _: &mut HookCx<'a, Self>) {
        let range = folio.range();
        let (user, verdict) = {
            let mut books = self.books();
            // Whoever drops the last reference has taken the folio out of the books.
            let held = books.held.iter().find(|held| held.range.overlaps(range)).copied();
            if let Some(held) = held {
                books.object(format!("the hook has {held:?}"));
            }
            let user = (1..=USERS).map(u64::from).find(|user| books.is_full_of(range, mark(*user)));
            (user.unwrap_or(0), books.verdicts.pop_front().unwrap_or(0))
        };
        match verdict {
            1 => folio.release(),
            2 => {
                self.books().hold(range, user, State::Kept);
                folio.keep();
            }
            3 => {
                self.books().hold(range, 0, State::Retired);
                folio.retire();
            }
            4 => {
                self.zero(range);
                folio.release_clean();
            }
            5 => {
                self.books().hold(range, user, State::Live);
                let _ = folio.publish().into_raw();
            }
            _ => self.drop_unique(folio, user),
        }
    }
}
