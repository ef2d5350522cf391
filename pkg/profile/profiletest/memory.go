package profiletest

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"

	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/reason"
)

// MemoryHost is a profile.Host whose machine is memory. It passes RunHost, so
// what works with it works with a real one. Safe for concurrent use.
type MemoryHost struct {
	kind string

	mu          sync.Mutex
	artifacts   map[digest.Digest][]profile.File
	links       map[profile.Owner]digest.Digest
	unsupported bool
	unreadable  error
	failures    map[profile.Owner]error
	before      func() error
	installs    int
}

var _ profile.Host = (*MemoryHost)(nil)

// NewMemoryHost returns an empty machine that serves one kind.
func NewMemoryHost(kind string) *MemoryHost {
	return &MemoryHost{kind: kind, artifacts: map[digest.Digest][]profile.File{},
		links: map[profile.Owner]digest.Digest{}, failures: map[profile.Owner]error{}}
}

// SetUnsupported lets every later call behave as on a machine without kernel
// support, or again as on one with it.
func (h *MemoryHost) SetUnsupported(unsupported bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.unsupported = unsupported
}

// FailFor lets installs and removals for one owner fail with err, before
// anything changes; nil lets them work again.
func (h *MemoryHost) FailFor(o profile.Owner, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err == nil {
		delete(h.failures, o)
		return
	}
	h.failures[o] = err
}

// FailInstalled lets Installed fail with err; nil lets it work again.
func (h *MemoryHost) FailInstalled(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.unreadable = err
}

// SetBefore sets what is called before every change, as Machine.Open says.
func (h *MemoryHost) SetBefore(before func() error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.before = before
}

// Installs is how many units Install was asked for so far, also unchanged
// ones.
func (h *MemoryHost) Installs() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.installs
}

// Files returns what is in force for one owner, sorted by name, and false
// where nothing is.
func (h *MemoryHost) Files(o profile.Owner) ([]profile.File, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	dgst, ok := h.links[o]
	return cloneFiles(h.artifacts[dgst]), ok
}

// Damage changes the first byte of every file in force for one owner.
func (h *MemoryHost) Damage(o profile.Owner) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for i, f := range h.artifacts[h.links[o]] {
		h.artifacts[h.links[o]][i].Data = append([]byte{0}, f.Data...)
	}
}

// Forget takes an owner's unit away behind the Host's back.
func (h *MemoryHost) Forget(o profile.Owner) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.links, o)
}

// State renders the whole machine, as Machine.State does.
func (h *MemoryHost) State() (map[string]string, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	state := map[string]string{}
	for dgst, files := range h.artifacts {
		for _, f := range files {
			state[dgst.String()+"/"+f.Name] = string(f.Data)
		}
	}
	for o, dgst := range h.links {
		state[o.String()] = dgst.String()
	}
	return state, nil
}

// Kind is the name given to NewMemoryHost.
func (h *MemoryHost) Kind() string { return h.kind }

// Supported is nil unless SetUnsupported was called.
func (h *MemoryHost) Supported(context.Context) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.supported()
}

func (h *MemoryHost) supported() error {
	if h.unsupported {
		return reason.New(reason.KindUnsupported, h.kind, "this machine was told not to support it")
	}
	return nil
}

// Install implements profile.Host.
func (h *MemoryHost) Install(ctx context.Context, units []profile.Unit) []profile.Outcome {
	h.mu.Lock()
	defer h.mu.Unlock()
	outcomes := make([]profile.Outcome, len(units))
	for i, u := range units {
		h.installs++
		err := h.supported()
		if err == nil {
			err = h.ready(ctx, u.Owner)
		}
		if err == nil {
			err = checkUnit(u)
		}
		if err == nil {
			outcomes[i].Changed, err = h.install(u)
		}
		outcomes[i].Err = explain(u.Owner, err)
	}
	_ = h.collect() // a later call collects what this one could not
	return outcomes
}

func (h *MemoryHost) install(u profile.Unit) (bool, error) {
	files := sortedFiles(u.Files)
	changed := false
	if !slices.EqualFunc(h.artifacts[u.Digest], files, sameFile) {
		for o, dgst := range h.links {
			if dgst == u.Digest && o != u.Owner && !h.damaged(dgst) {
				return false, reason.New(reason.InstallFailed, u.Owner.String(), "%s is installed for %s with other files", dgst, o)
			}
		}
		if err := h.step(); err != nil {
			return false, err
		}
		h.artifacts[u.Digest], changed = files, true
	}
	if h.links[u.Owner] == u.Digest {
		return changed, nil
	}
	if err := h.step(); err != nil {
		return changed, err
	}
	h.links[u.Owner] = u.Digest
	return true, nil
}

// damaged reports whether Damage has been at an artifact.
func (h *MemoryHost) damaged(dgst digest.Digest) bool {
	return slices.ContainsFunc(h.artifacts[dgst], func(f profile.File) bool { return len(f.Data) > 0 && f.Data[0] == 0 })
}

// Remove implements profile.Host.
func (h *MemoryHost) Remove(ctx context.Context, owners []profile.Owner) []profile.Outcome {
	h.mu.Lock()
	defer h.mu.Unlock()
	outcomes := make([]profile.Outcome, len(owners))
	for i, o := range owners {
		err := h.ready(ctx, o)
		if _, there := h.links[o]; err == nil && there {
			if err = h.step(); err == nil {
				delete(h.links, o)
				outcomes[i].Changed = true
			}
		}
		outcomes[i].Err = explain(o, err)
	}
	_ = h.collect()
	return outcomes
}

// Installed implements profile.Host.
func (h *MemoryHost) Installed(ctx context.Context) ([]profile.Installed, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, reason.New(reason.InstallFailed, h.kind, "stopped: %w", err)
	}
	if h.unreadable != nil {
		return nil, h.unreadable
	}
	var found []profile.Installed
	for _, o := range slices.SortedFunc(maps.Keys(h.links), profile.Owner.Compare) {
		in := profile.Installed{Owner: o, Digest: h.links[o]}
		for _, f := range h.artifacts[in.Digest] {
			reference := "confine/" + o.String() + "/" + f.Name
			in.References = append(in.References, reference)
			in.Files = append(in.Files, profile.InstalledFile{Name: f.Name, References: []string{reference}})
		}
		found = append(found, in)
	}
	return found, nil
}

// collect drops the artifacts that no owner has in force.
func (h *MemoryHost) collect() error {
	used := slices.Collect(maps.Values(h.links))
	for _, dgst := range slices.Sorted(maps.Keys(h.artifacts)) {
		if slices.Contains(used, dgst) {
			continue
		}
		if err := h.step(); err != nil {
			return err
		}
		delete(h.artifacts, dgst)
	}
	return nil
}

func (h *MemoryHost) step() error {
	if h.before == nil {
		return nil
	}
	return h.before()
}

func (h *MemoryHost) ready(ctx context.Context, o profile.Owner) error {
	if err := ctx.Err(); err != nil {
		return reason.New(reason.InstallFailed, o.String(), "stopped before it was done: %w", err)
	}
	if err := checkOwner(o); err != nil {
		return err
	}
	return h.failures[o]
}

func explain(o profile.Owner, err error) error {
	if _, ok := reason.Of(err); ok || err == nil {
		return err
	}
	return reason.New(reason.InstallFailed, o.String(), "%w", err)
}

func checkUnit(u profile.Unit) error {
	bad := u.Digest.Validate() != nil || len(u.Files) == 0 || len(u.Files) > 64
	names := map[string]bool{}
	for _, f := range u.Files {
		bad = bad || names[f.Name] || len(f.Data) > profile.MaxPayloadBytes || len(f.Name) > 128 ||
			strings.HasPrefix(f.Name, ".") || strings.HasPrefix(f.Name, "-") || !madeOf(f.Name, "._-ABCDEFGHIJKLMNOPQRSTUVWXYZ")
		names[f.Name] = true
	}
	if bad {
		return reason.New(reason.ProfileInvalid, u.Owner.String(), "a digest or file that no host installs")
	}
	return nil
}

func checkOwner(o profile.Owner) error {
	bad := len(o.Name) > 253
	for _, label := range append(strings.Split(o.Name, "."), o.Namespace) {
		bad = bad || len(label) > 63 || strings.Trim(label, "-") != label || !madeOf(label, "-")
	}
	if bad {
		return reason.New(reason.ProfileInvalid, "owner", "%.80q is no namespace and name", o.String())
	}
	return nil
}

// madeOf reports whether s is lower-case letters, digits and others, and not
// empty.
func madeOf(s, others string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyz0123456789"+others, r)
	})
}

func sortedFiles(files []profile.File) []profile.File {
	return slices.SortedFunc(slices.Values(cloneFiles(files)), func(a, b profile.File) int { return strings.Compare(a.Name, b.Name) })
}

func cloneFiles(files []profile.File) []profile.File {
	cloned := slices.Clone(files)
	for i := range cloned {
		cloned[i].Data = slices.Clone(cloned[i].Data)
	}
	return cloned
}

func sameFile(a, b profile.File) bool { return a.Name == b.Name && string(a.Data) == string(b.Data) }
