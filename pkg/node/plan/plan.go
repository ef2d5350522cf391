package plan

import (
	"maps"
	"slices"
	"time"

	"github.com/confine-dev/confine/pkg/node/journal"
	"github.com/confine-dev/confine/pkg/node/unit"
	"github.com/confine-dev/confine/pkg/profile"
)

// Target is what one owner shall have: an artifact that was verified.
type Target struct {
	Source unit.Source
	// Files by kind.
	Files map[string][]unit.File
	// RequireAll is set where all kinds are installed or none.
	RequireAll bool
}

// Input is all that a plan depends on.
type Input struct {
	Now time.Time
	// Delay is how long what nobody wants stays.
	Delay time.Duration
	// Complete is false where something that is wanted could not be read: then
	// nothing is removed.
	Complete bool
	// Released reports whether what is due at a time may go then. nil means
	// that it always may.
	Released func(slot journal.Key, due time.Time) bool
	// Wanted holds every name somebody wants. A nil target is wanted and not
	// verified now: what is there stays.
	Wanted map[profile.Owner]*Target
	// Slots are what is installed.
	Slots []journal.Slot
	// Hosts say by kind whether this node can install it; an error says why not.
	Hosts map[string]error
	// NoHost makes the error for a kind that no host serves.
	NoHost func(kind string) error
}

// Verb is what is done with a slot.
type Verb string

// The verbs.
const (
	Install     Verb = "install"      // bring Revision into force
	Keep        Verb = "keep"         // leave it, or repair it
	RemoveLater Verb = "remove-later" // nobody wants it; it goes at Due
	RemoveNow   Verb = "remove-now"   // nobody wanted it for the whole delay
)

// Action is what is done with one slot.
type Action struct {
	Verb Verb
	Key  journal.Key
	// Revision is what Install brings into force.
	Revision unit.Revision
	// Due is when RemoveLater removes.
	Due time.Time
}

// Plan is what is to be done, and what cannot be.
type Plan struct {
	// Actions in the order of their keys, one a slot.
	Actions []Action
	// Unsupported are the wanted kinds this node does not install, and why.
	Unsupported map[profile.Owner]map[string]error
}

// Make plans one pass.
func Make(in Input) Plan {
	p := planner{Input: in, slots: map[journal.Key]journal.Slot{}, plan: Plan{Unsupported: map[profile.Owner]map[string]error{}}}
	owned := map[profile.Owner][]journal.Slot{}
	for _, s := range in.Slots {
		p.slots[s.Key] = s
		owned[s.Owner] = append(owned[s.Owner], s)
	}
	for owner, target := range in.Wanted {
		switch {
		case target == nil:
			p.keepAll(owned[owner])
		default:
			p.follow(owner, target, owned[owner])
		}
	}
	for owner, slots := range owned {
		if _, wanted := in.Wanted[owner]; !wanted {
			for _, s := range slots {
				p.retire(s)
			}
		}
	}
	slices.SortFunc(p.plan.Actions, func(a, b Action) int { return a.Key.Compare(b.Key) })
	return p.plan
}

type planner struct {
	Input
	slots map[journal.Key]journal.Slot
	plan  Plan
}

func (p *planner) add(a Action) { p.plan.Actions = append(p.plan.Actions, a) }

func (p *planner) keepAll(slots []journal.Slot) {
	for _, s := range slots {
		p.add(Action{Verb: Keep, Key: s.Key})
	}
}

// follow brings an owner to its target, kind by kind.
func (p *planner) follow(owner profile.Owner, target *Target, slots []journal.Slot) {
	unsupported := p.unsupported(target)
	if len(unsupported) > 0 {
		p.plan.Unsupported[owner] = unsupported
	}
	if target.RequireAll && len(unsupported) > 0 {
		p.keepAll(slots)
		return
	}
	settled := true
	for _, kind := range slices.Sorted(maps.Keys(target.Files)) {
		key := journal.Key{Kind: kind, Owner: owner}
		if unsupported[kind] == nil {
			settled = p.bring(key, target) && settled
		} else if _, there := p.slots[key]; there {
			p.add(Action{Verb: Keep, Key: key})
		}
	}
	for _, s := range slots {
		if _, has := target.Files[s.Kind]; has {
			continue
		}
		// A kind that the artifact no longer has goes only after what replaces
		// it is in force.
		if settled {
			p.retire(s)
		} else {
			p.add(Action{Verb: Keep, Key: s.Key})
		}
	}
}

func (p *planner) unsupported(target *Target) map[string]error {
	found := map[string]error{}
	for kind := range target.Files {
		why, served := p.Hosts[kind]
		switch {
		case !served:
			found[kind] = p.NoHost(kind)
		case why != nil:
			found[kind] = why
		}
	}
	return found
}

// bring installs the target's files of one kind, and reports whether they are
// in force already.
func (p *planner) bring(key journal.Key, target *Target) bool {
	slot := p.slots[key]
	if slot.Next != nil {
		// It is not known yet which of both revisions is in force.
		p.add(Action{Verb: Keep, Key: key})
		return false
	}
	next := unit.Follow(slot.Current, target.Source, target.Files[key.Kind], p.terms(key))
	if slot.Current != nil && slot.Current.Equal(next) {
		p.add(Action{Verb: Keep, Key: key})
		return true
	}
	p.add(Action{Verb: Install, Key: key, Revision: next})
	return slot.Current != nil && slot.Current.Source == target.Source
}

// retire removes a slot nobody wants, after the delay.
func (p *planner) retire(s journal.Slot) {
	terms := p.terms(s.Key)
	due := terms.Clamp(s.RemoveAt)
	switch {
	case !p.Complete:
		// It may be wanted by what could not be read. A removal that waits goes
		// on waiting.
		p.add(Action{Verb: RemoveLater, Key: s.Key, Due: s.RemoveAt})
	case s.RemoveAt.IsZero():
		p.add(Action{Verb: RemoveLater, Key: s.Key, Due: terms.Due()})
	case !terms.Over(due):
		p.add(Action{Verb: RemoveLater, Key: s.Key, Due: due})
	default:
		p.add(Action{Verb: RemoveNow, Key: s.Key})
	}
}

// terms say when what a slot drops goes: never while something that is wanted
// could not be read.
func (p *planner) terms(key journal.Key) unit.Terms {
	terms := unit.Terms{Now: p.Now, Delay: p.Delay}
	switch {
	case !p.Complete:
		terms.Goes = func(time.Time) bool { return false }
	case p.Released != nil:
		terms.Goes = func(due time.Time) bool { return p.Released(key, due) }
	}
	return terms
}
