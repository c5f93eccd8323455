//! The vocabulary of the operation grammar: selectors, sizes, filters, and how each is written.
//!
//! Every value of every type here is legal, so every byte string is a history. Selectors are taken
//! modulo what there is at that moment; a history that has run is written down with all of them
//! resolved, and resolving those again changes nothing.

use alloc::vec::Vec;
use core::fmt;

use crate::units::{Order, Pfn};

/// A part of an operation that can be written as one word without blanks, and read back.
pub(crate) trait Field: Sized {
    fn print(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result;
    fn parse(text: &str) -> Option<Self>;
}

/// A number of a slot in the table of outstanding handles.
///
/// A new handle takes the lowest free slot, as a new file descriptor does, so a token is an index
/// that a subject in any language can use. Where the slot is empty, or holds a handle of a kind
/// that the operation cannot use, the token selects, modulo their number, among those it can.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Token(pub u16);

/// Log2 of a number of pages, also one that no folio can have.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct AnyOrder(pub u8);

impl AnyOrder {
    /// Returns the order, unless it is above [`Order::MAX`].
    #[must_use]
    pub fn order(self) -> Option<Order> {
        Order::new(self.0)
    }
}

impl From<Order> for AnyOrder {
    fn from(order: Order) -> Self {
        Self(order.as_u8())
    }
}

/// A small number of things: counts to add, folios in bulk, a budget.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Count(pub u32);

/// A number of pages.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Pages(pub u64);

/// A selector of one page.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum At {
    /// Exactly this page.
    Pfn(Pfn),
    /// The head of a folio: which one, in ascending order of heads.
    Head(u8),
    /// A page of a folio: which folio, and which page.
    Page(u8, u8),
    /// A free page: which free run, and which block of the order in question, or page, in it.
    Free(u8, u8),
    /// A page at the border of an extent: which extent; before, first, last, behind.
    Edge(u8, u8),
}

/// A selector of a run of pages; it may be empty or run past the top of space.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Span {
    /// The first page.
    pub start: At,
    /// The number of pages.
    pub pages: Pages,
}

/// Which end of the extents an allocation prefers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Direction {
    /// Low pages first.
    Up,
    /// High pages first.
    Down,
}

/// Which content an allocation prefers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Content {
    /// Whatever comes.
    Any,
    /// Pages known to be zero, if there are.
    Clean,
    /// Pages not known to be zero, if there are.
    Dirty,
    /// Pages known to be zero, and no others.
    OnlyClean,
}

/// Which extent an allocation has to come from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Node {
    /// Any.
    Any,
    /// The one that was attached at this place, from 0: its node, its tier, and each byte of its
    /// tag are that number.
    At(u8),
}

/// How long a pin lasts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Term {
    /// For one transfer.
    Short,
    /// Until further notice; a policy may refuse it.
    Long,
}

/// What becomes of long-term pins under a holder.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Tighten {
    /// They are refused, and none may be there.
    Refuse,
    /// They are leases.
    Leases,
}

/// What the free hook does with the folio that one last put hands to it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum HookStep {
    /// Drops the token: the policy decides.
    Drop,
    /// Releases it.
    Release,
    /// Scrubs and releases it.
    ReleaseClean,
    /// Keeps it.
    Keep,
    /// Publishes it again; the reference is held raw.
    Publish,
    /// Retires it.
    Retire,
    /// Takes it raw: it enters the table as a raw exclusive handle.
    Raw,
    /// First allocates a folio of this order, which enters the table raw; then drops the token.
    Alloc(AnyOrder),
    /// First drops the reference in the lowest slot that holds one; then drops the token.
    DropOther,
    /// Hands that reference to the context, to be dropped after the hook; then drops the token.
    DropLater,
}

/// In which state metadata memory is lent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Lent {
    /// All zero, and said to be.
    Zeroed,
    /// Full of noise, to be cleared.
    Noise,
    /// All zero, but one line less than needed.
    Short,
}

/// How many fracture tables an extent may use.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum TableBudget {
    /// One for each block.
    Dense,
    /// At most so many beside those of the blocks that lie in the extent only in part.
    Budget(u8),
}

pub(crate) fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

impl Field for Token {
    fn print(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "@{}", self.0)
    }

    fn parse(text: &str) -> Option<Self> {
        text.strip_prefix('@')?.parse().ok().map(Self)
    }
}

impl Field for AnyOrder {
    fn print(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }

    fn parse(text: &str) -> Option<Self> {
        text.parse().ok().map(Self)
    }
}

impl Field for Count {
    fn print(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }

    fn parse(text: &str) -> Option<Self> {
        text.parse().ok().map(Self)
    }
}

impl Field for Pages {
    fn print(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }

    fn parse(text: &str) -> Option<Self> {
        number(text).map(Self)
    }
}

impl Field for At {
    fn print(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pfn(pfn) => write!(f, "{:#x}", pfn.as_u64()),
            Self::Head(folio) => write!(f, "head:{folio}"),
            Self::Page(folio, page) => write!(f, "page:{folio}:{page}"),
            Self::Free(run, block) => write!(f, "free:{run}:{block}"),
            Self::Edge(extent, which) => write!(f, "edge:{extent}:{which}"),
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let Some((word, rest)) = text.split_once(':') else {
            return number(text).map(|pfn| Self::Pfn(Pfn::new(pfn)));
        };
        if word == "head" {
            return rest.parse().ok().map(Self::Head);
        }
        let (first, second) = rest.split_once(':')?;
        let (first, second) = (first.parse().ok()?, second.parse().ok()?);
        match word {
            "page" => Some(Self::Page(first, second)),
            "free" => Some(Self::Free(first, second)),
            "edge" => Some(Self::Edge(first, second)),
            _ => None,
        }
    }
}

impl Field for Node {
    fn print(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any"),
            Self::At(place) => write!(f, "{place}"),
        }
    }

    fn parse(text: &str) -> Option<Self> {
        if text == "any" { Some(Self::Any) } else { text.parse().ok().map(Self::At) }
    }
}

impl Field for Span {
    fn print(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.start.print(f)?;
        f.write_str("+")?;
        self.pages.print(f)
    }

    fn parse(text: &str) -> Option<Self> {
        let (start, pages) = text.split_once('+')?;
        Some(Self { start: At::parse(start)?, pages: Pages::parse(pages)? })
    }
}

impl Field for Option<Span> {
    fn print(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            None => f.write_str("anywhere"),
            Some(span) => span.print(f),
        }
    }

    fn parse(text: &str) -> Option<Self> {
        if text == "anywhere" { Some(None) } else { Span::parse(text).map(Some) }
    }
}

impl Field for HookStep {
    fn print(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Alloc(order) => write!(f, "alloc:{}", order.0),
            plain => f.write_str(plain.word()),
        }
    }

    fn parse(text: &str) -> Option<Self> {
        if let Some(order) = text.strip_prefix("alloc:") {
            return AnyOrder::parse(order).map(Self::Alloc);
        }
        Self::PLAIN.into_iter().find(|step| step.word() == text)
    }
}

impl HookStep {
    /// All steps that carry no value.
    pub(crate) const PLAIN: [Self; 9] = [
        Self::Drop,
        Self::Release,
        Self::ReleaseClean,
        Self::Keep,
        Self::Publish,
        Self::Retire,
        Self::Raw,
        Self::DropOther,
        Self::DropLater,
    ];

    fn word(self) -> &'static str {
        match self {
            Self::Drop => "drop",
            Self::Release => "release",
            Self::ReleaseClean => "release-clean",
            Self::Keep => "keep",
            Self::Publish => "publish",
            Self::Retire => "retire",
            Self::Raw => "raw",
            Self::Alloc(_) => "alloc",
            Self::DropOther => "drop-other",
            Self::DropLater => "drop-later",
        }
    }
}

impl Field for Vec<HookStep> {
    fn print(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("-");
        }
        for (index, step) in self.iter().enumerate() {
            f.write_str(if index == 0 { "" } else { "," })?;
            step.print(f)?;
        }
        Ok(())
    }

    fn parse(text: &str) -> Option<Self> {
        if text == "-" {
            return Some(Self::new());
        }
        text.split(',').map(HookStep::parse).collect()
    }
}

/// Implements [`Field`] for an enum whose variants are plain words.
macro_rules! words {
    ($type:ident { $($variant:ident = $word:literal),* $(,)? }) => {
        impl Field for $type {
            fn print(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $(Self::$variant => $word),* })
            }

            fn parse(text: &str) -> Option<Self> {
                match text { $($word => Some(Self::$variant),)* _ => None }
            }
        }
    };
}

words!(Direction { Up = "up", Down = "down" });
words!(Content { Any = "any", Clean = "clean", Dirty = "dirty", OnlyClean = "only-clean" });
words!(Term { Short = "short", Long = "long" });
words!(Tighten { Refuse = "refuse", Leases = "leases" });
words!(Lent { Zeroed = "zeroed", Noise = "noise", Short = "short" });

impl Field for TableBudget {
    fn print(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dense => f.write_str("dense"),
            Self::Budget(tables) => write!(f, "{tables}"),
        }
    }

    fn parse(text: &str) -> Option<Self> {
        if text == "dense" { Some(Self::Dense) } else { text.parse().ok().map(Self::Budget) }
    }
}
