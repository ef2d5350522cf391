package store_test

import (
	"bytes"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/confine-dev/confine/pkg/durable"
	"github.com/confine-dev/confine/pkg/node/store"
	"github.com/confine-dev/confine/pkg/node/unit"
)

// TestPutsShareTheirWaits holds up one put until many wait: they go to the disk
// in one group, and each is whole.
func TestPutsShareTheirWaits(t *testing.T) {
	const others = 20
	var s *store.Store
	var hold atomic.Bool
	held, release := make(chan struct{}), make(chan struct{})
	flushes := 0
	s = open(t, t.TempDir(), store.Options{Before: func(step durable.Step) error {
		if hold.CompareAndSwap(true, false) {
			close(held)
			<-release
		}
		if step.Op == durable.OpFsyncDir && filepath.Base(step.Name) == "evidence" {
			flushes++
		}
		return nil
	}})
	flushes = 0
	hold.Store(true)
	var puts sync.WaitGroup
	start := func(n int) {
		puts.Go(func() {
			if err := s.Put(t.Context(), example(n)); err != nil {
				t.Errorf("put %d: %v", n, err)
			}
		})
	}
	start(0)
	<-held
	for n := range others {
		start(n + 1)
	}
	for deadline := time.Now().Add(time.Minute); s.Waiting() < others; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("only %d puts wait", s.Waiting())
		}
	}
	close(release)
	puts.Wait()
	if flushes != 2 {
		t.Errorf("%d flushes of the records, want one for the first and one for all others", flushes)
	}
	wantKept(t, s, others+1)
}

func TestManyPutsAtOnce(t *testing.T) {
	s := open(t, t.TempDir(), store.Options{})
	const n = 100 // more than one group
	var puts sync.WaitGroup
	for i := range n {
		puts.Go(func() {
			if err := s.Put(t.Context(), example(i)); err != nil {
				t.Errorf("put %d: %v", i, err)
			}
		})
	}
	puts.Wait()
	wantKept(t, s, n)
	if err := s.Put(t.Context(), example(n)); err != nil { // nobody leads for ever
		t.Error(err)
	}
}

func wantKept(t *testing.T, s *store.Store, n int) {
	t.Helper()
	for i := range n {
		art := example(i)
		if _, err := s.Record(sourceOf(art)); err != nil {
			t.Errorf("record %d: %v", i, err)
		}
		for _, p := range art.Payloads {
			data, err := s.File(t.Context(), unit.File{Name: p.File, Digest: p.Digest, Size: int64(len(p.Data))})
			if err != nil || !bytes.Equal(data, p.Data) {
				t.Errorf("payload of %d: %q, %v", i, data, err)
			}
		}
	}
}
