/*
 * The state of the one page of extent.pml, and what the crate does with it and with its extent,
 * step by step: each inline is named after the function that it follows. MINE, there, declares what
 * they work on.
 */

/* The state word: kind and references. */
#define NONE    0
#define UNIQUE  1
#define LIVE    3
#define RETIRED 4
#define REF     8
#define KIND(w) ((w) & 7)
#define REFS(w) ((w) >> 3)
#define HELD(w) (KIND(w) == LIVE && REFS(w) != 0)

/* The word of the extent's end: two flags, and how many ends have begun. */
#define DYING   1
#define DRAINED 2
#define TURN    4
#define LIFE(e) ((e) & (DYING | DRAINED))

byte word;
bit free = 1;
byte end;
byte leaving;   /* in the word of the pgmap: extents on their way out */
bit linked = 1; /* the extent is found */
bit locked;     /* the lock of the list of extents */
byte token;     /* of Park, for the end of the extent */

/* What the world outside knows; no process decides by it, but the one that owes a grace period. */
byte users;     /* handles in somebody's hands */
bit alone;      /* somebody has the folio as his own */
byte looking;   /* calls that have begun while the extent was found, and have not returned */
bit reclaimed;  /* lent memory is back, and something else by now */
byte turns;     /* ends that have begun */
bit begun;      /* one has, and was not called off */
bit said;       /* and the call has returned */
bit waiting;

/* The bracket of a call, as a grace period sees it. */
inline begin_call() {
	atomic {
		if
		:: linked -> looking++; is_counted = true
		:: else
		fi
	}
}

inline end_call() {
	atomic {
		if
		:: is_counted -> looking--; is_counted = false
		:: else
		fi
	}
}

#define TOUCH assert(!reclaimed)

inline use() { atomic { TOUCH; assert(HELD(word) && users > 0 && !alone) } }

/* Core::settle, of a list with one extent, and the wake-up by whoever said the end. */
inline settle() {
	if
	:: linked ->
		atomic { TOUCH; seen = end };
		do
		:: LIFE(seen) == DYING ->
			/* The scan: free bits first, and then the word. */
			busy = false;
			if
			:: free
			:: !free ->
				if
				:: KIND(word) == RETIRED
				:: else -> busy = true
				fi
			fi;
#if BUG == 9 /* Told before it is so. */
			if
			:: !busy -> token++
			:: else
			fi;
#endif
			if
			:: busy -> break
			:: else ->
				if
				:: atomic {
					end == seen ->
						TOUCH;
						end = seen | DRAINED;
						/* One end is said once, and by then nobody uses the page. */
						assert(LIFE(seen) == DYING && users == 0 && !alone);
						ends = true
					};
					break
				:: atomic { end != seen -> seen = end }
				fi
			fi
		:: else -> break
		od
	:: else
	fi;
#if BUG == 9
	ends = false;
#else
	if
	:: ends -> ends = false; token++
	:: else
	fi;
#endif
	atomic { seen = 0; busy = false }
}

/* PgmapCore::after_release: one look at the word of the pgmap. */
inline after_release() {
	if
	:: leaving > 0 -> settle()
	:: else
	fi
}

/* PgmapCore::dissolve. */
inline dissolve() {
	atomic { TOUCH; word = NONE };
#if BUG == 8 /* Looks for an end before its pages are free. */
	if
	:: leaving > 0 -> late = true
	:: else
	fi;
	atomic { assert(!free); free = 1; alone = 0 };
	if
	:: late -> late = false; settle()
	:: else
	fi
#else
	atomic { assert(!free); free = 1; alone = 0 };
	after_release()
#endif
}

/* Word::put, and the hook with its verdict, if it was the last. */
inline put() {
	atomic { TOUCH; assert(HELD(word)); old = word; word = old - REF; users-- };
	if
	:: REFS(old) == 1 ->
		atomic { word = UNIQUE; assert(!alone && users == 0); alone = 1 };
		if
		:: dissolve()
		:: atomic { TOUCH; word = RETIRED; alone = 0 };
			after_release()
		fi
	:: else
	fi;
	old = 0
}

/* PgmapCore::try_get; sets `has`. The end is looked at before the count is taken, and behind it. */
inline try_get() {
	has = false;
	is_ending = leaving > 0;
	if
	:: linked ->
		if
		:: is_ending && leaving > 0 && (end & DYING)
		:: else ->
			atomic { TOUCH; old = word };
			do
			:: HELD(old) ->
				if
				:: atomic {
					word == old ->
						TOUCH;
						word = old + REF;
						users++;
						has = true;
						behind = (said -> turns : 0)
					};
					break
				:: atomic { word != old -> old = word }
				fi
			:: else -> break
			od;
			old = 0;
#if BUG != 1 /* Does not look again. */
			if
			:: has ->
				if
				:: leaving > 0 ->
					if
					:: end & DYING -> has = false; put()
					:: else
					fi
				:: else
				fi
			:: else
			fi;
#endif
			/* Nothing is found behind a removal that was not called off. */
			atomic { assert(!has || !said || behind != turns); behind = 0 }
		fi
	:: else
	fi;
	is_ending = false
}

/* PgmapCore::alloc of the page; sets `has`. */
inline alloc() {
	has = false;
	is_ending = leaving > 0;
	if
	:: linked ->
		if
		:: is_ending && leaving > 0 && (end & DYING)
		:: else ->
			if
			:: atomic { free -> TOUCH; free = 0 };
				atomic { TOUCH; assert(word == NONE); word = UNIQUE };
#if BUG == 2 /* Does not look again. */
				atomic { has = true; alone = 1 }
#else
				if
				:: leaving > 0 && (end & DYING) -> dissolve()
				:: atomic { !(leaving > 0 && (end & DYING)) -> has = true; alone = 1 }
				fi
#endif
			:: !free -> after_release()
			fi
		fi
	:: else
	fi;
	is_ending = false
}

/* PgmapCore::remove_extent. */
inline remove() {
	atomic { !locked -> locked = 1 };
	if
	:: linked && !(end & DYING) ->
#if BUG != 5 && BUG != 11
		leaving++;
#endif
#if BUG != 3 /* Does not say that this is another end. */
		end = end + TURN;
#endif
		atomic { end = end | DYING; turns++; begun = true };
#if BUG == 11 /* The pgmap counts the extent behind the flag. */
		leaving++;
#endif
		locked = 0;
#if BUG == 5 /* Behind the look at what is left. */
		settle();
		leaving++
#else
		settle()
#endif
	:: else -> locked = 0; settle()
	fi;
	atomic {
		if
		:: linked && (end & DYING) ->
			said = true;
			assert(LIFE(end) == DYING || users == 0 && !alone)
		:: else
		fi
	}
}

/* PgmapCore::restore_extent. */
inline restore() {
	atomic { !locked -> locked = 1 };
	if
	:: linked && (end & DYING) ->
#if BUG == 10 /* What was drained stays so. */
		atomic { end = end & ~DYING; begun = false; said = false };
#else
		atomic { end = end & ~(DYING | DRAINED); begun = false; said = false };
#endif
		leaving--;
		locked = 0;
#if BUG != 4 /* Whoever waits for an end that does not come sleeps on. */
		token++
#endif
	:: else -> locked = 0
	fi
}

/* Pgmap::detach_extent, the grace period, and Detached::reclaim. */
inline detach() {
	atomic { !locked -> locked = 1 };
	if
#if BUG == 7 /* Does not look whether it is drained. */
	:: linked && (end & DYING) ->
#else
	:: linked && LIFE(end) == (DYING | DRAINED) ->
#endif
		atomic { linked = 0; assert(users == 0 && !alone) };
		locked = 0;
#if BUG != 6 /* Does not wait for those who found it before. */
		looking == 0;
#endif
		/* Others write to what is lent; what they write looks like a folio. */
		atomic { reclaimed = true; word = LIVE | REF };
		leaving--
	:: else -> locked = 0
	fi
}
