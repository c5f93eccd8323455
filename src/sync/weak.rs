//! Atomics and fences of `loom` that can be made weaker one at a time, for `.ci/weaken`.
//!
//! What is weakened is said by the environment, so that one build tries them all:
//! `WEAKEN=FILE:LINE:COLUMN:ORDERING`, where the place is that of the method's or the fence's name.
//! With `WEAKEN_SITES` set, each model also prints the places that it passed.

use core::panic::Location;
use std::collections::BTreeMap;
use std::string::String;
use std::sync::{Mutex, OnceLock};

use loom::sync::atomic::AtomicU64 as Inner;
pub(crate) use loom::sync::atomic::Ordering;

/// Places in the source, by their addresses: models pass them by the million.
type Sites = BTreeMap<usize, &'static Location<'static>>;

/// What is weakened in this run, and to what; a fence is left out.
static WEAK: OnceLock<Option<(String, u32, u32, Ordering)>> = OnceLock::new();
static PASSED: OnceLock<Option<Mutex<Sites>>> = OnceLock::new();

fn parse(text: &str) -> Option<(String, u32, u32, Ordering)> {
    let mut parts = text.split(':');
    let (file, line, column) = (parts.next()?, parts.next()?, parts.next()?);
    let ordering = match parts.next()? {
        "Relaxed" => Ordering::Relaxed,
        "Acquire" => Ordering::Acquire,
        "Release" => Ordering::Release,
        _ => return None,
    };
    Some((file.into(), line.parse().ok()?, column.parse().ok()?, ordering))
}

/// Returns the ordering in force at a place.
fn at(site: &'static Location<'static>, ordering: Ordering) -> Ordering {
    let passed =
        PASSED.get_or_init(|| std::env::var_os("WEAKEN_SITES").map(|_| Mutex::new(Sites::new())));
    if let Some(passed) = passed {
        passed.lock().unwrap().entry(core::ptr::from_ref(site).addr()).or_insert(site);
    }
    let weak = WEAK.get_or_init(|| {
        let text = std::env::var("WEAKEN").ok()?;
        Some(parse(&text).expect("FILE:LINE:COLUMN:ORDERING"))
    });
    match weak {
        Some((file, line, column, weak))
            if (*line, *column) == (site.line(), site.column()) && file == site.file() =>
        {
            *weak
        }
        _ => ordering,
    }
}

/// Prints the places that were passed so far, if that is wanted.
pub(super) fn print_sites() {
    let Some(passed) = PASSED.get().and_then(Option::as_ref) else { return };
    for site in passed.lock().unwrap().values() {
        std::println!("site {site}");
    }
}

/// A fence, or none where it is weakened to `Relaxed`.
#[track_caller]
pub(crate) fn fence(ordering: Ordering) {
    match at(Location::caller(), ordering) {
        Ordering::Relaxed => {}
        ordering => loom::sync::atomic::fence(ordering),
    }
}

/// The same: what a machine makes of the instruction before it is not known here.
#[track_caller]
pub(crate) fn fence_after_rmw(ordering: Ordering) {
    fence(ordering);
}

/// `loom`'s, with the orderings that are in force.
#[derive(Debug, Default)]
pub(crate) struct AtomicU64(Inner);

macro_rules! forward {
    ($($name:ident($($value:ident),*) -> $result:ty;)*) => {$(
        #[track_caller]
        pub(crate) fn $name(&self, $($value: u64,)* ordering: Ordering) -> $result {
            self.0.$name($($value,)* at(Location::caller(), ordering))
        }
    )*};
}

impl AtomicU64 {
    #[track_caller]
    pub(crate) fn new(value: u64) -> Self {
        Self(Inner::new(value))
    }

    forward! {
        load() -> u64;
        store(value) -> ();
        swap(value) -> u64;
        fetch_add(value) -> u64;
        fetch_sub(value) -> u64;
        fetch_and(value) -> u64;
        fetch_or(value) -> u64;
        fetch_xor(value) -> u64;
    }

    #[track_caller]
    pub(crate) fn compare_exchange(
        &self,
        current: u64,
        next: u64,
        success: Ordering,
        failure: Ordering,
    ) -> Result<u64, u64> {
        self.0.compare_exchange(current, next, at(Location::caller(), success), failure)
    }

    #[track_caller]
    pub(crate) fn compare_exchange_weak(
        &self,
        current: u64,
        next: u64,
        success: Ordering,
        failure: Ordering,
    ) -> Result<u64, u64> {
        self.0.compare_exchange_weak(current, next, at(Location::caller(), success), failure)
    }

    #[track_caller]
    pub(crate) fn fetch_update(
        &self,
        success: Ordering,
        failure: Ordering,
        next_fn: impl FnMut(u64) -> Option<u64>,
    ) -> Result<u64, u64> {
        self.0.fetch_update(at(Location::caller(), success), failure, next_fn)
    }
}
