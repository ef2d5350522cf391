package artifact

import (
	"fmt"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/confine-dev/confine/pkg/artifact/trust"
)

func keyOf(i int) passKey { return passKey{object: fmt.Sprint(i)} }

func seenOnly(n int) pass {
	var p pass
	for i := range n {
		p.add(digest.FromString(fmt.Sprint(i)))
	}
	return p
}

// Whoever may push and sign decides how many verifications stay unfinished,
// and how large what counted is. Neither may fill the memory.
func TestUnfinishedVerificationsAreBounded(t *testing.T) {
	padded := seenOnly(1)
	padded.counted = []trust.Candidate{{Payload: make([]byte, trust.MaxCandidateBytes)}}
	for name, unfinished := range map[string]pass{"small": seenOnly(1), "many seen": seenOnly(MaxReferrers), "padded signatures": padded} {
		t.Run(name, func(t *testing.T) {
			var p passes
			for i := range 2 * maxUnfinished {
				p.put(keyOf(i%(maxUnfinished+20)), unfinished)
				if len(p.open) > maxUnfinished || len(p.old) != len(p.open) || p.bytes > maxUnfinishedBytes {
					t.Fatalf("%d open, %d in order, %d bytes", len(p.open), len(p.old), p.bytes)
				}
			}
			newest := keyOf((2*maxUnfinished - 1) % (maxUnfinished + 20))
			if got := p.take(newest); len(got.seen) != len(unfinished.seen) {
				t.Errorf("the newest has %d seen", len(got.seen))
			}
			for _, key := range append([]passKey{}, p.old...) {
				p.take(key)
			}
			if p.bytes != 0 || len(p.old) != 0 || len(p.open) != 0 {
				t.Errorf("after taking all: %d bytes, %d, %d", p.bytes, len(p.old), len(p.open))
			}
		})
	}
}

// Labels come from the side that is not trusted.
func TestLabelsThatAreNoDigestsAreNotKept(t *testing.T) {
	var p pass
	for _, id := range []string{"", "x", ":", "sha256:", strings.Repeat("a", 1<<20), "sha512:" + strings.Repeat("a", 128), "sha256:" + strings.Repeat("A", 64)} {
		p.add(digest.Digest(id))
		p.skip(&SkippedError{ID: digest.Digest(id)})
	}
	if len(p.seen) != 0 || len(p.unread) != 0 {
		t.Errorf("kept %v and %v", p.seen, p.unread)
	}
}

func TestMoreLabelsThanAnArtifactCanHaveBeginAnew(t *testing.T) {
	var p passes
	p.put(keyOf(1), seenOnly(maxSeen+1))
	if got := p.take(keyOf(1)); len(got.seen) != 0 {
		t.Errorf("%d labels were kept", len(got.seen))
	}
}
