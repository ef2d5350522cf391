package artifact_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/confine-dev/confine/pkg/artifact"
	"github.com/confine-dev/confine/pkg/artifact/pack"
	"github.com/confine-dev/confine/pkg/artifact/trust"
	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/profile/kinds"
	"github.com/confine-dev/confine/pkg/reason"
)

// TestPullJudgesEveryKind: whatever this node can install, an artifact is
// judged as a whole, for the namespace that wants it.
func TestPullJudgesEveryKind(t *testing.T) {
	const (
		ownAppArmor = "profile confine.web.x {\n  /x r,\n}\n"
		ownSELinux  = "(block confine_web_x (blockinherit container))\n"
	)
	for name, tc := range map[string]struct {
		files  map[string]string
		limits map[string]json.RawMessage
		want   error
	}{
		"all three":             {map[string]string{"a.json": goodProfile, "b.aa": ownAppArmor, "c.cil": ownSELinux}, nil, nil},
		"broken AppArmor":       {map[string]string{"a.json": goodProfile, "b.aa": "profile confine.web.x {\n"}, nil, reason.ProfileInvalid},
		"broken CIL":            {map[string]string{"a.json": goodProfile, "c.cil": "(block confine_web_x"}, nil, reason.ProfileInvalid},
		"AppArmor of another":   {map[string]string{"a.json": goodProfile, "b.aa": "profile confine.shop.x {\n}\n"}, nil, reason.ProfileForbidden},
		"SELinux of another":    {map[string]string{"a.json": goodProfile, "c.cil": "(block confine_shop_x (blockinherit container))"}, nil, reason.ProfileForbidden},
		"AppArmor of no one":    {map[string]string{"b.aa": "profile nginx {\n}\n", "c.cil": ownSELinux}, nil, reason.ProfileForbidden},
		"that a policy lists":   {map[string]string{"b.aa": "profile nginx {\n}\n"}, map[string]json.RawMessage{"apparmor": json.RawMessage(`{"allowedNames":["nginx"]}`)}, nil},
		"a block that it lists": {map[string]string{"c.cil": "(block nginx (blockinherit container))"}, map[string]json.RawMessage{"selinux": json.RawMessage(`{"allowedBlocks":["nginx"]}`)}, nil},
		"mounts":                {map[string]string{"b.aa": "profile confine.web.x {\n  mount,\n}\n"}, nil, reason.ProfileForbidden},
		"mounts, by policy":     {map[string]string{"b.aa": "profile confine.web.x {\n  mount,\n}\n"}, map[string]json.RawMessage{"apparmor": json.RawMessage(`{"allowedRules":["mount"]}`)}, nil},
		"no limits of a kind":   {map[string]string{"b.aa": ownAppArmor}, map[string]json.RawMessage{"apparmor": json.RawMessage(`{"allowedEverything":[]}`)}, reason.TrustPolicyInvalid},
		"the first of two":      {map[string]string{"a.aa": "profile confine.shop.x {\n}\n", "b.aa": ownAppArmor}, nil, reason.ProfileForbidden},
		"the second of two":     {map[string]string{"a.aa": ownAppArmor, "b.aa": "profile confine.shop.x {\n}\n"}, nil, reason.ProfileForbidden},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			policy := w.policy()
			policy.Limits, policy.AllowedKinds = tc.limits, kinds.All(nil).Names()
			art, err := pull(t, w, w.sign(t, w.key, w.push(t, pack.Options{}, tc.files)), policy)
			if !errors.Is(err, tc.want) {
				t.Fatalf("got %v, want %v", err, tc.want)
			}
			if (art != nil) != (err == nil) {
				t.Fatalf("the artifact is %v", art)
			}
			if art == nil {
				return
			}
			if len(art.Payloads) != len(tc.files) {
				t.Errorf("%d payloads", len(art.Payloads))
			}
			for _, p := range art.Payloads {
				if p.Profile == nil || p.Profile.Kind() != p.Kind {
					t.Errorf("%s of kind %s was not judged", p.File, p.Kind)
				}
			}
		})
	}
}

// TestOneArtifactForTwoNamespaces: a puller that judged an artifact for the
// namespace that its names belong to judges it anew for another.
func TestOneArtifactForTwoNamespaces(t *testing.T) {
	w := newWorld(t)
	policy := w.policy()
	policy.Namespaces, policy.AllowedKinds = []string{"*"}, kinds.All(nil).Names()
	compiled, err := trust.Compile([]trust.Policy{policy})
	if err != nil {
		t.Fatal(err)
	}
	puller := artifact.NewPuller(artifact.PullerOptions{Kinds: kinds.All(nil)})
	for name, text := range map[string]string{
		"x.aa": "profile confine.web.x {\n}\n", "x.cil": "(block confine_web_x (blockinherit container))",
	} {
		d := w.sign(t, w.key, w.push(t, pack.Options{}, map[string]string{name: text}))
		for _, tc := range []struct {
			namespace string
			want      error
		}{{"web", nil}, {"shop", reason.ProfileForbidden}, {"web", nil}, {"web-x", reason.ProfileForbidden}, {"", reason.ProfileForbidden}} {
			req := request(t, d)
			req.Owner = profile.Owner{Namespace: tc.namespace, Name: "web"}
			if _, err := puller.Pull(t.Context(), w, compiled, req); !errors.Is(err, tc.want) {
				t.Errorf("%s for %q: got %v, want %v", name, tc.namespace, err, tc.want)
			}
		}
	}
}

// watched is a kind that says when it reads a payload.
type watched struct {
	profile.Kind
	reads func()
}

func (k watched) Parse(file string, data []byte) (profile.Profile, error) {
	k.reads()
	return k.Kind.Parse(file, data)
}

// TestJudgingIsBounded lets every payload take seconds, and ends the pull while
// one is read.
func TestJudgingIsBounded(t *testing.T) {
	const payloads = 20
	for name, tc := range map[string]struct {
		takes time.Duration // each payload
		bound time.Duration
		ends  int // the read after which the pull is no longer wanted
		reads int
		slow  bool
		want  error
	}{
		"quick":             {takes: time.Millisecond, reads: payloads},
		"slow":              {takes: 3 * time.Second, reads: 11, slow: true, want: reason.TooLarge},
		"a bound of one's":  {takes: 3 * time.Second, bound: time.Hour, reads: payloads},
		"slow for another":  {takes: time.Second, bound: 4500 * time.Millisecond, reads: 5, slow: true, want: reason.TooLarge},
		"no longer wanted":  {takes: time.Second, ends: 2, reads: 2, want: reason.InstallFailed},
		"at the very first": {takes: time.Second, ends: 1, reads: 1, want: reason.InstallFailed},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			files := map[string]string{}
			for i := range payloads {
				files[fmt.Sprintf("%d.json", i)] = goodProfile
			}
			d := w.sign(t, w.key, w.push(t, pack.Options{}, files))
			compiled, err := trust.Compile([]trust.Policy{w.policy()})
			if err != nil {
				t.Fatal(err)
			}
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				seccomp, _ := kinds.All(nil).ByName("seccomp")
				reads := 0
				kind := watched{seccomp, func() {
					time.Sleep(tc.takes) //nolint:forbidigo // the bubble's clock: nobody waits
					if reads++; reads == tc.ends {
						cancel()
					}
				}}
				puller := artifact.NewPuller(artifact.PullerOptions{Kinds: profile.NewSet(kind), JudgeTime: tc.bound})
				art, err := puller.Pull(ctx, w, compiled, request(t, d))
				if !errors.Is(err, tc.want) || errors.Is(err, artifact.ErrSlow) != tc.slow || (art == nil) == (err == nil) {
					t.Errorf("got %v and %v, want %v", art, err, tc.want)
				}
				if reads != tc.reads {
					t.Errorf("%d payloads were read, want %d", reads, tc.reads)
				}
			})
		})
	}
}
