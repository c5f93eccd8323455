//! Small pgmaps, and the proof that a refusal changes nothing.

use core::fmt::Debug;
use core::iter::repeat_with;

use devfolio::{
    Attach, ExtentAttrs, ExtentSlot, FolioInfo, Life, MetaLine, MetaSize, Order, Pfn, PfnRange,
    Pgmap, PgmapCore, PgmapOps, Policy, Stats, Tables,
};

/// Pages of a block.
pub const BLOCK: u64 = Order::BLOCK.nr_pages();

/// An owner without hooks or data.
pub struct Plain;

impl PgmapOps for Plain {
    type Private = ();
}

/// An owner with data beside each folio.
pub struct Tagged;

impl PgmapOps for Tagged {
    type Private = u32;
}

pub type Static<O> = &'static Pgmap<'static, O>;

/// A pgmap without extents. What it is lent is leaked, so that a test may go on after a panic.
pub fn bare<O: PgmapOps + 'static>(ops: O, policy: Policy, nr_slots: usize) -> Static<O> {
    let slots = repeat_with(ExtentSlot::new).take(nr_slots).collect::<Vec<_>>().leak();
    Box::leak(Box::new(Pgmap::new(ops, policy, slots)))
}

/// Four blocks from page 0x1000 on, with tables for so many of them, and room for one extent more.
pub fn world_of(policy: Policy, tables: Tables) -> Static<Plain> {
    let pgmap = bare(Plain, policy, 2);
    attach(pgmap, range(0x1000, 4 * BLOCK), tables);
    pgmap
}

/// The same with everything allowed and nothing scarce.
pub fn world() -> Static<Plain> {
    world_of(Policy::generic(), Tables::Dense)
}

pub fn attach(pgmap: Static<Plain>, range: PfnRange, tables: Tables) {
    let lines = lines(MetaSize::of(range, tables).lines());
    pgmap.add_extent(range, ExtentAttrs::NEW, tables, lines, Attach::Zeroed).unwrap();
}

pub fn lines(nr_lines: usize) -> &'static mut [MetaLine] {
    repeat_with(MetaLine::default).take(nr_lines).collect::<Vec<_>>().leak()
}

pub fn range(start: u64, nr_pages: u64) -> PfnRange {
    PfnRange::new(Pfn::new(start), nr_pages).unwrap()
}

pub fn order(order: u8) -> Order {
    Order::new(order).unwrap()
}

/// All that can be seen of a pgmap, and all words that cannot.
#[derive(Debug, PartialEq)]
pub struct Snapshot {
    image: Vec<u64>,
    stats: Stats,
    folios: Vec<FolioInfo>,
    free_runs: Vec<PfnRange>,
    extents: Vec<(PfnRange, ExtentAttrs)>,
    life: Life,
}

impl Snapshot {
    pub fn of<O: PgmapOps>(pgmap: &PgmapCore<O>) -> Self {
        pgmap.check().unwrap();
        let mut folios = Vec::new();
        pgmap.for_each_folio(|folio| folios.push(folio));
        Self {
            image: pgmap.image(),
            stats: pgmap.stats(),
            folios,
            free_runs: pgmap.free_runs().collect(),
            extents: pgmap.extents().collect(),
            life: pgmap.state(),
        }
    }
}

/// Runs what has to be refused and returns why; nothing may have changed by it.
#[track_caller]
pub fn refused<O: PgmapOps, T: Debug, E>(
    pgmap: &PgmapCore<O>,
    attempt_fn: impl FnOnce() -> Result<T, E>,
) -> E {
    let before = Snapshot::of(pgmap);
    let error = match attempt_fn() {
        Ok(answer) => panic!("granted: {answer:?}"),
        Err(error) => error,
    };
    assert_eq!(Snapshot::of(pgmap), before, "a refusal changed something");
    error
}
