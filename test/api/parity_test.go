package api_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/confine-dev/confine/pkg/artifact/trust"
	"github.com/confine-dev/confine/pkg/node/intent"
)

// The API server and the agent read the same objects. What the server accepts
// and the agent refuses becomes a condition of a node; what the server refuses
// and an agent would take works from a folder only. Both are listed here, each
// with its reason; whatever is in no list is judged alike.

func onlyAgentRefusesPolicy() map[string]string {
	return map[string]string{
		"a host that is a number":       "a regular expression cannot tell 127.1 from a name",
		"a port beyond 65535":           "a regular expression counts digits",
		"IPv4 in IPv6":                  "a regular expression cannot parse addresses",
		"a long repository":             "host and path are bounded together, after they were made canonical",
		"a weak RSA key":                "the server does not parse keys",
		"an unknown curve":              "the server does not parse keys",
		"a key of nonsense":             "the server does not parse keys",
		"a key without end of line":     "the server does not parse keys",
		"one key written in two ways":   "the server compares keys as text",
		"a name of many bytes":          "the server counts characters",
		"a year 10000 in UTC":           "the server compares times and does not move them to UTC",
		"a host of more than 253 bytes": "a regular expression bounds labels, not names",
		"a list without a value":        "the server drops null before it looks; docs/api.md says so",
		"a time without a value":        "the server drops null before it looks; docs/api.md says so",
	}
}

func onlyServerRefusesPolicy() map[string]string {
	return map[string]string{
		"the same twice":         "lists are sets there, so that several managers can each own entries",
		"an unknown baseline":    "the agent's policy is readable; the kind refuses it when it judges a profile",
		"a syscall in capitals":  "the agent's policy is readable; the kind refuses it when it judges a profile",
		"a year before 1000":     "one spelling of times, with four digits",
		"a name in capitals":     "names of objects are the server's own rule",
		"an allowed kind, twice": "lists are sets there",
	}
}

func policyVariants(t *testing.T) map[string]change {
	t.Helper()
	repositories := func(patterns ...any) change { return change{"spec.repositories": patterns, "spec.floor": nil} }
	pemOf := func(public any) change { return change{"spec.signers[0].key.pem": encode(t, public)} }
	signers := func(names ...any) change { return change{"spec.signers": names, "spec.threshold": int64(1)} }
	signer := func(name, pem string) any { return map[string]any{"name": name, "key": map[string]any{"pem": pem}} }
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	odd, oddErr := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	good, goodErr := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil || oddErr != nil || goodErr != nil {
		t.Fatal(err, oddErr, goodErr)
	}
	label := strings.Repeat("a", 63)
	return map[string]change{
		"as it is":                      {},
		"every spelling of a host":      repositories("localhost/a", "LOCALHOST:5000/a", "[::1]:5000/a/**", "[2001:DB8::1]/a", "registry:5000/a", "Registry.Example.COM./a/b", "192.0.2.1/a/*"),
		"every spelling of a path":      repositories("docker.io/library/nginx", "docker.io/nginx", "a.b/c__d/e-f--g/h.i_j", "a.b/c/*/d", "a.b/c/*", "a.b/c/*/**", "a.b/0"),
		"a host that is a number":       repositories("127.1/a"),
		"a port beyond 65535":           repositories("registry:65536/a"),
		"IPv4 in IPv6":                  repositories("[::ffff:192.0.2.1]/a"),
		"a long repository":             repositories("a.example/" + strings.Repeat("a/", 130) + "a"),
		"a host of more than 253 bytes": repositories(strings.Repeat(label+".", 4) + "com/a"),
		"a label of 64":                 repositories(label + "a.example/a"),
		"all namespaces":                {"spec.namespaces": []any{"*"}},
		"a namespace of 64":             {"spec.namespaces": []any{label + "a"}},
		"a P-384 key":                   pemOf(&good.PublicKey),
		"a weak RSA key":                pemOf(&weak.PublicKey),
		"an unknown curve":              pemOf(&odd.PublicKey),
		"a key of nonsense":             {"spec.signers[0].key.pem": "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----"},
		"a key of Windows":              {"spec.signers[0].key.pem": strings.ReplaceAll(publicKey, "\n", "\r\n")},
		"a key amid white space":        {"spec.signers[0].key.pem": "\n \t" + publicKey + "\n\n "},
		"a key without end of line":     {"spec.signers[0].key.pem": strings.Replace(publicKey, "\n-----END", "-----END", 1)},
		"two signers":                   signers(signer("first", publicKey), signer("second", encode(t, &good.PublicKey))),
		"one key written in two ways":   signers(signer("first", publicKey), signer("second", publicKey+"\n")),
		"a name of many bytes":          signers(signer(strings.Repeat("ü", 63), publicKey)),
		"a name in words":               signers(signer("équipe sécurité #1", publicKey)),
		"valid from":                    {"spec.signers[0].key.notAfter": nil},
		"valid until":                   {"spec.signers[0].key.notBefore": nil},
		"a fraction of a second":        {"spec.signers[0].key.notAfter": "2027-01-01T00:00:00.123456789+02:00"},
		"a year 10000 in UTC":           {"spec.signers[0].key.notAfter": "9999-12-31T23:59:59-01:00"},
		"a year before 1000":            {"spec.signers[0].key.notBefore": "0999-01-01T00:00:00Z"},
		"a whole version":               {"spec.floor[0].version": "1.4.0-rc.1+build.5"},
		"a version of zeros":            {"spec.floor[0].version": "0.0.0-0"},
		"a pre-release with zeros":      {"spec.floor[0].version": "1.0.0-01"},
		"no constraints":                {"spec.constraints": map[string]any{}},
		"no constraints of seccomp":     {"spec.constraints": map[string]any{"seccomp": map[string]any{}}},
		"nothing revoked":               {"spec.revoked": map[string]any{}},
		"no floor":                      {"spec.floor": []any{}},
		"several kinds":                 {"spec.allowedKinds": []any{"seccomp", "apparmor", "kind-9"}},
		"an allowed kind, twice":        {"spec.allowedKinds": []any{"seccomp", "seccomp"}},
		"a name in capitals":            {"metadata.name": "Web"},
		"a list without a value":        {"spec.constraints.seccomp": map[string]any{"deniedSyscalls": nil}},
		"a time without a value":        {"spec.signers[0].key": map[string]any{"pem": publicKey, "notAfter": nil}},
	}
}

func TestServerAndAgentJudgePoliciesAlike(t *testing.T) {
	variants := policyVariants(t)
	for name, tc := range policyRefusals() {
		variants[name] = tc.set
	}
	compareVerdicts(t, onlyAgentRefusesPolicy(), onlyServerRefusesPolicy(), variants,
		func(change change) *unstructured.Unstructured { return change.of(t, trustPolicy()) },
		func(data []byte) error {
			policies, err := intent.DecodePolicies("policy.json", data)
			if err == nil {
				_, err = trust.Compile(policies)
			}
			return err
		})
}

func onlyAgentRefusesProfile() map[string]string {
	return map[string]string{
		"a host that is a number": "a regular expression cannot tell 127.1 from a name",
		"a port beyond 65535":     "a regular expression counts digits",
		"a long repository":       "host and path are bounded together, after they were made canonical",
	}
}

func onlyServerRefusesProfile() map[string]string {
	const noUse = "a node that reads a folder has no use for it"
	listed := map[string]string{
		"a name with a dot": "a folder may hold names that only a cluster restricts",
		"a long name":       "a folder may hold names that only a cluster restricts",
	}
	for name, tc := range profileRefusals() {
		for path := range tc.set {
			if strings.HasPrefix(path, "spec.rollout") || strings.HasPrefix(path, "spec.nodeSelector") {
				listed[name] = noUse
			}
		}
	}
	delete(listed, "nodes beyond 32 bits") // no field can hold them
	return listed
}

func TestServerAndAgentJudgeProfilesAlike(t *testing.T) {
	of := func(name string) change { return change{"spec.artifact": name + "@" + digest} }
	variants := map[string]change{
		"as it is":                {},
		"a tag":                   of("registry.example.com/profiles/web:1.0.0_RC"),
		"Docker Hub":              of("docker.io/nginx"),
		"a port":                  of("registry:5000/a"),
		"localhost":               of("localhost/a/b/c"),
		"IPv6":                    of("[::1]:5000/a"),
		"a host in capitals":      of("REGISTRY.example.com/a"),
		"a dot at its end":        of("registry.example.com./a"),
		"odd segments":            of("registry.example.com/a__b/c---d/e.f_g"),
		"three underscores":       of("registry.example.com/a___b"),
		"a tag of 128":            of("a.b/c:" + strings.Repeat("t", 128)),
		"a tag of 129":            of("a.b/c:" + strings.Repeat("t", 129)),
		"a tag with a hyphen":     of("a.b/c:-x"),
		"punycode":                of("xn--bcher-kva.example/a"),
		"a name outside ASCII":    of("bücher.example/a"),
		"a host that is a number": of("127.1/a"),
		"a port beyond 65535":     of("registry:65536/a"),
		"a long repository":       of("a.example/" + strings.Repeat("a/", 130) + "a"),
		"kinds required":          {"spec.kinds": "Required"},
		"kinds absent":            {"spec.kinds": nil},
	}
	for name, tc := range profileRefusals() {
		variants[name] = tc.set
	}
	compareVerdicts(t, onlyAgentRefusesProfile(), onlyServerRefusesProfile(), variants,
		func(change change) *unstructured.Unstructured { return change.of(t, securityProfile()) },
		func(data []byte) error {
			for _, problem := range intent.DecodeProfiles("profile.json", data).Invalid {
				return problem.Err
			}
			return nil
		})
}

func compareVerdicts(t *testing.T, onlyAgent, onlyServer map[string]string, variants map[string]change,
	build func(change) *unstructured.Unstructured, agent func([]byte) error,
) {
	t.Helper()
	for _, listed := range []map[string]string{onlyAgent, onlyServer} {
		for name := range listed {
			if _, found := variants[name]; !found {
				t.Errorf("%s: stands in a list and is not tried", name)
			}
		}
	}
	for name, change := range variants {
		t.Run(name, func(t *testing.T) {
			object := build(change)
			byServer := try(t, object)
			data, err := json.Marshal(object.Object)
			if err != nil {
				t.Fatal(err)
			}
			byAgent := agent(data)
			_, agentMay := onlyAgent[name]
			_, serverMay := onlyServer[name]
			if refusedByAgent := byServer == nil && byAgent != nil; refusedByAgent != agentMay {
				t.Errorf("the server says %v, the agent %v; listed as refused by the agent alone: %v", byServer, byAgent, agentMay)
			}
			if refusedByServer := byServer != nil && byAgent == nil; refusedByServer != serverMay {
				t.Errorf("the server says %v, the agent %v; listed as refused by the server alone: %v", byServer, byAgent, serverMay)
			}
		})
	}
}

func encode(t *testing.T, public any) string {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}
