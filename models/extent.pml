/*
 * The end of one extent of a pgmap that goes on: who holds, finds or takes the page, who removes
 * the extent, calls that off, waits for it, and takes the memory back.
 *
 * One page, in one extent. As in folio.pml, every atomic instruction of the crate is one step,
 * memory is sequentially consistent, and a compare-and-swap never fails by chance; the lock of the
 * list of extents is a lock. A grace period is a wait until all calls have returned that began
 * while the extent was found. Which processes there are is said by macros.
 *
 * Left out: pins and mappings (further counts, which behave like references), waits for counts,
 * the end of the pgmap meanwhile, a second extent, a device that is gone without notice, deadlines
 * and futures, magazines, bad and offline pages, leases, and holders on top.
 *
 * BUG selects a mistake that the verifier has to find; README.md lists them.
 */

#ifndef HOLDERS
#define HOLDERS 0
#endif
#ifndef FINDERS
#define FINDERS 0
#endif
#ifndef TAKERS
#define TAKERS 0
#endif
#ifndef REMOVERS
#define REMOVERS 0
#endif
#ifndef RESTORERS
#define RESTORERS 0
#endif
#ifndef WAITERS /* one at most */
#define WAITERS 0
#endif
#ifndef DETACHERS
#define DETACHERS 0
#endif
#ifndef BUG
#define BUG 0
#endif

#define MINE byte old, seen, behind; bit has, busy, ends, late, is_ending, is_counted

#include "extent_steps.pml"

/* Has a reference. */
proctype Holder() {
	MINE;
	use();
	begin_call();
	put();
	end_call()
}

/* Finds the folio by its page. */
proctype Finder() {
	MINE;
	begin_call();
	try_get();
	end_call();
	if
	:: has -> use(); begin_call(); put(); end_call()
	:: else
	fi
}

/* Allocates the page, publishes it, and drops it. */
proctype Taker() {
	MINE;
	begin_call();
	alloc();
	end_call();
	if
	:: has ->
		atomic { TOUCH; word = LIVE | REF; alone = 0; users++ };
		use();
		begin_call();
		put();
		end_call()
	:: else
	fi
}

proctype Remover() {
	MINE;
	begin_call();
	remove();
	end_call()
}

proctype Restorer() {
	restore()
}

proctype Detacher() {
	detach()
}

/* PgmapCore::wait_extent_drained: each look begins with the page, and so does the key. */
proctype Waiter() {
	byte seen_token;
	bit is_counted;
	if
	:: linked ->
		waiting = true;
		do
		:: true ->
			seen_token = token;
			if
			:: !linked -> break
			:: linked ->
				if
				:: LIFE(end) == DYING -> token != seen_token
				:: else -> break
				fi
			fi
		od;
		waiting = false
	:: else
	fi
}

#define START(nr, process) i = 0; do :: i < nr -> run process(); i++ :: else -> break od

init {
	byte i;
	atomic {
		if
		:: HOLDERS > 0 -> free = 0; users = HOLDERS; word = LIVE + HOLDERS * REF
		:: else
		fi;
		START(HOLDERS, Holder);
		START(FINDERS, Finder);
		START(TAKERS, Taker);
		START(REMOVERS, Remover);
		START(RESTORERS, Restorer);
		START(WAITERS, Waiter);
		START(DETACHERS, Detacher);
		i = 0
	};
	/* When everybody is through, nothing is left over. */
	atomic {
		_nr_pr == 1 ->
		assert(users == 0 && !alone && !locked && looking == 0);
		assert(leaving == (begun && !reclaimed -> 1 : 0));
		assert(LIFE(end) == (begun -> DYING | DRAINED : 0));
		assert(reclaimed == !linked);
		assert(reclaimed || free && word == NONE || !free && word == RETIRED)
	}
}

/* A removal that has begun and is not called off is completed: all who hold something put it. */
ltl drained { [] (begun -> <> (!begun || (end & DRAINED))) }
/* And whoever waits for it is told, or told that it was called off. */
ltl told { [] (waiting -> <> !waiting) }
