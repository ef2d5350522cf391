package agent

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
)

// A registry that hangs on any number of pulls leaves a turn for others at
// once, and shares the rest as they come free.
func TestOneHostHasNotAllTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		pulls := newTurns(7)
		got := make(chan string, 1000)
		enter := func(host string) {
			go func() {
				if pulls.enter(ctx, host) == nil {
					got <- host
				}
			}()
			synctest.Wait()
		}
		for range 250 {
			enter("hangs")
		}
		if len(got) != 7 {
			t.Fatalf("%d of 8 turns are the host's that came first", len(got))
		}
		for len(got) > 0 {
			<-got
		}
		enter("good")
		if len(got) != 1 || <-got != "good" {
			t.Fatal("another host waits")
		}
		enter("good")
		if len(got) != 0 {
			t.Fatal("there are more than 8 turns")
		}
		pulls.leave("hangs")
		synctest.Wait()
		if host := <-got; host != "good" {
			t.Errorf("the free turn went to the host that %s", host)
		}
		stop()
		synctest.Wait()
		for range 2 {
			pulls.leave("good")
		}
		for range 6 {
			pulls.leave("hangs")
		}
		if pulls.free != 8 || len(pulls.taken)+len(pulls.waiting) != 0 {
			t.Errorf("%d turns are free, %d taken, %d waited for", pulls.free, len(pulls.taken), len(pulls.waiting))
		}
	})
}

// Whoever gives up waiting in the moment it gets its turn gives it back.
func TestTurnsAreNotLost(t *testing.T) {
	pulls := newTurns(1)
	for i := range 2000 {
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan struct{})
		host := fmt.Sprint(i % 3)
		if err := pulls.enter(t.Context(), "first"); err != nil {
			t.Fatal(err)
		}
		go func() {
			defer close(done)
			if pulls.enter(ctx, host) == nil {
				pulls.leave(host)
			}
		}()
		go stop()
		pulls.leave("first")
		<-done
	}
	if pulls.free != 2 || len(pulls.taken)+len(pulls.waiting) != 0 {
		t.Errorf("%d turns are free", pulls.free)
	}
}
