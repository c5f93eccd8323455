//! Flipped bits: a history, in the middle of which bits of the metadata flip, goes on.
//!
//! Up to the first flip the specification judges. Behind it nothing is judged but that each
//! operation ends, without a panic: corrupt metadata is an error or a leak.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use arbitrary::{Arbitrary, Unstructured};

use super::{PgmapSubject, with};
use crate::meta::ExpectCorrupt;
use crate::model::{History, Spec, Subject};

/// Bits of one word that flip before a step.
#[derive(Clone, Copy, Debug)]
struct Flip {
    step: u8,
    word: u16,
    bits: u64,
}

impl Flip {
    /// Draws a flip: mostly of one bit, sometimes of any in a word.
    fn draw(u: &mut Unstructured<'_>) -> arbitrary::Result<Self> {
        let (step, word, bit) = (u8::arbitrary(u)? % 64, u16::arbitrary(u)?, u8::arbitrary(u)?);
        let bits = if bit < 240 { 1 << (bit % 64) } else { u64::arbitrary(u)? };
        Ok(Self { step, word, bits })
    }
}

/// Runs what bytes say, flips included, in a world without owner data.
///
/// # Errors
///
/// Returns a difference to the specification before the first flip.
pub fn run_corrupt(bytes: &[u8]) -> Result<(), String> {
    let mut u = Unstructured::new(bytes);
    let Ok((flips, mut history)) = draw(&mut u) else { return Ok(()) };
    history.geometry.policy.owner_data = false;
    let _expect = ExpectCorrupt::new();
    with::<(), _>(&history.geometry, |subject| run(subject, &history, &flips))
}

fn draw(u: &mut Unstructured<'_>) -> arbitrary::Result<(Vec<Flip>, History)> {
    let nr_flips = u8::arbitrary(u)? % 4;
    let flips = (0..=nr_flips).map(|_| Flip::draw(u)).collect::<Result<_, _>>()?;
    Ok((flips, History::arbitrary(u)?))
}

fn run(
    subject: &mut PgmapSubject<'_, '_, ()>,
    history: &History,
    flips: &[Flip],
) -> Result<(), String> {
    let mut spec = Spec::new(&history.geometry, subject.caps().limits);
    let mut events = Vec::new();
    let mut is_corrupt = false;
    for (step, op) in (0..u8::MAX).zip(&history.ops) {
        is_corrupt |= flip(subject, flips, step);
        let Some(op) = spec.resolve(op) else { continue };
        let outcome = subject.apply(&op);
        events.clear();
        subject.hook_log(&mut events);
        if is_corrupt {
            // It goes on for itself, so that what is asked for stays likely.
            let _ = spec.play(&op);
        } else {
            spec.judge(&op, &outcome, &events).map_err(|why| format!("{why}\nafter {op}"))?;
        }
    }
    for step in 0..64 {
        flip(subject, flips, step);
    }
    look(subject);
    Ok(())
}

/// Flips the bits that are due; true if any are.
fn flip(subject: &PgmapSubject<'_, '_, ()>, flips: &[Flip], step: u8) -> bool {
    let mut is_due = false;
    for flip in flips.iter().filter(|flip| flip.step == step) {
        subject.pgmap.flip(flip.word.into(), flip.bits);
        is_due = true;
    }
    is_due
}

/// Looks at everything that can be seen, whatever it is.
fn look(subject: &PgmapSubject<'_, '_, ()>) {
    let (mut folios, mut runs) = (Vec::new(), Vec::new());
    let _ = (subject.folios(&mut folios), subject.free_runs(&mut runs));
    let _ = (subject.totals(), subject.check());
    subject.pgmap.for_each_busy(|_| {});
    let _ = subject.pgmap.draw(16, 2).to_string();
    let mut words = Vec::new();
    subject.image(&mut words);
}
