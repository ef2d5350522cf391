//go:build amd64 || arm64

package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/confine-dev/confine/pkg/reason"
)

// entered is the variable by which a process tells itself, across the exec, that Enter
// did its work, and which Landlock it found. It is never believed: what is in force is
// looked at again. It only keeps a process from executing itself for ever.
const entered = "CONFINE_SANDBOX_ENTERED"

const object = "privileges"

// Enter leaves to this process only what the walls say: it drops all other
// capabilities from every set, sets no_new_privs, and asks for Landlock. Where
// that is not so yet, it makes it so on this thread and executes the program anew
// with the same arguments, environment and process ID, because only an exec gives all
// threads what one has; then it does not return. It returns in a process that is as
// it should be, or with an error, and then the caller must end: this thread is half-way.
//
// It has to be called first: goroutines, open files (unless inherited by exec)
// and locks do not outlive an exec. The bounding set stays where CAP_SETPCAP is
// missing; with no_new_privs nothing can be gained from it.
func Enter(w Walls) (Entered, error) {
	runtime.LockOSThread()
	said, again := os.LookupEnv(entered)
	found, missing, err := look(w, said)
	if err != nil {
		return Entered{}, reason.New(reason.InstallFailed, object, "what this process may do cannot be told: %w", err).WithAdvice("mount proc at /proc")
	}
	if missing == "" {
		runtime.UnlockOSThread()
		return found, errors.Join(os.Unsetenv(entered), name())
	}
	if again {
		return Entered{}, reason.New(reason.InstallFailed, object, "after they were dropped %s", missing).
			WithAdvice("start it without the variable " + entered + "; if that changes nothing, this kernel does not let privileges be dropped")
	}
	abi, err := raise(w)
	if err == nil {
		err = unix.Exec("/proc/self/exe", os.Args, append(os.Environ(), entered+"="+strconv.Itoa(abi)))
	}
	return Entered{}, reason.New(reason.InstallFailed, object, "they cannot be dropped: %w", err).
		WithAdvice("allow capset, prctl, seccomp and execve to this program, or start it with fewer privileges")
}

// Drop is Enter for capabilities and no_new_privs alone.
func Drop(keep ...Capability) error {
	_, err := Enter(Walls{Keep: keep})
	return err
}

// look compares what is in force with the walls, and says what is missing.
func look(w Walls, said string) (found Entered, missing string, err error) {
	if found.Status, err = StatusOf(0); err != nil {
		return found, "", err
	}
	keep := SetOf(w.Keep...)
	for name, set := range map[string]Capabilities{"permitted": found.Permitted, "effective": found.Effective} {
		if more := set &^ keep; more != 0 {
			return found, fmt.Sprintf("%s are still %s", more, name), nil
		}
	}
	switch {
	case !found.NoNewPrivs:
		return found, "no_new_privs is not set", nil
	case found.Inheritable != 0 || found.Ambient != 0:
		return found, fmt.Sprintf("%s could be handed on", found.Inheritable|found.Ambient), nil
	case found.Bounding&^keep != 0 && found.Effective.Has(CapSetpcap):
		return found, fmt.Sprintf("%s are still in the bounding set", found.Bounding&^keep), nil
	case !w.ReadOnly:
		return found, "", nil
	}
	found.Landlock, missing, err = lookAtLandlock(said)
	return found, missing, err
}

func lookAtLandlock(said string) (abi int, missing string, err error) {
	if abi, err = landlockABI(); err != nil || abi == 0 {
		return 0, "", err
	}
	if said != strconv.Itoa(abi) {
		return 0, "Landlock is not in force", nil
	}
	open, err := writable()
	if err != nil || open {
		return 0, "files can still be written to", err
	}
	return abi, "", nil
}

// raise puts the walls around this thread.
func raise(w Walls) (landlockVersion int, err error) {
	s, err := readStatus("/proc/thread-self/status")
	if err != nil {
		return 0, err
	}
	keep := SetOf(w.Keep...)
	if s.Effective.Has(CapSetpcap) {
		for c := range Capability(64) {
			if !s.Bounding.Has(c) || keep.Has(c) {
				continue
			}
			if err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(c), 0, 0, 0); err != nil {
				return 0, fmt.Errorf("bounding set, %s: %w", c, err)
			}
		}
	}
	if err := lowerSets(s, s.Permitted&keep); err != nil {
		return 0, err
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return 0, fmt.Errorf("no_new_privs: %w", err)
	}
	if !w.ReadOnly {
		return 0, nil
	}
	return landlock(true)
}

// lowerSets drops from the thread's sets, if anything has to be: the filter of an
// agent that starts this program has no room for calls that change nothing.
func lowerSets(s Status, stay Capabilities) error {
	if s.Ambient != 0 {
		if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
			return fmt.Errorf("ambient set: %w", err)
		}
	}
	if s.Permitted == stay && s.Effective == stay && s.Inheritable == 0 {
		return nil
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	data := [2]unix.CapUserData{
		{Effective: uint32(stay), Permitted: uint32(stay)},
		{Effective: uint32(stay >> 32), Permitted: uint32(stay >> 32)},
	}
	if err := unix.Capset(&header, &data[0]); err != nil {
		return fmt.Errorf("capset: %w", err)
	}
	return nil
}

// name gives the process its program's name again: the exec made it "exe".
// Under Landlock that file is closed, too, and the name stays.
func name() error {
	comm, err := os.ReadFile("/proc/self/comm")
	if err != nil || strings.TrimSpace(string(comm)) != "exe" || len(os.Args) == 0 {
		return err
	}
	err = os.WriteFile("/proc/self/comm", []byte(filepath.Base(os.Args[0])), 0)
	if errors.Is(err, os.ErrPermission) {
		return nil
	}
	return err
}

// Restrict puts a filter and no_new_privs on all threads of this process, and
// on what it starts from now on. It is called once, after Enter, which needs
// calls that no filter allows. An error means that not all threads are under
// it: the caller must end.
func Restrict(f Filter) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err := install(f, unix.SECCOMP_FILTER_FLAG_TSYNC)
	if err == nil {
		err = eachThread(func(s Status) error {
			if !s.Filtered || !s.NoNewPrivs {
				return errors.New("a thread is not under the filter")
			}
			return nil
		})
	}
	if err != nil {
		return reason.New(reason.InstallFailed, object, "%w", err).WithAdvice("run on a kernel with seccomp filters, which must not be forbidden to this program")
	}
	return nil
}

// Limit lowers what this process may take. See Limits.
func Limit(l Limits) error {
	bounds := []struct {
		what     string
		resource int
		value    uint64
	}{
		{"open files", unix.RLIMIT_NOFILE, l.Files},
		{"processes", unix.RLIMIT_NPROC, l.Processes},
		{"memory", unix.RLIMIT_DATA, l.Memory},
		{"file size", unix.RLIMIT_FSIZE, l.FileSize},
	}
	for _, b := range bounds {
		if b.value == 0 {
			continue
		}
		if err := lower(b.resource, b.value); err != nil {
			return reason.New(reason.InstallFailed, object, "the limit on %s: %w", b.what, err)
		}
	}
	// What was in memory, keys included, is not for a file.
	return lower(unix.RLIMIT_CORE, 0)
}

// lower sets both limits to the value, or leaves those that are lower.
func lower(resource int, value uint64) error {
	var now unix.Rlimit
	if err := unix.Getrlimit(resource, &now); err != nil {
		return err
	}
	now.Max = min(now.Max, value)
	now.Cur = min(now.Cur, value)
	return unix.Setrlimit(resource, &now)
}
