//! Any page number at every entry that takes one.
//!
//! What a pgmap says is judged by the specification; what a directory says of two owners, by a
//! naive oracle that knows their extents and nothing else.

#![allow(
    clippy::arithmetic_side_effects,
    reason = "numbers of 128 bits for pages; an oracle that panics has found something"
)]

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::bytes::Bytes;
use crate::meta::{MetaLine, MetaSize, Tables};
use crate::model::{
    AnyOrder, At, Content, Count, Direction, ExtentPlan, Geometry, History, HookStep, Lent, Node,
    Op, Pages, Span, TableBudget, Term, Token,
};
use crate::pgmap::{
    Attach, DirSlot, Directory, ExtentAttrs, ExtentSlot, Lookup, PageInfo, Pgmap, Policy,
};
use crate::subject::Owner;
use crate::units::{Order, Pfn, PfnRange};

const STEPS_MAX: usize = 64;
/// Extents as (start, pages): at both ends of space, and at borders in between.
const WORLDS: [[(u64, u64); 2]; 4] = [
    [(0, 16), (u64::MAX - 15, 16)],
    [(0x1fd, 7), (0x400, 5)],
    [(u64::MAX, 1), (u64::MAX - 8, 7)],
    [(0x3_fffe, 4), (1 << 63, 9)],
];

/// Runs what bytes say against the specification, and against the oracle of the directory.
///
/// # Errors
///
/// Returns the first thing that is wrong.
pub fn run_raw_pfn(bytes: &[u8]) -> Result<(), String> {
    let mut bytes = Bytes::new(bytes);
    let world = bytes.one_of(WORLDS);
    let mut extents = Vec::new();
    for (start, nr_pages) in world {
        let range = PfnRange::new(Pfn::new(start), nr_pages).map_err(|it| it.to_string())?;
        extents.push(range);
    }
    behind_directory(&mut bytes, &extents)?;
    let mut geometry = Geometry::single(0, 1);
    geometry.slots = 3;
    geometry.extents.clear();
    geometry.extents.extend(extents.into_iter().map(|range| ExtentPlan {
        range,
        tables: TableBudget::Dense,
        clean: false,
    }));
    let mut ops = Vec::new();
    while !bytes.is_empty() && ops.len() < STEPS_MAX {
        ops.push(draw_op(&mut bytes, world));
    }
    let history = History { geometry, ops };
    super::run_quickly(&history).map(|_| ()).map_err(|divergence| divergence.to_string())
}

/// Draws a page: any at all, or one near an end of an extent or of space.
fn draw_pfn(bytes: &mut Bytes<'_>, world: [(u64, u64); 2]) -> Pfn {
    let (start, nr_pages) = bytes.one_of(world);
    let near = u64::from(bytes.below(20));
    Pfn::new(match bytes.below(8) {
        0 => bytes.any(),
        1 => near,
        2 => u64::MAX - near,
        3 => start.wrapping_add(nr_pages).wrapping_add(near).wrapping_sub(2),
        _ => start.wrapping_add(near % nr_pages),
    })
}

fn draw_span(bytes: &mut Bytes<'_>, world: [(u64, u64); 2]) -> Span {
    let start = At::Pfn(draw_pfn(bytes, world));
    let pages = if bytes.below(4) == 0 { bytes.any() } else { bytes.below(12).into() };
    Span { start, pages: Pages(pages) }
}

fn draw_op(bytes: &mut Bytes<'_>, world: [(u64, u64); 2]) -> Op {
    let which = bytes.below(27);
    let at = At::Pfn(draw_pfn(bytes, world));
    let order = AnyOrder(bytes.one_of([0, 0, 0, 1, 2, 3, 9, 18, 19, 255]));
    let number = Count(bytes.one_of([1, 1, 2, 3, 1 << 14, u32::MAX]));
    let token = Token(bytes.below(16).into());
    let (direction, content) = (bytes.one_of([Direction::Up, Direction::Down]), Content::Any);
    match which {
        0 | 1 => Op::Claim { at, order },
        2 => Op::ClaimRange { span: draw_span(bytes, world), room: Count(16) },
        3 => {
            let (within, align) = (Some(draw_span(bytes, world)), AnyOrder(0));
            Op::AllocWith {
                order,
                align,
                within,
                direction,
                content,
                down_to: order,
                node: Node::Any,
            }
        }
        4 => {
            let (within, align) = (Some(draw_span(bytes, world)), AnyOrder(0));
            Op::AllocRun { pages: Pages(3), align, within, direction, room: Count(16) }
        }
        5 => Op::AllocBulk {
            order,
            number: Count(2),
            align: AnyOrder(0),
            within: Some(draw_span(bytes, world)),
            direction,
            content,
            room: Count(16),
        },
        6 | 7 => Op::TryGet { at },
        8 => Op::GetRaw { at, number },
        9 | 10 => Op::PutRaw { at, number },
        11 => Op::PinRaw { at, number, term: Term::Short },
        12 => Op::UnpinRaw { at, number },
        13 => Op::MapRaw { at, number },
        14 => Op::UnmapRaw { at, number },
        15 => Op::FolioFromRaw { at },
        16 => Op::Revive { at },
        17 => Op::ClaimKept { at },
        18 => Op::ClaimRetired { at },
        19 => Op::Poison { at },
        20 => Op::Unpoison { at },
        21 => {
            let (tables, lent) = (TableBudget::Dense, bytes.one_of([Lent::Zeroed, Lent::Noise]));
            Op::AddExtent { span: draw_span(bytes, world), tables, content, lent }
        }
        22 => Op::SplitAround { token, at, order },
        23 => Op::Trim { token, span: draw_span(bytes, world) },
        24 => match bytes.below(4) {
            0 => Op::Keep { token },
            1 => Op::Retire { token },
            2 => Op::FolioIntoRaw { token },
            _ => Op::ReleasePart { token, span: draw_span(bytes, world) },
        },
        25 => {
            Op::SetHook { script: Vec::from([bytes.one_of([HookStep::Keep, HookStep::Publish])]) }
        }
        _ => Op::Publish { token },
    }
}

/// Asks a directory with two owners about any pages and ranges.
fn behind_directory(bytes: &mut Bytes<'_>, extents: &[PfnRange]) -> Result<(), String> {
    let mut lines: Vec<Vec<MetaLine>> = Vec::new();
    for extent in extents {
        let nr_lines = MetaSize::of(*extent, Tables::Dense).lines();
        lines.push((0..nr_lines).map(|_| MetaLine::default()).collect());
    }
    let slots = [[ExtentSlot::new()], [ExtentSlot::new()]];
    let pgmaps = slots.each_ref().map(|it| Pgmap::new(Owner::<()>::new(), Policy::generic(), it));
    let dir_slots = [DirSlot::new(), DirSlot::new()];
    let directory = Directory::new(&dir_slots);
    for ((pgmap, range), lines) in pgmaps.iter().zip(extents).zip(&mut lines) {
        let (attrs, attach) = (ExtentAttrs::NEW, Attach::Zeroed);
        let added = pgmap.add_extent(*range, attrs, Tables::Dense, lines, attach);
        added.map_err(|error| error.to_string())?;
        directory.register(pgmap).map_err(|error| error.to_string())?;
    }
    let ends =
        [0, 1].map(|at| extents.get(at).map_or((0, 1), |it| (it.start().as_u64(), it.nr_pages())));
    // One page of each extent is live, the others are free.
    let mut folios = Vec::new();
    for (pgmap, range) in pgmaps.iter().zip(extents) {
        let folio = pgmap.claim(range.last(), Order::ZERO).map_err(|error| error.to_string())?;
        folios.push(folio.publish());
    }
    for _ in 0..bytes.below(8) {
        let pfn = draw_pfn(bytes, ends);
        let extent = extents.iter().find(|it| has(**it, pfn));
        let is_live = extent.is_some_and(|it| it.last() == pfn);
        let is_right = match directory.try_get(pfn) {
            Lookup::Foreign => extent.is_none(),
            Lookup::Folio(folio) => is_live && folio.head() == pfn,
            Lookup::Miss(_) => extent.is_some() && !is_live,
        };
        let is_seen = match directory.query(pfn) {
            None => extent.is_none(),
            Some(PageInfo::Outside) => false,
            Some(PageInfo::Free) => extent.is_some() && !is_live,
            Some(PageInfo::Folio(folio)) => is_live && folio.head == pfn && folio.refs == 1,
        };
        if !is_right || !is_seen {
            return Err(format!("the directory is wrong about {pfn:?} beside {extents:?}"));
        }
        let pages = draw_span(bytes, ends);
        let within = PfnRange::new(draw_pfn(bytes, ends), bytes.any().max(1));
        let (Ok(within), align) = (within, Order::new(bytes.below(19)).unwrap_or(Order::MAX))
        else {
            continue;
        };
        let nr_pages = pages.pages.0;
        let found = directory.request_free_range(nr_pages, align, within);
        let found = found.ok().map(|it| (it.start().as_u64(), it.nr_pages()));
        let expected = highest_unused(extents, nr_pages, align, within);
        if found != expected.map(|start| (start, nr_pages)) {
            let asked = format!("{nr_pages} pages of align {align} in {within}");
            return Err(format!("{asked} beside {extents:?}: {found:?} and not {expected:?}"));
        }
    }
    Ok(())
}

/// Returns whether a range has a page.
fn has(range: PfnRange, pfn: Pfn) -> bool {
    let start = u128::from(range.start().as_u64());
    (start..start + u128::from(range.nr_pages())).contains(&u128::from(pfn.as_u64()))
}

/// Returns the highest aligned start of so many unused pages: each ends where the range does, or
/// in front of an extent, but for what the alignment leaves.
fn highest_unused(
    extents: &[PfnRange],
    nr_pages: u64,
    align: Order,
    within: PfnRange,
) -> Option<u64> {
    let wide = |range: PfnRange| {
        let start = u128::from(range.start().as_u64());
        (start, start + u128::from(range.nr_pages()))
    };
    let (low, high) = wide(within);
    let nr_pages = u128::from(nr_pages);
    let ends = extents.iter().map(|it| wide(*it).0).filter(|end| *end <= high).chain([high]);
    let starts = ends.filter_map(|end| {
        let start = end.checked_sub(nr_pages).filter(|_| nr_pages != 0)?;
        Some(start - start % u128::from(align.nr_pages()))
    });
    let is_unused = |start: &u128| {
        let is_apart = |it: &PfnRange| wide(*it).1 <= *start || start + nr_pages <= wide(*it).0;
        low <= *start && extents.iter().all(is_apart)
    };
    starts.filter(is_unused).max().and_then(|start| u64::try_from(start).ok())
}
