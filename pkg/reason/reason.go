// Package reason holds the one closed set of reasons why Confine did not do
// what was asked. The command line, status, events and metrics all use it, so
// a word seen in one place can be searched for in every other.
//
// It is a leaf: it imports the standard library alone, so that every package,
// from the kernel side to the registry side, can refuse in the same words.
package reason

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Reason is one word of the closed set. It is itself an error, so that
// errors.Is(err, reason.Revoked) asks the question directly.
type Reason string

// The closed set. Adding one is an API change: docs/reasons.md lists them all,
// and a test compares the two.
const (
	NoTrustPolicy       Reason = "NoTrustPolicy"
	TrustPolicyInvalid  Reason = "TrustPolicyInvalid"
	SignatureMissing    Reason = "SignatureMissing"
	SignatureInvalid    Reason = "SignatureInvalid"
	IdentityMismatch    Reason = "IdentityMismatch"
	PredicateMismatch   Reason = "PredicateMismatch"
	ThresholdNotMet     Reason = "ThresholdNotMet"
	SignerExpired       Reason = "SignerExpired"
	Revoked             Reason = "Revoked"
	TrustRootExpired    Reason = "TrustRootExpired"
	DigestMismatch      Reason = "DigestMismatch"
	Unauthorized        Reason = "Unauthorized"
	RegistryUnavailable Reason = "RegistryUnavailable"
	RateLimited         Reason = "RateLimited"
	ArtifactNotFound    Reason = "ArtifactNotFound"
	UnsupportedArtifact Reason = "UnsupportedArtifact"
	TooLarge            Reason = "TooLarge"
	ProfileInvalid      Reason = "ProfileInvalid"
	ProfileForbidden    Reason = "ProfileForbidden"
	NameConflict        Reason = "NameConflict"
	KindUnsupported     Reason = "KindUnsupported"
	InstallFailed       Reason = "InstallFailed"
	NoSpace             Reason = "NoSpace"
)

// Fate says what becomes of work that failed for a reason.
type Fate string

const (
	// Retry means that the cause may pass by itself; try again with backoff.
	Retry Fate = "Retry"
	// Wait means that nothing changes until somebody changes trust, signatures or the
	// host; look again at a slow pace and whenever an input changes.
	Wait Fate = "Wait"
	// Stalled means that these bytes will never be accepted; only another digest or
	// another policy ends it.
	Stalled Fate = "Stalled"
)

type entry struct {
	reason Reason
	fate   Fate
	advice string
}

// table is a function, not a variable: the set cannot be changed at run time.
func table() []entry {
	return []entry{
		{NoTrustPolicy, Wait, "ask an administrator for a TrustPolicy that matches this repository and namespace"},
		{TrustPolicyInvalid, Wait, "mend the TrustPolicy that the message names; what is installed stays meanwhile"},
		{SignatureMissing, Wait, "sign the digest, for example: confine push --key cosign.key, or cosign sign --key cosign.key REPO@DIGEST"},
		{SignatureInvalid, Wait, "sign the digest again with a key that the TrustPolicy names"},
		{IdentityMismatch, Wait, "sign with an identity and name that the TrustPolicy accepts"},
		{PredicateMismatch, Wait, "an attestation is no signature: sign the digest with cosign sign or confine push --key"},
		{ThresholdNotMet, Wait, "collect the missing signatures from further signers of the TrustPolicy"},
		{SignerExpired, Wait, "sign with a key that is valid now, or extend the signer's validity in the TrustPolicy"},
		{Revoked, Stalled, "reference a newer digest: an administrator revoked this one, its signer or its version"},
		{TrustRootExpired, Wait, "give the TrustPolicy a current trusted root"},
		{DigestMismatch, Wait, "the bytes are not those the digest names: check the registry or mirror, and push the artifact again if it was damaged"},
		{Unauthorized, Wait, "check the registry credentials (docker config file) for this repository"},
		{RegistryUnavailable, Retry, "check that the registry can be reached; it is tried again by itself"},
		{RateLimited, Retry, "wait, or use credentials with a higher limit; it is tried again by itself"},
		{ArtifactNotFound, Wait, "check repository and digest, and that the push has finished"},
		{UnsupportedArtifact, Stalled, "push the profile with confine push or oras push, as docs/artifact-format.md shows"},
		{TooLarge, Stalled, "make the artifact smaller: docs/artifact-format.md lists the bounds"},
		{ProfileInvalid, Stalled, "mend the profile at the position given: confine lint FILE shows the same"},
		{ProfileForbidden, Stalled, "make the profile stricter, or relax the constraint in every matching TrustPolicy"},
		{NameConflict, Wait, "choose another name, or remove the other owner"},
		{KindUnsupported, Wait, "use a node that supports this kind of profile"},
		{InstallFailed, Retry, "see the cause in the message; it is tried again by itself"},
		{NoSpace, Retry, "free disk space on the node; it is tried again by itself"},
	}
}

// All returns the closed set in its documented order.
func All() []Reason {
	t := table()
	all := make([]Reason, 0, len(t))
	for _, e := range t {
		all = append(all, e.reason)
	}
	return all
}

// Error makes a Reason a target for errors.Is.
func (r Reason) Error() string { return string(r) }

// Fate returns what becomes of work that failed for r; Retry for a reason
// outside the set, which Valid tells apart.
func (r Reason) Fate() Fate {
	if e, ok := r.entry(); ok {
		return e.fate
	}
	return Retry
}

// Advice is the general sentence on what to do about r. Errors carry a more
// exact one where the place that refused knows it.
func (r Reason) Advice() string {
	e, _ := r.entry()
	return e.advice
}

// Valid reports whether r is of the closed set.
func (r Reason) Valid() bool {
	_, ok := r.entry()
	return ok
}

func (r Reason) entry() (entry, bool) {
	t := table()
	i := slices.IndexFunc(t, func(e entry) bool { return e.reason == r })
	if i < 0 {
		return entry{}, false
	}
	return t[i], true
}

// Error says for which reason what happened to which object, and what to do.
type Error struct {
	// Reason is of the closed set.
	Reason Reason
	// Object is what it happened to, such as "registry.example/web@sha256:…"
	// or "nginx.json:3:14".
	Object string
	// Detail says what happened, without a full stop. It never holds a secret.
	Detail string
	// Advice says what to do; empty means Reason.Advice.
	Advice string
	// RetryAfter, when positive, is the least time until another attempt makes
	// sense, as a registry asked or as unfinished work wants.
	RetryAfter time.Duration
	// Err is the cause, for errors.Is and logs; it may be nil.
	Err error
}

// New returns an Error with a formatted detail. A %w verb keeps its cause.
func New(r Reason, object, format string, args ...any) *Error {
	wrapped := fmt.Errorf(format, args...)
	return &Error{Reason: r, Object: object, Detail: wrapped.Error(), Err: errors.Unwrap(wrapped)}
}

// WithAdvice returns a copy of e that says what to do in its own words.
func (e *Error) WithAdvice(format string, args ...any) *Error {
	c := *e
	c.Advice = fmt.Sprintf(format, args...)
	return &c
}

// Error renders "Reason: object: detail".
func (e *Error) Error() string {
	parts := []string{string(e.Reason)}
	if e.Object != "" {
		parts = append(parts, e.Object)
	}
	if e.Detail != "" {
		parts = append(parts, e.Detail)
	}
	return strings.Join(parts, ": ")
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Is matches the bare Reason as well as the error itself.
func (e *Error) Is(target error) bool {
	r, ok := target.(Reason)
	return ok && r == e.Reason
}

// WhatToDo returns the exact advice, or the general one of the reason.
func (e *Error) WhatToDo() string {
	if e.Advice != "" {
		return e.Advice
	}
	return e.Reason.Advice()
}

// Of returns the outermost Error in err's chain, and false where there is none.
func Of(err error) (*Error, bool) {
	return errors.AsType[*Error](err)
}
