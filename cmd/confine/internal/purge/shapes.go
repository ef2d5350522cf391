package purge

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
)

// The names that Confine gives: pkg/profile/seccomp/host, pkg/node/agent,
// pkg/node/journal, pkg/node/cluster and pkg/durable. A test installs with those
// and purges.
const (
	seccompDir   = "seccomp"
	confineDir   = "confine"
	artifactsDir = ".artifacts"
	tempPrefix   = ".durable-tmp-"
	lockName     = "lock"

	notOurs = "Confine makes nothing of that name or shape"
)

// stateFolders and stateFiles are what an agent keeps below its root.
func stateFolders() []string { return []string{"store", "cluster"} }

func stateFiles() []string {
	return []string{"journal.json", "journal.damaged.json", "status.json"}
}

var (
	artifactName = regexp.MustCompile(`^sha256-[a-f0-9]{64}$`)
	linkTarget   = regexp.MustCompile(`^\.\./\.artifacts/sha256-([a-f0-9]{64})$`)
)

func splitPath(name string) []string { return strings.Split(name, "/") }

// seccomp plans the folder "confine" below base: the names of profiles first,
// then the artifacts that they lead to.
func (p *Plan) seccomp(base string) error {
	dir, err := os.OpenRoot(base)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = dir.Close() }()
	t := &tree{base: base}
	root, err := openFolder(dir, confineDir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case errors.Is(err, errNoFolder):
		p.keep(base, confineDir, "it is no folder, but a link or a file that somebody else made")
		return nil
	case err != nil:
		return err
	}
	defer func() { _ = root.Close() }()
	entries, err := fs.ReadDir(root.FS(), ".")
	if err != nil {
		return err
	}
	hasArtifacts := false
	for _, e := range entries {
		name := path.Join(confineDir, e.Name())
		switch {
		case isTemp(e):
			p.take(t, name, "an unfinished write", 0)
		case e.Name() == artifactsDir && e.IsDir():
			hasArtifacts = true
		case e.IsDir() && isLabel(e.Name()):
			if err := p.namespace(t, root, e.Name()); err != nil {
				return err
			}
		default:
			p.keep(base, name, notOurs)
		}
	}
	if hasArtifacts {
		if err := p.artifacts(t, root); err != nil {
			return err
		}
	}
	p.takeEmpty(t, confineDir)
	p.trees = append(p.trees, t)
	return nil
}

// namespace plans the links of one namespace.
func (p *Plan) namespace(t *tree, root *os.Root, namespace string) error {
	dir, entries, err := listFolder(root, namespace)
	if err != nil {
		return err
	}
	defer func() { _ = dir.Close() }()
	for _, e := range entries {
		name := path.Join(confineDir, namespace, e.Name())
		if isTemp(e) {
			p.take(t, name, "an unfinished write", 0)
			continue
		}
		target := ""
		if e.Type()&fs.ModeSymlink != 0 && isLabel(e.Name()) {
			if target, err = dir.Readlink(e.Name()); err != nil {
				return err
			}
		}
		match := linkTarget.FindStringSubmatch(target)
		if match == nil {
			p.keep(t.base, name, notOurs)
			continue
		}
		p.Profiles++
		p.take(t, name, "profile "+namespace+"/"+e.Name()+", sha256:"+match[1], 0)
	}
	p.takeEmpty(t, path.Join(confineDir, namespace))
	return nil
}

func (p *Plan) artifacts(t *tree, root *os.Root) error {
	dir, entries, err := listFolder(root, artifactsDir)
	if err != nil {
		return err
	}
	defer func() { _ = dir.Close() }()
	for _, e := range entries {
		name := path.Join(confineDir, artifactsDir, e.Name())
		switch {
		case isTemp(e):
			p.take(t, name, "an unfinished write", 0)
		case e.IsDir() && artifactName.MatchString(e.Name()):
			bytes, err := size(dir, e.Name())
			if err != nil {
				return err
			}
			p.take(t, name, "the files of an artifact", bytes)
		default:
			p.keep(t.base, name, notOurs)
		}
	}
	p.takeEmpty(t, path.Join(confineDir, artifactsDir))
	return nil
}

// state plans what the agent kept below its root, the lock last.
func (p *Plan) state(o Options) error {
	root := o.Root
	dir, err := os.OpenRoot(root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = dir.Close() }()
	entries, err := fs.ReadDir(dir.FS(), ".")
	if err != nil {
		return err
	}
	t := &tree{base: root}
	for _, e := range entries {
		if contains(p.kept, e.Name()) {
			continue
		}
		if i := slices.IndexFunc(o.kinds(), func(k loadedKind) bool { return k.folder == e.Name() }); i >= 0 && e.IsDir() {
			if err := p.folder(t, dir, o.kinds()[i]); err != nil {
				return err
			}
			continue
		}
		switch {
		case e.Name() == seccompDir && e.IsDir():
			p.takeEmpty(t, seccompDir) // what is in it was planned before
		case e.Name() == lockName && e.Type().IsRegular():
		case isTemp(e):
			p.take(t, e.Name(), "an unfinished write", 0)
		case contains(stateFolders(), e.Name()) && e.IsDir(), contains(stateFiles(), e.Name()) && e.Type().IsRegular():
			bytes, err := size(dir, e.Name())
			if err != nil {
				return err
			}
			p.take(t, e.Name(), "the agent's state", bytes)
		default:
			p.keep(root, e.Name(), notOurs)
		}
	}
	if _, err := dir.Lstat(lockName); err == nil {
		p.take(t, lockName, "the agent's lock", 0)
	}
	p.trees = append(p.trees, t)
	return nil
}

// size adds up the regular files in an entry.
func size(dir *os.Root, name string) (int64, error) {
	var total int64
	err := fs.WalkDir(dir.FS(), filepath.ToSlash(name), func(_ string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		info, err := e.Info()
		if err == nil {
			total += info.Size()
		}
		return err
	})
	return total, err
}

func isTemp(e fs.DirEntry) bool { return strings.HasPrefix(e.Name(), tempPrefix) }

func isLabel(name string) bool { return len(validation.IsDNS1123Label(name)) == 0 }

func contains(names []string, name string) bool {
	return slices.Contains(names, name)
}
