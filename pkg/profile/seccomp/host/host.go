// Package host installs seccomp profiles where the kubelet and the runtimes
// look for them: the folder "seccomp" below the kubelet's root.
//
//	<root>/confine/.artifacts/sha256-<hex>/<file>.json   the files, one folder an artifact
//	<root>/confine/<namespace>/<name>                    a relative link to that folder
//
// A pod names confine/<namespace>/<name>/<file>.json as its localhostProfile.
// The link is swapped by rename, so all files of an artifact change at once. A
// running container keeps the filter it was started with.
package host

import (
	"context"
	"crypto/sha256"
	"errors"
	"io/fs"
	"os"
	"path"
	"runtime"
	"sync"

	"github.com/opencontainers/go-digest"

	"github.com/confine-dev/confine/pkg/durable"
	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/profile/internal/hostcheck"
	"github.com/confine-dev/confine/pkg/reason"
)

const (
	kindName = "seccomp"

	// base is the only entry of the root that belongs to Confine.
	base      = "confine"
	artifacts = base + "/.artifacts"

	// The kubelet and every runtime must be able to read the files, also a
	// runtime that is not root.
	dirMode  fs.FileMode = 0o755
	fileMode fs.FileMode = 0o644

	// actionsAvail exists where the kernel was built with seccomp filters:
	// Linux, Documentation/userspace-api/seccomp_filter.rst, "Sysctls".
	actionsAvail = "/proc/sys/kernel/seccomp/actions_avail"
)

// Options adjust a Host. Root is required.
type Options struct {
	// Root is the seccomp folder below the kubelet's root, or any folder in
	// standalone mode. It is created with the first install.
	Root string
	// Before is called before every change to the disk; see durable.Options.
	Before func(durable.Step) error
	// ActionsAvail is the file whose presence means that the kernel has
	// seccomp filters. Empty means the kernel's own.
	ActionsAvail string
}

// Host implements profile.Host. It keeps one folder below Root and reads what
// is there on every call, so that it can be opened and killed at any time.
type Host struct {
	opts Options

	mu sync.Mutex
	// seen remembers the files each digest was installed with, so that two
	// owners of one digest cannot overwrite each other's bytes.
	seen map[digest.Digest]fingerprint
	// clean is set while nothing can be left to collect. It starts unset,
	// because an earlier process may have been killed.
	clean bool
}

type fingerprint [sha256.Size]byte

var _ profile.Host = (*Host)(nil)

// New returns a Host. It touches nothing yet.
func New(opts Options) (*Host, error) {
	if opts.Root == "" {
		return nil, reason.New(reason.InstallFailed, kindName, "no root folder was given").
			WithAdvice("give the seccomp folder, such as /var/lib/kubelet/seccomp")
	}
	if opts.ActionsAvail == "" {
		opts.ActionsAvail = actionsAvail
	}
	return &Host{opts: opts, seen: map[digest.Digest]fingerprint{}}, nil
}

// Kind is "seccomp".
func (h *Host) Kind() string { return kindName }

// Supported returns nil where the kernel can filter syscalls.
func (h *Host) Supported(context.Context) error {
	if runtime.GOOS != "linux" {
		return reason.New(reason.KindUnsupported, kindName, "%s has no seccomp; Linux is required", runtime.GOOS)
	}
	if _, err := os.Stat(h.opts.ActionsAvail); err != nil {
		return reason.New(reason.KindUnsupported, kindName, "the kernel has no seccomp filters: %w", err).
			WithAdvice("use a node whose kernel has CONFIG_SECCOMP_FILTER, with /proc mounted")
	}
	return nil
}

// Install makes each unit the one in force for its owner. See profile.Host.
// All that is new goes to the disk together: folders before the links to them.
func (h *Host) Install(ctx context.Context, units []profile.Unit) []profile.Outcome {
	h.mu.Lock()
	defer h.mu.Unlock()
	outcomes := make([]profile.Outcome, len(units))
	if err := h.Supported(ctx); err != nil {
		return all(outcomes, err)
	}
	var in *installer // opened with the first unit that is worth a write
	for i, u := range units {
		err := hostcheck.Stopped(ctx, u.Owner)
		if err == nil {
			err = hostcheck.Unit(u)
		}
		if err == nil && in == nil {
			in, err = h.open(outcomes)
		}
		if err == nil {
			err = in.add(i, u)
		}
		if err != nil {
			outcomes[i].Err = durable.Explain(u.Owner.String(), err)
			h.clean = false
		}
	}
	if in == nil {
		return outcomes
	}
	defer in.close()
	in.commit()
	// What cannot be collected now is collected by a later call: it takes room
	// and changes nothing that is in force.
	_ = h.collect(in.root)
	return outcomes
}

// Remove takes the owners' links away, and then every artifact folder that no
// link names. See profile.Host. Whatever stands at an owner's name is taken to
// be the owner's, also where somebody replaced the link.
func (h *Host) Remove(ctx context.Context, owners []profile.Owner) []profile.Outcome {
	h.mu.Lock()
	defer h.mu.Unlock()
	outcomes := make([]profile.Outcome, len(owners))
	var d *durable.Dir
	var openErr error
	for i, o := range owners {
		err := hostcheck.Stopped(ctx, o)
		if err == nil {
			err = hostcheck.Owner(o)
		}
		if err == nil && d == nil && openErr == nil {
			d, openErr = durable.OpenExisting(h.opts.Root, durable.Options{Before: h.opts.Before})
		}
		if err == nil && d != nil {
			h.clean = false
			outcomes[i].Changed, err = removeLink(d, o)
		} else if err == nil && !errors.Is(openErr, fs.ErrNotExist) {
			err = openErr
		}
		if err != nil {
			outcomes[i].Err = durable.Explain(o.String(), err)
		}
	}
	if d == nil {
		return outcomes
	}
	defer closeQuietly(d)
	if err := h.collect(d); err != nil {
		for i := range outcomes {
			if outcomes[i].Changed && outcomes[i].Err == nil {
				outcomes[i].Err = durable.Explain(owners[i].String(), err)
			}
		}
	}
	return outcomes
}

// removeLink takes one owner's link away.
func removeLink(d *durable.Dir, o profile.Owner) (bool, error) {
	name := linkName(o)
	info, err := d.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if info.IsDir() {
		return true, d.RemoveAll(name)
	}
	return true, d.Remove(name)
}

// Installed lists the links and what they lead to. A link whose artifact is
// damaged or gone is listed with the references that are left.
func (h *Host) Installed(ctx context.Context) ([]profile.Installed, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	found, err := h.survey(ctx)
	if err != nil {
		return nil, durable.Explain(h.opts.Root, err)
	}
	return found.installed, nil
}

// Foreign lists entries of the folder that Confine did not make and leaves
// alone, sorted, relative to Root.
func (h *Host) Foreign(ctx context.Context) ([]string, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	found, err := h.survey(ctx)
	if err != nil {
		return nil, durable.Explain(h.opts.Root, err)
	}
	return found.foreign, nil
}

func (h *Host) survey(ctx context.Context) (survey, error) {
	if err := ctx.Err(); err != nil {
		return survey{}, err
	}
	d, err := durable.OpenExisting(h.opts.Root, durable.Options{})
	if errors.Is(err, fs.ErrNotExist) {
		return survey{}, nil
	}
	if err != nil {
		return survey{}, err
	}
	defer closeQuietly(d)
	return look(d)
}

func all(outcomes []profile.Outcome, err error) []profile.Outcome {
	for i := range outcomes {
		outcomes[i].Err = err
	}
	return outcomes
}

func linkName(o profile.Owner) string { return path.Join(base, o.Namespace, o.Name) }

func closeQuietly(d *durable.Dir) { _ = d.Close() }
