package seccomp

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/confine-dev/confine/pkg/profile"
)

// unconditional is how an empty conjunction reads.
const unconditional = "always"

// defaultErrno is EPERM: what runc takes where no errno is given.
const defaultErrno = 1

// Diff returns what updated allows more, less or otherwise than old. Entry
// order and grouping mean nothing, nor do other spellings of one condition.
// First come changes of the whole profile, then syscalls by name.
func (k *Kind) Diff(old, updated profile.Profile) ([]profile.Change, error) {
	a, okOld := old.(*Profile)
	b, okNew := updated.(*Profile)
	if !okOld || !okNew || a == nil || b == nil {
		return nil, errors.New("only two seccomp profiles can be compared")
	}
	d := &differ{}
	d.defaults(a, b)
	d.list("architecture", texts(a.Architectures), texts(b.Architectures), func(string) bool { return true })
	d.list("flag", texts(a.Flags), texts(b.Flags), func(f string) bool { return Flag(f) == FlagSpecAllow })
	if a.Flags == nil && b.Flags != nil && len(b.Flags) == 0 || b.Flags == nil && a.Flags != nil && len(a.Flags) == 0 {
		d.add(profile.Altered, "flags", flagsText(a.Flags), flagsText(b.Flags))
	}
	d.add(profile.Altered, "listenerPath", a.ListenerPath, b.ListenerPath)
	d.add(profile.Altered, "listenerMetadata", a.ListenerMetadata, b.ListenerMetadata)
	d.syscalls(a, b)
	return d.changes, nil
}

func flagsText(flags []Flag) string {
	if flags == nil {
		return "absent"
	}
	return "empty"
}

type differ struct {
	changes []profile.Change
}

func (d *differ) add(sense profile.ChangeSense, subject, old, updated string) {
	if old != updated {
		d.changes = append(d.changes, profile.Change{Sense: sense, Subject: subject, Old: old, New: updated})
	}
}

func (d *differ) defaults(a, b *Profile) {
	sense := profile.Altered
	switch {
	case a.DefaultAction.Denies() && !b.DefaultAction.Denies():
		sense = profile.Gained
	case !a.DefaultAction.Denies() && b.DefaultAction.Denies():
		sense = profile.Lost
	}
	d.add(sense, "default action", effectOf(a.DefaultAction, a.DefaultErrnoRet), effectOf(b.DefaultAction, b.DefaultErrnoRet))
}

// list compares lists as sets. permits says whether an item allows more.
// Where a list of architectures was or becomes empty, neither is more: then
// the profile is for every node's own architecture instead of the named ones.
func (d *differ) list(subject string, old, updated []string, permits func(string) bool) {
	either := slices.Compact(slices.Sorted(slices.Values(append(slices.Clone(old), updated...))))
	for _, item := range either {
		was, is := slices.Contains(old, item), slices.Contains(updated, item)
		sense := profile.Altered
		if permits(item) && (subject != "architecture" || (len(old) > 0 && len(updated) > 0)) {
			sense = profile.Gained
			if was {
				sense = profile.Lost
			}
		}
		switch {
		case was && !is:
			d.add(sense, subject, item, "")
		case is && !was:
			d.add(sense, subject, "", item)
		}
	}
}

func texts[T ~string](all []T) []string {
	out := make([]string, 0, len(all))
	for _, v := range all {
		out = append(out, string(v))
	}
	return out
}

// effectOf renders an action with the errno it returns.
func effectOf(a Action, errno *uint32) string {
	if !a.takesErrno() {
		if a == ActKill {
			a = ActKillThread // two names of one action
		}
		return string(a)
	}
	value := uint32(defaultErrno)
	if errno != nil {
		value = *errno
	}
	return fmt.Sprintf("%s(%d)", a, value)
}

// kernelRule is one rule for one syscall, as runtimes make them.
type kernelRule struct {
	effect string
	denies bool
	when   string
	conj   conjunction
}

// rulesOf maps each syscall to its rules that are not the default action, in
// a stable order, without those that an unconditional one of the same effect
// makes needless.
func rulesOf(p *Profile) map[string][]kernelRule {
	all := map[string][]kernelRule{}
	for i := range p.Syscalls {
		s := &p.Syscalls[i]
		if sameEffect(s.Action, s.ErrnoRet, p.DefaultAction, p.DefaultErrnoRet) {
			continue
		}
		for _, name := range s.Names {
			for _, c := range conjunctions(s.Args) {
				c = c.meaningful()
				all[name] = append(all[name], kernelRule{effectOf(s.Action, s.ErrnoRet), s.Action.Denies(), c.String(), c})
			}
		}
	}
	for name, rules := range all {
		always := map[string]bool{}
		for _, r := range rules {
			always[r.effect] = always[r.effect] || r.when == unconditional
		}
		rules = slices.DeleteFunc(rules, func(r kernelRule) bool { return r.when != unconditional && always[r.effect] })
		slices.SortFunc(rules, func(x, y kernelRule) int {
			return cmp.Or(cmp.Compare(x.effect, y.effect), cmp.Compare(x.when, y.when))
		})
		all[name] = slices.CompactFunc(rules, func(x, y kernelRule) bool { return x.effect == y.effect && x.when == y.when })
	}
	return all
}

// meaningful drops conditions that always hold, on 64 and on 32 bits.
func (c conjunction) meaningful() conjunction {
	return slices.DeleteFunc(slices.Clone(c), func(a Arg) bool {
		return setOf(a, false).always(false) && setOf(a, true).always(true)
	})
}

func (d *differ) syscalls(a, b *Profile) {
	oldRules, newRules := rulesOf(a), rulesOf(b)
	either := maps.Clone(oldRules)
	maps.Copy(either, newRules)
	for _, name := range slices.Sorted(maps.Keys(either)) {
		was, is := oldRules[name], newRules[name]
		if renderRules(was) == renderRules(is) {
			continue // if the default changed, that is said once
		}
		was, is = orDefault(was, a), orDefault(is, b)
		d.add(sense(was, is, a, b), name, renderRules(was), renderRules(is))
	}
}

func orDefault(rules []kernelRule, p *Profile) []kernelRule {
	if len(rules) > 0 {
		return rules
	}
	return []kernelRule{{effectOf(p.DefaultAction, p.DefaultErrnoRet), p.DefaultAction.Denies(), unconditional, nil}}
}

func renderRules(rules []kernelRule) string {
	parts := make([]string, 0, len(rules))
	for _, r := range rules {
		if r.when == unconditional {
			parts = append(parts, r.effect)
		} else {
			parts = append(parts, r.effect+" when "+r.when)
		}
	}
	return strings.Join(parts, "; ")
}

// reachOf is what a syscall's rules let through: nothing, everything, or what
// the conjunctions allow, or all but what they deny.
type reachOf struct {
	all, nothing   bool
	allows, denies []conjunction
}

func reachOfRules(rules []kernelRule, p *Profile) reachOf {
	var r reachOf
	open := !p.DefaultAction.Denies()
	for _, rule := range rules {
		if rule.when == unconditional {
			open = !rule.denies
		}
	}
	for _, rule := range rules {
		switch {
		case rule.when == unconditional:
		case rule.denies && open:
			r.denies = append(r.denies, rule.conj)
		case !rule.denies && !open:
			r.allows = append(r.allows, rule.conj)
		}
	}
	r.all = open && len(r.denies) == 0
	r.nothing = !open && len(r.allows) == 0
	return r
}

// sense compares what two sets of rules let through; Altered where neither
// surely holds the other.
func sense(was, is []kernelRule, a, b *Profile) profile.ChangeSense {
	x, y := reachOfRules(was, a), reachOfRules(is, b)
	more, less := x.within(y), y.within(x)
	switch {
	case more && !less:
		return profile.Gained
	case less && !more:
		return profile.Lost
	default:
		return profile.Altered
	}
}

// within reports whether x surely lets through no more than y.
func (x reachOf) within(y reachOf) bool {
	switch {
	case x.nothing || y.all:
		return true
	case x.all || y.nothing:
		return false
	case len(x.allows) > 0 && len(y.allows) > 0:
		return allImplied(x.allows, y.allows)
	case len(x.denies) > 0 && len(y.denies) > 0:
		return allImplied(y.denies, x.denies)
	default:
		return false
	}
}

func allImplied(all, by []conjunction) bool {
	for _, c := range all {
		if !slices.ContainsFunc(by, func(d conjunction) bool { return c.implies(d, false) }) {
			return false
		}
	}
	return true
}
