package trust_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/confine-dev/confine/pkg/artifact/pack"
	"github.com/confine-dev/confine/pkg/artifact/reference"
	"github.com/confine-dev/confine/pkg/artifact/trust"
	"github.com/confine-dev/confine/pkg/reason"
)

func TestCompileRefuses(t *testing.T) {
	k, other := newKey(t), newKey(t)
	repeat := func(n int, s string) []string { return slices.Repeat([]string{s}, n) }
	signers := func(n int) []trust.Signer { return make([]trust.Signer, n) }
	key := func(pem []byte) func(*trust.Policy) {
		return func(p *trust.Policy) { p.Signers[0].KeyPEM = pem }
	}
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	privateDER, err := x509.MarshalPKCS8PrivateKey(k.private)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(k.pem)
	tests := map[string]struct {
		change func(*trust.Policy)
		field  string
	}{
		"no name":               {func(p *trust.Policy) { p.Name = "" }, "name: it is empty"},
		"name with line end":    {func(p *trust.Policy) { p.Name = "a\nb" }, "name: "},
		"long name":             {func(p *trust.Policy) { p.Name = strings.Repeat("a", 254) }, "name: "},
		"no repositories":       {func(p *trust.Policy) { p.Repositories = nil }, "repositories: it is empty"},
		"many repositories":     {func(p *trust.Policy) { p.Repositories = repeat(65, host+"/a") }, "repositories: it has 65"},
		"bad repository":        {func(p *trust.Policy) { p.Repositories = append(p.Repositories, "**") }, "repositories[1]: "},
		"host pattern":          {func(p *trust.Policy) { p.Repositories = []string{"*.example.com/a"} }, "repositories[0]: the host must be literal"},
		"no namespaces":         {func(p *trust.Policy) { p.Namespaces = nil }, "namespaces: it is empty"},
		"empty namespace":       {func(p *trust.Policy) { p.Namespaces = []string{""} }, "namespaces[0]: "},
		"namespace pattern":     {func(p *trust.Policy) { p.Namespaces = []string{"web-*"} }, "namespaces[0]: "},
		"star among namespaces": {func(p *trust.Policy) { p.Namespaces = []string{"web", "*"} }, "namespaces[1]: "},
		"many namespaces":       {func(p *trust.Policy) { p.Namespaces = repeat(257, "web") }, "namespaces: it has 257"},
		"no signers":            {func(p *trust.Policy) { p.Signers = nil }, "signers: it is empty"},
		"many signers":          {func(p *trust.Policy) { p.Signers = signers(33) }, "signers: it has 33"},
		"threshold zero":        {func(p *trust.Policy) { p.Threshold = 0 }, "threshold: it is 0"},
		"threshold negative":    {func(p *trust.Policy) { p.Threshold = -1 }, "threshold: it is -1"},
		"threshold too high":    {func(p *trust.Policy) { p.Threshold = 3 }, "threshold: it is 3"},
		"no signer name":        {func(p *trust.Policy) { p.Signers[0].Name = "" }, "signers[0].name: "},
		"signer name slash":     {func(p *trust.Policy) { p.Signers[0].Name = "a/b" }, "signers[0].name: "},
		"signer name twice":     {func(p *trust.Policy) { p.Signers[1].Name = p.Signers[0].Name }, "signers[1].name: "},
		"signer key twice":      {func(p *trust.Policy) { p.Signers[1].KeyPEM = p.Signers[0].KeyPEM }, "signers[1].key: "},
		"never valid":           {func(p *trust.Policy) { p.Signers[0].NotBefore, p.Signers[0].NotAfter = now(), now() }, "signers[0].notAfter: "},
		"valid backwards":       {func(p *trust.Policy) { p.Signers[0].NotBefore, p.Signers[0].NotAfter = now().Add(1), now() }, "signers[0].notAfter: "},
		"time out of range":     {func(p *trust.Policy) { p.Signers[0].NotAfter = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC) }, "signers[0].notAfter: "},
		"no key":                {key(nil), "signers[0].key.pem: it does not begin"},
		"DER key":               {key(block.Bytes), "signers[0].key.pem: it does not begin"},
		"two keys":              {key(slices.Concat(k.pem, other.pem)), "signers[0].key.pem: it is not exactly one"},
		"junk before":           {key(slices.Concat([]byte("x\n"), k.pem)), "signers[0].key.pem: it does not begin"},
		"junk after":            {key(slices.Concat(k.pem, []byte("x"))), "signers[0].key.pem: something follows"},
		"private key":           {key(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: privateDER})), `signers[0].key.pem: the PEM block is a "PRIVATE KEY"`},
		"headers":               {key(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Headers: map[string]string{"a": "b"}, Bytes: block.Bytes})), "signers[0].key.pem: the PEM block has headers"},
		"broken DER":            {key(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: block.Bytes[1:]})), "signers[0].key.pem: it is no PKIX"},
		"DER with more":         {key(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: append(bytes.Clone(block.Bytes), 0)})), "signers[0].key.pem: it is no PKIX"},
		"P-224":                 {key(keyOf(t, p224).pem), "signers[0].key.pem: the ECDSA key"},
		"RSA 2040":              {key(newRSA(t, 2040).pem), "signers[0].key.pem: the RSA key has 2040 bits"},
		"huge PEM":              {key(slices.Concat(k.pem, bytes.Repeat([]byte("\n"), 8192))), "signers[0].key.pem: the PEM has"},
		"no kinds":              {func(p *trust.Policy) { p.AllowedKinds = nil }, "allowedKinds: it is empty"},
		"bad kind":              {func(p *trust.Policy) { p.AllowedKinds = []string{"*"} }, "allowedKinds[0]: "},
		"limits no JSON":        {func(p *trust.Policy) { p.Limits = map[string]json.RawMessage{"seccomp": []byte("{")} }, "constraints.seccomp: "},
		"limits of no kind":     {func(p *trust.Policy) { p.Limits = map[string]json.RawMessage{"": []byte("{}")} }, "constraints: "},
		"revoked sha512":        {func(p *trust.Policy) { p.RevokedDigests = []digest.Digest{digest.SHA512.FromString("a")} }, "revoked.digests[0]: "},
		"revoked capitals":      {func(p *trust.Policy) { p.RevokedDigests = []digest.Digest{digest.Digest(strings.ToUpper(k.id))} }, "revoked.digests[0]: "},
		"revoked key hint":      {func(p *trust.Policy) { p.RevokedKeys = []string{k.hint} }, "revoked.keys[0]: "},
		"floor of everything":   {func(p *trust.Policy) { p.Floors = []trust.Floor{{Repositories: "**", Version: "1.0.0"}} }, "floor[0].repositories: "},
		"floor short":           {func(p *trust.Policy) { p.Floors = []trust.Floor{{Repositories: host + "/a", Version: "1.4"}} }, "floor[0].version: "},
		"floor with v":          {func(p *trust.Policy) { p.Floors = []trust.Floor{{Repositories: host + "/a", Version: "v1.4.0"}} }, "floor[0].version: "},
		"floor empty":           {func(p *trust.Policy) { p.Floors = []trust.Floor{{Repositories: host + "/a"}} }, "floor[0].version: "},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			p := policyOf("bad", k, other)
			test.change(&p)
			// One bad policy spoils all: the good one beside it does not suffice.
			compiled, err := trust.Compile([]trust.Policy{policyOf("good", k), p})
			wantReason(t, err, reason.TrustPolicyInvalid, test.field)
			if !strings.Contains(err.Error(), fmt.Sprintf("TrustPolicy %q", p.Name)) && len(p.Name) < 80 {
				t.Errorf("%q does not name the policy", err)
			}
			if compiled != nil {
				t.Error("policies are returned beside the error")
			}
		})
	}
	_, err = trust.Compile([]trust.Policy{policyOf("p", k), policyOf("p", other)})
	wantReason(t, err, reason.TrustPolicyInvalid, "same name")
}

func TestCompileAccepts(t *testing.T) {
	k := newKey(t)
	for name, change := range map[string]func(*trust.Policy){
		"as it is":        func(*trust.Policy) {},
		"PEM with spaces": func(p *trust.Policy) { p.Signers[0].KeyPEM = slices.Concat([]byte("\n "), k.pem, []byte("\r\n\n")) },
		"RSA 2048":        func(p *trust.Policy) { p.Signers[0].KeyPEM = newRSA(t, 2048).pem },
		"Ed25519":         func(p *trust.Policy) { p.Signers[0].KeyPEM = newEd25519(t).pem },
		"all namespaces":  func(p *trust.Policy) { p.Namespaces = []string{"*"} },
		"floor prerelease": func(p *trust.Policy) {
			p.Floors = []trust.Floor{{Repositories: host + "/a/**", Version: "1.4.0-rc.1+build.7"}}
		},
		"null limits": func(p *trust.Policy) {
			p.Limits = map[string]json.RawMessage{"seccomp": []byte("null"), "selinux": nil}
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := policyOf("p", k)
			change(&p)
			matched := match(t, p)
			if diff := cmp.Diff([]string{"p"}, matched.Names()); diff != "" {
				t.Error(diff)
			}
			if limits := matched.Limits("seccomp"); len(limits) != 1 || limits[0] != nil {
				t.Errorf("limits are %q", limits)
			}
		})
	}
}

func TestMatching(t *testing.T) {
	k := newKey(t)
	type source struct{ repository, namespace string }
	tests := map[string]struct {
		patterns, namespaces []string
		yes, no              []source
	}{
		"literal": {[]string{"reg.example/a/b"}, []string{"web"},
			[]source{{"reg.example/a/b", "web"}, {"REG.example:443/a/b", "web"}, {"reg.example./a/b", "web"}},
			[]source{{"reg.example/a/b", "other"}, {"reg.example/a/b", ""}, {"reg.example/a", "web"}, {"reg.example/a/b/c", "web"}, {"reg.example:5000/a/b", "web"}, {"evilreg.example/a/b", "web"}}},
		"one segment": {[]string{"reg.example/a/*"}, []string{"*"},
			[]source{{"reg.example/a/b", "web"}, {"reg.example/a/c", ""}},
			[]source{{"reg.example/a", "web"}, {"reg.example/a/b/c", "web"}, {"reg.example/b/b", "web"}}},
		"segment in between": {[]string{"reg.example/a/*/c"}, []string{"*"},
			[]source{{"reg.example/a/b/c", "web"}}, []source{{"reg.example/a/c", "web"}, {"reg.example/a/b/d", "web"}, {"reg.example/a/b/b/c", "web"}}},
		"any depth": {[]string{"reg.example/a/**"}, []string{"*"},
			[]source{{"reg.example/a/b", "web"}, {"reg.example/a/b/c/d", "web"}},
			[]source{{"reg.example/a", "web"}, {"reg.example/ab/c", "web"}, {"other.example/a/b", "web"}}},
		"segment, then any depth": {[]string{"reg.example/a/*/**"}, []string{"*"},
			[]source{{"reg.example/a/b/c", "web"}}, []source{{"reg.example/a/b", "web"}}},
		"canonical pattern": {[]string{"Reg.Example.:443/a/**"}, []string{"*"}, []source{{"reg.example/a/b", "web"}}, nil},
		"docker official":   {[]string{"docker.io/nginx"}, []string{"*"}, []source{{"index.docker.io/library/nginx", "web"}}, []source{{"docker.io/team/nginx", "web"}}},
		"docker team":       {[]string{"docker.io/team/*"}, []string{"*"}, []source{{"registry-1.docker.io/team/nginx", "web"}}, nil},
		"second of two":     {[]string{"reg.example/x", "reg.example/a/**"}, []string{"a", "b"}, []source{{"reg.example/a/b", "b"}}, []source{{"reg.example/a/b", "c"}}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			p := policyOf("p", k)
			p.Repositories, p.Namespaces = test.patterns, test.namespaces
			policies, err := trust.Compile([]trust.Policy{p})
			if err != nil {
				t.Fatal(err)
			}
			for want, sources := range map[bool][]source{true: test.yes, false: test.no} {
				for _, s := range sources {
					repo, err := reference.ParseRepository(s.repository)
					if err != nil {
						t.Fatal(err)
					}
					matched, err := policies.Matching(repo, s.namespace)
					if (err == nil) != want {
						t.Errorf("%v: matched is %v, error %v", s, matched, err)
					}
					if !want {
						wantReason(t, err, reason.NoTrustPolicy, s.namespace)
					}
				}
			}
			if _, err := policies.Matching(reference.Repository{}, "web"); err == nil {
				t.Error("the empty repository matches")
			}
		})
	}
	var zero trust.Policies
	if _, err := zero.Matching(repository(), namespace); err == nil {
		t.Error("no policies match")
	}
}

func TestPatternsRefused(t *testing.T) {
	for name, pattern := range map[string]string{
		"empty": "", "everything": "**", "everything twice": "*/**", "any host": "*/a", "host pattern": "*.example.com/a",
		"whole registry": "reg.example/**", "first segment": "reg.example/*", "first of two": "reg.example/*/a",
		"host alone": "reg.example", "host and slash": "reg.example/", "empty segment": "reg.example/a//b", "end slash": "reg.example/a/",
		"part of a segment": "reg.example/a/b*", "three stars": "reg.example/a/***", "depth in between": "reg.example/a/**/b",
		"tag": "reg.example/a:v1", "wild tag": "reg.example/a/*:v1", "digest": "reg.example/a@sha256:" + strings.Repeat("0", 64),
		"capital path": "reg.example/A", "dots": "reg.example/a/../b", "scheme": "https://reg.example/a", "space": "reg.example/a b",
		"line end": "reg.example/a\n", "user": "user:secret@reg.example/a", "no host": "team/web", "long": "reg.example/" + strings.Repeat("a/", 300) + "a",
		"regexp": "reg.example/a/.*", "question": "reg.example/a/?",
	} {
		t.Run(name, func(t *testing.T) {
			p := policyOf("p", newKey(t))
			p.Repositories = []string{pattern}
			_, err := trust.Compile([]trust.Policy{p})
			wantReason(t, err, reason.TrustPolicyInvalid, "repositories[0]: ")
			if strings.Contains(err.Error(), "secret") {
				t.Errorf("%q repeats a password", err)
			}
		})
	}
}

func TestFingerprint(t *testing.T) {
	k, other := newKey(t), newKey(t)
	base := func() trust.Policy {
		p := policyOf("p", k, other)
		p.Namespaces = []string{namespace, "x"}
		p.Repositories = []string{host + "/team/**", host + "/b"}
		p.AllowedKinds = []string{"seccomp", "selinux"}
		p.Limits = map[string]json.RawMessage{"seccomp": []byte(`{"a": 1}`)}
		p.RevokedDigests = []digest.Digest{artifactDigest("1"), artifactDigest("2")}
		p.Floors = []trust.Floor{{Repositories: host + "/team/a", Version: "1.0.0"}}
		return p
	}
	want := match(t, base()).Fingerprint()
	if err := want.Validate(); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*trust.Policy){
		"nothing": func(*trust.Policy) {},
		"order": func(p *trust.Policy) {
			slices.Reverse(p.Repositories)
			slices.Reverse(p.Namespaces)
			slices.Reverse(p.AllowedKinds)
			slices.Reverse(p.RevokedDigests)
			slices.Reverse(p.Signers)
		},
		"spelling":   func(p *trust.Policy) { p.Repositories[0] = strings.ToUpper(host) + ":443/team/**" },
		"JSON space": func(p *trust.Policy) { p.Limits["seccomp"] = []byte(`{"a":1}`) },
		"PEM space":  func(p *trust.Policy) { p.Signers[0].KeyPEM = append(bytes.Clone(k.pem), '\n') },
	} {
		p := base()
		change(&p)
		if got := match(t, p).Fingerprint(); got != want {
			t.Errorf("%s changes it", name)
		}
	}
	seen := map[digest.Digest]string{want: "nothing"}
	for name, change := range map[string]func(*trust.Policy){
		"name":        func(p *trust.Policy) { p.Name = "q" },
		"repository":  func(p *trust.Policy) { p.Repositories = p.Repositories[:1] },
		"namespace":   func(p *trust.Policy) { p.Namespaces = p.Namespaces[:1] },
		"signer":      func(p *trust.Policy) { p.Signers = p.Signers[:1] },
		"signer name": func(p *trust.Policy) { p.Signers[0].Name = "z" },
		"key":         func(p *trust.Policy) { p.Signers[0].KeyPEM = newKey(t).pem },
		"not before":  func(p *trust.Policy) { p.Signers[0].NotBefore = now() },
		"not after":   func(p *trust.Policy) { p.Signers[0].NotAfter = now() },
		"threshold":   func(p *trust.Policy) { p.Threshold = 2 },
		"kinds":       func(p *trust.Policy) { p.AllowedKinds = p.AllowedKinds[:1] },
		"limits":      func(p *trust.Policy) { p.Limits["seccomp"] = []byte(`{"a":2}`) },
		"no limits":   func(p *trust.Policy) { p.Limits = nil },
		"name rule":   func(p *trust.Policy) { p.RequireName = true },
		"digests":     func(p *trust.Policy) { p.RevokedDigests = p.RevokedDigests[:1] },
		"keys":        func(p *trust.Policy) { p.RevokedKeys = []string{k.id} },
		"floor":       func(p *trust.Policy) { p.Floors[0].Version = "1.0.1" },
		"floor place": func(p *trust.Policy) { p.Floors[0].Repositories = host + "/team/b" },
	} {
		p := base()
		change(&p)
		got := match(t, p).Fingerprint()
		if was, ok := seen[got]; ok {
			t.Errorf("%s is the same as %s", name, was)
		}
		seen[got] = name
	}
	if two := match(t, base(), policyOf("q", k)).Fingerprint(); two == want {
		t.Error("a further policy does not change it")
	}
}

func TestKindsAndLimits(t *testing.T) {
	k := newKey(t)
	a, b := policyOf("a", k), policyOf("b", k)
	a.AllowedKinds = []string{"seccomp", "apparmor"}
	b.Limits = map[string]json.RawMessage{"seccomp": []byte(`{"baseline": "Unbounded"}`)}
	matched := match(t, b, a)
	if err := matched.CheckKind("seccomp"); err != nil {
		t.Error(err)
	}
	wantReason(t, matched.CheckKind("apparmor"), reason.ProfileForbidden, `TrustPolicy "b"`)
	wantReason(t, matched.CheckKind(""), reason.ProfileForbidden, `TrustPolicy "a"`)
	want := []json.RawMessage{nil, []byte(`{"baseline":"Unbounded"}`)}
	if diff := cmp.Diff(want, matched.Limits("seccomp")); diff != "" {
		t.Error(diff)
	}
	matched.Limits("seccomp")[1][0] = 'x' // a copy
	if diff := cmp.Diff(want, matched.Limits("seccomp")); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]json.RawMessage{nil, nil}, matched.Limits("apparmor")); diff != "" {
		t.Error(diff)
	}
	var none trust.Matched
	for what, err := range map[string]error{"kind": none.CheckKind("seccomp"), "revoked": none.CheckRevoked(), "annotations": none.CheckAnnotations(subject(), nil)} {
		wantReason(t, fmt.Errorf("%s: %w", what, err), reason.NoTrustPolicy, what)
	}
}

func TestCheckRevoked(t *testing.T) {
	k := newKey(t)
	p := policyOf("p", k)
	p.RevokedDigests = []digest.Digest{artifactDigest("bad")}
	matched := match(t, policyOf("a", k), p)
	if err := matched.CheckRevoked(artifactDigest("good"), artifactDigest("child")); err != nil {
		t.Error(err)
	}
	wantReason(t, matched.CheckRevoked(artifactDigest("good"), artifactDigest("bad")), reason.Revoked, artifactDigest("bad").String())
}

func TestCheckAnnotations(t *testing.T) {
	const version, owner = pack.AnnotationVersion, pack.AnnotationName
	k := newKey(t)
	floors := policyOf("floors", k)
	floors.Floors = []trust.Floor{{Repositories: host + "/other/**", Version: "9.0.0"}, {Repositories: host + "/team/*", Version: "1.4.0"}}
	higher := policyOf("higher", k)
	higher.Floors = []trust.Floor{{Repositories: host + "/team/web", Version: "2.0.0-rc.1"}}
	named := policyOf("named", k)
	named.RequireName = true
	tests := map[string]struct {
		policies    []trust.Policy
		annotations map[string]string
		want        reason.Reason
	}{
		"nothing demanded":     {[]trust.Policy{policyOf("p", k)}, nil, ""},
		"at the floor":         {[]trust.Policy{floors}, map[string]string{version: "1.4.0"}, ""},
		"above, by number":     {[]trust.Policy{floors}, map[string]string{version: "1.10.0"}, ""},
		"build metadata":       {[]trust.Policy{floors}, map[string]string{version: "1.4.0+7"}, ""},
		"below":                {[]trust.Policy{floors}, map[string]string{version: "1.3.9"}, reason.Revoked},
		"prerelease of it":     {[]trust.Policy{floors}, map[string]string{version: "1.4.0-rc.1"}, reason.Revoked},
		"missing":              {[]trust.Policy{floors}, nil, reason.Revoked},
		"empty":                {[]trust.Policy{floors}, map[string]string{version: ""}, reason.Revoked},
		"no version":           {[]trust.Policy{floors}, map[string]string{version: "newest"}, reason.Revoked},
		"shorthand":            {[]trust.Policy{floors}, map[string]string{version: "2"}, reason.Revoked},
		"leading v":            {[]trust.Policy{floors}, map[string]string{version: "v2.0.0"}, reason.Revoked},
		"the higher of floors": {[]trust.Policy{floors, higher}, map[string]string{version: "1.9.0"}, reason.Revoked},
		"both floors":          {[]trust.Policy{floors, higher}, map[string]string{version: "2.0.0"}, ""},
		"named":                {[]trust.Policy{named}, map[string]string{owner: "web/nginx"}, ""},
		"another name":         {[]trust.Policy{named}, map[string]string{owner: "web/nginx2"}, reason.IdentityMismatch},
		"no name":              {[]trust.Policy{named}, nil, reason.IdentityMismatch},
		"named and too old":    {[]trust.Policy{floors, named}, map[string]string{owner: "web/nginx", version: "1.0.0"}, reason.Revoked},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			err := match(t, test.policies...).CheckAnnotations(subject(), test.annotations)
			if test.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			wantReason(t, err, test.want, "TrustPolicy")
		})
	}
	nobody := subject()
	nobody.Owner.Name = ""
	wantReason(t, match(t, named).CheckAnnotations(nobody, map[string]string{owner: "web/"}), reason.IdentityMismatch, "demands")
}
