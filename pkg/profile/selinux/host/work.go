package host

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"slices"
	"time"

	"github.com/confine-dev/confine/pkg/durable"
	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/profile/selinux"
	"github.com/confine-dev/confine/pkg/profile/selinux/host/semodule"
	"github.com/confine-dev/confine/pkg/reason"
)

const (
	// mark stands in Options.Root while the store may be ahead of the kernel.
	mark             = "transaction"
	markMode         = fs.FileMode(0o600)
	maxRefusals      = 24 // transactions that one call may lose to broken modules
	untriedSingle    = "not tried: %d transactions of this call were refused before"
	untriedLate      = "not tried: the call had taken all of its time, %s"
	reloadedAndStill = "the kernel does not have the type %s, which the policy store has"
)

// want is what one owner is to have: a unit, or nothing.
type want struct {
	owner   profile.Owner
	record  *record // nil to remove
	outcome *profile.Outcome
}

func (it *want) fail(err error) { it.outcome.Err = explain(it.owner.String(), err) }

// key names what was refused before.
func (it *want) key() string {
	if it.record == nil {
		return it.owner.String()
	}
	return it.owner.String() + " " + it.record.Digest.String()
}

// work is one call of Install or Remove.
type work struct {
	h        *Host
	root     *durable.Dir // nil until it is there
	mark     fs.FileInfo  // of a transaction that was begun and not finished, or nil
	s        *survey
	modules  map[string][]byte // what s renders to
	reloaded bool              // the kernel has what the store has
	until    time.Time         // no transaction is begun after it
	refusals int
}

// bring makes all wants true that can be.
func (h *Host) bring(ctx context.Context, wants []*want) {
	if len(wants) == 0 {
		return
	}
	until := time.Now().Add(h.opts.CallTime)
	ctx, cancel := context.WithDeadline(ctx, until.Add(h.opts.Time))
	defer cancel()
	w, err := h.open(ctx)
	if err != nil {
		for _, it := range wants {
			it.fail(err)
		}
		return
	}
	defer w.close()
	w.until = until
	for _, batch := range batches(h.rehearse(ctx, w.s, wants)) {
		first, later := order(&h.refused, batch, (*want).key)
		w.bring(ctx, first)
		for _, it := range later {
			w.bring(ctx, []*want{it})
		}
	}
}

// batches splits wants so that each owner is in a batch once.
func batches(wants []*want) [][]*want {
	var all [][]*want
	seen := map[profile.Owner]bool{}
	for _, it := range wants {
		if len(all) == 0 || seen[it.owner] {
			all, seen = append(all, nil), map[profile.Owner]bool{}
		}
		seen[it.owner] = true
		all[len(all)-1] = append(all[len(all)-1], it)
	}
	return all
}

// open reads the store, and mends what a killed process left.
func (h *Host) open(ctx context.Context) (*work, error) {
	w, err := h.look(ctx)
	if err != nil {
		return nil, err
	}
	if w.root != nil {
		err = w.root.SweepTemp(".")
	}
	if err == nil && w.mark != nil {
		if err = w.reload(ctx); err == nil {
			err = w.root.Remove(mark)
		}
	}
	if err != nil {
		w.close()
		return nil, err
	}
	w.modules = render(w.s.units)
	return w, nil
}

// look reads the store, and whether a transaction was begun and not finished.
func (h *Host) look(ctx context.Context) (*work, error) {
	w := &work{h: h}
	root, err := durable.OpenExisting(h.opts.Root, durable.Options{Before: h.opts.Before})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if err == nil {
		w.root = root
		if w.mark, err = root.Lstat(mark); err != nil && !errors.Is(err, fs.ErrNotExist) {
			w.close()
			return nil, err
		}
	}
	if w.s, err = h.survey(ctx); err != nil {
		w.close()
		return nil, err
	}
	return w, nil
}

func (w *work) close() {
	if w.root != nil {
		_ = w.root.Close()
	}
}

func (w *work) step(op durable.Op) error {
	if w.h.opts.Before == nil {
		return nil
	}
	return w.h.opts.Before(durable.Step{Op: op, Name: selinux.Name})
}

func (w *work) reload(ctx context.Context) error {
	if err := w.step(OpReload); err != nil {
		return err
	}
	err := w.h.store.Reload(ctx)
	w.reloaded = err == nil
	return err
}

// bring makes a group true in one transaction, and in more where the policy
// does not take all of it. An owner is in a group once.
func (w *work) bring(ctx context.Context, group []*want) {
	planned := maps.Clone(w.s.units)
	var pending []*want
	for _, it := range group {
		needed, err := w.judge(ctx, planned, it)
		if err != nil {
			it.fail(err)
		}
		if err != nil || !needed {
			continue
		}
		pending = append(pending, it)
		if delete(planned, it.owner); it.record != nil {
			planned[it.owner] = it.record
		}
	}
	if len(pending) == 0 {
		return
	}
	if w.untried(pending) {
		return
	}
	err := w.commit(ctx, planned, pending)
	switch {
	case err == nil:
		w.confirm(pending)
	case !isRefusal(err):
		for _, it := range pending {
			it.fail(err)
		}
	case len(pending) == 1:
		w.refusals++
		w.h.refused.note(pending[0].key())
		pending[0].outcome.Err = explainRefusal(pending[0], err)
	default:
		w.refusals++
		first, last, named := split(pending, err)
		if w.late() {
			named = pending // so that the next call does not split the same group again
		}
		for _, it := range named {
			w.h.refused.note(it.key()) // where this call ends early, the next tries it late
		}
		w.bring(ctx, first)
		w.bring(ctx, last)
	}
}

func (w *work) late() bool { return !time.Now().Before(w.until) }

// untried says of a group that this call does not come to it, where that is so.
func (w *work) untried(pending []*want) bool {
	late := w.late()
	if !late && w.refusals < maxRefusals {
		return false
	}
	for _, it := range pending {
		e := reason.New(reason.InstallFailed, it.owner.String(), untriedSingle, w.refusals)
		if late {
			e = reason.New(reason.InstallFailed, it.owner.String(), untriedLate, w.h.opts.CallTime)
		}
		it.outcome.Err = e.WithAdvice("mend the modules that the policy refuses, or the compiler is slow with; it is tried again by itself")
	}
	return true
}

// split tells the units that the compiler names from the others, which are tried
// first; where that tells nothing, it halves.
func split(group []*want, err error) (first, last, named []*want) {
	for _, it := range group {
		if logNames(err, moduleName(it.owner)) {
			named = append(named, it)
		} else {
			first = append(first, it)
		}
	}
	if len(first) == 0 || len(named) == 0 {
		return group[:len(group)/2], group[len(group)/2:], nil
	}
	return first, named, named
}

// confirm says of a committed group that it is in force, once the kernel has
// its types.
func (w *work) confirm(group []*want) {
	for _, it := range group {
		it.outcome.Changed = true
		w.h.refused.forget(it.key())
		missing, err := w.missing(it.record)
		if err == nil && missing != "" {
			err = reason.New(reason.InstallFailed, it.owner.String(), reloadedAndStill, missing).
				WithAdvice("look for another program that loads policy, and at load_policy in the host's log")
		}
		if err != nil {
			it.fail(err)
		}
	}
}

// missing is the first type of a unit that the kernel lacks, or empty.
func (w *work) missing(r *record) (string, error) {
	for _, block := range r.blocks() {
		known, err := w.h.kernel.known(selinux.ProcessType(block))
		if err != nil {
			return "", err
		}
		if !known {
			return selinux.ProcessType(block), nil
		}
	}
	return "", nil
}

// commit makes planned the state of the store, in one transaction.
func (w *work) commit(ctx context.Context, planned map[profile.Owner]*record, pending []*want) error {
	modules := render(planned)
	change := w.difference(modules, pending)
	if err := w.setMark(); err != nil {
		return err
	}
	err := w.step(OpCommit)
	if err == nil {
		err = w.h.store.Commit(ctx, change)
	}
	if err != nil {
		w.undoMark(ctx, err)
		return err
	}
	for _, m := range change.Install {
		l := semodule.Listed{Name: m.Name, Checksum: checksumOf(m.CIL)}
		w.s.listed[m.Name], w.h.read[l] = l, m.CIL
	}
	for _, it := range pending {
		delete(w.s.foreign, moduleName(it.owner))
		if it.record == nil {
			delete(w.s.listed, moduleName(it.owner))
		}
	}
	w.s.units, w.modules, w.reloaded = planned, modules, true
	return w.root.Remove(mark)
}

// difference is what turns the store into the modules. What others did to
// modules of owners that nobody asked for is left for when somebody does.
func (w *work) difference(modules map[string][]byte, pending []*want) semodule.Change {
	asked := map[string]bool{}
	var c semodule.Change
	for _, it := range pending {
		name := moduleName(it.owner)
		asked[name] = true
		if it.record == nil {
			c.Remove = append(c.Remove, name)
		}
	}
	for _, name := range sortedKeys(modules) {
		l, there := w.s.listed[name]
		if asked[name] || !there || l.Checksum != checksumOf(modules[name]) {
			c.Install = append(c.Install, semodule.Module{Name: name, CIL: modules[name]})
			if l.Disabled {
				c.Enable = append(c.Enable, name)
			}
		}
	}
	slices.Sort(c.Remove)
	return c
}

func (w *work) setMark() error {
	if w.root == nil {
		root, err := durable.Open(w.h.opts.Root, durable.Options{Before: w.h.opts.Before})
		if err != nil {
			return err
		}
		w.root = root
	}
	w.h.reloaded = nil // even if the new file should look like the old one
	return w.root.WriteFile(mark, nil, markMode)
}

// undoMark takes the mark away where semodule says that it did nothing, and the
// store shows that. Otherwise the next call reloads.
func (w *work) undoMark(ctx context.Context, err error) {
	if _, said := errors.AsType[*semodule.Error](err); !said {
		return
	}
	listed, err := w.h.store.List(ctx)
	if err != nil || len(listed) != len(w.s.listed) {
		return
	}
	for _, l := range listed {
		if w.s.listed[l.Name] != l {
			return
		}
	}
	_ = w.root.Remove(mark) // staying it only costs a reload
}
