// Package policydb reads the names that a compiled SELinux policy declares:
// those of its types, and which of them it does not enforce. It reads the
// kernel's format of version 31 alone, and only as far as the types stand in it
// (https://github.com/SELinuxProject/selinux/blob/main/libsepol/src/write.c).
// A policy with constraints is beyond it.
package policydb

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
)

// Version is the one format that is read; compilers are asked for it.
const Version = 31

const (
	magic       = 0xf97cff8c
	kind        = "SE Linux"
	maxName     = 1024
	nodeBits    = 64 // of one map of a bit set
	typePrimary = 1
	typeGroup   = 2 // an attribute
)

// Policy is what was read.
type Policy struct {
	// Types are all types, sorted. Neither attributes nor aliases are.
	Types []string
	// Attributes and Aliases are the other names that stand for types, sorted.
	Attributes, Aliases []string
	// Permissive are the types for which nothing is enforced, sorted.
	Permissive []string
}

// Read reads data, which may be anything: an error means that it is no policy
// of this version, or more of one than is read here.
func Read(data []byte) (Policy, error) {
	r := &reader{rest: data}
	permissive := r.head()
	r.symbols(r.common)
	r.symbols(r.class)
	r.symbols(r.role)
	var p Policy
	named := map[uint32]string{}
	r.symbols(func() { p.take(r, named) })
	if r.err != nil {
		return Policy{}, r.err
	}
	for _, value := range permissive {
		name, known := named[value]
		if !known {
			return Policy{}, fmt.Errorf("the type %d is permissive, and is none", value)
		}
		p.Permissive = append(p.Permissive, name)
	}
	for _, list := range [][]string{p.Types, p.Attributes, p.Aliases, p.Permissive} {
		slices.Sort(list)
	}
	return p, nil
}

// take reads one type.
func (p *Policy) take(r *reader, named map[uint32]string) {
	length, value, properties := r.number(), r.number(), r.number()
	r.number() // the type that bounds it
	name := r.name(length)
	switch {
	case properties&typeGroup != 0:
		p.Attributes = append(p.Attributes, name)
	case properties&typePrimary == 0:
		p.Aliases = append(p.Aliases, name)
	default:
		p.Types = append(p.Types, name)
		named[value] = name
	}
}

// reader takes numbers and names off the front. After the first error it
// returns nothing but zeros.
type reader struct {
	rest []byte
	err  error
}

var errShort = errors.New("the policy ends too early")

func (r *reader) fail(err error) {
	if r.err == nil {
		r.err, r.rest = err, nil
	}
}

func (r *reader) bytes(n int) []byte {
	if r.err != nil || n > len(r.rest) {
		r.fail(errShort)
		return nil
	}
	taken := r.rest[:n]
	r.rest = r.rest[n:]
	return taken
}

func (r *reader) number() uint32 {
	if b := r.bytes(4); b != nil {
		return binary.LittleEndian.Uint32(b)
	}
	return 0
}

func (r *reader) name(length uint32) string {
	if length == 0 || length > maxName {
		r.fail(fmt.Errorf("a name of %d bytes", length))
		return ""
	}
	return string(r.bytes(int(length)))
}

// want reads a number that can only be this one.
func (r *reader) want(what string, want uint32) {
	if got := r.number(); r.err == nil && got != want {
		r.fail(fmt.Errorf("%s %d, where %d is expected", what, got, want))
	}
}

// head reads what stands before the first table; it returns the numbers of
// types that are permissive.
func (r *reader) head() []uint32 {
	const tables, contexts = 8, 9
	r.want("the number", magic)
	r.want("a length", uint32(len(kind)))
	if got := string(r.bytes(len(kind))); r.err == nil && got != kind {
		r.fail(fmt.Errorf("it is of the kind %q", got))
	}
	r.want("the version", Version)
	r.number() // settings
	r.want("tables", tables)
	r.want("kinds of contexts", contexts)
	r.set() // capabilities of the policy
	return r.set()
}

// set reads a set of numbers.
func (r *reader) set() []uint32 {
	var members []uint32
	r.want("bits in a map", nodeBits)
	r.number() // above the highest
	for count := r.number(); count > 0 && r.err == nil; count-- {
		start, word := r.number(), r.bytes(nodeBits/8)
		if word == nil {
			break
		}
		for bit := range uint32(nodeBits) {
			if word[bit/8]&(1<<(bit%8)) != 0 { // little endian
				members = append(members, start+bit)
			}
		}
	}
	return members
}

// symbols reads one table, each entry by one.
func (r *reader) symbols(one func()) {
	r.number() // how many have a number of their own
	for count := r.number(); count > 0 && r.err == nil; count-- {
		one()
	}
}

func (r *reader) permission() {
	length := r.number()
	r.number()
	r.name(length)
}

func (r *reader) permissions(count uint32) {
	for ; count > 0 && r.err == nil; count-- {
		r.permission()
	}
}

func (r *reader) common() {
	length := r.number()
	r.number()
	r.number()
	count := r.number()
	r.name(length)
	r.permissions(count)
}

func (r *reader) class() {
	length, common := r.number(), r.number()
	r.number()
	r.number()
	count := r.number()
	r.want("constraints", 0)
	r.name(length)
	if common > 0 {
		r.name(common)
	}
	r.permissions(count)
	r.want("constraints of transitions", 0)
	const defaults = 4 // of user, role, range and type
	r.bytes(4 * defaults)
}

func (r *reader) role() {
	length := r.number()
	r.number()
	r.number() // the role that bounds it
	r.name(length)
	r.set() // roles below it
	r.set() // its types
}
