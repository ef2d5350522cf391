// Package plan decides what a node does, and does nothing: pure functions from
// what is wanted and what is there to actions.
package plan

import (
	"cmp"
	"slices"
	"strings"

	"github.com/confine-dev/confine/pkg/node/intent"
	"github.com/confine-dev/confine/pkg/node/journal"
	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/reason"
)

// Claims say who has which name.
type Claims struct {
	// Owners are all claimed names, sorted.
	Owners []profile.Owner
	// Held are the profiles that have a name: the holder first, then those that
	// want the same digest and so share it.
	Held map[profile.Owner][]intent.Profile
	// Conflicts are the profiles that want other bytes under a held name.
	Conflicts []Conflict
}

// Conflict is a profile that does not get the name it wants.
type Conflict struct {
	Profile intent.Profile
	Err     *reason.Error
}

// Holders returns who had a name so far, from the journal.
type Holders func(profile.Owner) []journal.Claim

// Resolve says who has which name. Of several profiles that claim one name the
// oldest has it: by creation time, then the one that has it already, then by
// UID and origin. A holder keeps its name while it cannot be installed, or two
// profiles would take turns.
func Resolve(profiles []intent.Profile, holders Holders) Claims {
	claims := Claims{Held: map[profile.Owner][]intent.Profile{}}
	byOwner := map[profile.Owner][]intent.Profile{}
	for _, p := range profiles {
		if byOwner[p.Owner] == nil {
			claims.Owners = append(claims.Owners, p.Owner)
		}
		byOwner[p.Owner] = append(byOwner[p.Owner], p)
	}
	slices.SortFunc(claims.Owners, profile.Owner.Compare)
	for _, owner := range claims.Owners {
		candidates := byOwner[owner]
		holding := holders(owner)
		slices.SortStableFunc(candidates, func(a, b intent.Profile) int {
			return cmp.Or(
				a.Created.Compare(b.Created),
				cmp.Compare(rank(a, holding), rank(b, holding)),
				strings.Compare(a.UID, b.UID),
				strings.Compare(a.Origin, b.Origin))
		})
		holder := candidates[0]
		for _, p := range candidates {
			if p.Artifact.Digest == holder.Artifact.Digest {
				claims.Held[owner] = append(claims.Held[owner], p)
				continue
			}
			claims.Conflicts = append(claims.Conflicts, Conflict{Profile: p, Err: conflict(p, holder)})
		}
	}
	return claims
}

// rank orders those that have the name already before those that do not. Only
// the first claim of the journal holds a name; the others share it.
func rank(p intent.Profile, holding []journal.Claim) int {
	for i, c := range holding {
		if c.UID == p.UID && c.Origin == p.Origin {
			return i
		}
	}
	return len(holding)
}

func conflict(p, holder intent.Profile) *reason.Error {
	return reason.New(reason.NameConflict, p.Origin, "%s belongs to %s, which wants %s", p.Owner, describe(holder), holder.Artifact.Digest).
		WithAdvice("choose another name in %s, or remove %s", p.Origin, holder.Origin)
}

func describe(p intent.Profile) string {
	if p.UID != "" {
		return p.Origin + " (UID " + p.UID + ")"
	}
	return p.Origin
}
