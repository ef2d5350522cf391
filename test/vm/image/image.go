// Package image makes the file system of a virtual machine from Debian's own
// packages: the stock kernel, the programs that load policy into it, and a
// first process of ours. Nothing is installed on the machine that makes it.
package image

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/confine-dev/confine/test/vm/cpio"
)

// LSM is a Linux security module that a machine boots with. On Debian's kernel
// AppArmor and SELinux exclude each other.
type LSM string

// The modules that there are machines for.
const (
	AppArmor LSM = "apparmor"
	SELinux  LSM = "selinux"
)

// All returns the modules in a fixed order.
func All() []LSM { return []LSM{AppArmor, SELinux} }

// Parse returns the module called name.
func Parse(name string) (LSM, error) {
	if l := LSM(name); slices.Contains(All(), l) {
		return l, nil
	}
	return "", fmt.Errorf("%q is no security module that there is a machine for: apparmor or selinux", name)
}

// Tag is the build tag of tests that need the module in their kernel.
func (l LSM) Tag() string { return "lsm_" + string(l) }

// KernelArguments are what the kernel is booted with to have the module.
func (l LSM) KernelArguments() []string {
	if l == SELinux {
		// Permissive until a policy is loaded; then the first process enforces.
		return []string{"lsm=landlock,lockdown,yama,selinux,bpf", "selinux=1", "enforcing=0"}
	}
	return []string{"lsm=landlock,lockdown,yama,apparmor,bpf"}
}

// Source is what images are made of.
type Source struct {
	// Packages is the folder that the function Packages returned.
	Packages string
	// Init is the first process, a static program: see BuildInit.
	Init string
}

// Kernel is the file to boot.
func (s Source) Kernel() string { return filepath.Join(s.Packages, "vmlinuz") }

// BuildInit compiles the first process into dir. It must be called with a
// working directory inside of the module.
func BuildInit(ctx context.Context, dir string) (string, error) {
	out := filepath.Join(dir, "init")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", out,
		"github.com/confine-dev/confine/test/vm/guest")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64", "GOFLAGS=")
	if said, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building the machine's first process: %w: %s", err, said)
	}
	return out, nil
}

// BuildPrograms compiles programs of ./cmd into dir, as they are for users:
// static, with libseccomp. It must be called with a working directory inside of
// the module.
func BuildPrograms(ctx context.Context, dir string, names []string) error {
	module, err := run(ctx, "", "go", "list", "-m", "-f", "{{.Dir}}")
	if err != nil {
		return err
	}
	root := strings.TrimSpace(module)
	for _, name := range names {
		cmd := exec.CommandContext(ctx, filepath.Join(root, "hack", "build"), "linux", "amd64", name, filepath.Join(dir, name))
		cmd.Env = append(os.Environ(), "VERSION=vm") // always the same, so that the result is cached
		if said, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("building %s: %w: %s", name, err, said)
		}
	}
	return nil
}

// Write writes the file system of a machine as a cpio archive.
func (s Source) Write(out io.Writer, l LSM) error {
	c := cpio.NewWriter(out)
	t := &tree{root: s.Packages, out: c, added: map[string]bool{}}
	c.Copy(s.Init, "init")
	c.Char("dev/console", 0o600, 5, 1)
	c.Char("dev/null", 0o666, 1, 3)
	for _, folder := range []string{"proc", "sys", "run", "tmp", "root", "srv", "mnt"} {
		c.Folder(folder)
	}
	c.File("etc/passwd", 0o644, []byte("root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"))
	c.File("etc/group", 0o644, []byte("root:x:0:\nnogroup:x:65534:\n"))
	c.File("etc/hosts", 0o644, []byte("127.0.0.1 localhost\n"))
	errs := []error{t.program("/bin/busybox")}
	for _, applet := range []string{"sh", "cat", "ls", "id", "sleep", "true", "false", "mkdir", "touch", "kill", "ip"} {
		c.Link("busybox", "bin/"+applet)
	}
	add := appArmor
	if l == SELinux {
		add = seLinux
	}
	errs = append(errs, add(t), c.Close())
	return errors.Join(errs...)
}

func appArmor(t *tree) error {
	for _, folder := range []string{"/etc/apparmor", "/etc/apparmor.d", "/usr/share/apparmor", "/usr/share/apparmor-features"} {
		t.out.Tree(filepath.Join(t.root, folder), folder)
	}
	return t.program("/sbin/apparmor_parser")
}

//go:embed base.cil
var basePolicy string

// BasePolicy is the policy of the SELinux machine, in CIL: as small as it can
// be with the templates that container policy is written against. The levels'
// thousand categories are written out by a loop.
func BasePolicy() string {
	const categories = 1024
	var declared, order strings.Builder
	for i := range categories {
		fmt.Fprintf(&declared, "(category c%d)", i)
		fmt.Fprintf(&order, " c%d", i)
	}
	return declared.String() + "\n(categoryorder (" + order.String() + "))\n" + basePolicy
}

// PolicyName is the name of the machine's SELinux policy store.
const PolicyName = "tiny"

func seLinux(t *tree) error {
	var errs []error
	for _, name := range []string{
		"/usr/sbin/semodule", "/usr/sbin/sefcontext_compile", "/sbin/load_policy", "/sbin/setfiles", "/usr/bin/secilc", "/usr/bin/runcon",
	} {
		errs = append(errs, t.program(name))
	}
	t.out.Copy(filepath.Join(t.root, "etc/selinux/semanage.conf"), "etc/selinux/semanage.conf")
	t.out.File("etc/selinux/config", 0o644, []byte("SELINUX=enforcing\nSELINUXTYPE="+PolicyName+"\n"))
	t.out.File("usr/share/confine-vm/base.cil", 0o644, []byte(BasePolicy()))
	t.out.Folder("var/lib/selinux/" + PolicyName)
	t.out.Folder("etc/selinux/" + PolicyName + "/contexts/files")
	return errors.Join(errs...)
}
