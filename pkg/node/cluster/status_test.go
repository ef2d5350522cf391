package cluster

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/confine-dev/confine/api/v1alpha1"
	"github.com/confine-dev/confine/pkg/node/status"
	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/reason"
)

var (
	wanted    = digest.FromString("wanted")
	before    = digest.FromString("before")
	someTime  = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	nginx     = profile.Owner{Namespace: "web", Name: "nginx"}
	signed    = status.Condition{Type: status.Verified, Status: status.True, Reason: status.Signed}
	inForce   = status.Condition{Type: status.Ready, Status: status.True, Reason: status.Installed}
	underWay  = status.Condition{Type: status.Ready, Status: status.Unknown, Reason: status.Pending, Message: "it is being pulled"}
	asWanted  = status.Condition{Type: status.Degraded, Status: status.False, Reason: status.AsWanted}
	unsigned  = status.Condition{Type: status.Verified, Status: status.False, Reason: reason.SignatureMissing, Message: "no signature; sign it"}
	noneReady = status.Condition{Type: status.Ready, Status: status.False, Reason: reason.SignatureMissing, Message: "no signature; sign it"}
)

func described(installed digest.Digest, conditions ...status.Condition) status.Profile {
	return status.Profile{
		Owner: nginx, Origin: "SecurityProfile web/nginx", UID: "u", WantedDigest: wanted, InstalledDigest: installed,
		Conditions: conditions, Policies: "0123456789abcdef",
	}
}

func TestReportOf(t *testing.T) {
	base := v1alpha1.ProfileReport{Namespace: "web", Name: "nginx", UID: "u", WantedDigest: wanted.String(), Policies: "0123456789abcdef"}
	with := func(change func(*v1alpha1.ProfileReport)) v1alpha1.ProfileReport { r := base; change(&r); return r }
	many := make([]string, maxRemoving+1)
	for i := range many {
		many[i] = fmt.Sprintf("confine/web/nginx/%d.json", i)
	}
	for name, c := range map[string]struct {
		profile status.Profile
		want    v1alpha1.ProfileReport
	}{
		"installed": {
			func() status.Profile {
				p := described(wanted, signed, inForce, asWanted)
				p.Since = someTime
				p.Kinds = []status.Kind{{Name: "seccomp", InstalledDigest: wanted, References: []string{"confine/web/nginx/a.json"}}}
				return p
			}(),
			with(func(r *v1alpha1.ProfileReport) {
				r.State, r.Verified, r.InstalledDigest, r.Since = v1alpha1.StateInstalled, metav1.ConditionTrue, wanted.String(), metav1.NewTime(someTime)
				r.Kinds = []v1alpha1.KindReport{{Name: "seccomp", References: []string{"confine/web/nginx/a.json"}}}
			}),
		},
		"installed without a kind": {
			func() status.Profile {
				ready := inForce
				ready.Message = "not supported on this node, and not required: apparmor"
				p := described(wanted, signed, ready, asWanted)
				p.Kinds = []status.Kind{{Name: "apparmor", Reason: reason.KindUnsupported, Message: "no"}}
				return p
			}(),
			with(func(r *v1alpha1.ProfileReport) {
				r.State, r.Verified, r.InstalledDigest = v1alpha1.StateInstalled, metav1.ConditionTrue, wanted.String()
				r.Message = "not supported on this node, and not required: apparmor"
				r.Kinds = []v1alpha1.KindReport{{Name: "apparmor", Reason: "KindUnsupported"}}
			}),
		},
		"being pulled": {
			described(before, status.Condition{Type: status.Verified, Status: status.Unknown, Reason: status.Pending}, underWay, asWanted),
			with(func(r *v1alpha1.ProfileReport) {
				r.State, r.Verified, r.InstalledDigest, r.Message = v1alpha1.StatePending, metav1.ConditionUnknown, before.String(), "it is being pulled"
			}),
		},
		"refused": {
			described(before, unsigned, noneReady, asWanted),
			with(func(r *v1alpha1.ProfileReport) {
				r.State, r.Verified, r.InstalledDigest = v1alpha1.StateFailed, metav1.ConditionFalse, before.String()
				r.Reason, r.Message = "SignatureMissing", "no signature; sign it"
			}),
		},
		"the registry is away": {
			described("", status.Condition{Type: status.Verified, Status: status.Unknown, Reason: reason.RegistryUnavailable},
				status.Condition{Type: status.Ready, Status: status.False, Reason: reason.RegistryUnavailable, Message: "refused"}, asWanted),
			with(func(r *v1alpha1.ProfileReport) {
				r.State, r.Verified, r.Reason, r.Message = v1alpha1.StatePending, metav1.ConditionUnknown, "RegistryUnavailable", "refused"
			}),
		},
		"no room": {
			described(before, signed, status.Condition{Type: status.Ready, Status: status.False, Reason: reason.NoSpace, Message: "full"},
				status.Condition{Type: status.Degraded, Status: status.True, Reason: reason.NoSpace}),
			with(func(r *v1alpha1.ProfileReport) {
				r.State, r.Verified, r.InstalledDigest, r.Degraded = v1alpha1.StateFailed, metav1.ConditionTrue, before.String(), true
				r.Reason, r.Message = "NoSpace", "full"
			}),
		},
		"revoked and in force": {
			described(wanted, status.Condition{Type: status.Verified, Status: status.False, Reason: reason.Revoked, Message: "revoked"}, inForce,
				status.Condition{Type: status.Degraded, Status: status.True, Reason: reason.Revoked}),
			with(func(r *v1alpha1.ProfileReport) {
				r.State, r.Verified, r.InstalledDigest, r.Degraded = v1alpha1.StateInstalled, metav1.ConditionFalse, wanted.String(), true
				r.Reason, r.Message = "Revoked", "revoked"
			}),
		},
		"nobody wants it": {
			status.Profile{Owner: nginx, InstalledDigest: before, RemoveAt: someTime,
				Removal:    &status.Removal{At: someTime, References: []string{"confine/web/nginx/a.json"}},
				Conditions: []status.Condition{{Type: status.Ready, Status: status.False, Reason: status.Pending, Message: "it goes"}}},
			v1alpha1.ProfileReport{
				Namespace: "web", Name: "nginx", InstalledDigest: before.String(), State: v1alpha1.StateRemoving, Verified: metav1.ConditionUnknown,
				Message: "it goes", Removing: []string{"confine/web/nginx/a.json"}, RemoveAt: metav1.NewTime(someTime),
			},
		},
		"as much goes as can be named": {
			status.Profile{Owner: nginx, InstalledDigest: before, Removal: &status.Removal{At: someTime, References: many[1:]}},
			v1alpha1.ProfileReport{Namespace: "web", Name: "nginx", InstalledDigest: before.String(), State: v1alpha1.StateRemoving, Verified: metav1.ConditionUnknown,
				Removing: many[1:], RemoveAt: metav1.NewTime(someTime)},
		},
		"too much goes to name it": {
			status.Profile{Owner: nginx, InstalledDigest: before, Removal: &status.Removal{At: someTime, References: many}},
			v1alpha1.ProfileReport{Namespace: "web", Name: "nginx", InstalledDigest: before.String(), State: v1alpha1.StateRemoving, Verified: metav1.ConditionUnknown},
		},
		"nothing that goes can be named": {
			status.Profile{Owner: nginx, InstalledDigest: before, Removal: &status.Removal{At: someTime}},
			v1alpha1.ProfileReport{Namespace: "web", Name: "nginx", InstalledDigest: before.String(), State: v1alpha1.StateRemoving, Verified: metav1.ConditionUnknown},
		},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, reportOf(c.profile)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestStatusOf(t *testing.T) {
	removing := status.Profile{Owner: profile.Owner{Namespace: "web", Name: "old"}}
	standalone := status.Profile{Owner: profile.Owner{Namespace: "web", Name: "name.with.dots"}}
	problems := []status.Problem{{Origin: "SecurityProfile web/x", Reason: reason.ProfileInvalid, Message: "m"}}
	for i := range 9 {
		problems = append(problems, status.Problem{Origin: fmt.Sprintf("p%d", i), Reason: "Unheard", Message: strings.Repeat("é", 400)})
	}
	s := StatusOf(status.Report{
		Version: strings.Repeat("v", 70), Kinds: []status.HostKind{{Name: "alpha"}, {Name: "beta", Reason: reason.KindUnsupported, Message: "no"}},
		Profiles: []status.Profile{standalone, described(wanted, signed, inForce), described("", unsigned, noneReady), described("", underWay), removing}, Problems: problems,
	}, "node-uid")
	if diff := cmp.Diff(&v1alpha1.NodeSummary{Assigned: 3, Installed: 1, Failed: 1}, s.Summary); diff != "" {
		t.Errorf("summary (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]v1alpha1.NodeKind{{Name: "alpha", Supported: true}, {Name: "beta", Message: "no"}}, s.Kinds); diff != "" {
		t.Errorf("kinds (-want +got):\n%s", diff)
	}
	if s.NodeUID != "node-uid" || len(s.AgentVersion) != 64 || len(s.Profiles) != 4 || len(s.Problems) != 8 {
		t.Errorf("got %+v", s)
	}
	for _, p := range s.Problems {
		if len(p.Message) > 512 || strings.HasPrefix(p.Message, "SecurityProfile") || !reason.Reason(p.Reason).Valid() {
			t.Errorf("problem %+v", p)
		}
	}
}

func TestWhatIsAssignedIsReportedFirst(t *testing.T) {
	var r status.Report
	for i := range 700 {
		p := described(wanted, signed, inForce)
		p.Owner.Name = fmt.Sprintf("p%03d", i)
		if i%3 > 0 {
			p = status.Profile{Owner: p.Owner}
		}
		r.Profiles = append(r.Profiles, p)
	}
	s := StatusOf(r, "")
	if len(s.Profiles) != 500 || s.Summary.Assigned != 234 {
		t.Errorf("%d reports, %+v", len(s.Profiles), s.Summary)
	}
	for i := 1; i < len(s.Profiles); i++ {
		if s.Profiles[i-1].Name >= s.Profiles[i].Name {
			t.Fatalf("%s before %s", s.Profiles[i-1].Name, s.Profiles[i].Name)
		}
	}
}

// largest is as large as a status gets within the API's bounds.
func largest(reports, references int) v1alpha1.ProfileNodeStatus {
	var s v1alpha1.ProfileNodeStatus
	for i := range reports {
		r := v1alpha1.ProfileReport{
			Namespace: strings.Repeat("n", 63), Name: fmt.Sprintf("%063d", i), WantedDigest: wanted.String(), State: v1alpha1.StateFailed,
			Message: strings.Repeat("m", 256), Kinds: []v1alpha1.KindReport{{Name: "seccomp"}}, RemoveAt: metav1.NewTime(someTime),
		}
		for range references {
			r.Kinds[0].References = append(r.Kinds[0].References, strings.Repeat("r", 300))
			r.Removing = append(r.Removing, strings.Repeat("r", 300))
		}
		s.Profiles = append(s.Profiles, r)
	}
	return s
}

func TestEncodeStaysInItsBound(t *testing.T) {
	for name, c := range map[string]struct {
		reports, references int
		// how many keep what, and the first of each keeps it longest
		referenced, messages, removing func(n int) bool
	}{
		"all fits":            {100, 1, is(100), is(100), is(100)},
		"references go first": {500, 3, between(1, 400), is(500), is(500)},
		"then messages":       {500, 9, is(0), between(0, 499), is(250)},
		"then what goes":      {500, 60, is(0), is(0), between(1, 60)},
	} {
		t.Run(name, func(t *testing.T) {
			s := largest(c.reports, c.references)
			if name == "then messages" {
				for i := range s.Profiles {
					if i%2 == 0 {
						s.Profiles[i].Removing, s.Profiles[i].RemoveAt = nil, metav1.Time{}
					}
				}
			}
			data, err := Encode(s)
			if err != nil || len(data) > MaxStatusBytes {
				t.Fatalf("%d bytes, %v", len(data), err)
			}
			var got v1alpha1.ProfileNodeStatus
			if err := json.Unmarshal(data, &got); err != nil {
				t.Fatal(err)
			}
			referenced, messages, removing := 0, 0, 0
			for _, r := range got.Profiles {
				referenced += min(1, len(r.Kinds[0].References))
				messages += min(1, len(r.Message))
				if len(r.Removing) > 0 {
					removing++
				}
				if (len(r.Removing) == 0) != r.RemoveAt.IsZero() || len(r.Removing) > 0 && len(r.Removing) != c.references {
					t.Fatalf("a part of what goes at %v: %d", r.RemoveAt, len(r.Removing))
				}
			}
			if !c.referenced(referenced) || !c.messages(messages) || !c.removing(removing) || len(got.Profiles) != c.reports {
				t.Errorf("%d reports: %d with references, %d with messages, %d removing", len(got.Profiles), referenced, messages, removing)
			}
		})
	}
}

func is(want int) func(int) bool      { return func(n int) bool { return n == want } }
func between(a, b int) func(int) bool { return func(n int) bool { return a <= n && n <= b } }
