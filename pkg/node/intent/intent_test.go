package intent_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/confine-dev/confine/pkg/node/intent"
	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/reason"
)

const (
	pinned   = "registry.example.com/profiles/web@sha256:4f2f7b1b5e7d4bb9a0a8a2d0a6ba4f0cf0ac2e5c6d8e5a7b9c1d3e5f70819203"
	profile1 = `apiVersion: confine.dev/v1alpha1
kind: SecurityProfile
metadata: {namespace: web, name: nginx}
spec: {artifact: ` + pinned + `}
`
	publicKey = `        -----BEGIN PUBLIC KEY-----
        MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEb8C9C2HnbKiM4HUJ0XeqI7pW5nZB
        PUBLICKEYBODY
        -----END PUBLIC KEY-----
`
)

func write(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func owners(profiles []intent.Profile) []string {
	var names []string
	for _, p := range profiles {
		names = append(names, p.Owner.String())
	}
	return names
}

func TestReadProfiles(t *testing.T) {
	dir := write(t, map[string]string{
		"a.yaml": profile1 + "---\n" + strings.Replace(profile1, "nginx", "other", 1) + "---\n",
		"b.json": `{"apiVersion":"confine.dev/v1alpha1","kind":"SecurityProfile","metadata":{"name":"plain"},
			"spec":{"artifact":"` + pinned + `","kinds":"Required"}}`,
		".hidden.yaml": "not: [yaml",
		"README.md":    "# no manifest",
		"empty.yaml":   "# only a comment\n",
	})
	got, err := intent.ReadProfiles(dir)
	if err != nil {
		t.Fatal(err)
	}
	if !got.Complete || len(got.Invalid) != 0 {
		t.Errorf("complete %v, invalid %v", got.Complete, got.Invalid)
	}
	if diff := cmp.Diff([]string{"web/nginx", "web/other", "default/plain"}, owners(got.Profiles)); diff != "" {
		t.Error(diff)
	}
	if got.Profiles[0].RequireAllKinds || !got.Profiles[2].RequireAllKinds {
		t.Errorf("kinds were not read: %+v", got.Profiles)
	}
	if got.Profiles[1].Origin != "a.yaml#2" {
		t.Errorf("origin %q", got.Profiles[1].Origin)
	}
}

// What cannot be read keeps what is installed: for its owner where that is
// known, for everybody where it is not.
func TestReadProfilesReportsWhatItCannotUse(t *testing.T) {
	web := profile.Owner{Namespace: "web", Name: "nginx"}
	for name, tc := range map[string]struct {
		data     string
		owner    profile.Owner
		complete bool
		want     string
	}{
		"no yaml":               {"a: [", profile.Owner{}, false, "did not find expected"},
		"another kind":          {strings.Replace(profile1, "SecurityProfile", "TrustPolicy", 1), profile.Owner{}, false, "only a SecurityProfile"},
		"another version":       {strings.Replace(profile1, "v1alpha1", "v9", 1), profile.Owner{}, false, "confine.dev/v9"},
		"unknown field":         {strings.Replace(profile1, "spec: {", "spec: {content: x, ", 1), web, true, "content"},
		"name in another case":  {strings.Replace(profile1, "artifact:", "Artifact:", 1), web, true, "Artifact"},
		"repeated field":        {profile1 + "spec: {artifact: x}\n", profile.Owner{}, false, "spec"},
		"no digest":             {strings.Replace(profile1, "@sha256:", ":tag-", 1), web, true, "digest"},
		"unknown kinds policy":  {strings.Replace(profile1, "spec: {", "spec: {kinds: Perhaps, ", 1), web, true, "Perhaps"},
		"path as name":          {strings.Replace(profile1, "name: nginx", "name: ../../etc", 1), profile.Owner{}, false, "metadata.name"},
		"path as namespace":     {strings.Replace(profile1, "namespace: web", "namespace: a/b", 1), profile.Owner{}, false, "metadata.namespace"},
		"no name":               {strings.Replace(profile1, "name: nginx", "labels: {}", 1), profile.Owner{}, false, "metadata.name"},
		"a list at the top":     {"- a\n- b\n", profile.Owner{}, false, ""},
		"anchors that multiply": {bomb(), profile.Owner{}, false, ""},
	} {
		t.Run(name, func(t *testing.T) {
			got := intent.DecodeProfiles("a.yaml", []byte(tc.data))
			if len(got.Profiles) != 0 || len(got.Invalid) != 1 {
				t.Fatalf("profiles %v, invalid %v", got.Profiles, got.Invalid)
			}
			problem := got.Invalid[0]
			if problem.Owner != tc.owner || got.Complete != tc.complete {
				t.Errorf("owner %v, complete %v", problem.Owner, got.Complete)
			}
			if !strings.Contains(problem.Err.Error(), tc.want) || !problem.Err.Reason.Valid() || !strings.HasPrefix(problem.Err.Object, "a.yaml") {
				t.Errorf("error %v", problem.Err)
			}
		})
	}
}

// bomb is a document whose aliases would grow to a billion nodes.
func bomb() string {
	var b strings.Builder
	b.WriteString("a: &a [x,x,x,x,x,x,x,x,x,x]\n")
	for c := 'b'; c <= 'j'; c++ {
		p := string(c - 1)
		b.WriteString(string(c) + ": &" + string(c) + " [" + strings.Repeat("*"+p+",", 9) + "*" + p + "]\n")
	}
	return b.String()
}

func TestReadProfilesBounds(t *testing.T) {
	dir := write(t, map[string]string{"big.yaml": strings.Repeat("#", intent.MaxFileBytes+1), "ok.yaml": profile1})
	got, err := intent.ReadProfiles(dir)
	if err != nil {
		t.Fatal(err)
	}
	if got.Complete || len(got.Profiles) != 1 || len(got.Invalid) != 1 {
		t.Errorf("%+v", got)
	}
	if _, err := intent.ReadProfiles(filepath.Join(dir, "absent")); err == nil {
		t.Error("an absent folder reads as an empty one")
	}
}

func TestReadProfilesReportsUnreadableFiles(t *testing.T) {
	dir := write(t, map[string]string{"ok.yaml": profile1})
	if err := os.Symlink("nowhere", filepath.Join(dir, "gone.yaml")); err != nil {
		t.Fatal(err)
	}
	got, err := intent.ReadProfiles(dir)
	if err != nil {
		t.Fatal(err)
	}
	if got.Complete || len(got.Profiles) != 1 || len(got.Invalid) != 1 {
		t.Errorf("%+v", got)
	}
}

const policyHead = `apiVersion: confine.dev/v1alpha1
kind: TrustPolicy
metadata: {name: web}
spec:
  repositories: ["registry.example.com/profiles/*"]
  namespaces: [web]
  threshold: 1
  allowedKinds: [seccomp]
`

func policyWith(key, more string) string {
	return policyHead + more + "  signers:\n  - name: team\n    key:\n      pem: |\n" + key
}

func TestReadPolicies(t *testing.T) {
	example, err := os.ReadFile("../../../examples/trust/web.yaml")
	if err != nil {
		t.Fatal(err)
	}
	dir := write(t, map[string]string{"web.yaml": string(example)})
	policies, err := intent.ReadPolicies(dir)
	if err != nil {
		t.Fatal(err)
	}
	if policies == nil {
		t.Fatal("no policies")
	}
	decoded, err := intent.DecodePolicies("web.yaml", example)
	if err != nil {
		t.Fatal(err)
	}
	if len(decoded) != 1 || decoded[0].Name != "web" || decoded[0].Threshold != 1 || len(decoded[0].Signers) != 1 {
		t.Errorf("%+v", decoded)
	}
}

func TestReadPoliciesRefuses(t *testing.T) {
	example, err := os.ReadFile("../../../examples/trust/web.yaml")
	if err != nil {
		t.Fatal(err)
	}
	good := string(example)
	for name, files := range map[string]map[string]string{
		"one of two is no yaml":      {"a.yaml": good, "b.yaml": "a: ["},
		"one of two has a new field": {"a.yaml": good, "b.yaml": strings.Replace(good, "  threshold: 1", "  threshold: 1\n  treshold: 2", 1)},
		"a field in another case":    {"a.yaml": strings.Replace(good, "threshold:", "Threshold:", 1)},
		"a signer of a later kind":   {"a.yaml": strings.Replace(good, "    key:", "    keyless: {}\n    key:", 1)},
		"a signer without a key":     {"a.yaml": policyHead + "  signers:\n  - name: team\n"},
		"a key that is none":         {"a.yaml": policyWith(publicKey, "")},
		"a namespace":                {"a.yaml": strings.Replace(good, "metadata:", "metadata:\n  namespace: web", 1)},
		"a profile among policies":   {"a.yaml": good, "b.yaml": profile1},
		"a link to nowhere":          {"a.yaml": good},
	} {
		t.Run(name, func(t *testing.T) {
			dir := write(t, files)
			if name == "a link to nowhere" {
				if err := os.Symlink("nowhere", filepath.Join(dir, "z.yaml")); err != nil {
					t.Fatal(err)
				}
			}
			policies, err := intent.ReadPolicies(dir)
			if !errors.Is(err, reason.TrustPolicyInvalid) || policies != nil {
				t.Errorf("policies %v, error %v", policies, err)
			}
		})
	}
}

func TestConstraintsReachTheirKindAsTheyStand(t *testing.T) {
	example, err := os.ReadFile("../../../examples/trust/web.yaml")
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Replace(string(example), "  signers:", "  constraints: {seccomp: {deniedSyscalls: [bpf]}}\n  signers:", 1)
	decoded, err := intent.DecodePolicies("web.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if got := string(decoded[0].Limits["seccomp"]); got != `{"deniedSyscalls":["bpf"]}` {
		t.Errorf("limits %s", got)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(profile1))
	f.Add([]byte(policyWith(publicKey, "")))
	f.Add([]byte(bomb()))
	f.Fuzz(func(t *testing.T, data []byte) {
		got := intent.DecodeProfiles("f.yaml", data)
		for _, p := range got.Profiles {
			if p.Artifact.Digest == "" || p.Owner.Name == "" || strings.Contains(p.Owner.String(), "..") || strings.Count(p.Owner.String(), "/") != 1 {
				t.Errorf("accepted %+v", p)
			}
		}
		for _, problem := range got.Invalid {
			if problem.Owner == (profile.Owner{}) && got.Complete {
				t.Errorf("complete although %v has no owner", problem)
			}
		}
		policies, err := intent.DecodePolicies("f.yaml", data)
		if err != nil && (policies != nil || !errors.Is(err, reason.TrustPolicyInvalid)) {
			t.Errorf("policies %v, error %v", policies, err)
		}
	})
}
