//! A small world, and the threads in it.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use devfolio::{
    Attach, ExtentAttrs, ExtentSlot, HookCx, MetaLine, MetaSize, Pgmap, Policy, Tables,
};

use super::hand::{Hand, Touch, hands, seen};
use super::judge::{Done, History};
use super::reference::{BLOCKS, Op, Piece, Said, World};
use super::{BLOCK, Order, Pfn, PfnRange, PgmapCore, PgmapOps, Source, UniqueFolio, schedule};

/// What the threads begin with.
pub type Start = &'static [&'static [Piece]];

const STARTS: [Start; 8] = [
    &[&[Piece::WHOLE], &[]],
    &[&[Piece::WHOLE], &[Piece::WHOLE]],
    &[&[Piece::LOW, Piece::HIGH], &[]],
    &[&[Piece::LOW], &[Piece::HIGH]],
    &[&[Piece::WHOLE], &[], &[]],
    &[&[Piece::WHOLE], &[Piece::WHOLE], &[]],
    &[&[Piece::LOW, Piece::HIGH], &[Piece::HIGH], &[]],
    &[&[Piece::LOW], &[Piece::HIGH], &[]],
];

const OPS: [Op; 16] = [
    Op::Split,
    Op::Merge,
    Op::Put,
    Op::GetHigh,
    Op::GetLow,
    Op::Map,
    Op::Unmap,
    Op::Pin,
    Op::Unpin,
    Op::Alloc,
    Op::Free,
    Op::Split,
    Op::Merge,
    Op::Put,
    Op::GetHigh,
    Op::Alloc,
];

/// Returns what an input stands for: a beginning, and up to five operations for each thread.
pub fn program(source: &mut Source) -> (Start, Vec<Vec<Op>>) {
    let start = STARTS[usize::from(source.byte()) % STARTS.len()];
    let mut ops = || {
        let nr_ops = 1 + source.byte() % 5;
        (0..nr_ops).map(|_| OPS[usize::from(source.byte()) % OPS.len()]).collect()
    };
    (start, start.iter().map(|_| ops()).collect())
}

/// An owner who notices when somebody uses a block that another one has alone.
#[derive(Default)]
struct Owner {
    /// How many use a block now; [`ALONE`] is one who must be alone.
    users: [AtomicU32; BLOCKS as usize],
    nr_freed: AtomicU64,
}

const ALONE: u32 = 1 << 16;

impl Owner {
    fn touch(&self, pages: PfnRange, weight: u32) {
        let blocks = (0..).zip(&self.users);
        for (_, users) in blocks.filter(|(block, _)| pages.contains(Pfn::new(block * BLOCK))) {
            let others = users.fetch_add(weight, Ordering::Relaxed);
            assert!(others < ALONE && (weight != ALONE || others == 0), "{pages} is used twice");
            schedule::point();
            users.fetch_sub(weight, Ordering::Relaxed);
        }
    }
}

impl Touch for Owner {
    fn read(&self, pages: PfnRange) {
        self.touch(pages, 1);
    }

    fn write(&self, pages: PfnRange) {
        self.touch(pages, ALONE);
    }
}

impl PgmapOps for Owner {
    type Private = ();

    fn folio_free<'a>(&'a self, folio: UniqueFolio<'a, Self>, _: &mut HookCx<'a, Self>) {
        self.write(folio.range());
        self.nr_freed.fetch_add(1, Ordering::Relaxed);
        folio.release();
    }
}

/// Does the operations of one thread.
fn work<'a>(
    pgmap: &'a PgmapCore<Owner>,
    clock: &AtomicU64,
    mut hand: Hand<'a, Owner>,
    ops: &[Op],
) -> (Vec<Done>, Hand<'a, Owner>) {
    let now = || clock.fetch_add(1, Ordering::Relaxed);
    let act = |&op: &Op| {
        let begin = now();
        let said = hand.act(pgmap, op).unwrap_or(Said::Idle);
        Done { op, said, begin, end: now() }
    };
    (ops.iter().map(act).collect(), hand)
}

/// Runs a program.
///
/// # Errors
///
/// Returns what happened if the operations one after the other cannot come to it.
pub fn run(start: Start, program: &[Vec<Op>]) -> Result<(), History> {
    let range = PfnRange::new(Pfn::new(0), BLOCKS * BLOCK).unwrap();
    let nr_lines = MetaSize::of(range, Tables::Budget(0)).lines();
    let mut lines: Vec<_> = (0..nr_lines).map(|_| MetaLine::default()).collect();
    let slots = [ExtentSlot::new()];
    let pgmap = Pgmap::new(Owner::default(), Policy::generic(), &slots);
    let (attrs, tables) = (ExtentAttrs::NEW, Tables::Budget(0));
    pgmap.add_extent(range, attrs, tables, &mut lines, Attach::Zeroed).unwrap();

    let clock = AtomicU64::new(0);
    let (pgmap, clock) = (&*pgmap, &clock);
    let hands = hands(pgmap, start);
    let (done, hands): (Vec<Vec<Done>>, Vec<_>) = schedule::racing(|| {
        shuttle::thread::scope(|scope| {
            let roles = hands.into_iter().zip(program);
            let spawned: Vec<_> = roles
                .map(|(hand, ops)| scope.spawn(move || work(pgmap, clock, hand, ops)))
                .collect();
            spawned.into_iter().map(|thread| thread.join().unwrap()).unzip()
        })
    });

    pgmap.check().unwrap();
    let blocks = core::array::from_fn(|block| seen(pgmap, block as u64));
    let history = History { done, blocks, nr_hooks: pgmap.ops().nr_freed.load(Ordering::Relaxed) };
    drop(hands);
    assert_eq!(pgmap.stats().free_pages, BLOCKS * BLOCK, "not all of it came back");
    assert!(pgmap.alloc(Order::new(10).unwrap()).is_ok(), "two buddies were not merged");
    if history.is_explained(&World::new(start)) { Ok(()) } else { Err(history) }
}
