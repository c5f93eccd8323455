//! Moving a folio elsewhere, in steps of which each can be called off.
//!
//! ```text
//!    claim the destination, freeze the source
//!       move_to -> Frozen --copy--> Copied --publish--> live at the destination
//!                    |                |        (the owner's references go over in the last
//!                    +-----abort------+         moment at which anything can be refused)
//!                            v
//!                   live where it was, with its counts; the destination is free
//! ```
//!
//! Nobody else finds either folio in between: the source has no counts, the destination had none.
//! So there is no order in which a step could be met half done, and dropping it anywhere is abort.

use core::fmt;
use core::marker::PhantomData;
use core::mem::ManuallyDrop;

use super::handle::Folio;
use crate::meta::Count;
use crate::pgmap::{ClaimError, FolioRef, Migration, Move, PgmapCore, PgmapOps, UniqueFolio};
use crate::units::{Order, Pfn, PfnRange};

/// The stage of a [`Moving`] whose source is frozen.
#[derive(Clone, Copy, Debug)]
pub enum Frozen {}

/// The stage of a [`Moving`] whose contents are copied.
#[derive(Clone, Copy, Debug)]
pub enum Copied {}

/// A folio on its way to another place; made by [`UniqueFolio::move_to`].
///
/// Dropping it is [`Moving::abort`] without a handle: the source is live again with all its
/// references, and whoever had them owes their puts, as for those that are raw.
///
/// # Context
///
/// Dropping it takes no lock and runs no free hook. It gives the destination back as
/// [`UniqueFolio::release`] does: whoever had it may have written to it.
#[must_use = "dropping it calls the move off"]
pub struct Moving<'a, O: PgmapOps, S = Frozen> {
    source: FolioRef<'a, O>,
    target: FolioRef<'a, O>,
    order: Order,
    /// The references that the folio had and is to have.
    refs: u32,
    stage: PhantomData<S>,
}

/// Why a folio cannot be moved there.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum MovingReason {
    /// The policy says that contents stay where they are.
    Refused,
    /// The two have different orders.
    Orders {
        /// That of the source.
        from: Order,
        /// That of the destination.
        to: Order,
    },
    /// A live folio cannot have so many references, or none at all.
    Refs {
        /// How many it was to have.
        refs: u32,
        /// The limit.
        max: u32,
    },
    /// The device of the source is gone, so there is nothing to copy.
    Gone {
        /// The head of the source.
        head: Pfn,
    },
}

impl fmt::Display for MovingReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused => f.write_str("contents of this memory stay where they are"),
            Self::Orders { from, to } => {
                write!(f, "a folio of order {from} is no copy of one of order {to}")
            }
            Self::Refs { refs, max } => {
                write!(f, "a folio with {refs} references where 1 to {max} can be")
            }
            Self::Gone { head } => write!(f, "the device of folio {head} is gone"),
        }
    }
}

impl core::error::Error for MovingReason {}

/// A move was refused before it began; both folios are as they were.
///
/// It borrows the pgmap; [`SplitError`](crate::SplitError) says what to do about `?`.
pub struct MovingError<'a, O: PgmapOps> {
    /// The folio.
    pub source: UniqueFolio<'a, O>,
    /// The destination.
    pub target: UniqueFolio<'a, O>,
    /// What was in the way.
    pub reason: MovingReason,
}

impl<O: PgmapOps> fmt::Debug for MovingError<'_, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MovingError({:?}, {:?}, {:?})", self.source, self.target, self.reason)
    }
}

impl<O: PgmapOps> fmt::Display for MovingError<'_, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.reason.fmt(f)
    }
}

impl<O: PgmapOps> core::error::Error for MovingError<'_, O> {}

impl<'a, O: PgmapOps> UniqueFolio<'a, O> {
    /// Begins to move this folio, which was frozen, to the place of `target`.
    ///
    /// `refs` is the number of references that the freeze consumed: the folio has as many when it
    /// is live again, here or there. `target` may be of another pgmap with owners of this type.
    ///
    /// ```
    /// # use devfolio::*;
    /// # struct Ops;
    /// # impl PgmapOps for Ops { type Private = u64; }
    /// # fn go(pgmap: &PgmapCore<Ops>) -> Result<(), Box<dyn std::error::Error>> {
    /// let folio = pgmap.claim(Pfn::new(0), Order::BLOCK)?.publish();
    /// let target = pgmap.claim(Pfn::new(512), Order::BLOCK)?;
    /// let frozen = folio.try_freeze().map_err(|busy| busy.to_string())?;
    /// let moving = frozen.move_to(target, 1).map_err(|error| error.reason)?;
    /// let copied = moving.copy(|from, to| {
    ///     assert_eq!((from.start(), to.start()), (Pfn::new(0), Pfn::new(512)));
    ///     Ok::<(), &str>(())
    /// });
    /// let copied = copied.map_err(|(_, error)| error)?;
    /// let folio = copied.publish(|from, to| {
    ///     core::mem::swap(from, to);
    ///     Ok::<(), &str>(())
    /// });
    /// assert_eq!(folio.map_err(|(_, error)| error)?.head(), Pfn::new(512));
    /// assert_eq!(pgmap.query(Pfn::new(0)), PageInfo::Free);
    /// # Ok(())
    /// # }
    /// # let range = PfnRange::new(Pfn::new(0), 1024)?;
    /// # let size = MetaSize::of(range, Tables::Dense);
    /// # let mut lines: Vec<_> = (0..size.lines()).map(|_| MetaLine::ZERO).collect();
    /// # let data = (0..size.private_slots()).map(|_| core::mem::MaybeUninit::uninit());
    /// # let mut data: Vec<_> = data.collect();
    /// # let slots = [const { ExtentSlot::new() }];
    /// # let policy = Policy { migration: Migration::Allow, ..Policy::generic() };
    /// # let pgmap = Pgmap::new(Ops, policy, &slots);
    /// # let (attrs, tables, attach) = (ExtentAttrs::NEW, Tables::Dense, Attach::Zeroed);
    /// # pgmap.add_extent_with_private(range, attrs, tables, &mut lines, attach, &mut data)?;
    /// # go(&pgmap)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Gives both folios back, and says what is in the way.
    ///
    /// # Context
    ///
    /// Anywhere; takes no lock, runs no hook. Mirrors the beginning of `migrate_folio`.
    pub fn move_to(self, target: Self, refs: u32) -> Result<Moving<'a, O>, MovingError<'a, O>> {
        let (from, to, max) = (self.order(), target.order(), Count::Refs.max());
        let reason = if self.pgmap().policy().migration == Migration::Refuse {
            Some(MovingReason::Refused)
        } else if from != to {
            Some(MovingReason::Orders { from, to })
        } else if refs == 0 || max < refs {
            Some(MovingReason::Refs { refs, max })
        } else if self.is_gone() {
            Some(MovingReason::Gone { head: self.head() })
        } else {
            None
        };
        if let Some(reason) = reason {
            return Err(MovingError { source: self, target, reason });
        }
        let (source, order, _) = self.into_parts();
        let (target, ..) = target.into_parts();
        Ok(Moving { source, target, order, refs, stage: PhantomData })
    }
}

impl<'a, O: PgmapOps, S> Moving<'a, O, S> {
    /// Returns what is moved, and where to.
    #[must_use]
    pub const fn planned(&self) -> Move {
        Move { from: self.source.head, to: self.target.head, order: self.order }
    }

    /// Returns the number of references that the folio has when it is live again.
    #[must_use]
    pub const fn refs(&self) -> u32 {
        self.refs
    }

    /// Calls the move off: the folio is live where it was, with all its references, and open for
    /// newcomers; the destination is given back.
    ///
    /// The handle is one of the references; the others are the caller's, as raw ones.
    ///
    /// # Context
    ///
    /// As for dropping it.
    pub fn abort(self) -> Folio<'a, O> {
        let this = ManuallyDrop::new(self);
        this.undo();
        Folio::new(this.source)
    }

    /// Makes the source live again, and gives the destination back.
    fn undo(&self) {
        self.source.word.publish(if seeded!(AbortForgetsRefs) { 1 } else { self.refs });
        let is_clean = seeded!(AbortLeavesClean);
        let target = UniqueFolio::new(self.target, self.order, is_clean);
        if is_clean {
            target.give_up();
        } else {
            target.release();
        }
    }

    /// Goes on to another stage.
    fn into_stage<T>(self) -> Moving<'a, O, T> {
        let this = ManuallyDrop::new(self);
        let Self { source, target, order, refs, .. } = *this;
        Moving { source, target, order, refs, stage: PhantomData }
    }
}

impl<'a, O: PgmapOps> Moving<'a, O, Frozen> {
    /// Has the contents copied by `copy_fn`, which is called with the pages of the source and those
    /// of the destination.
    ///
    /// # Errors
    ///
    /// Gives the move back with what `copy_fn` returned; it may be copied again, or called off.
    ///
    /// # Context
    ///
    /// Anywhere where `copy_fn` may run; takes no lock. If `copy_fn` panics the move is called off.
    pub fn copy<E>(
        self,
        copy_fn: impl FnOnce(PfnRange, PfnRange) -> Result<(), E>,
    ) -> Result<Moving<'a, O, Copied>, (Self, E)> {
        let planned = self.planned();
        match copy_fn(planned.source(), planned.target()) {
            Ok(()) => Ok(self.into_stage()),
            Err(error) => Err((self, error)),
        }
    }
}

impl<'a, O: PgmapOps> Moving<'a, O, Copied> {
    /// Has the owner change over to the destination, which is live then with all references; the
    /// source is released.
    ///
    /// `rehome_fn` is called with the owner's data of the source and of the destination; it moves
    /// what is to stay with the contents, and whatever names the folio by its pages.
    /// What it adds to page tables is counted behind this call, by the handle that is returned,
    /// which is one of the references; the others are the caller's, as raw ones.
    ///
    /// # Errors
    ///
    /// Gives the move back with what `rehome_fn` returned.
    ///
    /// # Context
    ///
    /// Anywhere where `rehome_fn` may run, and for the source as for [`UniqueFolio::release`];
    /// takes no lock. If `rehome_fn` panics the move is called off. Whether the device of the
    /// destination is [still there](PgmapCore::is_gone) is for the caller to ask.
    pub fn publish<E>(
        self,
        rehome_fn: impl FnOnce(&mut O::Private, &mut O::Private) -> Result<(), E>,
    ) -> Result<Folio<'a, O>, (Self, E)> {
        let alone = |at| ManuallyDrop::new(UniqueFolio::new(at, self.order, false));
        let (mut source, mut target) = (alone(self.source), alone(self.target));
        if let Err(error) = rehome_fn(source.private_mut(), target.private_mut()) {
            return Err((self, error));
        }
        let this = ManuallyDrop::new(self);
        this.target.word.publish(this.refs);
        if seeded!(SourceStaysLive) {
            this.source.word.publish(this.refs);
        } else {
            // If the end of the owner's data panics there is no handle yet, whose drop would be a
            // put: a reference is leaked.
            ManuallyDrop::into_inner(source).release();
        }
        Ok(Folio::new(this.target))
    }
}

impl<O: PgmapOps, S> Drop for Moving<'_, O, S> {
    fn drop(&mut self) {
        self.undo();
    }
}

impl<O: PgmapOps, S> fmt::Debug for Moving<'_, O, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Move { from, to, order } = self.planned();
        write!(f, "Moving({from} to {to}, order {order}, {} references)", self.refs)
    }
}

/// A destination that nobody has written to, and which goes back as it was, even if a hook panics.
struct Unused<'a, O: PgmapOps>(Option<UniqueFolio<'a, O>>);

impl<O: PgmapOps> Drop for Unused<'_, O> {
    fn drop(&mut self) {
        if let Some(folio) = self.0.take() {
            folio.give_up();
        }
    }
}

/// Why a step of a plan was not made; the folio is where it was, and the destination is free.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum StepRefused<E> {
    /// The destination could not be had, or is leaving by now: the plan is stale.
    Claim(ClaimError),
    /// [`Migrate::freeze`] did not yield the folio.
    NotFrozen,
    /// What [`Migrate::freeze`] yielded is another folio; it is live again.
    Other,
    /// The folio cannot be moved there.
    Moving(MovingReason),
    /// [`Migrate::copy`] failed.
    Copy(E),
    /// [`Migrate::rehome`] failed.
    Rehome(E),
}

impl<E: fmt::Display> fmt::Display for StepRefused<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Claim(error) => error.fmt(f),
            Self::NotFrozen => f.write_str("the folio could not be frozen"),
            Self::Other => f.write_str("another folio was frozen"),
            Self::Moving(reason) => reason.fmt(f),
            Self::Copy(error) => write!(f, "the copy failed: {error}"),
            Self::Rehome(error) => write!(f, "the owner stays: {error}"),
        }
    }
}

impl<E: fmt::Debug + fmt::Display> core::error::Error for StepRefused<E> {}

/// How the owner of folios moves them; what [`PgmapCore::run_moves`] calls at each step.
pub trait Migrate<'a, O: PgmapOps> {
    /// What may go wrong in its hooks.
    type Error;

    /// Takes the folio out of all page tables, gathers its references and freezes it; returns it
    /// with the number of references that the freeze consumed. `None` if that cannot be done now.
    fn freeze(&mut self, planned: Move) -> Option<(UniqueFolio<'a, O>, u32)>;

    /// Copies the contents.
    ///
    /// # Errors
    ///
    /// Calls the step off.
    fn copy(&mut self, from: PfnRange, to: PfnRange) -> Result<(), Self::Error>;

    /// Moves what is to stay with the contents, and whatever names the folio by its pages; as
    /// [`Moving::publish`] says.
    ///
    /// # Errors
    ///
    /// Calls the step off.
    fn rehome(
        &mut self,
        planned: Move,
        from: &mut O::Private,
        to: &mut O::Private,
    ) -> Result<(), Self::Error>;

    /// Takes one of the references of the folio, which has moved; all others are the owner's as
    /// raw ones.
    fn moved(&mut self, planned: Move, folio: Folio<'a, O>);

    /// Is told why a folio has not moved; if it had been frozen, it is live again, and this is one
    /// of its references.
    fn stayed(&mut self, planned: Move, why: StepRefused<Self::Error>, folio: Option<Folio<'a, O>>);
}

/// How far a plan was carried out.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Progress {
    /// The moves that were tried, from the first one on; the others are for the next call.
    pub tried: usize,
    /// Those of them that were made.
    pub done: usize,
    /// The pages that were moved.
    pub nr_pages: u64,
}

impl<O: PgmapOps> PgmapCore<O> {
    /// Carries moves out, in their order, and ends before one that would move more than `max_pages`
    /// pages in this call.
    ///
    /// Each step claims the destination, has the folio frozen, copied and rehomed, and publishes
    /// it. One that is refused leaves everything as it was, but for what a claim leaves behind, and
    /// the next one is tried. So a plan may be stale, and may be carried out in pieces, with others
    /// at work in between: what is left is `moves[progress.tried..]`.
    ///
    /// # Context
    ///
    /// Anywhere where the hooks of `migrate` may run; takes no lock, and may be interrupted. Linear
    /// in the moves. Mirrors `migrate_pages`.
    pub fn run_moves<'a, M: Migrate<'a, O>>(
        &'a self,
        moves: &[Move],
        max_pages: u64,
        migrate: &mut M,
    ) -> Progress {
        let mut progress = Progress::default();
        for &planned in moves {
            let nr_pages = progress.nr_pages.saturating_add(planned.order.nr_pages());
            if max_pages < nr_pages {
                break;
            }
            progress.tried = progress.tried.saturating_add(1);
            if self.run_move(planned, migrate) {
                progress.done = progress.done.saturating_add(1);
                progress.nr_pages = nr_pages;
            }
        }
        progress
    }

    /// Makes one step; true if the folio has moved.
    fn run_move<'a, M: Migrate<'a, O>>(&'a self, planned: Move, migrate: &mut M) -> bool {
        if self.policy().migration == Migration::Refuse {
            migrate.stayed(planned, StepRefused::Moving(MovingReason::Refused), None);
            return false;
        }
        if self.is_gone_in(planned.source()) {
            let reason = MovingReason::Gone { head: planned.from };
            migrate.stayed(planned, StepRefused::Moving(reason), None);
            return false;
        }
        let mut unused = match self.claim(planned.to, planned.order) {
            Ok(target) => Unused(Some(target)),
            Err(error) => {
                migrate.stayed(planned, StepRefused::Claim(error), None);
                return false;
            }
        };
        let frozen = migrate.freeze(planned);
        let target = if frozen.is_some() { unused.0.take() } else { None };
        drop(unused);
        let Some(((source, refs), target)) = frozen.zip(target) else {
            migrate.stayed(planned, StepRefused::NotFrozen, None);
            return false;
        };
        let is_planned = core::ptr::eq(source.pgmap(), self)
            && (source.head(), source.order()) == (planned.from, planned.order);
        let moving = match source.move_to(target, refs) {
            Ok(moving) => moving,
            Err(MovingError { source, target, reason }) => {
                target.give_up();
                let (at, ..) = source.into_parts();
                at.word.publish(refs.clamp(1, Count::Refs.max()));
                migrate.stayed(planned, StepRefused::Moving(reason), Some(Folio::new(at)));
                return false;
            }
        };
        if !is_planned {
            migrate.stayed(planned, StepRefused::Other, Some(moving.abort()));
            return false;
        }
        let copied = match moving.copy(|from, to| migrate.copy(from, to)) {
            Ok(copied) => copied,
            Err((moving, error)) => {
                migrate.stayed(planned, StepRefused::Copy(error), Some(moving.abort()));
                return false;
            }
        };
        if self.core().is_closed_at(planned.to) {
            let why = StepRefused::Claim(ClaimError::Dying);
            migrate.stayed(planned, why, Some(copied.abort()));
            return false;
        }
        match copied.publish(|from, to| migrate.rehome(planned, from, to)) {
            Ok(folio) => {
                migrate.moved(planned, folio);
                true
            }
            Err((moving, error)) => {
                migrate.stayed(planned, StepRefused::Rehome(error), Some(moving.abort()));
                false
            }
        }
    }
}
