package journal_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/confine-dev/confine/pkg/artifact/reference"
	"github.com/confine-dev/confine/pkg/durable"
	"github.com/confine-dev/confine/pkg/node/journal"
	"github.com/confine-dev/confine/pkg/node/unit"
	"github.com/confine-dev/confine/pkg/profile"
)

func source(s string) unit.Source {
	return unit.Source{Repository: reference.Repository{Host: "registry.example.com", Path: "web"}, Digest: digest.FromString(s)}
}

func revision(s string) *unit.Revision {
	return &unit.Revision{Source: source(s), Files: []unit.File{{Name: "a", Digest: digest.FromString(s), Size: 1}}}
}

func key(name string) journal.Key {
	return journal.Key{Kind: "alpha", Owner: profile.Owner{Namespace: "web", Name: name}}
}

func example() *journal.Journal {
	previous := source("before")
	j := &journal.Journal{}
	j.Put(journal.Slot{Key: key("a"), Claims: []journal.Claim{{Origin: "m.yaml#1"}}, Current: revision("one"), Previous: &previous, Since: time.Unix(1e9, 0).UTC()})
	j.Put(journal.Slot{Key: key("b"), Current: revision("one"), Next: revision("two"), RemoveAt: time.Unix(2e9, 0).UTC()})
	return j
}

func encode(t testing.TB, j *journal.Journal) []byte {
	t.Helper()
	data, err := journal.Encode(j)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestRoundTrip(t *testing.T) {
	for name, j := range map[string]*journal.Journal{"empty": {}, "two slots": example()} {
		t.Run(name, func(t *testing.T) {
			got, err := journal.Decode(encode(t, j))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(j.Slots(), got.Slots()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestEveryFlippedBitIsSeen holds that no damage of one bit goes unnoticed.
func TestEveryFlippedBitIsSeen(t *testing.T) {
	data := encode(t, example())
	for i := range data {
		for bit := range 8 {
			damaged := bytes.Clone(data)
			damaged[i] ^= 1 << bit
			j, err := journal.Decode(damaged)
			if err == nil && !bytes.Equal(encode(t, j), data) {
				t.Fatalf("byte %d bit %d: accepted %s", i, bit, damaged)
			}
			if err != nil && !errors.Is(err, journal.ErrDamaged) {
				t.Fatalf("byte %d bit %d: %v", i, bit, err)
			}
		}
	}
}

func TestDecodeRefuses(t *testing.T) {
	good := string(encode(t, example()))
	for name, data := range map[string]string{
		"nothing":         "",
		"truncated":       good[:len(good)/2],
		"trailing data":   good + "{}",
		"another version": strings.Replace(good, `"version":1`, `"version":2`, 1),
		"an unknown name": strings.Replace(good, `"version":1`, `"version":1,"x":1`, 1),
		"null":            "null",
		"too large":       strings.Repeat(" ", journal.MaxBytes+1),
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := journal.Decode([]byte(data)); !errors.Is(err, journal.ErrDamaged) {
				t.Errorf("Decode = %v, want ErrDamaged", err)
			}
		})
	}
}

func TestFile(t *testing.T) {
	writes := 0
	path := t.TempDir()
	dir, err := durable.Open(path, durable.Options{Before: func(s durable.Step) error {
		if s.Op == durable.OpWrite {
			writes++
		}
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = dir.Close() }()
	f := journal.Open(dir)
	if j, found, err := f.Load(); err != nil || found || j.Len() != 0 {
		t.Fatalf("Load of none = %v, %v, %v", j, found, err)
	}
	for range 2 {
		if err := f.Save(example()); err != nil {
			t.Fatal(err)
		}
	}
	if writes != 1 {
		t.Errorf("the same journal was written %d times", writes)
	}
	j, found, err := journal.Open(dir).Load()
	if err != nil || !found {
		t.Fatal(found, err)
	}
	if diff := cmp.Diff(example().Slots(), j.Slots()); diff != "" {
		t.Error(diff)
	}
	if err := os.WriteFile(filepath.Join(path, "journal.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := f.Load(); !errors.Is(err, journal.ErrDamaged) {
		t.Fatalf("Load = %v, want ErrDamaged", err)
	}
	if err := f.SetAside(); err != nil {
		t.Fatal(err)
	}
	if data, err := os.ReadFile(filepath.Join(path, "journal.damaged.json")); err != nil || string(data) != "{" {
		t.Errorf("set aside: %q, %v", data, err)
	}
	if err := f.Save(example()); err != nil || writes != 2 {
		t.Errorf("after SetAside: %v, %d writes", err, writes)
	}
}

func TestAdopt(t *testing.T) {
	one, two := revision("one"), revision("two")
	unknown := &unit.Revision{Source: unit.Source{Digest: digest.FromString("else")}}
	before := source("one")
	for name, c := range map[string]struct {
		slot      *journal.Slot
		onHost    *unit.Revision
		inStore   *unit.Revision
		want      *journal.Slot
		unchanged bool
	}{
		"as it should be":              {slot: &journal.Slot{Current: one}, onHost: one, want: &journal.Slot{Current: one}, unchanged: true},
		"killed before the host":       {slot: &journal.Slot{Current: one, Next: two}, onHost: one, want: &journal.Slot{Current: one}},
		"killed after the host":        {slot: &journal.Slot{Current: one, Next: two}, onHost: two, want: &journal.Slot{Current: two, Previous: &before}},
		"killed before the first":      {slot: &journal.Slot{Next: two}},
		"killed, and the host is bare": {slot: &journal.Slot{Current: one, Next: two}, want: &journal.Slot{Current: one}},
		"lost, the store knows":        {onHost: one, inStore: one, want: &journal.Slot{Current: one}},
		"lost, nobody knows":           {onHost: unknown, want: &journal.Slot{Current: unknown}},
		"the host lost it":             {slot: &journal.Slot{Current: one}, want: &journal.Slot{Current: one}, unchanged: true},
	} {
		t.Run(name, func(t *testing.T) {
			j := &journal.Journal{}
			if c.slot != nil {
				c.slot.Key = key("a")
				j.Put(*c.slot)
			}
			var found []profile.Installed
			if c.onHost != nil {
				found = append(found, profile.Installed{Owner: key("a").Owner, Digest: c.onHost.Digest()})
			}
			changed := j.Adopt("alpha", found, func(string, profile.Installed) (unit.Revision, bool) {
				if c.inStore == nil {
					return unit.Revision{}, false
				}
				return *c.inStore, true
			})
			if changed == c.unchanged {
				t.Errorf("changed = %t", changed)
			}
			var want []journal.Slot
			if c.want != nil {
				c.want.Key = key("a")
				want = append(want, *c.want)
			}
			if diff := cmp.Diff(want, j.Slots()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(encode(f, example()))
	f.Add(encode(f, &journal.Journal{}))
	if slots, err := json.Marshal(example().Slots()); err == nil {
		f.Add(slots)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		j, err := journal.Decode(data)
		if err != nil {
			// The checksum keeps almost everything out: look behind it too.
			j, err = journal.Decode(fmt.Appendf(nil, `{"version":1,"sum":%q,"slots":%s}`, digest.FromBytes(data), data))
		}
		if err != nil {
			if !errors.Is(err, journal.ErrDamaged) {
				t.Fatalf("%v is not ErrDamaged", err)
			}
			return
		}
		again, err := journal.Decode(encode(t, j))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(j.Slots(), again.Slots()); diff != "" {
			t.Fatal(diff)
		}
	})
}
