package safedir

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/confine-dev/confine/pkg/reason"
)

// folder returns TMP/parent/trust with one file; TMP is sticky like /tmp.
func folder(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "parent", "trust")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "web.yaml"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

func try(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func asRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs chown(2) to another user, which the kernel lets root alone do")
	}
}

func TestCheck(t *testing.T) {
	for name, c := range map[string]struct {
		change func(t *testing.T, dir string)
		safe   bool
	}{
		"as it should be": {func(*testing.T, string) {}, true},
		"only readable":   {func(t *testing.T, dir string) { try(t, os.Chmod(dir, 0o500)) }, true},
		"a link to a safe place": {func(t *testing.T, dir string) {
			try(t, os.Rename(dir, dir+"-real"), os.Symlink("../parent/trust-real", dir))
		}, true},
		"links within, as mounted configuration has them": {func(t *testing.T, dir string) {
			try(t, os.Mkdir(filepath.Join(dir, "..data"), 0o755), os.WriteFile(filepath.Join(dir, "..data", "x.yaml"), nil, 0o600),
				os.Symlink("..data/x.yaml", filepath.Join(dir, "x.yaml")))
		}, true},
		"a sticky parent for everybody": {func(t *testing.T, dir string) {
			try(t, os.Chmod(filepath.Dir(dir), 0o777|os.ModeSticky))
		}, true},
		"missing":                           {func(t *testing.T, dir string) { try(t, os.RemoveAll(dir)) }, false},
		"the group may write":               {func(t *testing.T, dir string) { try(t, os.Chmod(dir, 0o775)) }, false},
		"everybody may write":               {func(t *testing.T, dir string) { try(t, os.Chmod(dir, 0o777)) }, false},
		"everybody may write, sticky":       {func(t *testing.T, dir string) { try(t, os.Chmod(dir, 0o777|os.ModeSticky)) }, false},
		"everybody may write to the parent": {func(t *testing.T, dir string) { try(t, os.Chmod(filepath.Dir(dir), 0o777)) }, false},
		"everybody may write to a file":     {func(t *testing.T, dir string) { try(t, os.Chmod(filepath.Join(dir, "web.yaml"), 0o646)) }, false},
		"a file is somebody else's": {func(t *testing.T, dir string) {
			asRoot(t)
			try(t, os.Chown(filepath.Join(dir, "web.yaml"), 1234, -1))
		}, false},
		"it is somebody else's":         {func(t *testing.T, dir string) { asRoot(t); try(t, os.Chown(dir, 1234, -1)) }, false},
		"the parent is somebody else's": {func(t *testing.T, dir string) { asRoot(t); try(t, os.Chown(filepath.Dir(dir), 1234, -1)) }, false},
		"a link is somebody else's": {func(t *testing.T, dir string) {
			asRoot(t)
			try(t, os.Rename(dir, dir+"-real"), os.Symlink("trust-real", dir), os.Lchown(dir, 1234, -1))
		}, false},
		"a link to where others may write": {func(t *testing.T, dir string) {
			open := filepath.Join(filepath.Dir(dir), "open")
			try(t, os.Mkdir(open, 0o755), os.Chmod(open, 0o777), os.Rename(dir, filepath.Join(open, "trust")), os.Symlink("open/trust", dir))
		}, false},
		"a file that links to where others may write": {func(t *testing.T, dir string) {
			open := filepath.Join(filepath.Dir(dir), "open")
			try(t, os.Mkdir(open, 0o755), os.WriteFile(filepath.Join(open, "x"), nil, 0o600), os.Chmod(open, 0o777),
				os.Symlink("../open/x", filepath.Join(dir, "x.yaml")))
		}, false},
		"a link to itself": {func(t *testing.T, dir string) { try(t, os.RemoveAll(dir), os.Symlink("trust", dir)) }, false},
		"a file":           {func(t *testing.T, dir string) { try(t, os.RemoveAll(dir), os.WriteFile(dir, nil, 0o600)) }, false},
		"an access control list": {func(t *testing.T, dir string) {
			// Version 2; user rw-, user 1234 rw-, group r--, mask r--, other r-- (acl(5),
			// include/uapi/linux/posix_acl_xattr.h). The mode alone looks harmless.
			list := []byte{
				2, 0, 0, 0, 1, 0, 7, 0, 255, 255, 255, 255, 2, 0, 7, 0, 0xd2, 4, 0, 0, 4, 0, 5, 0, 255, 255, 255, 255,
				16, 0, 5, 0, 255, 255, 255, 255, 32, 0, 5, 0, 255, 255, 255, 255,
			}
			err := syscall.Setxattr(dir, "system.posix_acl_default", list, 0)
			if errors.Is(err, syscall.ENOTSUP) {
				t.Skip("this file system has no POSIX access control lists")
			}
			try(t, err)
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			dir := folder(t)
			c.change(t, dir)
			err := Check(dir)
			if c.safe && err != nil {
				t.Errorf("Check = %v", err)
			}
			if !c.safe && !errors.Is(err, reason.TrustPolicyInvalid) {
				t.Errorf("Check = %v, want TrustPolicyInvalid", err)
			}
		})
	}
}

func TestRootAloneIsTrustedByRoot(t *testing.T) {
	asRoot(t)
	dir := folder(t)
	try(t, os.Chown(dir, 1234, -1))
	if err := check(dir, 1234); err != nil {
		t.Errorf("the caller's own folder: %v", err)
	}
	if err := check(dir, 4321); !errors.Is(err, reason.TrustPolicyInvalid) {
		t.Errorf("somebody else's folder: %v", err)
	}
}
