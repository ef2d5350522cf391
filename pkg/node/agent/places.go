package agent

import (
	"github.com/confine-dev/confine/pkg/node/journal"
	"github.com/confine-dev/confine/pkg/reason"
)

// maxOfNamespace bounds the slots of one namespace and kind in a cluster, those
// that wait for their removal among them. A node is assigned 250 profiles at
// most; who makes and deletes others as fast as nodes follow would otherwise
// fill the journal within the removal delay, and with it everybody's place.
const maxOfNamespace = 1000

// places are the slots that are left in the journal.
type places struct {
	journal *journal.Journal
	taken   map[namespaced]int
	bounded bool
	all     int
}

type namespaced struct{ kind, namespace string }

func (a *Agent) places() *places {
	p := &places{journal: a.journal, taken: map[namespaced]int{}, bounded: a.inputs.desired.NeedsRelease, all: a.journal.Len()}
	if !p.bounded {
		return p
	}
	for _, slot := range a.journal.Slots() {
		p.taken[namespaced{slot.Kind, slot.Owner.Namespace}]++
	}
	return p
}

// take takes a place where key has none yet. The error is NoSpace.
func (p *places) take(key journal.Key) error {
	if _, has := p.journal.Get(key); has {
		return nil
	}
	of := namespaced{key.Kind, key.Owner.Namespace}
	switch {
	case p.bounded && p.taken[of] >= maxOfNamespace:
		return reason.New(reason.NoSpace, key.String(), "this node has %d %s profiles of namespace %s already", p.taken[of], key.Kind, key.Owner.Namespace).
			WithAdvice("wait until those that nobody wants any more are removed")
	case p.all >= journal.MaxSlots:
		return reason.New(reason.NoSpace, key.String(), "this node has %d profiles already", p.all).
			WithAdvice("wait until those that nobody wants any more are removed")
	}
	p.taken[of]++
	p.all++
	return nil
}
