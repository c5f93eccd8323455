//! Images: a whole pgmap as bytes without pointers, for a successor that begins with none of it.
//!
//! A hypervisor that replaces itself while its guests stay in memory writes an image
//! ([`Pgmap::export`](super::Pgmap::export)), and its successor reads it into a fresh pgmap
//! ([`PgmapCore::import`](super::PgmapCore::import)): orders, states, counts and bad pages are as
//! before. Counts have no handles then; holders adopt theirs ([`Imported`]), and what nobody
//! adopts is listed.
//!
//! # Format, version 1
//!
//! Integers are little-endian, without padding; every part is a multiple of eight bytes.
//!
//! | part | bytes | fields |
//! |---|---|---|
//! | header | 40 | magic `devfolio`; version `u32`; memory type `u32`; length of the image `u64`; number of extents `u64`; number of folios in all that are live or unique `u64` |
//! | for each extent, ascending: | 56 | first page `u64`; pages `u64`; folios `u64`; bad pages `u64`; node `u32`; tier `u32`; tag, 16 bytes |
//! | each of its folios, ascending | 32 | head `u64`; owner's number `u64`; references `u32`; pins `u32`; mappings `u32`; state `u8`; order `u8`; closed `u8`; zero `u8` |
//! | each of its bad pages, ascending | 8 | page `u64` |
//! | end | 8 | checksum `u64` of all words in front of it |
//!
//! Memory types are numbered in the order of [`MemoryType`], from zero. States are 1 unique, 2
//! kept, 3 live, 4 retired, 6 poisoned. The checksum begins with the magic as a number; each word
//! is mixed in by `sum = ((sum ^ word) * 0x9e3779b97f4a7c15).rotate_left(29)`. It finds accidents;
//! it is no proof of who wrote the image, and nothing relies on it.
//!
//! Not in an image are clean bits (what is free is as dirty as
//! [`ExtentAttrs::contents`](super::ExtentAttrs::contents) says of the extent that is lent anew),
//! waiters, fracture tables and what searches remember.

mod error;
mod export;
mod import;
mod orphans;
mod verify;

pub use error::{AdoptError, ExportError, ImportError};
pub use orphans::{Imported, Orphan};

use super::info::{FolioInfo, FolioKind};
use super::policy::MemoryType;
use crate::meta::word::Counts;
use crate::units::{Order, Pfn, PfnRange};

const MAGIC: [u8; 8] = *b"devfolio";
/// The only version that there is.
const VERSION: u32 = 1;
const FOLIO_LEN: usize = 32;
const BAD_LEN: usize = 8;
const SUM_LEN: usize = 8;

/// Bytes that are read field by field.
#[derive(Clone, Copy, Debug)]
struct Reader<'b>(&'b [u8]);

impl<'b> Reader<'b> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*field)
    }

    /// Takes `nr` records of `len` bytes; `None` if there are not so many.
    fn records(&mut self, nr: u64, len: usize) -> Option<&'b [u8]> {
        let len_bytes = usize::try_from(nr).ok()?.checked_mul(len)?;
        let (records, rest) = self.0.split_at_checked(len_bytes)?;
        self.0 = rest;
        Some(records)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }
}

/// Bytes that are written field by field; what has no room is only counted.
#[derive(Debug, Default)]
struct Writer<'b> {
    rest: &'b mut [u8],
    /// How many bytes all of it takes.
    len: u64,
}

impl<'b> Writer<'b> {
    const fn new(bytes: &'b mut [u8]) -> Self {
        Self { rest: bytes, len: 0 }
    }

    /// Leaves `N` bytes out, to be written when more is known.
    fn reserve<const N: usize>(&mut self) -> Writer<'b> {
        self.len = self.len.saturating_add(N as u64);
        let rest = core::mem::take(&mut self.rest);
        match rest.split_at_mut_checked(N) {
            Some((field, rest)) => {
                self.rest = rest;
                Writer::new(field)
            }
            None => Writer::default(),
        }
    }

    fn put<const N: usize>(&mut self, field: [u8; N]) {
        if let Some(place) = self.reserve::<N>().rest.first_chunk_mut() {
            *place = field;
        }
    }

    fn u64(&mut self, value: u64) {
        self.put(value.to_le_bytes());
    }

    fn u32(&mut self, value: u32) {
        self.put(value.to_le_bytes());
    }
}

/// What stands at the front.
#[derive(Clone, Copy, Debug)]
struct Header {
    memory_type: u32,
    len: u64,
    nr_extents: u64,
    /// Folios that are live or unique: somebody has to adopt them.
    nr_held: u64,
}

impl Header {
    const LEN: usize = 40;

    fn write(&self, to: &mut Writer<'_>) {
        to.put(MAGIC);
        to.u32(VERSION);
        to.u32(self.memory_type);
        to.u64(self.len);
        to.u64(self.nr_extents);
        to.u64(self.nr_held);
    }
}

/// What an image says of one extent as a whole.
#[derive(Clone, Copy, Debug)]
struct ExtentRecord {
    start: u64,
    nr_pages: u64,
    nr_folios: u64,
    nr_bad: u64,
    node: u32,
    tier: u32,
    tag: [u8; 16],
}

impl ExtentRecord {
    const LEN: usize = 56;

    fn write(&self, to: &mut Writer<'_>) {
        to.u64(self.start);
        to.u64(self.nr_pages);
        to.u64(self.nr_folios);
        to.u64(self.nr_bad);
        to.u32(self.node);
        to.u32(self.tier);
        to.put(self.tag);
    }

    fn read(from: &mut Reader<'_>) -> Option<Self> {
        Some(Self {
            start: from.u64()?,
            nr_pages: from.u64()?,
            nr_folios: from.u64()?,
            nr_bad: from.u64()?,
            node: from.u32()?,
            tier: from.u32()?,
            tag: from.take()?,
        })
    }
}

/// What an image says of one folio.
#[derive(Clone, Copy, Debug)]
struct FolioRecord {
    head: Pfn,
    order: Order,
    kind: FolioKind,
    counts: Counts,
    /// The number that the owner gave for its data.
    data: u64,
}

impl FolioRecord {
    fn new(info: &FolioInfo, data: u64) -> Self {
        let FolioInfo { head, order, kind, refs, pins, mappings, is_closed } = *info;
        let counts = Counts { refs, pins, mappings, is_closed };
        Self { head, order, kind, counts, data }
    }

    const fn info(&self) -> FolioInfo {
        let Counts { refs, pins, mappings, is_closed } = self.counts;
        FolioInfo {
            head: self.head,
            order: self.order,
            kind: self.kind,
            refs,
            pins,
            mappings,
            is_closed,
        }
    }

    /// Returns whether somebody holds the folio, and has to adopt it.
    const fn is_held(&self) -> bool {
        matches!(self.kind, FolioKind::Live | FolioKind::Unique)
    }

    fn write(&self, to: &mut Writer<'_>) {
        to.u64(self.head.as_u64());
        to.u64(self.data);
        to.u32(self.counts.refs);
        to.u32(self.counts.pins);
        to.u32(self.counts.mappings);
        let kind = match self.kind {
            FolioKind::Unique => 1,
            FolioKind::Kept => 2,
            FolioKind::Live => 3,
            FolioKind::Retired => 4,
            FolioKind::Condemned => 5,
            FolioKind::Poisoned => 6,
            // An image has none of these.
            FolioKind::Offline => 7,
        };
        to.put([kind, self.order.as_u8(), self.counts.is_closed.into(), 0]);
    }

    /// Reads a record; `Err` is the head of one that is none.
    fn read(bytes: &[u8]) -> Result<Self, Pfn> {
        let mut from = Reader(bytes);
        let head = Pfn::new(from.u64().unwrap_or(0));
        Self::read_rest(head, from).ok_or(head)
    }

    fn read_rest(head: Pfn, mut from: Reader<'_>) -> Option<Self> {
        let data = from.u64()?;
        let (refs, pins, mappings) = (from.u32()?, from.u32()?, from.u32()?);
        let [kind, order, closed, zero] = from.take()?;
        let kind = match kind {
            1 => FolioKind::Unique,
            2 => FolioKind::Kept,
            3 => FolioKind::Live,
            4 => FolioKind::Retired,
            6 => FolioKind::Poisoned,
            _ => return None,
        };
        let order = Order::new(order)?;
        if 1 < closed || zero != 0 {
            return None;
        }
        let counts = Counts { refs, pins, mappings, is_closed: closed == 1 };
        Some(Self { head, order, kind, counts, data })
    }
}

/// One extent of an image, as it lies in its bytes.
#[derive(Clone, Copy, Debug)]
struct Part<'b> {
    range: PfnRange,
    record: ExtentRecord,
    folios: &'b [u8],
    bad: &'b [u8],
}

impl<'b> Part<'b> {
    fn folios(&self) -> impl Iterator<Item = Result<FolioRecord, Pfn>> + use<'b> {
        self.folios.chunks_exact(FOLIO_LEN).map(FolioRecord::read)
    }

    fn bad(&self) -> impl Iterator<Item = Pfn> + use<'b> {
        let pages = self.bad.chunks_exact(BAD_LEN);
        pages.filter_map(|bytes| Some(Pfn::new(Reader(bytes).u64()?)))
    }
}

/// An image whose frame is sound: magic, version, length and checksum.
#[derive(Clone, Copy, Debug)]
struct Image<'b> {
    header: Header,
    body: &'b [u8],
}

impl<'b> Image<'b> {
    fn open(bytes: &'b [u8]) -> Result<Self, ImportError> {
        let given = bytes.len() as u64;
        let least = Header::LEN.saturating_add(SUM_LEN) as u64;
        let short = ImportError::Short { needed: least, given };
        let mut from = Reader(bytes);
        let magic = from.take().ok_or(short)?;
        if magic != MAGIC {
            return Err(ImportError::Magic { found: u64::from_le_bytes(magic) });
        }
        let version = from.u32().ok_or(short)?;
        if version != VERSION {
            return Err(ImportError::Version { found: version });
        }
        let memory_type = from.u32().ok_or(short)?;
        let len = from.u64().ok_or(short)?;
        let (nr_extents, nr_held) = (from.u64().ok_or(short)?, from.u64().ok_or(short)?);
        if len < least || len.checked_rem(8) != Some(0) {
            return Err(ImportError::Length { len });
        }
        // What follows is not part of the image: it may have been handed over in whole pages.
        let image = usize::try_from(len).ok().and_then(|len| bytes.get(..len));
        let image = image.ok_or(ImportError::Short { needed: len, given })?;
        let (image, sum) = image.split_last_chunk::<SUM_LEN>().ok_or(short)?;
        let (expected, found) = (checksum(image), u64::from_le_bytes(*sum));
        if expected != found {
            return Err(ImportError::Checksum { expected, found });
        }
        let (_, body) = image.split_at_checked(Header::LEN).ok_or(short)?;
        // Whoever makes room by what the header says makes room for what there can be.
        let nr_held_max = body.len().checked_div(FOLIO_LEN).unwrap_or(0) as u64;
        if nr_extents == 0 && !body.is_empty() || nr_held_max < nr_held {
            return Err(ImportError::Length { len });
        }
        Ok(Self { header: Header { memory_type, len, nr_extents, nr_held }, body })
    }

    /// Yields the extents; a piece of the image that is none is the last.
    fn parts(&self) -> impl Iterator<Item = Result<Part<'b>, ImportError>> + use<'b> {
        let (mut from, mut left) = (Reader(self.body), self.header.nr_extents);
        let len = self.header.len;
        core::iter::from_fn(move || {
            // Ends: each extent is one less that is left, and takes bytes.
            left = left.checked_sub(1)?;
            let part = Self::part(&mut from).unwrap_or(Err(ImportError::Length { len }));
            if part.is_err() {
                left = 0;
            } else if left == 0 && !from.0.is_empty() {
                return Some(Err(ImportError::Length { len }));
            }
            Some(part)
        })
    }

    fn part(from: &mut Reader<'b>) -> Option<Result<Part<'b>, ImportError>> {
        let record = ExtentRecord::read(from)?;
        let folios = from.records(record.nr_folios, FOLIO_LEN)?;
        let bad = from.records(record.nr_bad, BAD_LEN)?;
        let (start, nr_pages) = (Pfn::new(record.start), record.nr_pages);
        let range = PfnRange::new(start, nr_pages);
        let range = range.map_err(|_| ImportError::BadExtent { start, nr_pages });
        Some(range.map(|range| Part { range, record, folios, bad }))
    }
}

const fn memory_type_number(memory_type: MemoryType) -> u32 {
    match memory_type {
        MemoryType::Private => 0,
        MemoryType::Coherent => 1,
        MemoryType::FsDax => 2,
        MemoryType::Generic => 3,
        MemoryType::PciP2pDma => 4,
    }
}

/// Mixes all words of an image up, of which each bit that flips changes the sum.
fn checksum(image: &[u8]) -> u64 {
    let mut sum = u64::from_le_bytes(MAGIC);
    for word in image.chunks_exact(8) {
        let word = Reader(word).u64().unwrap_or(0);
        sum = (sum ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    }
    sum
}
