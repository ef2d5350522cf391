package cluster

import (
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/confine-dev/confine/pkg/node/status"
)

func quietWriter() *writer {
	return newWriter(Options{Client: &Client{}, Node: "n1", Jitter: func(time.Duration) time.Duration { return 100 * time.Millisecond }})
}

func seen(version string, status map[string]any) *unstructured.Unstructured {
	u := &unstructured.Unstructured{Object: map[string]any{}}
	u.SetName("n1")
	u.SetUID("object")
	u.SetResourceVersion(version)
	if status != nil {
		u.Object["status"] = status
	}
	return u
}

func TestWhenAStatusIsWritten(t *testing.T) {
	start := time.Now()
	at := func(s float64) time.Time { return start.Add(time.Duration(s * float64(time.Second))) }
	for name, c := range map[string]struct {
		change func(w *writer)
		want   time.Time
	}{
		"idle":                        {func(*writer) {}, at(0.1)},
		"busy":                        {func(w *writer) { w.busy = true }, at(30)},
		"busy, and something failed":  {func(w *writer) { w.busy, w.failed = true, at(3) }, at(8)},
		"it failed late":              {func(w *writer) { w.busy, w.failed = true, at(28) }, at(30)},
		"idle, and something failed":  {func(w *writer) { w.failed = at(3) }, at(0.1)},
		"only the words differ":       {func(w *writer) { w.haveEssence = w.essence }, at(60)},
		"just written":                {func(w *writer) { w.written = at(2) }, at(3)},
		"the server refused lately":   {func(w *writer) { w.retry = at(50) }, at(50)},
		"nothing to write":            {func(w *writer) { w.wanted = nil }, time.Time{}},
		"there is no object to write": {func(w *writer) { w.uid = "" }, time.Time{}},
	} {
		t.Run(name, func(t *testing.T) {
			w := quietWriter()
			w.uid, w.wanted, w.dirty, w.pause, w.essence = "object", []byte("{}"), start, 100*time.Millisecond, sum{1}
			c.change(w)
			if got := w.due(); !got.Equal(c.want) {
				t.Errorf("due at %v, want %v", got.Sub(start), c.want.Sub(start))
			}
		})
	}
}

func TestWhatIsWorthAWrite(t *testing.T) {
	w := quietWriter()
	report := status.Report{Version: "v1", Profiles: []status.Profile{described(wanted, signed, inForce)}}
	w.report(report, false)
	if w.wanted != nil {
		t.Fatal("there is something to write, and no object")
	}
	w.observe(seen("5", nil), false)
	if w.wanted == nil || !w.failed.IsZero() {
		t.Fatal("an object without a status is not worth a write, or something failed")
	}
	w.have, w.rendered, w.version, w.written = w.wantedSum, w.wantedSum, "7", time.Now() // written
	w.refresh()
	if w.wanted != nil || !w.dirty.IsZero() {
		t.Error("what is written is worth a write")
	}
	w.observe(seen("6", map[string]any{"agentVersion": "of before"}), false)
	if w.wanted != nil {
		t.Error("what the watch says late is worth a write")
	}
	w.report(report, false)
	if w.wanted != nil {
		t.Error("the same report is worth a write")
	}
	w.observe(seen("8", map[string]any{"agentVersion": "of somebody else"}), false)
	if w.wanted == nil {
		t.Error("what somebody else wrote is not worth a write")
	}
	w.have, w.haveEssence, w.haveFailing = w.wantedSum, w.essence, w.failing
	w.report(status.Report{Version: "v1", Profiles: []status.Profile{described(before, unsigned, noneReady)}}, true)
	if w.wanted == nil || w.failed.IsZero() {
		t.Error("what failed is not worth a write soon")
	}
	w.have, w.haveEssence, w.haveFailing = w.wantedSum, w.essence, w.failing
	again := noneReady
	again.Message = "other words"
	w.report(status.Report{Version: "v1", Profiles: []status.Profile{described(before, unsigned, again)}}, false)
	if w.wanted == nil || time.Until(w.due()) < wordsWait/2 || !w.failed.IsZero() {
		t.Error("other words are worth a write soon")
	}
	w.observe(nil, true)
	if !w.due().IsZero() {
		t.Error("a deleted object is written")
	}
	another := seen("9", nil)
	another.SetUID("another")
	w.observe(another, true)
	if w.due().IsZero() {
		t.Error("an object made anew is not written")
	}
}

// A watch that lags behind our own write is not believed; one that shows an
// older status for long is, or a restored backup would hide this node's status.
func TestBackupThatWasRestored(t *testing.T) {
	w := quietWriter()
	w.observe(seen("10", nil), false)
	w.report(status.Report{Version: "v1"}, false)
	w.mu.Lock()
	w.version, w.written = "20", time.Now() // as after a write
	w.have, w.rendered, w.wanted = w.wantedSum, w.wantedSum, nil
	w.mu.Unlock()
	w.observe(seen("15", nil), false)
	if w.wanted != nil {
		t.Error("a watch that lags behind is believed")
	}
	w.written = time.Now().Add(-2 * watchLag)
	w.observe(seen("15", nil), false)
	if w.wanted == nil || w.version != "15" {
		t.Errorf("the status of the backup stays, as of version %s", w.version)
	}
}
