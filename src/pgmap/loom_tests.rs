//! Every interleaving of what owners do: allocations, releases, removal, extents that come.
//!
//! Folios have the order of a block wherever that will do, so that no table is needed: loom
//! registers every word of metadata, in each execution.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::AtomicU64 as Tally;
use core::task::Waker;

use loom::sync::{Condvar, Mutex};

use super::*;
use crate::meta::{MetaLine, MetaSize, Tables};
use crate::sync::models::Bytes;
use crate::sync::{Ordering, Park, ParkKey};
use crate::units::{Order, Pfn, PfnRange};

mod condemned;
mod extents;
mod leave;
mod offline;
pub(crate) mod poison;
mod removal;

/// What the roles of a model share.
pub(crate) type Shared = &'static Pgmap<'static, Owner>;
pub(crate) type Unique = UniqueFolio<'static, Owner>;

pub(crate) const BLOCK: u64 = Order::BLOCK.nr_pages();

/// An owner whose pages are raced for: its hook writes to them and gives them back.
pub(crate) struct Owner {
    /// The contents of the first two blocks; whole regions take the first one.
    bytes: [Bytes; 2],
    /// How many hooks ran.
    nr_freed: Tally,
    /// How many bad pages it was told of.
    nr_poisoned: Tally,
    /// Whether others may have the lock of the list of extents while a hook runs.
    is_list_shared: Tally,
    bell: Bell,
}

impl Owner {
    fn bytes(&self, pages: PfnRange) -> impl Iterator<Item = &Bytes> {
        let is_inside = move |&(block, _): &(u64, &Bytes)| pages.contains(Pfn::new(block * BLOCK));
        (0..).zip(&self.bytes).filter(is_inside).map(|(_, bytes)| bytes)
    }

    /// What one of several holders does.
    pub(crate) fn read(&self, pages: PfnRange) {
        self.bytes(pages).for_each(Bytes::read);
    }

    /// What somebody does who is alone.
    pub(crate) fn write(&self, pages: PfnRange) {
        self.bytes(pages).for_each(Bytes::write);
    }

    pub(crate) fn nr_freed(&self) -> u64 {
        self.nr_freed.load(Ordering::Relaxed)
    }

    pub(crate) fn nr_poisoned(&self) -> u64 {
        self.nr_poisoned.load(Ordering::Relaxed)
    }

    /// Says that a role has the lock of the list of extents.
    pub(crate) fn share_list(&self) {
        self.is_list_shared.store(1, Ordering::Relaxed);
    }

    /// How often the end of an extent was told.
    pub(crate) fn nr_extents_ended(&self) -> u64 {
        self.bell.nr_extents_ended.load(Ordering::Relaxed)
    }
}

impl PgmapOps for Owner {
    type Private = ();

    fn folio_free<'a>(&'a self, folio: UniqueFolio<'a, Self>, _: &mut HookCx<'a, Self>) {
        // No model has a second reaper, or, unless it says so, one that locks the list of extents.
        let core = folio.pgmap().core();
        let is_shared = self.is_list_shared.load(Ordering::Relaxed) != 0;
        let is_free = is_shared || core.attach.try_lock().is_some();
        assert!(is_free && core.chain.try_lock().is_some(), "a hook under a lock");
        self.write(folio.range());
        self.nr_freed.fetch_add(1, Ordering::Relaxed);
        folio.release();
    }

    fn page_poisoned(&self, _pfn: Pfn, _folio: Option<FolioInfo>) {
        self.nr_poisoned.fetch_add(1, Ordering::Relaxed);
    }

    fn park(&self) -> &dyn Park {
        &self.bell
    }
}

/// Waiters that really sleep, so that loom reports those whom nobody wakes.
struct Bell {
    rings: Mutex<Rings>,
    condvar: Condvar,
    /// Goes on by one at each look.
    now: Tally,
    nr_extents_ended: Tally,
}

#[derive(Default)]
struct Rings {
    token: u64,
    wakers: Vec<Waker>,
}

impl Bell {
    fn new() -> Self {
        Self {
            rings: Mutex::default(),
            condvar: Condvar::new(),
            now: Tally::new(0),
            nr_extents_ended: Tally::new(0),
        }
    }
}

impl Park for Bell {
    fn token(&self, _key: ParkKey) -> u64 {
        self.rings.lock().unwrap().token
    }

    fn park(&self, _key: ParkKey, token: u64) {
        let mut rings = self.rings.lock().unwrap();
        while rings.token == token {
            rings = self.condvar.wait(rings).unwrap();
        }
    }

    fn unpark_all(&self, key: ParkKey) {
        if matches!(key, ParkKey::ExtentRemoval(_)) {
            self.nr_extents_ended.fetch_add(1, Ordering::Relaxed);
        }
        let mut rings = self.rings.lock().unwrap();
        rings.token += 1;
        let wakers = core::mem::take(&mut rings.wakers);
        drop(rings);
        self.condvar.notify_all();
        wakers.into_iter().for_each(Waker::wake);
    }

    fn now(&self) -> u64 {
        self.now.fetch_add(1, Ordering::Relaxed)
    }

    fn park_until(&self, _key: ParkKey, _token: u64, _deadline: u64) {}

    fn register_waker(&self, _key: ParkKey, token: u64, waker: &Waker) {
        let mut rings = self.rings.lock().unwrap();
        if rings.token == token {
            rings.wakers.push(waker.clone());
        } else {
            drop(rings);
            waker.wake_by_ref();
        }
    }
}

/// Lends memory for one execution.
#[expect(unsafe_code, reason = "the roles of a model want what lives for ever")]
pub(crate) fn lend<T: ?Sized + 'static, A>(
    memory: Box<T>,
    model_fn: impl FnOnce(&'static mut T) -> A,
) -> A {
    let memory = Box::into_raw(memory);
    // SAFETY: The box is given up, and taken back only when the model is over.
    let answer = model_fn(unsafe { &mut *memory });
    // SAFETY: The roles have ended, and nothing that they were lent is in what they answer.
    drop(unsafe { Box::from_raw(memory) });
    answer
}

fn pages(start: u64, nr_pages: u64) -> PfnRange {
    PfnRange::new(Pfn::new(start), nr_pages).unwrap()
}

/// The metadata of an extent without tables.
fn lines(range: PfnRange) -> Box<[MetaLine]> {
    let nr_lines = MetaSize::of(range, Tables::Budget(0)).lines();
    (0..nr_lines).map(|_| MetaLine::default()).collect()
}

/// Runs one execution of a model on an owner without extents.
fn with_bare(policy: Policy, model_fn: impl FnOnce(&Arc<Shared>)) {
    let slots: Vec<_> = (0..3).map(|_| ExtentSlot::new()).collect();
    lend(slots.into_boxed_slice(), |slots| {
        let owner = Owner {
            bytes: [Bytes::new(), Bytes::new()],
            nr_freed: Tally::new(0),
            nr_poisoned: Tally::new(0),
            is_list_shared: Tally::new(0),
            bell: Bell::new(),
        };
        lend(Box::new(Pgmap::new(owner, policy, slots)), |pgmap| {
            let pgmap: Shared = pgmap;
            model_fn(&Arc::new(pgmap));
            loom::stop_exploring();
            pgmap.check().unwrap();
            loom::explore();
        });
    });
}

/// Runs one execution of a model on an owner of `nr_pages` pages without tables.
pub(crate) fn with_pgmap(nr_pages: u64, policy: Policy, model_fn: impl FnOnce(&Arc<Shared>)) {
    let range = pages(0, nr_pages);
    lend(lines(range), |lines| {
        with_bare(policy, |pgmap| {
            add_extent(pgmap, range, lines, Attach::Zeroed);
            model_fn(pgmap);
        });
    });
}

fn add_extent(pgmap: &Shared, range: PfnRange, lines: &'static mut [MetaLine], attach: Attach) {
    pgmap.add_extent(range, ExtentAttrs::NEW, Tables::Budget(0), lines, attach).unwrap();
}

/// Takes a block and uses it.
fn alloc(pgmap: &Shared) -> Result<Unique, AllocError> {
    let folio = pgmap.alloc(Order::BLOCK)?;
    pgmap.ops().write(folio.range());
    Ok(folio)
}

/// Uses a folio and gives it back.
fn release(folio: Unique) {
    folio.pgmap().ops().write(folio.range());
    folio.release();
}
