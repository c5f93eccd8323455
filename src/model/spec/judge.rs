//! Judging: what a subject answered, against what the specification allows.
//!
//! Each operation is one function that says what happens. Where the subject may choose, the
//! function asks [`Seen`], which hands out the subject's choice; the same functions make choices
//! of their own when the specification plays the subject.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::slice::Iter;

use super::super::op::Op;
use super::super::outcome::{Block, HookEvent, Outcome, Refusal};
use super::Spec;
use super::request::run;

/// What the specification says about a step: the outcome, or that it is refused for one of these
/// reasons. `Err` is a choice that breaks the rules.
pub(super) type Step = Result<Answer, String>;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Answer {
    Is(Outcome),
    /// Where several reasons hold at once, the order in which they are found is not specified.
    Refused(Vec<Refusal>),
    /// Pages that were chosen cannot be scrubbed: others have to be. Seen by [`Spec::scrubbing`]
    /// alone.
    Again,
}

pub(super) fn refuse(why: Refusal) -> Step {
    Ok(Answer::Refused(Vec::from([why])))
}

pub(super) fn done() -> Step {
    Ok(Answer::Is(Outcome::Done))
}

/// What was seen of a step.
#[derive(Debug)]
pub(in super::super) enum Seen<'a> {
    /// A subject's answer, and what its hook met.
    Judged { outcome: &'a Outcome, events: Iter<'a, HookEvent> },
    /// Nothing: the specification chooses, and notes what the hook met.
    Chosen { events: Vec<HookEvent> },
}

impl<'a> Seen<'a> {
    /// Returns the blocks that the subject handed out; `None` if it is not for it to choose.
    ///
    /// A subject that answered anything else handed out no block.
    pub(super) fn blocks(&self) -> Option<&'a [Block]> {
        match self {
            Self::Judged { outcome: Outcome::Blocks(blocks) | Outcome::Shared(blocks), .. } => {
                Some(blocks)
            }
            Self::Judged { .. } => Some(&[]),
            Self::Chosen { .. } => None,
        }
    }

    /// Returns whether there is a subject that has made its choices.
    pub(super) const fn is_judged(&self) -> bool {
        matches!(self, Self::Judged { .. })
    }

    /// Returns why the subject refused, if it did.
    pub(super) fn refusal(&self) -> Option<Refusal> {
        match self {
            Self::Judged { outcome: Outcome::Refused(why), .. } => Some(*why),
            _ => None,
        }
    }

    /// Returns the next event without passing it, if there is one to be read.
    pub(super) fn peek(&self) -> Option<HookEvent> {
        match self {
            Self::Judged { events, .. } => events.as_slice().first().copied(),
            Self::Chosen { .. } => None,
        }
    }

    /// Passes an event that has to come now.
    pub(super) fn event(&mut self, expected: HookEvent) -> Result<(), String> {
        match self {
            Self::Chosen { events } => events.push(expected),
            Self::Judged { events, .. } => match events.next() {
                Some(&event) if event == expected => {}
                other => return Err(format!("the hook met {other:?} instead of {expected:?}")),
            },
        }
        Ok(())
    }
}

impl Spec {
    /// Follows a step that a subject has made.
    ///
    /// `op` has gone through [`Spec::resolve`].
    ///
    /// # Errors
    ///
    /// Says how the outcome breaks the specification. From then on this value is of no use.
    pub fn judge(
        &mut self,
        op: &Op,
        outcome: &Outcome,
        events: &[HookEvent],
    ) -> Result<(), String> {
        if *outcome == Outcome::Unsupported {
            return Ok(());
        }
        let mut seen = Seen::Judged { outcome, events: events.iter() };
        let answer = self.step(op, &mut seen)?;
        self.end_scrubs();
        self.settle_life();
        match answer {
            Answer::Is(expected) if *outcome == expected => {}
            Answer::Refused(why) if matches!(outcome, Outcome::Refused(it) if why.contains(it)) => {
            }
            answer => return Err(format!("{outcome:?} instead of {answer:?}")),
        }
        match seen.peek() {
            None => Ok(()),
            Some(event) => Err(format!("the hook met {event:?}, unexpectedly")),
        }
    }

    /// Makes a step, choosing the lowest or highest place wherever there is a choice.
    ///
    /// This is what makes the specification a subject of its own.
    pub fn play(&mut self, op: &Op) -> (Outcome, Vec<HookEvent>) {
        let mut seen = Seen::Chosen { events: Vec::new() };
        let answer = self.step(op, &mut seen);
        self.end_scrubs();
        self.settle_life();
        let outcome = match answer {
            Ok(Answer::Is(outcome)) => outcome,
            Ok(Answer::Refused(why)) => {
                Outcome::Refused(why.first().copied().unwrap_or(Refusal::Other))
            }
            Ok(Answer::Again) | Err(_) => Outcome::Refused(Refusal::Other),
        };
        let Seen::Chosen { events } = seen else { return (outcome, Vec::new()) };
        (outcome, events)
    }

    fn step(&mut self, op: &Op, seen: &mut Seen<'_>) -> Step {
        let faults = unsayable(op);
        if !faults.is_empty() {
            return Ok(Answer::Refused(faults));
        }
        match *op {
            Op::Alloc { .. }
            | Op::AllocWith { .. }
            | Op::AllocSet { .. }
            | Op::AllocShared { .. }
            | Op::AllocRun { .. }
            | Op::AllocBulk { .. } => self.step_alloc(op, seen),
            Op::Claim { at, order } => self.claim(at, order, seen),
            Op::ClaimRange { span, room } => self.claim_range(span, room, seen),
            Op::ClaimKept { at } | Op::ClaimRetired { at } | Op::Revive { at } => {
                self.bring_back(op, at)
            }
            Op::Publish { .. }
            | Op::Release { .. }
            | Op::ReleaseClean { .. }
            | Op::MarkClean { .. }
            | Op::Keep { .. }
            | Op::Retire { .. }
            | Op::DropUnique { .. }
            | Op::UniqueIntoRaw { .. }
            | Op::UniqueFromRaw { .. } => self.step_unique(op, seen),
            Op::Split { .. }
            | Op::SplitAround { .. }
            | Op::Trim { .. }
            | Op::ReleasePart { .. }
            | Op::Merge { .. } => self.step_shape(op, seen),
            Op::SetHook { ref script } => {
                self.script = script.iter().copied().collect();
                done()
            }
            Op::Reap { number } => self.reap(number, seen),
            Op::AddExtent { span, tables, content, lent } => {
                self.add_extent(span, tables, content, lent)
            }
            Op::Kill {} => self.kill(seen),
            Op::AttachHolder { tighten } => self.attach_holder(tighten),
            Op::DetachHolder {} => self.detach_holder(),
            Op::Drain {} => self.drain(),
            Op::RemoveExtent { at } => self.remove_extent(at, false, seen),
            Op::LoseExtent { at } => self.remove_extent(at, true, seen),
            Op::RestoreExtent { at } => self.restore_extent(at),
            Op::DetachExtent { at } => self.detach_extent(at),
            Op::Poison { at } => self.poison(at, seen),
            Op::PoisonList { at, step, number } => self.poison_list(at, step, number),
            Op::Unpoison { at } => self.unpoison(at),
            Op::Offline { span } => self.offline(span),
            Op::Online { span } => self.online(span),
            Op::LosePages { span } => self.lose_pages(span, seen),
            Op::Lease { .. }
            | Op::EndLease { .. }
            | Op::ConvertPin { .. }
            | Op::Revoke { .. }
            | Op::EndRevoke { .. } => self.step_leases(op, seen),
            Op::Migrate { token, raw, at, stop } => self.migrate(token, raw, (at, stop), seen),
            Op::UseMagazine { order, number, back } => self.use_magazine(order, number, back, seen),
            _ => self.step_counts(op, seen),
        }
    }
}

/// Returns what is wrong with an operation whatever the state is: orders that no folio has, ranges
/// that do not exist. An implementation with types for these cannot even ask.
fn unsayable(op: &Op) -> Vec<Refusal> {
    let (mut orders, mut spans) = ([None; 3], None);
    match *op {
        Op::Alloc { order }
        | Op::UseMagazine { order, .. }
        | Op::Claim { order, .. }
        | Op::Split { order, .. }
        | Op::SplitAround { order, .. } => orders[0] = Some(order),
        Op::AllocWith { order, align, down_to, within, .. } => {
            (orders, spans) = ([Some(order), Some(align), Some(down_to)], within);
        }
        Op::AllocSet { prefer, least, within, .. } => {
            (orders, spans) = ([Some(prefer), Some(least), None], within);
        }
        Op::AllocShared { prefer, least, .. } => {
            orders = [Some(prefer), Some(least), None];
        }
        Op::AllocBulk { order, align, within, .. } => {
            (orders, spans) = ([Some(order), Some(align), None], within);
        }
        Op::AllocRun { align, within, .. } => (orders[0], spans) = (Some(align), within),
        Op::ClaimRange { span, .. }
        | Op::Trim { span, .. }
        | Op::ReleasePart { span, .. }
        | Op::Offline { span }
        | Op::Online { span }
        | Op::LosePages { span }
        | Op::AddExtent { span, .. }
        | Op::Revoke { span } => spans = Some(span),
        _ => {}
    }
    let mut faults = Vec::new();
    if orders.into_iter().flatten().any(|order| order.order().is_none()) {
        faults.push(Refusal::OrderTooLarge);
    }
    if spans.is_some_and(|span| run(span).is_none()) {
        faults.push(Refusal::NoRange);
    }
    faults
}
