package glob

import (
	"encoding/binary"
	"slices"
)

// Finding is the answer of Search.
type Finding string

// The answers of Search.
const (
	None  Finding = "none"
	Found Finding = "found"
	// Unknown means that the budget ended first: a caller takes it for Found.
	Unknown Finding = "unknown"
)

// Search looks for a path that allowed and among match and except does not.
// Paths never hold two slashes in a row. budget is how many states it may
// visit; what it spent is taken off.
func Search(allowed, among, except *Set, budget *int) (path string, found Finding) {
	*budget -= allowed.Size() + among.Size() + except.Size()
	classes, samples := classesOf(budget, allowed, among, except)
	sides := [3]*lazy{newLazy(allowed, budget), newLazy(among, budget), newLazy(except, budget)}
	type triple struct {
		states  [3]int
		slashed bool
	}
	type step struct {
		from int
		by   byte
	}
	first := triple{states: [3]int{sides[0].begin(), sides[1].begin(), sides[2].begin()}}
	queue, came, seen := []triple{first}, []step{{from: -1}}, map[triple]bool{first: true}
	for i := 0; i < len(queue); i++ {
		at := queue[i].states
		if sides[0].accepts[at[0]] && sides[1].accepts[at[1]] && !sides[2].accepts[at[2]] {
			var back []byte
			for j := i; came[j].from >= 0; j = came[j].from {
				back = append(back, came[j].by)
			}
			slices.Reverse(back)
			return string(back), Found
		}
		for class := range classes {
			if *budget -= 3; *budget < 0 {
				return "", Unknown
			}
			next := triple{slashed: samples[class] == '/'}
			for k, side := range sides {
				next.states[k] = side.step(at[k], class, samples[class])
			}
			if next.slashed && queue[i].slashed || next.states[0] == dead || next.states[1] == dead || seen[next] {
				continue
			}
			seen[next] = true
			queue, came = append(queue, next), append(came, step{i, samples[class]})
		}
	}
	if *budget < 0 {
		return "", Unknown
	}
	return "", None
}

// classesOf parts the byte values into classes that no edge tells apart, and
// returns how many there are with one byte of each, a readable one where it can.
func classesOf(budget *int, sets ...*Set) (int, []byte) {
	var class [256]int
	count, done := 1, map[bytes]bool{}
	var slash bytes
	slash.add('/')
	alone := &Set{nodes: []node{{on: slash, reads: true}}}
	for _, s := range append(sets, alone) {
		for _, n := range s.nodes {
			if !n.reads || done[n.on] {
				continue
			}
			done[n.on] = true
			if *budget -= 256; *budget < 0 {
				break
			}
			renamed := map[[2]int]int{}
			for c := range 256 {
				key := [2]int{class[c], 0}
				if n.on.has(byte(c)) {
					key[1] = 1
				}
				id, ok := renamed[key]
				if !ok {
					id = len(renamed)
					renamed[key] = id
				}
				class[c] = id
			}
			count = len(renamed)
		}
	}
	samples := make([]byte, count)
	for _, c := range append([]byte("xabcdefghijklmnopqrstuvwyz0123456789_-./"), every()...) {
		if samples[class[c]] == 0 {
			samples[class[c]] = c
		}
	}
	return count, samples
}

func every() []byte {
	all := make([]byte, 0, 256)
	for c := 255; c >= 0; c-- {
		all = append(all, byte(c))
	}
	return all
}

// dead is the state that matches nothing more.
const dead = 0

// lazy is a deterministic automaton for a Set, made as it is walked.
type lazy struct {
	set     *Set
	budget  *int
	ids     map[string]int
	states  [][]int
	accepts []bool
	steps   []map[int]int
}

func newLazy(s *Set, budget *int) *lazy {
	l := &lazy{set: s, budget: budget, ids: map[string]int{}}
	l.id(nil)
	return l
}

func (l *lazy) begin() int { return l.id(l.closure(l.set.starts)) }

// closure returns the states that are reached by reading nothing, sorted.
func (l *lazy) closure(from []int) []int {
	seen := map[int]bool{}
	stack := slices.Clone(from)
	var out []int
	for len(stack) > 0 {
		n := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		if seen[n] {
			continue
		}
		if *l.budget--; *l.budget < 0 {
			return nil
		}
		seen[n] = true
		if l.set.nodes[n].reads || l.set.accept[n] {
			out = append(out, n)
		}
		stack = append(stack, l.set.nodes[n].nothing...)
	}
	slices.Sort(out)
	return out
}

func (l *lazy) id(states []int) int {
	key := make([]byte, 0, 4*len(states))
	for _, n := range states {
		key = binary.BigEndian.AppendUint32(key, uint32(n)) //nolint:gosec // a bounded index
	}
	if id, ok := l.ids[string(key)]; ok {
		return id
	}
	l.ids[string(key)] = len(l.states)
	l.states = append(l.states, states)
	l.accepts = append(l.accepts, slices.ContainsFunc(states, func(n int) bool { return l.set.accept[n] }))
	l.steps = append(l.steps, map[int]int{})
	return len(l.states) - 1
}

func (l *lazy) step(id, class int, by byte) int {
	if next, ok := l.steps[id][class]; ok {
		return next
	}
	var to []int
	for _, n := range l.states[id] {
		*l.budget--
		if l.set.nodes[n].reads && l.set.nodes[n].on.has(by) {
			to = append(to, l.set.nodes[n].next)
		}
	}
	next := l.id(l.closure(to))
	l.steps[id][class] = next
	return next
}
