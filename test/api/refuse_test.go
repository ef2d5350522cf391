package api_test

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
)

// change sets fields of an object by their paths; nil takes one away.
type change map[string]any

func (c change) of(t *testing.T, object runtime.Object) *unstructured.Unstructured {
	t.Helper()
	changed := toUnstructured(t, object)
	for _, path := range slices.Sorted(maps.Keys(c)) {
		set(t, changed.Object, keysOf(t, path), c[path])
	}
	return changed
}

// refusal is an object that the server refuses, and what it says.
type refusal struct {
	set  change
	want string
}

// The messages, whole: they are what a person gets to see.
const (
	needsDigest = "artifact needs a digest, as in registry.example.com/profiles/nginx@sha256:<64 hex digits>: confine resolve REPOSITORY:TAG prints it"
	needsHost   = "artifact begins with its registry's host, as in registry.example.com/profiles/nginx@sha256:<64 hex digits>: without https://, " +
		"without user name, with docker.io for Docker Hub, and with a port where the host has no dot"
	needsPath = "after its host, artifact is PATH@sha256:HEX or PATH:TAG@sha256:HEX: the path is lower case, with letters and digits, " +
		"and single '.', '_', '__' or hyphens between them"
	needsName        = "metadata.name becomes a folder's name on nodes: use at most 63 lower-case letters, digits and '-', and no dots"
	needsCount       = "maxConcurrent is a number from 1 to 100000, or a percentage from 1% to 100%, such as \"25%\""
	needsThreshold   = "failureThreshold is a number from 1 to 100000, or a percentage from 1% to 100%, such as \"25%\""
	oneCanary        = "set exactly one of nodes and nodeSelector"
	notALabelsKey    = "a key of matchLabels is no label's key: write NAME or PREFIX/NAME, such as kubernetes.io/arch"
	notAKey          = "key is no label's key: write NAME or PREFIX/NAME, such as kubernetes.io/arch"
	notAValue        = "it is no label's value: use letters and digits, with '-', '_' and '.' between them"
	operatorsValues  = "In and NotIn need values, Exists and DoesNotExist have none"
	needsLiteralHost = "a repository pattern begins with its registry's literal host, as in registry.example.com/profiles/**: without https://, " +
		"with docker.io for Docker Hub, and with a port where the host has no dot"
	needsLiteralPath = "a repository pattern is HOST/PATH, as in registry.example.com/profiles/**: the path is lower case, its first segment is literal, " +
		"since it would match a whole registry otherwise, '*' stands for one whole segment, and '**' for one or more at the end"
	exactNamespace  = "a namespace is named exactly, as in web, and '*' alone stands for all: other patterns are not read"
	starStandsAlone = "'*' stands for all namespaces, alone or not at all: remove it, or all the others"
	sameKey         = "two signers have the same key, but each credential counts once: remove one of them"
	signersKey      = "set exactly one kind of identity: key, with the public key in its pem"
	printableName   = "a signer's name stands in messages: use printable characters and no slash"
	neverValid      = "notAfter is not after notBefore, so the key would never count"
	wholeKey        = "pem is one whole public key from -----BEGIN PUBLIC KEY----- to -----END PUBLIC KEY-----, as in the file cosign.pub: " +
		"no private key, no certificate, nothing around it"
	tooHigh      = "threshold is more than there are signers, so nothing would ever be trusted: lower it, or add signers"
	floorPattern = "floor.repositories is one pattern as in spec.repositories: HOST/PATH, as in registry.example.com/profiles/**"
	wholeVersion = "version is a whole semantic version without a leading v, such as 1.4.0"
	rfc3339      = "should match '^[1-9][0-9]{3}-"
	plainNames   = "a pattern of names is letters, digits, dots, hyphens and underscores, with '*' after the first three characters, " +
		"since it would match every name otherwise"
	confinesNames = "a name that begins with confine belongs to the namespace that it says, and no policy gives it to another: remove the pattern"
	plainBlocks   = "a pattern of blocks is at least three lower-case letters, digits and underscores, with '*' at the end alone, " +
		"since it would match every block otherwise"
	confinesBlocks  = "a block that begins with confine belongs to the namespace that it says, and no policy gives it to another: remove the pattern"
	typesBlocks     = "a block that ends with _t reads like a type of the host's policy: name it otherwise"
	plainTemplate   = "a template is named plainly, with letters, digits and underscores, and no keyword of CIL"
	plainTypes      = "a type is named plainly, with letters, digits and underscores, and no keyword of CIL: no dot, no star"
	plainClass      = "a class is named plainly, with letters, digits and underscores, and no keyword of CIL"
	plainPermission = "a permission is named plainly, with letters, digits and underscores, and no keyword of CIL"
	neverPermitted  = "no policy can allow what ends or rewrites the confinement itself: leaving the type, changing labels, " +
		"SELinux's own controls, loading code into the kernel"
)

func profileRefusals() map[string]refusal {
	in := func(path string, value any, want string) refusal { return refusal{change{path: value}, want} }
	return map[string]refusal{
		"no digest":               in("spec.artifact", "registry.example.com/profiles/web:1.0.0", needsDigest),
		"no digest, no tag":       in("spec.artifact", "registry.example.com/profiles/web", needsDigest),
		"short digest":            in("spec.artifact", "registry.example.com/profiles/web@sha256:abc", needsDigest),
		"digest in capitals":      in("spec.artifact", "registry.example.com/profiles/web@sha256:"+strings.ToUpper(hexDigits), needsDigest),
		"another algorithm":       in("spec.artifact", "registry.example.com/profiles/web@sha512:"+hexDigits+hexDigits, needsDigest),
		"text after the digest":   in("spec.artifact", artifact+" ", needsDigest),
		"a line after the digest": in("spec.artifact", artifact+"\n", needsDigest),
		"two digests":             in("spec.artifact", artifact+"@"+digest, needsPath),
		"a scheme":                in("spec.artifact", "https://"+artifact, needsHost),
		"no host":                 in("spec.artifact", "profiles/web@"+digest, needsHost),
		"only a name":             in("spec.artifact", "nginx@"+digest, needsHost),
		"only a digest":           in("spec.artifact", "@"+digest, needsHost),
		"only a host":             in("spec.artifact", "registry.example.com@"+digest, needsHost),
		"a user name":             in("spec.artifact", "user:word@"+artifact, needsHost),
		"white space before":      in("spec.artifact", " "+artifact, needsHost),
		"port 0":                  in("spec.artifact", "registry:0/web@"+digest, needsHost),
		"a path in capitals":      in("spec.artifact", "registry.example.com/Profiles/web@"+digest, needsPath),
		"a path that climbs":      in("spec.artifact", "registry.example.com/profiles/../web@"+digest, needsPath),
		"an empty path":           in("spec.artifact", "registry.example.com/@"+digest, needsPath),
		"an empty segment":        in("spec.artifact", "registry.example.com/profiles//web@"+digest, needsPath),
		"an empty tag":            in("spec.artifact", "registry.example.com/profiles/web:@"+digest, needsPath),
		"two tags":                in("spec.artifact", "registry.example.com/profiles/web:1:2@"+digest, needsPath),
		"a wildcard":              in("spec.artifact", "registry.example.com/profiles/*@"+digest, needsPath),
		"no artifact":             in("spec.artifact", nil, "spec.artifact: Required value"),
		"a name with a dot":       in("metadata.name", "web.example", needsName),
		"a long name":             in("metadata.name", strings.Repeat("a", 64), needsName),
		"no node at a time":       in("spec.rollout.maxConcurrent", int64(0), needsCount),
		"fewer than no node":      in("spec.rollout.maxConcurrent", int64(-1), needsCount),
		"nodes beyond 32 bits":    in("spec.rollout.maxConcurrent", int64(1)<<32, needsCount),
		"0 percent":               in("spec.rollout.maxConcurrent", "0%", needsCount),
		"101 percent":             in("spec.rollout.maxConcurrent", "101%", needsCount),
		"a number as text":        in("spec.rollout.maxConcurrent", "5", needsCount),
		"a part of a percent":     in("spec.rollout.maxConcurrent", "2.5%", needsCount),
		"threshold 0":             in("spec.rollout.failureThreshold", int64(0), needsThreshold),
		"threshold 0 percent":     in("spec.rollout.failureThreshold", "0%", needsThreshold),
		"threshold in words":      in("spec.rollout.failureThreshold", "many", needsThreshold),
		"two ways of a canary":    in("spec.rollout.canary.nodes", int64(1), oneCanary),
		"no way of a canary":      in("spec.rollout.canary.nodeSelector", nil, oneCanary),
		"a label that is none":    in("spec.nodeSelector.matchLabels", map[string]any{"a b": "x"}, notALabelsKey),
		"an endless label":        in("spec.nodeSelector.matchLabels", map[string]any{strings.Repeat("a", 64): "x"}, notALabelsKey),
		"a value that is none":    in("spec.nodeSelector.matchLabels", map[string]any{"a": "x y"}, notAValue),
		"a key that is none":      in("spec.nodeSelector.matchExpressions[0].key", "a/b/c", notAKey),
		"one of bad values":       in("spec.nodeSelector.matchExpressions[0].values", []any{"-"}, notAValue),
		"In without values":       in("spec.nodeSelector.matchExpressions[0].values", nil, operatorsValues),
		"In with no value":        in("spec.nodeSelector.matchExpressions[0].values", []any{}, operatorsValues),
		"Exists with values":      in("spec.nodeSelector.matchExpressions[0].operator", "Exists", operatorsValues),
		"a canary's bad label":    in("spec.rollout.canary.nodeSelector.matchLabels", map[string]any{"a b": "x"}, notALabelsKey),
		"a field nobody knows":    in("spec.content", "{}", `unknown field "spec.content"`),
		"a policy of kinds":       in("spec.kinds", "Perhaps", `supported values: "Supported", "Required"`),
		"an unknown way to fail":  in("spec.rollout.onFailure", "Shrug", `supported values: "Pause", "Rollback"`),
		"no spec":                 in("spec", nil, "spec: Required value"),
	}
}

func policyRefusals() map[string]refusal {
	in := func(path string, value any, want string) refusal { return refusal{change{path: value}, want} }
	repositories := func(pattern, want string) refusal { return in("spec.repositories", []any{pattern}, want) }
	second := map[string]any{"name": "second", "key": map[string]any{"pem": publicKey}}
	first := map[string]any{"name": "first", "key": map[string]any{"pem": publicKey}}
	pem := func(text, want string) refusal { return in("spec.signers[0].key.pem", text, want) }
	version := func(text string) refusal { return in("spec.floor[0].version", text, wholeVersion) }
	return map[string]refusal{
		"everything":                   repositories("**", needsLiteralHost),
		"every host":                   repositories("*/**", needsLiteralHost),
		"every host of a domain":       repositories("*.example.com/profiles", needsLiteralHost),
		"a whole registry":             repositories("registry.example.com/**", needsLiteralPath),
		"a registry's first level":     repositories("registry.example.com/*", needsLiteralPath),
		"any first segment":            repositories("registry.example.com/*/web", needsLiteralPath),
		"a host alone":                 repositories("registry.example.com", needsLiteralHost),
		"no host":                      repositories("profiles/**", needsLiteralHost),
		"a scheme":                     repositories("https://registry.example.com/profiles/**", needsLiteralHost),
		"** in the middle":             repositories("registry.example.com/a/**/b", needsLiteralPath),
		"a part of a segment":          repositories("registry.example.com/profiles/web-*", needsLiteralPath),
		"a path in capitals":           repositories("registry.example.com/Profiles/**", needsLiteralPath),
		"a tag":                        repositories("registry.example.com/profiles/web:1", needsLiteralPath),
		"a digest":                     repositories(artifact, needsLiteralPath),
		"the same twice":               in("spec.repositories", []any{"a.example/b", "a.example/b"}, "Duplicate value"),
		"no repository":                in("spec.repositories", []any{}, "spec.repositories"),
		"a pattern of namespaces":      in("spec.namespaces", []any{"web-*"}, exactNamespace),
		"a namespace with a dot":       in("spec.namespaces", []any{"web.example"}, exactNamespace),
		"all namespaces and one":       in("spec.namespaces", []any{"*", "web"}, starStandsAlone),
		"threshold above":              in("spec.threshold", int64(2), tooHigh),
		"threshold 0":                  in("spec.threshold", int64(0), "should be greater than or equal to 1"),
		"no threshold":                 in("spec.threshold", nil, "spec.threshold: Required value"),
		"no allowed kinds":             in("spec.allowedKinds", nil, "spec.allowedKinds: Required value"),
		"one key under two names":      in("spec.signers", []any{first, second}, sameKey),
		"two signers of one name":      in("spec.signers", []any{first, first}, "Duplicate value"),
		"a signer without key":         in("spec.signers[0].key", nil, signersKey),
		"a signer of another kind":     in("spec.signers[0].keyless", map[string]any{"issuer": "x"}, `unknown field "spec.signers[0].keyless"`),
		"a signer with a slash":        in("spec.signers[0].name", "web/team", printableName),
		"a signer with a line":         in("spec.signers[0].name", "web\nteam", printableName),
		"a private key":                pem("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", wholeKey),
		"a certificate":                pem("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", wholeKey),
		"a path to a key":              pem("/etc/cosign.pub", wholeKey),
		"two keys":                     pem(publicKey+publicKey, wholeKey),
		"text before the key":          pem("key: "+publicKey, wholeKey),
		"a key cut off":                pem(strings.TrimSuffix(publicKey, "KEY-----\n"), wholeKey),
		"a key with headers":           pem(strings.Replace(publicKey, "KEY-----\n", "KEY-----\nProc-Type: 4\n\n", 1), wholeKey),
		"never valid":                  in("spec.signers[0].key.notAfter", "2026-11-23T12:00:00Z", neverValid),
		"never valid, zones":           in("spec.signers[0].key.notAfter", "2026-11-23T13:00:00+02:00", neverValid),
		"a time without zone":          in("spec.signers[0].key.notAfter", "2027-01-01T00:00:00", rfc3339),
		"a time without seconds":       in("spec.signers[0].key.notAfter", "2027-01-01T00:00Z", rfc3339),
		"a day":                        in("spec.signers[0].key.notBefore", "2026-01-01", "spec.signers[0].key.notBefore"),
		"an empty time":                in("spec.signers[0].key.notBefore", "", "spec.signers[0].key.notBefore"),
		"the year 1":                   in("spec.signers[0].key.notBefore", "0001-01-01T00:00:00Z", rfc3339),
		"a revoked tag":                in("spec.revoked.digests", []any{"web:1"}, "should match '^sha256:[a-f0-9]{64}$'"),
		"a revoked key in PEM":         in("spec.revoked.keys", []any{"-----BEGIN"}, "should match '^sha256:[a-f0-9]{64}$'"),
		"a floor for everything":       in("spec.floor[0].repositories", "**", floorPattern),
		"a floor for a registry":       in("spec.floor[0].repositories", "registry.example.com/**", floorPattern),
		"a version with v":             version("v1.4.0"),
		"half a version":               version("1.4"),
		"a version with leading zeros": version("1.04.0"),
		"a syscall in capitals":        in("spec.constraints.seccomp.deniedSyscalls", []any{"BPF"}, "should match '^[a-z0-9_]+$'"),
		"a kind in capitals":           in("spec.allowedKinds", []any{"Seccomp"}, "should match '^[a-z][a-z0-9-]*$'"),
		"an unknown baseline":          in("spec.constraints.seccomp.baseline", "None", `supported values: "RuntimeDefault", "Unbounded"`),
		"constraints of no kind":       in("spec.constraints.landlock", map[string]any{}, `unknown field "spec.constraints.landlock"`),
		"a name of 254 characters":     in("metadata.name", strings.Repeat("a", 254), "metadata.name"),
		"a field nobody knows":         in("spec.treshold", int64(2), `unknown field "spec.treshold"`),
		"an entry without a value":     in("spec.revoked.digests", []any{nil}, "spec.revoked.digests[0]"),
		"an object without a value":    in("spec.signers", []any{map[string]any{"name": "team", "key": nil}}, signersKey),
	}
}

func TestBadObjectsAreRefused(t *testing.T) {
	for kind, table := range map[string]struct {
		base     runtime.Object
		refusals map[string]refusal
	}{
		"SecurityProfile": {securityProfile(), profileRefusals()},
		"TrustPolicy":     {trustPolicy(), policyRefusals()},
		"constraints":     {trustPolicy(), constraintRefusals()},
	} {
		t.Run(kind, func(t *testing.T) {
			for name, tc := range table.refusals {
				t.Run(name, func(t *testing.T) {
					err := try(t, tc.set.of(t, table.base))
					if err == nil || !strings.Contains(err.Error(), tc.want) {
						t.Errorf("the server says %v, not %q", err, tc.want)
					}
				})
			}
		})
	}
}

// Every rule of the CRDs stands for a refusal in the tables above, which the
// server is asked about there.
func TestEveryRuleIsTried(t *testing.T) {
	tried := map[string]bool{}
	for _, table := range []map[string]refusal{profileRefusals(), policyRefusals(), constraintRefusals()} {
		for _, tc := range table {
			tried[tc.want] = true
		}
	}
	for kind := range definitions(t) {
		for _, p := range schemas(t, kind) {
			for _, message := range p.rules() {
				if !tried[message] {
					t.Errorf("%s %s: no bad object is refused with %q", kind, p.path, message)
				}
			}
		}
	}
}
