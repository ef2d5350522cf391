package host

import (
	"cmp"
	"slices"
)

// attempts remembers what did not work, and in which order it was tried, so
// that the longest untried comes first and nothing starves behind the others.
type attempts struct {
	last  map[string]uint64
	clock uint64
}

// note remembers that a key was tried just now, in vain.
func (a *attempts) note(key string) {
	if a.last == nil || len(a.last) >= maxRemembered {
		a.last = map[string]uint64{}
	}
	a.clock++
	a.last[key] = a.clock
}

func (a *attempts) forget(key string) { delete(a.last, key) }

// order splits all into those never tried in vain and the others, the longest
// untried first.
func order[T any](a *attempts, all []T, key func(T) string) (fresh, again []T) {
	for _, it := range all {
		if _, tried := a.last[key(it)]; tried {
			again = append(again, it)
		} else {
			fresh = append(fresh, it)
		}
	}
	slices.SortStableFunc(again, func(x, y T) int { return cmp.Compare(a.last[key(x)], a.last[key(y)]) })
	return fresh, again
}
