package agent

import (
	"errors"
	"fmt"
	"testing"

	"github.com/confine-dev/confine/pkg/node/journal"
	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/reason"
)

func slotKey(namespace string, n int) journal.Key {
	return journal.Key{Kind: "seccomp", Owner: profile.Owner{Namespace: namespace, Name: fmt.Sprintf("p-%d", n)}}
}

// Who makes and deletes profiles faster than they are removed fills its own
// places and nobody else's.
func TestOneNamespaceFillsNotTheJournal(t *testing.T) {
	for name, c := range map[string]struct {
		cluster bool
		want    int
	}{"in a cluster": {true, maxOfNamespace}, "alone": {false, journal.MaxSlots}} {
		t.Run(name, func(t *testing.T) {
			a := &Agent{journal: &journal.Journal{}}
			a.inputs.desired.NeedsRelease = c.cluster
			given := 0
			for pass := range 20 {
				left := a.places()
				for n := range 1000 {
					key := slotKey("greedy", pass*1000+n)
					if err := left.take(key); errors.Is(err, reason.NoSpace) {
						continue
					} else if err != nil {
						t.Fatal(err)
					}
					given++
					a.journal.Put(journal.Slot{Key: key})
				}
			}
			if given != c.want {
				t.Errorf("%d slots, want %d", given, c.want)
			}
			if err := a.places().take(slotKey("greedy", 0)); err != nil {
				t.Errorf("an update: %v", err)
			}
			if err := a.places().take(slotKey("modest", 0)); (err == nil) != c.cluster {
				t.Errorf("another namespace: %v", err)
			}
			if _, err := journal.Encode(a.journal); err != nil {
				t.Errorf("the journal cannot be written: %v", err)
			}
		})
	}
}
