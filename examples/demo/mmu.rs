//! Files on a device, mapped by the host's own MMU, read while they are truncated.
//!
//! Each file's pages carry its own pattern. Two address spaces map every file, one by the largest
//! leaves and one by single pages. Readers look pages up without a lock, pin them and read them as
//! a device would, or read through the mapping itself; meanwhile files are truncated, and their
//! pages go to others. Whoever ever sees a pattern that is not that of the file has seen foreign
//! bytes.

#![allow(clippy::indexing_slicing, reason = "files and spaces are numbered from zero")]

mod host;

use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::time::Instant;

use devfolio::{
    Access, AddressSpace, Attach, CutError, DirSlot, Directory, ExtentAttrs, ExtentSlot, Folio,
    GupHold, GupTake, HeapMeta, HookCx, LeafLimit, MapRequest, Mappers, MetaSize, Order, Pfn,
    PfnRange, Pgmap, PgmapCore, PgmapOps, PinKind, Policy, Rights, Tables, UniqueFolio, Unmap, Vpn,
    VpnRange, gup_fast, unmap_mapping_range,
};

use super::rng::Rng;
use host::{Device, Entries, HostTable, PAGE, Window};

const NR_FILES: u64 = 4;
/// 4 MiB at most.
const FILE_PAGES: u64 = 1024;
const FIRST: u64 = 0x10_0000;
/// 64 MiB: about twice what the files take.
const NR_PAGES: u64 = 1 << 14;
const NR_READERS: u64 = 2;
/// Each has its own files and its own two address spaces, and all share the device.
const NR_WRITERS: u64 = 2;

/// How long it goes on.
#[derive(Clone, Copy, Debug)]
enum Span {
    Cycles(u64),
    Time(Duration),
}

/// What the command line says.
#[derive(Debug)]
struct Args {
    span: Span,
    bug: Option<String>,
}

const HELP: &str = "usage: cargo demo -- mmu [--seconds N | --cycles N] [--break pin|zap]

--break seeds a bug, in a build with RUSTFLAGS=\"--cfg seeded_bugs\".
";

fn parse(words: &[String]) -> Option<Args> {
    let mut args = Args { span: Span::Time(Duration::from_secs(5)), bug: None };
    for pair in words.chunks(2) {
        let [name, value] = pair else { return None };
        match name.as_str() {
            "--seconds" => args.span = Span::Time(Duration::from_secs(value.parse().ok()?)),
            "--cycles" => args.span = Span::Cycles(value.parse().ok()?),
            "--break" => args.bug = Some(value.clone()),
            _ => return None,
        }
    }
    Some(args)
}

#[cfg(seeded_bugs)]
fn seed(bug: &str) -> bool {
    let bug = match bug {
        "pin" => devfolio::seeded::Bug::PinUncounted,
        "zap" => devfolio::seeded::Bug::PutBeforeFlush,
        _ => return false,
    };
    devfolio::seeded::activate_bug(bug);
    true
}

#[cfg(not(seeded_bugs))]
const fn seed(_: &str) -> bool {
    false
}

/// The owner of the device.
#[derive(Debug, Default)]
struct Files {
    nr_freed: AtomicU64,
}

impl PgmapOps for Files {
    type Private = ();

    fn folio_free<'a>(&'a self, folio: UniqueFolio<'a, Self>, _: &mut HookCx<'a, Self>) {
        self.nr_freed.fetch_add(1, Ordering::Relaxed);
        folio.release();
        // A hook may take its time; by now the pages may be somebody else's.
        std::thread::yield_now();
    }
}

/// What happened.
#[derive(Debug, Default)]
struct Counts {
    mappings: AtomicU64,
    truncates: AtomicU64,
    folios: AtomicU64,
    reads: AtomicU64,
    reads_by_mmu: AtomicU64,
    foreign: AtomicU64,
}

impl Counts {
    fn add(count: &AtomicU64, nr: u64) {
        count.fetch_add(nr, Ordering::Relaxed);
    }

    fn get(count: &AtomicU64) -> u64 {
        count.load(Ordering::Relaxed)
    }
}

/// A word whose bytes are the number of the file, plus one; so none of them is zero.
const fn pattern(file: u64) -> u64 {
    0x0101_0101_0101_0101 * (file + 1)
}

type Space<'h> = AddressSpace<'h, HostTable<'h>>;

/// Both address spaces.
struct Both<'a, 'h>(&'a mut [Space<'h>; 2]);

impl Mappers for Both<'_, '_> {
    fn for_each(
        &mut self,
        _: PfnRange,
        visit_fn: &mut dyn FnMut(&mut dyn Unmap, VpnRange) -> Result<(), CutError>,
    ) -> Result<(), CutError> {
        let all = VpnRange::new(Vpn::new(0), NR_FILES * FILE_PAGES);
        let Ok(all) = all else { return Ok(()) };
        self.0.iter_mut().try_for_each(|space| visit_fn(space, all))
    }
}

/// Truncates files and writes new ones.
fn write<'h>(
    world: &World<'h>,
    spaces: &mut [Space<'h>; 2],
    writer: u64,
    span: Span,
) -> Result<(), Box<dyn core::error::Error>> {
    let start = Instant::now();
    let mut rng = Rng::new(writer, "files");
    let mut files: Vec<Option<Folio<'_, Files>>> = (0..NR_FILES).map(|_| None).collect();
    let mut nr_cycles = 0;
    loop {
        let is_over = match span {
            Span::Cycles(nr) => nr <= nr_cycles,
            Span::Time(time) => time <= start.elapsed(),
        };
        if is_over {
            break;
        }
        nr_cycles += 1;
        let file = rng.below(NR_FILES / NR_WRITERS) * NR_WRITERS + writer;
        let slot = &mut files[file as usize];
        if let Some(folio) = slot.take() {
            // The mappings are the last counts, if nobody reads.
            let pages = folio.range();
            drop(folio);
            unmap_mapping_range(&mut Both(spaces), pages)?;
            Counts::add(&world.counts.truncates, 1);
        }
        let log2 = match rng.below(32) {
            0 => 10,
            1 | 2 => 9,
            other => other % 6,
        };
        let order = Order::new(log2 as u8).unwrap_or(Order::ZERO);
        // What is pinned stays away for a while.
        let Ok(folio) = world.pgmap.alloc(order) else { continue };
        for pfn in folio.head().as_u64()..=folio.range().last().as_u64() {
            let words = world.device.words(pfn);
            words.iter().for_each(|word| word.store(pattern(file), Ordering::Relaxed));
        }
        let folio = folio.publish();
        Counts::add(&world.counts.folios, 1);
        let limits = [LeafLimit::Largest, LeafLimit::Exactly(Order::ZERO)];
        for (space, limit) in spaces.iter_mut().zip(limits) {
            let vpn = Vpn::new(file * FILE_PAGES);
            let request = MapRequest::new(vpn, folio.range(), Rights::READ_WRITE).limit(limit);
            Counts::add(&world.counts.mappings, space.insert(&folio, request)?.into());
        }
        *slot = Some(folio);
    }
    for folio in files.into_iter().flatten() {
        unmap_mapping_range(&mut Both(spaces), folio.range())?;
    }
    Ok(())
}

/// What the threads share.
struct World<'h> {
    device: &'h Device,
    pgmap: &'h PgmapCore<Files>,
    directory: &'h Directory<'h>,
    /// Two for each writer.
    entries: &'h [Entries],
    windows: &'h [Window],
    counts: Counts,
    is_done: AtomicU64,
}

/// Reads until the writer is done.
fn read(world: &World<'_>, seed: u64) -> io::Result<()> {
    let mut rng = Rng::new(seed, "readers");
    let memory = File::open("/proc/self/mem")?;
    let (mut nr_reads, mut nr_foreign, mut nr_by_mmu) = (0, 0, 0);
    while world.is_done.load(Ordering::Relaxed) == 0 {
        let file = rng.below(NR_FILES);
        let space = (file % NR_WRITERS * 2 + rng.below(2)) as usize;
        // Mostly where short files are, too.
        let nr_pages = if rng.below(4) != 0 { 2 } else { FILE_PAGES };
        let page = rng.below(nr_pages);
        let vpn = file * FILE_PAGES + page;
        if rng.below(2) == 0 {
            // Through the MMU, by a call that reads zeroes where a load would fault.
            let mut bytes = [0u8; 64];
            let at = world.windows[space].address(vpn) + rng.below(60) as usize * 64;
            let is_read = memory.read_exact_at(&mut bytes, at as u64).is_ok();
            if is_read && bytes != [0; 64] {
                nr_by_mmu += 1;
                nr_foreign += u64::from(bytes.iter().any(|byte| u64::from(*byte) != file + 1));
            }
            continue;
        }
        let range = VpnRange::page(Vpn::new(vpn));
        let take = GupTake::Pin(PinKind::Short);
        let reader = &world.entries[space];
        let Ok(run) = gup_fast(&reader, world.directory, range, Access::Read, take) else {
            continue;
        };
        debug_assert!(matches!(run.hold, GupHold::Pin(_)));
        let words = world.device.words(run.pages.start().as_u64());
        let is_own = |word: &AtomicU64| word.load(Ordering::Relaxed) == pattern(file);
        let is_kept = words.iter().all(is_own);
        if rng.below(64) == 0 {
            // A device takes its time, too.
            std::thread::yield_now();
        }
        nr_foreign += u64::from(!is_kept || !words.iter().all(is_own));
        nr_reads += 1;
    }
    Counts::add(&world.counts.reads, nr_reads);
    Counts::add(&world.counts.reads_by_mmu, nr_by_mmu);
    Counts::add(&world.counts.foreign, nr_foreign);
    Ok(())
}

/// Does what the command line says, and returns whether everything holds.
pub(super) fn run(
    words: &[String],
    out: &mut dyn Write,
) -> Result<bool, Box<dyn core::error::Error>> {
    let Some(args) = parse(words) else {
        out.write_all(HELP.as_bytes())?;
        return Ok(words.iter().any(|word| word == "--help"));
    };
    if let Some(bug) = args.bug.as_deref().filter(|bug| !seed(bug)) {
        return Err(format!("there is no bug {bug:?} in this build; --help tells more").into());
    }
    let extent = PfnRange::new(Pfn::new(FIRST), NR_PAGES)?;
    let device = Device::new(FIRST, NR_PAGES)?;
    let lines = MetaSize::of(extent, Tables::Dense).lines();
    let mut meta = HeapMeta::zeroed(lines).ok_or("no memory for metadata")?;
    let slots = [const { ExtentSlot::new() }];
    let pgmap = Pgmap::new(Files::default(), Policy::generic(), &slots);
    let attach = Attach::Zeroed;
    pgmap
        .add_extent(extent, ExtentAttrs::NEW, Tables::Dense, meta.lines_mut(), attach)
        .map_err(|error| error.to_string())?;
    let slots = [const { DirSlot::new() }];
    let directory = Directory::new(&slots);
    directory.register(&pgmap)?;

    let nr_spaces = NR_WRITERS * 2;
    let entries: Vec<_> = (0..nr_spaces).map(|_| Entries::new(NR_FILES * FILE_PAGES)).collect();
    let windows: Vec<_> = entries.iter().map(host::reserve).collect::<Result<_, _>>()?;
    let world = World {
        device: &device,
        pgmap: &pgmap,
        directory: &directory,
        entries: &entries,
        windows: &windows,
        counts: Counts::default(),
        is_done: AtomicU64::new(0),
    };
    let last_look = |vpn: u64, word: u64| {
        let is_foreign = word != pattern(vpn / FILE_PAGES);
        Counts::add(&world.counts.foreign, u64::from(is_foreign));
    };
    let space = |index: usize| {
        let table = HostTable::new(&device, &entries[index], &windows[index], &last_look);
        AddressSpace::new(table, &directory)
    };
    let written = std::thread::scope(|scope| {
        let world = &world;
        let readers: Vec<_> =
            (0..NR_READERS).map(|seed| scope.spawn(move || read(world, seed))).collect();
        let writers: Vec<_> = (0..NR_WRITERS)
            .map(|writer| {
                let mut spaces = [0, 1].map(|index| space(writer as usize * 2 + index));
                scope.spawn(move || {
                    let written = write(world, &mut spaces, writer, args.span);
                    written.map_err(|error| error.to_string())
                })
            })
            .collect();
        let written: Vec<_> = writers.into_iter().map(|writer| writer.join()).collect();
        world.is_done.store(1, Ordering::Relaxed);
        let results = readers.into_iter().map(|reader| reader.join());
        let failed = results.flatten().find_map(Result::err).map(|error| error.to_string());
        let failed = written.into_iter().flatten().find_map(Result::err).or(failed);
        failed.map_or(Ok(()), Err)
    });
    written?;
    report(&world, out)
}

fn report(world: &World<'_>, out: &mut dyn Write) -> Result<bool, Box<dyn core::error::Error>> {
    let counts = &world.counts;
    let freed = world.pgmap.ops().nr_freed.load(Ordering::Relaxed);
    let (folios, foreign) = (Counts::get(&counts.folios), Counts::get(&counts.foreign));
    let free_pages = world.pgmap.stats().free_pages;
    writeln!(
        out,
        "{NR_FILES} files of up to {} KiB, each in two address spaces",
        (FILE_PAGES as usize * PAGE) >> 10
    )?;
    writeln!(out, "leaves mapped        {}", Counts::get(&counts.mappings))?;
    writeln!(out, "files truncated      {}", Counts::get(&counts.truncates))?;
    writeln!(out, "reads through pins   {}", Counts::get(&counts.reads))?;
    writeln!(out, "reads by the MMU     {}", Counts::get(&counts.reads_by_mmu))?;
    writeln!(out, "folios made          {folios}")?;
    writeln!(out, "hook calls           {freed}")?;
    writeln!(out, "foreign reads        {foreign}")?;
    writeln!(out, "free pages           {free_pages} of {NR_PAGES}")?;
    let holds =
        foreign == 0 && freed == folios && free_pages == NR_PAGES && world.pgmap.check().is_ok();
    writeln!(out, "{}", if holds { "PASS" } else { "FAIL" })?;
    Ok(holds)
}
