// Package intent reads what people want from manifests: SecurityProfiles and
// TrustPolicies in YAML, the same types a cluster serves, turned into the plain
// types the node works with. It decodes strictly: what cannot be read is
// reported and never taken for absent.
package intent

import (
	"time"

	"github.com/confine-dev/confine/pkg/artifact/reference"
	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/reason"
)

// Bounds on one folder of manifests.
const (
	MaxFiles     = 4096
	MaxFileBytes = 4 << 20
	MaxObjects   = 4096
)

// Profile is one SecurityProfile: whom the artifact belongs to and which one.
type Profile struct {
	Owner profile.Owner
	// UID tells objects of the same name apart; a folder has none.
	UID string
	// Artifact is pinned: it has a digest.
	Artifact reference.Reference
	// RequireAllKinds is set where kinds is Required.
	RequireAllKinds bool
	// Origin is the file and the document in it, for messages and for a stable order.
	Origin string
	// Created is the object's creation time; zero where it states none.
	Created time.Time
}

// Problem is one manifest, or one object in it, that cannot be used.
type Problem struct {
	Origin string
	// Owner is the object's name where that could be read: what is installed
	// for it stays. The zero value means that it is not known whose it is.
	Owner profile.Owner
	Err   *reason.Error
}

// Desired is all that a folder of manifests wants.
type Desired struct {
	// Profiles in the order of files and documents.
	Profiles []Profile
	Invalid  []Problem
	// Complete is false where something could not be read whose owner is not
	// known. Then nothing may be removed.
	Complete bool
}
