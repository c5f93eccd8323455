//! A driver that scrubs in the background: the free hook may not sleep, and zeroing may.
//!
//! The hook keeps the folio, so that nobody can allocate its stale contents, and queues its page
//! number. A worker claims kept folios one by one, zeroes them on the device and releases them as
//! clean. A folio that fails to scrub is retired, which takes it out of circulation for good.
//!
//! At the end the device is unplugged: whoever unplugs it sleeps until the worker is through, on a
//! queue of the driver's own, and can be told the page that it waits for.
#![deny(unsafe_code)]
#![allow(clippy::arithmetic_side_effects, reason = "the numbers of this example are small")]

use core::error::Error;
use core::iter::repeat_with;
use core::time::Duration;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use devfolio::{
    AllocError, Attach, Content, Contents, DrainError, ExtentAttrs, ExtentSlot, FolioKind, HookCx,
    Life, MetaLine, MetaSize, OnDrop, Order, PageInfo, Park, ParkKey, Pfn, PfnRange, Pgmap,
    PgmapOps, Policy, Request, Tables, UniqueFolio,
};

const NR_PAGES: u64 = 4 * Order::BLOCK.nr_pages();

/// A page whose cells have worn out; the copy engine reports an error for it.
const WORN: Pfn = Pfn::new(0x8_0000 + 0x203);

struct Vram {
    to_scrub: SyncSender<Pfn>,
    queue: Queue,
}

impl PgmapOps for Vram {
    type Private = ();

    fn folio_free<'a>(&'a self, folio: UniqueFolio<'a, Self>, _cx: &mut HookCx<'a, Self>) {
        let head = folio.head();
        // First the folio, then the message: a worker that is faster than this hook would
        // otherwise look for a kept folio that is not there yet.
        folio.keep();
        // The queue has room for every page there is, and a page waits in it at most once. Should
        // the worker be gone, the folio stays kept: lost until somebody claims it, never reused.
        let _ = self.to_scrub.try_send(head);
    }

    fn park(&self) -> &dyn Park {
        &self.queue
    }
}

/// Whoever waits for anything here sleeps in one queue; times are milliseconds since its start.
struct Queue {
    start: Instant,
    token: Mutex<u64>,
    changed: Condvar,
}

impl Park for Queue {
    fn token(&self, _key: ParkKey) -> u64 {
        *self.token.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn park(&self, key: ParkKey, token: u64) {
        self.park_until(key, token, u64::MAX);
    }

    fn unpark_all(&self, _key: ParkKey) {
        *self.token.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.changed.notify_all();
    }

    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn park_until(&self, _key: ParkKey, token: u64, deadline: u64) {
        let left = Duration::from_millis(deadline.saturating_sub(self.now()));
        let now = self.token.lock().unwrap_or_else(PoisonError::into_inner);
        // It may be woken early, or be poisoned by a panic elsewhere: the waiter looks again.
        let _ = self.changed.wait_timeout_while(now, left, |now| *now == token);
    }
}

pub(crate) fn main() -> Result<(), Box<dyn Error>> {
    let range = PfnRange::new(Pfn::new(0x8_0000), NR_PAGES)?;
    let mut lines: Vec<_> =
        repeat_with(MetaLine::default).take(MetaSize::of(range, Tables::Dense).lines()).collect();
    let slots = [const { ExtentSlot::new() }; 1];
    let (to_scrub, mut scrub_queue) = sync_channel(usize::try_from(NR_PAGES)?);

    // A handle that is dropped by mistake must not put stale pages back either.
    let policy = Policy { on_drop: OnDrop::Keep, ..Policy::coherent() };
    let queue = Queue { start: Instant::now(), token: Mutex::new(0), changed: Condvar::new() };
    let vram = Pgmap::new(Vram { to_scrub, queue }, policy, &slots);
    let attrs = ExtentAttrs { contents: Contents::Zeroed, ..ExtentAttrs::NEW };
    vram.add_extent(range, attrs, Tables::Dense, &mut lines, Attach::Zeroed)?;

    // A job uses all of the memory and leaves its secrets behind.
    let folios: Vec<_> = [0; 4]
        .iter()
        .map(|_| vram.alloc(Order::BLOCK).map(|folio| folio.publish()))
        .collect::<Result<_, _>>()?;
    let heads: Vec<_> = folios.iter().map(|folio| folio.head()).collect();
    drop(folios);

    // Nothing can be had until it is scrubbed, and the error says what there is to wait for.
    let Err(AllocError::Exhausted { kept_pages, .. }) = vram.alloc(Order::ZERO) else {
        return Err("an unscrubbed page was handed out".into());
    };
    assert_eq!(kept_pages, NR_PAGES);
    let PageInfo::Folio(info) = vram.query(WORN) else { return Err("the folio is kept".into()) };
    assert_eq!((info.kind, info.refs), (FolioKind::Kept, 0));

    let (vram, nr_folios) = (&vram, heads.len());
    let worker_queue = &mut scrub_queue;
    thread::scope(|scope| {
        let worker = scope.spawn(move || scrub(vram, worker_queue, nr_folios));
        worker.join().map_err(|_| "the worker has died")
    })?;

    // Everything is clean again but for the one page that could not be scrubbed.
    let stats = vram.stats();
    assert_eq!((stats.free_pages, stats.clean_pages), (NR_PAGES - 1, NR_PAGES - 1));
    assert_eq!(stats.retired.nr_pages, 1);
    let clean = Request::order(Order::BLOCK).content(Content::OnlyClean);
    let folio = vram.alloc_with(clean)?;
    assert!(folio.is_clean());
    // The last job still runs when the device is to be unplugged.
    let job = folio.publish();
    let head = job.head();
    assert_eq!(vram.kill(), Life::Dying);
    let Err(DrainError::Busy(busy)) = vram.wait_drained_until(0) else {
        return Err("unplugged under a job".into());
    };
    assert_eq!((busy.pfn, busy.folio.map(|folio| folio.refs)), (head, Some(1)));
    let worker_queue = &mut scrub_queue;
    thread::scope(|scope| {
        scope.spawn(move || drop(job));
        scope.spawn(move || scrub(vram, worker_queue, 1));
        vram.wait_drained();
    });
    assert_eq!(vram.state(), Life::Drained);
    println!("driver_scrub: {} pages are clean, {WORN:?} is retired", stats.clean_pages);
    Ok(())
}

/// Scrubs the next `nr_folios` folios that the hook has queued.
fn scrub(vram: &Pgmap<'_, Vram>, queue: &Receiver<Pfn>, nr_folios: usize) {
    for head in queue.iter().take(nr_folios) {
        // Somebody else may have revived or claimed it in the meantime; then it is theirs.
        let Ok(folio) = vram.claim_kept(head) else { continue };
        match zero(folio.range()) {
            Ok(()) => folio.release_clean(),
            Err(worn) => set_aside(folio, worn),
        }
    }
}

/// Retires one page of a folio and releases the rest of it.
fn set_aside(folio: UniqueFolio<'_, Vram>, worn: Pfn) {
    // Without a table for the pieces the whole folio stays out of use, which is safe.
    match folio.split_around(worn, Order::ZERO) {
        Ok((page, rest)) => {
            page.retire();
            rest.for_each(UniqueFolio::release_clean);
        }
        Err(error) => error.folio.retire(),
    }
}

/// Stands for the copy engine of the device.
fn zero(range: PfnRange) -> Result<(), Pfn> {
    if range.contains(WORN) { Err(WORN) } else { Ok(()) }
}
