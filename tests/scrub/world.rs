//! An owner who answers what he is told, and writes down what he is asked.

use std::collections::VecDeque;
use std::sync::Mutex;

use devfolio::{
    Attach, Contents, ExtentAttrs, ExtentSlot, HookCx, MetaLine, MetaSize, Order, Pfn, PfnRange,
    Pgmap, PgmapOps, Policy, Scrub, ScrubJob, Scrubbed, Tables, UniqueFolio,
};

pub(crate) const NR_PAGES: u64 = 1024;

/// What the free hook does.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum Verdict {
    #[default]
    Drop,
    Keep,
    Publish,
}

#[derive(Debug, Default)]
pub(crate) struct Owner {
    /// What to answer next; then, what always. `None` is a panic.
    pub(crate) answers: Mutex<VecDeque<Option<Scrubbed>>>,
    pub(crate) always: Mutex<Option<Scrubbed>>,
    pub(crate) jobs: Mutex<Vec<ScrubJob>>,
    pub(crate) verdict: Mutex<Verdict>,
}

impl Owner {
    /// Says what is answered next.
    pub(crate) fn answer(&self, answers: &[Scrubbed]) {
        self.answers.lock().unwrap().extend(answers.iter().copied().map(Some));
    }

    /// Returns what was asked since the last time.
    pub(crate) fn asked(&self) -> Vec<ScrubJob> {
        core::mem::take(&mut *self.jobs.lock().unwrap())
    }

    /// Returns how often something was asked since the last time.
    pub(crate) fn nr_asked(&self) -> usize {
        self.asked().len()
    }
}

impl PgmapOps for Owner {
    type Private = ();

    fn scrub(&self, job: ScrubJob) -> Scrubbed {
        self.jobs.lock().unwrap().push(job);
        let next = self.answers.lock().unwrap().pop_front();
        let always = *self.always.lock().unwrap();
        match next {
            Some(Some(answer)) => answer,
            Some(None) => panic!("a hook that panics"),
            None => always.unwrap_or(Scrubbed::Done),
        }
    }

    fn folio_free<'a>(&'a self, folio: UniqueFolio<'a, Self>, _: &mut HookCx<'a, Self>) {
        let verdict = *self.verdict.lock().unwrap();
        match verdict {
            Verdict::Drop => drop(folio),
            Verdict::Keep => folio.keep(),
            Verdict::Publish => {
                // A second life, which ends within this hook.
                *self.verdict.lock().unwrap() = Verdict::Keep;
                drop(folio.publish());
            }
        }
    }
}

pub(crate) fn order(log2_pages: u8) -> Order {
    Order::new(log2_pages).unwrap()
}

pub(crate) fn pages(start: u64, nr_pages: u64) -> PfnRange {
    PfnRange::new(Pfn::new(start), nr_pages).unwrap()
}

/// Two blocks under a policy, at the end of which every folio has been given back but those that
/// are kept or in quarantine.
pub(crate) fn in_world(scrub: Scrub, test_fn: impl FnOnce(&Pgmap<'_, Owner>)) {
    in_world_of(Policy { scrub, ..Policy::generic() }, Contents::Unknown, test_fn);
}

pub(crate) fn in_world_of(
    policy: Policy,
    contents: Contents,
    test_fn: impl FnOnce(&Pgmap<'_, Owner>),
) {
    let range = pages(0, NR_PAGES);
    let size = MetaSize::of(range, Tables::Dense).poison(4);
    let mut lines: Vec<_> = (0..size.lines()).map(|_| MetaLine::ZERO).collect();
    let slots = [ExtentSlot::new()];
    let pgmap = Pgmap::new(Owner::default(), policy, &slots);
    let attrs = ExtentAttrs { contents, ..ExtentAttrs::NEW };
    pgmap.add_extent(range, attrs, Tables::Dense, &mut lines, Attach::Zeroed).unwrap();
    test_fn(&pgmap);
    pgmap.check().unwrap();
    let stats = pgmap.stats();
    assert_eq!((stats.unique.nr_folios, stats.live.nr_folios), (0, 0), "{stats:?}");
}
