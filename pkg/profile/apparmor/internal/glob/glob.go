// Package glob compares AppArmor globs: it finds a path that one allows, that
// is among others, and that none of a third kind takes away.
package glob

import "strings"

// Side says on which side a set errs where versions of apparmor_parser differ.
type Side bool

// Of the two sides, Most is for what is allowed and Least for what is denied.
const (
	Most  Side = true  // matches all that the glob may match
	Least Side = false // matches only what the glob surely matches
)

// bytes is a set of byte values.
type bytes [4]uint64

func (b *bytes) add(c byte)      { b[c>>6] |= 1 << (c & 63) }
func (b *bytes) del(c byte)      { b[c>>6] &^= 1 << (c & 63) }
func (b *bytes) has(c byte) bool { return b[c>>6]&(1<<(c&63)) != 0 }

func allButNUL() bytes {
	all := bytes{^uint64(0), ^uint64(0), ^uint64(0), ^uint64(0)}
	all.del(0)
	return all
}

// node has either one edge for bytes of on, or edges for nothing.
type node struct {
	on      bytes
	reads   bool
	next    int
	nothing []int
}

// Set matches the paths of all globs added to it. The zero value matches none.
type Set struct {
	nodes  []node
	starts []int
	accept map[int]bool
}

// Size is how many states the set has.
func (s *Set) Size() int { return len(s.nodes) }

// Add adds a glob whose braces and brackets match.
func (s *Set) Add(glob string, side Side) {
	b := &builder{set: s, glob: glob, side: side}
	start := s.new(node{})
	end := b.sequence(start, false)
	if s.accept == nil {
		s.accept = map[int]bool{}
	}
	s.starts = append(s.starts, start)
	s.accept[end] = true
}

func (s *Set) new(n node) int {
	s.nodes = append(s.nodes, n)
	return len(s.nodes) - 1
}

func (s *Set) link(from, to int) { s.nodes[from].nothing = append(s.nodes[from].nothing, to) }

// read appends an edge for on behind from, and returns where it ends.
func (s *Set) read(from int, on bytes) int {
	end := s.new(node{})
	edge := s.new(node{on: on, reads: true, next: end})
	s.link(from, edge)
	return end
}

type builder struct {
	set  *Set
	glob string
	at   int
	side Side
}

// sequence builds from at to the end of the glob, or of one alternative.
func (b *builder) sequence(from int, inBraces bool) int {
	for b.at < len(b.glob) {
		c := b.glob[b.at]
		switch {
		case inBraces && (c == ',' || c == '}'):
			return from
		case c == '{':
			from = b.alternatives(from)
			continue
		case c == '[':
			from = b.set.read(from, b.class())
			continue
		case c == '*':
			from = b.star(from)
			continue
		case c == '?':
			others := allButNUL()
			others.del('/')
			from = b.set.read(from, others)
		default:
			if c == '\\' && b.at+1 < len(b.glob) {
				b.at++
			}
			var one bytes
			one.add(b.glob[b.at])
			from = b.set.read(from, one)
		}
		b.at++
	}
	return from
}

func (b *builder) alternatives(from int) int {
	end := b.set.new(node{})
	for b.at < len(b.glob) && b.glob[b.at] != '}' {
		b.at++ // the brace or comma before the alternative
		start := b.set.new(node{})
		b.set.link(from, start)
		b.set.link(b.sequence(start, true), end)
	}
	b.at++
	return end
}

// star builds * and **. As a whole part of a path they stand for at least one
// character.
func (b *builder) star(from int) int {
	begin := b.at
	for b.at < len(b.glob) && b.glob[b.at] == '*' {
		b.at++
	}
	others := allButNUL()
	if b.at-begin == 1 {
		others.del('/')
	}
	opens := begin == 0 || strings.IndexByte("/{,}", b.glob[begin-1]) >= 0
	closes := b.at == len(b.glob) || strings.IndexByte("/{,}", b.glob[b.at]) >= 0
	if b.side == Least && opens && closes {
		from = b.set.read(from, others)
	}
	loop := b.set.new(node{})
	b.set.link(from, loop)
	edge := b.set.new(node{on: others, reads: true, next: loop})
	b.set.link(loop, edge)
	return loop
}

// class reads a set of characters from its bracket to the closing one.
func (b *builder) class() bytes {
	b.at++
	negated := b.at < len(b.glob) && b.glob[b.at] == '^'
	if negated {
		b.at++
	}
	var in bytes
	for b.at < len(b.glob) && b.glob[b.at] != ']' {
		low := b.char()
		high := low
		if b.at+1 < len(b.glob) && b.glob[b.at] == '-' && b.glob[b.at+1] != ']' {
			b.at++
			high = b.char()
		}
		for c := int(low); c <= int(high); c++ {
			in.add(byte(c)) //nolint:gosec // at most high, which is a byte
		}
	}
	b.at++
	if negated {
		all := allButNUL()
		for i := range in {
			in[i] = all[i] &^ in[i]
		}
		if b.side == Least {
			in.del('/')
		}
	}
	in.del(0)
	return in
}

func (b *builder) char() byte {
	if b.glob[b.at] == '\\' && b.at+1 < len(b.glob) {
		b.at++
	}
	b.at++
	return b.glob[b.at-1]
}
