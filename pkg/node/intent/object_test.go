package intent_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/confine-dev/confine/pkg/node/intent"
	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/reason"
)

const (
	goodEntry   = `{"namespace":"web","name":"nginx","uid":"u1","artifact":"` + pinned + `","createdAt":"2026-11-23T10:00:00Z"}`
	goodRelease = `{"namespace":"web","name":"old","removeAt":"2026-11-23T11:00:00Z"}`
)

func TestDecodeNode(t *testing.T) {
	nginx := profile.Owner{Namespace: "web", Name: "nginx"}
	for name, c := range map[string]struct {
		spec string
		// profiles and releases that are usable, and whose problems there are.
		profiles, releases int
		problems           []profile.Owner
		complete           bool
		says               string
	}{
		"nothing":            {spec: `{}`, complete: true},
		"no spec":            {spec: `null`, complete: true},
		"empty lists":        {spec: `{"profiles":[],"releases":[]}`, complete: true},
		"good":               {spec: `{"profiles":[` + goodEntry + `],"releases":[` + goodRelease + `]}`, profiles: 1, releases: 1, complete: true},
		"unknown constraint": {spec: `{"profiles":[` + strings.Replace(goodEntry, `"uid"`, `"onlyIf":"x","uid"`, 1) + `]}`, problems: []profile.Owner{nginx}, complete: true, says: "onlyIf"},
		"another case":       {spec: `{"profiles":[` + strings.Replace(goodEntry, `"artifact"`, `"Artifact"`, 1) + `]}`, problems: []profile.Owner{nginx}, complete: true, says: "Artifact"},
		"no digest":          {spec: `{"profiles":[{"namespace":"web","name":"nginx","uid":"u","artifact":"registry.example.com/web:v1"}]}`, problems: []profile.Owner{nginx}, complete: true, says: "artifact"},
		"kinds":              {spec: `{"profiles":[` + strings.Replace(goodEntry, `"uid"`, `"kinds":"Some","uid"`, 1) + `]}`, problems: []profile.Owner{nginx}, complete: true, says: "Some"},
		"wrong type":         {spec: `{"profiles":[{"namespace":"web","name":"nginx","artifact":7}]}`, problems: []profile.Owner{nginx}, complete: true},
		"long uid":           {spec: `{"profiles":[` + strings.Replace(goodEntry, `u1`, strings.Repeat("u", 65), 1) + `]}`, problems: []profile.Owner{nginx}, complete: true, says: "uid"},
		"climbing name":      {spec: `{"profiles":[` + strings.Replace(goodEntry, `nginx`, `../x`, 1) + `]}`, problems: []profile.Owner{{}}},
		"no namespace":       {spec: `{"profiles":[` + strings.Replace(goodEntry, `"web"`, `""`, 1) + `]}`, problems: []profile.Owner{{}}, says: "namespace"},
		"null entry":         {spec: `{"profiles":[null,` + goodEntry + `]}`, profiles: 1, problems: []profile.Owner{{}}},
		"text":               {spec: `{"profiles":["x"]}`, problems: []profile.Owner{{}}},
		"unknown field":      {spec: `{"profiles":[` + goodEntry + `],"mirrors":[]}`, profiles: 1, problems: []profile.Owner{{}}, says: "mirrors"},
		"no JSON":            {spec: `{`, problems: []profile.Owner{{}}},
		"no list":            {spec: `{"profiles":{}}`, problems: []profile.Owner{{}}},
		"release of later":   {spec: `{"releases":[` + strings.Replace(goodRelease, `"name"`, `"unless":1,"name"`, 1) + `,` + goodRelease + `]}`, releases: 1, problems: []profile.Owner{{}}, complete: true, says: "unless"},
	} {
		t.Run(name, func(t *testing.T) {
			got := intent.DecodeNode("ProfileNode n1", []byte(c.spec))
			if len(got.Profiles) != c.profiles || len(got.Releases) != c.releases || got.Complete != c.complete || !got.NeedsRelease {
				t.Errorf("got %+v", got)
			}
			var owners []profile.Owner
			for _, p := range got.Invalid {
				owners = append(owners, p.Owner)
				if p.Err == nil || !p.Err.Reason.Valid() || !strings.Contains(p.Err.Error(), c.says) {
					t.Errorf("problem %v, want one that says %q", p.Err, c.says)
				}
			}
			if diff := cmp.Diff(c.problems, owners); diff != "" {
				t.Errorf("problems (-want +got):\n%s", diff)
			}
		})
	}
}

func TestDecodeNodeTakesOverEverything(t *testing.T) {
	got := intent.DecodeNode("ProfileNode n1", []byte(`{"profiles":[`+strings.Replace(goodEntry, `"uid"`, `"kinds":"Required","uid"`, 1)+`]}`))
	if len(got.Profiles) != 1 {
		t.Fatalf("got %+v", got)
	}
	p := got.Profiles[0]
	if p.Owner != (profile.Owner{Namespace: "web", Name: "nginx"}) || p.UID != "u1" || !p.RequireAllKinds ||
		p.Artifact.String() != pinned || p.Origin != "SecurityProfile web/nginx" || !p.Created.Equal(time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)) {
		t.Errorf("got %+v", p)
	}
}

func TestReleased(t *testing.T) {
	at := time.Date(2026, 11, 23, 11, 0, 0, 0, time.UTC)
	old, other := profile.Owner{Namespace: "web", Name: "old"}, profile.Owner{Namespace: "web", Name: "other"}
	d := intent.Desired{NeedsRelease: true, Releases: []intent.Release{{Owner: old, RemoveAt: at}, {Owner: other}}}
	for name, c := range map[string]struct {
		owner profile.Owner
		due   time.Time
		want  bool
	}{
		"exactly":          {old, at, true},
		"in another zone":  {old, at.In(time.FixedZone("x", 3600)), true},
		"a second later":   {old, at.Add(time.Second), false},
		"a second earlier": {old, at.Add(-time.Second), false},
		"another profile":  {other, at, false},
		"no time at all":   {other, time.Time{}, false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := d.Released(c.owner, c.due); got != c.want {
				t.Errorf("got %v", got)
			}
		})
	}
	if !(intent.Desired{}).Released(old, at) {
		t.Error("a folder needs releases")
	}
}

func policyObject(spec string) []byte {
	return fmt.Appendf(nil, `{"apiVersion":"confine.dev/v1alpha1","kind":"TrustPolicy","metadata":{"name":"web","uid":"u","resourceVersion":"7",
"generation":1,"managedFields":[{"manager":"x"}],"fieldOfALaterServer":true},"status":{"x":1},"spec":%s}`, spec)
}

const goodSpec = `{"repositories":["registry.example.com/*"],"namespaces":["web"],"threshold":1,"allowedKinds":["seccomp"],"signers":[{"name":"a","key":{"pem":"x"}}]%s}`

func TestDecodePolicyObject(t *testing.T) {
	got, err := intent.DecodePolicyObject("TrustPolicy web", policyObject(fmt.Sprintf(goodSpec, "")))
	if err != nil || got.Name != "web" || got.Threshold != 1 || len(got.Signers) != 1 {
		t.Errorf("got %+v, %v", got, err)
	}
	for name, data := range map[string][]byte{
		"unknown constraint": policyObject(fmt.Sprintf(goodSpec, `,"notOnFridays":true`)),
		"another case":       policyObject(fmt.Sprintf(goodSpec, `,"RequireName":true`)),
		"unknown within":     policyObject(fmt.Sprintf(goodSpec, `,"constraints":{"seccomp":{"deniedFlags":["x"]}}`)),
		"null":               policyObject(fmt.Sprintf(goodSpec, `,"revoked":null`)),
		"beside spec":        []byte(strings.Replace(string(policyObject(fmt.Sprintf(goodSpec, ""))), `"status"`, `"limits"`, 1)),
		"another kind":       []byte(strings.Replace(string(policyObject(fmt.Sprintf(goodSpec, ""))), `"TrustPolicy"`, `"TrustPolicies"`, 1)),
		"another version":    []byte(strings.Replace(string(policyObject(fmt.Sprintf(goodSpec, ""))), `v1alpha1`, `v1`, 1)),
		"no JSON":            []byte("{"),
		"nothing":            nil,
		"too large":          policyObject(fmt.Sprintf(goodSpec, strings.Repeat(" ", intent.MaxFileBytes))),
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := intent.DecodePolicyObject("TrustPolicy web", data); !errors.Is(err, reason.TrustPolicyInvalid) {
				t.Errorf("got %v, want TrustPolicyInvalid", err)
			}
		})
	}
}

func FuzzDecodeNode(f *testing.F) {
	f.Add([]byte(`{"profiles":[` + goodEntry + `],"releases":[` + goodRelease + `]}`))
	f.Fuzz(func(t *testing.T, spec []byte) {
		d := intent.DecodeNode("n", spec)
		if !d.NeedsRelease {
			t.Error("no release is needed")
		}
		for _, p := range d.Profiles {
			if p.Owner.Namespace == "" || p.Owner.Name == "" || p.Artifact.Digest == "" || strings.ContainsAny(p.Owner.String(), " \n\\") {
				t.Errorf("%+v was taken", p)
			}
		}
		for _, p := range d.Invalid {
			if p.Err == nil {
				t.Error("a problem without a reason")
			}
		}
	})
}
