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

// ensureArtifact makes the unit's artifact folder hold exactly its files. It
// compares every byte, because no marker could be trusted more than the bytes.
func ensureArtifact(d *durable.Dir, u profile.Unit) (bool, error) {
	changed := false
	for _, folder := range []string{base, artifacts} {
		made, err := ensureFolder(d, folder)
		changed = changed || made
		if err != nil {
			return changed, err
		}
	}
	name := path.Join(artifacts, folderName(u.Digest))
	info, err := d.Lstat(name)
	if err == nil && info.IsDir() && ownedByUs(info) {
		mended, err := mendFolder(d, name, info, u.Files)
		return changed || mended, err
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return changed, err
	}
	if err == nil { // a link, a file, or a folder that somebody else can change
		if err := d.RemoveAll(name); err != nil {
			return true, err
		}
	}
	files := make([]durable.File, 0, len(u.Files))
	for _, f := range u.Files {
		files = append(files, durable.File{Name: f.Name, Data: f.Data})
	}
	return true, d.WriteFolder(name, files, dirMode, fileMode)
}

// mendFolder repairs an artifact folder in place and file by file, so that
// workloads which use it never see it gone.
func mendFolder(d *durable.Dir, name string, info fs.FileInfo, files []profile.File) (bool, error) {
	changed := false
	if info.Mode().Perm() != dirMode {
		changed = true
		if err := d.Chmod(name, dirMode); err != nil {
			return changed, err
		}
	}
	if err := d.SweepTemp(name); err != nil {
		return changed, err
	}
	wanted := map[string]bool{}
	for _, f := range files {
		wanted[f.Name] = true
		mended, err := mendFile(d, path.Join(name, f.Name), f.Data)
		changed = changed || mended
		if err != nil {
			return changed, err
		}
	}
	entries, err := d.ReadDir(name)
	if err != nil {
		return changed, err
	}
	for _, e := range entries {
		if wanted[e.Name()] {
			continue
		}
		changed = true
		if err := d.RemoveAll(path.Join(name, e.Name())); err != nil {
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

// ensureLink makes the owner's link name the unit's artifact folder, which
// must be complete by now. replaced says that something else stood there.
func ensureLink(d *durable.Dir, u profile.Unit) (changed, replaced bool, err error) {
	changed, err = ensureFolder(d, path.Join(base, u.Owner.Namespace))
	if err != nil {
		return changed, false, err
	}
	name, target := linkName(u.Owner), linkTarget(folderName(u.Digest))
	info, err := d.Lstat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return true, false, d.Symlink(target, name)
	case err != nil:
		return changed, false, err
	case info.Mode()&fs.ModeSymlink != 0:
		if got, err := d.Readlink(name); err == nil && got == target {
			return changed, false, nil
		}
	case info.IsDir(): // somebody put a folder where the link was
		if err := d.RemoveAll(name); err != nil {
			return true, true, err
		}
	}
	return true, true, d.Symlink(target, name)
}

// linkTarget is relative, so that the tree means the same wherever a node or
// a container has it mounted.
func linkTarget(folder string) string { return "../" + path.Base(artifacts) + "/" + folder }

// ensureFolder makes one folder of the tree exist with the right mode. Below
// base, what is no folder is replaced; base itself is only refused, for a link
// there may be an administrator's.
func ensureFolder(d *durable.Dir, name string) (bool, error) {
	info, err := d.Lstat(name)
	if err == nil && !info.IsDir() && name != base {
		if err := d.Remove(name); err != nil {
			return true, err
		}
		return true, d.MkdirAll(name, dirMode)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return true, d.MkdirAll(name, dirMode)
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
