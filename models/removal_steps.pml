/*
 * The state of the one page of removal.pml, and what the crate does with it, step by step: each
 * inline is named after the function that it follows. MINE, there, declares what they work on.
 */

/* The state word: kind, waiter flag, one bit of pins, three of references. */
#define NONE     0
#define UNIQUE   1
#define LIVE     3
#define RETIRED  4
#define POISONED 6
#define WAITER   8
#define PIN      16
#define REF      32
#define KIND(w)   ((w) & 7)
#define COUNTS(w) ((w) & 240)
#define HELD(w)   (KIND(w) == LIVE && COUNTS(w) != 0)
#define TOTAL(w)  (((w) >> 5) + (((w) >> 4) & 1))

/* The life of the pgmap. */
#define PG_LIVE    0
#define PG_DYING   1
#define PG_DRAINED 2

/* What lies in lent memory before an extent is attached: a folio that nobody made. */
byte word = LIVE | REF;
bit free;
bit inited = 1; /* the words of the region are cleared */
bit linked;     /* the extent is found */
byte life = PG_LIVE;
bit bad;        /* the page is on the list */
bit regions;    /* a page of its region is */
bit locked;     /* the lock of the list */
byte token;     /* of Park, for the folio */
byte token_end; /* and for the end */

/* What the world outside knows; no process decides by it. */
byte users;  /* handles in somebody's hands */
bit alone;   /* somebody has the folio as his own */
bit due;     /* live, so a hook is still to come */
bit killed;  /* a kill has returned */
bit told;    /* a call that recorded the page has returned, and it is not repaired */
byte nr_ends;
byte killer;   /* which process it is */
bit waiting[2];
bit draining;

/* A count was taken, or a folio was handed out; never after the end. */
inline handed_out() { assert(life != PG_DRAINED) }

inline use() { atomic { assert(KIND(word) == LIVE && COUNTS(word) != 0 && due && !alone) } }

/* PgmapCore::settle_life: the scan, the exchange, and the wake-up by whoever did it. */
inline settle_life() {
	busy = false;
	if
	:: linked ->
		if
		:: free
		:: !free ->
			if
			:: inited && (KIND(word) == RETIRED || KIND(word) == POISONED)
			:: else -> busy = true
			fi
		fi
	:: else
	fi;
#if BUG == 1 /* Told before it is so. */
	if
	:: !busy && life == PG_DYING -> token_end++
	:: else
	fi;
#endif
	atomic {
		if
		:: !busy && life == PG_DYING ->
			life = PG_DRAINED;
			nr_ends++;
			ends = true;
			assert(users == 0 && !alone && !due)
		:: else
		fi;
		busy = false
	};
#if BUG == 1
	ends = false
#elif BUG == 3 /* A release says it, and tells nobody. */
	if
	:: ends && _pid == killer -> ends = false; token_end++
	:: else -> ends = false
	fi
#else
	if
	:: ends -> ends = false; token_end++
	:: else
	fi
#endif
}

inline after_release() {
	if
	:: life == PG_DYING -> settle_life()
	:: else
	fi
}

/* PgmapCore::lift: ends the quarantine if the page is no longer on the list; sets `lifted`. */
inline lift() {
	lifted = false;
	if
	:: word == POISONED ->
		if
		:: !bad ->
			if
			:: atomic { word == POISONED -> word = UNIQUE };
				word = NONE;
				free = 1;
				after_release();
				lifted = true
			:: word != POISONED
			fi
		:: else
		fi
	:: else
	fi
}

/* PgmapCore::isolate: takes the page out of free space, if it is there; sets `isolated`. */
inline isolate() {
	isolated = false;
	if
	:: atomic { free -> free = 0 };
		if
		:: !inited -> word = NONE; inited = 1
		:: else
		fi;
		word = POISONED;
		isolated = true
	:: !free
	fi;
#if BUG == 11 /* What is in quarantine does not look at the end. */
	skip
#else
	after_release()
#endif
}

/* PgmapCore::settle_poison. */
inline settle_poison() {
	do
	:: regions && bad ->
		isolate();
#if BUG == 10 /* Repaired meanwhile, and nobody looks. */
		break
#else
		if
		:: isolated ->
			lift();
			if
			:: lifted -> lifted = false
			:: else -> break
			fi
		:: else -> break
		fi
#endif
	:: else -> break
	od;
	isolated = false
}

/* PgmapCore::dissolve of a folio that is the caller's alone. */
inline dissolve() {
	if
	:: regions ->
		word = NONE;
		if
		:: regions && bad ->
			atomic { word = POISONED; alone = 0 };
#if BUG != 10
			lift();
			lifted = false
#endif
		:: else -> atomic { assert(!free); free = 1; alone = 0 }
		fi;
		settle_poison()
	:: else ->
		word = NONE;
		atomic { assert(!free); free = 1; alone = 0 };
#if BUG != 7 /* Does not look for bad pages again. */
		settle_poison()
#endif
	fi;
	after_release()
}

inline retire() {
	atomic { word = RETIRED; alone = 0 };
	after_release()
}

/* The hook, its verdict, and then the wake-up. */
inline last_put() {
	atomic {
		assert(KIND(word) == UNIQUE && users == 0 && due && !alone);
		due = 0;
		alone = 1;
		handed_out()
	};
	if
	:: dissolve()
#if POISONERS == 0
	:: retire()
#endif
	fi;
	if
	:: wake -> token++
	:: else
	fi
}

/* Word::put, and what it owes. */
inline put() {
	atomic { old = word; word = old - REF; users--; wake = (old & WAITER) != 0 };
	if
	:: COUNTS(old) == REF -> word = UNIQUE; last_put()
	:: COUNTS(old) != REF && wake -> clear_waiter()
	:: else
	fi;
	atomic { old = 0; wake = false }
}

/* Word::clear_waiter, and the wake-up if this call did it. */
inline clear_waiter() {
	old = word;
	do
	:: HELD(old) && (old & WAITER) ->
		if
		:: atomic { word == old -> word = old & ~WAITER };
			token++;
			break
		:: atomic { word != old -> old = word }
		fi
	:: else -> break
	od
}

/* Word::sub of a pin. */
inline unpin() {
	old = word;
	do
	:: atomic {
		word == old ->
			assert(HELD(old) && (old & PIN));
			users--;
			wake = (old & WAITER) != 0;
			if
			:: COUNTS(old) == PIN -> word = UNIQUE; last = true
			:: else -> word = (old - PIN) & ~WAITER
			fi
		};
		break
	:: atomic { word != old -> old = word }
	od;
	if
	:: last -> last = false; last_put()
	:: !last && wake -> token++
	:: else
	fi;
	atomic { old = 0; wake = false }
}

/* Word::add of `one`; sets `has`, and `late` if a kill had returned. */
inline add(one, limit) {
	has = false;
	old = word;
	do
	:: HELD(old) && (limit) ->
		if
		:: atomic {
			word == old ->
				word = old + one;
				users++;
				handed_out();
				late = killed;
				has = true
			};
			break
		:: atomic { word != old -> old = word }
		fi
	:: else -> break
	od;
	old = 0
}

/* Folio::pin by a holder; sets `has`. */
inline pin() {
	has = false;
	if
	:: life == PG_LIVE ->
		add(PIN, !(old & PIN));
#if BUG != 6 /* Does not look again. */
		if
		:: has && life != PG_LIVE -> has = false; unpin()
		:: else
		fi;
#endif
		assert(!has || !late);
		late = false
	:: else
	fi
}

/* Word::register_waiter, by a holder: there is always something to register with. */
inline register() {
	old = word;
	do
	:: atomic { word == old -> assert(HELD(old)); word = old | WAITER }; break
	:: atomic { word != old -> old = word }
	od;
	old = 0
}

#define IS_MET (is_idle && TOTAL(word) == 1 || !is_idle && !(word & PIN))

/* Folio::wait_idle, Folio::wait_unpinned. */
inline wait_counts() {
	do
	:: IS_MET -> break
	:: else ->
		seen_token = token;
		register();
		if
		:: IS_MET -> break
		:: else -> token != seen_token
		fi
	od;
	seen_token = 0
}

/* Waits until the folio is unpinned, and gives up once it is registered. */
inline give_up() {
	if
	:: !(word & PIN)
	:: else ->
		register();
#if BUG == 4 /* The flag goes, and the others sleep on. */
		atomic { old = word; word = old & ~WAITER; old = 0 }
#else
		clear_waiter();
		old = 0
#endif
	fi
}

/* PgmapCore::alloc of the page; sets `has`. */
inline alloc() {
	has = false;
	knew = told;
	if
	:: life == PG_LIVE && linked ->
		if
		:: atomic { free -> free = 0 };
			if
			:: !inited -> word = NONE; inited = 1
			:: else
			fi;
			atomic { assert(word == NONE); word = UNIQUE };
			if
			:: life != PG_LIVE -> dissolve()
			:: life == PG_LIVE ->
				if
#if BUG != 9 /* Does not ask whether it is bad. */
				:: regions && bad -> dissolve()
				:: !(regions && bad) ->
#else
				::
#endif
					atomic { has = true; alone = 1; assert(!knew || !told) }
				fi
			fi
		:: !free -> after_release()
		fi
	:: else
	fi;
	knew = false
}

/* PgmapCore::try_get; sets `has`. */
inline try_get() {
	has = false;
	if
	:: life == PG_LIVE && linked ->
		if
		:: inited ->
			add(REF, TOTAL(old) < 6);
			late = false;
			if
			:: has && life != PG_LIVE -> has = false; put()
			:: else
			fi
		:: else
		fi
	:: else
	fi
}
