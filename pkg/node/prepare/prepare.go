// Package prepare makes the folders of an agent and gives them to its user, before
// it starts: an ordinary user where it needs no privilege (Prepare), and root
// where it loads policy into the kernel (Take). An agent may change from one to
// the other and back. It runs as root in an init container, so it gives away as
// little as it can, and believes nothing of what an ordinary user left.
package prepare

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/confine-dev/confine/pkg/reason"
)

const (
	folderMode       fs.FileMode = 0o755 // for runtimes and for people to read
	writableByOthers fs.FileMode = 0o022

	maxEntries = 1 << 20
	maxDepth   = 16
)

// Folder is one folder that is given to the agent's user.
type Folder struct {
	// Below is a folder that must be there, such as the kubelet's.
	Below string
	// Path is relative to it. Its last element is given away; those before are
	// made where they are missing, and stay root's.
	Path string
	// Private are names in the folder that are never given away and never taken:
	// an agent that is root keeps there what it believes without looking twice.
	Private []string
}

// Prepare makes folders and gives them to a user, which is the agent's and not
// root, with what an agent that ran as root left in them. It follows no link
// below Folder.Below, and gives away nothing that belongs to anybody else. It
// may be repeated, and killed at any point. The error is InstallFailed.
func Prepare(uid, gid int, folders ...Folder) error {
	if uid <= 0 || gid <= 0 {
		return reason.New(reason.InstallFailed, "uid", "user %d and group %d are not those of an ordinary user", uid, gid).
			WithAdvice("give --uid and --gid of the user that the agent runs as")
	}
	return each(folders, func(f Folder) handOver {
		g := giver{uid: uid, gid: gid, private: f.Private}
		return g.give
	})
}

// handOver settles whose a folder is, which its parent may not have yet.
type handOver func(parent *os.Root, name string) error

// each hands all folders over.
func each(folders []Folder, how func(Folder) handOver) error {
	for _, f := range folders {
		if !filepath.IsLocal(f.Path) || f.Path == "." {
			return refused(filepath.Join(f.Below, f.Path), errors.New("it is no folder below another"))
		}
		if err := within(f.Below, func(root *os.Root) error {
			return descend(root, strings.Split(filepath.ToSlash(filepath.Clean(f.Path)), "/"), how(f))
		}); err != nil {
			return err
		}
	}
	return nil
}

// descend makes all segments and hands the last one over.
func descend(at *os.Root, segments []string, last handOver) error {
	if len(segments) == 1 {
		return last(at, segments[0])
	}
	if err := makeFolder(at, segments[0]); err != nil {
		return err
	}
	next, err := openFolder(at, segments[0])
	if err != nil {
		return err
	}
	defer closeQuietly(next)
	return descend(next, segments[1:], last)
}

// within opens a folder that must be there; links on the way to it are the
// administrator's.
func within(dir string, do func(*os.Root) error) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return refused(dir, err).WithAdvice("mount the folder into this container; the kubelet's is the one of its --root-dir")
	}
	defer closeQuietly(root)
	return do(root)
}

// makeFolder makes a folder of root's, or makes sure that nobody but root can
// change what is there.
func makeFolder(parent *os.Root, name string) error {
	err := parent.Mkdir(name, folderMode)
	if err == nil {
		err = parent.Chmod(name, folderMode) // whatever the umask
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return refused(full(parent, name), err)
	}
	info, err := parent.Lstat(name)
	if err != nil {
		return refused(full(parent, name), err)
	}
	if err := checkFolder(full(parent, name), info, os.Geteuid()); err != nil {
		return err
	}
	if info.Mode()&writableByOthers != 0 {
		return refused(full(parent, name), fmt.Errorf("its mode %v lets others write", info.Mode().Perm())).
			WithAdvice("chmod go-w %s", full(parent, name))
	}
	return nil
}

// give makes a folder of the agent's user.
func (g *giver) give(parent *os.Root, name string) error {
	info, err := makeOrFind(parent, name, os.Geteuid(), g.uid)
	if err != nil {
		return err
	}
	return g.folder(parent, name, info, 0)
}

// makeOrFind makes a folder, or finds the one of some users that is there.
func makeOrFind(parent *os.Root, name string, users ...int) (fs.FileInfo, error) {
	err := parent.Mkdir(name, folderMode)
	if err == nil {
		err = parent.Chmod(name, folderMode)
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, refused(full(parent, name), err)
	}
	info, err := parent.Lstat(name)
	if err != nil {
		return nil, refused(full(parent, name), err)
	}
	return info, checkFolder(full(parent, name), info, users...)
}

// checkFolder refuses what is no folder, and what belongs to none of some users.
func checkFolder(name string, info fs.FileInfo, users ...int) error {
	if !info.IsDir() {
		return refused(name, errors.New("it is no folder")).WithAdvice("take away what stands at %s: it may be a link that leads elsewhere", name)
	}
	owner, ok := ownerOf(info)
	for _, user := range users {
		if ok && owner == user {
			return nil
		}
	}
	return refused(name, fmt.Errorf("it belongs to user %d", owner)).
		WithAdvice("find out who made it; if it is an agent's of before: chown -RhP %d %s", users[len(users)-1], name)
}

// giver gives folders to the agent's user, each after what is in it: a folder
// that is the agent's was given as a whole.
type giver struct {
	uid, gid int
	private  []string // in the folder itself, not in those below
	seen     int
}

func (g *giver) folder(parent *os.Root, name string, info fs.FileInfo, depth int) error {
	if owner, ok := ownerOf(info); ok && owner == g.uid {
		return nil
	}
	if info.Mode()&writableByOthers != 0 {
		// Whoever else writes there could put another file of root's in the
		// place of the one that was looked at.
		return refused(full(parent, name), fmt.Errorf("its mode %v lets others write", info.Mode().Perm())).
			WithAdvice("see who made it and what is in it; then chmod go-w %s", full(parent, name))
	}
	if depth > maxDepth {
		return refused(full(parent, name), fmt.Errorf("more than %d folders deep", maxDepth))
	}
	d, err := openFolder(parent, name)
	if err != nil {
		return err
	}
	defer closeQuietly(d)
	entries, err := fs.ReadDir(d.FS(), ".")
	if err != nil {
		return refused(full(parent, name), err)
	}
	for _, e := range entries {
		if g.seen++; g.seen > maxEntries {
			return refused(full(parent, name), fmt.Errorf("more than %d entries", maxEntries))
		}
		if depth == 0 && slices.Contains(g.private, e.Name()) {
			continue
		}
		if err := g.entry(d, e.Name(), depth); err != nil {
			return err
		}
	}
	return g.own(parent, name)
}

// entry gives away one entry that belongs to this process's user. What belongs
// to others stays theirs, and so does a file that has another name elsewhere.
func (g *giver) entry(d *os.Root, name string, depth int) error {
	info, err := d.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return refused(full(d, name), err)
	}
	owner, ok := ownerOf(info)
	switch {
	case !ok || owner != os.Geteuid():
		return nil
	case info.IsDir():
		return g.folder(d, name, info, depth+1)
	case info.Mode().IsRegular() && links(info) == 1, info.Mode()&fs.ModeSymlink != 0:
		return g.own(d, name)
	}
	return nil
}

// own changes the owner of an entry, of a link itself and not of what it leads
// to.
func (g *giver) own(parent *os.Root, name string) error {
	if err := parent.Lchown(name, g.uid, g.gid); err != nil {
		return refused(full(parent, name), err)
	}
	return nil
}

// openFolder opens a folder and makes sure that it is the one that was looked
// at, and no link to another.
func openFolder(parent *os.Root, name string) (*os.Root, error) {
	seen, err := parent.Lstat(name)
	if err == nil && !seen.IsDir() {
		err = errors.New("it is no folder")
	}
	var d *os.Root
	if err == nil {
		d, err = parent.OpenRoot(name)
	}
	if err != nil {
		return nil, refused(full(parent, name), err)
	}
	got, err := d.Stat(".")
	if err == nil && !os.SameFile(seen, got) {
		err = errors.New("it was replaced while it was opened")
	}
	if err != nil {
		closeQuietly(d)
		return nil, refused(full(parent, name), err)
	}
	return d, nil
}

func ownerOf(info fs.FileInfo) (int, bool) {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return -1, false
	}
	return int(stat.Uid), true
}

func links(info fs.FileInfo) uint64 {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0
	}
	return uint64(stat.Nlink) //nolint:unconvert // of another width on other machines
}

func full(parent *os.Root, name string) string { return path.Join(parent.Name(), name) }

func refused(name string, err error) *reason.Error {
	return reason.New(reason.InstallFailed, name, "%w", err).WithAdvice("run this as root with CAP_CHOWN, where %s can be written", filepath.Dir(name))
}

func closeQuietly(d *os.Root) { _ = d.Close() }
