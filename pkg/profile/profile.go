// Package profile holds the two seams every kind of security profile stands
// behind: Kind gives bytes a meaning, Host brings that meaning to a kernel.
// Everything else (packing, trust, nodes, controllers) treats kinds alike.
package profile

import (
	"cmp"
	"context"
	"encoding/json"
	"strings"

	"github.com/opencontainers/go-digest"
)

// MaxPayloadBytes bounds one profile file, as KEP-6061 does for seccomp.
const MaxPayloadBytes = 1 << 20

// Kind gives meaning to the bytes of one kind of profile. Implementations are
// stateless, safe for concurrent use, and never panic on foreign bytes.
// profiletest.RunKind is the suite that every implementation passes.
type Kind interface {
	// Name is the kind's word in resources, status and commands: lower case,
	// such as "seccomp".
	Name() string
	// Format says how payloads of this kind are labelled in artifacts.
	Format() Format
	// Sniff reports whether data looks like this kind, for layers that carry
	// no other label. It is cheap and may be wrong; Parse decides.
	Sniff(data []byte) bool
	// Parse reads data strictly. file is only a label for messages. The error
	// is ProfileInvalid with the position, or TooLarge beyond MaxPayloadBytes.
	Parse(file string, data []byte) (Profile, error)
	// Constrain judges p against the limits of all matching policies, one
	// entry a policy; a nil entry is the safe default. What is forbidden by
	// one is forbidden. No entry at all is judged as one nil entry. by says
	// for whom: names that belong to another namespace are forbidden, and no
	// limits allow them.
	// The error is ProfileForbidden (or TrustPolicyInvalid for limits that
	// cannot be read).
	Constrain(p Profile, by Scope, limits []Limits) error
}

// Limits are the constraints one policy states for one kind, as the JSON of
// the typed API field; only the kind itself reads them, strictly. nil means
// that the policy states none, and stands for the kind's safe default.
type Limits = json.RawMessage

// Format says how payloads of a kind are labelled inside artifacts.
type Format struct {
	// MediaType is the layer media type that push writes.
	MediaType string
	// Extensions of layer titles that mean this kind, with the dot, most
	// usual first: ".json".
	Extensions []string
	// DefaultFile is the installed file's name where a layer has no usable title.
	DefaultFile string
}

// Profile is one parsed payload of some kind.
type Profile interface {
	// Kind is the name of the kind that parsed it.
	Kind() string
	// Findings are what a reviewer should see though it is no error.
	Findings() []Finding
}

// Finding is one warning about a profile that is valid.
type Finding struct {
	// Position is "line:column" in the payload, or empty.
	Position string `json:"position,omitempty"`
	// Message says what was found and what it means.
	Message string `json:"message"`
}

// Differ is the optional ability of a Kind to say what a change means.
type Differ interface {
	// Diff returns the semantic changes from old to new, in a stable order;
	// none means that both allow exactly the same.
	Diff(old, updated Profile) ([]Change, error)
}

// ChangeSense says in which direction a change moves what is allowed.
type ChangeSense string

// The senses of a change.
const (
	Gained  ChangeSense = "gained"  // the new profile allows more here
	Lost    ChangeSense = "lost"    // the new profile allows less here
	Altered ChangeSense = "altered" // neither more nor less, but different
)

// Change is one semantic difference between two profiles.
type Change struct {
	Sense ChangeSense `json:"sense"`
	// Subject is what changed, in the kind's terms, such as a syscall.
	Subject string `json:"subject"`
	Old     string `json:"old,omitempty"`
	New     string `json:"new,omitempty"`
}

// Owner is the namespaced name of the SecurityProfile that wants a unit. Both
// parts are DNS labels; a Host refuses others.
type Owner struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
}

// String renders namespace/name.
func (o Owner) String() string { return o.Namespace + "/" + o.Name }

// Compare orders owners by namespace, then name.
func (o Owner) Compare(other Owner) int {
	return cmp.Or(strings.Compare(o.Namespace, other.Namespace), strings.Compare(o.Name, other.Name))
}

// File is one payload as installed: Name is a bare, sanitized file name.
type File struct {
	Name string
	Data []byte
}

// Unit is all files of one kind from one artifact, installed as one: they
// become visible together or not at all.
type Unit struct {
	Owner Owner
	// Digest names the set of files: the pinned digest of the artifact they
	// are from, or, while dropped files are kept beside newer ones, the digest
	// of a description of both. The same digest means the same files.
	Digest digest.Digest
	Files  []File
}

// Outcome is what Install or Remove did for one unit.
type Outcome struct {
	// Changed is set where the host was not as wanted before.
	Changed bool
	// Err is a reason.Error (InstallFailed, NoSpace, NameConflict,
	// KindUnsupported, ProfileInvalid) or nil. The previous unit of the same
	// owner is still in force then.
	Err error
}

// Installed is one unit found on the host.
type Installed struct {
	Owner  Owner
	Digest digest.Digest
	// References are how workloads name the unit's files, such as the value
	// of a pod's localhostProfile. Sorted.
	References []string
	// Files are the same references by the file that each is in, sorted by
	// file name. A file may hold several, or none.
	Files []InstalledFile
}

// InstalledFile is one file of a unit on the host.
type InstalledFile struct {
	Name       string
	References []string
}

// Host brings units of one kind to this machine's kernel or runtime.
// profiletest.RunHost is the suite that every implementation passes.
type Host interface {
	// Kind is the name of the kind it serves.
	Kind() string
	// Supported returns nil, or KindUnsupported saying what is missing here.
	Supported(ctx context.Context) error
	// Install makes each unit the one in force for its owner, and returns one
	// Outcome a unit. It is idempotent and repairs drift: what already is as
	// wanted is left alone. Killed at any point, a repeated call converges.
	Install(ctx context.Context, units []Unit) []Outcome
	// Remove takes away what the owners have in force; an owner without a
	// unit is no error. Units still shared by others keep their files.
	Remove(ctx context.Context, owners []Owner) []Outcome
	// Installed lists what is in force, sorted by owner. An error means that
	// the host could not be read, never that nothing is there.
	Installed(ctx context.Context) ([]Installed, error)
}

// Restorer is the optional ability of a Host whose kernel forgets at a reboot
// what was installed.
type Restorer interface {
	// Restore brings back into force what Install brought there last and Remove
	// did not take away, from the host's own disk alone, and returns one Outcome
	// a unit. What is in force is left alone. An error means that the disk could
	// not be read.
	Restore(ctx context.Context) ([]Outcome, error)
}
