//! From bytes to histories: how a fuzzer, or noise from a fixed seed, draws every field.
//!
//! Small orders, live objects and small counts are likely; extremes are always possible.

use alloc::vec::Vec;

use arbitrary::{Arbitrary, Result, Unstructured};

use super::field::{
    AnyOrder, At, Content, Count, Direction, HookStep, Lent, Node, Pages, Span, TableBudget, Term,
    Tighten, Token,
};
use super::geometry::{ExtentPlan, Geometry, PolicyBits, ScrubAnswer, ScrubPolicy};
use super::history::History;
use super::op::Op;
use crate::units::{Order, Pfn, PfnRange};

/// Fewer answers than this are given to the hook that scrubs.
const ANSWERS_MAX: u8 = 24;
/// The most steps that noise makes of one input.
const STEPS_MAX: usize = 96;

/// Picks one of the values by one byte.
fn one_of<T: Copy>(u: &mut Unstructured<'_>, values: &[T]) -> Result<T> {
    let index = usize::from(u8::arbitrary(u)?).checked_rem(values.len());
    index.and_then(|index| values.get(index).copied()).ok_or(arbitrary::Error::EmptyChoose)
}

impl<'a> Arbitrary<'a> for Token {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        Ok(Self(u8::arbitrary(u)?.into()))
    }
}

impl<'a> Arbitrary<'a> for AnyOrder {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        let orders = [
            0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 3, 3, 4, 5, 6, 7, 8, 8, 9, 9, 9, 10, 11, 13, 16,
            17, 18, 18, 19, 255,
        ];
        one_of(u, &orders).map(Self)
    }
}

impl<'a> Arbitrary<'a> for Count {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        let large = [1 << 14, (1 << 14) - 1, 65_535, 65_534, (1 << 23) - 1, 1 << 22, u32::MAX, 512];
        Ok(Self(match u8::arbitrary(u)? {
            small @ 0..240 => u32::from(small % 16),
            rest => large[usize::from(rest % 8)],
        }))
    }
}

impl<'a> Arbitrary<'a> for Pages {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        let large = [511, 512, 513, 1024, 1 << 17, 1 << 18, (1 << 18) + 1, u64::MAX];
        Ok(Self(match u8::arbitrary(u)? {
            small @ 0..208 => u64::from(small % 26),
            rest => large[usize::from(rest % 8)],
        }))
    }
}

impl<'a> Arbitrary<'a> for At {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        let (which, index) = (u8::arbitrary(u)?, u8::arbitrary(u)?);
        Ok(match which % 16 {
            0..5 => Self::Head(which / 16),
            5..8 => Self::Page(which / 16, index),
            8..13 => Self::Free(which / 16, index),
            13..15 => Self::Edge(which / 16, index),
            _ => Self::Pfn(end_of_space(which, index)),
        })
    }
}

/// Returns a page at one of the ends of space.
fn end_of_space(which: u8, index: u8) -> Pfn {
    let index = u64::from(index);
    Pfn::new(if which < 128 { index } else { u64::MAX - index })
}

impl<'a> Arbitrary<'a> for Span {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        Ok(Self { start: At::arbitrary(u)?, pages: Pages::arbitrary(u)? })
    }
}

impl<'a> Arbitrary<'a> for HookStep {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        let which = usize::from(u8::arbitrary(u)?);
        match Self::PLAIN.get(which % 12) {
            Some(&step) => Ok(step),
            None => AnyOrder::arbitrary(u).map(Self::Alloc),
        }
    }
}

/// Implements [`Arbitrary`] as a choice between values.
macro_rules! choices {
    ($($type:ident: $($value:expr),+;)*) => {
        $(impl<'a> Arbitrary<'a> for $type {
            fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
                one_of(u, &[$($value),+])
            }
        })*
    };
}

choices! {
    Direction: Self::Up, Self::Down;
    Content: Self::Any, Self::Clean, Self::Dirty, Self::OnlyClean;
    Node: Self::Any, Self::Any, Self::Any, Self::At(0), Self::At(1), Self::At(2);
    Term: Self::Short, Self::Short, Self::Long;
    Tighten: Self::Refuse, Self::Leases;
    ScrubPolicy: Self::OnFree, Self::OnAlloc, Self::OnOwnerChange;
    ScrubAnswer: Self::Done, Self::Done, Self::Failed, Self::Later, Self::Same;
    Lent: Self::Zeroed, Self::Zeroed, Self::Noise, Self::Short;
    TableBudget: Self::Dense, Self::Budget(0), Self::Budget(1), Self::Budget(2);
}

impl<'a> Arbitrary<'a> for PolicyBits {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        // Most worlds are plain: a restriction also hides what lies behind it.
        let bits = u8::arbitrary(u)? & u8::arbitrary(u)?;
        let max_order = if bits & 1 == 0 { Order::MAX } else { draw_order(u)? };
        Ok(Self {
            max_order,
            keep_on_drop: bits & 2 != 0,
            deferred: bits & 4 != 0,
            refuse_long: bits & 8 != 0,
            owner_data: bits & 16 != 0,
            claim_only: bits & 0x60 == 0x60,
            lease_long: bits & 0x80 != 0,
            scrub: if bits & 0xc0 == 0xc0 { u.arbitrary()? } else { ScrubPolicy::Never },
        })
    }
}

fn draw_order(u: &mut Unstructured<'_>) -> Result<Order> {
    let orders = [0, 1, 2, 3, 4, 8, 9, 10, 17];
    Ok(Order::new(one_of(u, &orders)?).unwrap_or(Order::MAX))
}

/// So many of the first extents are small; some of them touch each other.
const SMALL: usize = 14;
/// Extents as (start, pages): tiny, odd, at the borders of blocks and regions, at the top.
const EXTENTS: [(u64, u64); 28] = [
    (0, 16),
    (0, 1),
    (1, 1),
    (2, 1),
    (16, 8),
    (0x208, 8),
    (3, 5),
    (8, 32),
    (0x1000, 64),
    (5, 55),
    (0x1f8, 16),
    (0x1ff, 3),
    (0x200, 512),
    (0, 512),
    (0x3f0, 544),
    (0x200, 1024),
    (7, 1500),
    (0x400, 1536),
    (0x3_fff0, 32),
    (0x3_fe00, 1024),
    (u64::MAX, 1),
    (u64::MAX - 15, 16),
    (u64::MAX - 20, 21),
    (u64::MAX - 1023, 1024),
    (0x4_0000, 1 << 18),
    (0x3_fe00, (1 << 18) + 512),
    (0x3_fffb, (1 << 18) + 9),
    (0x8_0000, 1 << 19),
];

impl<'a> Arbitrary<'a> for Geometry {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        let mut geometry =
            Self { policy: u.arbitrary()?, slots: 4, extents: Vec::new(), answers: Vec::new() };
        let scrubs = geometry.policy.scrub != ScrubPolicy::Never;
        if scrubs {
            for _ in 0..u8::arbitrary(u)? % ANSWERS_MAX {
                geometry.answers.push(u.arbitrary()?);
            }
        }
        let number = one_of(u, &[1, 1, 1, 2, 2, 3])?;
        for _ in 0..number {
            let which = usize::from(u8::arbitrary(u)?);
            // Small ones are faster, and their borders are nearer to each other.
            let is_small = which < 192 || scrubs;
            let index = which % if is_small { SMALL } else { EXTENTS.len() };
            let (start, nr_pages) = EXTENTS[index];
            let mut tables = u.arbitrary()?;
            if nr_pages > 1 << 12 && tables == TableBudget::Dense {
                // Clearing a table for every block of a region would take all the time.
                tables = TableBudget::Budget(3);
            }
            if scrubs {
                // Which blocks keep a table after an attempt that is undone is not specified.
                tables = TableBudget::Dense;
            }
            let clean = u8::arbitrary(u)? & 1 == 1;
            let Ok(range) = PfnRange::new(Pfn::new(start), nr_pages) else { continue };
            geometry.extents.push(ExtentPlan { range, tables, clean });
            if !geometry.is_sound() {
                geometry.extents.pop();
            }
        }
        Ok(geometry)
    }
}

impl<'a> Arbitrary<'a> for History {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        let geometry = Geometry::arbitrary(u)?;
        // A swarm: most inputs do without some operations, which lets the others pile up. The last
        // ones share the bits of the first.
        let swarm = if u8::arbitrary(u)? & 3 == 0 { u64::MAX } else { u64::arbitrary(u)? };
        let ops =
            draw_ops(u, |op| BASICS.contains(&op.word()) || swarm >> (op.index() % 64) & 1 == 1)?;
        Ok(Self { geometry, ops })
    }
}

impl History {
    /// Draws a history of shapes: deep orders in large extents, and hardly anything but
    /// allocation, split, merge, trim and mapping.
    ///
    /// # Errors
    ///
    /// None; running out of bytes ends the history.
    pub fn arbitrary_fracture(u: &mut Unstructured<'_>) -> Result<Self> {
        let mut geometry = Geometry::single(0, 1);
        geometry.policy.max_order = draw_order(u)?.max(Order::BLOCK);
        let (start, nr_pages) = one_of(u, &EXTENTS[SMALL - 1..])?;
        let tables = one_of(u, &[2, 1, 0, 5].map(TableBudget::Budget))?;
        let clean = u8::arbitrary(u)? & 1 == 1;
        if let Ok(range) = PfnRange::new(Pfn::new(start), nr_pages) {
            geometry.extents = Vec::from([ExtentPlan { range, tables, clean }]);
        }
        Ok(Self { geometry, ops: draw_ops(u, |op| SHAPES.contains(&op.word()))? })
    }
}

impl History {
    /// Draws a history of extents that come and go: several small ones, and hardly anything but
    /// what adds, removes, restores and detaches them, and what is in the way of that.
    ///
    /// # Errors
    ///
    /// None; running out of bytes ends the history.
    pub fn arbitrary_extents(u: &mut Unstructured<'_>) -> Result<Self> {
        let mut geometry = Geometry::arbitrary(u)?;
        let nr_extents = u8::try_from(geometry.extents.len()).unwrap_or(u8::MAX);
        geometry.slots = one_of(u, &[4, 3, 2])?.max(nr_extents);
        geometry.policy.claim_only = false;
        Ok(Self { geometry, ops: draw_ops(u, |op| EXTENTS_OPS.contains(&op.word()))? })
    }
}

/// What every history may contain.
const BASICS: [&str; 6] = ["alloc", "claim", "publish", "drop-folio", "release", "try-get"];

/// What a history of shapes consists of.
const SHAPES: [&str; 20] = [
    "alloc",
    "alloc-with",
    "alloc-set",
    "alloc-run",
    "alloc-bulk",
    "claim",
    "claim-range",
    "publish",
    "release",
    "release-clean",
    "split",
    "split-around",
    "trim",
    "release-part",
    "merge",
    "try-get",
    "drop-folio",
    "map",
    "unmap",
    "freeze",
];

/// What a history of extents consists of.
const EXTENTS_OPS: [&str; 31] = [
    "alloc",
    "alloc-with",
    "claim",
    "publish",
    "release",
    "keep",
    "retire",
    "try-get",
    "drop-folio",
    "pin-raw",
    "unpin-raw",
    "map-raw",
    "unmap-raw",
    "revive",
    "claim-kept",
    "claim-retired",
    "use-magazine",
    "add-extent",
    "remove-extent",
    "lose-extent",
    "restore-extent",
    "detach-extent",
    "poison",
    "poison-list",
    "drain",
    "offline",
    "online",
    "lose-pages",
    "attach-holder",
    "detach-holder",
    "migrate",
];

/// Draws operations until the bytes end, and leaves those out that are not allowed.
fn draw_ops(u: &mut Unstructured<'_>, allow_fn: impl Fn(&Op) -> bool) -> Result<Vec<Op>> {
    let mut ops = Vec::new();
    while !u.is_empty() && ops.len() < STEPS_MAX {
        let op = Op::arbitrary(u)?;
        if allow_fn(&op) {
            ops.push(op);
        }
    }
    Ok(ops)
}
