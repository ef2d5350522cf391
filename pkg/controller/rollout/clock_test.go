package rollout_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/confine-dev/confine/pkg/controller/rollout"
)

// A rollout begun by a controller whose clock is ahead ends once under another
// one, and is not written again and again.
func TestClockThatWentBack(t *testing.T) {
	begun := running()
	begun.StartedAt = at(time.Hour)
	in := rollout.Input{
		UID: "u", Generation: 1, Target: target(), Status: begun, Ready: 1, History: history(oldOne()),
		Nodes: fleet(t, "a t+, b t+"), Now: noon(),
	}
	first := rollout.Decide(in)
	if !first.Complete() || first.History[0].Artifact != target() {
		t.Fatalf("%s, history %+v", first.Reason, first.History)
	}
	in.Status, in.History, in.Ready, in.Now = &first.Status, first.History, 2, noon().Add(time.Minute)
	second := rollout.Decide(in)
	if second.Durable || !second.Complete() {
		t.Errorf("%s, and durable %v", second.Reason, second.Durable)
	}
	if diff := cmp.Diff(first.History, second.History); diff != "" {
		t.Error(diff)
	}
}
