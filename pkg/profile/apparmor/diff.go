package apparmor

import (
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/profile/apparmor/policy"
)

// Diff returns what updated allows more, less or otherwise than old, by profile
// and rule: first what the whole text states, then the profiles by name. The
// order of rules means nothing, nor does how access to one path is spread over
// rules. Rules are compared as they are written: a glob that covers another is
// a change. One profile more or less is one change.
func (*Kind) Diff(old, updated profile.Profile) ([]profile.Change, error) {
	a, okOld := old.(*Profile)
	b, okNew := updated.(*Profile)
	if !okOld || !okNew || a == nil || b == nil {
		return nil, errors.New("only two AppArmor profiles can be compared")
	}
	d := &differ{}
	d.effects("", statementsOf(a.Policy), statementsOf(b.Policy))
	was, is := profilesOf(a.Policy), profilesOf(b.Policy)
	for _, name := range either(was, is) {
		x, y := was[name], is[name]
		switch {
		case x == nil:
			d.add(profile.Gained, "profile "+name, "", y.Header())
		case y == nil:
			d.add(profile.Lost, "profile "+name, x.Header(), "")
		default:
			d.effects("profile "+name+": ", effectsOf(x), effectsOf(y))
		}
	}
	return d.changes, nil
}

type differ struct {
	changes []profile.Change
}

func (d *differ) add(sense profile.ChangeSense, subject, old, updated string) {
	d.changes = append(d.changes, profile.Change{Sense: sense, Subject: subject, Old: old, New: updated})
}

// effect is what a text says of one subject.
type effect struct {
	// gives and takes are the items allowed and denied, such as letters of access.
	gives, takes map[string]bool
	// other is what neither gives nor takes.
	other map[string]bool
}

func (e *effect) put(where *map[string]bool, items ...string) {
	if *where == nil {
		*where = map[string]bool{}
	}
	for _, item := range items {
		(*where)[item] = true
	}
}

func (e *effect) String() string {
	if e == nil {
		return ""
	}
	var parts []string
	for _, part := range []struct {
		word  string
		items map[string]bool
	}{{"allow", e.gives}, {"deny", e.takes}, {"", e.other}} {
		if len(part.items) > 0 {
			items := strings.Join(slices.Sorted(maps.Keys(part.items)), " ")
			parts = append(parts, strings.TrimSpace(part.word+" "+items))
		}
	}
	return strings.Join(parts, "; ")
}

func (d *differ) effects(prefix string, was, is map[string]*effect) {
	for _, subject := range either(was, is) {
		x, y := was[subject], is[subject]
		if x.String() != y.String() {
			d.add(sense(x, y), prefix+subject, x.String(), y.String())
		}
	}
}

// sense says whether the step from x to y only adds or only takes away.
func sense(x, y *effect) profile.ChangeSense {
	if x == nil {
		x = &effect{}
	}
	if y == nil {
		y = &effect{}
	}
	more := within(x.gives, y.gives) && within(y.takes, x.takes)
	less := within(y.gives, x.gives) && within(x.takes, y.takes)
	switch {
	case more == less: // the same, or neither
		return profile.Altered
	case more:
		return profile.Gained
	default:
		return profile.Lost
	}
}

func within(some, all map[string]bool) bool {
	for item := range some {
		if !all[item] {
			return false
		}
	}
	return true
}

func either[V any](a, b map[string]V) []string {
	all := maps.Clone(a)
	if all == nil {
		all = map[string]V{}
	}
	maps.Copy(all, b)
	return slices.Sorted(maps.Keys(all))
}

func profilesOf(f *policy.File) map[string]*policy.Profile {
	all := map[string]*policy.Profile{}
	walk(f, func(name string, p *policy.Profile) {
		if p.When != "" {
			name += " (" + p.When + ")"
		}
		all[name] = p
	})
	return all
}

func subjectOf(all map[string]*effect, name string) *effect {
	if all[name] == nil {
		all[name] = &effect{}
	}
	return all[name]
}

func statementsOf(f *policy.File) map[string]*effect {
	all := map[string]*effect{}
	includesOf(all, f.Includes, f.ABIs)
	for _, a := range f.Variables {
		e := subjectOf(all, "variable "+a.Name)
		e.put(&e.other, a.String())
	}
	for _, a := range f.Aliases {
		e := subjectOf(all, "alias "+a.From)
		e.put(&e.other, a.To)
	}
	return all
}

func includesOf(all map[string]*effect, includes []policy.Include, abis []policy.ABI) {
	for _, in := range includes {
		e := subjectOf(all, in.String())
		e.put(&e.gives, "its rules")
	}
	for i, abi := range abis {
		if i == 0 { // later ones change nothing
			e := subjectOf(all, "abi")
			e.put(&e.other, abi.Path)
		}
	}
}

// effectsOf maps each subject of a profile to what its rules say of it.
func effectsOf(p *policy.Profile) map[string]*effect {
	all := map[string]*effect{}
	includesOf(all, p.Includes, p.ABIs)
	if p.Attachment != "" || len(p.Xattrs) > 0 {
		e := subjectOf(all, "attachment")
		e.put(&e.other, p.Attachment)
		for _, x := range p.Xattrs {
			e.put(&e.other, x.String())
		}
	}
	for _, f := range p.Flags {
		e := subjectOf(all, "flag "+f.Name)
		switch f.Name {
		case "complain", "unconfined", "default_allow", "prompt", "attach_disconnected", "attach_disconnected.path", "delegate_deleted":
			e.put(&e.gives, f.String())
		default:
			e.put(&e.other, f.String())
		}
	}
	for _, r := range p.Rules {
		ruleEffect(all, r)
	}
	return all
}

// ruleEffect adds one rule to the subjects it is about.
func ruleEffect(all map[string]*effect, r *policy.Rule) {
	about := ""
	for _, qualifier := range []string{r.Priority, r.Owner} {
		if qualifier != "" {
			about += qualifier + " "
		}
	}
	when := ""
	if r.When != "" {
		when = " (" + r.When + ")"
	}
	put := func(subject string, items ...string) {
		e := subjectOf(all, about+subject+when)
		where := &e.gives
		switch {
		case r.Denies():
			where = &e.takes
		case r.Class == policy.Rlimit:
			where = &e.other
		case r.Mode == "prompt":
			items = append(items, "prompt")
		}
		e.put(where, items...)
		if r.Audit {
			e.put(&e.other, "audit")
		}
	}
	switch {
	case r.Class == policy.FileClass && !r.File.Bare:
		put(r.File.Path, fileItems(r.File)...)
	case r.Class == policy.Capability && len(r.Terms.Words) > 0:
		for _, name := range r.Terms.Words {
			put("capability "+name, "it")
		}
	case r.Class == policy.Rlimit:
		put("rlimit "+r.Terms.Words[0], strings.Join(r.Terms.Words[1:], " "))
	default:
		put(r.Object(), "it")
	}
}

// fileItems are the single things a file rule is about.
func fileItems(f *policy.FileRule) []string {
	items := strings.Split(f.Access, "")
	if f.Exec != "" {
		items = append(items, strings.TrimSpace(f.Safety+" "+f.Exec))
	}
	if f.Subset {
		items = append(items, "subset")
	}
	if f.Target != "" {
		items = append(items, "-> "+f.Target)
	}
	return items
}
