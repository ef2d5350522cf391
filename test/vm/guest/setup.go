//go:build linux && amd64

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/confine-dev/confine/test/vm/image"
	"github.com/confine-dev/confine/test/vm/job"
)

// mountAll mounts what a host has. Of some file systems a kernel may lack the
// code: which of them a test needs, it will say itself.
func mountAll() error {
	for _, m := range []struct {
		kind, at string
		optional bool
	}{
		{kind: "proc", at: "/proc"},
		{kind: "sysfs", at: "/sys"},
		{kind: "devtmpfs", at: "/dev"},
		{kind: "tmpfs", at: "/run"},
		{kind: "tmpfs", at: "/dev/shm"},
		{kind: "devpts", at: "/dev/pts", optional: true},
		{kind: "securityfs", at: "/sys/kernel/security"},
		{kind: "cgroup2", at: "/sys/fs/cgroup"},
		{kind: "bpf", at: "/sys/fs/bpf", optional: true},
		{kind: "tracefs", at: "/sys/kernel/tracing", optional: true},
		{kind: "selinuxfs", at: "/sys/fs/selinux", optional: true},
	} {
		_ = os.MkdirAll(m.at, 0o755) // below /sys the kernel makes them, or nobody can
		if err := unix.Mount(m.kind, m.at, m.kind, 0, ""); err != nil && !m.optional {
			return fmt.Errorf("mounting %s: %w", m.at, err)
		}
	}
	if err := os.Chmod("/tmp", 0o1777); err != nil {
		return err
	}
	return os.Symlink("/proc/self/fd", "/dev/fd")
}

// prepare makes the machine a host: a loopback interface, and the base policy.
func prepare(j job.Job) error {
	if err := os.Setenv("PATH", job.Path); err != nil {
		return err
	}
	modules, err := os.ReadFile("/sys/kernel/security/lsm")
	if err != nil {
		return err
	}
	if !slices.Contains(strings.Split(strings.TrimSpace(string(modules)), ","), j.LSM) {
		return fmt.Errorf("the kernel started %s, and not %s", modules, j.LSM)
	}
	if err := loopback(); err != nil {
		return err
	}
	if j.LSM != string(image.SELinux) {
		return nil
	}
	if err := program("semodule", "-n", "-X", "100", "-i", "/usr/share/confine-vm/base.cil"); err != nil {
		return err
	}
	if err := program("load_policy"); err != nil {
		return err
	}
	return os.WriteFile("/sys/fs/selinux/enforce", []byte("1"), 0)
}

func loopback() error {
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	request, err := unix.NewIfreq("lo")
	if err == nil {
		request.SetUint16(unix.IFF_UP)
		err = unix.IoctlIfreq(socket, unix.SIOCSIFFLAGS, request)
	}
	return errors.Join(err, unix.Close(socket))
}

func program(name string, args ...string) error {
	if said, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, said)
	}
	return nil
}
