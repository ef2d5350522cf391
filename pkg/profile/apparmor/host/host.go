// Package host brings AppArmor profiles into the kernel: texts are compiled by
// the host's own apparmor_parser, in a child without privileges, and what it
// made is read, compared with what was approved, and handed to the kernel in
// one piece for each unit. A pod names a profile as its localhostProfile.
//
// Replacing a profile reaches running processes at once. Removing one sets the
// processes under it free, so a profile that a process is under is not removed.
//
// One file for each owner stands in a folder of its own (see record): the texts,
// for the next boot, and what of them is in the kernel. Names that the kernel
// has and no record holds belong to the host, and are never touched.
package host

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/confine-dev/confine/pkg/durable"
	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/profile/apparmor"
	"github.com/confine-dev/confine/pkg/profile/internal/hostcheck"
	"github.com/confine-dev/confine/pkg/reason"
)

// The operations that Options.Before is told about beside those of durable.
const (
	OpLoad   durable.Op = "load"   // Name is the owner
	OpUnload durable.Op = "unload" // Name is the profile
)

// Options adjust a Host. Root is required.
type Options struct {
	// Root is the folder for texts and records, of nobody else's. It is
	// created with the first install.
	Root string
	// HostRoot is the host's root folder as this process sees it, such as
	// /proc/1/root in a container: the parser runs there, and /sys and /proc
	// are read there. Empty means this process's own.
	HostRoot string
	// Parser is the path of apparmor_parser in the host's root. Empty means
	// /sbin/apparmor_parser, or /usr/sbin.
	Parser string
	// PolicyFolder is the kernel's policy in securityfs, below HostRoot. Empty
	// means the one of the policy namespace this process is in.
	PolicyFolder string
	// ParserTime bounds one run of the parser, in processor and in real time;
	// zero means 30 seconds. ParserMemory bounds its address space, in bytes;
	// zero means 256 MiB.
	ParserTime   time.Duration
	ParserMemory uint64
	// CallTime bounds one call of Install; units that were not reached are
	// InstallFailed. Zero means five minutes.
	CallTime time.Duration
	// Before is called before every change to the disk or the kernel; see
	// durable.Options.
	Before func(durable.Step) error
}

// Host implements profile.Host. It reads what is there on every call, so that
// it can be opened and killed at any time; but two must not work beside each other.
type Host struct {
	opts     Options
	compiler compiler
	kernel   kernel
	proc     string

	mu sync.Mutex
	// slow are owners whose texts took all the time there was: they are tried after
	// all others.
	slow map[profile.Owner]bool
}

const (
	defaultCallTime = 5 * time.Minute
	maxSlow         = 4096
)

var _ profile.Host = (*Host)(nil)

// New returns a Host. It touches nothing yet.
func New(opts Options) (*Host, error) {
	if opts.Root == "" {
		return nil, reason.New(reason.InstallFailed, apparmor.Name, "no root folder was given").
			WithAdvice("give a folder on a disk that stays, such as /var/lib/confine/apparmor")
	}
	if opts.PolicyFolder == "" {
		opts.PolicyFolder = policyFolder
	}
	if opts.ParserTime <= 0 {
		opts.ParserTime = defaultParseTime
	}
	if opts.ParserMemory == 0 {
		opts.ParserMemory = defaultParseMemory
	}
	if opts.CallTime <= 0 {
		opts.CallTime = defaultCallTime
	}
	root := opts.HostRoot
	if root == "/" {
		root = ""
	}
	return &Host{
		opts:     opts,
		compiler: parser{path: opts.Parser, root: root, time: opts.ParserTime, memory: opts.ParserMemory},
		kernel:   securityfs{filepath.Join("/", root, opts.PolicyFolder)},
		proc:     filepath.Join("/", root, "proc"),
		slow:     map[profile.Owner]bool{},
	}, nil
}

// Kind is "apparmor".
func (h *Host) Kind() string { return apparmor.Name }

// Supported returns nil where the kernel enforces AppArmor and the host has a
// parser.
func (h *Host) Supported(context.Context) error {
	if err := h.kernel.supported(); err != nil {
		return reason.New(reason.KindUnsupported, apparmor.Name, "%w", err).
			WithAdvice("boot with apparmor in the kernel's lsm= list, and mount securityfs at /sys/kernel/security; in a container the host's has to be seen")
	}
	if err := h.compiler.supported(); err != nil {
		return reason.New(reason.KindUnsupported, apparmor.Name, "%w", err).
			WithAdvice("install the package apparmor on the host; run as root where the host's root is another folder")
	}
	return nil
}

// Install makes each unit the one in force for its owner. See profile.Host. All
// profiles of a unit are loaded in one step, or none.
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
	ctx, cancel := context.WithTimeout(ctx, h.opts.CallTime)
	defer cancel()
	var w *work
	for _, i := range h.order(units) {
		u := units[i]
		err := hostcheck.Stopped(ctx, u.Owner)
		if err == nil {
			err = hostcheck.Unit(u)
		}
		if err == nil && w == nil {
			w, err = h.open(true)
		}
		if err == nil {
			outcomes[i].Changed, err = w.install(ctx, u)
			h.remember(u, err)
		}
		if err != nil {
			outcomes[i].Err = durable.Explain(u.Owner.String(), err)
		}
	}
	w.end()
	return outcomes
}

// order is that in which units are installed: those last that were slow before,
// so that they keep nobody else waiting. Units of one owner stay in their order.
func (h *Host) order(units []profile.Unit) []int {
	var first, last []int
	for i, u := range units {
		if h.slow[u.Owner] {
			last = append(last, i)
		} else {
			first = append(first, i)
		}
	}
	return append(first, last...)
}

func (h *Host) remember(u profile.Unit, err error) {
	if !errors.Is(err, context.DeadlineExceeded) {
		delete(h.slow, u.Owner)
		return
	}
	if len(h.slow) >= maxSlow {
		clear(h.slow)
	}
	h.slow[u.Owner] = true
}

// Remove takes away what the owners have in force. See profile.Host. An owner
// whose profiles a process is under keeps all of them.
func (h *Host) Remove(ctx context.Context, owners []profile.Owner) []profile.Outcome {
	h.mu.Lock()
	defer h.mu.Unlock()
	outcomes := make([]profile.Outcome, len(owners))
	var w *work
	if len(owners) == 0 {
		w, _ = h.open(false) // what a killed process began is finished all the same
	}
	for i, o := range owners {
		err := hostcheck.Stopped(ctx, o)
		if err == nil {
			err = hostcheck.Owner(o)
		}
		if err == nil && w == nil {
			w, err = h.open(false)
		}
		if errors.Is(err, fs.ErrNotExist) {
			continue // nothing was ever installed
		}
		if err == nil {
			outcomes[i].Changed, err = w.remove(o)
		}
		if err != nil {
			outcomes[i].Err = durable.Explain(o.String(), err)
		}
	}
	w.end()
	return outcomes
}

// Installed lists what the records hold, with the references that the kernel
// has. See profile.Host.
func (h *Host) Installed(ctx context.Context) ([]profile.Installed, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	records, _, err := h.records(ctx)
	if err != nil || len(records) == 0 {
		return nil, err
	}
	kernel, err := h.kernel.list()
	if err != nil {
		return nil, durable.Explain(apparmor.Name, err)
	}
	var all []profile.Installed
	for _, r := range records {
		if r.Current != nil {
			all = append(all, r.listed(kernel))
		}
	}
	slices.SortFunc(all, func(a, b profile.Installed) int { return a.Owner.Compare(b.Owner) })
	return all, nil
}

// Restore loads again what the records hold, such as after a reboot. It needs
// nothing but the disk.
func (h *Host) Restore(ctx context.Context) ([]profile.Outcome, error) {
	h.mu.Lock()
	records, _, err := h.records(ctx)
	h.mu.Unlock()
	if err != nil {
		return nil, err
	}
	var units []profile.Unit
	for _, r := range records {
		if r.Current != nil {
			units = append(units, profile.Unit{Owner: r.Owner, Digest: r.Current.Digest, Files: r.Current.files()})
		}
	}
	slices.SortFunc(units, func(a, b profile.Unit) int { return a.Owner.Compare(b.Owner) })
	return h.Install(ctx, units), nil
}

// Loaded lists all profiles that the kernel has, by name, whoever they are of.
func (h *Host) Loaded(ctx context.Context) ([]Loaded, error) {
	if err := ctx.Err(); err != nil {
		return nil, durable.Explain(apparmor.Name, err)
	}
	kernel, err := h.kernel.list()
	if err != nil {
		return nil, durable.Explain(apparmor.Name, err)
	}
	all := make([]Loaded, 0, len(kernel))
	for _, name := range sortedKeys(kernel) {
		all = append(all, kernel[name])
	}
	return all, nil
}

// Foreign lists entries of the folder that Installed does not speak for, sorted:
// damaged records, what others put there, and records of owners that have nothing in
// force, but profiles in the kernel that are still to be taken away.
func (h *Host) Foreign(ctx context.Context) ([]string, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	records, foreign, err := h.records(ctx)
	for _, r := range records {
		if r.Current == nil {
			foreign = append(foreign, fileOf(r.Owner))
		}
	}
	slices.Sort(foreign)
	return foreign, err
}

func (h *Host) records(ctx context.Context) (map[profile.Owner]*record, []string, error) {
	if err := ctx.Err(); err != nil {
		return nil, nil, durable.Explain(apparmor.Name, err)
	}
	d, err := durable.OpenExisting(h.opts.Root, durable.Options{})
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, durable.Explain(h.opts.Root, err)
	}
	defer d.Close()
	records, foreign, err := readRecords(d)
	if err != nil {
		return nil, nil, durable.Explain(h.opts.Root, err)
	}
	return records, foreign, nil
}
