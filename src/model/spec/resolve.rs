//! From selectors to pages and slots: what a step means at this moment.
//!
//! Resolved steps are what a subject gets, and what is written down. Nothing is left to chance or
//! to the subject: a token that fits no handle makes the step void, and counts are kept within
//! what the contracts of the raw forms allow, or well outside of what exists.

use alloc::vec::Vec;

use super::super::field::{At, Lent, Span, TableBudget, Token};
use super::super::op::Op;
use super::super::outcome::{FolioKind, Kind};
use super::super::runs::{Run, align_up, pfn};
use super::request::{clamp, page};
use super::{Folio, Handle, Spec};
use crate::units::{Order, Pfn};

/// With so many handles outstanding, steps that would make more of them are void; this bounds the
/// work of comparing everything after each step.
const HANDLES_MAX: usize = 192;
/// Log2 of the largest number of folios that one step makes.
const PIECES_LOG2: u8 = 6;
/// The most descriptors that are lent.
const ROOM_MAX: u32 = 1 << 10;
/// How many folios are taken out of a magazine, at most: more than it holds.
const TAKEN_MAX: u32 = 100;
/// A list of bad pages has fewer pages than the first of these and one more, this far apart.
const LIST_MAX: u32 = 12;
const LIST_STEP_MAX: u32 = 600;
/// The largest extent that is attached in earnest.
const EXTENT_PAGES_MAX: u64 = 1 << 20;
/// The largest extent that gets a table for each block: clearing more would take all the time.
const DENSE_PAGES_MAX: u64 = 1 << 12;

impl Spec {
    /// Returns the step with all its selectors resolved, or `None` if it is void.
    #[must_use]
    pub fn resolve(&self, op: &Op) -> Option<Op> {
        let mut op = op.clone();
        if self.handles.iter().flatten().count() > HANDLES_MAX && op.makes_handles() {
            return None;
        }
        // Whether nothing can be counted is not specified.
        if let Op::GetMany { number, .. }
        | Op::GetRaw { number, .. }
        | Op::PutRaw { number, .. }
        | Op::PinRaw { number, .. }
        | Op::UnpinRaw { number, .. }
        | Op::Map { number, .. }
        | Op::MapRaw { number, .. }
        | Op::UnmapRaw { number, .. } = &mut op
        {
            number.0 = number.0.max(1);
        }
        match &mut op {
            Op::AllocWith { within, .. }
            | Op::AllocSet { within, .. }
            | Op::AllocBulk { within, .. }
            | Op::AllocRun { within, .. } => {
                if let Some(span) = within {
                    self.resolve_span(span);
                }
            }
            Op::Claim { at, order } => *at = self.at(*at, order.0, |_| true),
            Op::ClaimRange { span, .. } => {
                self.resolve_span(span);
                self.limit_pieces(&mut span.pages.0, self.policy.max_order.as_u8());
            }
            Op::AddExtent { span, tables, lent, .. } => self.resolve_extent(span, tables, lent),
            Op::Revive { at } | Op::ClaimKept { at } => {
                *at = self.at(*at, 0, |folio| folio.kind == FolioKind::Kept);
            }
            Op::ClaimRetired { at } => {
                *at = self.at(*at, 0, |folio| folio.kind == FolioKind::Retired);
            }
            Op::Poison { at }
            | Op::RemoveExtent { at }
            | Op::LoseExtent { at }
            | Op::RestoreExtent { at }
            | Op::DetachExtent { at } => *at = self.at(*at, 0, |_| true),
            Op::Unpoison { at } => {
                *at = self.at(*at, 0, |folio| folio.kind == FolioKind::Poisoned);
            }
            Op::TryGet { at }
            | Op::GetRaw { at, .. }
            | Op::PinRaw { at, .. }
            | Op::MapRaw { at, .. } => {
                *at = self.at(*at, 0, |folio| folio.kind == FolioKind::Live);
            }
            _ => self.resolve_tokens(&mut op)?,
        }
        if let Op::AllocSet { room, .. }
        | Op::AllocRun { room, .. }
        | Op::AllocBulk { room, .. }
        | Op::ClaimRange { room, .. } = &mut op
        {
            room.0 = room.0.min(ROOM_MAX);
        }
        match &mut op {
            Op::UseMagazine { number, .. } => number.0 %= TAKEN_MAX,
            Op::AllocSet { pages, prefer, .. } | Op::AllocShared { pages, prefer, .. } => {
                self.limit_pieces(&mut pages.0, prefer.0);
            }
            Op::AllocRun { pages, .. } => {
                self.limit_pieces(&mut pages.0, self.policy.max_order.as_u8());
            }
            _ => {}
        }
        Some(op)
    }

    /// Keeps what could succeed small; asking for more than there is costs nothing.
    fn limit_pieces(&self, pages: &mut u64, order: u8) {
        if u128::from(*pages) <= self.nr_pages() {
            *pages = (*pages).min(1 << (order.min(Order::MAX.as_u8()) + PIECES_LOG2));
        }
    }

    /// Keeps extents that can be attached small.
    fn resolve_extent(&self, span: &mut Span, tables: &mut TableBudget, lent: &mut Lent) {
        self.resolve_span(span);
        if span.pages.0 > EXTENT_PAGES_MAX {
            *lent = Lent::Short;
        }
        if span.pages.0 > DENSE_PAGES_MAX && *tables == TableBudget::Dense {
            *tables = TableBudget::Budget(2);
        }
        if self.scrubs() {
            // Which blocks keep a table after an attempt that is undone is not specified.
            if span.pages.0 > DENSE_PAGES_MAX {
                *lent = Lent::Short;
            }
            *tables = TableBudget::Dense;
        }
    }

    fn resolve_tokens(&self, op: &mut Op) -> Option<()> {
        match op {
            Op::Publish { token }
            | Op::Release { token }
            | Op::ReleaseClean { token }
            | Op::MarkClean { token }
            | Op::Keep { token }
            | Op::Retire { token }
            | Op::DropUnique { token }
            | Op::UniqueIntoRaw { token } => *token = self.pick_unique(*token)?,
            Op::UniqueFromRaw { token } => {
                *token = self.pick(*token, |handle| matches!(handle, Handle::RawUnique(_)))?;
            }
            Op::Unpin { token } | Op::ConvertPin { token } => {
                *token = self.pick(*token, |handle| matches!(handle, Handle::Pin(_)))?;
            }
            Op::EndLease { token } => {
                *token = self.pick(*token, |handle| matches!(handle, Handle::Lease(..)))?;
            }
            Op::EndRevoke { token } => {
                *token = self.pick(*token, |handle| matches!(handle, Handle::Revocation(_)))?;
            }
            Op::Unmap { token } => {
                *token = self.pick(*token, |handle| matches!(handle, Handle::Map(..)))?;
            }
            Op::Clone { token }
            | Op::DropFolio { token }
            | Op::FolioIntoRaw { token }
            | Op::GetMany { token, .. }
            | Op::Pin { token, .. }
            | Op::Map { token, .. }
            | Op::Close { token }
            | Op::Reopen { token } => {
                *token = self.pick(*token, |handle| matches!(handle, Handle::Folio(_)))?;
            }
            Op::Migrate { token, raw, at, .. } => {
                *token = self.pick(*token, |handle| matches!(handle, Handle::Folio(_)))?;
                let folio = self.folios.get(&self.counted(*token).ok()?)?;
                *at = self.at(*at, folio.order.as_u8(), |_| true);
                // Mostly what there is, so that it is not refused for that.
                if raw.0 % 4 != 3 || raw.0.checked_add(1) == Some(folio.counts.refs) {
                    raw.0 = folio.raw.refs;
                }
            }
            Op::Lease { token } => *token = self.pick_to_lease(*token)?,
            Op::FreezeBoth { token, other } => {
                *token = self.pick(*token, |handle| matches!(handle, Handle::Folio(_)))?;
                *other = self.pick_other_folio(*token, *other)?;
            }
            Op::SplitMap { token, number } => {
                let splits = |handle| matches!(handle, Handle::Map(_, leaves) if 1 < leaves);
                *token = self.pick(*token, splits)?;
                let Some(Handle::Map(_, leaves)) = self.handle(*token) else { return None };
                if number.0 == 0 || leaves <= number.0 {
                    number.0 = 1 + number.0 % (leaves - 1);
                }
            }
            Op::Freeze { token, raw } => {
                *token = self.pick(*token, |handle| matches!(handle, Handle::Folio(_)))?;
                let folio = self.folios.get(&self.counted(*token).ok()?)?;
                if raw.0.checked_add(1) == Some(folio.counts.refs) {
                    raw.0 = folio.raw.refs;
                }
            }
            _ => self.resolve_shape(op)?,
        }
        Some(())
    }

    fn resolve_shape(&self, op: &mut Op) -> Option<()> {
        match op {
            Op::Offline { span } | Op::LosePages { span } => self.resolve_span(span),
            Op::PoisonList { at, step, number } => {
                *at = self.at(*at, 0, |_| true);
                (step.0, number.0) = (step.0 % LIST_STEP_MAX, number.0 % LIST_MAX);
            }
            Op::Online { span } => self.resolve_online(span),
            Op::DetachHolder {} => drop(self.holder?),
            Op::Split { token, order } => {
                *token = self.pick_unique(*token)?;
                let whole = self.folios.get(&self.unique(*token).ok()?)?.order.as_u8();
                order.0 = order.0.max(whole.saturating_sub(PIECES_LOG2));
            }
            Op::SplitAround { token, at, .. } => {
                *token = self.pick_unique(*token)?;
                *at = match *at {
                    At::Page(_, index) => self.page_of(*token, index)?,
                    other => self.at(other, 0, |_| true),
                };
            }
            Op::Trim { token, span } | Op::ReleasePart { token, span } => {
                *token = self.pick_unique(*token)?;
                match span.start {
                    At::Page(_, index) => span.start = self.page_of(*token, index)?,
                    _ => self.resolve_span(span),
                }
            }
            Op::Merge { token, buddy } => {
                *token = self.pick_unique(*token)?;
                *buddy = self.pick_buddy(*token, *buddy)?;
            }
            Op::FolioFromRaw { at } => {
                *at = self.at(*at, 0, |folio| folio.raw.refs > 0);
                self.live(page(*at)).filter(|(_, folio)| folio.raw.refs > 0)?;
            }
            Op::PutRaw { at, number } => self.resolve_sub(at, &mut number.0, Kind::Refs),
            Op::UnpinRaw { at, number } => self.resolve_sub(at, &mut number.0, Kind::Pins),
            Op::UnmapRaw { at, number } => self.resolve_sub(at, &mut number.0, Kind::Maps),
            // Pages that are leased, if there are any: few others are.
            Op::Revoke { span } => span.start = self.at(span.start, 0, |it| it.counts.pins > 0),
            // Everything else has no selector.
            _ => {}
        }
        Some(())
    }

    /// Raw counts are put by whoever owns them: the ledger has that many, or nobody does.
    fn resolve_sub(&self, at: &mut At, number: &mut u32, kind: Kind) {
        *at = self.at(*at, 0, |folio| folio.raw.get(kind) > 0);
        if let Some((_, folio)) = self.live(page(*at)) {
            let (raw, all) = (folio.raw.get(kind), folio.counts.get(kind));
            if raw < *number && *number <= all {
                *number = if raw > 0 { raw } else { all + 1 };
            }
        }
    }

    // Tokens.

    fn pick(&self, token: Token, fits_fn: impl Fn(Handle) -> bool) -> Option<Token> {
        if self.handle(token).is_some_and(&fits_fn) {
            return Some(token);
        }
        let fitting = || {
            let slots = self.handles.iter().zip(0..);
            slots.filter(|(slot, _)| slot.is_some_and(&fits_fn)).map(|(_, index)| Token(index))
        };
        let index = usize::from(token.0).checked_rem(fitting().count())?;
        fitting().nth(index)
    }

    fn pick_unique(&self, token: Token) -> Option<Token> {
        self.pick(token, |handle| matches!(handle, Handle::Unique(_)))
    }

    /// Picks another exclusive folio; if the token names none, then the true buddy, if it is one.
    fn pick_buddy(&self, token: Token, buddy: Token) -> Option<Token> {
        let own = self.handle(token)?;
        let other = |handle| matches!(handle, Handle::Unique(_)) && handle != own;
        if let (None, Handle::Unique(head)) = (self.handle(buddy), own) {
            let order = self.folios.get(&head)?.order;
            let wanted = u128::from(pfn(head).buddy(order).as_u64());
            let slot = self.handles.iter().position(|slot| *slot == Some(Handle::Unique(wanted)));
            if let Some(slot) = slot.and_then(|slot| u16::try_from(slot).ok()) {
                return Some(Token(slot));
            }
        }
        self.pick(buddy, other)
    }

    /// Picks another reference; if the token names none, then one on the same folio, if there is.
    fn pick_other_folio(&self, token: Token, other: Token) -> Option<Token> {
        let own = self.handle(token)?;
        if self.handle(other).is_none() {
            let mut slots = self.handles.iter().zip(0..).map(|(slot, index)| (*slot, Token(index)));
            let twin = slots.find(|&(slot, index)| slot == Some(own) && index != token);
            if let Some((_, twin)) = twin {
                return Some(twin);
            }
        }
        let slots = self.handles.iter().zip(0..).map(|(slot, index)| (*slot, Token(index)));
        let others: Vec<Token> = slots
            .filter(|&(slot, index)| matches!(slot, Some(Handle::Folio(_))) && index != token)
            .map(|(_, index)| index)
            .collect();
        if others.contains(&other) {
            return Some(other);
        }
        let index = usize::from(other.0).checked_rem(others.len())?;
        others.get(index).copied()
    }

    /// Picks a reference; a token that names none means one on a folio of which a lease was
    /// revoked, if there is.
    fn pick_to_lease(&self, token: Token) -> Option<Token> {
        let is_told = |head| self.handles.contains(&Some(Handle::Lease(head, true)));
        let on_told = |handle| matches!(handle, Handle::Folio(head) if is_told(head));
        let is_any = |handle| matches!(handle, Handle::Folio(_));
        let wants_told = self.handle(token).is_none();
        let told = wants_told.then(|| self.pick(token, on_told)).flatten();
        told.or_else(|| self.pick(token, is_any))
    }

    fn page_of(&self, token: Token, index: u8) -> Option<At> {
        let run = self.run_of(self.unique(token).ok()?);
        Some(At::Pfn(page_in(run, index)))
    }

    // Pages.

    fn resolve_span(&self, span: &mut Span) {
        span.start = self.at(span.start, 0, |_| true);
    }

    /// Prefers pages that are offline, and no more than are so in one run of one extent.
    fn resolve_online(&self, span: &mut Span) {
        span.start = self.at(span.start, 0, |folio| folio.kind == FolioKind::Offline);
        let first = page(span.start);
        let Some(extent) = self.extent_of(Run::new(first, 1)) else { return };
        let rest = Run { start: first, end: self.extents[extent].range.end };
        let run = self.offline.parts_of(rest).next().filter(|run| run.start == first);
        if let Some(run) = run {
            span.pages.0 = span.pages.0.clamp(1, clamp(run.nr_pages()));
        }
    }

    /// Resolves a selector; of folios, it prefers those that fit.
    fn at(&self, at: At, order: u8, fits_fn: impl Fn(&Folio) -> bool) -> At {
        let found = match at {
            At::Pfn(pfn) => Some(pfn),
            At::Head(which) => self.nth_folio(which, fits_fn).map(|run| pfn(run.start)),
            At::Page(which, index) => self.nth_folio(which, fits_fn).map(|run| page_in(run, index)),
            At::Free(which, index) => self.nth_free(which, index, order),
            At::Edge(which, place) => {
                let borders = self.borders().nth(usize::from(which) % self.extents.len().max(1));
                borders.map(|(first, last)| match place % 4 {
                    0 => Pfn::new(first.as_u64().wrapping_sub(1)),
                    1 => first,
                    2 => last,
                    _ => Pfn::new(last.as_u64().wrapping_add(1)),
                })
            }
        };
        At::Pfn(found.unwrap_or(Pfn::new(0)))
    }

    fn nth_folio(&self, which: u8, fits_fn: impl Fn(&Folio) -> bool) -> Option<Run> {
        let fitting = self.folios.values().filter(|folio| fits_fn(folio)).count();
        let all = fitting == 0;
        let index =
            usize::from(which).checked_rem(if all { self.folios.len() } else { fitting })?;
        let mut heads = self.folios.iter().filter(|(_, folio)| all || fits_fn(folio));
        heads.nth(index).map(|(&head, _)| self.run_of(head))
    }

    fn nth_free(&self, which: u8, index: u8, order: u8) -> Option<Pfn> {
        let runs = self.free_runs();
        let run = *runs.get(usize::from(which).checked_rem(runs.len())?)?;
        let size = 1 << order.min(Order::MAX.as_u8());
        let first = align_up(run.start, size);
        let places = run.end.saturating_sub(first) / size;
        Some(match u128::from(index).checked_rem(places) {
            Some(place) => pfn(first + place * size),
            None => pfn(run.start),
        })
    }
}

/// Returns a page of the run; noise reaches both ends of large ones.
fn page_in(run: Run, index: u8) -> Pfn {
    let index = u128::from(index);
    if index < 128 {
        return pfn(run.start + index % run.nr_pages());
    }
    pfn(run.end - 1 - (255 - index) % run.nr_pages())
}

impl Op {
    fn makes_handles(&self) -> bool {
        matches!(
            self,
            Self::Alloc { .. }
                | Self::AllocWith { .. }
                | Self::AllocSet { .. }
                | Self::AllocShared { .. }
                | Self::AllocRun { .. }
                | Self::AllocBulk { .. }
                | Self::UseMagazine { .. }
                | Self::Claim { .. }
                | Self::ClaimRange { .. }
                | Self::Split { .. }
                | Self::SplitAround { .. }
                | Self::Trim { .. }
                | Self::ReleasePart { .. }
                | Self::TryGet { .. }
                | Self::Clone { .. }
                | Self::Pin { .. }
                | Self::Lease { .. }
                | Self::Revoke { .. }
                | Self::Map { .. }
                | Self::SplitMap { .. }
        )
    }
}
