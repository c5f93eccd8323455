//! Images: a history, in the middle of which the pgmap is written, read into fresh memory, and
//! compared page by page; and images that somebody has changed.
//!
//! What is read has to be what was written, to the byte of another image of it, every count can be
//! adopted once, and when all are dropped, all but the bad pages is free. What was changed is
//! refused, and then nothing has changed, or it is a state that the self-check accepts, and that
//! ends the same way.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use core::mem::MaybeUninit;

use arbitrary::{Arbitrary, Unstructured};

use super::{Data, Owner, PgmapSubject, fill_with_noise, raw, with};
use crate::meta::{MetaLine, MetaSize, Tables};
use crate::model::{History, POISON_MAX, Spec, Subject};
use crate::pgmap::{
    Attach, ExportError, ExtentAttrs, ExtentSlot, FolioInfo, FolioKind, Imported, Life, Orphan,
    Pgmap, PgmapCore, Stats, UniqueFolio,
};
use crate::units::{Order, Pfn, PfnRange};

/// Images of more folios are written and read without being compared page by page.
const FOLIOS_MAX: usize = 4096;

/// Runs what bytes say: after how many steps images are made, how they are changed, and a history.
///
/// # Errors
///
/// Returns the first thing that is wrong.
pub fn run_image(bytes: &[u8]) -> Result<(), String> {
    let mut u = Unstructured::new(bytes);
    let Ok((every, changes)) = draw(&mut u) else { return Ok(()) };
    let history = match every % 3 {
        0 => History::arbitrary_extents(&mut u),
        1 => History::arbitrary_fracture(&mut u),
        _ => History::arbitrary(&mut u),
    };
    let Ok(history) = history else { return Ok(()) };
    if history.geometry.policy.owner_data {
        with::<alloc::boxed::Box<u64>, _>(&history.geometry, |it| {
            run(it, &history, every, &changes)
        })
    } else {
        with::<(), _>(&history.geometry, |it| run(it, &history, every, &changes))
    }
}

/// A word of an image that changes.
#[derive(Clone, Copy, Debug)]
struct Change {
    place: u16,
    how: u8,
    value: u64,
}

/// What happens to the bytes of an image on their way.
#[derive(Clone, Debug)]
struct Changes {
    words: Vec<Change>,
    /// How many bytes are cut off.
    cut: u8,
    /// Whether the checksum is made to fit again.
    is_sealed: bool,
}

fn draw(u: &mut Unstructured<'_>) -> arbitrary::Result<(u8, Changes)> {
    let (every, flags, nr) = (u8::arbitrary(u)?, u8::arbitrary(u)?, u8::arbitrary(u)? % 4);
    let mut words = Vec::new();
    for _ in 0..nr {
        let (place, how) = (u16::arbitrary(u)?, u8::arbitrary(u)?);
        words.push(Change { place, how, value: u8::arbitrary(u)?.into() });
    }
    let cut = if flags & 0x70 == 0 { flags } else { 0 };
    Ok((every, Changes { words, cut, is_sealed: flags & 1 == 0 }))
}

fn run<D: Data>(
    subject: &mut PgmapSubject<'_, '_, D>,
    history: &History,
    every: u8,
    changes: &Changes,
) -> Result<(), String> {
    let mut spec = Spec::new(&history.geometry, subject.caps().limits);
    let every = usize::from(every % 32).saturating_add(1);
    let mut events = Vec::new();
    for (step, op) in history.ops.iter().enumerate() {
        if step.checked_rem(every) == Some(0) {
            reload(subject.pgmap, changes).map_err(|why| format!("{why}\nbefore step {step}"))?;
        }
        let Some(op) = spec.resolve(op) else { continue };
        let outcome = subject.apply(&op);
        events.clear();
        subject.hook_log(&mut events);
        spec.judge(&op, &outcome, &events).map_err(|why| format!("{why}\nafter {op}"))?;
    }
    reload(subject.pgmap, changes)
}

/// Writes an image of a pgmap, and reads it as it is and with changes.
fn reload<D: Data>(old: &Pgmap<'_, Owner<D>>, changes: &Changes) -> Result<(), String> {
    let mut image = match write(old) {
        Ok(image) => image,
        Err(refused) => return justify(old, refused),
    };
    let sound = restart(old, &image, None, |new, imported| {
        let imported = imported.map_err(|error| error.to_string())?;
        same(old, new)?;
        if write(new).as_ref() != Ok(&image) {
            return Err(String::from("an image of what was read is another one"));
        }
        end(new, imported)
    });
    sound.map_err(|why| format!("{why}\nfrom {old:?}"))?;
    let mut last = None;
    old.for_each_folio(|folio| last = Some((folio.head, folio.order)));
    let robbed = restart(old, &image, last, |new, imported| match imported {
        Err(_) => Ok(()),
        Ok(imported) => end(new, imported),
    });
    robbed.map_err(|why| format!("{why}\nfrom {old:?}, of which somebody takes {last:?}"))?;
    if !change(&mut image, changes) {
        return Ok(());
    }
    restart(old, &image, None, |new, imported| match imported {
        Err(_) => Ok(()),
        Ok(imported) => end(new, imported),
    })
    .map_err(|why| format!("{why}\nfrom {old:?} with {changes:?}"))
}

fn write<D: Data>(pgmap: &Pgmap<'_, Owner<D>>) -> Result<Vec<u8>, ExportError> {
    let mut image = vec![0; pgmap.image_len()?];
    // There is no handle between two steps, so nobody has a claim to the data.
    let data =
        |info: &FolioInfo| pgmap.place(info.head, info.order).map_or(0, |at| at.private().read());
    pgmap.export_at_rest(&mut image, data)?;
    Ok(image)
}

/// Demands a reason for an image that was not written.
fn justify<D: Data>(old: &Pgmap<'_, Owner<D>>, refused: ExportError) -> Result<(), String> {
    let is_just = match refused {
        ExportError::Dying => old.state() != Life::Live,
        ExportError::Leaving { extent } => {
            old.extent_state(extent.start()).is_some_and(|state| state != Life::Live)
        }
        ExportError::Condemned { head } => {
            let mut is_found = false;
            old.for_each_folio(|folio| {
                is_found |= folio.head == head && folio.kind == FolioKind::Condemned;
            });
            is_found
        }
        ExportError::Offline { pfn } => PfnRange::new(pfn, 1)
            .is_ok_and(|page| old.offline_state(page).is_some_and(|it| it != Life::Live)),
        ExportError::Short { .. } | ExportError::Lost { .. } => false,
    };
    if is_just { Ok(()) } else { Err(format!("no image for no reason: {refused}")) }
}

/// Changes an image; false if it is as before.
fn change(image: &mut Vec<u8>, changes: &Changes) -> bool {
    let before = image.clone();
    let mut words: Vec<u64> = image
        .chunks_exact(8)
        .filter_map(|word| word.try_into().ok().map(u64::from_le_bytes))
        .collect();
    for change in &changes.words {
        let Some(last) = words.len().checked_sub(1) else { break };
        let place = usize::from(change.place).checked_rem(words.len()).unwrap_or(last);
        let other = words.get(place.saturating_sub(4)).copied().unwrap_or(0);
        let Some(word) = words.get_mut(place) else { continue };
        *word = match change.how % 6 {
            0 | 1 => *word ^ 1 << (change.value % 64),
            2 => word.wrapping_add(change.value % 9).wrapping_sub(4),
            3 => other,
            4 => change.value,
            _ => word.rotate_left(32),
        };
    }
    if changes.is_sealed {
        seal(&mut words);
    }
    *image = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    image.truncate(image.len().saturating_sub(changes.cut.into()));
    *image != before
}

/// Makes the checksum fit: written down once more, from the description of the format.
fn seal(words: &mut [u64]) {
    let Some((sum, words)) = words.split_last_mut() else { return };
    *sum = words.iter().fold(u64::from_le_bytes(*b"devfolio"), |sum, word| {
        (sum ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29)
    });
}

/// Reads an image into a pgmap like `old` with fresh memory; a refusal has to change nothing.
///
/// `thief` is what somebody takes while the first folios are on their way in.
fn restart<D: Data>(
    old: &Pgmap<'_, Owner<D>>,
    image: &[u8],
    mut thief: Option<(Pfn, Order)>,
    use_fn: impl FnOnce(
        &Pgmap<'_, Owner<D>>,
        Result<Imported<'_, '_, Owner<D>>, String>,
    ) -> Result<(), String>,
) -> Result<(), String> {
    let extents: Vec<_> = old.extents().collect();
    let mut lanes = Vec::new();
    for (range, _) in &extents {
        let tables = old.extent_stats(range.start()).map_or(0, |stats| stats.tables);
        let tables = Tables::Budget(u32::try_from(tables).unwrap_or(u32::MAX));
        let size = MetaSize::of(*range, tables).poison(POISON_MAX);
        let mut lines: Vec<MetaLine> = Vec::new();
        lines.resize_with(size.lines(), MetaLine::default);
        let mut private: Vec<MaybeUninit<D>> = Vec::new();
        let nr_places = if size_of::<D>() == 0 { 0 } else { size.private_slots() };
        private.resize_with(nr_places, MaybeUninit::uninit);
        lanes.push((tables, lines, private));
    }
    let slots: Vec<_> = extents.iter().map(|_| ExtentSlot::new()).collect();
    let new = Pgmap::new(Owner::new(), old.policy(), &slots);
    // In another order, and in memory that says something else.
    for ((range, attrs), (tables, lines, private)) in extents.iter().zip(&mut lanes).rev() {
        fill_with_noise(lines);
        let attrs = ExtentAttrs { contents: crate::pgmap::Contents::Unknown, ..*attrs };
        let added =
            new.add_extent_with_private(*range, attrs, *tables, lines, Attach::Clear, private);
        added.map_err(|error| error.to_string())?;
    }
    let before = new.image();
    let nr_orphans = Orphan::nr_in(image).unwrap_or(0).min(1 << 20);
    let mut orphans = Vec::new();
    orphans.resize(usize::try_from(nr_orphans).unwrap_or(0), Orphan::EMPTY);
    let mut stolen = None;
    let imported = new.import(image, &mut orphans, |_, data, private: &mut D| {
        private.write(data);
        if let Some((head, order)) = thief.take() {
            stolen = new.claim(head, order).ok().map(UniqueFolio::into_raw);
        }
    });
    match (imported, stolen) {
        (Ok(_), Some(_)) => Err(String::from("pages were imported that somebody has")),
        (Ok(imported), None) => {
            new.check().map_err(|error| error.to_string())?;
            use_fn(&new, Ok(imported))
        }
        (Err(error), Some(raw)) => {
            let _ = raw::unique(&new, raw).map(UniqueFolio::release);
            new.check().map_err(|error| error.to_string())?;
            let stats = new.stats();
            if stats.free_pages != stats.nr_pages || stats.poisoned_pages != 0 {
                return Err(format!("an import that was in somebody's way left {stats:?}"));
            }
            use_fn(&new, Err(error.to_string()))
        }
        (Err(error), None) if new.image() == before => use_fn(&new, Err(error.to_string())),
        (Err(error), None) => Err(format!("{error}, and something has changed")),
    }
}

/// What statistics say that an image keeps.
fn kept(pgmap: &PgmapCore<Owner<impl Data>>) -> Stats {
    Stats { clean_pages: 0, tables_used: 0, ..pgmap.stats() }
}

/// Demands that two pgmaps have the same pages in the same state.
fn same<D: Data>(old: &Pgmap<'_, Owner<D>>, new: &Pgmap<'_, Owner<D>>) -> Result<(), String> {
    let folios = |pgmap: &Pgmap<'_, Owner<D>>| {
        let mut folios = Vec::new();
        pgmap.for_each_folio(|folio| folios.push(folio));
        folios.sort_unstable_by_key(|folio| folio.head);
        folios
    };
    let runs = |pgmap: &Pgmap<'_, Owner<D>>| {
        let mut runs: Vec<PfnRange> = pgmap.free_runs().collect();
        runs.sort_unstable_by_key(|run| run.start());
        runs
    };
    let bad = |pgmap: &Pgmap<'_, Owner<D>>| {
        let mut bad: Vec<Pfn> = pgmap.poisoned().collect();
        bad.sort_unstable();
        bad
    };
    let (left, right) = (folios(old), folios(new));
    if left != right {
        return Err(format!("folios: {left:?} became {right:?}"));
    }
    if runs(old) != runs(new) || bad(old) != bad(new) || kept(old) != kept(new) {
        return Err(String::from("free runs, bad pages or sums are others"));
    }
    for folio in left.iter().take(FOLIOS_MAX) {
        let pages = PfnRange::folio(folio.head, folio.order);
        let pages = pages.map_or([folio.head; 2], |pages| [pages.start(), pages.last()]);
        if pages.iter().any(|&pfn| old.query(pfn) != new.query(pfn)) {
            return Err(format!("{folio:?} has other pages"));
        }
    }
    Ok(())
}

/// Adopts every count, drops them all, and demands that all but the bad pages is free.
fn end<D: Data>(
    pgmap: &Pgmap<'_, Owner<D>>,
    mut imported: Imported<'_, '_, Owner<D>>,
) -> Result<(), String> {
    let orphans: Vec<_> = imported.orphans().collect();
    for (folio, turn) in orphans.iter().zip(0_u32..) {
        adopt(&mut imported, folio, turn % 4 == 3).map_err(|why| format!("{why} of {folio:?}"))?;
    }
    if imported.orphans().next().is_some() {
        return Err(String::from("orphans are left"));
    }
    // Ends: each turn ends a folio, or is the last one.
    while pgmap.reap(usize::MAX).has_more {}
    let mut parked = Vec::new();
    pgmap.for_each_folio(|folio| parked.push(folio));
    for folio in parked {
        match folio.kind {
            FolioKind::Kept => pgmap.claim_kept(folio.head).map(|it| it.release()),
            FolioKind::Retired => pgmap.claim_retired(folio.head).map(|it| it.release()),
            FolioKind::Poisoned => Ok(()),
            _ => return Err(format!("{folio:?} is left")),
        }
        .map_err(|error| error.to_string())?;
    }
    pgmap.check().map_err(|error| error.to_string())?;
    let stats = pgmap.stats();
    if stats.free_pages.saturating_add(stats.poisoned.nr_pages) != stats.nr_pages {
        return Err(format!("{stats:?} when all is given back"));
    }
    Ok(())
}

/// Adopts all counts of a folio, by its last page, and drops them; one more cannot be had.
fn adopt<D: Data>(
    imported: &mut Imported<'_, '_, Owner<D>>,
    folio: &FolioInfo,
    put_all: bool,
) -> Result<(), String> {
    let pfn = PfnRange::folio(folio.head, folio.order).map_or(folio.head, PfnRange::last);
    let found = |error: crate::pgmap::AdoptError| error.to_string();
    if folio.kind == FolioKind::Unique {
        let unique = imported.adopt_unique(pfn).map_err(found)?;
        if imported.adopt_unique(pfn).map(|again| again.into_raw()).is_ok() {
            return Err(String::from("an exclusive folio is adopted twice"));
        }
        drop(unique);
        return Ok(());
    }
    if put_all {
        return imported.put_orphans(pfn).map(|_| ()).map_err(found);
    }
    let map = imported.adopt_map(pfn, folio.mappings).map_err(found)?;
    let pins = (0..folio.pins).map(|_| imported.adopt_pin(pfn));
    let pins: Vec<_> = pins.collect::<Result<_, _>>().map_err(found)?;
    let refs = (0..folio.refs).map(|_| imported.adopt_folio(pfn));
    let refs: Vec<_> = refs.collect::<Result<_, _>>().map_err(found)?;
    let more = [
        imported.adopt_map(pfn, 1).map(core::mem::forget).is_ok(),
        imported.adopt_pin(pfn).map(core::mem::forget).is_ok(),
        imported.adopt_folio(pfn).map(core::mem::forget).is_ok(),
    ];
    if more.contains(&true) {
        return Err(String::from("more is adopted than there was"));
    }
    drop((refs, map, pins));
    Ok(())
}
