package seccomp

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// conjunction is the conditions of one kernel rule, at most one an argument,
// all of which must hold. Empty means always.
type conjunction []Arg

// conjunctions returns the rules that runc makes of one entry's arguments: one
// of all of them, or, where an index occurs twice, one of each
// (runc libcontainer/seccomp, func matchCall).
func conjunctions(args []Arg) []conjunction {
	seen := map[uint32]bool{}
	for _, a := range args {
		if seen[a.Index] {
			split := make([]conjunction, 0, len(args))
			for _, a := range args {
				split = append(split, conjunction{a})
			}
			return split
		}
		seen[a.Index] = true
	}
	return []conjunction{args}
}

// set is the values of one argument that a condition accepts, in one of three
// forms: an interval, all but one value, or those with given bits.
type set struct {
	form   setForm
	lo, hi uint64 // interval
	value  uint64 // but, bits
	mask   uint64 // bits
}

type setForm int

const (
	none     setForm = iota // never, or not understood
	interval                // lo <= x <= hi
	but                     // x != value
	bits                    // x & mask == value
)

// setOf reads a condition as libseccomp compiles it: on narrow architectures
// it compares the low 32 bits alone, and bits of a masked value outside the
// mask are dropped (libseccomp src/db.c, _db_node_mask_fixup).
func setOf(a Arg, narrow bool) set {
	top, v, two := uint64(math.MaxUint64), a.Value, a.ValueTwo
	if narrow {
		top, v, two = math.MaxUint32, v&math.MaxUint32, two&math.MaxUint32
	}
	switch a.Op {
	case OpEqualTo:
		return set{form: interval, lo: v, hi: v}
	case OpNotEqual:
		return set{form: but, value: v}
	case OpLessThan:
		if v == 0 {
			return set{}
		}
		return set{form: interval, hi: v - 1}
	case OpLessEqual:
		return set{form: interval, hi: v}
	case OpGreaterEqual:
		return set{form: interval, lo: v, hi: top}
	case OpGreaterThan:
		if v == top {
			return set{}
		}
		return set{form: interval, lo: v + 1, hi: top}
	case OpMaskedEqual:
		if v == top {
			return set{form: interval, lo: two, hi: two}
		}
		if v == 0 {
			return set{form: interval, hi: top}
		}
		return set{form: bits, mask: v, value: two & v}
	default:
		return set{}
	}
}

// within reports whether every value of s surely is one of t. It may say no
// where it cannot tell, never yes.
func (s set) within(t set) bool {
	switch {
	case s.form == none || t.form == none:
		return false
	case s == t:
		return true
	case t.form == interval:
		lo, hi, ok := s.span()
		return ok && t.lo <= lo && hi <= t.hi
	case t.form == but:
		return !s.holds(t.value)
	case s.form == bits:
		return t.mask&^s.mask == 0 && s.value&t.mask == t.value
	default:
		return s.form == interval && s.lo == s.hi && s.lo&t.mask == t.value
	}
}

// span is the least interval around s, where that says more than "anything".
func (s set) span() (lo, hi uint64, ok bool) {
	switch s.form {
	case interval:
		return s.lo, s.hi, true
	case bits:
		return s.value, s.value | ^s.mask, true
	default:
		return 0, math.MaxUint64, s.form == but
	}
}

func (s set) holds(x uint64) bool {
	switch s.form {
	case interval:
		return s.lo <= x && x <= s.hi
	case but:
		return x != s.value
	case bits:
		return x&s.mask == s.value
	default:
		return false
	}
}

// always reports whether a condition holds for every value.
func (s set) always(narrow bool) bool {
	top := uint64(math.MaxUint64)
	if narrow {
		top = math.MaxUint32
	}
	return s.form == interval && s.lo == 0 && s.hi >= top
}

// implies reports whether c surely holds only where d does.
func (c conjunction) implies(d conjunction, narrow bool) bool {
	for _, want := range d {
		target := setOf(want, narrow)
		if target.always(narrow) {
			continue
		}
		met := slices.ContainsFunc(c, func(a Arg) bool {
			return a.Index == want.Index && setOf(a, narrow).within(target)
		})
		if !met {
			return false
		}
	}
	return true
}

// String renders c as people write conditions.
func (c conjunction) String() string {
	if len(c) == 0 {
		return "always"
	}
	parts := make([]string, 0, len(c))
	for _, a := range c {
		parts = append(parts, a.String())
	}
	slices.Sort(parts)
	return strings.Join(parts, " and ")
}

// String renders a condition, with equal texts for equal meanings of 64 bits.
func (a Arg) String() string {
	s := setOf(a, false)
	arg := fmt.Sprintf("arg%d", a.Index)
	switch {
	case s.form == none:
		return arg + " never matches"
	case s.always(false):
		return arg + " is anything"
	case s.form == but:
		return fmt.Sprintf("%s != %d", arg, s.value)
	case s.form == bits:
		return fmt.Sprintf("%s & %#x == %#x", arg, s.mask, s.value)
	case s.lo == s.hi:
		return fmt.Sprintf("%s == %d", arg, s.lo)
	case s.lo == 0:
		return fmt.Sprintf("%s <= %d", arg, s.hi)
	default:
		return fmt.Sprintf("%s >= %d", arg, s.lo)
	}
}
