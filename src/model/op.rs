//! The operation grammar: everything that can be done to a pgmap, one variant each.
//!
//! The text form of an operation is its word and then every field as `name=value`, as in
//! `claim at=0x10 order=2`. Weights say how often noise picks an operation; they keep the ones
//! that add folios and the ones that take them away in balance.

use alloc::vec::Vec;
use core::fmt;
use core::str::{FromStr, SplitAsciiWhitespace};

use super::field::{
    AnyOrder, At, Content, Count, Direction, Field, HookStep, Lent, Node, Pages, Span, TableBudget,
    Term, Tighten, Token,
};

macro_rules! operations {
    ($(
        $(#[$doc:meta])*
        $name:ident = $word:literal * $weight:literal
            { $( $(#[$field_doc:meta])* $field:ident: $type:ty ),* $(,)? }
    )*) => {
        /// One step of a history. Every value is a valid step.
        #[derive(Clone, Debug, Eq, PartialEq)]
        pub enum Op {
            $( $(#[$doc])* $name { $( $(#[$field_doc])* $field: $type ),* } ),*
        }

        /// The operations in their order.
        #[derive(Clone, Copy)]
        enum Place { $( $name ),* }

        impl Op {
            /// The words of all operations, in the order of the grammar.
            pub const WORDS: &'static [&'static str] = &[$($word),*];

            /// Returns the place of this operation in [`Op::WORDS`].
            #[must_use]
            pub fn index(&self) -> usize {
                match self { $( Self::$name { .. } => Place::$name as usize ),* }
            }

            /// Returns the word of this operation.
            #[must_use]
            pub fn word(&self) -> &'static str {
                match self { $( Self::$name { .. } => $word ),* }
            }
        }

        impl fmt::Display for Op {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.word())?;
                match self {
                    $( Self::$name { $($field),* } => {
                        $(
                            write!(f, concat!(" ", stringify!($field), "="))?;
                            $field.print(f)?;
                        )*
                    } )*
                }
                Ok(())
            }
        }

        impl FromStr for Op {
            type Err = OpParseError;

            fn from_str(text: &str) -> Result<Self, OpParseError> {
                let mut words = text.split_ascii_whitespace();
                let op = match words.next() {
                    $( Some($word) => Self::$name {
                        $( $field: named(&mut words, stringify!($field))? ),*
                    }, )*
                    _ => return Err(OpParseError::Word),
                };
                if words.next().is_some() { Err(OpParseError::TooLong) } else { Ok(op) }
            }
        }

        #[cfg(feature = "arbitrary")]
        impl<'a> arbitrary::Arbitrary<'a> for Op {
            fn arbitrary(u: &mut arbitrary::Unstructured<'a>) -> arbitrary::Result<Self> {
                const TOTAL: u8 = 0 $(+ $weight)*;
                let mut at = u8::arbitrary(u)? % TOTAL;
                $(
                    if at < $weight {
                        return Ok(Self::$name {
                            $( $field: arbitrary::Arbitrary::arbitrary(u)? ),*
                        });
                    }
                    at -= $weight;
                )*
                unreachable!("{at} is left of {TOTAL}")
            }
        }
    };
}

operations! {
    /// Allocates a folio.
    Alloc = "alloc" * 10 {
        /// Its order.
        order: AnyOrder,
    }
    /// Allocates a folio, with all filters of a request.
    AllocWith = "alloc-with" * 4 {
        /// Its order.
        order: AnyOrder,
        /// The order to which its head is aligned at least.
        align: AnyOrder,
        /// Where it has to lie.
        within: Option<Span>,
        /// Which end is preferred.
        direction: Direction,
        /// Which content is preferred.
        content: Content,
        /// The lowest order that will do.
        down_to: AnyOrder,
        /// The extent that it has to come from.
        node: Node,
    }
    /// Takes the folio at a page.
    Claim = "claim" * 6 {
        /// The head.
        at: At,
        /// The order.
        order: AnyOrder,
    }
    /// Takes a range as maximal folios.
    ClaimRange = "claim-range" * 3 {
        /// The range.
        span: Span,
        /// How many descriptors are lent.
        room: Count,
    }
    /// Allocates a number of pages as a set of folios.
    AllocSet = "alloc-set" * 4 {
        /// How many.
        pages: Pages,
        /// The highest order of a folio of the set.
        prefer: AnyOrder,
        /// The lowest order of a folio of the set.
        least: AnyOrder,
        /// Where they have to lie.
        within: Option<Span>,
        /// Which end is preferred.
        direction: Direction,
        /// Which content is preferred.
        content: Content,
        /// The extent that they have to come from.
        node: Node,
        /// How many descriptors are lent.
        room: Count,
    }
    /// Allocates a number of pages as a set of shared folios, and clones the set.
    AllocShared = "alloc-shared" * 2 {
        /// How many.
        pages: Pages,
        /// The highest order of a folio of the set.
        prefer: AnyOrder,
        /// The lowest order of a folio of the set.
        least: AnyOrder,
        /// How many clones: this modulo three.
        clones: Count,
    }
    /// Allocates contiguous pages, as maximal folios.
    AllocRun = "alloc-run" * 4 {
        /// How many.
        pages: Pages,
        /// The order to which the first page is aligned at least.
        align: AnyOrder,
        /// Where they have to lie.
        within: Option<Span>,
        /// Which end is preferred.
        direction: Direction,
        /// How many descriptors are lent.
        room: Count,
    }
    /// Allocates several folios of one order.
    AllocBulk = "alloc-bulk" * 3 {
        /// Their order.
        order: AnyOrder,
        /// How many.
        number: Count,
        /// The order to which their heads are aligned at least.
        align: AnyOrder,
        /// Where they have to lie.
        within: Option<Span>,
        /// Which end is preferred.
        direction: Direction,
        /// Which content is preferred.
        content: Content,
        /// How many descriptors are lent.
        room: Count,
    }
    /// Publishes an exclusive folio.
    Publish = "publish" * 10 {
        /// Which one.
        token: Token,
    }
    /// Releases an exclusive folio.
    Release = "release" * 4 {
        /// Which one.
        token: Token,
    }
    /// Releases an exclusive folio whose pages are all zero.
    ReleaseClean = "release-clean" * 2 {
        /// Which one.
        token: Token,
    }
    /// Declares the pages of an exclusive folio to be zero.
    MarkClean = "mark-clean" * 1 {
        /// Which one.
        token: Token,
    }
    /// Parks an exclusive folio.
    Keep = "keep" * 2 {
        /// Which one.
        token: Token,
    }
    /// Puts an exclusive folio into quarantine.
    Retire = "retire" * 1 {
        /// Which one.
        token: Token,
    }
    /// Drops an exclusive folio.
    DropUnique = "drop-unique" * 4 {
        /// Which one.
        token: Token,
    }
    /// Turns an exclusive folio into its raw form, which does not say whether it is clean.
    UniqueIntoRaw = "unique-into-raw" * 1 {
        /// Which one.
        token: Token,
    }
    /// Turns a raw exclusive folio back.
    UniqueFromRaw = "unique-from-raw" * 2 {
        /// Which one.
        token: Token,
    }
    /// Splits an exclusive folio into equal pieces.
    Split = "split" * 5 {
        /// Which one.
        token: Token,
        /// The order of the pieces.
        order: AnyOrder,
    }
    /// Splits an exclusive folio around a page.
    SplitAround = "split-around" * 4 {
        /// Which one.
        token: Token,
        /// The page.
        at: At,
        /// The order of the piece with the page.
        order: AnyOrder,
    }
    /// Gives back all but a part of an exclusive folio.
    Trim = "trim" * 3 {
        /// Which one.
        token: Token,
        /// The part.
        span: Span,
    }
    /// Gives back a part of an exclusive folio.
    ReleasePart = "release-part" * 3 {
        /// Which one.
        token: Token,
        /// The part.
        span: Span,
    }
    /// Merges two exclusive folios.
    Merge = "merge" * 5 {
        /// The one.
        token: Token,
        /// The other.
        buddy: Token,
    }
    /// Takes a reference by page.
    TryGet = "try-get" * 8 {
        /// The page.
        at: At,
    }
    /// Clones a reference.
    Clone = "clone" * 4 {
        /// Which one.
        token: Token,
    }
    /// Drops a reference.
    DropFolio = "drop-folio" * 14 {
        /// Which one.
        token: Token,
    }
    /// Turns a reference into a raw one.
    FolioIntoRaw = "folio-into-raw" * 2 {
        /// Which one.
        token: Token,
    }
    /// Turns a raw reference back.
    FolioFromRaw = "folio-from-raw" * 2 {
        /// A page of its folio.
        at: At,
    }
    /// Adds raw references through a reference.
    GetMany = "get-many" * 3 {
        /// Which one.
        token: Token,
        /// How many.
        number: Count,
    }
    /// Adds raw references by page.
    GetRaw = "get-raw" * 2 {
        /// The page.
        at: At,
        /// How many.
        number: Count,
    }
    /// Puts raw references.
    PutRaw = "put-raw" * 5 {
        /// A page of the folio.
        at: At,
        /// How many.
        number: Count,
    }
    /// Pins through a reference.
    Pin = "pin" * 4 {
        /// Which one.
        token: Token,
        /// For how long.
        term: Term,
    }
    /// Drops a pin.
    Unpin = "unpin" * 5 {
        /// Which one.
        token: Token,
    }
    /// Adds raw pins by page.
    PinRaw = "pin-raw" * 2 {
        /// The page.
        at: At,
        /// How many.
        number: Count,
        /// For how long.
        term: Term,
    }
    /// Drops raw pins.
    UnpinRaw = "unpin-raw" * 3 {
        /// A page of the folio.
        at: At,
        /// How many.
        number: Count,
    }
    /// Maps through a reference.
    Map = "map" * 4 {
        /// Which one.
        token: Token,
        /// How many leaves.
        number: Count,
    }
    /// Drops the mappings of a handle.
    Unmap = "unmap" * 5 {
        /// Which one.
        token: Token,
    }
    /// Splits a handle on mappings in two.
    SplitMap = "split-map" * 1 {
        /// Which one.
        token: Token,
        /// How many leaves get a handle of their own.
        number: Count,
    }
    /// Adds raw mappings by page.
    MapRaw = "map-raw" * 2 {
        /// The page.
        at: At,
        /// How many.
        number: Count,
    }
    /// Drops raw mappings.
    UnmapRaw = "unmap-raw" * 3 {
        /// A page of the folio.
        at: At,
        /// How many.
        number: Count,
    }
    /// Freezes a folio, consuming a reference and some raw ones.
    Freeze = "freeze" * 5 {
        /// The reference.
        token: Token,
        /// How many raw references are expected beside it.
        raw: Count,
    }
    /// Freezes a folio, consuming two references.
    FreezeBoth = "freeze-both" * 2 {
        /// The one.
        token: Token,
        /// The other.
        other: Token,
    }
    /// Closes a folio for new mappings, pins and gets.
    Close = "close" * 2 {
        /// A reference to it.
        token: Token,
    }
    /// Opens a closed folio again.
    Reopen = "reopen" * 2 {
        /// A reference to it.
        token: Token,
    }
    /// Makes a kept folio live.
    Revive = "revive" * 3 {
        /// Its head.
        at: At,
    }
    /// Makes a kept folio exclusive.
    ClaimKept = "claim-kept" * 3 {
        /// Its head.
        at: At,
    }
    /// Makes a retired folio exclusive.
    ClaimRetired = "claim-retired" * 2 {
        /// Its head.
        at: At,
    }
    /// Says what the hook does at the next last puts.
    SetHook = "set-hook" * 4 {
        /// One step for each of them.
        script: Vec<HookStep>,
    }
    /// Runs hooks that were put off.
    Reap = "reap" * 3 {
        /// At most so many.
        number: Count,
    }
    /// Adds an extent.
    AddExtent = "add-extent" * 2 {
        /// Its pages.
        span: Span,
        /// Its tables.
        tables: TableBudget,
        /// Whether its pages are zero.
        content: Content,
        /// The state of the metadata memory.
        lent: Lent,
    }
    /// Begins the end of the pgmap.
    Kill = "kill" * 1 {}
    /// Asks whether the end has come.
    Drain = "drain" * 1 {}
    /// Takes folios out of a magazine, as many as there are up to a number, puts some of them back,
    /// and drops the magazine.
    UseMagazine = "use-magazine" * 3 {
        /// Their order.
        order: AnyOrder,
        /// How many are taken.
        number: Count,
        /// How many of them, those with the lowest heads, are put back.
        back: Count,
    }
    /// Says that a page is bad.
    Poison = "poison" * 3 {
        /// The page.
        at: At,
    }
    /// Says that a bad page was repaired.
    Unpoison = "unpoison" * 2 {
        /// The page.
        at: At,
    }
    /// Begins to remove an extent.
    RemoveExtent = "remove-extent" * 2 {
        /// A page of it.
        at: At,
    }
    /// Says that the device of an extent is gone.
    LoseExtent = "lose-extent" * 1 {
        /// A page of it.
        at: At,
    }
    /// Calls the removal of an extent off.
    RestoreExtent = "restore-extent" * 2 {
        /// A page of it.
        at: At,
    }
    /// Takes a drained extent away, and its memory back.
    DetachExtent = "detach-extent" * 3 {
        /// A page of it.
        at: At,
    }
    /// Gives pages back to the device.
    Offline = "offline" * 3 {
        /// The pages.
        span: Span,
    }
    /// Takes pages back from the device.
    Online = "online" * 3 {
        /// The pages.
        span: Span,
    }
    /// Moves a folio elsewhere, consuming a reference and some raw ones, which are there again
    /// behind it; or begins to, and calls it off.
    Migrate = "migrate" * 6 {
        /// The reference.
        token: Token,
        /// How many raw references are expected beside it.
        raw: Count,
        /// The head of the destination.
        at: At,
        /// Modulo four: to the end; up to the copy; behind the copy; up to the owner's refusal.
        stop: Count,
    }
    /// Leases the folio of a reference.
    Lease = "lease" * 6 {
        /// Which one.
        token: Token,
    }
    /// Ends a lease.
    EndLease = "end-lease" * 3 {
        /// Which one.
        token: Token,
    }
    /// Revokes the leases on a range.
    Revoke = "revoke" * 5 {
        /// The range.
        span: Span,
    }
    /// Ends a revocation.
    EndRevoke = "end-revoke" * 5 {
        /// Which one.
        token: Token,
    }
    /// Attaches a holder.
    AttachHolder = "attach-holder" * 3 {
        /// What becomes of long-term pins.
        tighten: Tighten,
    }
    /// Detaches the holder.
    DetachHolder = "detach-holder" * 2 {}
    /// Turns a pin into a lease.
    ConvertPin = "convert-pin" * 3 {
        /// Which one.
        token: Token,
    }
    /// Says that the device of pages is gone, while the rest of their extent stays.
    LosePages = "lose-pages" * 2 {
        /// The pages.
        span: Span,
    }
    /// Says that pages are bad, all of them or none: the last one first, and the first one twice.
    PoisonList = "poison-list" * 2 {
        /// The first page.
        at: At,
        /// How far apart they are.
        step: Count,
        /// How many others there are.
        number: Count,
    }
}

/// Why a line is no operation.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum OpParseError {
    /// It does not begin with the word of an operation.
    Word,
    /// A field is missing or has no such value.
    Field(&'static str),
    /// It goes on behind the last field.
    TooLong,
}

impl fmt::Display for OpParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Word => f.write_str("no such operation"),
            Self::Field(name) => write!(f, "no value for `{name}`"),
            Self::TooLong => f.write_str("words behind the last field"),
        }
    }
}

impl core::error::Error for OpParseError {}

/// Reads the next word as `name=value`.
fn named<F: Field>(
    words: &mut SplitAsciiWhitespace<'_>,
    name: &'static str,
) -> Result<F, OpParseError> {
    words
        .next()
        .and_then(|word| word.strip_prefix(name)?.strip_prefix('='))
        .and_then(F::parse)
        .ok_or(OpParseError::Field(name))
}
