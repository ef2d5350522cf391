package host

import (
	"errors"
	"io/fs"
	"slices"
	"strings"

	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/profile/internal/hostcheck"
	"github.com/confine-dev/confine/pkg/reason"
)

// unused refuses to take away profiles that a process is under: the kernel
// would set it free. What cannot be read counts as used.
func (w *work) unused(o profile.Owner, names []string) error {
	names = slices.DeleteFunc(slices.Clone(names), func(name string) bool { _, there := w.kernel[name]; return !there })
	if len(names) == 0 {
		return nil
	}
	under, err := underProfiles(w.h.proc)
	if err != nil {
		return reason.New(reason.InstallFailed, o.String(), "whether a process is under %s cannot be told: %w", names[0], err).
			WithAdvice("run with the host's process IDs (hostPID), as root, and where /proc hides processes (hidepid) with CAP_SYS_PTRACE")
	}
	for _, name := range names {
		if pid, used := under[name]; used {
			return reason.New(reason.InstallFailed, o.String(), "process %s is under the profile %s, which would be removed", pid, name).
				WithAdvice("end the workloads that use it; it is tried again by itself")
		}
	}
	return nil
}

// underProfiles returns, for each profile that a thread is under, one such
// process. Threads can be under different profiles.
func underProfiles(proc string) (map[string]string, error) {
	found := map[string]string{}
	err := hostcheck.EachTask(proc, func(pid, task string) error {
		label, err := labelOf(task)
		for _, name := range namesOf(label) {
			found[name] = pid
		}
		return err
	})
	return found, err
}

// labelOf reads what a thread is under. attr/current is shared by all security
// modules, and AppArmor's only on kernels before 5.8.
func labelOf(task string) (string, error) {
	label, err := attribute(task, "attr/apparmor/current", maxAttribute)
	if errors.Is(err, fs.ErrNotExist) {
		label, err = attribute(task, "attr/current", maxAttribute)
	}
	return label, err
}

// namesOf splits a label into profiles: apparmor(7) stacks them with //&, and a
// mode in parentheses comes last; those of other policy namespaces begin with
// ":namespace:", with or without slashes.
func namesOf(label string) []string {
	label = strings.TrimRight(label, "\x00\n")
	if i := strings.LastIndex(label, " ("); i >= 0 && strings.HasSuffix(label, ")") {
		label = label[:i]
	}
	if label == "" || label == "unconfined" {
		return nil
	}
	names := strings.Split(label, "//&")
	for i, name := range names {
		rest, inOther := strings.CutPrefix(name, ":")
		if !inOther {
			continue
		}
		if _, after, ok := strings.Cut(rest, ":"); ok {
			names[i] = strings.TrimPrefix(after, "//")
		}
	}
	return names
}
