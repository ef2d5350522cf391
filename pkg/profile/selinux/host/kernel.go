package host

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/profile/internal/hostcheck"
	"github.com/confine-dev/confine/pkg/reason"
)

// selinuxFolder is where libselinux mounts the kernel's interface.
const selinuxFolder = "sys/fs/selinux"

// kernel is what the policy that is loaded knows.
type kernel interface {
	// supported says what is missing for a profile to be enforced here.
	supported() error
	// known reports whether the loaded policy has a type.
	known(name string) (bool, error)
}

// selinuxfs is the kernel's own interface
// (security/selinux/selinuxfs.c in Linux).
type selinuxfs struct{ folder string }

func (k selinuxfs) supported() error {
	mode, err := os.ReadFile(filepath.Join(k.folder, "enforce"))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("the kernel does not run SELinux: %w", err)
	case err != nil:
		return err
	case strings.TrimSpace(string(mode)) != "1":
		return errors.New("SELinux is permissive here: it would log what a profile denies, and deny nothing")
	}
	return nil
}

// known asks whether a label with the type is one. With the role of objects the
// kernel asks nothing else of a type (security/selinux/ss/policydb.c,
// policydb_context_isvalid).
func (k selinuxfs) known(name string) (bool, error) {
	label := "system_u:object_r:" + name
	levels, err := os.ReadFile(filepath.Join(k.folder, "mls"))
	if err != nil {
		return false, err
	}
	if strings.TrimSpace(string(levels)) == "1" {
		label += ":s0"
	}
	file, err := os.OpenFile(filepath.Join(k.folder, "context"), os.O_WRONLY, 0)
	if err != nil {
		return false, err
	}
	_, err = file.WriteString(label)
	if err = errors.Join(err, file.Close()); errors.Is(err, unix.EINVAL) {
		return false, nil
	}
	return err == nil, err
}

// unused refuses to take away types that a process runs as: the kernel would
// take its label for none, and deny it nearly everything. What cannot be read
// counts as used.
func (h *Host) unused(o profile.Owner, types []string) error {
	if len(types) == 0 {
		return nil
	}
	// Whatever keeps its mode from being read, only a kernel without SELinux may
	// have labels of another kind.
	labels := !errors.Is(h.kernel.supported(), fs.ErrNotExist)
	running, err := runningTypes(h.proc, labels)
	if err != nil {
		return reason.New(reason.InstallFailed, o.String(), "whether a process runs as %s cannot be told: %w", types[0], err).
			WithAdvice("run with the host's process IDs (hostPID), as root, and where /proc hides processes (hidepid) with CAP_SYS_PTRACE")
	}
	for _, name := range types {
		if pid, used := running[name]; used {
			return reason.New(reason.InstallFailed, o.String(), "process %s runs as the type %s, which would be removed", pid, name).
				WithAdvice("end the workloads that use it; it is tried again by itself")
		}
	}
	return nil
}

// runningTypes returns, for each type that a thread runs as, one such process.
// With labels, all threads must have one of SELinux: anything else is an error.
func runningTypes(proc string, labels bool) (map[string]string, error) {
	found := map[string]string{}
	err := hostcheck.EachTask(proc, func(pid, task string) error {
		label, err := os.ReadFile(filepath.Join(task, "attr/current"))
		if errors.Is(err, unix.EINVAL) && !labels {
			return nil // so says a kernel that labels no process
		}
		if err != nil {
			return err
		}
		name, ok := typeOf(strings.TrimRight(string(label), "\x00\n"))
		if !ok && labels {
			return fmt.Errorf("process %s has a label that is none of SELinux: %.100q", pid, label)
		}
		if name != "" {
			found[name] = pid
		}
		return nil
	})
	return found, err
}

// typeOf returns the type of a process's label, user:role:type or
// user:role:type:level. Before a policy is loaded there are no types, and labels
// are names of initial SIDs (security_sid_to_context_core in Linux,
// security/selinux/ss/services.c; initial_sid_to_string.h). Processes whose type
// is gone have the whole label of the SID "unlabeled".
func typeOf(label string) (name string, ok bool) {
	if label == "kernel" || label == "init" || label == "unlabeled" {
		return "", true
	}
	parts := strings.SplitN(label, ":", 4)
	// Labels of other kinds may have colons, too, as AppArmor's :namespace://profile.
	if len(parts) < 3 || slices.Contains(parts, "") || strings.ContainsAny(label, "/&() \t\n") {
		return "", false
	}
	return parts[2], true
}
