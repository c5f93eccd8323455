//! What a history needs, found out before it is replayed: the unit of its sizes, and its peak.

use devfolio::Order;

use super::args::{Args, Load, Pool};
use super::human::PAGE_BYTES;
use super::workload::{Fate, Holders, Op, Workload};

/// The smallest folio that requests are given unless their sizes need smaller ones: 256 MiB.
const LEAST: u8 = 16;

/// The pool for generated loads of virtual machines.
pub(crate) const VM_POOL_PAGES: u64 = (8 << 40) / PAGE_BYTES;

/// The pool for loads that share memory.
pub(crate) const KV_POOL_PAGES: u64 = (512 << 30) / PAGE_BYTES;

/// How a history is replayed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Plan {
    /// The smallest folio of a request.
    pub(crate) least: Order,
    /// The largest folio of a request.
    pub(crate) prefer: Order,
    /// The pages of the pool.
    pub(crate) pool_pages: u64,
    /// The pages in use when most are.
    pub(crate) peak_pages: u64,
    /// The number of the event that reaches the peak.
    pub(crate) peak_at: usize,
    /// The most holders that one request ever has.
    pub(crate) peak_holders: u32,
}

/// Finds out what `workload` needs.
///
/// # Errors
///
/// Returns the reason if no pool could hold it.
pub(crate) fn plan(args: &Args, workload: &Workload) -> Result<Plan, String> {
    let least = args.least.unwrap_or_else(|| natural_least(workload)).min(args.prefer);
    let peak = Peak::of(workload, least).ok_or("the sizes add up to more than 2^64 pages")?;
    let pool_pages = match (args.pool, &args.load) {
        (Some(Pool::Pages(nr_pages)), _) => nr_pages,
        (None, Load::Vm) => VM_POOL_PAGES,
        (None, Load::Kv) => KV_POOL_PAGES.max(peak.nr_pages),
        (None, Load::Trace(_)) if workload.is_shared => KV_POOL_PAGES.max(peak.nr_pages),
        (None | Some(Pool::Peak), _) => peak.nr_pages,
    };
    if (1 << 60) / PAGE_BYTES < pool_pages {
        return Err("the pool would be larger than 1 EiB; see --pool".into());
    }
    Ok(Plan {
        least,
        prefer: args.prefer,
        pool_pages,
        peak_pages: peak.nr_pages,
        peak_at: peak.event,
        peak_holders: peak.nr_holders,
    })
}

/// Returns the number of pages that a request of that size is given.
pub(crate) fn pages_of(len_bytes: u64, least: Order) -> Option<u64> {
    len_bytes.div_ceil(PAGE_BYTES).checked_next_multiple_of(least.nr_pages())
}

/// Returns the largest order that divides every size without a rest, up to [`LEAST`].
fn natural_least(workload: &Workload) -> Order {
    let nr_zeros = workload
        .sizes()
        .map(|len_bytes| len_bytes.div_ceil(PAGE_BYTES).trailing_zeros() as u8)
        .fold(LEAST, u8::min);
    Order::new(nr_zeros).unwrap_or(Order::ZERO)
}

/// The fullest moment of a history.
#[derive(Clone, Copy, Debug, Default)]
struct Peak {
    nr_pages: u64,
    event: usize,
    nr_holders: u32,
}

impl Peak {
    /// Walks through the whole history; `None` if its sizes overflow.
    fn of(workload: &Workload, least: Order) -> Option<Self> {
        let mut peak = Self::default();
        let mut holders = vec![(Holders::Absent, 0u64); workload.nr_ids as usize];
        let mut used_pages = 0u64;
        for (index, event) in workload.events.iter().enumerate() {
            let Some((holders, nr_pages)) = holders.get_mut(event.id as usize) else { continue };
            if let Op::Alloc { len_bytes } = event.op {
                *nr_pages = pages_of(len_bytes, least)?;
                used_pages = used_pages.checked_add(*nr_pages)?;
            }
            if holders.step(event.op) == Ok(Fate::Gone) {
                used_pages -= *nr_pages;
            }
            peak.nr_holders = peak.nr_holders.max(holders.nr());
            if peak.nr_pages < used_pages {
                peak.nr_pages = used_pages;
                peak.event = index;
            }
        }
        Some(peak)
    }
}

#[cfg(test)]
mod tests {
    use super::super::workload::Event;
    use super::*;

    fn workload(ops: &[(u32, Op)]) -> Workload {
        let events = ops.iter().map(|&(id, op)| Event { time_ms: 0, id, op }).collect();
        let is_shared = ops.iter().any(|&(_, op)| op == Op::Get);
        Workload { source: String::new(), events, nr_ids: 9, is_shared }
    }

    fn trace_args() -> Args {
        Args { load: Load::Trace("a".into()), ..Args::default() }
    }

    const MIB: u64 = 1 << 20;

    #[test]
    fn the_unit_divides_every_size() {
        let alloc = |len_bytes| (0, Op::Alloc { len_bytes });
        let least = |sizes: &[u64]| {
            let ops: Vec<_> = sizes.iter().map(|&size| alloc(size)).collect();
            natural_least(&workload(&ops)).as_u8()
        };
        assert_eq!(least(&[1792 * MIB, 768 * MIB]), 16);
        assert_eq!(least(&[1 << 40]), 16);
        assert_eq!(least(&[35 * MIB]), 8);
        assert_eq!(least(&[35 * MIB, 1]), 0);
    }

    #[test]
    fn cached_and_shared_memory_counts_until_it_is_gone() {
        let ops = [
            (0, Op::Alloc { len_bytes: 3 * MIB }),
            (0, Op::Get),
            (0, Op::Free),
            (1, Op::Alloc { len_bytes: MIB }),
            (0, Op::Put),
            (2, Op::Alloc { len_bytes: MIB }),
        ];
        let plan = plan(&Args { pool: Some(Pool::Peak), ..trace_args() }, &workload(&ops)).unwrap();
        assert_eq!((plan.peak_pages, plan.peak_at, plan.peak_holders), (1024, 3, 2));
        assert_eq!((plan.pool_pages, plan.least.as_u8()), (1024, 8));
    }

    #[test]
    fn the_pool_depends_on_the_kind_of_load() {
        let alone = workload(&[(0, Op::Alloc { len_bytes: MIB })]);
        let shared = workload(&[(0, Op::Alloc { len_bytes: MIB }), (0, Op::Get)]);
        assert_eq!(plan(&trace_args(), &alone).unwrap().pool_pages, 256);
        assert_eq!(plan(&trace_args(), &shared).unwrap().pool_pages, KV_POOL_PAGES);
        assert_eq!(plan(&Args::default(), &alone).unwrap().pool_pages, VM_POOL_PAGES);
        let huge = workload(&[(0, Op::Alloc { len_bytes: u64::MAX })]);
        assert!(plan(&trace_args(), &huge).is_err());
    }
}
