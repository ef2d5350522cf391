package artifact_test

import (
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"strings"
	"testing"
	"time"

	"github.com/confine-dev/confine/pkg/artifact/pack"
	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/profile/kinds"
	"github.com/confine-dev/confine/pkg/reason"
)

// filled repeats a text up to the most that a payload may hold.
func filled(head, repeated, tail string) string {
	return head + strings.Repeat(repeated, (profile.MaxPayloadBytes-len(head)-len(tail))/len(repeated)) + tail
}

// heapPeak returns about how many bytes of the heap were in use at most while
// work ran, beyond those before it.
func heapPeak(work func()) uint64 {
	defer debug.SetGCPercent(debug.SetGCPercent(10))
	runtime.GC()
	inUse := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(inUse)
	before, peak := inUse[0].Value.Uint64(), uint64(0)
	done := make(chan struct{})
	go func() {
		defer close(done)
		work()
	}()
	sample := time.NewTicker(time.Millisecond)
	defer sample.Stop()
	for {
		select {
		case <-done:
			return peak
		case <-sample.C:
			metrics.Read(inUse)
			if now := inUse[0].Value.Uint64(); now > before {
				peak = max(peak, now-before)
			}
		}
	}
}

// TestPullIsBoundedWhateverTheTextSays pulls signed texts that are made to keep
// their reader busy: a signer who lost a key must not cost a node more than
// one artifact.
func TestPullIsBoundedWhateverTheTextSays(t *testing.T) {
	const half = profile.MaxPayloadBytes / 2
	aa, end := "profile confine.web.x {\n", "}\n"
	block := "(block confine_web_x (blockinherit container)"
	for name, tc := range map[string]struct {
		file, text string
		want       error
	}{
		"parentheses, open":    {"x.cil", strings.Repeat("(", profile.MaxPayloadBytes), reason.ProfileInvalid},
		"parentheses, nested":  {"x.cil", strings.Repeat("(", half) + strings.Repeat(")", half), reason.ProfileInvalid},
		"parentheses, a block": {"x.cil", filled(block, "(a)", ")"), reason.ProfileInvalid},
		"statements, unknown":  {"x.cil", block + strings.Repeat("(a)", 30_000) + ")", reason.ProfileForbidden},
		"allow, again":         {"x.cil", block + strings.Repeat("(allow process self(fd(use)))", 4000) + ")", nil},
		"one long comment":     {"x.cil", filled(";", ";", "\n"+block+")"), nil},
		"braces, open":         {"x.aa", filled("", "profile a {\n", ""), reason.ProfileInvalid},
		"braces, blocks":       {"x.aa", filled(aa, "if $x {\n", ""), reason.ProfileInvalid},
		"alternatives, nested": {"x.aa", filled(aa+"/", "{a,", " r,\n"+end), reason.ProfileInvalid},
		"rules":                {"x.aa", filled(aa, "/a r,\n", end), reason.ProfileInvalid},
		"globs":                {"x.aa", aa + strings.Repeat("/**/a*b*c** w,\n", 9000) + "deny /** w,\n" + strings.Repeat("deny /**/d*[^e]** w,\n", 9000) + end, reason.ProfileForbidden},
		"variables": {
			"x.aa", "@{A} =" + strings.Repeat(" /proc/x", 500) + "\n@{B} = @{A}@{A}@{A}\n@{C} = @{B}@{B}@{B}\n" + aa + strings.Repeat("@{C}@{C} w,\n", 15_000) + end,
			reason.ProfileForbidden,
		},
		"comments": {"x.aa", filled("", "#\n", aa+end), nil},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			policy := w.policy()
			policy.AllowedKinds = kinds.All(nil).Names()
			d := w.sign(t, w.key, w.push(t, pack.Options{}, map[string]string{tc.file: tc.text}))
			began := time.Now()
			var err error
			peak := heapPeak(func() { _, err = pull(t, w, d, policy) }) >> 20
			took := time.Since(began)
			if !errors.Is(err, tc.want) {
				t.Errorf("got %.300v, want %v", fmt.Sprint(err), tc.want)
			}
			// The bounds are far off what is usual, for slow machines and the
			// race detector.
			t.Logf("%d bytes: %v, %d MiB", len(tc.text), took.Round(time.Millisecond), peak)
			if took > 30*time.Second || peak > 192 {
				t.Errorf("it took %v and %d MiB", took, peak)
			}
		})
	}
}
