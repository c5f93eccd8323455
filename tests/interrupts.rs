//! Interrupt context: a signal handler gets, puts, allocates and frees in the very middle of the
//! same operations of the thread that it interrupts, with the same CPU hint.
//!
//! A lock anywhere on these paths would hang: the handler waits for the thread, which waits for
//! the handler to return. `DEVFOLIO_SECONDS=60` makes a campaign of it (`.ci/interrupts`).
#![cfg(all(unix, not(miri)))]
#![allow(
    clippy::panic,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test may panic"
)]

use core::ffi::{c_int, c_uint};
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use core::time::Duration;
use std::boxed::Box;
use std::os::unix::thread::{JoinHandleExt as _, RawPthread};
use std::sync::{Mutex, OnceLock};
use std::time::Instant;
use std::vec::Vec;

use devfolio::{
    AllocError, Attach, ExtentAttrs, ExtentSlot, Folio, HookCx, MetaLine, MetaSize, Order, Pfn,
    PfnRange, Pgmap, PgmapOps, Policy, Tables, UniqueFolio,
};

use noise::Noise;

mod noise;

/// Interruptions of an ordinary run.
const NR_SIGNALS: u64 = 12_000;
/// What is never reached: a run that lasts so much longer than it was told to is killed.
const WATCHDOG_SECONDS: u32 = 60;
const SIGUSR1: c_int = if cfg!(any(target_os = "linux", target_os = "android")) { 10 } else { 30 };

/// An odd range, so that blocks are cut; two of them are whole.
const FIRST: u64 = 512 - 77;
const NR_PAGES: usize = 3 * 512 + 13;
const HELD_MAX: usize = 12;

unsafe extern "C" {
    fn alarm(seconds: c_uint) -> c_uint;
    fn pthread_kill(thread: RawPthread, signal: c_int) -> c_int;
    fn signal(signal: c_int, handler: extern "C" fn(c_int)) -> usize;
}

static WORLD: OnceLock<Pgmap<'static, Owner>> = OnceLock::new();
static HANDLER: Mutex<Option<Hands>> = Mutex::new(None);
/// The main flow looks at the handler's things; signals do nothing.
static QUIET: AtomicBool = AtomicBool::new(false);
static NR_HANDLED: AtomicU64 = AtomicU64::new(0);
static NR_MISSED: AtomicU64 = AtomicU64::new(0);
static NR_BAD: AtomicU64 = AtomicU64::new(0);
static IS_OVER: AtomicBool = AtomicBool::new(false);

/// Marks each page while somebody owns it. A handler cannot panic, so it counts what is wrong.
struct Owner([AtomicU8; NR_PAGES]);

impl Owner {
    fn set(&self, range: PfnRange, from: u8, to: u8) {
        let start = usize::try_from(range.start().as_u64() - FIRST).unwrap();
        for page in &self.0[start..][..usize::try_from(range.nr_pages()).unwrap()] {
            if page.swap(to, Ordering::Relaxed) != from {
                NR_BAD.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

impl PgmapOps for Owner {
    type Private = ();

    fn folio_free<'a>(&'a self, folio: UniqueFolio<'a, Self>, _cx: &mut HookCx<'a, Self>) {
        self.set(folio.range(), 1, 0);
        folio.release();
    }

    fn cpu_hint(&self) -> usize {
        0
    }
}

impl Noise {
    fn order(&mut self) -> Order {
        const ORDERS: [u8; 8] = [0, 0, 0, 1, 3, 6, 7, 9];
        Order::new(ORDERS[usize::try_from(self.below(8)).unwrap()]).unwrap()
    }
}

/// One of the two flows of control, and what it holds. It never asks for heap memory.
struct Hands {
    noise: Noise,
    held: [Option<Folio<'static, Owner>>; HELD_MAX],
}

impl Hands {
    fn new(seed: u64) -> Self {
        Self { noise: Noise(seed), held: [const { None }; HELD_MAX] }
    }

    fn alloc(&mut self) -> Option<UniqueFolio<'static, Owner>> {
        let world = WORLD.get()?;
        match world.alloc(self.noise.order()) {
            Ok(folio) => {
                world.ops().set(folio.range(), 0, 1);
                Some(folio)
            }
            Err(AllocError::Exhausted { .. } | AllocError::Contended { .. }) => {
                NR_MISSED.fetch_add(1, Ordering::Relaxed);
                None
            }
            Err(_) => {
                NR_BAD.fetch_add(1, Ordering::Relaxed);
                None
            }
        }
    }

    fn get(&mut self) -> Option<Folio<'static, Owner>> {
        let pfn = Pfn::new(FIRST + self.noise.below(NR_PAGES as u64));
        let folio = WORLD.get()?.try_get(pfn).ok()?;
        if !folio.range().contains(pfn) {
            NR_BAD.fetch_add(1, Ordering::Relaxed);
        }
        Some(folio)
    }

    /// Puts what is in a random place, and something else into it.
    fn swap(&mut self, folio: Option<Folio<'static, Owner>>) {
        let place = usize::try_from(self.noise.below(HELD_MAX as u64)).unwrap();
        drop(core::mem::replace(&mut self.held[place], folio));
    }

    /// One operation that everybody may do anywhere.
    fn turn(&mut self) {
        match self.noise.below(8) {
            0 | 1 => {
                let folio = self.alloc().map(UniqueFolio::publish);
                self.swap(folio);
            }
            2 => drop(self.alloc().map(release)),
            3 => drop(self.get()),
            4 => {
                let folio = self.get();
                self.swap(folio);
            }
            5 => {
                let place = usize::try_from(self.noise.below(HELD_MAX as u64)).unwrap();
                let copy = self.held[place].as_ref().and_then(|folio| folio.try_clone().ok());
                self.swap(copy);
            }
            _ => self.swap(None),
        }
    }
}

fn release(folio: UniqueFolio<'static, Owner>) {
    folio.pgmap().ops().set(folio.range(), 1, 0);
    folio.release();
}

extern "C" fn interrupt(_signal: c_int) {
    if !QUIET.load(Ordering::Relaxed) {
        if let Some(hands) = HANDLER.try_lock().ok().as_mut().and_then(|hands| hands.as_mut()) {
            (0..4).for_each(|_| hands.turn());
        }
    }
    NR_HANDLED.fetch_add(1, Ordering::Release);
}

/// Cuts a folio into pieces, merges two of them and shares the rest.
fn split_and_merge(hands: &mut Hands, folio: UniqueFolio<'static, Owner>) {
    let order = Order::new(folio.order().as_u8().saturating_sub(2)).unwrap();
    let mut pieces = folio.split(order).unwrap();
    let low = pieces.next().unwrap();
    match pieces.next() {
        Some(high) => release(low.merge(high).unwrap()),
        None => release(low),
    }
    for piece in pieces {
        hands.swap(Some(piece.publish()));
    }
}

/// Nothing is lost: every page is free or somebody's, and what is somebody's is in known hands.
fn look(main: &Hands) {
    QUIET.store(true, Ordering::SeqCst);
    let world = WORLD.get().unwrap();
    let report = world.check().unwrap();
    let nr_marked = world.ops().0.iter().filter(|page| page.load(Ordering::Relaxed) == 1).count();
    assert_eq!(report.free_pages + nr_marked as u64, NR_PAGES as u64);
    let handler = HANDLER.lock().unwrap();
    let hands = [Some(main), handler.as_ref()];
    let held = hands.into_iter().flatten().flat_map(|hands| hands.held.iter().flatten());
    let mut folios: Vec<_> = held.map(|folio| (folio.head(), folio.nr_pages())).collect();
    let nr_refs = folios.len();
    let counted: u32 = {
        let mut sum = 0;
        world.for_each_folio(|folio| sum += folio.refs);
        sum
    };
    assert_eq!(counted as usize, nr_refs, "a reference is lost");
    folios.sort_unstable();
    folios.dedup();
    let nr_held: u64 = folios.iter().map(|&(_, nr_pages)| nr_pages).sum();
    assert_eq!(nr_held, nr_marked as u64, "a page is lost");
    drop(handler);
    assert_eq!(NR_BAD.load(Ordering::Relaxed), 0, "a page had two owners, or an answer was wrong");
    QUIET.store(false, Ordering::SeqCst);
}

/// The flow that is interrupted; returns how many turns it took.
fn work() -> u64 {
    let mut hands = Hands::new(7);
    let mut nr_turns = 0_u64;
    // Ends: when all signals are sent.
    while !IS_OVER.load(Ordering::Acquire) {
        nr_turns += 1;
        if hands.noise.below(4) == 0 {
            if let Some(folio) = hands.alloc() {
                split_and_merge(&mut hands, folio);
            }
        } else {
            hands.turn();
        }
        if nr_turns % 4096 == 0 {
            look(&hands);
        }
    }
    look(&hands);
    hands.held.fill_with(|| None);
    *HANDLER.lock().unwrap() = None;
    look(&hands);
    nr_turns
}

#[test]
fn a_handler_interrupts_anything_and_loses_nothing() {
    let seconds = std::env::var("DEVFOLIO_SECONDS").ok().and_then(|text| text.parse::<u32>().ok());
    let range = PfnRange::new(Pfn::new(FIRST), NR_PAGES as u64).unwrap();
    let lines = (0..MetaSize::of(range, Tables::Dense).lines()).map(|_| MetaLine::default());
    let lines = Box::leak(lines.collect::<Vec<_>>().into_boxed_slice());
    let slots = Box::leak(Box::new([ExtentSlot::new()]));
    let world = Pgmap::new(Owner([const { AtomicU8::new(0) }; NR_PAGES]), Policy::generic(), slots);
    world.add_extent(range, ExtentAttrs::NEW, Tables::Dense, lines, Attach::Zeroed).unwrap();
    let whole = world.stats();
    let world = WORLD.get_or_init(|| world);
    *HANDLER.lock().unwrap() = Some(Hands::new(11));
    // SAFETY: It takes a number.
    unsafe { alarm(WATCHDOG_SECONDS + seconds.unwrap_or(0)) };
    // SAFETY: The handler touches atomics and what it found unlocked, and does not unwind: what
    // could panic in it is an assertion of the crate, which ends the process.
    unsafe { signal(SIGUSR1, interrupt) };
    let thread = std::thread::spawn(work);
    let (mut noise, mut nr_sent, start) = (Noise(3), 0, Instant::now());
    let is_over = |nr_sent| match seconds {
        Some(seconds) => Duration::from_secs(seconds.into()) <= start.elapsed(),
        None => NR_SIGNALS <= nr_sent,
    };
    while !is_over(nr_sent) {
        // SAFETY: The thread is not joined yet.
        let error = unsafe { pthread_kill(thread.as_pthread_t(), SIGUSR1) };
        assert_eq!(error, 0);
        nr_sent += 1;
        // What sleeps is soon given a CPU when it wakes, on a busy machine, too; nothing depends on
        // how long this takes. Ends: when the handler has run; if it hangs, by the watchdog.
        loop {
            std::thread::sleep(Duration::from_micros(noise.below(80)));
            if nr_sent <= NR_HANDLED.load(Ordering::Acquire) || thread.is_finished() {
                break;
            }
        }
    }
    IS_OVER.store(true, Ordering::Release);
    let nr_turns = thread.join().unwrap();
    // SAFETY: It takes a number.
    unsafe { alarm(0) };
    assert_eq!(world.stats().free_by_order, whole.free_by_order, "all that is free is merged");
    println!(
        "{nr_sent} interruptions, {nr_turns} turns of the main flow, {} requests unmet",
        NR_MISSED.load(Ordering::Relaxed)
    );
}
