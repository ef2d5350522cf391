package trust_test

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/confine-dev/confine/pkg/artifact/reference"
	"github.com/confine-dev/confine/pkg/artifact/trust"
	"github.com/confine-dev/confine/pkg/reason"
)

// seededECDSA and seededEd25519 make the same key in every process: the fuzzer
// compares what runs in several, and stalls where it differs by chance.
func seededECDSA(f *testing.F, seed string) testKey {
	f.Helper()
	sum := sha256.Sum256([]byte(seed))
	private, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), sum[:])
	if err != nil {
		f.Fatal(err)
	}
	return keyOf(f, private)
}

func seededEd25519(f *testing.F, seed string) testKey {
	f.Helper()
	sum := sha256.Sum256([]byte(seed))
	return keyOf(f, ed25519.NewKeyFromSeed(sum[:]))
}

// unused are policies that trust keys by which nothing is ever signed:
// whatever counts is a forgery.
func unused(f *testing.F) *trust.Matched {
	f.Helper()
	return match(f, policyOf("p", seededECDSA(f, "unused")), policyOf("q", seededEd25519(f, "unused")))
}

// mustNotCount offers a candidate that no trusted key has signed.
func mustNotCount(t *testing.T, matched *trust.Matched, c trust.Candidate) {
	t.Helper()
	session := matched.Begin(subject(), now())
	err := session.Offer(t.Context(), c)
	if err == nil || session.Met() || len(session.Counted()) != 0 {
		t.Fatalf("counted though nobody signed: %q %q", c.Payload, c.Annotations)
	}
	if _, ok := reason.Of(err); !ok {
		t.Fatalf("%v is no reason.Error", err)
	}
	if _, err := session.Verdict(); err == nil {
		t.Fatal("a verdict though nobody signed")
	} else if strings.ContainsAny(err.Error(), "\x00\x1b\r") {
		t.Fatalf("%q would write over a terminal", err)
	}
}

func FuzzBundle(f *testing.F) {
	matched := unused(f)
	signer := seededEd25519(f, "signer")
	seeds := attacks(f, signer, seededEd25519(f, "stranger"))
	for _, name := range slices.Sorted(maps.Keys(seeds)) {
		if c := seeds[name].candidate; c.Form == trust.FormBundle && len(c.Payload) < 1<<16 {
			f.Add(c.Payload)
		}
	}
	f.Add(bundleFor(f, signer, subject().Digest).Payload)
	f.Fuzz(func(t *testing.T, payload []byte) {
		mustNotCount(t, matched, bundleCandidate(payload))
	})
}

// The signed part of a bundle by a trusted key: whatever changes in it, it
// counts only as it was signed.
func FuzzStatement(f *testing.F) {
	matched := unused(f)
	signer := seededEd25519(f, "signer")
	sv := signer.cosignSigner(f)
	trusting := match(f, policyOf("p", signer))
	f.Add(trust.StatementPayloadType, statementFor(subject().Digest))
	f.Add(trust.StatementPayloadType, statementFor(artifactDigest("other")))
	f.Add("text/plain", "")
	f.Fuzz(func(t *testing.T, payloadType, payload string) {
		if strings.ToValidUTF8(payloadType, "") != payloadType {
			return // protobuf strings are UTF-8: no such bundle can be written
		}
		c := bundleOf(t, signer, sv, payloadType, payload)
		mustNotCount(t, matched, c)
		session := trusting.Begin(subject(), now())
		counted := session.Offer(t.Context(), c) == nil
		var statement struct {
			Type          string `json:"_type"`
			PredicateType string
			Subject       []struct{ Digest map[string]string }
		}
		means := payloadType == trust.StatementPayloadType && json.Unmarshal([]byte(payload), &statement) == nil &&
			statement.Type == statementType && statement.PredicateType == trust.SignPredicateType &&
			len(statement.Subject) == 1 && statement.Subject[0].Digest["sha256"] == subject().Digest.Encoded()
		if counted && !means || counted != session.Met() {
			t.Fatalf("counted %t, met %t: %q %q", counted, session.Met(), payloadType, payload)
		}
	})
}

func FuzzSimpleSigning(f *testing.F) {
	matched := unused(f)
	signer := seededEd25519(f, "signer")
	good := simpleFor(f, signer, subject().Digest)
	f.Add(good.Payload, good.Annotations[trust.SignatureAnnotation], "dev.sigstore.cosign/bundle", "")
	f.Add([]byte(`{"critical":{"type":"cosign container image signature"}}`), "AAAA", "dev.sigstore.cosign/rfc3161timestamp", "junk")
	f.Add([]byte{}, "", "", "")
	f.Fuzz(func(t *testing.T, payload []byte, sig, key, value string) {
		c := trust.Candidate{ID: digest.FromBytes(payload), Form: trust.FormSimpleSigning, Payload: payload,
			Annotations: map[string]string{key: value, trust.SignatureAnnotation: sig}}
		mustNotCount(t, matched, c)
		c.Annotations[trust.SignatureAnnotation] = base64.StdEncoding.EncodeToString([]byte(sig))
		mustNotCount(t, matched, c)
	})
}

func FuzzPattern(f *testing.F) {
	k := seededECDSA(f, "any")
	for _, s := range []string{"reg.example/a/**", "reg.example/a/*/b", "docker.io/nginx", "**", "REG.example.:443/a", "[::1]:5000/a/*", "*/a", "a/b"} {
		f.Add(s, "reg.example/a/b")
	}
	f.Fuzz(func(t *testing.T, pattern, name string) {
		p := policyOf("p", k)
		p.Repositories = []string{pattern}
		policies, err := trust.Compile([]trust.Policy{p})
		if err != nil {
			if e, ok := reason.Of(err); !ok || e.Reason != reason.TrustPolicyInvalid {
				t.Fatalf("%v is not TrustPolicyInvalid", err)
			}
			return
		}
		if segments := strings.Split(pattern, "/"); strings.Contains(segments[0]+segments[1], "*") {
			t.Fatalf("%q has no literal beginning", pattern)
		}
		for _, stranger := range []reference.Repository{{}, {Host: "x"}, {Path: "x"}, {Host: "zz.invalid", Path: "zz/zz"}} {
			if _, err := policies.Matching(stranger, namespace); err == nil && !strings.Contains(strings.ToLower(pattern), "zz.invalid") {
				t.Fatalf("%q matches %v", pattern, stranger)
			}
		}
		repo, err := reference.ParseRepository(name)
		if err != nil {
			return
		}
		matched, err := policies.Matching(repo, namespace)
		if err == nil && len(matched.Names()) != 1 {
			t.Fatalf("%q matches %q by no policy", pattern, name)
		}
		// A pattern without stars is one name, however either is spelled.
		if own, ownErr := reference.ParseRepository(pattern); ownErr == nil && (own == repo) != (err == nil) {
			t.Fatalf("%q and %q: the same name is %t, matching %v", pattern, name, own == repo, err)
		}
	})
}

func FuzzCompile(f *testing.F) {
	k, ed := seededECDSA(f, "any"), seededEd25519(f, "any")
	seed := func(p trust.Policy) {
		data, err := json.Marshal(p)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	seed(policyOf("p", k, ed))
	full := policyOf("p", k)
	full.Limits = map[string]json.RawMessage{"seccomp": []byte(`{"a":1}`)}
	full.RevokedDigests, full.RevokedKeys = []digest.Digest{artifactDigest("a")}, []string{ed.id}
	full.Floors = []trust.Floor{{Repositories: host + "/team/**", Version: "1.0.0-a+b"}}
	full.Signers[0].NotBefore, full.Signers[0].NotAfter = now(), now().AddDate(1, 0, 0)
	seed(full)
	f.Add([]byte(`{}`))
	unsigned := bundleFor(f, seededEd25519(f, "stranger"), subject().Digest)
	f.Fuzz(func(t *testing.T, data []byte) {
		var p trust.Policy
		if json.Unmarshal(data, &p) != nil {
			return
		}
		policies, err := trust.Compile([]trust.Policy{p})
		if err != nil {
			if e, ok := reason.Of(err); !ok || e.Reason != reason.TrustPolicyInvalid || policies != nil {
				t.Fatalf("%v, %v", policies, err)
			}
			return
		}
		if p.Threshold < 1 || p.Threshold > len(p.Signers) || len(p.AllowedKinds) == 0 || len(p.Namespaces) == 0 {
			t.Fatalf("accepted %s", data)
		}
		matched, err := policies.Matching(repository(), namespace)
		if err != nil {
			return
		}
		if first := matched.Fingerprint(); first != matched.Fingerprint() {
			t.Fatal("the fingerprint changes by itself")
		}
		_ = matched.CheckAnnotations(subject(), map[string]string{"dev.confine.version": "1.0.0"})
		mustNotCount(t, matched, unsigned)
	})
}
