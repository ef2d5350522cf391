package selinux

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/confine-dev/confine/pkg/reason"
)

// Rehearsal is a policy as small as it can be around some profiles, in two
// forms that a compiler makes the same policy of if it reads the profiles as
// Confine does: one holds them as they were signed, the other has what Confine
// approved of, written out with nothing that needs to be looked up.
type Rehearsal struct {
	// Base declares what the profiles name of the host: templates, types, classes
	// and their permissions. The profiles' own text goes behind it.
	Base []byte
	// Flat is the other form, whole: no block, no template, each name in full. It is
	// to be compiled with dots as part of names (secilc --qualified-names).
	Flat []byte
	// Types are all types that the policy has, sorted.
	Types []string
}

// The rehearsed policy's own names have hyphens, which plainName never has.
const (
	rehearsalType = "confine-t"
	// rehearsalHead is what every policy has to have: a role, a user, a label for
	// the kernel, and one rule.
	rehearsalHead = `(handleunknown deny) (mls false)
(sid kernel) (sidorder (kernel))
(sensitivity s0) (sensitivityorder (s0)) (level confine-low (s0)) (levelrange confine-range (confine-low confine-low))
(user confine-u) (role confine-r) (type confine-t)
(userrole confine-u confine-r) (userlevel confine-u confine-low) (userrange confine-u confine-range) (roletype confine-r confine-t)
(context confine-context (confine-u confine-r confine-t confine-range)) (sidcontext kernel confine-context)
(class confine-class (confine-permission)) (allow confine-t self (confine-class (confine-permission)))
`
)

// Rehearse makes the policies for profiles that Constrain admits under some
// policy. Others are refused as ProfileInvalid: there is nothing to compare.
func Rehearse(profiles ...*Profile) (Rehearsal, error) {
	n := needs{templates: map[string]bool{}, types: map[string]bool{}, classes: map[string]map[string]bool{}}
	for _, p := range profiles {
		if p.model.block == "" || len(p.model.others) > 0 || p.model.templates[baseTemplate] == nil {
			return Rehearsal{}, reason.New(reason.ProfileInvalid, p.file, "it is more, or less, than one block of templates and rules")
		}
		n.add(p)
	}
	shared := n.declarations()
	var base, flat bytes.Buffer
	base.WriteString(shared)
	for _, name := range keys(n.templates) {
		own := ""
		if name == baseTemplate {
			own = " (type " + processName + ") (type " + socketName + ")"
		}
		fmt.Fprintf(&base, "(block %s (blockabstract %s)%s)\n", name, name, own)
	}
	flat.WriteString(shared)
	types := append(keys(n.types), rehearsalType)
	for _, p := range profiles {
		p.writeFlat(&flat)
		types = append(types, ProcessType(p.model.block), p.model.block+"."+socketName)
	}
	slices.Sort(types)
	return Rehearsal{Base: base.Bytes(), Flat: flat.Bytes(), Types: types}, nil
}

// needs are what profiles name besides their own types.
type needs struct {
	templates, types map[string]bool
	classes          map[string]map[string]bool // permissions by class
}

func (n needs) add(p *Profile) {
	for name := range p.model.templates {
		n.templates[name] = true
	}
	for at, permissions := range p.model.rules {
		if !ownTarget(at.target) {
			n.types[at.target] = true
		}
		if n.classes[at.class] == nil {
			n.classes[at.class] = map[string]bool{}
		}
		for permission := range permissions {
			n.classes[at.class][permission] = true
		}
	}
}

func ownTarget(name string) bool {
	return name == "self" || name == processName || name == socketName
}

// declarations are what both forms have.
func (n needs) declarations() string {
	var b strings.Builder
	b.WriteString(rehearsalHead)
	order := []string{"confine-class"}
	for _, class := range keys(n.classes) {
		fmt.Fprintf(&b, "(class %s (%s))\n", class, strings.Join(keys(n.classes[class]), " "))
		order = append(order, class)
	}
	fmt.Fprintf(&b, "(classorder (%s))\n", strings.Join(order, " "))
	for _, name := range keys(n.types) {
		fmt.Fprintf(&b, "(type %s)\n", name)
	}
	return b.String()
}

// writeFlat writes what Confine approved of, from its own model alone.
func (p *Profile) writeFlat(b *bytes.Buffer) {
	process, socket := ProcessType(p.model.block), p.model.block+"."+socketName
	fmt.Fprintf(b, "(type %s)\n(type %s)\n", process, socket)
	for _, at := range accesses(p, p) {
		target := at.target
		switch target {
		case "self", processName:
			target = process
		case socketName:
			target = socket
		}
		fmt.Fprintf(b, "(allow %s %s (%s (%s)))\n", process, target, at.class, strings.Join(keys(p.model.rules[at]), " "))
	}
}
