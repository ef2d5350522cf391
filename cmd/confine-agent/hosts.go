package main

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/profile/apparmor"
	apparmorhost "github.com/confine-dev/confine/pkg/profile/apparmor/host"
	"github.com/confine-dev/confine/pkg/profile/seccomp"
	seccomphost "github.com/confine-dev/confine/pkg/profile/seccomp/host"
	"github.com/confine-dev/confine/pkg/profile/selinux"
	selinuxhost "github.com/confine-dev/confine/pkg/profile/selinux/host"
	"github.com/confine-dev/confine/pkg/profile/selinux/host/containers"
	"github.com/confine-dev/confine/pkg/reason"
	"github.com/confine-dev/confine/pkg/sandbox"
)

// hostRow is one kind of profile that this agent can bring into force.
type hostRow struct {
	kind string
	// state is the folder below --root that is this kind's alone; empty where it
	// has none. What stands there is loaded again after a reboot without being
	// judged, so nobody but the agent's own user may have written it.
	state string
	// capabilities are those it works with, beside an ordinary user's rights to
	// the folders that are its own.
	capabilities []sandbox.Capability
	// open makes the host. state is the whole path of that folder.
	open func(f flags, state string, log *slog.Logger) (profile.Host, error)
}

// hostRows are all of them. Nothing else of the node's knows one kind from
// another.
func hostRows() []hostRow {
	return []hostRow{
		{kind: seccomp.Name, open: func(f flags, _ string, _ *slog.Logger) (profile.Host, error) {
			root := f.seccompRoot
			if root == "" {
				root = filepath.Join(f.root, "seccomp")
			}
			return seccomphost.New(seccomphost.Options{Root: root})
		}},
		{kind: apparmor.Name, state: apparmor.Name, capabilities: append(compilers(), sandbox.CapMACAdmin), open: func(f flags, state string, _ *slog.Logger) (profile.Host, error) {
			return apparmorhost.New(apparmorhost.Options{Root: state, HostRoot: f.hostRoot})
		}},
		{kind: selinux.Name, state: selinux.Name, capabilities: compilers(), open: func(f flags, state string, log *slog.Logger) (profile.Host, error) {
			h, err := selinuxhost.New(selinuxhost.Options{Root: state, HostRoot: f.hostRoot, Priority: f.selinuxPriority})
			if err != nil {
				return nil, err
			}
			if err := h.Rehearses(); err != nil {
				log.Warn("SELinux modules are not tried without privileges first", "why", err)
			}
			return containers.Guard(h, containers.Options{HostRoot: f.hostRoot, Pods: f.nodeName != ""}), nil
		}},
	}
}

// compilers are the capabilities to run the host's compiler in the host's root,
// as a user that has nothing, and to end it.
func compilers() []sandbox.Capability {
	return []sandbox.Capability{sandbox.CapKill, sandbox.CapSetgid, sandbox.CapSetuid, sandbox.CapSysChroot}
}

// kindWords are the kinds that --kinds knows.
func kindWords() []string {
	var words []string
	for _, row := range hostRows() {
		words = append(words, row.kind)
	}
	return words
}

// checkKinds refuses what --kinds does not know.
func checkKinds(wanted []string) error {
	if len(wanted) == 0 {
		return fmt.Errorf("--kinds is empty: give some of %s", strings.Join(kindWords(), ","))
	}
	for _, kind := range wanted {
		if !slices.Contains(kindWords(), kind) {
			return fmt.Errorf("--kinds %q: only %s are known", kind, strings.Join(kindWords(), ","))
		}
	}
	return nil
}

// stateFolders are the folders below --root that are the kinds' own.
func stateFolders() []string {
	var names []string
	for _, row := range hostRows() {
		if row.state != "" {
			names = append(names, row.state)
		}
	}
	return names
}

// hosts opens those of --kinds.
func (f flags) hosts(log *slog.Logger) ([]profile.Host, error) {
	var opened []profile.Host
	for _, row := range hostRows() {
		if !slices.Contains(f.kinds, row.kind) {
			continue
		}
		state := ""
		if row.state != "" {
			state = filepath.Join(f.root, row.state)
			if err := checkState(state); err != nil {
				return nil, err
			}
		}
		h, err := row.open(f, state, log)
		if err != nil {
			return nil, err
		}
		opened = append(opened, h)
	}
	return opened, nil
}

const writableByOthers fs.FileMode = 0o022

// checkState refuses a kind's folder that somebody else could have filled, such
// as an agent that was no root. One that is not there yet is made by the host.
func checkState(folder string) error {
	info, err := os.Lstat(folder)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		stat, ok := info.Sys().(*syscall.Stat_t)
		switch {
		case !info.IsDir():
			err = errors.New("it is no folder")
		case !ok || int(stat.Uid) != os.Geteuid():
			err = errors.New("it belongs to another user than the agent's")
		case info.Mode()&writableByOthers != 0:
			err = fmt.Errorf("its mode %v lets others write", info.Mode().Perm())
		}
	}
	if err == nil {
		return nil
	}
	return reason.New(reason.InstallFailed, folder, "what is in it would be loaded into the kernel, and %w", err).
		WithAdvice("see who made it, and move it away: mv %s %s.old", folder, folder)
}
