//! A scheduler that does what a byte string says.

use std::cell::Cell;

use super::Source;
use shuttle::scheduler::{Schedule, Scheduler, Task, TaskId};
use shuttle::{Config, FailurePersistence, Runner};

thread_local! {
    /// Whether threads are at work, and not only the one that sets up and looks at the end.
    static IS_ON: Cell<bool> = const { Cell::new(false) };
}

/// How many accesses a thread does before another byte is asked for.
const STRETCHES: [u32; 16] = [0, 0, 0, 1, 1, 2, 3, 4, 6, 8, 12, 16, 24, 40, 64, 128];

/// Runs `main_fn` once, with a schedule for the threads that it starts.
pub fn run(source: Source, main_fn: impl Fn() + Send + Sync + 'static) {
    #[cfg(sched)]
    devfolio::on_access(point);
    let mut config = Config::new();
    config.failure_persistence = FailurePersistence::None;
    let scheduler = Bytes { source, left: 0, is_fresh: true };
    Runner::new(scheduler, config).run(main_fn);
}

/// Lets another thread run, if the schedule says so.
pub fn point() {
    if IS_ON.get() {
        shuttle::thread::yield_now();
    }
}

/// Runs `f` while threads are at work.
pub fn racing<T>(f: impl FnOnce() -> T) -> T {
    IS_ON.set(true);
    let answer = f();
    IS_ON.set(false);
    answer
}

struct Bytes {
    source: Source,
    /// The points that the present thread passes before the next byte counts.
    left: u32,
    is_fresh: bool,
}

impl Scheduler for Bytes {
    fn new_execution(&mut self) -> Option<Schedule> {
        std::mem::take(&mut self.is_fresh).then(|| Schedule::new(0))
    }

    /// The upper half of a byte says who is next, the lower half for how long.
    fn next_task(
        &mut self,
        runnable: &[&Task],
        current: Option<TaskId>,
        _is_yielding: bool,
    ) -> Option<TaskId> {
        let current = current.filter(|id| runnable.iter().any(|task| task.id() == *id));
        match (runnable, current) {
            ([only], _) => return Some(only.id()),
            (_, Some(current)) if self.left != 0 => {
                self.left -= 1;
                return Some(current);
            }
            _ => {}
        }
        let byte = self.source.byte();
        self.left = STRETCHES[usize::from(byte & 15)];
        Some(runnable[usize::from(byte >> 4) % runnable.len()].id())
    }

    fn next_u64(&mut self) -> u64 {
        0
    }
}
