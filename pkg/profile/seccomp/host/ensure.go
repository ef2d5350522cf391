package host

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path"
	"syscall"

	"github.com/confine-dev/confine/pkg/durable"
	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/reason"
)

// mendFolder repairs an artifact folder in place and file by file, so that
// workloads which use it never see it gone.
func mendFolder(parent *durable.Dir, name string, info fs.FileInfo, files []profile.File) (bool, error) {
	changed := false
	if info.Mode().Perm() != dirMode {
		changed = true
		if err := parent.Chmod(name, dirMode); err != nil {
			return changed, err
		}
	}
	d, err := parent.Sub(name)
	if err != nil {
		return changed, err
	}
	defer closeQuietly(d)
	if err := d.SweepTemp("."); err != nil {
		return changed, err
	}
	wanted := map[string]bool{}
	for _, f := range files {
		wanted[f.Name] = true
		mended, err := mendFile(d, f.Name, f.Data)
		changed = changed || mended
		if err != nil {
			return changed, err
		}
	}
	entries, err := d.ReadDir(".")
	if err != nil {
		return changed, err
	}
	for _, e := range entries {
		if wanted[e.Name()] {
			continue
		}
		changed = true
		if err := d.RemoveAll(e.Name()); err != nil {
			return changed, err
		}
	}
	return changed, nil
}

// mendFile makes one file hold data, with the right mode and owner.
func mendFile(d *durable.Dir, name string, data []byte) (bool, error) {
	info, err := d.Lstat(name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	if err == nil && info.Mode() == fileMode && ownedByUs(info) && info.Size() == int64(len(data)) {
		got, err := d.ReadFile(name, int64(len(data)))
		if err == nil && bytes.Equal(got, data) {
			return false, nil
		}
	}
	if err == nil && info.IsDir() {
		if err := d.RemoveAll(name); err != nil {
			return true, err
		}
	}
	return true, d.WriteFile(name, data, fileMode)
}

// linkTarget is relative, so that the tree means the same wherever a node or
// a container has it mounted.
func linkTarget(folder string) string { return "../" + path.Base(artifacts) + "/" + folder }

// ensureFolder makes one folder of the tree exist with the right mode; one that
// is new is flushed with the batch. Below base, what is no folder is replaced;
// base itself is only refused, for a link there may be an administrator's.
func ensureFolder(d *durable.Dir, batch *durable.Batch, name string) (bool, error) {
	info, err := d.Lstat(name)
	if err == nil && !info.IsDir() && name != base {
		if err := d.Remove(name); err != nil {
			return true, err
		}
		return true, batch.MkdirAll(name, dirMode)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return true, batch.MkdirAll(name, dirMode)
	}
	if err != nil {
		return false, err
	}
	full := path.Join(d.Path(), name)
	if !info.IsDir() {
		return false, reason.New(reason.InstallFailed, full, "%w", durable.ErrNotFolder).
			WithAdvice("take away what stands at %s: Confine keeps a folder of its own there", full)
	}
	if !ownedByUs(info) {
		return false, reason.New(reason.InstallFailed, full, "the folder belongs to another user, who could swap profiles").
			WithAdvice("give it to the user the agent runs as: chown %d %s", os.Geteuid(), full)
	}
	if info.Mode().Perm() != dirMode {
		return true, d.Chmod(name, dirMode)
	}
	return false, nil
}

// ownedByUs reports whether nobody but this process's user (and root) can
// change the mode of an entry.
func ownedByUs(info fs.FileInfo) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && int64(stat.Uid) == int64(os.Geteuid())
}
