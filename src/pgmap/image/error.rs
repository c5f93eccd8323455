//! Why an image was not written, not read, and a count of it not adopted.

use core::fmt;

use crate::meta::Count;
use crate::pgmap::ExtentAttrs;
use crate::units::{Order, Pfn, PfnRange};

/// Why no image was written; nothing changed, the bytes neither.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum ExportError {
    /// The image has more bytes than there is room for.
    Short {
        /// The bytes that it takes.
        needed: u64,
        /// The bytes that were lent.
        given: u64,
    },
    /// A folio waits for its hook, which the successor does not know; see
    /// [`reap`](crate::PgmapCore::reap).
    Condemned {
        /// Its head.
        head: Pfn,
    },
    /// An extent is being removed: complete it, or call it off.
    Leaving {
        /// The extent.
        extent: PfnRange,
    },
    /// A page is offline, or is to be: an image does not say so.
    Offline {
        /// The first one of its extent.
        pfn: Pfn,
    },
    /// The pgmap is being removed.
    Dying,
    /// A page is neither free nor part of a folio: the metadata is corrupt.
    Lost {
        /// The page.
        pfn: Pfn,
    },
}

impl fmt::Display for ExportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Short { needed, given } => {
                write!(f, "image of {needed} bytes in room for {given}")
            }
            Self::Condemned { head } => write!(f, "folio {head} waits for its hook"),
            Self::Leaving { extent } => write!(f, "extent {extent} is being removed"),
            Self::Offline { pfn } => write!(f, "page {pfn} is offline"),
            Self::Dying => f.write_str("the pgmap is being removed"),
            Self::Lost { pfn } => write!(f, "page {pfn} is neither free nor part of a folio"),
        }
    }
}

impl core::error::Error for ExportError {}

/// Why an image was refused; nothing changed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum ImportError {
    /// These bytes are no image.
    Magic {
        /// The first eight of them.
        found: u64,
    },
    /// The image is of a version that this crate does not know.
    Version {
        /// The version.
        found: u32,
    },
    /// The image has more bytes than there are.
    Short {
        /// The bytes that it takes.
        needed: u64,
        /// The bytes that were given.
        given: u64,
    },
    /// What the image contains has another length than it says.
    Length {
        /// The length that it says.
        len: u64,
    },
    /// Something changed the image on its way.
    Checksum {
        /// The checksum of what is there.
        expected: u64,
        /// The checksum that the image says.
        found: u64,
    },
    /// The pgmap has another type of memory.
    MemoryType {
        /// The type in the image, as a number.
        image: u32,
        /// That of the pgmap.
        pgmap: u32,
    },
    /// The pgmap, or an extent, is being removed.
    Dying,
    /// An extent of the image is none, or is out of order.
    BadExtent {
        /// Its first page.
        start: Pfn,
        /// Its pages.
        nr_pages: u64,
    },
    /// The pgmap has no extent with exactly these pages.
    Missing {
        /// The extent of the image.
        extent: PfnRange,
    },
    /// The image has no extent with exactly these pages.
    Unknown {
        /// The extent of the pgmap.
        extent: PfnRange,
    },
    /// An extent has another node, tier or tag than in the image.
    Attrs {
        /// The extent.
        extent: PfnRange,
        /// What the image says.
        image: ExtentAttrs,
        /// What the pgmap says.
        pgmap: ExtentAttrs,
    },
    /// A page is in use: an image needs all pages of its extents.
    Busy {
        /// The page.
        pfn: Pfn,
    },
    /// The record of a folio says what no folio is.
    BadFolio {
        /// Its head.
        head: Pfn,
    },
    /// The order of a folio is above the limit of the policy.
    OrderTooLarge {
        /// Its head.
        head: Pfn,
        /// Its order.
        order: Order,
        /// The limit.
        max: Order,
    },
    /// A folio is misaligned, or goes beyond its extent.
    Misplaced {
        /// Its head.
        head: Pfn,
        /// Its order.
        order: Order,
    },
    /// A folio has a page of the one in front of it, or the two are in the wrong order.
    Overlap {
        /// Its head.
        head: Pfn,
    },
    /// A count is above its limit.
    Limit {
        /// The head of the folio.
        head: Pfn,
        /// Which count.
        count: Count,
        /// Its value.
        have: u32,
        /// Its limit.
        max: u32,
    },
    /// A folio is live without a count, or has counts although it is not live.
    Counts {
        /// Its head.
        head: Pfn,
    },
    /// A folio is in quarantine for a bad page and has none.
    Healthy {
        /// Its head.
        head: Pfn,
    },
    /// A bad page is free, out of order, or not of its extent.
    BadPage {
        /// The page.
        pfn: Pfn,
    },
    /// The list of bad pages of an extent is too short.
    NoRoom {
        /// The extent.
        extent: PfnRange,
        /// The bad pages.
        needed: u64,
        /// The pages that the list holds.
        max: u64,
    },
    /// The pool of fracture tables of an extent does not suffice.
    NoTables {
        /// The extent.
        extent: PfnRange,
        /// The tables that it takes.
        needed: u64,
        /// The tables that are left.
        left: u32,
    },
    /// The image has another number of folios to adopt than it says.
    Held {
        /// The number that it says.
        said: u64,
        /// The number of folios that are live or unique.
        found: u64,
    },
    /// The places for what is to be adopted do not suffice.
    OrphansShort {
        /// The places that it takes.
        needed: u64,
        /// The places that were lent.
        given: u64,
    },
    /// Others use the pgmap at the same time, and are in the way of this page.
    Contended {
        /// The page.
        pfn: Pfn,
    },
}

impl fmt::Display for ImportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Magic { found } => write!(f, "{found:#x} begins no image"),
            Self::Version { found } => write!(f, "image of the unknown version {found}"),
            Self::Short { needed, given } => write!(f, "image of {needed} bytes cut to {given}"),
            Self::Length { len } => write!(f, "image that does not take the {len} bytes it says"),
            Self::Checksum { expected, found } => {
                write!(f, "image with checksum {found:#x} where it has {expected:#x}")
            }
            Self::MemoryType { image, pgmap } => {
                write!(f, "image of memory type {image} for a pgmap of type {pgmap}")
            }
            Self::Dying => f.write_str("the pgmap is being removed"),
            Self::BadExtent { start, nr_pages } => {
                write!(f, "extent of {nr_pages} pages at {start} is none, or out of order")
            }
            Self::Missing { extent } => write!(f, "the pgmap has no extent {extent}"),
            Self::Unknown { extent } => write!(f, "the image has no extent {extent}"),
            Self::Attrs { extent, .. } => {
                write!(f, "extent {extent} has another node, tier or tag than in the image")
            }
            Self::Busy { pfn } => write!(f, "page {pfn} is in use"),
            Self::NoRoom { extent, needed, max } => {
                write!(f, "{needed} bad pages in a list for {max} of extent {extent}")
            }
            Self::NoTables { extent, needed, left } => {
                write!(f, "{needed} fracture tables needed in extent {extent}, {left} left")
            }
            Self::Held { said, found } => {
                write!(f, "{found} folios are to be adopted where the image says {said}")
            }
            Self::OrphansShort { needed, given } => {
                write!(f, "{needed} folios to be adopted in places for {given}")
            }
            Self::Contended { pfn } => write!(f, "others are in the way of page {pfn}"),
            _ => self.fmt_folio(f),
        }
    }
}

impl ImportError {
    /// Says what is wrong with a folio or page of the image.
    fn fmt_folio(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OrderTooLarge { head, order, max } => {
                write!(f, "order {order} of folio {head} is above the limit of {max}")
            }
            Self::Misplaced { head, order } => {
                write!(f, "folio {head} of order {order} is misaligned or beyond its extent")
            }
            Self::Overlap { head } => write!(f, "folio {head} overlaps the one in front of it"),
            Self::Limit { head, count, have, max } => {
                write!(f, "{have} {count} of folio {head}, of which {max} are the limit")
            }
            Self::Counts { head } => write!(f, "folio {head} has counts that do not fit its state"),
            Self::Healthy { head } => write!(f, "quarantine {head} has no bad page"),
            Self::BadPage { pfn } => write!(f, "bad page {pfn} is free, or out of order"),
            Self::BadFolio { head } => write!(f, "the record of folio {head} is none"),
            _ => f.write_str("the image is refused"),
        }
    }
}

impl core::error::Error for ImportError {}

/// Why a count was not adopted; nothing changed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum AdoptError {
    /// The page was in no folio of the image that was live or unique.
    Unknown {
        /// The page.
        pfn: Pfn,
    },
    /// There are fewer counts left of those in the image.
    TooFew {
        /// The head of the folio.
        head: Pfn,
        /// Which count.
        count: Count,
        /// How many are left.
        left: u32,
        /// How many were asked for.
        nr: u32,
    },
    /// The folio is not unique, or was adopted already.
    NotUnique {
        /// The head of the folio.
        head: Pfn,
    },
    /// The counts are gone: somebody dropped them who had not adopted them.
    Gone {
        /// The head of the folio.
        head: Pfn,
    },
}

impl fmt::Display for AdoptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown { pfn } => write!(f, "nobody held page {pfn} in the image"),
            Self::TooFew { head, count, left, nr } => {
                write!(f, "{nr} {count} of folio {head} wanted where {left} are left")
            }
            Self::NotUnique { head } => write!(f, "folio {head} is no exclusive one to be adopted"),
            Self::Gone { head } => write!(f, "the counts of folio {head} are gone"),
        }
    }
}

impl core::error::Error for AdoptError {}
