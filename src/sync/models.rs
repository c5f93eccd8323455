//! What the loom models of all floors share: how one is explored, and data that is raced for.
#![expect(unsafe_code, reason = "loom finds out whether a cell may be shared")]

use alloc::sync::Arc;
use core::cell::Cell;
use core::sync::atomic::{AtomicU64 as Tally, Ordering};

use loom::cell::UnsafeCell;
use loom::model::Builder;
use loom::thread;

/// Steps of one execution; far above what the largest model takes.
const BRANCHES_MAX: usize = 50_000;

std::thread_local! {
    /// Which role of a race goes first.
    static FIRST: Cell<usize> = const { Cell::new(0) };
    /// How many roles the races of this model have.
    static ROLES: Cell<usize> = const { Cell::new(1) };
}

/// Explores every interleaving of a model.
pub(crate) fn explore(model_fn: impl Fn() + Send + Sync + 'static) {
    report(run(&Builder::new(), model_fn));
}

/// Explores every interleaving of a model with at most so many preemptions.
///
/// For models whose interleavings without a bound take longer than a minute.
pub(crate) fn explore_up_to(preemptions: usize, model_fn: impl Fn() + Send + Sync + 'static) {
    report(executions_up_to(preemptions, model_fn));
}

/// As [`explore_up_to`], for models by the thousand: nothing is printed, and the number of
/// executions is returned.
pub(crate) fn executions_up_to(
    preemptions: usize,
    model_fn: impl Fn() + Send + Sync + 'static,
) -> u64 {
    let mut builder = Builder::new();
    builder.preemption_bound.get_or_insert(preemptions);
    run(&builder, model_fn)
}

fn report(nr_executions: u64) {
    let thread = std::thread::current();
    std::println!("{}: {nr_executions} executions", thread.name().unwrap_or("a model"));
    super::weak::print_sites();
}

/// Explores a model once for each role that may go first, and returns the number of executions.
///
/// Loom remembers only the last access to an atomic. A thread that looks and then exchanges hides
/// the looks of the others from its own exchange, so what is found depends on who went first.
fn run(builder: &Builder, model_fn: impl Fn() + Send + Sync + 'static) -> u64 {
    let model = Arc::new((model_fn, Tally::new(0)));
    #[cfg(seeded_bugs)]
    if let Ok(name) = std::env::var("SEEDED_BUG") {
        assert!(crate::seeded::activate_concurrent(&name), "there is no bug {name}");
    }
    ROLES.set(1);
    let mut first = 0;
    // Ends: a race has a few roles.
    while first < ROLES.get() {
        FIRST.set(first);
        let mut builder = clone(builder);
        builder.max_branches = BRANCHES_MAX;
        let model = Arc::clone(&model);
        builder.check(move || {
            // ORDERING: Relaxed. Loom runs one execution after the other.
            model.1.fetch_add(1, Ordering::Relaxed);
            (model.0)();
        });
        first += 1;
    }
    // ORDERING: Relaxed. Read at the end.
    model.1.load(Ordering::Relaxed)
}

fn clone(builder: &Builder) -> Builder {
    let mut copy = Builder::new();
    copy.preemption_bound = builder.preemption_bound;
    copy
}

fn spawn<T: 'static, A: 'static>(
    shared: &Arc<T>,
    role_fn: impl FnOnce(&T) -> A + 'static,
) -> thread::JoinHandle<A> {
    let shared = Arc::clone(shared);
    thread::spawn(move || role_fn(&shared))
}

/// Lets two roles race; returns what each of them says.
pub(crate) fn race<T: 'static, A: 'static, B: 'static>(
    shared: &Arc<T>,
    a_fn: impl FnOnce(&T) -> A + 'static,
    b_fn: impl FnOnce(&T) -> B + 'static,
) -> (A, B) {
    ROLES.set(2);
    if FIRST.get() == 0 {
        let b = spawn(shared, b_fn);
        let a = a_fn(shared);
        (a, b.join().unwrap())
    } else {
        let a = spawn(shared, a_fn);
        let b = b_fn(shared);
        (a.join().unwrap(), b)
    }
}

/// Lets three roles race; returns what each of them says.
pub(crate) fn race_of_three<T: 'static, A: 'static, B: 'static, C: 'static>(
    shared: &Arc<T>,
    a_fn: impl FnOnce(&T) -> A + 'static,
    b_fn: impl FnOnce(&T) -> B + 'static,
    c_fn: impl FnOnce(&T) -> C + 'static,
) -> (A, B, C) {
    ROLES.set(3);
    match FIRST.get() {
        0 => {
            let (b, c) = (spawn(shared, b_fn), spawn(shared, c_fn));
            let a = a_fn(shared);
            (a, b.join().unwrap(), c.join().unwrap())
        }
        1 => {
            let (c, a) = (spawn(shared, c_fn), spawn(shared, a_fn));
            let b = b_fn(shared);
            (a.join().unwrap(), b, c.join().unwrap())
        }
        _ => {
            let (a, b) = (spawn(shared, a_fn), spawn(shared, b_fn));
            let c = c_fn(shared);
            (a.join().unwrap(), b.join().unwrap(), c)
        }
    }
}

/// What the pages of a folio hold, as far as a model is concerned.
///
/// Loom reports every access that is not ordered after the one before it.
#[derive(Debug)]
pub(crate) struct Bytes(UnsafeCell<()>);

impl Bytes {
    pub(crate) fn new() -> Self {
        Self(UnsafeCell::new(()))
    }

    /// What one of several holders does.
    pub(crate) fn read(&self) {
        self.0.with(|_| ());
    }

    /// What a holder does who is alone.
    pub(crate) fn write(&self) {
        self.0.with_mut(|_| ());
    }
}

// SAFETY: Nothing is behind the pointers that the cell hands out, and nobody follows them.
unsafe impl Sync for Bytes {}
