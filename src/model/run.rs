//! Running a history against a subject, compared with the specification.
//!
//! Always compared, step by step: the answer and what the hook met; and on a refusal, the image of
//! the state from before with the one from behind it. *Looking* is the expensive part: the
//! subject's check of itself, and all folios, free runs, pages and sums against the specification.
//! [`Looks`] says how often. Where nobody looks, a wrong state stays, unless later steps mend it,
//! until the next look or the next answer; and a fuzzer also runs the beginnings of what it runs.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use super::geometry::Geometry;
use super::history::History;
use super::op::Op;
use super::outcome::{HookEvent, Outcome, PageView};
use super::spec::Spec;
use super::subject::Subject;
use crate::units::Pfn;

/// Up to so many pages, every single one is looked at after every step.
const PAGES_MAX: u128 = 64;
/// In larger worlds, so many of each folio and free run, at their ends.
const NEAR: u64 = 8;
/// The sums, which follow from all the rest, once in so many steps.
const TOTALS: u64 = 4;
/// While everything is given back, one look after so many steps; and of few looks, the first.
const LOOKS: u64 = 8;

/// When a run looks at everything that can be seen.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Looks {
    /// After every step that was not refused.
    EveryStep,
    /// After the last step, after everything was given back, and on the way after 8, 16, 32 ...
    /// steps: for fuzzers, to which many histories are worth more than many looks at each.
    Few,
}

/// What happened in a history without a fault.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Report {
    /// Steps that were not void.
    pub steps: u64,
    /// Those of them that were refused, and changed nothing.
    pub refused: u64,
    /// Calls of the free hook.
    pub hooks: u64,
}

/// Where a subject and the specification part ways.
#[derive(Clone, Debug)]
pub struct Divergence {
    /// What is wrong.
    pub why: String,
    /// All that was done, selectors resolved; the last step is the one that went wrong.
    pub history: History,
}

impl fmt::Display for Divergence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\nafter\n{}", self.why, self.history)
    }
}

impl core::error::Error for Divergence {}

/// Runs a history against a subject that was made for its geometry, then gives everything back.
///
/// # Errors
///
/// Returns the first difference between what the subject and the specification say, as far as
/// `looks` shows it.
pub fn run<S: Subject>(
    subject: &mut S,
    geometry: &Geometry,
    ops: &[Op],
    looks: Looks,
) -> Result<Report, Divergence> {
    let mut runner = Runner::new(subject, geometry, looks);
    if looks == Looks::EveryStep {
        runner.compare().map_err(|why| runner.divergence(why))?;
    }
    for op in ops {
        runner.step(op)?;
    }
    if looks == Looks::Few {
        runner.look().map_err(|why| runner.divergence(why))?;
    }
    runner.give_everything_back()?;
    Ok(runner.report)
}

struct Runner<'s, S> {
    subject: &'s mut S,
    spec: Spec,
    looks: Looks,
    report: Report,
    done: History,
    /// The image of the state, if it was taken since the last change.
    image: Vec<u64>,
    is_taken: bool,
    next_image: Vec<u64>,
    events: Vec<HookEvent>,
    /// Whether all that is left to do is to give everything back.
    is_over: bool,
}

impl<'s, S: Subject> Runner<'s, S> {
    fn new(subject: &'s mut S, geometry: &Geometry, looks: Looks) -> Self {
        Self {
            spec: Spec::new(geometry, subject.caps().limits),
            subject,
            looks,
            report: Report::default(),
            done: History { geometry: geometry.clone(), ops: Vec::new() },
            image: Vec::new(),
            is_taken: false,
            next_image: Vec::new(),
            events: Vec::new(),
            is_over: false,
        }
    }

    fn divergence(&self, why: String) -> Divergence {
        Divergence { why, history: self.done.clone() }
    }

    fn step(&mut self, op: &Op) -> Result<(), Divergence> {
        let Some(op) = self.spec.resolve(op) else { return Ok(()) };
        if !self.subject.caps().allow(&op) {
            return Ok(());
        }
        let result = self.try_step(&op);
        self.done.ops.push(op);
        result.map_err(|why| self.divergence(why))
    }

    fn try_step(&mut self, op: &Op) -> Result<(), String> {
        let may_be_refused = !self.is_over && may_be_refused(op);
        if may_be_refused && !self.is_taken {
            self.image.clear();
            self.subject.image(&mut self.image);
        }
        let outcome = self.subject.apply(op);
        self.events.clear();
        self.subject.hook_log(&mut self.events);

        self.report.steps += 1;
        let called = |event: &&HookEvent| matches!(event, HookEvent::Called { .. });
        self.report.hooks += self.events.iter().filter(called).count() as u64;
        let is_refused = matches!(outcome, Outcome::Refused(_));
        // What was scrubbed, or could not be, is another thing now.
        let scrubs = |event: &HookEvent| matches!(event, HookEvent::Scrub { .. });
        let has_scrubbed = self.events.iter().any(scrubs);
        if is_refused && !has_scrubbed {
            self.report.refused += 1;
            self.next_image.clear();
            self.subject.image(&mut self.next_image);
            if !may_be_refused || self.image != self.next_image {
                return Err(format!("{outcome:?} changed something, or is never right"));
            }
        }
        self.is_taken = is_refused && !has_scrubbed;
        self.spec.judge(op, &outcome, &self.events)?;
        // What is as it was looks as it did.
        let is_same = is_refused && !has_scrubbed && !self.image.is_empty();
        let is_due = match (self.looks, self.is_over) {
            (Looks::EveryStep, false) => !is_same,
            (Looks::EveryStep, true) => self.report.steps % LOOKS == 0,
            (Looks::Few, false) => {
                LOOKS <= self.report.steps && self.report.steps.is_power_of_two()
            }
            (Looks::Few, true) => false,
        };
        if is_due { self.look() } else { Ok(()) }
    }

    /// Looks at everything that can be seen.
    fn look(&self) -> Result<(), String> {
        self.subject.check()?;
        self.compare()
    }

    /// Compares everything that can be seen with what the specification says.
    fn compare(&self) -> Result<(), String> {
        let (subject, spec) = (&*self.subject, &self.spec);
        let mut folios = Vec::new();
        if subject.folios(&mut folios) {
            differ("folios", &folios, &spec.folios())?;
        }
        let mut runs = Vec::new();
        if subject.free_runs(&mut runs) {
            differ("free runs", &runs, &spec.free_ranges())?;
        }
        let mut extents = Vec::new();
        if subject.extents(&mut extents) {
            differ("extents", &extents, &spec.extent_views())?;
        }
        let has_totals =
            self.is_over || self.looks == Looks::Few || self.report.steps % TOTALS == 0;
        if let Some(mut totals) = has_totals.then(|| subject.totals()).flatten() {
            let expected = spec.totals();
            let clean = expected.clean_pages..=spec.clean_pages_max();
            if clean.contains(&totals.clean_pages) {
                totals.clean_pages = expected.clean_pages;
            }
            differ("totals", &totals, &expected)?;
        }
        let all = spec.nr_pages() <= PAGES_MAX;
        for (first, last, expected) in spec.stretches() {
            let middle = Pfn::new(first.as_u64() + (last.as_u64() - first.as_u64()) / 2);
            let nr_pages = last.as_u64() - first.as_u64();
            if all || nr_pages < NEAR {
                for page in first.as_u64()..=last.as_u64() {
                    see(subject, Pfn::new(page), expected)?;
                }
                continue;
            }
            for offset in 0..NEAR / 2 {
                see(subject, Pfn::new(first.as_u64() + offset), expected)?;
                see(subject, Pfn::new(last.as_u64() - offset), expected)?;
            }
            see(subject, middle, expected)?;
        }
        for pfn in spec.neighbours() {
            see(subject, pfn, spec.page(pfn))?;
        }
        Ok(())
    }

    /// Gives back every handle, raw count and parked folio, then looks at what is left.
    fn give_everything_back(&mut self) -> Result<(), Divergence> {
        self.is_over = true;
        // Ends: each turn gives back one handle or folio, and the hook's script runs out.
        while let Some(op) = self.spec.next_to_give_back() {
            let before = self.done.ops.len();
            self.step(&op)?;
            if self.done.ops.len() == before {
                // The subject cannot do this; so be it.
                return Ok(());
            }
        }
        self.spec.audit().and_then(|()| self.look()).map_err(|why| self.divergence(why))
    }
}

/// Compares what a subject says about a page.
fn see(subject: &impl Subject, pfn: Pfn, expected: PageView) -> Result<(), String> {
    let seen = subject.page(pfn);
    if seen == expected {
        return Ok(());
    }
    Err(format!("{pfn:?} is {seen:?} instead of {expected:?}"))
}

fn differ<T: PartialEq + fmt::Debug>(what: &str, seen: &T, expected: &T) -> Result<(), String> {
    if seen == expected {
        return Ok(());
    }
    Err(format!("{what} are {seen:?} instead of {expected:?}"))
}

/// Returns whether the specification ever refuses such a step; only before one that it may refuse
/// is an image of the state taken.
fn may_be_refused(op: &Op) -> bool {
    !matches!(
        op,
        Op::Publish { .. }
            | Op::Release { .. }
            | Op::ReleaseClean { .. }
            | Op::MarkClean { .. }
            | Op::Keep { .. }
            | Op::Retire { .. }
            | Op::DropUnique { .. }
            | Op::UniqueIntoRaw { .. }
            | Op::UniqueFromRaw { .. }
            | Op::DropFolio { .. }
            | Op::FolioIntoRaw { .. }
            | Op::FolioFromRaw { .. }
            | Op::Unpin { .. }
            | Op::Unmap { .. }
            | Op::SplitMap { .. }
            | Op::Close { .. }
            | Op::Reopen { .. }
            | Op::SetHook { .. }
            | Op::Reap { .. }
            | Op::Kill {}
            | Op::DetachHolder {}
    )
}
