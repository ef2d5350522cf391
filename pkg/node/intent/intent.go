// Package intent reads what people want: SecurityProfiles and TrustPolicies in
// YAML, or the ProfileNode and the TrustPolicies that a cluster serves, turned
// into the plain types the node works with. It decodes strictly: what cannot be read is
// reported and never taken for absent.
package intent

import (
	"slices"
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
	// Origin is the file and the document in it, or the object, for messages and
	// for a stable order.
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

// Desired is all that a folder of manifests, or a ProfileNode, wants.
type Desired struct {
	// Profiles in the order of files and documents.
	Profiles []Profile
	Invalid  []Problem
	// Complete is false where something could not be read whose owner is not
	// known. Then nothing may be removed.
	Complete bool
	// NeedsRelease is set where nothing may be removed without a release.
	NeedsRelease bool
	// Releases are removals that may happen.
	Releases []Release
}

// Release lets go what was reported as due at one time, and nothing else.
type Release struct {
	Owner    profile.Owner
	RemoveAt time.Time
}

// Released reports whether what an owner has and what is due at a time may go.
func (d Desired) Released(owner profile.Owner, due time.Time) bool {
	if !d.NeedsRelease {
		return true
	}
	return slices.ContainsFunc(d.Releases, func(r Release) bool {
		return r.Owner == owner && !due.IsZero() && r.RemoveAt.Equal(due)
	})
}
