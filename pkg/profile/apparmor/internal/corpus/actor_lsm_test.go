//go:build lsm_apparmor

package corpus

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The variables that make this program an actor instead of a test.
const (
	actEnv    = "CONFINE_TEST_ACT"
	onEnv     = "CONFINE_TEST_ON"
	underEnv  = "CONFINE_TEST_UNDER"
	victimEnv = "CONFINE_TEST_VICTIM"
)

// Acts that are steps of others.
const (
	enter Act = "enter" // become the program anew under a profile, as runc does
	label Act = "label" // say which profile this is under
	sleep Act = "sleep"
)

// This keeps actors on the main thread, whose attributes are those of
// the process. It has to be asked for before main begins.
var _ = func() bool {
	if os.Getenv(actEnv) != "" {
		runtime.LockOSThread()
	}
	return true
}()

func TestMain(m *testing.M) {
	do := Act(os.Getenv(actEnv))
	if do == "" {
		if err := furnish(); err != nil {
			fmt.Println("furnishing the machine:", err)
			os.Exit(1)
		}
		os.Exit(m.Run())
	}
	if err := perform(do, os.Getenv(onEnv)); err != nil {
		fmt.Println("no:", err)
		os.Exit(1)
	}
	fmt.Println("yes")
	os.Exit(0)
}

func perform(do Act, on string) error {
	path, text, _ := strings.Cut(on, "=")
	switch do {
	case enter:
		return enterProfile()
	case label:
		return sayLabel()
	case sleep:
		fmt.Println("ready")
		time.Sleep(time.Hour)
		return nil
	case Leave:
		return become(path, label)
	case Change:
		return errors.Join(attribute("current", "changeprofile "+on), sayLabel())
	case ChangeExec:
		return errors.Join(attribute("exec", "exec "+on), become("/bin/sh", label))
	case Read, Noise, Killed:
		_, err := os.ReadFile(path)
		return err
	case ChrootRead:
		return errors.Join(unix.Chroot("/srv"), perform(Read, on))
	case Write, Append:
		return write(path, text, do)
	case LinkedWrite:
		return errors.Join(os.Link(path, text), write(text, "", Write))
	case Hostname:
		return unix.Sethostname([]byte("taken"))
	case Unload:
		return write("/sys/kernel/security/apparmor/.remove", on+"\x00", Write)
	case Userns:
		return becomeIn(syscall.CLONE_NEWUSER)
	case Trace, PeerEnviron, Signal:
		return toVictim(do, os.Getenv(victimEnv))
	default:
		return inMountNamespace(do, path)
	}
}

// enterProfile writes what runc writes, and executes this program again.
func enterProfile() error {
	if err := attribute("exec", "exec "+os.Getenv(underEnv)); err != nil {
		return err
	}
	return become("/confine-vm/program", Act(os.Getenv("CONFINE_TEST_THEN")))
}

func attribute(name, text string) error {
	return os.WriteFile("/proc/self/attr/apparmor/"+name, []byte(text), 0)
}

// become executes a link of this program, as another act.
func become(program string, do Act) error {
	var env []string
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, actEnv+"=") {
			env = append(env, v)
		}
	}
	return fmt.Errorf("executing %s: %w", program, syscall.Exec(program, []string{program}, append(env, actEnv+"="+string(do))))
}

func becomeIn(flags uintptr) error {
	p, err := os.StartProcess("/confine-vm/program", []string{"program"}, &os.ProcAttr{
		Env: []string{actEnv + "=" + string(label)}, Files: []*os.File{nil, nil, nil}, Sys: &syscall.SysProcAttr{Cloneflags: flags},
	})
	if err == nil {
		_, err = p.Wait()
	}
	return err
}

func sayLabel() error {
	said, err := os.ReadFile("/proc/self/attr/apparmor/current")
	if err == nil {
		name, _, _ := strings.Cut(strings.TrimSpace(string(said)), " (")
		fmt.Println("label " + name)
	}
	return err
}

func write(path, text string, do Act) error {
	flags := os.O_WRONLY
	if do == Append {
		flags |= os.O_APPEND
	}
	f, err := os.OpenFile(path, flags, 0)
	if err == nil && text != "" {
		_, err = f.WriteString(text)
	}
	return err
}

func toVictim(do Act, victim string) error {
	var pid int
	if _, err := fmt.Sscan(victim, &pid); err != nil {
		return err
	}
	switch do {
	case Trace:
		return unix.PtraceAttach(pid)
	case Signal:
		return unix.Kill(pid, unix.SIGUSR1)
	default:
		_, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
		return err
	}
}

// inMountNamespace does what would harm the machine for the acts after it.
func inMountNamespace(do Act, on string) error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("a namespace for mounts: %w", err)
	}
	switch do {
	case Mount:
		return unix.Mount("none", on, "tmpfs", 0, "")
	case Bind:
		return unix.Mount("/srv", on, "", unix.MS_BIND, "")
	case Remount:
		return unix.Mount("", on, "", unix.MS_REMOUNT, "")
	case Umount:
		return unix.Unmount(on, unix.MNT_DETACH)
	case PivotRoot:
		// The root of an initramfs cannot be moved; AppArmor is asked before.
		if err := unix.PivotRoot("/mnt", "/mnt"); !errors.Is(err, unix.EINVAL) {
			return err
		}
		return nil
	}
	return fmt.Errorf("nobody knows how to %s", do)
}
