package seccomp

import (
	"fmt"
	"slices"

	"github.com/confine-dev/confine/pkg/profile"
)

// maxFindings bounds what one profile can make anybody read.
const maxFindings = 256

// maxHints bounds the work of looking for what unknown names meant.
const maxHints = 64

// review collects what a reviewer should see though p is valid.
func (k *Kind) review(p *Profile) []profile.Finding {
	r := &reviewer{kind: k, p: p}
	r.head()
	r.architectures()
	for i := range p.Syscalls {
		r.entry(&p.Syscalls[i])
	}
	r.repeats()
	r.starts()
	if r.more > 0 {
		r.found = append(r.found, profile.Finding{Message: fmt.Sprintf("and %d more", r.more)})
	}
	return r.found
}

type reviewer struct {
	kind  *Kind
	p     *Profile
	found []profile.Finding
	more  int // beyond maxFindings
	hints int // looked up
}

func (r *reviewer) find(position, format string, args ...any) {
	if len(r.found) >= maxFindings {
		r.more++
		return
	}
	r.found = append(r.found, profile.Finding{Position: position, Message: fmt.Sprintf(format, args...)})
}

func (r *reviewer) head() {
	if !r.p.DefaultAction.Denies() {
		r.find("", "the default action %s lets every syscall through that no rule names, also those of kernels to come", r.p.DefaultAction)
	}
	if slices.Contains(r.p.Flags, FlagSpecAllow) {
		r.find("", "%s leaves the mitigation of Speculative Store Bypass off", FlagSpecAllow)
	}
	if r.p.ListenerPath != "" {
		r.find("", "listenerPath hands syscalls to an agent; no trust policy admits that")
	}
}

func (r *reviewer) architectures() {
	named := r.p.Architectures
	if len(named) == 0 {
		r.find("", "no architectures are named: the profile applies to each node's own one alone, and kills programs of its others, such as 32-bit ones")
	}
	var little, big bool
	for i, a := range named {
		if slices.Contains(named[:i], a) {
			r.find("", "the architecture %s stands twice", a)
		}
		for _, f := range archTable() {
			if f.arch != a {
				continue
			}
			little, big = little || !f.big, big || f.big
			if !f.runc {
				r.find("", "runc does not know the architecture %s and refuses to start containers", a)
			}
		}
	}
	if little && big {
		r.find("", "big-endian and little-endian architectures stand together: no runtime can load that")
	}
}

func (r *reviewer) entry(s *Syscall) {
	if s.Action == ActNotify || s.Action == ActTrace {
		r.find(s.position, "%s leaves the decision to another process; no trust policy admits that", s.Action)
	}
	if sameEffect(s.Action, s.ErrnoRet, r.p.DefaultAction, r.p.DefaultErrnoRet) {
		r.find(s.position, "the entry does what the default action does: runtimes skip it")
	}
	for i, name := range s.Names {
		if !r.kind.knows(name) {
			r.unknown(s.PositionOf(i), name)
		}
		if !s.Action.Denies() {
			r.reach(s.PositionOf(i), name)
		}
	}
	r.arguments(s)
}

func (r *reviewer) unknown(position, name string) {
	hint := ""
	if r.hints++; r.hints <= maxHints {
		hint = r.kind.meant(name)
	}
	r.find(position, "%s is no known syscall%s; runtimes skip it with no more than a debug message", name, hint)
}

// reach points at syscalls through which others pass unfiltered.
func (r *reviewer) reach(position, name string) {
	switch name {
	case "io_uring_setup":
		r.find(position, "io_uring_setup is allowed: what is submitted to a ring never passes the filter")
	case "clone3":
		r.find(position, "clone3 is allowed: its flags lie behind a pointer, so that new namespaces cannot be filtered; errno 38 makes programs use clone")
	}
}

func (r *reviewer) arguments(s *Syscall) {
	if len(s.Args) > 1 && len(conjunctions(s.Args)) > 1 {
		r.find(s.position, "an argument has several conditions: runc takes each condition of the entry as a rule of its own, so that one match is enough")
	}
	for _, a := range s.Args {
		values := setOf(a, false)
		switch {
		case values.form == none:
			r.find(s.position, "the condition %s %s %d never holds", argName(a), a.Op, a.Value)
		case values.always(false):
			r.find(s.position, "the condition %s %s %d always holds", argName(a), a.Op, a.Value)
		}
		switch {
		case a.Op == OpMaskedEqual && a.ValueTwo&^a.Value != 0:
			r.find(s.position, "valueTwo of %s has bits outside the mask: libseccomp drops them", argName(a))
		case a.Op != OpMaskedEqual && a.ValueTwo != 0:
			r.find(s.position, "valueTwo of %s means nothing beside %s", argName(a), a.Op)
		}
	}
}

func argName(a Arg) string { return fmt.Sprintf("arg%d", a.Index) }

func sameEffect(a Action, errnoA *uint32, b Action, errnoB *uint32) bool {
	return effectOf(a, errnoA) == effectOf(b, errnoB)
}

// seenRule is a rule met before, for one name.
type seenRule struct {
	effect, position string
}

// repeats points at names that several rules are about.
func (r *reviewer) repeats() {
	byCondition := map[[2]string]seenRule{} // name and condition
	conditional := map[string]string{}      // name to the position of its first such rule
	for i := range r.p.Syscalls {
		s := &r.p.Syscalls[i]
		effect := effectOf(s.Action, s.ErrnoRet)
		for _, c := range conjunctions(s.Args) {
			when := c.String()
			for j, name := range s.Names {
				r.repeat(name, when, seenRule{effect, s.PositionOf(j)}, byCondition, conditional)
			}
		}
	}
}

func (r *reviewer) repeat(name, when string, now seenRule, byCondition map[[2]string]seenRule, conditional map[string]string) {
	before, twice := byCondition[[2]string{name, when}]
	switch {
	case twice && before.effect == now.effect:
		r.find(now.position, "the rule for %s stands at %s already", name, before.position)
	case twice:
		r.find(now.position, "%s gets %s here and %s at %s: which wins is up to libseccomp",
			name, now.effect, before.effect, before.position)
	default:
		byCondition[[2]string{name, when}] = now
	}
	if always, ok := byCondition[[2]string{name, unconditional}]; ok && when != unconditional {
		r.find(now.position, "the rule for %s without conditions at %s may decide alone", name, always.position)
	}
	if first, ok := conditional[name]; ok && when == unconditional && !twice {
		r.find(now.position, "this rule for %s without conditions may decide alone, not the one at %s", name, first)
	}
	if _, ok := conditional[name]; !ok && when != unconditional {
		conditional[name] = now.position
	}
}

// starts points out that nothing starts without execve.
func (r *reviewer) starts() {
	if !r.p.MayAllow("execve") {
		r.find("", "execve is not allowed: no container can start with this profile")
	}
}
