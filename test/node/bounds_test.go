package node_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/confine-dev/confine/pkg/node/cluster"
	"github.com/confine-dev/confine/pkg/node/status"
	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/reason"
)

// TestTheServerTakesEveryReport gives the API server reports at and beyond its
// bounds: one that it refused as a whole would leave the node without a voice.
func TestTheServerTakesEveryReport(t *testing.T) {
	long := strings.Repeat("é", 5000)
	wild := status.Profile{
		Owner: profile.Owner{Namespace: strings.Repeat("n", 63), Name: strings.Repeat("m", 63)}, Origin: "x", UID: long,
		Artifact: long, WantedDigest: "sha512:x", InstalledDigest: "none", Policies: long,
		Removal: &status.Removal{At: time.Now(), References: []string{"", long}},
	}
	wild.Set(status.Condition{Type: status.Ready, Status: status.False, Reason: "not a word", Message: long})
	wild.Set(status.Condition{Type: status.Degraded, Status: status.True, Reason: reason.Revoked, Message: "\n"})
	for i := range 30 {
		k := status.Kind{Name: fmt.Sprintf("kind%d", i), Reason: "no word", Message: long}
		for j := range 100 {
			k.References = append(k.References, fmt.Sprintf("%s%d", strings.Repeat("r", 300), j))
		}
		wild.Kinds = append(wild.Kinds, k, status.Kind{Name: k.Name, References: []string{"", long}})
	}
	whole := wild
	whole.WantedDigest, whole.Removal = digest.FromString("x"), &status.Removal{At: time.Now(), References: wild.Kinds[0].References[:64]}
	for name, r := range map[string]status.Report{
		"empty":           {},
		"an odd profile":  {Version: "v", Profiles: []status.Profile{wild, {}, {Owner: profile.Owner{Namespace: "a.b", Name: "c"}}}},
		"a whole profile": {Version: long, Profiles: []status.Profile{whole}},
		"odd problems":    {Problems: []status.Problem{{}, {Origin: long, Reason: "", Message: long}, {Reason: reason.Revoked}}},
		"odd kinds":       {Kinds: []status.HostKind{{Name: "seccomp", Reason: "x", Message: long}}},
		"many": func() status.Report {
			var r status.Report
			for i := range 800 {
				p := whole
				p.Owner.Name = fmt.Sprintf("p%d", i)
				r.Profiles = append(r.Profiles, p)
			}
			return r
		}(),
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			s.name = "bounds"
			s.assign()
			encoded, err := cluster.Encode(cluster.StatusOf(r, "uid"))
			s.must(err)
			body, err := json.Marshal(map[string]any{"apiVersion": "confine.dev/v1alpha1", "kind": "ProfileNode",
				"metadata": map[string]any{"name": s.name}, "status": json.RawMessage(encoded)})
			s.must(err)
			if _, err := s.resource("profilenodes").Patch(t.Context(), s.name, types.ApplyPatchType, body, metav1.PatchOptions{FieldManager: "test"}, "status"); err != nil {
				t.Errorf("%.1000v", err)
			}
		})
	}
}
