package prepare

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"github.com/confine-dev/confine/pkg/reason"
)

// Take makes folders and gives them to this process's user, which is root, with
// what an agent of the user from left in them. It follows no link below
// Folder.Below, and takes nothing that belongs to anybody else. It needs
// CAP_CHOWN alone: a folder is taken before it is read. It may be repeated, and
// killed at any point. The error is InstallFailed.
//
// What was the user's may hold anything. So nothing is taken that has a name
// elsewhere, too, and nothing stays writable by others; chown(2) itself takes
// set-user-ID and capabilities away.
func Take(from int, folders ...Folder) error {
	if from <= 0 {
		return reason.New(reason.InstallFailed, "uid", "user %d is not an ordinary user", from).
			WithAdvice("give --from-uid of the user that the agent ran as before")
	}
	return each(folders, func(f Folder) handOver {
		t := taker{from: from, uid: os.Geteuid(), gid: os.Getegid(), private: f.Private}
		return t.take
	})
}

// taker takes folders back, each before what is in it: from then on nobody else
// can change what is in it.
type taker struct {
	from, uid, gid int
	private        []string // in the folder itself, not in those below
	seen           int
}

func (t *taker) take(parent *os.Root, name string) error {
	info, err := makeOrFind(parent, name, t.uid, t.from)
	if err != nil {
		return err
	}
	return t.folder(parent, name, info, 0)
}

// folder takes a folder of the user's, or looks through one that is taken
// already.
func (t *taker) folder(parent *os.Root, name string, info fs.FileInfo, depth int) error {
	if depth > maxDepth {
		return refused(full(parent, name), fmt.Errorf("more than %d folders deep", maxDepth))
	}
	if owner, _ := ownerOf(info); owner == t.from {
		if err := t.own(parent, name); err != nil {
			return err
		}
	}
	d, err := openFolder(parent, name)
	if err != nil {
		return err
	}
	defer closeQuietly(d)
	if info.Mode()&writableByOthers != 0 {
		if err := d.Chmod(".", info.Mode().Perm()&^writableByOthers); err != nil {
			return refused(full(parent, name), err)
		}
	}
	entries, err := fs.ReadDir(d.FS(), ".")
	if err != nil {
		return refused(full(parent, name), err)
	}
	for _, e := range entries {
		if t.seen++; t.seen > maxEntries {
			return refused(full(parent, name), fmt.Errorf("more than %d entries", maxEntries))
		}
		if depth == 0 && slices.Contains(t.private, e.Name()) {
			continue
		}
		if err := t.entry(d, e.Name(), depth); err != nil {
			return err
		}
	}
	return nil
}

// entry takes one entry of the user's.
func (t *taker) entry(d *os.Root, name string, depth int) error {
	info, err := d.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return refused(full(d, name), err)
	}
	owner, known := ownerOf(info)
	switch {
	case info.IsDir() && known && (owner == t.from || owner == t.uid):
		return t.folder(d, name, info, depth+1)
	case !known || owner != t.from:
		return nil
	case info.Mode()&fs.ModeSymlink != 0:
		return t.own(d, name)
	case info.Mode().IsRegular() && links(info) == 1:
		if err := t.own(d, name); err != nil || info.Mode()&writableByOthers == 0 {
			return err
		}
		if err := d.Chmod(name, info.Mode().Perm()&^writableByOthers); err != nil {
			return refused(full(d, name), err)
		}
	}
	return nil
}

// own changes the owner of an entry, of a link itself and not of what it leads
// to.
func (t *taker) own(parent *os.Root, name string) error {
	if err := parent.Lchown(name, t.uid, t.gid); err != nil {
		return refused(full(parent, name), err)
	}
	return nil
}
