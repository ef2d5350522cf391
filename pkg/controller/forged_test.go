package controller_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/confine-dev/confine/api/v1alpha1"
)

// Whoever has the token of one node's agent can write into that node's status
// whatever the API takes. Of what all nodes report one status is made: no word
// of one node may make that status unwritable, or crowd out what others say.
func TestForgedReferencesLeaveTheStatusAsItIs(t *testing.T) {
	for name, forged := range map[string][]v1alpha1.KindReport{
		"control characters": {{Name: "seccomp", References: []string{"a\x00b", "\x00", "x\x1b[2Jy", "line\nbreak", "\u202ereversed"}}},
		"as many as go": {{Name: "aaa", References: func() (many []string) {
			for i := range 64 {
				many = append(many, fmt.Sprintf("%02d-%s", i, strings.Repeat("ü", 500)))
			}
			return many
		}()}},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFleet(t, "honest-1", "honest-2", "liar")
			f.answers(func(node string, a v1alpha1.AssignedProfile) *v1alpha1.ProfileReport {
				r := installs(node, a)
				if node == "liar" {
					r.Kinds = append(r.Kinds, forged...)
					r.Since = metav1.NewTime(time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC))
				}
				return r
			})
			f.start()
			f.addProfile("nginx", v1alpha1.SecurityProfileSpec{Artifact: artifact(1)})
			f.awaitCondition("nginx", v1alpha1.ConditionProgressing, metav1.ConditionFalse, v1alpha1.ReasonRolloutComplete)
			p := f.awaitCondition("nginx", v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonAsWanted)
			true1 := v1alpha1.PayloadReference{Kind: "seccomp", Name: "confine/web/nginx/profile.json"}
			if !slices.Contains(p.Status.References, true1) {
				t.Errorf("what two nodes of three say is not in %d references", len(p.Status.References))
			}
			for _, r := range p.Status.References {
				if strings.ContainsFunc(r.Name, func(c rune) bool { return c < ' ' || c == '\u202e' }) {
					t.Errorf("reference %q", r.Name)
				}
			}
		})
	}
}
