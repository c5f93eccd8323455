//! The yardstick is measured: text forms round trip, sets are sets, and wrong answers are found.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use arbitrary::{Arbitrary, Unstructured};
use bitvec::prelude::*;

use super::runs::{Run, RunSet};
use super::*;
use crate::units::{Order, Pfn, PfnRange};

const LIMITS: Limits = Limits { refs: 1 << 14, pins: 65_535, maps: (1 << 23) - 1 };

/// Bytes that look random and are the same everywhere.
fn noise(seed: u64, nr_bytes: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let step = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    core::iter::repeat_with(step).take(nr_bytes).collect()
}

fn history(seed: u64) -> History {
    let bytes = noise(seed + 1, 600);
    History::arbitrary(&mut Unstructured::new(&bytes)).unwrap()
}

#[test]
fn a_history_survives_being_written_and_read() {
    for seed in 0..500 {
        let before = history(seed);
        let text = before.to_string();
        assert_eq!(text.parse(), Ok(before), "{text}");
    }
}

#[test]
fn every_operation_comes_up_in_noise() {
    let mut seen = Vec::new();
    for seed in 0..200 {
        seen.extend(history(seed).ops.iter().map(Op::word));
    }
    for word in Op::WORDS {
        assert!(seen.contains(word), "{word}");
    }
}

#[test]
fn resolving_twice_changes_nothing() {
    for seed in 0..200 {
        let History { geometry, ops } = history(seed);
        let mut spec = Spec::new(&geometry, LIMITS);
        for op in ops.iter().filter_map(|op| spec.resolve(op)).collect::<Vec<_>>() {
            let Some(op) = spec.resolve(&op) else { continue };
            assert_eq!(spec.resolve(&op).as_ref(), Some(&op));
            spec.play(&op);
        }
    }
}

#[test]
fn other_versions_and_bad_lines_are_refused() {
    let header = Err(HistoryParseError::Header);
    assert_eq!("devfolio-history v2\ngeometry".parse::<History>(), header);
    assert_eq!("".parse::<History>(), header);
    let bad = |line: &str| format!("{HEADER}\ngeometry extent=0+1:dense:dirty\n{line}");
    assert_eq!(bad("alloc order=3").parse::<History>().map(|it| it.ops.len()), Ok(1));
    for (line, why) in [
        ("allocate order=3", OpParseError::Word),
        ("alloc", OpParseError::Field("order")),
        ("alloc size=3", OpParseError::Field("order")),
        ("alloc order=256", OpParseError::Field("order")),
        ("alloc order=3 order=3", OpParseError::TooLong),
    ] {
        assert_eq!(bad(line).parse::<History>(), Err(HistoryParseError::Op { line: 3, why }));
    }
    for geometry in
        ["geometry extent=0+0:dense:dirty", "geometry extent=0+2:1:clean extent=1+1:1:clean"]
    {
        let text = format!("{HEADER}\n{geometry}");
        assert_eq!(text.parse::<History>(), Err(HistoryParseError::Geometry), "{geometry}");
    }
}

#[test]
fn a_set_of_runs_is_a_set_of_pages() {
    let bytes = noise(7, 3000);
    let (mut runs, mut bits) = (RunSet::default(), bitvec![0; 48]);
    for chunk in bytes.chunks_exact(3) {
        let (start, end) = (usize::from(chunk[0] % 48), usize::from(chunk[1] % 49));
        if end <= start {
            continue;
        }
        let run = Run { start: start as u128, end: end as u128 };
        if chunk[2] & 1 == 0 {
            runs.insert(run);
            bits[start..end].fill(true);
        } else {
            runs.remove(run);
            bits[start..end].fill(false);
        }
        assert!((0..48).all(|page| runs.contains(page as u128) == bits[page]));
        assert_eq!(runs.nr_pages(), bits.count_ones() as u128);
        let borders = bits.iter().by_vals().zip(bits.iter().by_vals().skip(1));
        let starts = borders.filter(|&(this, next)| !this && next).count();
        assert_eq!(runs.nr_runs(), starts + usize::from(bits[0]));
        assert_eq!(runs.covers(run), bits[start..end].all());
    }
}

#[test]
fn both_tilings_agree() {
    for (start, nr_pages) in [(0, 1), (3, 50), (u64::MAX - 40, 41), (0x3_fff5, 0x5_0000)] {
        let range = PfnRange::new(Pfn::new(start), nr_pages).unwrap();
        for max in Order::all() {
            assert!(Run::from(range).tiles(max.as_u8()).eq(range.tiles_up_to(max)));
        }
    }
}

#[test]
fn the_closed_form_counts_what_can_be_listed() {
    // All ways to tile a block of two pages by folios with two states, or leave pages free.
    let folio = FolioStates { parked: 1, live: 1 };
    assert_eq!(expected_states(Order::ZERO, folio), Some(3));
    assert_eq!(expected_states(Order::new(1).unwrap(), folio), Some(3 * 3 + 2));
    let range = PfnRange::new(Pfn::new(1), 3).unwrap();
    assert_eq!(expected_states_of(range, Order::MAX, folio), Some(3 * 11));
    assert_eq!(expected_states_of(range, Order::ZERO, folio), Some(27));
    assert_eq!(expected_states(Order::MAX, folio), None);
}

#[test]
fn the_specification_agrees_with_itself() {
    let mut total = Report::default();
    for seed in 0..2000 {
        let History { geometry, ops } = history(seed);
        let mut subject = Reference::new(&geometry, LIMITS);
        match run(&mut subject, &geometry, &ops, Looks::EveryStep) {
            Ok(report) => {
                total.steps += report.steps;
                total.refused += report.refused;
                total.hooks += report.hooks;
            }
            Err(divergence) => panic!("seed {seed}: {divergence}"),
        }
    }
    // Noise that is mostly refused would find nothing.
    assert!(total.refused * 3 < total.steps * 2, "{total:?}");
    assert!(total.hooks * 40 > total.steps, "{total:?}");
}

/// The specification with a fault in one of its answers.
struct Mutant {
    inner: Reference,
    fault: fn(&Op, &mut Outcome, &mut Vec<HookEvent>),
    log: Vec<HookEvent>,
}

impl Subject for Mutant {
    fn caps(&self) -> Caps {
        self.inner.caps()
    }

    fn apply(&mut self, op: &Op) -> Outcome {
        let mut outcome = self.inner.apply(op);
        self.inner.hook_log(&mut self.log);
        (self.fault)(op, &mut outcome, &mut self.log);
        outcome
    }

    fn hook_log(&mut self, log: &mut Vec<HookEvent>) {
        log.append(&mut self.log);
    }

    fn page(&self, pfn: Pfn) -> PageView {
        self.inner.page(pfn)
    }

    fn folios(&self, list: &mut Vec<FolioView>) -> bool {
        self.inner.folios(list)
    }

    fn free_runs(&self, list: &mut Vec<PfnRange>) -> bool {
        self.inner.free_runs(list)
    }

    fn extents(&self, list: &mut Vec<ExtentView>) -> bool {
        self.inner.extents(list)
    }

    fn totals(&self) -> Option<Totals> {
        self.inner.totals()
    }

    fn image(&self, words: &mut Vec<u64>) {
        self.inner.image(words);
    }

    fn check(&self) -> Result<(), String> {
        self.inner.check()
    }
}

type Fault = fn(&Op, &mut Outcome, &mut Vec<HookEvent>);

/// Wrong answers, each by its name.
const FAULTS: &[(&str, Fault)] = &[
    ("a folio one order too low", |_, outcome, _| {
        if let Outcome::Blocks(blocks) = outcome {
            for block in blocks {
                block.order = block.order.shrink().unwrap_or(Order::BLOCK);
            }
        }
    }),
    ("a folio that lies elsewhere", |op, outcome, _| {
        if let (Op::Alloc { .. }, Outcome::Blocks(blocks)) = (op, outcome) {
            blocks[0].head = blocks[0].head.buddy(blocks[0].order);
        }
    }),
    ("a piece too few", |op, outcome, _| {
        if let (Op::Split { .. } | Op::AllocSet { .. }, Outcome::Blocks(blocks)) = (op, outcome) {
            blocks.pop();
        }
    }),
    ("dirty pages that are said to be clean", |_, outcome, _| {
        if let Outcome::Blocks(blocks) = outcome {
            blocks.iter_mut().for_each(|block| block.clean = true);
        }
    }),
    ("clean pages that are said to be dirty", |_, outcome, _| {
        if let Outcome::Blocks(blocks) = outcome {
            blocks.iter_mut().for_each(|block| block.clean = false);
        }
    }),
    ("pieces without the data of their folio", |op, outcome, _| {
        if let (Op::Split { .. }, Outcome::Blocks(blocks)) = (op, outcome) {
            blocks.iter_mut().skip(1).for_each(|block| block.tag = 0);
        }
    }),
    ("a hook that runs twice", |_, _, log| log.extend(log.clone())),
    ("a hook that does not run", |_, _, log| log.clear()),
    ("a hook with the order of a page", |_, _, log| {
        for event in log {
            if let HookEvent::Called { order, .. } = event {
                *order = Order::ZERO;
            }
        }
    }),
    ("exhausted too early", |op, outcome, _| {
        if let Op::Alloc { .. } = op {
            *outcome = Outcome::Refused(Refusal::NoTables);
        }
    }),
    ("the wrong page in the way", |_, outcome, _| {
        if let Outcome::Refused(Refusal::Busy { pfn }) = outcome {
            *pfn = Pfn::new(pfn.as_u64() ^ 1);
        }
    }),
    ("an underflow that nobody notices", |_, outcome, _| {
        if let Outcome::Refused(Refusal::Underflow { .. }) = outcome {
            *outcome = Outcome::Put { last: false };
        }
    }),
    ("a last put that nobody notices", |_, outcome, _| {
        if let Outcome::Put { last } = outcome {
            *last = false;
        }
    }),
    ("a get of a closed folio", |_, outcome, _| {
        if *outcome == Outcome::Refused(Refusal::Closed) {
            *outcome = Outcome::Done;
        }
    }),
    ("a limit one too low", |_, outcome, _| {
        if let Outcome::Refused(Refusal::Limit { value, .. }) = outcome {
            *value += 1;
        }
    }),
    ("hooks that wait for ever", |_, outcome, _| {
        if let Outcome::Reaped { has_more, .. } = outcome {
            *has_more = false;
        }
    }),
    ("a holder that is not named", |_, outcome, _| {
        if let Outcome::Refused(Refusal::StillBusy { nr_folios, .. }) = outcome {
            *nr_folios -= 1;
        }
    }),
    ("an end with holders", |_, outcome, _| {
        if let Outcome::Refused(Refusal::StillBusy { .. }) = outcome {
            *outcome = Outcome::Drained;
        }
    }),
];

#[test]
fn every_wrong_answer_is_found() {
    for (&(name, fault), looks) in
        FAULTS.iter().flat_map(|fault| [(fault, Looks::EveryStep), (fault, Looks::Few)])
    {
        let found = (0..2000).any(|seed| {
            let History { geometry, ops } = history(seed);
            let inner = Reference::new(&geometry, LIMITS);
            let mut mutant = Mutant { inner, fault, log: Vec::new() };
            run(&mut mutant, &geometry, &ops, looks).is_err()
        });
        assert!(found, "{name}, {looks:?}");
    }
}
