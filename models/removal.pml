/*
 * The end of a pgmap and what meets it: pins, last puts, waits that sleep or give up, extents that
 * are added, allocations, and pages that turn out to be bad or are repaired.
 *
 * One page, in one extent. As in folio.pml, every atomic instruction of the crate is one step,
 * memory is sequentially consistent, and a compare-and-swap never fails by chance. Which processes
 * there are is said by macros; those that hold something have it from the start.
 *
 * Left out: mappings (a third count, like pins), closed and condemned folios, orders, a list of
 * bad pages that is full, and the pool of tables.
 *
 * BUG selects a mistake that the verifier has to find; README.md lists them.
 */

#ifndef HOLDERS
#define HOLDERS 0
#endif
#ifndef WAITERS /* two at most; a single one may also wait until the folio is idle */
#define WAITERS 0
#endif
#ifndef QUITTERS
#define QUITTERS 0
#endif
#ifndef KILLERS
#define KILLERS 0
#endif
#ifndef DRAINERS
#define DRAINERS 0
#endif
#ifndef TAKERS
#define TAKERS 0
#endif
#ifndef FINDERS
#define FINDERS 0
#endif
#ifndef ADDERS
#define ADDERS 0
#endif
#ifndef POISONERS
#define POISONERS 0
#endif
#ifndef REPAIRERS
#define REPAIRERS 0
#endif
#ifndef BUG
#define BUG 0
#endif

#define HELD_AT_FIRST (HOLDERS + WAITERS + QUITTERS)

#include "removal_steps.pml"

#define MINE byte old, seen_token; bit has, wake, busy, last, late, ends, lifted, isolated, knew

/* Has a reference. */
proctype Holder() {
	MINE;
	if
	:: use(); put()
	:: pin();
		use();
		put();
		if
		:: has -> has = false; use(); unpin()
		:: else
		fi
	fi
}

/* Has a reference. */
proctype Waiter(byte id) {
	MINE;
	bit is_idle;
	if
	:: WAITERS == 1 -> is_idle = true
	:: true
	fi;
	waiting[id] = true;
	wait_counts();
	waiting[id] = false;
	use();
	put()
}

/* Has a reference. */
proctype Quitter() {
	MINE;
	give_up();
	use();
	put()
}

/* Allocates the page, publishes it, and drops it. */
proctype Taker() {
	MINE;
	alloc();
	if
	:: has -> dissolve()
	:: has ->
		atomic { word = LIVE | REF; alone = 0; due = 1; users++; handed_out() };
		use();
		put()
	:: else
	fi
}

/* Finds the folio by its page. */
proctype Finder() {
	MINE;
	try_get();
	if
	:: has -> use(); put()
	:: else
	fi
}

/* Pgmap::add_extent. */
proctype Adder() {
#if BUG == 5 /* Found before it is complete. */
	linked = 1;
#endif
	inited = 0;
	free = 1;
	linked = 1
}

/* PgmapCore::kill. */
proctype Killer() {
	MINE;
	killer = _pid;
	if
	:: atomic { life == PG_LIVE -> life = PG_DYING }
	:: else
	fi;
	settle_life();
	killed = true
}

/* PgmapCore::wait_drained. */
proctype Drainer() {
	byte seen_token;
	draining = true;
	do
#if BUG == 2 /* The look comes first. */
	:: life == PG_DRAINED -> break
	:: else ->
		seen_token = token_end;
		token_end != seen_token
#else
	:: true ->
		seen_token = token_end;
		if
		:: life == PG_DRAINED -> break
		:: else -> token_end != seen_token
		fi
#endif
	od;
	assert(life == PG_DRAINED);
	draining = false
}

/* PgmapCore::poison. */
proctype Poisoner() {
	MINE;
	atomic { !locked -> locked = 1 };
	if
	:: bad
	:: else ->
#if BUG == 8 /* Looked at before it is recorded. */
		isolate();
		bad = 1;
		regions = 1;
#else
		bad = 1;
		regions = 1;
		isolate();
#endif
		isolated = false
	fi;
	atomic { told = 1; locked = 0 }
}

/* PgmapCore::unpoison. */
proctype Repairer() {
	MINE;
	atomic { !locked -> locked = 1 };
	if
	:: bad ->
		told = 0;
		bad = 0;
		regions = 0;
		lift();
		if
		:: lifted -> lifted = false; settle_poison()
		:: else
		fi
	:: else
	fi;
	locked = 0
}

#define START(nr, process) i = 0; do :: i < nr -> run process; i++ :: else -> break od

init {
	byte i;
	atomic {
		if
		:: ADDERS == 0 -> word = NONE; linked = 1; free = 1
		:: else
		fi;
		if
		:: HELD_AT_FIRST > 0 ->
			free = 0;
			due = 1;
			users = HELD_AT_FIRST;
			word = LIVE + HELD_AT_FIRST * REF
		:: else
		fi;
		START(HOLDERS, Holder());
		START(WAITERS, Waiter(i));
		START(QUITTERS, Quitter());
		START(TAKERS, Taker());
		START(FINDERS, Finder());
		START(ADDERS, Adder());
		START(POISONERS, Poisoner());
		START(REPAIRERS, Repairer());
		START(KILLERS, Killer());
		START(DRAINERS, Drainer());
		i = 0
	};
	/* When everybody is through, nothing is left over. */
	atomic {
		_nr_pr == 1 ->
		assert(users == 0 && !due && !alone && linked && !locked);
		assert(life == PG_DRAINED || KILLERS == 0);
		assert(nr_ends == (KILLERS > 0 -> 1 : 0));
		if
		:: bad -> assert(!free && word == POISONED)
		:: else -> assert(free && (word == NONE || !inited) || !free && word == RETIRED)
		fi
	}
}

/* Who waits for counts is woken: all others put what they have. */
ltl woken {
	[] (waiting[0] -> <> !waiting[0]) && [] (waiting[1] -> <> !waiting[1])
}
/* A killed pgmap, all of whose holders put, becomes drained. */
ltl drained { [] (killed -> <> (life == PG_DRAINED)) }
/* And whoever waits for that is told. */
ltl told_the_end { [] (draining -> <> !draining) }
