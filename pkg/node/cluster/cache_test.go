package cluster

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/confine-dev/confine/pkg/durable"
)

func known1() kept {
	return kept{Node: "n1", Spec: []byte(`{"profiles":[]}`), Policies: map[string][]byte{"a": []byte(`{"x":1}`)}}
}

func known2() kept {
	return kept{Node: "n1", Spec: []byte(`{"profiles":[{"name":"x"}]}`), Policies: map[string][]byte{}}
}

func opened(t *testing.T, root string, before func(durable.Step) error) *cacheFile {
	t.Helper()
	c, err := openCache(root, before)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.close() })
	return c
}

func TestCacheKeepsWhatIsKnown(t *testing.T) {
	root := filepath.Join(t.TempDir(), "root")
	if k, err := opened(t, root, nil).load("n1"); err != nil || k.Spec != nil || k.Policies != nil {
		t.Errorf("an empty folder gives %+v, %v", k, err)
	}
	for name, k := range map[string]kept{
		"all": known1(), "nobody is trusted": known2(), "no policies yet": {Node: "n1", Spec: []byte("{}")}, "no spec yet": {Node: "n1", Policies: map[string][]byte{}},
	} {
		t.Run(name, func(t *testing.T) {
			writes := 0
			c := opened(t, root, func(durable.Step) error { writes++; return nil })
			if err := c.save(k); err != nil {
				t.Fatal(err)
			}
			writes = 0
			if err := c.save(k); err != nil || writes > 0 {
				t.Errorf("the same was written again: %v", err)
			}
			again := opened(t, root, func(durable.Step) error { writes++; return nil })
			got, err := again.load("n1")
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(k, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if err := again.save(k); err != nil || writes > 0 {
				t.Errorf("the same was written by another process: %v", err)
			}
			if of, err := again.load("n2"); err != nil || of.Spec != nil || of.Policies != nil {
				t.Errorf("another node gets %+v, %v", of, err)
			}
		})
	}
	info, err := os.Stat(root)
	if err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("the agent's root has mode %v: people cannot read the status (%v)", info.Mode(), err)
	}
}

func TestDamagedCacheCountsForNothing(t *testing.T) {
	root := t.TempDir()
	c := opened(t, root, nil)
	if err := c.save(known1()); err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(c.name())
	if err != nil {
		t.Fatal(err)
	}
	for i := range good {
		bad := append([]byte(nil), good...)
		bad[i] ^= 1
		got, err := decodeKept(bad)
		if err == nil && !cmp.Equal(got, known1()) {
			t.Fatalf("with byte %d flipped it is %+v", i, got)
		}
	}
	for name, bad := range map[string]string{"empty": "", "zeros": string(make([]byte, len(good))), "cut": string(good[:len(good)/2]), "twice": string(good) + string(good)} {
		if err := os.WriteFile(c.name(), []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := opened(t, root, nil).load("n1"); err == nil || got.Spec != nil || got.Policies != nil {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
		if err := opened(t, root, nil).save(known2()); err != nil {
			t.Errorf("%s: it cannot be replaced: %v", name, err)
		}
	}
}

var errKilled = errors.New("killed")

// TestCacheKilledBeforeEveryChange leaves the old or the new.
func TestCacheKilledBeforeEveryChange(t *testing.T) {
	for at := 1; ; at++ {
		root := t.TempDir()
		if err := opened(t, root, nil).save(known1()); err != nil {
			t.Fatal(err)
		}
		seen := 0
		c := opened(t, root, func(durable.Step) error {
			if seen++; seen >= at {
				return errKilled
			}
			return nil
		})
		_ = c.save(known2())
		got, err := opened(t, root, nil).load("n1")
		if err != nil || !cmp.Equal(got, known1()) && !cmp.Equal(got, known2()) {
			t.Fatalf("killed at %d: %+v, %v", at, got, err)
		}
		if seen < at {
			if at < 4 {
				t.Fatalf("only %d changes were made", seen)
			}
			return
		}
	}
}
