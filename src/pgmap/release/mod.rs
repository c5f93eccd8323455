//! Plans: which folios to move, and where to, so that pages can be given back at the least cost.
//!
//! A plan is a picture: it takes nothing and changes nothing, and what it names may be another
//! thing by the time that it is carried out, step by step, by
//! [`PgmapCore::run_moves`](super::PgmapCore::run_moves). Each step looks again.
//!
//! A window is bought at the price of its pages in use, so the cheapest windows are those with the
//! fewest; that is one pass over the free bits, in storage that the caller lends. A window inside a
//! larger folio is none, and nothing is lost by that: such a folio could only go to a free run as
//! large, which already holds as many windows as its move would make.

mod heap;
mod places;
mod weigh;

use core::fmt;

use super::info::FolioInfo;
use super::ops::PgmapOps;
use super::owner::PgmapCore;
use super::policy::Migration;
use crate::units::{Order, Pfn, PfnRange};
use weigh::Aim;

/// What a plan is to reach.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Goal {
    /// No folio has any of these pages; they may be offline, or on their way there.
    Empty(PfnRange),
    /// So many naturally aligned runs of one order are free, wherever that costs least.
    ///
    /// To have N pages free, to be given back in pieces of an order, ask for as many runs of it as
    /// have N pages. Single pages need no plan: a move frees as many as it takes.
    Runs {
        /// The order of each run.
        order: Order,
        /// How many; those that are free as it is count, and cost nothing.
        count: usize,
        /// Where they have to lie, if that matters.
        within: Option<PfnRange>,
    },
}

/// A folio that is to be moved.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Move {
    /// Its head.
    pub from: Pfn,
    /// Its head afterwards.
    pub to: Pfn,
    /// Its order.
    pub order: Order,
}

impl Move {
    /// A move of nothing, to fill storage with.
    pub const EMPTY: Self = Self { from: Pfn::new(0), to: Pfn::new(0), order: Order::ZERO };

    /// Returns the pages that the folio has.
    #[must_use]
    pub const fn source(&self) -> PfnRange {
        PfnRange::block(self.from, self.order)
    }

    /// Returns the pages that it is to have.
    #[must_use]
    pub const fn target(&self) -> PfnRange {
        PfnRange::block(self.to, self.order)
    }
}

/// Pages that are to be emptied, and what that costs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Window {
    /// The pages.
    pub range: PfnRange,
    /// The pages that have to be moved for it.
    pub nr_pages: u64,
}

impl Window {
    /// A window of no interest, to fill storage with.
    pub const EMPTY: Self = Self { range: PfnRange::block(Pfn::new(0), Order::ZERO), nr_pages: 0 };
}

/// What is to be moved; plain data, stale as soon as it is made.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ReleasePlan<'s> {
    /// What becomes empty, ascending.
    pub windows: &'s [Window],
    /// What has to be moved for that: each folio once, ascending by where it is.
    pub moves: &'s [Move],
    /// The cost: the pages of all moves.
    pub nr_pages: u64,
    /// What no plan with this goal can cost less than. The two differ where cheaper windows have
    /// folios for which there is no place.
    pub least_pages: u64,
}

/// What keeps pages from being emptied.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Obstacle {
    /// A folio is pinned; a lease is a pin that can be revoked.
    Pinned {
        /// The folio.
        folio: FolioInfo,
    },
    /// A folio is kept, condemned, in quarantine, or held by somebody alone.
    NotLive {
        /// The folio.
        folio: FolioInfo,
    },
    /// The pages are a part of a larger folio.
    Larger {
        /// The folio.
        folio: FolioInfo,
    },
    /// A page is bad.
    Bad {
        /// The page.
        pfn: Pfn,
    },
    /// A page is offline, or on its way there.
    Offline {
        /// The page.
        pfn: Pfn,
    },
    /// A page is on its way between a folio and free space.
    Unsettled {
        /// The page.
        pfn: Pfn,
    },
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pinned { folio } => write!(f, "folio {} has {} pins", folio.head, folio.pins),
            Self::NotLive { folio } => write!(f, "folio {} is {:?}", folio.head, folio.kind),
            Self::Larger { folio } => {
                write!(f, "folio {} of order {} is larger", folio.head, folio.order)
            }
            Self::Bad { pfn } => write!(f, "page {pfn} is bad"),
            Self::Offline { pfn } => write!(f, "page {pfn} is offline"),
            Self::Unsettled { pfn } => write!(f, "page {pfn} is on its way"),
        }
    }
}

/// Why there is no plan; nothing was changed but the storage.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum ReleasePlanError {
    /// The policy says that contents stay where they are.
    Refused,
    /// No single extent has all the pages.
    Outside {
        /// The pages.
        range: PfnRange,
    },
    /// The device of these pages is gone, and what they contained.
    Gone {
        /// The pages.
        range: PfnRange,
    },
    /// Something in the range has to stay.
    InTheWay(Obstacle),
    /// There are fewer windows that can be emptied.
    NotEnough {
        /// How many were asked for.
        wanted: usize,
        /// How many there are.
        found: usize,
        /// What is in the way of the first other one, if there is another one.
        obstacle: Option<Obstacle>,
    },
    /// The storage has room for fewer windows.
    TooManyWindows {
        /// How many are needed.
        needed: usize,
        /// How many there is room for.
        len: usize,
    },
    /// The storage has room for fewer moves.
    TooManyMoves {
        /// How many are needed.
        needed: usize,
        /// How many there is room for.
        len: usize,
    },
    /// It would cost more pages.
    OverBudget {
        /// The pages that have to be moved.
        needed: u64,
        /// The budget.
        max: u64,
    },
    /// A folio has no place to go to.
    NoRoom {
        /// The head of the folio.
        from: Pfn,
        /// Its order.
        order: Order,
    },
    /// A folio has no place but in a block that cannot be fractured.
    NoTables {
        /// The head of the folio.
        from: Pfn,
        /// Its order.
        order: Order,
    },
    /// The pgmap is being removed, so there is no other place in it.
    Dying,
}

impl fmt::Display for ReleasePlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused => f.write_str("contents of this memory stay where they are"),
            Self::Outside { range } => write!(f, "no extent has all of {range}"),
            Self::Gone { range } => write!(f, "the device of {range} is gone"),
            Self::InTheWay(obstacle) => obstacle.fmt(f),
            Self::NotEnough { wanted, found, obstacle: None } => {
                write!(f, "{wanted} windows wanted where {found} can be emptied")
            }
            Self::NotEnough { wanted, found, obstacle: Some(obstacle) } => {
                write!(f, "{wanted} windows wanted where {found} can be emptied; {obstacle}")
            }
            Self::TooManyWindows { needed, len } => {
                write!(f, "{needed} windows in storage for {len}")
            }
            Self::TooManyMoves { needed, len } => write!(f, "{needed} moves in storage for {len}"),
            Self::OverBudget { needed, max } => {
                write!(f, "{needed} pages to be moved, of which {max} are the limit")
            }
            Self::NoRoom { from, order } => {
                write!(f, "no free run of order {order} for folio {from}")
            }
            Self::NoTables { from, order } => {
                write!(f, "no fracture table for folio {from} of order {order}")
            }
            Self::Dying => f.write_str("the pgmap is being removed"),
        }
    }
}

impl core::error::Error for ReleasePlanError {}

impl<O: PgmapOps> PgmapCore<O> {
    /// Plans how pages can be given back at the least cost, in pages that have to be moved.
    ///
    /// Live folios without a pin can be moved, by their owner; what is pinned, kept, condemned, in
    /// quarantine or held alone stays, and so does what has a bad page. Each folio goes to a free
    /// run of its order outside all windows, in any extent that is not being removed, and where
    /// least is broken up. The plan costs no more than `max_pages` pages.
    ///
    /// `windows` needs a place for each run, or one for [`Goal::Empty`]; `moves` one for each
    /// folio.
    /// The cheapest windows are taken. If a folio of one of them has no place to go to, the window
    /// is left for the cheapest one that is left, as long as there are more places in `windows`:
    /// each that there is beyond the number of runs is one more attempt. A plan whose cost is
    /// [`least_pages`](ReleasePlan::least_pages) is one of the cheapest. Where the cheapest windows
    /// have room it always is; else it costs as little as exchanging them one by one yields, and
    /// that a plan is not found does not mean that there is none.
    ///
    /// The natural use is to plan, take the windows [offline](PgmapCore::offline), carry the moves
    /// out with [`run_moves`](PgmapCore::run_moves), and plan [`Goal::Empty`] for what was refused:
    /// the pages leave as they become free, and nobody gets them in between. Linux moves what it
    /// meets in `alloc_contig_range` and `offline_pages`, and learns the cost by paying it.
    ///
    /// ```
    /// # use devfolio::*;
    /// # struct Ops;
    /// # impl PgmapOps for Ops { type Private = (); }
    /// # let range = PfnRange::new(Pfn::new(0), 1024)?;
    /// # let nr_lines = MetaSize::of(range, Tables::Dense).lines();
    /// # let mut lines: Vec<_> = (0..nr_lines).map(|_| MetaLine::ZERO).collect();
    /// # let slots = [const { ExtentSlot::new() }];
    /// let policy = Policy { migration: Migration::Allow, ..Policy::generic() };
    /// # let pgmap = Pgmap::new(Ops, policy, &slots);
    /// # pgmap.add_extent(range, ExtentAttrs::NEW, Tables::Dense, &mut lines, Attach::Zeroed)?;
    /// let _few = pgmap.claim(Pfn::new(3), Order::ZERO)?.publish();
    /// let _many = pgmap.claim(Pfn::new(512), Order::new(6).ok_or("no order")?)?.publish();
    /// let (mut windows, mut moves) = ([Window::EMPTY; 1], [Move::EMPTY; 8]);
    /// let goal = Goal::Runs { order: Order::BLOCK, count: 1, within: None };
    /// let plan = pgmap.plan_release(goal, u64::MAX, &mut windows, &mut moves)?;
    /// assert_eq!(plan.windows[0].range, PfnRange::new(Pfn::new(0), 512)?);
    /// assert_eq!(plan.nr_pages, 1);
    /// assert_eq!((plan.moves[0].from, plan.moves[0].to), (Pfn::new(3), Pfn::new(576)));
    /// # Ok::<(), Box<dyn core::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Says what is in the way, and names the first page of it.
    ///
    /// # Context
    ///
    /// Anywhere; takes no lock, runs no hook, and changes nothing but the storage. One pass over
    /// the free bits of all extents, one over the folios of each window that is cheaper than those
    /// found before, and of those that are taken; then for each order among the moves up to three
    /// passes over the free bits, as far as there are places to be found. What is listed is sorted,
    /// in n log n steps.
    pub fn plan_release<'s>(
        &self,
        goal: Goal,
        max_pages: u64,
        windows: &'s mut [Window],
        moves: &'s mut [Move],
    ) -> Result<ReleasePlan<'s>, ReleasePlanError> {
        if self.policy().migration == Migration::Refuse {
            return Err(ReleasePlanError::Refused);
        }
        if self.core().is_dying() {
            return Err(ReleasePlanError::Dying);
        }
        let (needed, len) = (goal.nr_windows(), windows.len());
        if len < needed {
            return Err(ReleasePlanError::TooManyWindows { needed, len });
        }
        match goal {
            Goal::Empty(range) => self.plan_empty(range, max_pages, windows, moves),
            Goal::Runs { order, count, within } => {
                let best = self.core().best_windows(order, within, windows);
                let (found, obstacle) = (best.windows.len(), best.obstacle);
                if found < count {
                    return Err(ReleasePlanError::NotEnough { wanted: count, found, obstacle });
                }
                self.plan_runs(best.windows, count, max_pages, moves)
            }
        }
    }

    fn plan_empty<'s>(
        &self,
        range: PfnRange,
        max_pages: u64,
        windows: &'s mut [Window],
        moves: &'s mut [Move],
    ) -> Result<ReleasePlan<'s>, ReleasePlanError> {
        let extent = self.core().extent_with(range).ok_or(ReleasePlanError::Outside { range })?;
        if extent.is_gone_in(range) {
            return Err(ReleasePlanError::Gone { range });
        }
        let windows = windows.get_mut(..1).unwrap_or_default();
        if let Some(window) = windows.first_mut() {
            *window = Window { range, nr_pages: 0 };
        }
        let (len, nr_pages) = self.list_all(windows, Aim::Empty, max_pages, moves)?;
        let moves = moves.get_mut(..len).unwrap_or_default();
        self.core().find_places(windows, moves).map_err(ReleasePlanError::no_place)?;
        Ok(ReleasePlan { windows, moves, nr_pages, least_pages: nr_pages })
    }

    /// Plans for the first `count` of `windows`, or for others of them; the cheapest are first.
    fn plan_runs<'s>(
        &self,
        windows: &'s mut [Window],
        count: usize,
        max_pages: u64,
        moves: &'s mut [Move],
    ) -> Result<ReleasePlan<'s>, ReleasePlanError> {
        let cost = |windows: &[Window]| {
            windows.iter().fold(0_u64, |sum, it| sum.saturating_add(it.nr_pages))
        };
        let least_pages = cost(windows.get(..count).unwrap_or_default());
        let mut spare = count;
        // Ends: there is one spare window fewer on every turn.
        let (len, nr_pages) = loop {
            let chosen = windows.get_mut(..count).unwrap_or_default();
            heap::sort(chosen, |it| it.range.start());
            let (len, nr_pages) = self.list_all(chosen, Aim::Run, max_pages, moves)?;
            let listed = moves.get_mut(..len).unwrap_or_default();
            let Err(no_place) = self.core().find_places(chosen, listed) else {
                break (len, nr_pages);
            };
            let from = no_place.planned.from;
            let at = chosen.iter().position(|it| it.range.contains(from));
            let Some(at) = at.filter(|_| spare < windows.len()) else {
                return Err(ReleasePlanError::no_place(no_place));
            };
            heap::swap(windows, at, spare);
            spare = spare.saturating_add(1);
        };
        let windows = windows.get(..count).unwrap_or_default();
        let moves = moves.get(..len).unwrap_or_default();
        Ok(ReleasePlan { windows, moves, nr_pages, least_pages })
    }

    /// Lists the folios of all windows; returns how many there are, and how many pages they have.
    fn list_all(
        &self,
        windows: &mut [Window],
        aim: Aim,
        max: u64,
        moves: &mut [Move],
    ) -> Result<(usize, u64), ReleasePlanError> {
        let (mut needed, mut nr_pages) = (0, 0_u64);
        for window in windows {
            let listed = self.core().list_moves(window, aim, moves, needed);
            needed = listed.map_err(ReleasePlanError::InTheWay)?;
            nr_pages = nr_pages.saturating_add(window.nr_pages);
        }
        if max < nr_pages {
            return Err(ReleasePlanError::OverBudget { needed: nr_pages, max });
        }
        let len = moves.len();
        if len < needed {
            return Err(ReleasePlanError::TooManyMoves { needed, len });
        }
        Ok((needed, nr_pages))
    }
}

impl Goal {
    /// Returns how many windows a plan with this goal has.
    const fn nr_windows(self) -> usize {
        match self {
            Self::Empty(_) => 1,
            Self::Runs { count, .. } => count,
        }
    }
}

impl ReleasePlanError {
    const fn no_place(no_place: places::NoPlace) -> Self {
        let Move { from, order, .. } = no_place.planned;
        if no_place.is_tables {
            Self::NoTables { from, order }
        } else {
            Self::NoRoom { from, order }
        }
    }
}
