/*
 * The life of a folio and of its pgmap: get, put, freeze, kill, drain, and the waiter flag.
 *
 * Every atomic instruction of the crate is one step here, and what it returns decides as it does
 * there; what lies between two of them can be interrupted by every other process. Memory is
 * sequentially consistent: fences do nothing, and a weak ordering is no bug that this model finds
 * (the loom models do). A compare-and-swap never fails by chance.
 *
 * Left out: mappings (a third count, like pins), closed folios, folios that are kept or
 * condemned, orders, and the search for free pages; there is one free bit for each page.
 *
 * BUG selects a mistake that the verifier has to find; README.md lists them.
 */

#ifndef PAGES
#define PAGES 1
#endif
#ifndef OWNERS
#define OWNERS 1
#endif
#ifndef HOLDERS
#define HOLDERS 1
#endif
#ifndef WAITERS
#define WAITERS 1
#endif
#ifndef KILLERS
#define KILLERS 1
#endif
#ifndef LIVES
#define LIVES 1 /* how often an owner takes a page */
#endif
#ifndef BUG
#define BUG 0
#endif

/* The state word: kind, waiter flag, one bit of pins, three of references, topmost as there. */
#define NONE     0
#define UNIQUE   1
#define LIVE     3
#define RETIRED  4
#define WAITER   8
#define PIN      16
#define REF      32
#define REFS_MAX 3 /* the rest of the field is the guard band */
#define KIND(w)   ((w) & 7)
#define COUNTS(w) ((w) & 240)
#define HELD(w)   (KIND(w) == LIVE && COUNTS(w) != 0)
#define TOTAL(w)  (((w) >> 5) + (((w) >> 4) & 1))

/* The life of the pgmap. */
#define PG_LIVE    0
#define PG_DYING   1
#define PG_DRAINED 2

byte word[PAGES];
bit free[PAGES];
byte life = PG_LIVE;
byte token; /* of Park; one for all pages, which only wakes more often */

/* What the world outside knows; no process decides by it. */
byte users[PAGES];  /* handles in somebody's hands */
bit alone[PAGES];   /* somebody has the folio as his own */
bit due[PAGES];     /* live, so a hook or a freeze is still to come */
byte nr_lives[PAGES];
bit killed;
bit waiting; /* somebody is in wait_idle */
bit asleep;  /* and sleeps */

/* Any page. */
inline choose(p) {
#if PAGES > 1
	select(p : 0 .. PAGES - 1)
#else
	skip
#endif
}

/* A count was taken, or a folio was handed out; never after the end. */
inline handed_out() { assert(life != PG_DRAINED) }

/* The holder looks at his folio. */
inline use(p, my_life) {
	atomic {
		assert(KIND(word[p]) == LIVE && COUNTS(word[p]) != 0);
		assert(nr_lives[p] == my_life && !alone[p] && due[p])
	}
}

/* Extent::first_busy: page by page, first the free bit, then the word. Sets `busy`. */
inline scan() {
	busy = false;
	i = 0;
	do
	:: i == PAGES -> break
	:: atomic { i < PAGES && free[i] -> i++ }
	:: i < PAGES && !free[i] ->
		if
		:: atomic { KIND(word[i]) == RETIRED -> i++ }
		:: atomic { KIND(word[i]) != RETIRED -> busy = true }; break
		fi
	od;
	i = 0
}

/* The exchange that completes the removal. */
inline say_drained() {
	atomic {
		if
		:: !busy && life == PG_DYING ->
			life = PG_DRAINED;
			i = 0;
			do
			:: i == PAGES -> break
			:: i < PAGES ->
				assert(users[i] == 0 && !alone[i] && !due[i]);
				i++
			od;
			i = 0
		:: else
		fi;
		busy = false
	}
}

inline settle_life() { scan(); say_drained() }

/* What everybody owes who made pages free, or put them into quarantine. */
inline after_release() {
	if
	:: life == PG_DYING -> settle_life()
	:: else
	fi
}

/* UniqueFolio::release. */
inline release(p) {
	word[p] = NONE;
#if BUG == 6 /* The flag is looked at before the pages are free. */
	if
	:: life == PG_DYING -> seen = true
	:: else
	fi;
	atomic { assert(!free[p]); free[p] = 1; alone[p] = 0 };
	if
	:: seen -> seen = false; settle_life()
	:: else
	fi
#else
	atomic { assert(!free[p]); free[p] = 1; alone[p] = 0 };
	after_release()
#endif
}

inline retire(p) {
	atomic { word[p] = RETIRED; alone[p] = 0 };
	after_release()
}

/* The unique folio becomes live, with one reference. */
inline publish(p) {
	atomic {
		word[p] = LIVE | REF;
		alone[p] = 0;
		due[p] = 1;
		users[p]++;
		nr_lives[p]++;
		mine = nr_lives[p];
		handed_out()
	}
}

/* Park::unpark_all. */
inline unpark() { token++ }

/* PgmapCore::last_put: the hook, its verdict, and then the wake-up. */
inline last_put(p) {
	atomic {
		assert(KIND(word[p]) == UNIQUE && COUNTS(word[p]) == 0);
		assert(users[p] == 0 && due[p] && !alone[p]);
		due[p] = 0;
		alone[p] = 1;
		handed_out()
	};
	if
	:: release(p)
	:: retire(p)
	fi;
	if
	:: wake -> unpark()
	:: else
	fi
}

/* Word::put, and what it owes. */
inline put(p) {
#if BUG == 3 /* Looks before it counts. */
	atomic { old = word[p]; wake = (old & WAITER) != 0 };
	atomic { word[p] = word[p] - REF; users[p]-- };
#else
	atomic {
		old = word[p];
		word[p] = old - REF;
		users[p]--;
		wake = (old & WAITER) != 0
	};
#endif
	if
	:: COUNTS(old) == REF ->
		word[p] = UNIQUE;
		last_put(p)
	:: COUNTS(old) != REF && wake ->
#if BUG == 2 /* The flag is cleared after the wake-up. */
		unpark();
#endif
		/* Word::clear_waiter. */
		old = word[p];
		do
		:: HELD(old) && (old & WAITER) ->
			if
			:: atomic { word[p] == old -> word[p] = old & ~WAITER };
#if BUG != 2
				unpark();
#endif
				break
			:: atomic { word[p] != old -> old = word[p] }
			fi
		:: else -> break
		od
	:: else
	fi;
	atomic { old = 0; wake = false }
}

/* Word::sub, here of a pin: one exchange that takes the flag along. */
inline unpin(p) {
	old = word[p];
	do
	:: atomic {
		word[p] == old ->
			assert(HELD(old) && (old & PIN));
			users[p]--;
			wake = (old & WAITER) != 0;
			if
			:: COUNTS(old) == PIN -> word[p] = UNIQUE; last = true
			:: else -> word[p] = (old - PIN) & ~WAITER
			fi
		};
		break
	:: atomic { word[p] != old -> old = word[p] }
	od;
	if
	:: last -> last = false; last_put(p)
	:: !last && wake -> unpark()
	:: else
	fi;
	atomic { old = 0; wake = false }
}

/* Word::add, of `one`; sets `has` if it worked. */
inline add(p, one, limit) {
	has = false;
	old = word[p];
	do
	:: HELD(old) && (limit) ->
		if
		:: atomic {
			word[p] == old ->
				word[p] = old + one;
				users[p]++;
				handed_out();
				has = true;
				mine = nr_lives[p]
			};
			break
		:: atomic { word[p] != old -> old = word[p] }
		fi
	:: else -> break
	od;
	old = 0
}

/* PgmapCore::try_get. */
inline try_get(p) {
	has = false;
	if
	:: life == PG_LIVE ->
		add(p, REF, (old >> 5) < REFS_MAX);
		/* Past a kill it is the full put, hook and all. */
		if
		:: has && life != PG_LIVE -> has = false; put(p)
		:: else
		fi
	:: else
	fi
}

/* Folio::try_clone: a bare addition, taken back at the limit. */
inline clone(p) {
	atomic {
		old = word[p];
		assert(HELD(old) && (old >> 5) < 7);
		word[p] = old + REF;
		has = (old >> 5) < REFS_MAX;
		if
		:: has -> users[p]++
		:: else
		fi
	};
	if
	:: !has -> word[p] = word[p] - REF
	:: else
	fi;
	old = 0
}

/* Word::try_freeze, of one reference; sets `has` if the folio is the caller's alone. */
inline try_freeze(p) {
	has = false;
	old = word[p];
	do
	:: HELD(old) && COUNTS(old) == REF ->
		if
#if BUG == 4 /* A store where an exchange has to be. */
		:: atomic {
			true ->
#else
		:: atomic {
			word[p] == old ->
#endif
				word[p] = UNIQUE;
				has = true;
				users[p]--;
				assert(users[p] == 0 && due[p]);
				due[p] = 0;
				alone[p] = 1;
				wake = (old & WAITER) != 0
			};
			break
#if BUG != 4
		:: atomic { word[p] != old -> old = word[p] }
#endif
		fi
	:: else -> break
	od;
	if
	:: wake -> unpark()
	:: else
	fi;
	atomic { old = 0; wake = false }
}

/* Folio::wait_idle; the caller holds a reference. */
inline wait_idle(p) {
	waiting = true;
	do
	:: TOTAL(word[p]) == 1 -> break
	:: else ->
		seen_token = token;
		/* Word::register_waiter. */
		old = word[p];
		do
		:: HELD(old) ->
			if
			:: atomic { word[p] == old -> word[p] = old | WAITER; has = true }; break
			:: atomic { word[p] != old -> old = word[p] }
			fi
		:: else -> has = false; break
		od;
		old = 0;
		if
		:: !has -> break
		:: else
		fi;
#if BUG != 1 /* The second look is missing. */
		if
		:: TOTAL(word[p]) != 1 ->
#endif
			asleep = true;
			atomic { token != seen_token -> asleep = false }
#if BUG != 1
		:: else
		fi
#endif
	od;
	atomic { waiting = false; has = false; seen_token = 0 }
}

/* PgmapCore::alloc of one page; sets `has`. */
inline alloc(p) {
	has = false;
	if
	:: life == PG_LIVE ->
		if
		:: atomic { free[p] -> free[p] = 0 };
			atomic { assert(word[p] == NONE); word[p] = UNIQUE };
#if BUG == 7 /* Does not look again. */
			atomic { has = true; alone[p] = 1; handed_out() }
#else
			if
			:: atomic { life == PG_LIVE -> has = true; alone[p] = 1 }
			:: life != PG_LIVE -> release(p)
			fi
#endif
		/* It took one page of two that it needs, and gives it back. */
		:: atomic { free[p] -> free[p] = 0 };
			free[p] = 1;
#if BUG != 8 /* What was hidden from the scan is forgotten. */
			after_release()
#endif
		:: !free[p] -> after_release()
		fi
	:: else
	fi
}

/* PgmapCore::claim_retired; sets `has`. */
inline claim_retired(p) {
	has = false;
	if
	:: life == PG_LIVE && KIND(word[p]) == RETIRED ->
		if
		:: atomic { word[p] == RETIRED -> word[p] = UNIQUE };
			if
			:: atomic { life == PG_LIVE -> has = true; alone[p] = 1 }
			:: life != PG_LIVE -> retire(p)
			fi
		:: word[p] != RETIRED
		fi
	:: else
	fi
}

/* Takes pages, hands some of them out and drops what he has. */
proctype Owner() {
	byte p, i, old, mine, n;
	bit has, wake, busy, last, seen;
	do
	:: n < LIVES ->
		n++;
		choose(p);
		if
		:: alloc(p)
		:: claim_retired(p)
		fi;
		if
		:: has -> release(p)
		:: has -> publish(p); use(p, mine); put(p)
		:: else
		fi;
		atomic { has = false; mine = 0; p = 0 }
	:: else -> break
	od
}

/* Finds a folio by its page, and does one of the things that holders do. */
proctype Holder() {
	byte p, i, old, mine;
	bit has, wake, busy, last, seen;
	choose(p);
	try_get(p);
	if
	:: has -> use(p, mine); put(p)
	:: has ->
		clone(p);
		if
		:: has -> put(p)
		:: else
		fi;
		use(p, mine);
		put(p)
	:: has ->
		add(p, PIN, !(old & PIN));
		put(p);
		if
		:: has -> use(p, mine); unpin(p)
		:: else
		fi
	:: has ->
		use(p, mine);
		try_freeze(p);
		if
		:: has -> release(p)
		:: has -> publish(p); use(p, mine); put(p)
		:: else -> put(p)
		fi
	:: else
	fi;
	atomic { p = 0; mine = 0; has = false }
}

proctype Waiter() {
	byte p, i, old, mine, seen_token;
	bit has, wake, busy, last, seen;
	choose(p);
	try_get(p);
	if
	:: has -> wait_idle(p); use(p, mine); put(p)
	:: else
	fi;
	atomic { p = 0; mine = 0; has = false }
}

/* PgmapCore::kill. */
proctype Killer() {
	byte i;
	bit busy;
#if BUG == 5 /* The scan comes before the flag. */
	scan();
#endif
	if
	:: atomic { life == PG_LIVE -> life = PG_DYING; killed = true }
	:: else
	fi;
#if BUG != 5
	scan();
#endif
	say_drained()
}

init {
	byte i;
	atomic {
		i = 0;
		do
		:: i < PAGES -> free[i] = 1; i++
		:: else -> break
		od;
		i = 0;
		do
		:: i < OWNERS -> run Owner(); i++
		:: else -> break
		od;
		i = 0;
		do
		:: i < HOLDERS -> run Holder(); i++
		:: else -> break
		od;
		i = 0;
		do
		:: i < WAITERS -> run Waiter(); i++
		:: else -> break
		od;
		if
		:: KILLERS == 1 -> run Killer()
		:: else
		fi;
		i = 0
	};
	/* When everybody is through, nothing is left over. */
	atomic {
		_nr_pr == 1 ->
		assert(life == PG_DRAINED || KILLERS == 0);
		do
		:: i < PAGES ->
			assert(users[i] == 0 && !due[i] && !alone[i]);
			assert(free[i] && word[i] == NONE || !free[i] && word[i] == RETIRED);
			i++
		:: else -> break
		od
	}
}

/* Who sleeps until his folio is idle is woken: all others put what they have, so it becomes so. */
ltl woken { [] (waiting -> <> !waiting) }
/* A killed pgmap, all of whose holders put, becomes drained. */
ltl drained { [] (killed -> <> (life == PG_DRAINED)) }
