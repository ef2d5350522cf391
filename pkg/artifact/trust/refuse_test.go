package trust_test

import (
	"bytes"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"strings"
	"testing"

	"github.com/confine-dev/confine/pkg/artifact/trust"
	"github.com/confine-dev/confine/pkg/reason"
)

// edit changes a good bundle's JSON.
func edit(tb testing.TB, c trust.Candidate, change func(map[string]any)) trust.Candidate {
	tb.Helper()
	var parts map[string]any
	if err := json.Unmarshal(c.Payload, &parts); err != nil {
		tb.Fatal(err)
	}
	change(parts)
	data, err := json.Marshal(parts)
	if err != nil {
		tb.Fatal(err)
	}
	return bundleCandidate(data)
}

func material(parts map[string]any) map[string]any {
	return parts["verificationMaterial"].(map[string]any)
}

func envelope(parts map[string]any) map[string]any { return parts["dsseEnvelope"].(map[string]any) }

func signatures(parts map[string]any) []any { return envelope(parts)["signatures"].([]any) }

func certificateFor(tb testing.TB, k testKey) string {
	tb.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "someone"},
		NotBefore: now().AddDate(0, -1, 0), NotAfter: now().AddDate(0, 1, 0),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, k.private.Public(), k.private)
	if err != nil {
		tb.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(der)
}

type refusal struct {
	candidate trust.Candidate
	want      reason.Reason
	because   string // part of the message
}

// attacks are candidates that must not count under a policy that trusts k.
func attacks(tb testing.TB, k, stranger testKey) map[string]refusal {
	tb.Helper()
	good := bundleFor(tb, k, subject().Digest)
	other := artifactDigest("another artifact")
	statement := func(payload string) trust.Candidate {
		return bundleOf(tb, k, k.cosignSigner(tb), trust.StatementPayloadType, payload)
	}
	oneSubject := fmt.Sprintf(`{"digest":{"sha256":%q}}`, subject().Digest.Encoded())
	all := map[string]refusal{
		"moved from another artifact": {bundleFor(tb, k, other), reason.DigestMismatch, other.String()},
		"attestation": {statement(statementWith("https://slsa.dev/provenance/v1", "["+oneSubject+"]")),
			reason.PredicateMismatch, "slsa.dev"},
		"predicate almost":        {statement(statementWith(trust.SignPredicateType+"/", "["+oneSubject+"]")), reason.PredicateMismatch, "predicate"},
		"no predicate":            {statement(statementWith("", "["+oneSubject+"]")), reason.PredicateMismatch, "predicate"},
		"older statement":         {statement(strings.Replace(statementFor(subject().Digest), statementType, "https://in-toto.io/Statement/v0.1", 1)), reason.PredicateMismatch, "v0.1"},
		"untrusted key":           {bundleFor(tb, stranger, subject().Digest), reason.IdentityMismatch, "no signer has"},
		"two subjects":            {statement(statementWith(trust.SignPredicateType, "["+oneSubject+`,{"digest":{"sha256":"`+other.Encoded()+`"}}]`)), reason.SignatureInvalid, "2 subjects"},
		"no subject":              {statement(statementWith(trust.SignPredicateType, "[]")), reason.SignatureInvalid, "0 subjects"},
		"sha512 subject":          {statement(statementWith(trust.SignPredicateType, `[{"digest":{"sha512":"00"}}]`)), reason.SignatureInvalid, "sha256"},
		"two digests":             {statement(statementWith(trust.SignPredicateType, `[{"digest":{"sha512":"00","sha256":"`+subject().Digest.Encoded()+`"}}]`)), reason.SignatureInvalid, "exactly a sha256"},
		"capital digest":          {statement(statementWith(trust.SignPredicateType, `[{"digest":{"sha256":"`+strings.ToUpper(subject().Digest.Encoded())+`"}}]`)), reason.DigestMismatch, "another artifact"},
		"unknown statement field": {statement(strings.Replace(statementFor(subject().Digest), "{", `{"extra":1,`, 1)), reason.SignatureInvalid, "in-toto"},
		"statement twice":         {statement(statementFor(subject().Digest) + statementFor(subject().Digest)), reason.SignatureInvalid, "JSON"},
		"payload type": {bundleOf(tb, k, k.cosignSigner(tb), "application/json", statementFor(subject().Digest)),
			reason.PredicateMismatch, "application/json"},
	}
	maps.Copy(all, malformed(tb, good, k, stranger))
	maps.Copy(all, simpleAttacks(tb, k, stranger))
	return all
}

// malformed are bundles that are no whole bundles of one signature by a key.
func malformed(tb testing.TB, good trust.Candidate, k, stranger testKey) map[string]refusal {
	tb.Helper()
	with := func(change func(map[string]any)) trust.Candidate { return edit(tb, good, change) }
	raw := func(s string) trust.Candidate { return bundleCandidate([]byte(s)) }
	deep := strings.Repeat(`{"a":`, 100_000) + "1" + strings.Repeat("}", 100_000)
	strangers := edit(tb, bundleFor(tb, stranger, subject().Digest), func(p map[string]any) {
		material(p)["publicKey"] = map[string]any{"hint": k.hint}
	})
	return map[string]refusal{
		"no signature": {with(func(p map[string]any) { envelope(p)["signatures"] = []any{} }), reason.SignatureInvalid, "0 signatures"},
		"two signatures": {with(func(p map[string]any) { envelope(p)["signatures"] = append(signatures(p), signatures(p)[0]) }),
			reason.SignatureInvalid, "2 signatures"},
		"certificate": {with(func(p map[string]any) {
			p["verificationMaterial"] = map[string]any{"certificate": map[string]any{"rawBytes": certificateFor(tb, k)}}
		}), reason.IdentityMismatch, "certificate"},
		"certificate chain": {with(func(p map[string]any) {
			cert := map[string]any{"rawBytes": certificateFor(tb, k)}
			p["verificationMaterial"] = map[string]any{"x509CertificateChain": map[string]any{"certificates": []any{cert}}}
		}), reason.IdentityMismatch, "certificate"},
		"no material":      {with(func(p map[string]any) { delete(p, "verificationMaterial") }), reason.SignatureInvalid, "by what"},
		"no content":       {with(func(p map[string]any) { delete(p, "dsseEnvelope") }), reason.SignatureInvalid, "no signature"},
		"older bundle":     {with(func(p map[string]any) { p["mediaType"] = "application/vnd.dev.sigstore.bundle+json;version=0.2" }), reason.SignatureInvalid, "v0.3"},
		"newer bundle":     {with(func(p map[string]any) { p["mediaType"] = "application/vnd.dev.sigstore.bundle.v0.4+json" }), reason.SignatureInvalid, "v0.3"},
		"unknown field":    {with(func(p map[string]any) { p["extra"] = 1 }), reason.SignatureInvalid, "fields"},
		"another's key id": {with(func(p map[string]any) { signatures(p)[0].(map[string]any)["keyid"] = "x" }), reason.SignatureInvalid, "no signer's key"},
		"message signature": {with(func(p map[string]any) {
			delete(p, "dsseEnvelope")
			p["messageSignature"] = map[string]any{"messageDigest": map[string]any{"algorithm": "SHA2_256", "digest": "AAAA"}, "signature": "AAAA"}
		}), reason.PredicateMismatch, "sign-blob"},
		"payload exchanged": {with(func(p map[string]any) {
			envelope(p)["payload"] = base64.StdEncoding.EncodeToString([]byte(statementFor(subject().Digest) + " "))
		}), reason.SignatureInvalid, "no signer's key"},
		"payload type exchanged": {with(func(p map[string]any) { envelope(p)["payloadType"] = "text/plain" }), reason.SignatureInvalid, "no signer's key"},
		"empty signature":        {with(func(p map[string]any) { signatures(p)[0].(map[string]any)["sig"] = "" }), reason.SignatureInvalid, "no signer's key"},
		"no hint":                {edit(tb, bundleFor(tb, stranger, subject().Digest), func(p map[string]any) { material(p)["publicKey"] = map[string]any{} }), reason.SignatureInvalid, "no signer's key"},
		"lying hint":             {strangers, reason.SignatureInvalid, "no signer's key"},
		"duplicate key":          {raw(strings.Replace(string(good.Payload), "{", `{"mediaType":"x",`, 1)), reason.SignatureInvalid, "twice"},
		"case-variant key":       {raw(strings.Replace(string(good.Payload), "{", `{"MEDIATYPE":"x",`, 1)), reason.SignatureInvalid, "twice"},
		"truncated":              {bundleCandidate(good.Payload[:len(good.Payload)/2]), reason.SignatureInvalid, "cut off"},
		"something after it":     {raw(string(good.Payload) + "{}"), reason.SignatureInvalid, "JSON"},
		"empty":                  {raw(""), reason.SignatureInvalid, "JSON"},
		"null":                   {raw("null"), reason.SignatureInvalid, "object"},
		"not UTF-8":              {raw("{\"a\":\"\xff\"}"), reason.SignatureInvalid, "UTF-8"},
		"deep":                   {raw(deep), reason.SignatureInvalid, "not JSON"},
		"deep and whole":         {raw(strings.Repeat("[", 40) + strings.Repeat("]", 40)), reason.SignatureInvalid, "object"},
		"deep object":            {raw(strings.Repeat(`{"a":`, 40) + "1" + strings.Repeat("}", 40)), reason.SignatureInvalid, "deeper than 32"},
		"many parts":             {raw(`{"a":[` + strings.Repeat("1,", 20_000) + "1]}"), reason.SignatureInvalid, "parts"},
		"huge":                   {bundleCandidate(bytes.Repeat([]byte(" "), trust.MaxCandidateBytes+1)), reason.SignatureInvalid, "at most 1048576"},
		"unknown form":           {trust.Candidate{Form: "gpg", Payload: good.Payload}, reason.SignatureInvalid, "form"},
	}
}

// simpleAttacks are the same for the legacy form.
func simpleAttacks(tb testing.TB, k, stranger testKey) map[string]refusal {
	tb.Helper()
	good := simpleFor(tb, k, subject().Digest)
	annotated := func(value string) trust.Candidate {
		c := good
		c.Annotations = map[string]string{trust.SignatureAnnotation: value}
		return c
	}
	signed := func(payload string) trust.Candidate { return simpleOf(tb, k.cosignSigner(tb), []byte(payload)) }
	text := string(good.Payload)
	edited := good
	edited.Payload = []byte(text + " ")
	other := artifactDigest("another artifact")
	return map[string]refusal{
		"legacy: moved from another artifact": {simpleFor(tb, k, other), reason.DigestMismatch, other.String()},
		"legacy: untrusted key":               {simpleFor(tb, stranger, subject().Digest), reason.SignatureInvalid, "no signer's key"},
		"legacy: another type":                {signed(strings.Replace(text, "cosign container image signature", "atomic container signature", 1)), reason.PredicateMismatch, "atomic"},
		"legacy: no type":                     {signed(strings.Replace(text, "cosign container image signature", "", 1)), reason.PredicateMismatch, "critical.type"},
		"legacy: no digest":                   {signed(`{"critical":{"type":"cosign container image signature"}}`), reason.SignatureInvalid, "no sha256 digest"},
		"legacy: duplicate key":               {signed(strings.Replace(text, `"critical":{`, `"critical":{"image":{},`, 1)), reason.SignatureInvalid, "twice"},
		"legacy: case-variant key":            {signed(strings.Replace(text, `"critical":`, `"CRITICAL":{},"critical":`, 1)), reason.SignatureInvalid, "twice"},
		"legacy: folded k":                    {signed(strings.Replace(text, `"docker-manifest-digest":`, `"doc`+"\u212a"+`er-manifest-digest":"","docker-manifest-digest":`, 1)), reason.SignatureInvalid, "twice"},
		"legacy: folded s":                    {signed(strings.Replace(text, `"docker-manifest-digest":`, `"docker-manife`+"\u017f"+`t-digest":"","docker-manifest-digest":`, 1)), reason.SignatureInvalid, "twice"},
		"legacy: empty payload":               {signed(""), reason.SignatureInvalid, "JSON"},
		"legacy: payload edited":              {edited, reason.SignatureInvalid, "no signer's key"},
		"legacy: no annotation":               {trust.Candidate{Form: trust.FormSimpleSigning, Payload: good.Payload}, reason.SignatureInvalid, "annotation"},
		"legacy: empty signature":             {annotated(""), reason.SignatureInvalid, "annotation"},
		"legacy: signature with line end":     {annotated(good.Annotations[trust.SignatureAnnotation] + "\x00"), reason.SignatureInvalid, "base64"},
		"legacy: no base64":                   {annotated("%%%"), reason.SignatureInvalid, "base64"},
		"legacy: long signature":              {annotated(strings.Repeat("A", 5000)), reason.SignatureInvalid, "at most 4096"},
		"legacy: zero signature":              {annotated(base64.StdEncoding.EncodeToString(make([]byte, 64))), reason.SignatureInvalid, "no signer's key"},
		"legacy: huge payload":                {signed(`{"a":"` + strings.Repeat("x", 300_000) + `"}`), reason.SignatureInvalid, "at most 262144"},
		"legacy: huge annotations":            {trust.Candidate{Form: trust.FormSimpleSigning, Annotations: map[string]string{"a": strings.Repeat("x", trust.MaxCandidateBytes+1)}}, reason.SignatureInvalid, "at most 1048576"},
	}
}

func TestRefused(t *testing.T) {
	key, stranger := newKey(t), newKey(t)
	good := bundleFor(t, key, subject().Digest)
	for name, attack := range attacks(t, key, stranger) {
		t.Run(name, func(t *testing.T) {
			session := begin(t, policyOf("p", key))
			err := session.Offer(t.Context(), attack.candidate)
			wantReason(t, err, attack.want, attack.because)
			if session.Met() || len(session.Counted()) != 0 {
				t.Error("it counted")
			}
			verdict, err := session.Verdict()
			wantReason(t, err, attack.want, `TrustPolicy "p" has 0 of 1 signatures`)
			wantReason(t, err, attack.want, attack.because)
			if len(verdict.Credentials) != 0 {
				t.Errorf("a refused verdict names %v", verdict.Credentials)
			}
			// It does no harm to a good one that follows.
			if err := session.Offer(t.Context(), good); err != nil || !session.Met() {
				t.Errorf("a good signature after it: %v", err)
			}
		})
	}
}

// wantReason checks the reason, a part of the message, and what every refusal has.
func wantReason(t *testing.T, err error, want reason.Reason, because string) {
	t.Helper()
	refused, ok := reason.Of(err)
	if !ok {
		t.Fatalf("got %v, want a reason.Error %s", err, want)
	}
	if !errors.Is(err, want) {
		t.Errorf("got %v, want %s", err, want)
	}
	if !strings.Contains(err.Error(), because) {
		t.Errorf("%q does not say %q", err, because)
	}
	if refused.WhatToDo() == "" || refused.Object == "" {
		t.Errorf("%q has no object or advice", err)
	}
	if len(refused.Detail) > 1024 {
		t.Errorf("the detail has %d bytes", len(refused.Detail))
	}
}
