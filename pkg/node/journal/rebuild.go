package journal

import (
	"github.com/confine-dev/confine/pkg/node/unit"
	"github.com/confine-dev/confine/pkg/profile"
)

// Lookup answers what a unit found on a host is, from the store. ok is false
// where the store knows nothing of it.
type Lookup func(kind string, found profile.Installed) (revision unit.Revision, ok bool)

// Adopt brings j in line with what one host says is in force, and reports
// whether that changed anything. It removes nothing:
//   - a slot that was about to change is settled: the host tells which of both
//     revisions is in force;
//   - a unit of which the journal knows nothing gets a slot, so that a lost
//     journal is made anew;
//   - a unit with another digest than its slot says gets what the store knows
//     of it, or a revision of unknown source.
func (j *Journal) Adopt(kind string, installed []profile.Installed, lookup Lookup) bool {
	changed := false
	onHost := map[profile.Owner]bool{}
	for _, found := range installed {
		onHost[found.Owner] = true
		key := Key{Kind: kind, Owner: found.Owner}
		slot, ok := j.Get(key)
		if ok && slot.Next == nil && slot.Current != nil && slot.Current.Digest() == found.Digest {
			continue
		}
		changed = true
		slot.Key = key
		j.Put(slot.settle(found, func() (unit.Revision, bool) { return lookup(kind, found) }))
	}
	for _, slot := range j.Slots() {
		if slot.Kind != kind || onHost[slot.Owner] || slot.Next == nil {
			continue
		}
		// Killed before the host was changed: what was in force before is
		// gone from the host too, or never was.
		changed = true
		slot.Next = nil
		if slot.Current == nil {
			j.Delete(slot.Key)
			continue
		}
		j.Put(slot)
	}
	return changed
}

// settle says which revision is in force.
func (s Slot) settle(found profile.Installed, lookup func() (unit.Revision, bool)) Slot {
	next := s.Next
	s.Next = nil
	switch {
	case s.Current != nil && s.Current.Digest() == found.Digest:
		return s
	case next != nil && next.Digest() == found.Digest:
		return s.advance(*next)
	}
	if known, ok := lookup(); ok {
		return s.advance(known)
	}
	return s.advance(unit.Revision{Source: unit.Source{Digest: found.Digest}})
}

// advance makes r the current revision and remembers the one before.
func (s Slot) advance(r unit.Revision) Slot {
	if s.Current != nil && s.Current.Source != r.Source && s.Current.Source.Known() {
		previous := s.Current.Source
		s.Previous = &previous
	}
	s.Current = &r
	return s
}

// Commit makes Next current, as of now.
func (s Slot) Commit() Slot {
	if s.Next == nil {
		return s
	}
	next := *s.Next
	s.Next = nil
	return s.advance(next)
}
