package host

import (
	"errors"
	"io/fs"
	"path"

	"github.com/opencontainers/go-digest"

	"github.com/confine-dev/confine/pkg/durable"
	"github.com/confine-dev/confine/pkg/profile"
)

// installer is one call of Install. It repairs drift at once and stages what is
// new, so that many units wait for the disk together.
type installer struct {
	h        *Host
	root     *durable.Dir
	outcomes []profile.Outcome

	// folders are those that were looked at in this call, opened once.
	folders map[string]*durable.Dir

	batch   *durable.Batch
	waiting []waiting
	// artifacts and owners are staged and not committed.
	artifacts map[digest.Digest]staged
	owners    map[profile.Owner]bool
}

// waiting is a unit whose entries are staged; nil ones need no change.
type waiting struct {
	unit           int
	owner          profile.Owner
	digest         digest.Digest
	sum            fingerprint
	artifact, link *durable.Staged
}

type staged struct {
	entry *durable.Staged
	sum   fingerprint
}

func (h *Host) open(outcomes []profile.Outcome) (*installer, error) {
	d, err := durable.Open(h.opts.Root, durable.Options{Before: h.opts.Before, Perm: dirMode})
	if err != nil {
		return nil, err
	}
	in := &installer{h: h, root: d, outcomes: outcomes, folders: map[string]*durable.Dir{}}
	in.begin()
	return in, nil
}

// begin starts a new batch.
func (in *installer) begin() {
	in.batch, in.waiting = in.root.Batch(), nil
	in.artifacts, in.owners = map[digest.Digest]staged{}, map[profile.Owner]bool{}
}

func (in *installer) close() {
	for _, d := range in.folders {
		closeQuietly(d)
	}
	closeQuietly(in.root)
}

// commit brings to the disk what is staged and writes down what came of it.
func (in *installer) commit() {
	err := in.batch.Commit()
	for _, w := range in.waiting {
		failed := err
		if w.artifact != nil || w.link != nil {
			failed = nil
		}
		for _, s := range []*durable.Staged{w.artifact, w.link} {
			if s != nil && failed == nil {
				failed = s.Err()
			}
		}
		if failed != nil {
			in.outcomes[w.unit].Err = durable.Explain(w.owner.String(), failed)
			in.h.clean = false
		}
		if w.artifact == nil || w.artifact.Err() == nil {
			in.h.seen[w.digest] = w.sum
		}
	}
	in.begin()
}

// add compares one unit with the disk and stages what has to change.
func (in *installer) add(i int, u profile.Unit) error {
	w := waiting{unit: i, owner: u.Owner, digest: u.Digest, sum: fingerprintOf(u.Files)}
	before, ok := in.artifacts[u.Digest]
	if ok && before.sum != w.sum || in.owners[u.Owner] {
		in.commit() // this unit must see what the earlier one did
	}
	if before, ok := in.h.seen[u.Digest]; ok && before != w.sum {
		in.commit()
		if err := refuseShared(in.root, u); err != nil {
			return err
		}
	}
	changed, err := in.artifact(&w, u)
	in.outcomes[i].Changed = changed
	if err != nil {
		return err
	}
	changed, err = in.link(&w, u)
	in.outcomes[i].Changed = in.outcomes[i].Changed || changed
	if err != nil {
		return err
	}
	in.owners[u.Owner] = true
	in.waiting = append(in.waiting, w)
	return nil
}

// folder makes a folder of the tree as it must be, once in a call, and opens it.
func (in *installer) folder(name string) (d *durable.Dir, changed bool, err error) {
	if d := in.folders[name]; d != nil {
		return d, false, nil
	}
	changed, err = ensureFolder(in.root, in.batch, name)
	if err == nil {
		d, err = in.root.Sub(name)
	}
	if err == nil {
		in.folders[name] = d
	}
	return d, changed, err
}

// artifact makes the unit's artifact folder hold exactly its files. It compares
// every byte, because no marker could be trusted more than the bytes.
func (in *installer) artifact(w *waiting, u profile.Unit) (bool, error) {
	if before, ok := in.artifacts[u.Digest]; ok {
		w.artifact = before.entry
		return true, nil
	}
	_, changed, err := in.folder(base)
	if err != nil {
		return changed, err
	}
	parent, made, err := in.folder(artifacts)
	changed = changed || made
	if err != nil {
		return changed, err
	}
	name := folderName(u.Digest)
	info, err := parent.Lstat(name)
	if err == nil && info.IsDir() && ownedByUs(info) {
		mended, err := mendFolder(parent, name, info, u.Files)
		return changed || mended, err
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return changed, err
	}
	if err == nil { // a link, a file, or a folder that somebody else can change
		if err := parent.RemoveAll(name); err != nil {
			return true, err
		}
	}
	files := make([]durable.File, 0, len(u.Files))
	for _, f := range u.Files {
		files = append(files, durable.File{Name: f.Name, Data: f.Data})
	}
	w.artifact = in.batch.WriteFolder(path.Join(artifacts, name), files, dirMode, fileMode)
	in.artifacts[u.Digest] = staged{w.artifact, w.sum}
	return true, nil
}

// link makes the owner's link name the unit's artifact folder, once that is
// complete.
func (in *installer) link(w *waiting, u profile.Unit) (bool, error) {
	parent, changed, err := in.folder(path.Join(base, u.Owner.Namespace))
	if err != nil {
		return changed, err
	}
	target := linkTarget(folderName(u.Digest))
	info, err := parent.Lstat(u.Owner.Name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		in.flip(w, target)
		return true, nil
	case err != nil:
		return changed, err
	case info.Mode()&fs.ModeSymlink != 0:
		if got, err := parent.Readlink(u.Owner.Name); err == nil && got == target {
			return changed, nil
		}
	case info.IsDir(): // somebody put a folder where the link was
		if w.artifact != nil { // it stays until what replaces it is there
			in.commit()
			if err := w.artifact.Err(); err != nil {
				return true, err
			}
			w.artifact = nil
		}
		if err := parent.RemoveAll(u.Owner.Name); err != nil {
			return true, err
		}
	}
	in.h.clean = false // the folder it named before may be unused now
	in.flip(w, target)
	return true, nil
}

func (in *installer) flip(w *waiting, target string) {
	w.link = in.batch.Symlink(target, linkName(w.owner))
	if w.artifact != nil {
		w.link.After(w.artifact)
	}
}
