//! What is asked of free space.

use crate::units::{Order, PfnRange};

/// From which end an allocation is searched.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Direction {
    /// The lowest fit of the preferred kind.
    #[default]
    BottomUp,
    /// The highest fit of the preferred kind.
    TopDown,
}

/// What the pages of an allocation should contain.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum Content {
    /// Anything.
    #[default]
    Any,
    /// Zeroes, if such pages are found soon; otherwise anything.
    PreferClean,
    /// Remains of the last owner, if such pages are found soon: for a scrubber.
    PreferDirty,
    /// Zeroes, or the allocation fails.
    OnlyClean,
}

/// An allocation of one folio: of which order, and where.
///
/// ```
/// use devfolio::{Direction, Order, Request};
///
/// let request = Request::order(Order::BLOCK).direction(Direction::TopDown).down_to(Order::ZERO);
/// # let _ = request;
/// ```
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[must_use]
pub struct Request {
    pub(crate) order: Order,
    pub(crate) least: Order,
    pub(crate) align: Order,
    pub(crate) within: Option<PfnRange>,
    pub(crate) direction: Direction,
    pub(crate) content: Content,
    pub(crate) node: Option<u32>,
    pub(crate) tier: Option<u32>,
    pub(crate) tag: Option<[u8; 16]>,
    pub(crate) owner: Option<u64>,
}

impl Request {
    /// Asks for one folio of `order`, anywhere.
    pub const fn order(order: Order) -> Self {
        Self {
            order,
            least: order,
            align: Order::ZERO,
            within: None,
            direction: Direction::BottomUp,
            content: Content::Any,
            node: None,
            tier: None,
            tag: None,
            owner: None,
        }
    }

    /// Accepts a lower order, down to `least`, if there is no folio of a higher one.
    pub const fn down_to(mut self, least: Order) -> Self {
        self.least = least;
        self
    }

    /// Demands that the head is aligned to `2^align` pages, if that is more than its order.
    pub const fn align(mut self, align: Order) -> Self {
        self.align = align;
        self
    }

    /// Demands that all pages lie within `range`.
    pub const fn within(mut self, range: PfnRange) -> Self {
        self.within = Some(range);
        self
    }

    /// Says from which end to search.
    pub const fn direction(mut self, direction: Direction) -> Self {
        self.direction = direction;
        self
    }

    /// Says what the pages should contain.
    pub const fn content(mut self, content: Content) -> Self {
        self.content = content;
        self
    }

    /// Demands an extent of this node.
    pub const fn node(mut self, node: u32) -> Self {
        self.node = Some(node);
        self
    }

    /// Demands an extent of this tier.
    pub const fn tier(mut self, tier: u32) -> Self {
        self.tier = Some(tier);
        self
    }

    /// Demands an extent with this tag.
    pub const fn tag(mut self, tag: [u8; 16]) -> Self {
        self.tag = Some(tag);
        self
    }

    /// Says for whom the pages are: a number that means something to the owner of the pgmap, who
    /// is told it when he has to [scrub](crate::PgmapOps::scrub) them.
    pub const fn for_owner(mut self, owner: u64) -> Self {
        self.owner = Some(owner);
        self
    }
}

/// An allocation of exactly so many pages as a set of folios.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[must_use]
pub struct SetRequest {
    pub(crate) nr_pages: u64,
    pub(crate) request: Request,
}

impl SetRequest {
    /// Asks for exactly `nr_pages` pages, in folios as large as there are.
    pub const fn pages(nr_pages: u64) -> Self {
        Self {
            nr_pages,
            request: Request::order(Order::MAX).down_to(Order::ZERO).align(Order::ZERO),
        }
    }

    /// Takes no folio above `order`.
    pub const fn prefer(mut self, order: Order) -> Self {
        self.request.order = order;
        self
    }

    /// Takes no folio below `order`; the number of pages must be a multiple of it.
    pub const fn least(mut self, order: Order) -> Self {
        self.request.least = order;
        self
    }

    /// Demands that all pages lie within `range`.
    pub const fn within(mut self, range: PfnRange) -> Self {
        self.request.within = Some(range);
        self
    }

    /// Says from which end to search.
    pub const fn direction(mut self, direction: Direction) -> Self {
        self.request.direction = direction;
        self
    }

    /// Says what the pages should contain.
    pub const fn content(mut self, content: Content) -> Self {
        self.request.content = content;
        self
    }

    /// Demands extents of this node.
    pub const fn node(mut self, node: u32) -> Self {
        self.request.node = Some(node);
        self
    }

    /// Demands extents of this tier.
    pub const fn tier(mut self, tier: u32) -> Self {
        self.request.tier = Some(tier);
        self
    }

    /// Demands extents with this tag.
    pub const fn tag(mut self, tag: [u8; 16]) -> Self {
        self.request.tag = Some(tag);
        self
    }

    /// Says for whom the pages are, as [`Request::for_owner`] does.
    pub const fn for_owner(mut self, owner: u64) -> Self {
        self.request.owner = Some(owner);
        self
    }

    /// Returns the largest number of folios that `nr_pages` pages can come in, if none is below
    /// `least`: the length of the storage to lend to [`alloc_set`](crate::PgmapCore::alloc_set).
    ///
    /// Less is enough where memory is not fragmented. If it is too little, the answer is
    /// [`AllocError::TooManyPieces`](crate::AllocError::TooManyPieces), and nothing has changed.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "compared before")]
    pub const fn len_max(nr_pages: u64, least: Order) -> usize {
        let nr_folios = nr_pages >> least.as_u8();
        if nr_folios > usize::MAX as u64 { usize::MAX } else { nr_folios as usize }
    }
}
