package trust

import (
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/confine-dev/confine/pkg/artifact/reference"
	"github.com/confine-dev/confine/pkg/profile"
)

// Subject is what signatures are judged for.
type Subject struct {
	Repository reference.Repository
	Digest     digest.Digest
	Owner      profile.Owner
}

// Verdict says who signed, and how long that holds.
type Verdict struct {
	// Credentials are the distinct credentials that counted.
	Credentials []Credential
	// ValidUntil is the earliest time at which the verdict must be made again
	// because a signer's validity ends; zero where none ends.
	ValidUntil time.Time
}

// Credential is one distinct credential that signed.
type Credential struct {
	// ID is "sha256:<hex>" of a key's DER SubjectPublicKeyInfo.
	ID string
	// Signers are the policies' names for it, as "policy/signer", sorted.
	Signers []string
	// Form is how its signature was attached.
	Form Form
}
