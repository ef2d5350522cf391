// Package journal remembers what is installed on this node: from which
// artifact, for whom, since when, and what waits for its removal.
//
// The journal is written before a host is changed and after it, so that a
// process killed in between knows what it was about to do. It is never trusted
// for what a profile may be: bytes are judged again from the store's evidence.
// A journal that cannot be read leads to no removal; it is set aside and made
// anew from what the hosts and the store hold.
package journal

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/confine-dev/confine/pkg/node/unit"
	"github.com/confine-dev/confine/pkg/profile"
)

// Bounds on a journal.
const (
	MaxSlots  = 16384
	MaxBytes  = 64 << 20
	MaxClaims = 64
	maxText   = 4096
)

// Key names one slot: what one owner has of one kind.
type Key struct {
	Kind  string        `json:"kind"`
	Owner profile.Owner `json:"owner"`
}

// String renders kind namespace/name.
func (k Key) String() string { return k.Kind + " " + k.Owner.String() }

// Compare orders keys by kind, then owner.
func (k Key) Compare(o Key) int {
	return strings.Compare(k.Kind+"\x00"+k.Owner.Namespace+"\x00"+k.Owner.Name, o.Kind+"\x00"+o.Owner.Namespace+"\x00"+o.Owner.Name)
}

// Claim is one SecurityProfile that wants a slot.
type Claim struct {
	UID    string `json:"uid,omitempty"`
	Origin string `json:"origin,omitempty"`
}

// Slot is what one owner has of one kind.
type Slot struct {
	Key
	// Claims are the SecurityProfiles that want it, the holder of the name first.
	Claims []Claim `json:"claims,omitempty"`
	// Current is in force; nil before the first install.
	Current *unit.Revision `json:"current,omitempty"`
	// Next was about to be installed when this was written.
	Next *unit.Revision `json:"next,omitempty"`
	// Previous is the artifact that Current replaced: its evidence is kept, so
	// that going back needs no registry.
	Previous *unit.Source `json:"previous,omitempty"`
	// Since is when Current was installed; zero where that is not known.
	Since time.Time `json:"since,omitzero"`
	// RemoveAt is when the whole slot is removed, unless it is wanted again
	// before; zero where it is wanted.
	RemoveAt time.Time `json:"removeAt,omitzero"`
}

// Journal is the content of the journal. The zero value is empty and ready.
type Journal struct {
	slots map[Key]Slot
	kinds map[profile.Owner]map[Key]bool // the keys of each owner
}

// Get returns the slot of key.
func (j *Journal) Get(key Key) (Slot, bool) {
	s, ok := j.slots[key]
	return s, ok
}

// Put sets the slot of s.Key.
func (j *Journal) Put(s Slot) {
	if j.slots == nil {
		j.slots, j.kinds = map[Key]Slot{}, map[profile.Owner]map[Key]bool{}
	}
	if j.kinds[s.Owner] == nil {
		j.kinds[s.Owner] = map[Key]bool{}
	}
	j.slots[s.Key], j.kinds[s.Owner][s.Key] = s, true
}

// Delete forgets a slot.
func (j *Journal) Delete(key Key) {
	delete(j.slots, key)
	delete(j.kinds[key.Owner], key)
	if len(j.kinds[key.Owner]) == 0 {
		delete(j.kinds, key.Owner)
	}
}

// Slots returns all slots in the order of their keys.
func (j *Journal) Slots() []Slot {
	return slices.SortedFunc(maps.Values(j.slots), func(a, b Slot) int { return a.Key.Compare(b.Key) })
}

// Len is the number of slots.
func (j *Journal) Len() int { return len(j.slots) }

// Of returns the slots of one owner in the order of their kinds.
func (j *Journal) Of(owner profile.Owner) []Slot {
	var found []Slot
	for key := range j.kinds[owner] {
		found = append(found, j.slots[key])
	}
	slices.SortFunc(found, func(a, b Slot) int { return a.Key.Compare(b.Key) })
	return found
}

// Sources are all artifacts that the slots rest on, each once.
func (j *Journal) Sources() []unit.Source {
	seen := map[unit.Source]bool{}
	for _, s := range j.slots {
		for _, r := range []*unit.Revision{s.Current, s.Next} {
			if r == nil {
				continue
			}
			for _, source := range r.Sources() {
				seen[source] = true
			}
		}
		if s.Previous != nil {
			seen[*s.Previous] = true
		}
	}
	return slices.SortedFunc(maps.Keys(seen), unit.Source.Compare)
}

func (s Slot) check() error {
	if s.Kind == "" || s.Owner.Namespace == "" || s.Owner.Name == "" || len(s.Kind)+len(s.Owner.String()) > maxText {
		return fmt.Errorf("%.80q is no slot", s.Key)
	}
	if len(s.Claims) > MaxClaims {
		return fmt.Errorf("%s: %d claims exceed %d", s.Key, len(s.Claims), MaxClaims)
	}
	for _, c := range s.Claims {
		if len(c.UID)+len(c.Origin) > maxText {
			return fmt.Errorf("%s: a claim exceeds %d bytes", s.Key, maxText)
		}
	}
	for _, r := range []*unit.Revision{s.Current, s.Next} {
		if r == nil {
			continue
		}
		if err := r.Check(); err != nil {
			return fmt.Errorf("%s: %w", s.Key, err)
		}
	}
	if s.Previous != nil {
		if err := (unit.Revision{Source: *s.Previous}).Check(); err != nil {
			return fmt.Errorf("%s: %w", s.Key, err)
		}
	}
	return nil
}
