package fetch

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/confine-dev/confine/pkg/artifact/fetchtest"
	"github.com/confine-dev/confine/pkg/reason"
)

// childUID is the user of the children here: another one where that can be.
func childUID() int {
	if os.Geteuid() == 0 {
		return DefaultUID
	}
	return os.Geteuid()
}

// socketPath is one that the child's user can reach.
func socketPath(t testing.TB) string {
	t.Helper()
	folder := t.TempDir()
	for dir := folder; dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o711); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(folder, "fetch", "agent.sock")
}

func startListening(t testing.TB, change ...func(*Options)) *Remote {
	t.Helper()
	path := socketPath(t)
	r := start(t, append([]func(*Options){func(o *Options) { o.Socket, o.UID = path, childUID() }}, change...)...)
	dialer(t, path)
	return r
}

// dialer starts a child that dials.
func dialer(t testing.TB, path string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", asChild, "--socket", path)
	cmd.Dir, cmd.Stderr, cmd.Env = "/", testWriter{t}, []string{}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if os.Geteuid() == 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: DefaultUID, Gid: DefaultUID}
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
	})
	return cmd
}

func works(r *Remote, s *source, a fetchtest.Artifact) func() bool {
	return func() bool {
		_, err := r.Manifest(background(), s.repo, a.Digest())
		return err == nil
	}
}

// The parent may be started again, and the child dials again.
func TestChildDialsAgain(t *testing.T) {
	s, a := newSource(t), fetchtest.Example()
	s.put(t, a)
	path := socketPath(t)
	options := Options{Socket: path, UID: childUID(), Log: testLog(t), limits: testLimits()}
	first, err := Start(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	dialer(t, path)
	eventually(t, "the first parent is answered", works(first, s, a))
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
	second := start(t, func(o *Options) { o.Socket, o.UID = path, options.UID })
	eventually(t, "the second parent is answered", works(second, s, a))
}

// What a killed parent left is replaced; the socket is never missing meanwhile.
func TestStaleSocketIsReplaced(t *testing.T) {
	path := socketPath(t)
	left, err := listenAt(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := left.Close(); err != nil { // as a kill does: the file stays
		t.Fatal(err)
	}
	if err := os.Symlink("/etc/passwd", path+".new"); err != nil {
		t.Fatal(err)
	}
	l, err := listenAt(path)
	if err != nil {
		t.Fatalf("listenAt: %v", err)
	}
	defer l.remove()
	info, err := os.Lstat(path)
	if err != nil || info.Mode().Type() != fs.ModeSocket || info.Mode().Perm() != socketMode {
		t.Errorf("at the path is %v, %v", info, err)
	}
	if folder, err := os.Stat(filepath.Dir(path)); err != nil || folder.Mode().Perm() != folderMode {
		t.Errorf("the folder is %v, %v", folder, err)
	}
	left.remove()
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("who was replaced removed the socket of who replaced it: %v", err)
	}
}

// dialAs connects as a user; as another one, only root can.
func dialAs(t *testing.T, path string, uid int) *net.UnixConn {
	t.Helper()
	if os.Geteuid() != uid {
		// A thread of its own, which nobody uses after the user was changed back.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, ^uintptr(0), uintptr(uid), ^uintptr(0)); errno != 0 {
			t.Fatal(errno)
		}
		defer unix.RawSyscall(unix.SYS_SETRESUID, ^uintptr(0), 0, ^uintptr(0))
	}
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// refused reports whether the other end closed the connection.
func refused(t *testing.T, conn *net.UnixConn) bool {
	t.Helper()
	if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	_, err := conn.Read(make([]byte, 1))
	return err != nil && !errors.Is(err, os.ErrDeadlineExceeded)
}

func TestOtherUsersAreRefused(t *testing.T) {
	path := socketPath(t)
	r := start(t, func(o *Options) { o.Socket, o.UID, o.limits.connect = path, os.Geteuid()+1, 0 })
	conn := dialAs(t, path, os.Geteuid())
	_, _ = conn.Write([]byte{version})
	if !refused(t, conn) {
		t.Error("another user's connection was taken")
	}
	s := newSource(t)
	if _, err := r.Manifest(t.Context(), s.repo, digest.FromString("x")); !errors.Is(err, reason.RegistryUnavailable) {
		t.Errorf("Manifest: %v, want RegistryUnavailable", err)
	}
}

// A second child is refused while the first one's connection stands, and taken
// when it is gone.
func TestSecondChild(t *testing.T) {
	path := socketPath(t)
	r := start(t, func(o *Options) { o.Socket, o.UID = path, childUID() })
	first := dialAs(t, path, childUID())
	if _, err := first.Write([]byte{version}); err != nil {
		t.Fatal(err)
	}
	attached := func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.link != nil
	}
	eventually(t, "the first is attached", attached)
	second := dialAs(t, path, childUID())
	_, _ = second.Write([]byte{version})
	if !refused(t, second) {
		t.Error("a second child was taken beside the first")
	}
	if !attached() {
		t.Error("the first is gone")
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the first one's end is noticed", func() bool { return !attached() })
	third := dialAs(t, path, childUID())
	if _, err := third.Write([]byte{version}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "another is attached", attached)
}

// One that connects and says nothing does not keep the place.
func TestSilentChildLosesItsPlace(t *testing.T) {
	s, a, path := newSource(t), fetchtest.Example(), socketPath(t)
	s.put(t, a)
	r := start(t, func(o *Options) { o.Socket, o.UID, o.limits.respond = path, childUID(), 3*time.Second })
	if !refused(t, dialAs(t, path, childUID())) {
		t.Error("it may stay")
	}
	dialer(t, path)
	eventually(t, "a child that speaks is taken", works(r, s, a))
}
