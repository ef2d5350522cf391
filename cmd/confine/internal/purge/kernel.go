package purge

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"

	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/reason"
)

// loadedKind is a kind whose profiles are in the kernel. Its host removes them.
type loadedKind struct {
	kind string
	// folder is below the agent's root, and there where the kind was ever
	// installed. file is the shape of what is in it.
	folder string
	file   *regexp.Regexp
	open   func(o Options, folder string) (profile.Host, error)
}

// owned is what a kind has in force.
type owned struct {
	loadedKind
	host   profile.Host
	owners []profile.Owner
	at     map[profile.Owner]int // its entry in Plan.Remove
	refs   map[profile.Owner]int // how many names it has
}

const writableByOthers fs.FileMode = 0o022

// kernels plans what hosts have to remove. A kind that was never installed here
// has no folder, and then nothing of it is looked at.
func (p *Plan) kernels(ctx context.Context, o Options) error {
	for _, k := range o.kinds() {
		folder := filepath.Join(o.Root, k.folder)
		info, err := os.Lstat(folder)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if why := notTrusted(info); why != "" {
			p.keep(o.Root, k.folder, why)
			p.kept = append(p.kept, k.folder)
			continue
		}
		if err := p.kernel(ctx, o, k, folder); err != nil {
			return err
		}
	}
	return nil
}

// notTrusted says why nothing is removed that a folder names: who else could
// write to it could have any profile of the host removed.
func notTrusted(info fs.FileInfo) string {
	stat, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case !info.IsDir():
		return "it is no folder, but a link or a file that somebody else made"
	case !ok || int(stat.Uid) != os.Geteuid():
		return "it belongs to another user; what it names is removed by root alone, and only where it is root's"
	case info.Mode()&writableByOthers != 0:
		return "others can write to it, so what it names is not believed"
	}
	return ""
}

func (p *Plan) kernel(ctx context.Context, o Options, k loadedKind, folder string) error {
	host, err := k.open(o, folder)
	if err != nil {
		return err
	}
	installed, err := host.Installed(ctx)
	if errors.Is(err, fs.ErrPermission) {
		return err
	}
	if err != nil {
		p.keep(o.Root, k.folder, "what of it is in the kernel cannot be told: "+describe(err))
		p.kept = append(p.kept, k.folder)
		return nil
	}
	has := &owned{loadedKind: k, host: host, at: map[profile.Owner]int{}, refs: map[profile.Owner]int{}}
	for _, in := range installed {
		has.owners = append(has.owners, in.Owner)
		has.at[in.Owner], has.refs[in.Owner] = len(p.Remove), len(in.References)
		p.Profiles += len(in.References)
		p.Remove = append(p.Remove, Entry{
			Path: k.kind + " " + in.Owner.String(), What: fmt.Sprintf("in the kernel as %s, %s", strings.Join(in.References, ", "), in.Digest),
		})
	}
	p.loaded = append(p.loaded, has)
	return nil
}

// stranger is a host that knows of what its Installed does not speak for.
type stranger interface {
	Foreign(ctx context.Context) ([]string, error)
}

// strangers keeps the folders of kinds of which something may be in the kernel that
// nothing else speaks of: records that are damaged or that a killed process left.
func (p *Plan) strangers(ctx context.Context, root string) {
	for _, has := range p.loaded {
		s, ok := has.host.(stranger)
		if !ok || slices.Contains(p.kept, has.folder) {
			continue
		}
		names, err := s.Foreign(ctx)
		for _, name := range names {
			p.Keep = append(p.Keep, Entry{
				Path: has.kind + " " + name, What: "it is damaged, unfinished or somebody else's; what of it is in the kernel stays until it is removed by hand",
			})
		}
		if err != nil || len(names) > 0 {
			p.keep(root, has.folder, "it says what may still be in the kernel")
			p.kept = append(p.kept, has.folder)
		}
	}
}

// unload lets the hosts remove what they have. What stays in force keeps its
// kind's folder, with which a later purge goes on.
func (p *Plan) unload(ctx context.Context, root string) {
	var gone []int
	for _, has := range p.loaded {
		failed := false
		outcomes := has.host.Remove(ctx, has.owners)
		for i, owner := range has.owners {
			err := error(reason.New(reason.InstallFailed, owner.String(), "the host said nothing of it"))
			if i < len(outcomes) {
				err = outcomes[i].Err
			}
			if err == nil {
				continue
			}
			failed = true
			gone = append(gone, has.at[owner])
			p.Profiles -= has.refs[owner]
			p.Keep = append(p.Keep, Entry{Path: p.Remove[has.at[owner]].Path, What: "it stays in the kernel: " + describe(err)})
		}
		if failed {
			p.keep(root, has.folder, "it says what is still in the kernel")
			p.kept = append(p.kept, has.folder)
		}
	}
	slices.Sort(gone)
	for _, i := range slices.Backward(gone) {
		p.Remove = slices.Delete(p.Remove, i, i+1)
	}
}

func describe(err error) string {
	if e, ok := reason.Of(err); ok {
		return e.Detail + "; " + e.WhatToDo()
	}
	return err.Error()
}

// folder plans a kind's own folder, once nothing of it is in the kernel.
func (p *Plan) folder(t *tree, dir *os.Root, k loadedKind) error {
	root, entries, err := listFolder(dir, k.folder)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	for _, e := range entries {
		name := path.Join(k.folder, e.Name())
		switch {
		case isTemp(e):
			p.take(t, name, "an unfinished write", 0)
		case e.Type().IsRegular() && k.file.MatchString(e.Name()):
			p.take(t, name, "what the agent knew of "+k.kind, 0)
		default:
			p.keep(t.base, name, notOurs)
		}
	}
	p.takeEmpty(t, k.folder)
	return nil
}
