package trust

import (
	"encoding/json"
	"time"

	"github.com/opencontainers/go-digest"
)

// Policy is one trust policy in plain terms: who is trusted for which sources
// and namespaces, and what a signed artifact may hold. Compile validates it.
type Policy struct {
	// Name is how messages call the policy.
	Name string
	// Repositories are patterns of canonical source repositories.
	Repositories []string
	// Namespaces are exact names, or the single entry "*".
	Namespaces []string
	// Signers are the identities whose signatures count.
	Signers []Signer
	// Threshold is the number of distinct credentials required, 1..len(Signers).
	Threshold int
	// AllowedKinds are the names of the kinds an artifact may hold.
	AllowedKinds []string
	// Limits are the constraints by kind, as the JSON the kind reads.
	Limits map[string]json.RawMessage
	// RequireName demands the signed name annotation to be namespace/name.
	RequireName bool
	// RevokedDigests and RevokedKeys ("sha256:<hex>" of the DER SPKI) are
	// refused whoever signed.
	RevokedDigests []digest.Digest
	RevokedKeys    []string
	// Floors are the least signed version annotations per source.
	Floors []Floor
}

// Signer is one identity whose signatures count.
type Signer struct {
	// Name is how messages call the signer.
	Name string
	// KeyPEM is a PKIX public key.
	KeyPEM []byte
	// NotBefore and NotAfter bound when the key counts; zero means unbounded.
	NotBefore, NotAfter time.Time
}

// Floor is the least version accepted from matching repositories.
type Floor struct {
	Repositories string
	Version      string
}
