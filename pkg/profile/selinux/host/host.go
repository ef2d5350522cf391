// Package host brings SELinux modules into the policy of this machine: one
// module for each owner, through the host's own semodule, with all that changes
// in one transaction. A pod names the type of a block as its seLinuxOptions.type.
//
// The policy store is the state: a module says in comments whose it is, and its
// checksum tells whether it still is what was installed. The only other thing
// kept is a mark that a transaction was begun, so that after a crash the kernel
// gets what the store has.
//
// Policy reaches running processes at once. Processes of a type that is gone
// may do nearly nothing, so a type that a process runs as is not removed.
package host

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/confine-dev/confine/pkg/durable"
	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/profile/internal/hostcheck"
	"github.com/confine-dev/confine/pkg/profile/selinux"
	"github.com/confine-dev/confine/pkg/profile/selinux/host/secilc"
	"github.com/confine-dev/confine/pkg/profile/selinux/host/semodule"
	"github.com/confine-dev/confine/pkg/reason"
	"github.com/confine-dev/confine/pkg/sandbox"
)

// The operations that Options.Before is told about beside those of durable.
const (
	OpCommit durable.Op = "commit" // one transaction of the policy store
	OpReload durable.Op = "reload" // the kernel gets the store's policy again
)

// Options adjust a Host. Root is required.
type Options struct {
	// Root is the folder for the mark of unfinished transactions, of nobody
	// else's. It is created with the first install.
	Root string
	// HostRoot is the host's root folder as this process sees it, such as
	// /proc/1/root in a container: semodule runs there, and /sys and /proc are
	// read there. Empty means this process's own.
	HostRoot string
	// Priority is that of all modules of Confine; zero means 350. See
	// semodule.Options.
	Priority int
	// Time bounds one run of semodule, the wait for its lock included; zero
	// means five minutes.
	Time time.Duration
	// CallTime is after how long a call of Install or Remove begins nothing
	// more; half of it may go into looking at texts. Units that were not reached
	// are InstallFailed, and have their turn in later calls. A transaction that
	// was begun then may still take Time; after both the call ends, whatever it
	// does. Zero means five minutes.
	CallTime time.Duration
	// Before is called before every change to the disk, the store or the kernel;
	// see durable.Options.
	Before func(durable.Step) error
}

// store is a policy store; semodule.Store is the real one.
type store interface {
	Supported() error
	List(ctx context.Context) ([]semodule.Listed, error)
	Extract(ctx context.Context, names []string) (map[string][]byte, error)
	Commit(ctx context.Context, c semodule.Change) error
	Reload(ctx context.Context) error
}

// Host implements profile.Host. It asks the store on every call, so that it can
// be opened and killed at any time; but two must not work beside each other.
type Host struct {
	opts   Options
	store  store
	kernel kernel
	// compiler looks at texts before the store sees them.
	compiler compiler
	proc     string

	mu sync.Mutex
	// read remembers modules by name and checksum, which are unpacked once.
	read map[semodule.Listed][]byte
	// refused are units that the policy did not take, or for which it refused
	// others: they are tried after all others.
	refused attempts
	// rehearsed are the sums of texts that the compiler reads as Confine does.
	rehearsed map[string]bool
	// unrehearsed are the sums of texts that it refused, or had no time for.
	unrehearsed attempts
	// reloaded is the mark for which Installed has reloaded the policy. The file
	// itself tells it from later ones, also from those of other processes.
	reloaded fs.FileInfo
}

// Defaults of Options.
const (
	defaultTime     = 5 * time.Minute
	defaultCallTime = 5 * time.Minute
)

var _ profile.Host = (*Host)(nil)

// New returns a Host. It touches nothing yet.
func New(opts Options) (*Host, error) {
	if opts.Root == "" {
		return nil, reason.New(reason.InstallFailed, selinux.Name, "no root folder was given").
			WithAdvice("give a folder on a disk that stays, such as /var/lib/confine/selinux")
	}
	if opts.Time <= 0 {
		opts.Time = defaultTime
	}
	if opts.CallTime <= 0 {
		opts.CallTime = defaultCallTime
	}
	return &Host{
		opts:      opts,
		store:     semodule.New(semodule.Options{HostRoot: opts.HostRoot, Priority: opts.Priority, Time: opts.Time}),
		kernel:    selinuxfs{filepath.Join("/", opts.HostRoot, selinuxFolder)},
		compiler:  secilc.New(secilc.Options{HostRoot: opts.HostRoot}),
		proc:      filepath.Join("/", opts.HostRoot, "proc"),
		read:      map[semodule.Listed][]byte{},
		rehearsed: map[string]bool{},
	}, nil
}

// Kind is "selinux".
func (h *Host) Kind() string { return selinux.Name }

// Supported returns nil where the kernel enforces SELinux and the host has
// semodule.
func (h *Host) Supported(context.Context) error {
	if err := h.kernel.supported(); err != nil {
		return reason.New(reason.KindUnsupported, selinux.Name, "%w", err).
			WithAdvice("boot with SELinux enforcing (SELINUX=enforcing in /etc/selinux/config), with selinuxfs at /sys/fs/selinux; in a container the host's has to be seen")
	}
	if err := h.store.Supported(); err != nil {
		return reason.New(reason.KindUnsupported, selinux.Name, "%w", err).
			WithAdvice("install the package policycoreutils on the host, version 3.4 or newer, and run as root")
	}
	if err := sandbox.Shell(filepath.Clean("/" + h.opts.HostRoot)); err != nil {
		return reason.New(reason.KindUnsupported, selinux.Name, "the host has %w", err).
			WithAdvice("use a host that has a shell: semodule is started through it")
	}
	return nil
}

// Install makes each unit the one in force for its owner. See profile.Host. All
// that changes is one transaction; units that the policy does not take are left
// out of it.
func (h *Host) Install(ctx context.Context, units []profile.Unit) []profile.Outcome {
	h.mu.Lock()
	defer h.mu.Unlock()
	outcomes := make([]profile.Outcome, len(units))
	if err := h.Supported(ctx); err != nil {
		for i := range outcomes {
			outcomes[i].Err = err
		}
		return outcomes
	}
	var wants []*want
	for i, u := range units {
		err := hostcheck.Stopped(ctx, u.Owner)
		if err == nil {
			err = hostcheck.Unit(u)
		}
		var r *record
		if err == nil {
			r, err = newRecord(u)
		}
		if err != nil {
			outcomes[i].Err = explain(u.Owner.String(), err)
			continue
		}
		wants = append(wants, &want{owner: u.Owner, record: r, outcome: &outcomes[i]})
	}
	h.bring(ctx, wants)
	return outcomes
}

// Remove takes away what the owners have in force. See profile.Host. An owner
// with a type that a process runs as keeps all of them.
func (h *Host) Remove(ctx context.Context, owners []profile.Owner) []profile.Outcome {
	h.mu.Lock()
	defer h.mu.Unlock()
	outcomes := make([]profile.Outcome, len(owners))
	var wants []*want
	for i, o := range owners {
		err := hostcheck.Stopped(ctx, o)
		if err == nil {
			err = hostcheck.Owner(o)
		}
		if err != nil {
			outcomes[i].Err = explain(o.String(), err)
			continue
		}
		wants = append(wants, &want{owner: o, outcome: &outcomes[i]})
	}
	if len(wants) > 0 && !h.never() {
		h.bring(ctx, wants)
	}
	return outcomes
}

// Installed lists the modules of the store, with the types that the kernel has.
// See profile.Host.
func (h *Host) Installed(ctx context.Context) ([]profile.Installed, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, explain(selinux.Name, err)
	}
	if h.never() {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, h.opts.CallTime+h.opts.Time)
	defer cancel()
	// What a killed transaction left is in the store and not in force: the kernel
	// gets it here, too, once. The mark stays, for it may be another process's.
	w, err := h.look(ctx)
	if err != nil {
		return nil, explain(selinux.Name, err)
	}
	defer w.close()
	if w.mark != nil && !h.reloadedFor(w.mark) {
		if err := w.reload(ctx); err != nil {
			return nil, explain(selinux.Name, err)
		}
		h.reloaded = w.mark
	}
	var all []profile.Installed
	for _, r := range w.s.units {
		in, err := h.listed(r)
		if err != nil {
			return nil, explain(selinux.Name, err)
		}
		all = append(all, in)
	}
	slices.SortFunc(all, func(a, b profile.Installed) int { return a.Owner.Compare(b.Owner) })
	return all, nil
}

// reloadedFor reports whether the kernel got the policy after this mark was set.
func (h *Host) reloadedFor(mark fs.FileInfo) bool {
	return h.reloaded != nil && os.SameFile(h.reloaded, mark) && h.reloaded.ModTime().Equal(mark.ModTime())
}

// listed renders a unit, with the types that the kernel has.
func (h *Host) listed(r *record) (profile.Installed, error) {
	in := profile.Installed{Owner: r.Owner, Digest: r.Digest}
	for _, t := range r.Files {
		file := profile.InstalledFile{Name: t.Name}
		name := selinux.ProcessType(t.Block)
		known, err := h.kernel.known(name)
		if err != nil {
			return in, err
		}
		if known {
			file.References = []string{name}
			in.References = append(in.References, name)
		}
		in.Files = append(in.Files, file)
	}
	slices.Sort(in.References)
	return in, nil
}

// Foreign lists modules of Confine's priority that are no unit's, sorted:
// damaged ones, and those of others. They are left alone.
func (h *Host) Foreign(ctx context.Context) ([]string, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.never() {
		return nil, nil
	}
	found, err := h.survey(ctx)
	if err != nil {
		return nil, explain(selinux.Name, err)
	}
	return sortedKeys(found.foreign), nil
}

// never reports that nothing was ever installed: this is no host with SELinux,
// and never was one for Confine.
func (h *Host) never() bool {
	if !errors.Is(h.store.Supported(), exec.ErrNotFound) {
		return false
	}
	_, err := os.Lstat(h.opts.Root)
	return errors.Is(err, fs.ErrNotExist)
}
