//go:build lsm_selinux

package host

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/profile/profiletest"
	"github.com/confine-dev/confine/pkg/profile/selinux"
	"github.com/confine-dev/confine/pkg/profile/selinux/host/semodule"
	"github.com/confine-dev/confine/pkg/reason"
)

// ownPolicy is the machine's own policy.
type ownPolicy struct {
	*semodule.Store
	selinuxfs
}

const adminPriority = "400" // semodule(8)

func onThisMachine(t *testing.T) policy {
	t.Helper()
	p := ownPolicy{semodule.New(semodule.Options{}), selinuxfs{"/" + selinuxFolder}}
	empty := func() { must(t, p.empty(context.Background())) }
	empty()
	t.Cleanup(empty)
	return p
}

// empty takes away all modules but the machine's base policy.
func (p ownPolicy) empty(ctx context.Context) error {
	out, err := exec.CommandContext(ctx, "semodule", "--list-modules=full").Output()
	var args []string
	for line := range strings.Lines(string(out)) {
		fields := strings.Fields(line)
		if len(fields) < 3 || fields[1] == "base" {
			continue
		}
		if len(fields) > 3 {
			args = append(args, "--enable="+fields[1])
		}
		args = append(args, "--priority="+fields[0], "--remove="+fields[1])
	}
	if err != nil || len(args) == 0 {
		return err
	}
	return program(ctx, "", args...)
}

func program(ctx context.Context, dir string, args ...string) error {
	cmd := exec.CommandContext(ctx, "semodule", args...)
	cmd.Dir = dir
	if said, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("semodule %q: %w: %s", args, err, said)
	}
	return nil
}

func (p ownPolicy) commitUnloaded(ctx context.Context, c semodule.Change) error {
	dir, err := os.MkdirTemp("", "modules-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	args := []string{"--noreload", "--priority=350"}
	for _, m := range c.Install {
		if err := os.WriteFile(filepath.Join(dir, m.Name+".cil"), m.CIL, 0o600); err != nil {
			return err
		}
		args = append(args, "--install="+m.Name+".cil")
	}
	for _, name := range c.Remove {
		args = append(args, "--remove="+name)
	}
	return program(ctx, dir, args...)
}

func (p ownPolicy) disable(ctx context.Context, name string) error {
	return program(ctx, "", "--disable="+name)
}

func (p ownPolicy) hostModule(ctx context.Context, block string) error {
	file := filepath.Join(os.TempDir(), block+".cil")
	if err := os.WriteFile(file, blockWith(block, ""), 0o600); err != nil {
		return err
	}
	return errors.Join(program(ctx, "", "--priority="+adminPriority, "--install="+file), os.Remove(file))
}

func TestPolicyOfThisMachine(t *testing.T) { runPolicy(t, onThisMachine) }

func TestCasesOnThisMachine(t *testing.T) { runCases(t, onThisMachine) }

func TestManyInOneTransaction(t *testing.T) {
	const many = 50
	b := newBench(t, onThisMachine(t))
	var units []profile.Unit
	for i := range many {
		units = append(units, unit(owner("shop", fmt.Sprintf("web-%d", i)), profiletest.Fewer))
	}
	commits := counted(b)
	b.install(true, units...)
	b.install(false, units...)
	if *commits != 1 {
		t.Errorf("%d transactions", *commits)
	}
	b.inForce(units...)
	var owners []profile.Owner
	for _, u := range units {
		owners = append(owners, u.Owner)
	}
	b.remove(true, owners...)
	if *commits != 2 {
		t.Errorf("%d transactions, with the removal", *commits)
	}
	b.inForce()
}

// TestKilledAnywhere ends a transaction at several points of its work.
func TestKilledAnywhere(t *testing.T) {
	const points = 3
	b := newBench(t, onThisMachine(t))
	o := owner("shop", "web")
	first, second := unit(o, profiletest.First), unit(o, profiletest.Fewer)
	start := time.Now()
	b.install(true, first)
	whole := time.Since(start)
	died := 0
	for i := range points {
		ctx, cancel := context.WithTimeout(t.Context(), whole*time.Duration(i+1)/(points+1))
		got := b.h.Install(ctx, []profile.Unit{second})[0]
		cancel()
		if got.Err != nil {
			died++
			if !errors.Is(got.Err, context.DeadlineExceeded) {
				t.Errorf("point %d: %v", i, got.Err)
			}
		}
		b.again()
		in, err := b.h.Installed(t.Context())
		must(t, err)
		if len(in) != 1 || (in[0].Digest != first.Digest && in[0].Digest != second.Digest) || len(in[0].References) != len(in[0].Files) {
			t.Errorf("point %d: in force %+v", i, in)
		}
		if got := b.h.Install(t.Context(), []profile.Unit{second})[0]; got.Err != nil {
			t.Errorf("point %d: again: %v", i, got.Err)
		}
		b.inForce(second)
		wantKnown(t, b.p, block(o, "worker"), false)
		b.install(true, first)
	}
	if died == 0 {
		t.Error("no point was before its end")
	}
}

func TestLockedByAnother(t *testing.T) {
	p := onThisMachine(t)
	b := newBench(t, p)
	web := unit(owner("shop", "web"), profiletest.First)
	lock, err := os.OpenFile("/var/lib/selinux/tiny/semanage.trans.LOCK", os.O_RDWR, 0)
	must(t, err)
	defer func() { _ = lock.Close() }()
	must(t, unix.Flock(int(lock.Fd()), unix.LOCK_EX))
	got := b.h.Install(t.Context(), []profile.Unit{web})[0]
	b.refused(got, reason.InstallFailed, "locked by another")
	if !errors.Is(got.Err, semodule.ErrBusy) {
		t.Errorf("%v", got.Err)
	}
	in, err := b.h.Installed(t.Context())
	must(t, err)
	if len(in) > 0 {
		t.Errorf("in force: %+v", in)
	}
	must(t, unix.Flock(int(lock.Fd()), unix.LOCK_UN))
	b.again()
	b.install(true, web)
	b.inForce(web)
}

// TestFullDisk gives the store a disk of its own.
func TestFullDisk(t *testing.T) {
	const store = "/var/lib/selinux"
	b := newBench(t, onThisMachine(t))
	old := unit(owner("shop", "old"), profiletest.Fewer)
	b.install(true, old)
	copied := t.TempDir()
	must(t, os.CopyFS(filepath.Join(copied, "store"), os.DirFS(store)))
	must(t, unix.Mount("tmpfs", store, "tmpfs", 0, "size=4m"))
	defer func() { must(t, unix.Unmount(store, unix.MNT_DETACH)) }()
	must(t, os.CopyFS(store, os.DirFS(filepath.Join(copied, "store"))))
	full, err := os.Create(store + "/full")
	must(t, err)
	defer func() { _ = full.Close() }()
	size, err := io.Copy(full, zeros{})
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("filling the disk: %v", err)
	}
	web := unit(owner("shop", "web"), profiletest.First)
	for _, room := range []int64{0, 16 << 10} {
		must(t, full.Truncate(size-room))
		got := b.h.Install(t.Context(), []profile.Unit{web, unit(owner("store", "db"), profiletest.First)})
		for _, o := range got {
			b.refused(o, reason.NoSpace, "disk")
		}
		b.inForce(old)
	}
	must(t, full.Truncate(0))
	b.install(true, web)
	b.inForce(old, web)
	b.remove(true, web.Owner, old.Owner)
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// shell answers each line with what the command in it came to, as a type.
type shell struct {
	t   *testing.T
	in  io.Writer
	out *bufio.Reader
	end func()
	pid int
}

func runAs(t *testing.T, processType string) *shell {
	t.Helper()
	cmd := exec.Command("runcon", "system_u:system_r:"+processType+":s0", "/bin/busybox", "sh", "-c",
		`while read -r line; do eval "$line" 2>/dev/null && echo yes || echo no; done`)
	in, err := cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	cmd.Stderr = os.Stderr
	must(t, cmd.Start())
	s := &shell{t: t, in: in, out: bufio.NewReader(out), pid: cmd.Process.Pid}
	s.end = func() { _ = in.Close(); _ = cmd.Wait() }
	t.Cleanup(s.end)
	return s
}

func (s *shell) can(command string) bool {
	s.t.Helper()
	_, err := io.WriteString(s.in, command+"\n")
	must(s.t, err)
	answer, err := s.out.ReadString('\n')
	must(s.t, err)
	return answer == "yes\n"
}

// TestProcessesAreConfined: from the host's own container, a process gets
// exactly what its profile says, an update reaches it while it runs, and its
// type stays as long as it does.
func TestProcessesAreConfined(t *testing.T) {
	onThisMachine(t)
	h, err := New(Options{Root: filepath.Join(t.TempDir(), "selinux"), HostRoot: "/proc/1/root"})
	must(t, err)
	must(t, h.Supported(t.Context()))
	b := &bench{t, ownPolicy{semodule.New(semodule.Options{}), selinuxfs{"/" + selinuxFolder}}, h}
	for file, label := range map[string]string{"/srv/settings": "etc_t", "/srv/secret": "secret_t", "/srv/data": "container_file_t"} {
		must(t, os.WriteFile(file, []byte("text\n"), 0o644))
		must(t, unix.Setxattr(file, "security.selinux", []byte("system_u:object_r:"+label+":s0\x00"), 0))
	}
	o := owner("shop", "web")
	strict := unit(o, profiletest.First)
	loose := unit(o, profiletest.Second)
	loose.Files[0].Data = blockWith(block(o, "web"), "(blockinherit config_container)")
	b.install(true, strict)
	process := runAs(t, selinux.ProcessType(block(o, "web")))
	reads := func(want map[string]bool) {
		t.Helper()
		for file, may := range want {
			if got := process.can("read -r x < " + file); got != may {
				t.Errorf("reading %s: %v, want %v", file, got, may)
			}
		}
	}
	reads(map[string]bool{"/srv/data": true, "/srv/settings": false, "/srv/secret": false})
	b.install(true, loose)
	reads(map[string]bool{"/srv/data": true, "/srv/settings": true, "/srv/secret": false})
	b.install(true, strict)
	reads(map[string]bool{"/srv/data": true, "/srv/settings": false, "/srv/secret": false})

	b.refused(b.h.Remove(t.Context(), []profile.Owner{o})[0], reason.InstallFailed, selinux.ProcessType(block(o, "web")))
	dropping := profile.Unit{Owner: o, Digest: digestOf("dropping"), Files: files(o, profiletest.First)[1:]}
	b.refused(b.h.Install(t.Context(), []profile.Unit{dropping})[0], reason.InstallFailed, "process ")
	b.inForce(strict)
	b.install(true, unit(o, profiletest.Fewer)) // the type that no process runs as
	process.end()
	b.remove(true, o)
	b.inForce()
}

func TestPermissiveIsUnsupported(t *testing.T) {
	b := newBench(t, onThisMachine(t))
	web := unit(owner("shop", "web"), profiletest.First)
	b.install(true, web)
	enforce := func(mode string) { must(t, os.WriteFile("/sys/fs/selinux/enforce", []byte(mode), 0)) }
	enforce("0")
	defer enforce("1")
	if err := b.h.Supported(t.Context()); !errors.Is(err, reason.KindUnsupported) || !strings.Contains(err.Error(), "permissive") {
		t.Errorf("supported: %v", err)
	}
	b.refused(b.h.Install(t.Context(), []profile.Unit{unit(web.Owner, profiletest.Second)})[0], reason.KindUnsupported, "permissive")
	b.inForce(web)
	b.remove(true, web.Owner)
}
