//! Interleaved rounds and their medians.

use std::hint::black_box;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

/// How long one turn of one side lasts, about.
const TURN: Duration = Duration::from_millis(20);

/// One side of a comparison: does its work so many times, and returns the nanoseconds it took.
pub(crate) type Side<'a> = Box<dyn FnMut(u64) -> f64 + 'a>;

/// Makes a side of work of which all counts.
pub(crate) fn timed<'a>(mut work_fn: impl FnMut(u64) + 'a) -> Side<'a> {
    Box::new(move |nr| {
        let begin = Instant::now();
        work_fn(black_box(nr));
        begin.elapsed().as_nanos() as f64
    })
}

/// What two sides took, and how they compare.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pair {
    /// The median over all rounds of one side's time divided by the other's.
    pub(crate) ratio: f64,
    /// Nanoseconds an operation, median.
    pub(crate) ours: f64,
    pub(crate) other: f64,
}

impl Pair {
    /// Compares the medians of what was measured one after the other.
    pub(crate) fn of(ours: Vec<f64>, other: Vec<f64>) -> Self {
        let (ours, other) = (median(ours), median(other));
        Self { ratio: ours / other, ours, other }
    }
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn time(side: &mut Side<'_>, nr: u64) -> f64 {
    side(nr) / nr as f64
}

/// Returns how often a side works in one turn; warms it up on the way.
fn calibrate(side: &mut Side<'_>) -> u64 {
    let mut nr = 1;
    loop {
        if TURN.as_nanos() as f64 / 2.0 <= side(nr) {
            return nr;
        }
        nr *= 2;
    }
}

/// Compares two sides: A B, B A, A B ...
pub(crate) fn pair(mut ours: Side<'_>, mut other: Side<'_>, rounds: usize) -> Pair {
    let (nr_ours, nr_other) = (calibrate(&mut ours), calibrate(&mut other));
    let mut times = Vec::new();
    for round in 0..rounds {
        let (a, b);
        if round % 2 == 0 {
            a = time(&mut ours, nr_ours);
            b = time(&mut other, nr_other);
        } else {
            b = time(&mut other, nr_other);
            a = time(&mut ours, nr_ours);
        }
        times.push((a, b));
    }
    Pair {
        ratio: median(times.iter().map(|(a, b)| a / b).collect()),
        ours: median(times.iter().map(|time| time.0).collect()),
        other: median(times.iter().map(|time| time.1).collect()),
    }
}

/// Nanoseconds an operation for one side alone, median.
pub(crate) fn alone(mut side: Side<'_>, rounds: usize) -> f64 {
    let nr = calibrate(&mut side);
    median((0..rounds).map(|_| time(&mut side, nr)).collect())
}

/// Runs `work_fn(thread, times)` on two threads at once; returns the longer time, in nanoseconds.
pub(crate) fn on_two(nr: u64, work_fn: &(dyn Fn(usize, u64) + Sync)) -> f64 {
    let barrier = Barrier::new(2);
    thread::scope(|scope| {
        let threads: Vec<_> = (0..2)
            .map(|thread| {
                let barrier = &barrier;
                scope.spawn(move || {
                    pin_to_cpu(thread);
                    barrier.wait();
                    let begin = Instant::now();
                    work_fn(thread, nr);
                    begin.elapsed().as_nanos() as f64
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).fold(0.0, f64::max)
    })
}

/// Keeps the calling thread on one CPU, so that two threads have two of them.
pub(crate) fn pin_to_cpu(cpu: usize) {
    // SAFETY: An empty set is a valid value of this plain struct.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: The set is ours, and there are at least two places in it.
    unsafe { libc::CPU_SET(cpu, &mut set) };
    // SAFETY: The set is complete; 0 is the calling thread. A refusal only makes timing worse.
    unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set) };
}
