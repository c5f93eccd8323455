//! Address spaces over real page tables, against the flat ones of the specification.
//!
//! Any bytes are a history: the geometry of the tables first, then the steps. After every step each
//! leaf of every space, each count of every folio and every table page is compared.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    reason = "an oracle that panics has found something; nothing depends on it in production"
)]

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt::Debug;

mod failure;
mod steps;

use crate::map::*;
use crate::meta::{Count, MetaLine, MetaSize, Tables};
use crate::model::{Flat, FlatFolio, FlatLeaf, FlatRefusal, FlatSpace};
use crate::pgmap::*;
use crate::sync::{AtomicU64, Ordering};
use crate::units::{Order, Pfn, PfnRange};

/// The pages of the first owner and of the second; all others are foreign.
const FIRST: u64 = 0x400;
const SECOND: u64 = 0x800;
/// The most addresses that a history uses of a space.
const ADDRESSES_MAX: u64 = 256;
const STEPS_MAX: usize = 96;
/// Each step has as many bytes, so that a change to one of them leaves the others alone.
const STEP_BYTES: usize = 12;
/// The prime of the hash FNV-1a, which chooses what is looked at.
const PRIME: u64 = 0x0100_0000_01b3;
/// As many table pages as the deepest table with all of these addresses takes, and some.
const NR_NODES: usize = 88;

/// What went wrong, and where.
type Check = Result<(), String>;

/// An owner that counts what comes back.
#[derive(Debug, Default)]
struct Counting {
    nr_freed: AtomicU64,
}

impl PgmapOps for Counting {
    type Private = ();

    fn folio_free<'a>(&'a self, folio: UniqueFolio<'a, Self>, _: &mut HookCx<'a, Self>) {
        // ORDERING: Relaxed. One thread.
        self.nr_freed.fetch_add(1, Ordering::Relaxed);
        folio.release();
    }
}

/// A table that looks, at each flush, whether what was taken away is still counted.
struct Watched<'d> {
    inner: SoftTable<'d>,
    directory: &'d Directory<'d>,
    cleared: Vec<Pfn>,
}

impl LeafReader for Watched<'_> {
    fn read(&self, vpn: Vpn) -> Entry {
        self.inner.read(vpn)
    }
}

impl PageTable for Watched<'_> {
    fn leaf_set(&self) -> LeafSet {
        self.inner.leaf_set()
    }

    fn addresses(&self) -> VpnRange {
        self.inner.addresses()
    }

    fn can_hold(&self, pages: PfnRange) -> bool {
        self.inner.can_hold(pages)
    }

    fn reserve(&mut self, range: VpnRange, order: Order) -> Result<(), NoTable> {
        self.inner.reserve(range, order)
    }

    fn trim(&mut self, range: VpnRange) {
        self.inner.trim(range);
    }

    fn set(&mut self, vpn: Vpn, leaf: Leaf) {
        self.inner.set(vpn, leaf);
    }

    fn clear(&mut self, vpn: Vpn) -> Option<Leaf> {
        let leaf = self.inner.clear(vpn);
        self.cleared.extend(leaf.map(|leaf| leaf.pfn));
        leaf
    }

    fn protect(&mut self, vpn: Vpn, rights: Rights) {
        self.inner.protect(vpn, rights);
    }

    fn flush(&mut self, range: VpnRange) {
        for pfn in self.cleared.drain(..) {
            let is_counted = match self.directory.query(pfn) {
                None => true,
                Some(PageInfo::Folio(info)) => info.mappings != 0,
                Some(_) => false,
            };
            assert!(is_counted, "page {pfn} lost its count before the flush");
        }
        self.inner.flush(range);
    }

    fn split(&mut self, vpn: Vpn, order: Order) {
        self.inner.split(vpn, order);
    }

    fn join(&mut self, vpn: Vpn, order: Order) {
        self.inner.join(vpn, order);
    }
}

type Space<'d> = AddressSpace<'d, Watched<'d>>;

/// The bytes of a history; behind the last one there are zeroes.
struct Bytes<'b>(core::slice::Iter<'b, u8>);

impl<'b> Bytes<'b> {
    /// Takes the next bytes, or what is left.
    fn split_off(&mut self, nr: usize) -> Bytes<'b> {
        let all = self.0.as_slice();
        let (first, rest) = all.split_at(nr.min(all.len()));
        self.0 = rest.iter();
        Bytes(first.iter())
    }

    fn is_empty(&self) -> bool {
        self.0.as_slice().is_empty()
    }

    fn next(&mut self) -> u64 {
        self.0.next().copied().unwrap_or(0).into()
    }

    fn below(&mut self, end: u64) -> u64 {
        let value = if end <= 256 { self.next() } else { self.next() << 8 | self.next() };
        value.checked_rem(end).unwrap_or(0)
    }

    /// One of a list, which is not empty.
    fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).unwrap_or(0)
    }
}

/// The crate and the specification, side by side.
struct World<'d> {
    directory: &'d Directory<'d>,
    first: &'d PgmapCore<Counting>,
    second: &'d PgmapCore<Counting>,
    spaces: Vec<Space<'d>>,
    flat: Flat,
    /// The references; the specification has their number.
    handles: Vec<AnyFolio<'d>>,
    holds: Vec<(u64, GupHold<'d>)>,
    nr_freed: u64,
    /// The addresses that are used of each space.
    size: u64,
    order_max: u8,
    /// Whether table pages may run out.
    is_scarce: bool,
}

/// Runs the history that `bytes` are.
///
/// # Errors
///
/// Says at which step, and how, the crate and the specification part ways.
pub fn run_mapping(bytes: &[u8]) -> Result<(), String> {
    let mut bytes = Bytes(bytes.iter());
    let level_bits = 1 + bytes.below(3);
    let size = (1u64 << (4 * level_bits)).min(ADDRESSES_MAX);
    let order_max = u8::try_from(3 * level_bits).unwrap_or(0).min(6);
    let is_scarce = bytes.below(4) == 0;
    let nr_nodes = if is_scarce { 4 + bytes.index(12) } else { NR_NODES };
    let nr_spaces = 1 + bytes.index(3);
    let plans: Vec<(u32, Replace)> = (0..nr_spaces)
        .map(|_| {
            let replace =
                if bytes.below(2) == 0 { Replace::Atomic } else { Replace::BreakBeforeMake };
            (u32::try_from(bytes.next()).unwrap_or(0) & ((2 << order_max) - 1) | 1, replace)
        })
        .collect();

    let extents = [FIRST, SECOND].map(|start| PfnRange::new(Pfn::new(start), 256));
    let [Ok(one), Ok(two)] = extents else { return Err("no extents".into()) };
    let lend = || -> Vec<MetaLine> {
        (0..MetaSize::of(one, Tables::Dense).lines()).map(|_| MetaLine::default()).collect()
    };
    let (mut lines, mut more) = (lend(), lend());
    let slots = [ExtentSlot::new(), ExtentSlot::new()];
    let first = Pgmap::new(Counting::default(), Policy::generic(), &slots);
    let second = Pgmap::new(Counting::default(), Policy::private(), &slots);
    let attach = Attach::Zeroed;
    let added = [
        first.add_extent(one, ExtentAttrs::NEW, Tables::Dense, &mut lines, attach),
        second.add_extent(two, ExtentAttrs::NEW, Tables::Dense, &mut more, attach),
    ];
    let owners = [DirSlot::new(), DirSlot::new()];
    let directory = Directory::new(&owners);
    let registered = [directory.register(&first), directory.register(&second)];
    if added.iter().any(Result::is_err) || registered.iter().any(Result::is_err) {
        return Err("no owners".into());
    }
    let mut nodes: Vec<Box<[SoftNode]>> =
        plans.iter().map(|_| (0..nr_nodes).map(|_| SoftNode::new()).collect()).collect();
    let mut world = World {
        directory: &directory,
        first: &first,
        second: &second,
        spaces: Vec::new(),
        flat: Flat {
            spaces: plans
                .iter()
                .map(|(set, _)| FlatSpace::new(*set, usize::try_from(size).unwrap_or(0)))
                .collect(),
            folios: Vec::new(),
            mappings_max: Count::Mappings.max().into(),
        },
        handles: Vec::new(),
        holds: Vec::new(),
        nr_freed: 0,
        size,
        order_max,
        is_scarce,
    };
    for (nodes, (set, replace)) in nodes.iter_mut().zip(plans) {
        let bits = (0..=order_max).filter(|bit| set >> bit & 1 == 1).filter_map(Order::new);
        let set = bits.fold(LeafSet::PAGES, LeafSet::with);
        let level_bits = u8::try_from(level_bits).unwrap_or(1);
        let inner = SoftTable::with_level_bits(nodes, level_bits, set, replace);
        let inner = inner.ok_or("no table")?;
        let table = Watched { inner, directory: &directory, cleared: Vec::new() };
        world.spaces.push(AddressSpace::new(table, &directory));
    }
    world.run(&mut bytes)?;
    world.finish()
}

impl World<'_> {
    fn run(&mut self, bytes: &mut Bytes<'_>) -> Check {
        for step in 0..STEPS_MAX {
            if bytes.is_empty() {
                break;
            }
            let mut own = bytes.split_off(STEP_BYTES);
            // Of the same bytes, so that no history means anything else.
            let mix = |noise: u64, byte: &u8| (noise ^ u64::from(*byte)).wrapping_mul(PRIME);
            let noise = own.0.as_slice().iter().fold(step as u64, mix);
            self.step(&mut own).map_err(|what| format!("step {step}: {what}"))?;
            let compared = self.compare().and_then(|()| self.compare_mappings(noise));
            compared.map_err(|what| format!("after step {step}: {what}"))?;
        }
        Ok(())
    }

    /// Compares everything that can be seen.
    fn compare(&mut self) -> Check {
        self.nr_freed = self.nr_freed.saturating_add(self.flat.reap());
        for (index, (space, flat)) in self.spaces.iter().zip(&self.flat.spaces).enumerate() {
            let real: Vec<FlatLeaf> = space
                .leaves(space.table().addresses())
                .map(|(part, leaf)| view(part, leaf))
                .collect();
            same(&format!("leaves of space {index}"), &real, &flat.leaves(0, self.size))?;
        }
        for folio in &self.flat.folios {
            let expected = FolioInfo {
                head: Pfn::new(folio.head),
                order: order(folio.order),
                kind: FolioKind::Live,
                refs: folio.refs,
                pins: folio.pins,
                mappings: u32::try_from(self.flat.mappings(*folio)).unwrap_or(u32::MAX),
                is_closed: false,
            };
            let real = self.directory.query(Pfn::new(folio.head));
            same("folio", &real, &Some(PageInfo::Folio(expected)))?;
        }
        // ORDERING: Relaxed. One thread.
        let freed =
            [self.first, self.second].map(|owner| owner.ops().nr_freed.load(Ordering::Relaxed));
        same("hooks", &freed.iter().sum(), &self.nr_freed)
    }

    /// Compares an answer; false if the crate refused for want of table pages.
    fn judge<T: Debug + PartialEq, E: Debug>(
        &self,
        what: &str,
        real: Result<T, E>,
        expected: &Result<T, FlatRefusal>,
        refusal_fn: impl FnOnce(&E) -> Option<FlatRefusal>,
    ) -> Result<bool, String> {
        let answer = match &real {
            Ok(_) => None,
            Err(error) => match refusal_fn(error) {
                Some(refusal) => Some(refusal),
                None if self.is_scarce => return Ok(false),
                None => return Err(format!("{what}: {error:?} with table pages to spare")),
            },
        };
        match (real, expected) {
            (Ok(real), Ok(expected)) => same(what, &real, expected).map(|()| true),
            (Err(_), Err(refusal)) if answer == Some(*refusal) => Ok(true),
            (real, expected) => Err(format!("{what}: {real:?} where {expected:?} is due")),
        }
    }

    /// Gives everything back.
    fn finish(mut self) -> Check {
        self.holds.clear();
        self.handles.clear();
        for space in &mut self.spaces {
            let all = space.table().addresses();
            space.unmap(all).map_err(|error| error.to_string())?;
            let table = &mut space.table_mut().inner;
            let nr_nodes = table.nr_free_nodes().saturating_add(1);
            if !self.is_scarce {
                same("table pages", &nr_nodes, &NR_NODES)?;
            }
        }
        for owner in [self.first, self.second] {
            owner.check().map_err(|error| format!("{error:?}"))?;
            same("free pages", &owner.stats().free_pages, &256)?;
        }
        Ok(())
    }
}

fn order(log2: u8) -> Order {
    Order::new(log2).unwrap_or(Order::MAX)
}

fn view(part: VpnRange, leaf: Leaf) -> FlatLeaf {
    FlatLeaf {
        vpn: leaf.addresses(part.start()).start().as_u64(),
        pfn: leaf.pfn.as_u64(),
        order: leaf.order.as_u8(),
        rights: leaf.rights.bits(),
        accessed: leaf.accessed,
        dirty: leaf.dirty,
    }
}

fn same<T: Debug + PartialEq>(what: &str, real: &T, expected: &T) -> Check {
    if real == expected {
        return Ok(());
    }
    Err(format!("{what}: {real:?} where {expected:?} is due"))
}
