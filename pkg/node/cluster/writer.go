package cluster

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"k8s.io/client-go/dynamic"

	"github.com/confine-dev/confine/api/v1alpha1"
	"github.com/confine-dev/confine/pkg/node/status"
)

// When a status is written. A batch of profiles is told once, when no pull is
// left; what fails is told sooner, and what goes well in a long batch now and
// then.
const (
	failuresWait = 5 * time.Second
	progressWait = 30 * time.Second
	// wordsWait is for another message where the reason is the same: what a
	// registry says may differ each time.
	wordsWait = time.Minute
	// idleJitter spreads the writes of a fleet in which all changed at once.
	idleJitter = time.Second
	// leastPause stands between two writes.
	leastPause = time.Second

	// watchLag is how far a watch is thought to lag behind our own write at
	// most. Later than that an older version is the truth: a backup of etcd was
	// restored.
	watchLag = 30 * time.Second

	firstRetry   = time.Second
	longestRetry = time.Minute
	writeTimeout = 20 * time.Second
)

type sum [sha256.Size]byte

// writer writes the status of the ProfileNode when its meaning changed.
type writer struct {
	api    dynamic.ResourceInterface
	node   string
	jitter func(time.Duration) time.Duration
	log    *slog.Logger
	wake   chan struct{}

	mu sync.Mutex
	// last is the loop's last report; nil before the first.
	last *status.Report
	busy bool
	// wanted is the encoded status to be written; nil where it is written.
	wanted    []byte
	wantedSum sum
	// essence is wanted without the messages of what has a reason; failing is
	// what of it failed.
	essence, failing sum
	// dirty and failed are since when it, and what failed, is not told; zero
	// where it is told.
	dirty, failed time.Time
	pause         time.Duration // the jitter of this write

	// What the server has: the object, what was meant by its status, how the
	// server renders that, and what of it failed.
	uid, version, nodeUID string
	have, rendered        sum
	haveEssence           sum
	haveFailing           sum

	written  time.Time // the last write
	retry    time.Time // not before
	failures int
}

func newWriter(opts Options) *writer {
	return &writer{
		api: opts.Client.nodes, node: opts.Node, jitter: opts.Jitter, log: opts.Log, wake: make(chan struct{}, 1),
	}
}

// report takes in the loop's report.
func (w *writer) report(r status.Report, busy bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.last, w.busy = &r, busy
	w.refresh()
}

// observe takes in the ProfileNode as the server has it; nil where there is
// none. other says that it assigns something else than before, so that the
// last report is not about that.
func (w *writer) observe(object *unstructured.Unstructured, other bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.busy = w.busy || other
	if object == nil {
		w.uid = ""
		return
	}
	uid, version := string(object.GetUID()), object.GetResourceVersion()
	if uid == w.uid && older(version, w.version) && time.Since(w.written) < watchLag {
		return
	}
	rendered, s := meaning(object)
	if uid != w.uid || rendered != w.rendered {
		w.have, w.rendered, w.haveEssence, w.haveFailing = rendered, rendered, essenceOf(s), failuresOf(s)
	}
	w.uid, w.version = uid, version
	w.nodeUID = ""
	for _, owner := range object.GetOwnerReferences() {
		if owner.Kind == "Node" && owner.Name == w.node {
			w.nodeUID = string(owner.UID)
		}
	}
	w.refresh()
}

// older reports whether version is before the other one; false where that
// cannot be told.
func older(version, than string) bool {
	n, err := resourceversion.CompareResourceVersion(version, than)
	return err == nil && n < 0
}

// meaning sums up the status that an object has.
func meaning(object *unstructured.Unstructured) (rendered sum, s v1alpha1.ProfileNodeStatus) {
	raw, err := json.Marshal(object.Object["status"])
	if err == nil {
		err = json.Unmarshal(raw, &s)
	}
	if err != nil {
		return sum{}, v1alpha1.ProfileNodeStatus{} // of another version: it is written anew
	}
	return sumOf(s), s
}

func sumOf(s v1alpha1.ProfileNodeStatus) sum {
	data, err := json.Marshal(s)
	if err != nil {
		return sum{}
	}
	return sha256.Sum256(data)
}

// essenceOf sums up a status but for the messages of profiles that have a
// reason.
func essenceOf(s v1alpha1.ProfileNodeStatus) sum {
	s.Profiles = slices.Clone(s.Profiles)
	for i := range s.Profiles {
		if s.Profiles[i].Reason != "" {
			s.Profiles[i].Message = ""
		}
	}
	return sumOf(s)
}

// failuresOf sums up what of a status failed.
func failuresOf(s v1alpha1.ProfileNodeStatus) sum {
	hash := sha256.New()
	some := false
	for _, p := range s.Profiles {
		if p.State == v1alpha1.StateFailed || p.Degraded || p.Reason != "" {
			some = true
			fmt.Fprintln(hash, p.Namespace, p.Name, p.UID, p.WantedDigest, p.Reason, p.Degraded)
		}
	}
	for _, p := range s.Problems {
		some = true
		fmt.Fprintln(hash, p.Reason, p.Message)
	}
	if !some {
		return sum{}
	}
	return sum(hash.Sum(nil))
}

// refresh finds out whether there is something to write. The caller holds mu.
func (w *writer) refresh() {
	if w.last == nil || w.uid == "" {
		return
	}
	s := StatusOf(*w.last, w.nodeUID)
	data, err := Encode(s)
	if err != nil {
		w.log.Error("the status cannot be encoded", "error", err)
		return
	}
	w.wantedSum, w.essence, w.failing = sha256.Sum256(data), essenceOf(s), failuresOf(s)
	if w.wantedSum == w.have {
		w.wanted, w.dirty, w.failed = nil, time.Time{}, time.Time{}
		return
	}
	now := time.Now()
	if w.dirty.IsZero() {
		w.dirty, w.pause = now, w.jitter(idleJitter)
	}
	switch {
	case w.failing == w.haveFailing || w.failing == sum{}:
		w.failed = time.Time{}
	case w.failed.IsZero():
		w.failed = now
	}
	w.wanted = data
	select {
	case w.wake <- struct{}{}:
	default: // it is awake already
	}
}

// due returns when the next write is due; zero where there is nothing to write.
// The caller holds mu.
func (w *writer) due() time.Time {
	if w.wanted == nil || w.uid == "" {
		return time.Time{}
	}
	at := w.dirty.Add(progressWait)
	switch {
	case w.essence == w.haveEssence:
		at = w.dirty.Add(wordsWait)
	case !w.busy:
		at = w.dirty.Add(w.pause)
	case !w.failed.IsZero() && w.failed.Add(failuresWait).Before(at):
		at = w.failed.Add(failuresWait)
	}
	for _, least := range []time.Time{w.written.Add(leastPause), w.retry} {
		if at.Before(least) {
			at = least
		}
	}
	return at
}

// run writes until ctx ends.
func (w *writer) run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.wake:
		case <-timer.C:
		}
		w.mu.Lock()
		at := w.due()
		w.mu.Unlock()
		switch {
		case at.IsZero():
			timer.Stop()
		case time.Until(at) > 0:
			timer.Reset(time.Until(at))
		default:
			w.write(ctx)
			timer.Reset(0)
		}
	}
}

// write applies the status.
func (w *writer) write(ctx context.Context) {
	w.mu.Lock()
	data, meant, essence, failing := w.wanted, w.wantedSum, w.essence, w.failing
	w.mu.Unlock()
	body, err := json.Marshal(map[string]any{
		"apiVersion": v1alpha1.SchemeGroupVersion().String(), "kind": v1alpha1.KindProfileNode,
		"metadata": map[string]string{"name": w.node}, "status": json.RawMessage(data),
	})
	var answer *unstructured.Unstructured
	if err == nil {
		answer, err = w.apply(ctx, body)
	}
	if ctx.Err() != nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	w.written = now
	if err != nil {
		wait := min(firstRetry<<min(w.failures, 10), longestRetry)
		w.failures++
		w.retry = now.Add(wait/2 + w.jitter(wait/2))
		w.log.Warn("the status cannot be written; it is tried again", "error", err, "next", w.retry)
		return
	}
	w.failures, w.retry, w.dirty, w.failed = 0, time.Time{}, time.Time{}, time.Time{}
	if w.uid != string(answer.GetUID()) {
		w.refresh()
		return // it was deleted since, and made anew or not
	}
	w.version = answer.GetResourceVersion()
	w.have, w.haveEssence, w.haveFailing = meant, essence, failing
	w.rendered, _ = meaning(answer)
	w.wanted = nil
	w.refresh() // there may be more by now
}

func (w *writer) apply(ctx context.Context, body []byte) (*unstructured.Unstructured, error) {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	force := true // nobody else writes it
	return w.api.Patch(ctx, w.node, types.ApplyPatchType, body,
		metav1.PatchOptions{FieldManager: FieldManager, Force: &force}, "status")
}
