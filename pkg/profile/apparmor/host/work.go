package host

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/confine-dev/confine/pkg/durable"
	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/profile/apparmor"
	"github.com/confine-dev/confine/pkg/profile/internal/hostcheck"
	"github.com/confine-dev/confine/pkg/reason"
)

// work is one call of Install or Remove.
type work struct {
	h       *Host
	root    *durable.Dir
	records map[profile.Owner]*record
	kernel  map[string]Loaded // as it is now
}

// open reads the disk and the kernel. Without create a missing folder is
// fs.ErrNotExist.
func (h *Host) open(create bool) (*work, error) {
	opts := durable.Options{Before: h.opts.Before}
	openFolder := durable.OpenExisting
	if create {
		openFolder = durable.Open
	}
	d, err := openFolder(h.opts.Root, opts)
	if err != nil {
		return nil, err
	}
	w := &work{h: h, root: d}
	err = d.SweepTemp(".")
	if err == nil {
		w.records, _, err = readRecords(d)
	}
	if err == nil {
		w.kernel, err = h.kernel.list()
	}
	if err != nil {
		_ = d.Close()
		return nil, err
	}
	return w, nil
}

// end finishes what a killed process began and nobody asked for again. What
// cannot be finished now is tried by a later call: it is in no owner's force.
func (w *work) end() {
	if w == nil {
		return
	}
	for _, r := range w.records {
		if !r.settled() && (r.Current == nil || r.Next == nil) {
			_ = w.settle(r)
		}
	}
	_ = w.root.Close()
}

// settle takes away the names that a record has and does not have in force.
func (w *work) settle(r *record) error {
	done := &record{Owner: r.Owner, Current: r.Current}
	drop := w.unshared(r, done.Current.names())
	if err := w.unused(r.Owner, drop); err != nil {
		return err
	}
	if err := w.unload(drop); err != nil {
		return err
	}
	return w.write(done)
}

// install makes u the unit in force for its owner.
func (w *work) install(ctx context.Context, u profile.Unit) (bool, error) {
	for o, r := range w.records {
		for _, in := range []*installed{r.Current, r.Next} {
			if o != u.Owner && in != nil && in.Digest == u.Digest && !in.is(u) {
				return false, reason.New(reason.InstallFailed, u.Owner.String(), "%s is installed for %s with other files", u.Digest, o)
			}
		}
	}
	r := w.records[u.Owner]
	if r != nil && r.settled() && r.Current.is(u) && w.inKernel(r.Current) {
		return false, nil
	}
	next, policy, err := w.h.compile(ctx, u)
	if err != nil {
		return false, err
	}
	if err := w.claim(u.Owner, next); err != nil {
		return false, err
	}
	if err := w.unused(u.Owner, w.unshared(r, next.names())); err != nil {
		return false, err
	}
	return w.bring(u.Owner, next, policy)
}

// bring loads a unit and then drops what the owner had beside it.
func (w *work) bring(o profile.Owner, next *installed, policy []byte) (bool, error) {
	before := w.records[o]
	if before != nil && before.settled() && before.Current.same(next) {
		return true, w.load(o, next, policy) // only the kernel had drifted
	}
	intent := &record{Owner: o, Next: next}
	if before != nil {
		intent.Current, intent.Drop = before.Current, before.Drop
		if before.Next != nil { // of a killed process: its names stay known
			intent.Drop = slices.Concat(before.Drop, before.Next.names())
		}
	}
	if err := w.write(intent); err != nil {
		return false, err
	}
	if err := w.load(o, next, policy); err != nil {
		if _, there := errors.AsType[*loadedError](err); there {
			return false, err // the record says what was loaded, and end or the next call takes it away
		}
		if before == nil {
			before = &record{Owner: o}
		}
		_ = w.write(before) // the next call would find out, too
		return false, err
	}
	drop := w.unshared(intent, next.names())
	if err := w.write(&record{Owner: o, Current: next, Drop: drop}); err != nil {
		return true, err
	}
	if len(drop) == 0 {
		return true, nil
	}
	if err := w.unload(drop); err != nil {
		return true, err
	}
	return true, w.write(&record{Owner: o, Current: next})
}

// remove takes away what the owner has.
func (w *work) remove(o profile.Owner) (bool, error) {
	r := w.records[o]
	if r == nil {
		return false, nil
	}
	drop := w.unshared(r, nil)
	if err := w.unused(o, drop); err != nil {
		return false, err
	}
	if err := w.write(&record{Owner: o, Drop: r.names()}); err != nil {
		return false, err
	}
	if err := w.unload(drop); err != nil {
		return true, err
	}
	return true, w.write(&record{Owner: o})
}

// write makes a record durable; one without content is taken away.
func (w *work) write(r *record) error {
	var err error
	if r.Current == nil && r.settled() {
		if w.records[r.Owner] != nil {
			err = w.root.Remove(fileOf(r.Owner))
		}
		if err == nil {
			delete(w.records, r.Owner)
		}
		return err
	}
	if err = writeRecord(w.root, r); err == nil {
		w.records[r.Owner] = r
	}
	return err
}

// loadedError is an error after the kernel took a unit.
type loadedError struct{ error }

func (e *loadedError) Unwrap() error { return e.error }

// load hands a unit to the kernel and makes sure that it is there. Once the
// kernel took it, errors are a *loadedError.
func (w *work) load(o profile.Owner, next *installed, policy []byte) error {
	if err := w.step(OpLoad, o.String()); err != nil {
		return err
	}
	if err := w.h.kernel.replace(policy); err != nil {
		return reason.New(reason.InstallFailed, o.String(), "the kernel refuses the compiled profiles: %w", err).
			WithAdvice("see the kernel's log; it loads profiles from root alone, with CAP_MAC_ADMIN in the first user namespace")
	}
	kernel, err := w.h.kernel.list()
	if err != nil {
		for _, name := range next.names() { // so that they can be taken away
			w.kernel[name] = Loaded{Name: name, sum: unknownSum}
		}
		return &loadedError{durable.Explain(o.String(), err)}
	}
	w.kernel = kernel
	if !w.inKernel(next) {
		return &loadedError{reason.New(reason.InstallFailed, o.String(), "the kernel does not have what was just loaded").
			WithAdvice("look for another program that loads the same names: %s", strings.Join(next.names(), ", "))}
	}
	return nil
}

// unload takes names away, children before their parents.
func (w *work) unload(names []string) error {
	names = slices.Clone(names)
	slices.Sort(names)
	slices.Reverse(names)
	for _, name := range names {
		if _, there := w.kernel[name]; !there {
			continue
		}
		if err := w.step(OpUnload, name); err != nil {
			return err
		}
		if err := w.h.kernel.remove(name); err != nil {
			return fmt.Errorf("removing the profile %s: %w", name, err)
		}
		delete(w.kernel, name)
	}
	return nil
}

func (w *work) step(op durable.Op, name string) error {
	if w.h.opts.Before == nil {
		return nil
	}
	return w.h.opts.Before(durable.Step{Op: op, Name: name})
}

// inKernel reports whether the kernel has all profiles of a unit as compiled.
func (w *work) inKernel(in *installed) bool {
	for _, t := range in.Files {
		for _, p := range t.Profiles {
			if l, there := w.kernel[p.Name]; !there || !l.holds(p) {
				return false
			}
		}
	}
	return true
}

// unshared are the names of a record that neither keep nor another owner has.
func (w *work) unshared(r *record, keep []string) []string {
	return slices.DeleteFunc(r.names(), func(name string) bool {
		if slices.Contains(keep, name) {
			return true
		}
		for o, other := range w.records {
			if o != r.Owner && slices.Contains(other.names(), name) {
				return true
			}
		}
		return false
	})
}

// claim refuses names that belong to another owner, with another text, or to
// the host.
func (w *work) claim(o profile.Owner, next *installed) error {
	own := w.records[o].names()
	for _, t := range next.Files {
		for _, p := range t.Profiles {
			holder, err := w.holder(o, p.Name, t)
			if err != nil {
				return err
			}
			l, there := w.kernel[p.Name]
			// The same bytes without an owner are those of a lost record.
			if there && !holder && !slices.Contains(own, p.Name) && !l.is(p) {
				return reason.New(reason.NameConflict, o.String(), "the profile %s is loaded on this host already, and not by Confine", p.Name).
					WithAdvice("rename the profile, or unload the host's: apparmor_parser -R FILE")
			}
		}
	}
	return nil
}

// holder reports whether another owner has the name, with the same text.
func (w *work) holder(o profile.Owner, name string, t text) (bool, error) {
	found := false
	for _, other := range slices.SortedFunc(maps.Keys(w.records), profile.Owner.Compare) {
		r := w.records[other]
		if other == o || !slices.Contains(r.names(), name) {
			continue
		}
		for _, in := range []*installed{r.Current, r.Next} {
			if have, ok := in.text(name); ok && string(have.Data) != string(t.Data) {
				return false, reason.New(reason.NameConflict, o.String(), "the profile %s belongs to %s, with another text", name, other).
					WithAdvice("rename the profile, or take it out of %s", other)
			}
		}
		found = true
	}
	return found, nil
}

// compile compiles all files of a unit and compares the names that come out
// with those that were approved.
func (h *Host) compile(ctx context.Context, u profile.Unit) (*installed, []byte, error) {
	next := &installed{Digest: u.Digest}
	var policy []byte
	seen := map[string]string{}
	for _, f := range hostcheck.Sorted(u.Files) {
		label := u.Owner.String() + "/" + f.Name
		parsed, err := apparmor.NewKind().Parse(label, f.Data)
		if err != nil {
			return nil, nil, err
		}
		binary, err := h.compiler.compile(ctx, profile.File{Name: label, Data: f.Data})
		if err != nil {
			return nil, nil, err
		}
		profiles, err := readCompiled(binary)
		if err != nil {
			return nil, nil, reason.New(reason.InstallFailed, label, "%w", err)
		}
		if got, want := sortedNames(profiles), apparmor.Names(parsed); !slices.Equal(got, want) {
			return nil, nil, reason.New(reason.ProfileInvalid, label, "compiled it has the profiles %q, and %q were approved", got, want).
				WithAdvice("do not include what brings profiles of its own, and give no name twice")
		}
		t := text{Name: f.Name, Data: f.Data}
		for _, c := range profiles {
			if err := loadable(label, c.name); err != nil {
				return nil, nil, err
			}
			if other, twice := seen[c.name]; twice {
				return nil, nil, reason.New(reason.ProfileInvalid, label, "the profile %s is in %s, too", c.name, other)
			}
			seen[c.name] = f.Name
			t.Profiles = append(t.Profiles, loaded{Name: c.name, Sum: c.sum})
		}
		slices.SortFunc(t.Profiles, func(a, b loaded) int { return strings.Compare(a.Name, b.Name) })
		if len(policy)+len(binary) > maxCompiled {
			return nil, nil, reason.New(reason.ProfileInvalid, u.Owner.String(), "compiled it is larger than %d bytes", maxCompiled).
				WithAdvice("split it: the profiles of one artifact are loaded in one piece")
		}
		next.Files, policy = append(next.Files, t), append(policy, binary...)
	}
	return next, policy, nil
}

// maxName bounds each part of a name. The kernel makes a folder of it and a number, of
// at most 255 bytes in all, and one that cannot be made leaves Linux 6.1 unable
// to load any profile until the next boot (EEXIST; Linux, security/apparmor/policy.c,
// aa_replace_profiles).
const maxName = apparmor.MaxNameBytes

func loadable(label, name string) error {
	for part := range strings.SplitSeq(name, "//") {
		if len(part) > maxName {
			return reason.New(reason.ProfileInvalid, label, "the name %.40q... of %d bytes is longer than the %d that every kernel loads", part, len(part), maxName).
				WithAdvice("give it a shorter name")
		}
	}
	return nil
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
