//! The crate itself as a subject of the specification.
//!
//! [`with`] makes a pgmap for a [`Geometry`] and lends it out as a [`Subject`]; [`run`] takes it
//! through a whole [`History`]. Everything goes through the public functions, and every handle is
//! kept in its raw form between two steps, so that the free hook can reach all of them.

mod apply;
mod bytes;
mod capacity;
#[cfg(feature = "arbitrary")]
mod corrupt;
mod count;
mod holder;
#[cfg(feature = "std")]
mod hook;
#[cfg(feature = "arbitrary")]
mod image;
mod lease;
mod leave;
mod mapping;
mod migrate;
mod owner;
mod plan;
mod raw;
mod raw_pfn;
mod refusal;
#[cfg(feature = "std")]
mod scrub;
mod table;
mod withheld;
mod words;

use alloc::boxed::Box;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use core::mem::MaybeUninit;
use core::slice::IterMut;

use crate::folio::{LeaseSlot, Leases, RevokeSlot};
use crate::meta::{Count, MetaLine, MetaSize, Tables};
use crate::model::{
    Caps, Divergence, ExtentPlan, ExtentView, FolioKind, FolioView, Geometry, History, HookEvent,
    LEASES_MAX, Lent, Life, Limits, Looks, Op, Outcome, POISON_MAX, PageView, PolicyBits,
    REVOCATIONS_MAX, Report, ScrubPolicy, Subject, TableBudget, Tally, Totals,
};
use crate::pgmap::{
    AddExtentError, AllocPolicy, Attach, Contents, ExtentAttrs, ExtentSlot, FolioInfo, Holding,
    HookContext, LongtermPins, Migration, OnDrop, PageInfo, Pgmap, Policy, RemoveError, Scrub,
};
use crate::sync::Ordering;
use crate::units::{Order, Pfn, PfnRange};

pub use crate::meta::ExpectCorrupt;
pub use capacity::{PageInUse, Pages, run_capacity};
#[cfg(feature = "arbitrary")]
pub use corrupt::run_corrupt;
#[cfg(feature = "std")]
pub use hook::run_hook;
#[cfg(feature = "arbitrary")]
pub use image::run_image;
pub use mapping::run_mapping;
pub use owner::{Data, Owner};
pub use plan::{PlanAsk, PlanFolio, PlanState, PlanVerdict, PlanWorld, check_plan, run_plan};
pub use raw_pfn::run_raw_pfn;
#[cfg(feature = "std")]
pub use scrub::run_scrub;

/// Runs a history against this crate, and looks after every step.
///
/// # Errors
///
/// Returns the first step at which the crate and the specification part ways.
pub fn run(history: &History) -> Result<Report, Divergence> {
    run_with(history, Looks::EveryStep)
}

/// Runs a history against this crate with few looks: what a fuzzer does.
///
/// # Errors
///
/// If the crate and the specification part ways, the history is run once more with a look after
/// every step, and what that returns is returned; it names the step.
pub fn run_quickly(history: &History) -> Result<Report, Divergence> {
    run_with(history, Looks::Few).or_else(|late| run(history).and(Err(late)))
}

fn run_with(history: &History, looks: Looks) -> Result<Report, Divergence> {
    let History { geometry, ops } = history;
    if geometry.policy.owner_data {
        with::<Box<u64>, _>(geometry, |subject| crate::model::run(subject, geometry, ops, looks))
    } else {
        with::<(), _>(geometry, |subject| crate::model::run(subject, geometry, ops, looks))
    }
}

/// Makes a pgmap for a world and lends it to `use_fn`.
///
/// Extents with a budget of tables get memory full of noise that has to be cleared, others zeroes.
///
/// # Panics
///
/// Panics if an extent of the geometry is refused.
pub fn with<D: Data, R>(
    geometry: &Geometry,
    use_fn: impl FnOnce(&mut PgmapSubject<'_, '_, D>) -> R,
) -> R {
    let slots: Vec<_> = (0..geometry.slots).map(|_| ExtentSlot::new()).collect();
    let mut lanes: Vec<_> = (0..LANES).map(|_| Lane::default()).collect();
    let pgmap = Pgmap::new(Owner::new(), policy(geometry.policy), &slots);
    pgmap.ops().state().answers = geometry.answers.iter().copied().collect();
    let slots: Vec<_> = (0..LEASES_MAX).map(|_| LeaseSlot::new()).collect();
    let closed: Vec<_> = (0..REVOCATIONS_MAX).map(|_| RevokeSlot::new()).collect();
    let mut subject = PgmapSubject {
        pgmap: &pgmap,
        lanes: lanes.iter_mut(),
        nr_attached: 0,
        returned: Vec::new(),
        leases: Leases::new(&pgmap, &slots, &closed),
        lent: Vec::new(),
        holding: None,
    };
    for plan in &geometry.extents {
        let lent = match plan.tables {
            TableBudget::Dense => Lent::Zeroed,
            TableBudget::Budget(_) => Lent::Noise,
        };
        let attached = subject.attach(plan, lent);
        assert_eq!(attached, Some(Ok(())), "an extent of a sound geometry is refused");
    }
    use_fn(&mut subject)
}

/// A pgmap under test.
///
/// Nobody else reaches the pgmap: between two steps there is no handle on it and no borrow of owner
/// data, only raw forms in a table. So raw counts may be dropped whoever they belong to; what is
/// wrong with that, the words notice.
pub struct PgmapSubject<'p, 'm, D: Data> {
    pgmap: &'p Pgmap<'m, Owner<D>>,
    /// Places for metadata memory, one for each attempt to add an extent.
    lanes: IterMut<'m, Lane<D>>,
    /// How many extents were attached.
    nr_attached: u8,
    /// The metadata memory that came back, full of [`OVER`].
    returned: Vec<&'m mut [MetaLine]>,
    leases: Leases<'p, 'p, Owner<D>, &'p Owner<D>>,
    /// The leases and revocations of the table.
    lent: Vec<Option<lease::Lent<'p, D>>>,
    /// The holder that is attached.
    holding: Option<Holding<'p, Owner<D>>>,
}

/// The memory lent to one extent.
struct Lane<D> {
    lines: Vec<MetaLine>,
    private: Vec<MaybeUninit<D>>,
}

impl<D> Default for Lane<D> {
    fn default() -> Self {
        Self { lines: Vec::new(), private: Vec::new() }
    }
}

/// How often a history can try to add an extent; further attempts are not made.
const LANES: usize = 24;
/// What metadata memory is filled with when it has come back.
const OVER: u64 = 0xdead_beef_dead_beef;
/// The largest extent that gets all the memory that it needs.
const ADDED_PAGES_MAX: u64 = 1 << 20;

impl<D: Data> PgmapSubject<'_, '_, D> {
    /// Attaches an extent with fresh memory; `None` if there is no more memory.
    fn attach(&mut self, plan: &ExtentPlan, lent: Lent) -> Option<Result<(), AddExtentError>> {
        let tables = tables(plan);
        let size = MetaSize::of(plan.range, tables);
        let needed = size.lines();
        let nr_lines = match lent {
            _ if plan.range.nr_pages() > ADDED_PAGES_MAX => 0,
            Lent::Short => needed.saturating_sub(1),
            Lent::Zeroed | Lent::Noise => size.poison(POISON_MAX).lines(),
        };
        let Lane { lines, private } = self.lanes.next()?;
        lines.resize_with(nr_lines, MetaLine::default);
        if size_of::<D>() != 0 && needed <= nr_lines {
            private.resize_with(size.private_slots(), MaybeUninit::uninit);
        }
        let attach = match lent {
            Lent::Zeroed | Lent::Short => Attach::Zeroed,
            Lent::Noise => {
                fill_with_noise(lines);
                Attach::Clear
            }
        };
        let contents = if plan.clean { Contents::Zeroed } else { Contents::Unknown };
        let place = self.nr_attached;
        let (node, tier) = (place.into(), place.into());
        let attrs = ExtentAttrs { node, tier, tag: [place; 16], contents };
        let (pgmap, range) = (self.pgmap, plan.range);
        // One that is added closed and opened then is as any other.
        let added = if place % 2 == 0 {
            pgmap.add_extent_with_private(range, attrs, tables, lines, attach, private)
        } else {
            let added = pgmap.add_closed_extent(range, attrs, tables, lines, attach, private);
            if added.is_ok() {
                // Should it stay closed, that is noticed.
                let _ = pgmap.restore_extent(range.start());
            }
            added
        };
        self.nr_attached = place.saturating_add(u8::from(added.is_ok()));
        Some(added)
    }
}

impl<D: Data> fmt::Debug for PgmapSubject<'_, '_, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.pgmap.fmt(f)
    }
}

impl<D: Data> Subject for PgmapSubject<'_, '_, D> {
    fn caps(&self) -> Caps {
        let limits = Limits {
            refs: Count::Refs.max(),
            pins: Count::Pins.max(),
            maps: Count::Mappings.max(),
        };
        Caps::all(limits)
    }

    fn apply(&mut self, op: &Op) -> Outcome {
        self.perform(op)
    }

    fn hook_log(&mut self, log: &mut Vec<HookEvent>) {
        self.pgmap.ops().drain_log(log);
    }

    fn page(&self, pfn: Pfn) -> PageView {
        match self.pgmap.query(pfn) {
            PageInfo::Outside => PageView::Outside,
            PageInfo::Free => PageView::Free,
            PageInfo::Folio(info) => PageView::Folio(view(info)),
        }
    }

    fn folios(&self, list: &mut Vec<FolioView>) -> bool {
        self.pgmap.for_each_folio(|info| list.push(view(info)));
        list.sort_unstable_by_key(|folio| folio.head);
        true
    }

    fn free_runs(&self, list: &mut Vec<PfnRange>) -> bool {
        list.extend(self.pgmap.free_runs());
        list.sort_unstable_by_key(|run| run.start());
        true
    }

    fn extents(&self, list: &mut Vec<ExtentView>) -> bool {
        list.extend(self.pgmap.extents().map(|(range, _)| {
            let first = range.start();
            // An extent that is listed has a state; the fallback differs from every one of them.
            let life = self.pgmap.extent_state(first).map_or(Life::Drained, life);
            ExtentView { range, life, is_gone: self.pgmap.is_gone(first) }
        }));
        true
    }

    fn totals(&self) -> Option<Totals> {
        let stats = self.pgmap.stats();
        Some(Totals {
            life: life(self.pgmap.state()),
            nr_pages: stats.nr_pages,
            free_pages: stats.free_pages,
            clean_pages: stats.clean_pages,
            unique: tally(stats.unique),
            kept: tally(stats.kept),
            live: tally(stats.live),
            pinned: tally(stats.pinned),
            mapped: tally(stats.mapped),
            retired: tally(stats.retired),
            condemned: tally(stats.condemned),
            poisoned: tally(stats.poisoned),
            offline: tally(stats.offline),
            poisoned_pages: stats.poisoned_pages,
            free_by_order: stats.free_by_order,
            largest_free_run: stats.largest_free_run,
        })
    }

    fn image(&self, words: &mut Vec<u64>) {
        self.pgmap.append_image(words);
    }

    fn check(&self) -> Result<(), String> {
        let is_touched =
            |lines: &[MetaLine]| lines.iter().flat_map(MetaLine::words).any(is_touched);
        if self.returned.iter().any(|lines| is_touched(lines)) {
            return Err(String::from("metadata was written to after it had been returned"));
        }
        self.pgmap.check().map(|_| ()).map_err(|error| error.to_string())
    }
}

const fn life(life: crate::pgmap::Life) -> Life {
    match life {
        crate::pgmap::Life::Live => Life::Live,
        crate::pgmap::Life::Dying => Life::Dying,
        crate::pgmap::Life::Drained => Life::Drained,
    }
}

fn view(info: FolioInfo) -> FolioView {
    FolioView {
        head: info.head,
        order: info.order,
        kind: match info.kind {
            crate::pgmap::FolioKind::Unique => FolioKind::Unique,
            crate::pgmap::FolioKind::Kept => FolioKind::Kept,
            crate::pgmap::FolioKind::Live => FolioKind::Live,
            crate::pgmap::FolioKind::Retired => FolioKind::Retired,
            crate::pgmap::FolioKind::Condemned => FolioKind::Condemned,
            crate::pgmap::FolioKind::Poisoned => FolioKind::Poisoned,
            crate::pgmap::FolioKind::Offline => FolioKind::Offline,
        },
        refs: info.refs,
        pins: info.pins,
        maps: info.mappings,
        closed: info.is_closed,
    }
}

fn tally(tally: crate::pgmap::Tally) -> Tally {
    Tally { folios: tally.nr_folios, pages: tally.nr_pages }
}

fn policy(bits: PolicyBits) -> Policy {
    let PolicyBits {
        max_order, keep_on_drop, claim_only, deferred, refuse_long, lease_long, ..
    } = bits;
    Policy {
        max_order,
        on_drop: if keep_on_drop { OnDrop::Keep } else { OnDrop::Release },
        alloc: if claim_only { AllocPolicy::ClaimOnly } else { AllocPolicy::Any },
        hook_context: if deferred { HookContext::Deferred } else { HookContext::Inline },
        longterm_pins: match (refuse_long, lease_long) {
            (true, _) => LongtermPins::Refuse,
            (_, true) => LongtermPins::Lease,
            _ => LongtermPins::Allow,
        },
        migration: Migration::Allow,
        scrub: match bits.scrub {
            ScrubPolicy::Never => Scrub::Never,
            ScrubPolicy::OnFree => Scrub::OnFree,
            ScrubPolicy::OnAlloc => Scrub::OnAlloc,
            ScrubPolicy::OnOwnerChange => Scrub::OnOwnerChange,
        },
        ..Policy::generic()
    }
}

/// The tables of a plan, those of the blocks that its ends cut through included.
fn tables(plan: &ExtentPlan) -> Tables {
    match plan.tables {
        TableBudget::Dense => Tables::Dense,
        TableBudget::Budget(tables) => {
            let is_cut = |pfn: Pfn| {
                let block = PfnRange::folio(pfn.head(Order::BLOCK), Order::BLOCK);
                !block.is_some_and(|block| plan.range.contains_range(block))
            };
            let (first, last) = (plan.range.start(), plan.range.last());
            let is_one = first.head(Order::BLOCK) == last.head(Order::BLOCK);
            let cut = u32::from(is_cut(first)).saturating_add(u32::from(is_cut(last) && !is_one));
            Tables::Budget(cut.saturating_add(tables.into()))
        }
    }
}

impl<D: Data> PgmapSubject<'_, '_, D> {
    /// Takes an extent away, and keeps its memory to see whether somebody still writes to it.
    fn detach(&mut self, pfn: Pfn) -> Result<(), RemoveError> {
        let lines = raw::detach(self.pgmap, pfn)?;
        for word in lines.iter().flat_map(MetaLine::words) {
            // ORDERING: Relaxed. Nobody else has the memory any more.
            word.store(OVER, Ordering::Relaxed);
        }
        self.returned.push(lines);
        Ok(())
    }
}

fn is_touched(word: &crate::sync::AtomicU64) -> bool {
    // ORDERING: Relaxed. As above.
    word.load(Ordering::Relaxed) != OVER
}

fn fill_with_noise(lines: &[MetaLine]) {
    let mut noise = 0x9e37_79b9_7f4a_7c15_u64;
    for line in lines {
        noise = noise.rotate_left(5).wrapping_mul(0x2545_f491_4f6c_dd1d);
        for word in line.words() {
            // ORDERING: Relaxed. Nobody else has the memory yet.
            word.store(noise, Ordering::Relaxed);
        }
    }
}
