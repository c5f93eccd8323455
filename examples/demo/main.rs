//! The main job on real input: the memory of a cloud, on a pool of 8 TiB that is not there.
//!
//! `cargo demo` replays virtual machines with the sizes and lifetimes of a public cloud as sets
//! of folios, and `cargo demo -- pool` shares a pool of dynamic capacity between hosts;
//! `cargo demo -- --help` tells the rest.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    reason = "an example on a 64-bit host; numbers of events and pages are far from any limit"
)]

mod args;
mod exercise;
mod generator;
mod human;
mod ledger;
mod measure;
#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
mod mmu;
mod owner;
mod picture;
mod plan;
mod pool;
pub(crate) mod progress;
mod release;
mod replay;
mod report;
mod rng;
mod tally;
mod trace;
mod verdict;
mod workload;
mod world;

use core::fmt;
use core::mem::ManuallyDrop;
use std::fs;
use std::io::{self, Write};
use std::process::ExitCode;

use devfolio::{
    AddExtentError, Attach, ExtentAttrs, ExtentSlot, HeapMeta, MetaSize, PfnRange, Pgmap, Policy,
    Tables,
};

use args::{Args, ArgsError, Load, Pool};
use exercise::Exercise;
use owner::Owner;
use plan::Plan;
use progress::Style;
use report::Report;
use trace::TraceError;
use verdict::Verdict;
use workload::Workload;
use world::World;

#[allow(dead_code, reason = "tests include this file as a module and call `run`")]
fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let stdout = io::stdout();
    match run(&words, &mut stdout.lock(), Style::Stderr) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        // Whoever closed the pipe has seen enough.
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        Err(failure) => {
            eprintln!("demo: {failure}");
            ExitCode::from(2)
        }
    }
}

/// Why there is nothing to report.
#[derive(Debug)]
pub(crate) enum Failure {
    Args(ArgsError),
    Trace {
        path: String,
        error: TraceError,
    },
    Plan(String),
    /// The workload is empty.
    NoEvents,
    /// There is no room for so many bytes of metadata.
    Memory {
        len_bytes: u64,
    },
    Attach(AddExtentError),
    Picture {
        path: String,
        error: io::Error,
    },
    /// The host's MMU could not be used.
    Mmu(String),
    /// There is no such shared pool, or no such plan.
    Shared(String),
    Output(io::Error),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Args(error) => write!(f, "{error}; --help tells more"),
            Self::Trace { path, error } => write!(f, "{path}: {error}"),
            Self::Plan(reason) | Self::Mmu(reason) | Self::Shared(reason) => f.write_str(reason),
            Self::NoEvents => f.write_str("the pool is too small for any request"),
            Self::Memory { len_bytes } => {
                write!(f, "there are no {} for metadata", human::Bytes(*len_bytes))
            }
            Self::Attach(error) => write!(f, "the pool cannot be attached: {error}"),
            Self::Picture { path, error } => write!(f, "{path}: {error}"),
            Self::Output(error) => write!(f, "the report cannot be written: {error}"),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

/// Does what the command line says, and returns whether every invariant holds.
///
/// # Errors
///
/// Returns why nothing could be replayed.
pub(crate) fn run(words: &[String], out: &mut dyn Write, style: Style) -> Result<bool, Failure> {
    // Cargo's alias ends with `--`, and so does the habit of those who type it once more.
    let words = words.strip_prefix(&["--".to_owned()]).unwrap_or(words);
    if let Some((part, words)) = words.split_first() {
        match part.as_str() {
            #[cfg(all(target_os = "linux", target_pointer_width = "64"))]
            "mmu" => return mmu::run(words, out).map_err(|it| Failure::Mmu(it.to_string())),
            "pool" => return pool::run(words, out).map_err(|it| Failure::Shared(it.to_string())),
            "plan" => {
                return release::run(words, out).map_err(|it| Failure::Shared(it.to_string()));
            }
            _ => {}
        }
    }
    let Some(args) = args::parse(words).map_err(Failure::Args)? else {
        out.write_all(args::HELP.as_bytes())?;
        return Ok(true);
    };
    let workload = load(&args)?;
    if workload.events.is_empty() {
        return Err(Failure::NoEvents);
    }
    let plan = plan::plan(&args, &workload).map_err(Failure::Plan)?;
    let range =
        measure::pool_range(plan.pool_pages).map_err(|error| Failure::Plan(error.to_string()))?;
    let (mut memory, tables) = lend(range, args.tables)?;
    let slots = [const { ExtentSlot::new() }; 1];
    let pgmap = Pgmap::new(Owner::default(), Policy::generic(), &slots);
    let attach = Attach::Zeroed;
    pgmap
        .add_extent(range, ExtentAttrs::NEW, tables, memory.lines_mut(), attach)
        .map_err(Failure::Attach)?;
    let job = Job { args: &args, workload: &workload, plan: &plan, range, tables, style };
    job.run(&pgmap, out)
}

/// Reads or draws the history.
fn load(args: &Args) -> Result<Workload, Failure> {
    let pages_or = |nr_pages| match args.pool {
        Some(Pool::Pages(nr_pages)) => nr_pages,
        Some(Pool::Peak) | None => nr_pages,
    };
    Ok(match &args.load {
        Load::Vm => generator::vm(args.seed, args.nr_events, pages_or(plan::VM_POOL_PAGES)),
        Load::Kv => generator::kv(args.seed, args.nr_events, pages_or(plan::KV_POOL_PAGES)),
        Load::Trace(path) => trace::read(path)
            .map_err(|error| Failure::Trace { path: path.display().to_string(), error })?,
    })
}

/// Finds memory for metadata: with a table for each block, or fewer if the host refuses that.
fn lend(range: PfnRange, nr_tables: Option<u32>) -> Result<(HeapMeta, Tables), Failure> {
    let fewer = Tables::Budget(1 << 15);
    let candidates = match nr_tables {
        Some(nr_tables) => [Tables::Budget(nr_tables); 2],
        None => [Tables::Dense, fewer],
    };
    for tables in candidates {
        if let Some(memory) = HeapMeta::zeroed(MetaSize::of(range, tables).lines()) {
            return Ok((memory, tables));
        }
    }
    Err(Failure::Memory { len_bytes: MetaSize::of(range, fewer).bytes() })
}

/// One run on one pool.
struct Job<'a> {
    args: &'a Args,
    workload: &'a Workload,
    plan: &'a Plan,
    range: PfnRange,
    tables: Tables,
    style: Style,
}

impl Job<'_> {
    fn run(&self, pgmap: &Pgmap<'_, Owner>, out: &mut dyn Write) -> Result<bool, Failure> {
        let settings = replay::Settings {
            exercise: self.exercise(),
            nr_points: self.args.nr_points,
            nr_columns: self.args.nr_columns,
            progress: self.style,
            seed: self.args.seed,
        };
        let (workload, plan) = (self.workload, self.plan);
        // Handles to a pool that was broken on purpose must not be dropped.
        let mut world = ManuallyDrop::new(World::new(pgmap, plan, workload.nr_ids, self.args.seed));
        let journey = replay::replay(&mut world, workload, plan, settings);
        let cost = measure::cost().map_err(|error| Failure::Plan(error.to_string()))?;
        let report = Report {
            source: &workload.source,
            range: self.range,
            tables: self.tables,
            plan,
            tally: &world.tally,
            journey: &journey,
            cost: &cost,
        };
        report.write(out)?;
        if let (Some(path), Some(peak)) = (&self.args.svg, &journey.peak) {
            let svg = picture::svg(self.range, &peak.folios, &workload.source);
            fs::write(path, svg).map_err(|error| {
                let path = path.display().to_string();
                Failure::Picture { path, error }
            })?;
            writeln!(out, "\nThe picture is in {}.", path.display())?;
        }

        let mut verdict = Verdict::default();
        let compared = journey.difference.map_or(Ok("no difference".to_owned()), Err);
        verdict.note("every comparison on the way", compared);
        if let Some(seed) = self.args.break_seed {
            pgmap.flip_bit(seed);
            writeln!(out, "\nBit {seed} of the metadata that matters was flipped.")?;
        }
        verdict.inspect_running(&world, self.args.seed);
        if verdict.holds() {
            world.end_all();
            verdict.inspect_empty(&world, self.range);
        }
        if verdict.holds() {
            drop(ManuallyDrop::into_inner(world));
        }
        verdict.write(out)?;
        Ok(verdict.holds())
    }

    fn exercise(&self) -> Exercise {
        // What a trace says is what is measured, unless somebody asks for more.
        let is_wanted = self.args.exercise.unwrap_or(!matches!(self.args.load, Load::Trace(_)));
        match (is_wanted, &self.args.load) {
            (false, _) => Exercise::Off,
            (true, Load::Vm) => Exercise::Full,
            (true, Load::Kv | Load::Trace(_)) => Exercise::SamePages,
        }
    }
}
