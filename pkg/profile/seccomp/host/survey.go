package host

import (
	"errors"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/confine-dev/confine/pkg/durable"
	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/profile/internal/hostcheck"
	"github.com/confine-dev/confine/pkg/reason"
)

// survey is what one look at the whole tree found.
type survey struct {
	installed  []profile.Installed // sorted by owner
	foreign    []string            // entries Confine did not make, sorted
	folders    []string            // artifact folders by name
	namespaces []string            // folders that can be a namespace's
	empty      []string            // those without an entry
	// named holds the artifact folders that any link names, also a foreign one.
	named map[string]bool
}

// look reads the whole tree. An error means that something in it could not be
// read; nothing may be collected then.
func look(d *durable.Dir) (survey, error) {
	s := survey{named: map[string]bool{}}
	files, err := s.lookAtArtifacts(d)
	if err != nil {
		return survey{}, err
	}
	entries, err := d.ReadDir(base)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return survey{}, err
	}
	for _, e := range entries {
		name := path.Join(base, e.Name())
		if name == artifacts {
			continue
		}
		if err := s.lookBeside(d, name, e, files); err != nil {
			return survey{}, err
		}
	}
	slices.SortFunc(s.installed, func(a, b profile.Installed) int {
		return a.Owner.Compare(b.Owner)
	})
	slices.Sort(s.foreign)
	return s, nil
}

// lookAtArtifacts lists the artifact folders and returns the files of each.
func (s *survey) lookAtArtifacts(d *durable.Dir) (map[string][]string, error) {
	files := map[string][]string{}
	folder, err := d.Sub(artifacts)
	if errors.Is(err, fs.ErrNotExist) {
		return files, nil
	}
	if err != nil {
		return nil, err
	}
	defer closeQuietly(folder)
	entries, err := folder.ReadDir(".")
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		name := path.Join(artifacts, e.Name())
		if _, ours := folderDigest(e.Name()); !ours || !e.IsDir() {
			s.foreign = append(s.foreign, name)
			continue
		}
		s.folders = append(s.folders, e.Name())
		inside, err := folder.ReadDir(e.Name())
		if err != nil {
			return nil, err
		}
		for _, f := range inside {
			if f.Type().IsRegular() {
				files[e.Name()] = append(files[e.Name()], f.Name())
			}
		}
	}
	return files, nil
}

// lookBeside reads one entry beside the artifacts: a namespace's folder, or
// something foreign.
func (s *survey) lookBeside(d *durable.Dir, name string, e fs.DirEntry, files map[string][]string) error {
	if !e.IsDir() {
		s.foreign = append(s.foreign, name)
		if e.Type()&fs.ModeSymlink == 0 {
			return nil
		}
		target, err := d.Readlink(name)
		s.note(name, target)
		return err
	}
	folder, err := d.Sub(name)
	if err != nil {
		return err
	}
	defer closeQuietly(folder)
	entries, err := folder.ReadDir(".")
	if err != nil {
		return err
	}
	known := hostcheck.IsLabel(e.Name())
	if known {
		s.namespaces = append(s.namespaces, name)
	} else {
		s.foreign = append(s.foreign, name)
	}
	if known && len(entries) == 0 {
		s.empty = append(s.empty, name)
	}
	for _, link := range entries {
		ours := false
		if link.Type()&fs.ModeSymlink != 0 {
			target, err := folder.Readlink(link.Name())
			if err != nil {
				return err
			}
			s.note(path.Join(name, link.Name()), target)
			ours = s.take(profile.Owner{Namespace: e.Name(), Name: link.Name()}, target, files)
		}
		if known && !ours {
			s.foreign = append(s.foreign, path.Join(name, link.Name()))
		}
	}
	return nil
}

// note marks the artifact folder that a link names, whoever made the link.
func (s *survey) note(name, target string) {
	if rest, inside := strings.CutPrefix(path.Join(path.Dir(name), target), artifacts+"/"); inside {
		folder, _, _ := strings.Cut(rest, "/")
		s.named[folder] = true
	}
}

// take lists an owner's link. It is not ours where the owner's name or the
// target is none that Install writes.
func (s *survey) take(o profile.Owner, target string, files map[string][]string) bool {
	folder := path.Base(target)
	dgst, ok := folderDigest(folder)
	if !ok || target != linkTarget(folder) || hostcheck.Owner(o) != nil {
		return false
	}
	unit := profile.Installed{Owner: o, Digest: dgst}
	for _, f := range files[folder] {
		reference := path.Join(linkName(o), f)
		unit.References = append(unit.References, reference)
		unit.Files = append(unit.Files, profile.InstalledFile{Name: f, References: []string{reference}})
	}
	s.installed = append(s.installed, unit)
	return true
}

// collect removes artifact folders that no link names, empty namespace
// folders, and what killed writes left. It removes nothing at all unless the
// whole tree could be read, and does nothing where nothing can be left.
func (h *Host) collect(d *durable.Dir) error {
	if h.clean {
		return nil
	}
	s, err := look(d)
	if err != nil {
		return err
	}
	for _, folder := range s.folders {
		if s.named[folder] {
			continue
		}
		if err := d.RemoveAll(path.Join(artifacts, folder)); err != nil {
			return err
		}
		if dgst, ok := folderDigest(folder); ok {
			delete(h.seen, dgst)
		}
	}
	for _, name := range append([]string{base, artifacts}, s.namespaces...) {
		if err := sweep(d, name); err != nil {
			return err
		}
	}
	for _, namespace := range s.empty {
		if err := d.Remove(namespace); err != nil {
			return err
		}
	}
	h.clean = true
	return nil
}

// sweep is SweepTemp of a folder that may be missing.
func sweep(d *durable.Dir, name string) error {
	if err := d.SweepTemp(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// refuseShared refuses a unit whose digest another owner has in force with
// other files. One digest names one set of bytes, so one of the two callers is
// wrong, and the one in force keeps what it has.
func refuseShared(d *durable.Dir, u profile.Unit) error {
	s, err := look(d)
	if err != nil {
		return err
	}
	for _, in := range s.installed {
		if in.Digest == u.Digest && in.Owner != u.Owner {
			return reason.New(reason.InstallFailed, u.Owner.String(),
				"%s is installed for %s with other files than these", u.Digest, in.Owner).
				WithAdvice("report this: files that differ under one digest were not verified against it")
		}
	}
	return nil
}
