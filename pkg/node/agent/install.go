package agent

import (
	"context"
	"errors"
	"slices"

	"github.com/confine-dev/confine/pkg/artifact"
	"github.com/confine-dev/confine/pkg/durable"
	"github.com/confine-dev/confine/pkg/node/journal"
	"github.com/confine-dev/confine/pkg/node/plan"
	"github.com/confine-dev/confine/pkg/node/unit"
	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/reason"
)

// Bounds on one batch handed to a host: payloads are read from the store only
// for as long as it takes.
const (
	batchUnits = 64
	batchBytes = 8 << 20
)

// work is one unit to bring into force, or to repair.
type work struct {
	key      journal.Key
	revision unit.Revision
	// repair is set where the revision is in force already.
	repair bool
}

// install brings into force what the plan says and repairs what drifted.
func (a *Agent) install(ctx context.Context, p *pass) {
	todo := a.workOf(ctx, p, a.plan(p))
	todo = a.announce(p, todo)
	for _, h := range a.opts.Hosts {
		view := p.hosts[h.Kind()]
		if view.supported != nil {
			continue
		}
		a.installKind(ctx, p, view, todo)
	}
}

// workOf selects what a plan has for the hosts.
func (a *Agent) workOf(ctx context.Context, p *pass, made plan.Plan) []work {
	var todo []work
	for _, action := range made.Actions {
		slot, _ := a.journal.Get(action.Key)
		switch {
		case !a.adopted[action.Key.Kind]:
			// It is not known what would be replaced, and so what would be lost.
		case action.Verb == plan.Install:
			failed := a.failures[action.Key]
			if failed != nil && failed.revision == action.Revision.Source.String() && p.now.Before(failed.next) {
				continue
			}
			todo = append(todo, work{key: action.Key, revision: a.keepable(ctx, action.Key, action.Revision)})
		case action.Verb == plan.RemoveNow, slot.Current == nil, slot.Next != nil, !slot.Current.Source.Known():
		case a.drifted(p, slot):
			todo = append(todo, a.repairOf(ctx, p, slot))
		default:
			a.forgive(slot)
		}
	}
	return todo
}

// forgive forgets that another revision than the one in force could not be
// installed: nobody wants that one any more.
func (a *Agent) forgive(slot journal.Slot) {
	if failed := a.failures[slot.Key]; failed != nil && failed.revision != slot.Current.Source.String() {
		delete(a.failures, slot.Key)
	}
}

// drifted reports whether a slot is worth a look: the host says something else
// than the journal, or every byte is compared now.
func (a *Agent) drifted(p *pass, slot journal.Slot) bool {
	view := p.hosts[slot.Kind]
	if view == nil || !view.known {
		return false
	}
	if failed := a.failures[slot.Key]; failed != nil && p.now.Before(failed.next) {
		return false
	}
	return p.repair || view.installed[slot.Owner].Digest != slot.Current.Digest()
}

// repairOf is the work on a slot that may have drifted. A unit that the host
// has lost comes back without the dropped files that can no longer be verified.
func (a *Agent) repairOf(ctx context.Context, p *pass, slot journal.Slot) work {
	w := work{key: slot.Key, revision: *slot.Current, repair: true}
	if p.hosts[slot.Kind].installed[slot.Owner].Digest == slot.Current.Digest() {
		return w
	}
	if left := a.keepable(ctx, slot.Key, *slot.Current); !left.Equal(*slot.Current) {
		return work{key: slot.Key, revision: left}
	}
	return w
}

// keepable is r without the dropped files that this node can no longer verify:
// they are revoked, or their bytes are lost. They must not hold up what
// replaces them. What only cannot be read now is no reason to drop it.
func (a *Agent) keepable(ctx context.Context, key journal.Key, r unit.Revision) unit.Revision {
	r.Retained = slices.DeleteFunc(slices.Clone(r.Retained), func(kept unit.Retained) bool {
		verdict := a.judgeKept(ctx, key.Owner, kept.From)
		if verdict.err != nil && (verdict.err.Reason.Fate() == reason.Retry || errors.Is(verdict.err, artifact.ErrSlow)) {
			return false
		}
		lost := verdict.content == nil || !verdict.content.has(key.Kind, kept.File)
		if lost {
			a.log.Warn("a dropped file cannot be kept for the removal delay", "slot", key, "file", kept.Name, "from", kept.From)
		}
		return lost
	})
	return r
}

// announce writes into the journal what is about to be installed, before any
// host is changed. Where that cannot be written, nothing new is installed.
func (a *Agent) announce(p *pass, todo []work) []work {
	var ready, fresh []work
	places := a.places()
	for _, w := range todo {
		if w.repair {
			ready = append(ready, w)
			continue
		}
		if err := places.take(w.key); err != nil {
			a.fail(w, err)
			continue
		}
		if len(w.revision.Retained) > 0 {
			if err := a.store.PutUnit(w.revision); err != nil {
				a.fail(w, err)
				continue
			}
		}
		slot, _ := a.journal.Get(w.key)
		next := w.revision
		slot.Key, slot.Next = w.key, &next
		slot.Claims = claimsOf(p.claims.Held[w.key.Owner])
		a.journal.Put(slot)
		fresh = append(fresh, w)
	}
	if len(fresh) == 0 {
		return ready
	}
	if err := a.file.Save(a.journal); err != nil {
		for _, w := range fresh {
			a.fail(w, durable.Explain(a.opts.Root, err))
		}
		return ready
	}
	return append(ready, fresh...)
}

// installKind hands one host its work in batches.
func (a *Agent) installKind(ctx context.Context, p *pass, view *hostView, todo []work) {
	var batch []work
	var units []profile.Unit
	size := 0
	flush := func() {
		if len(units) == 0 {
			return
		}
		var outcomes []profile.Outcome
		a.during(func() { outcomes = view.host.Install(ctx, units) })
		for i, w := range batch {
			a.settle(p, w, outcomeAt(outcomes, i))
		}
		batch, units, size = nil, nil, 0
	}
	for _, w := range todo {
		if w.key.Kind != view.host.Kind() {
			continue
		}
		assembled, err := a.assemble(ctx, p, w)
		if err != nil {
			a.fail(w, err)
			continue
		}
		if assembled == nil {
			continue
		}
		batch, units = append(batch, w), append(units, *assembled)
		for _, f := range assembled.Files {
			size += len(f.Data)
		}
		if len(units) >= batchUnits || size >= batchBytes {
			flush()
		}
	}
	flush()
}

func outcomeAt(outcomes []profile.Outcome, i int) profile.Outcome {
	if i < len(outcomes) {
		return outcomes[i]
	}
	return profile.Outcome{Err: reason.New(reason.InstallFailed, "", "the host said nothing of this unit")}
}

// assemble reads a unit's files from the store, each only as part of an
// artifact that is verified for the owner now. A nil unit without an error
// means to leave the host as it is.
func (a *Agent) assemble(ctx context.Context, p *pass, w work) (*profile.Unit, error) {
	files := make([]profile.File, 0, len(w.revision.Files)+len(w.revision.Retained))
	add := func(from unit.Source, f unit.File) error {
		verdict := a.judgeKept(ctx, w.key.Owner, from)
		switch {
		case verdict.err != nil:
			return verdict.err
		case verdict.content == nil:
			return reason.New(reason.ArtifactNotFound, from.String(), "this node does not keep it")
		case !verdict.content.has(w.key.Kind, f):
			return reason.New(reason.DigestMismatch, from.String(), "%s is not the file of that name that was verified", f.Name)
		}
		data, err := a.store.File(ctx, f)
		if err != nil {
			a.distrust(p, w.key.Owner, from)
			return err
		}
		files = append(files, profile.File{Name: f.Name, Data: data})
		return nil
	}
	for _, f := range w.revision.Files {
		if err := add(w.revision.Source, f); err != nil {
			if w.repair {
				return nil, nil // what is in force and cannot be verified now stays as it is; the report says why
			}
			return nil, err
		}
	}
	for _, kept := range w.revision.Retained {
		if err := add(kept.From, kept.File); err != nil {
			if w.repair {
				return nil, nil // as above
			}
			return nil, err
		}
	}
	return &profile.Unit{Owner: w.key.Owner, Digest: w.revision.Digest(), Files: files}, nil
}

// distrust forgets a verdict whose bytes are gone from the store, so that they
// are fetched again.
func (a *Agent) distrust(p *pass, owner profile.Owner, source unit.Source) {
	key, err := a.keyOf(owner, source)
	if err == nil && a.memo[key] != nil {
		delete(a.memo, key)
		p.again = true
	}
}

// settle writes down what a host did with one unit.
func (a *Agent) settle(p *pass, w work, outcome profile.Outcome) {
	p.changed = p.changed || outcome.Changed
	if outcome.Err != nil {
		a.fail(w, outcome.Err)
		return
	}
	delete(a.failures, w.key)
	if w.repair {
		if outcome.Changed {
			a.log.Info("repaired", "slot", w.key, "digest", w.revision.Source.Digest)
		}
		return
	}
	p.changed = true
	slot, _ := a.journal.Get(w.key)
	if slot.Current == nil || slot.Current.Source != w.revision.Source {
		slot.Since = seconds(p.now)
	}
	a.journal.Put(slot.Commit())
	a.log.Info("installed", "slot", w.key, "artifact", w.revision.Source)
}

// fail writes down that a unit could not be brought into force; what was in
// force before stays.
func (a *Agent) fail(w work, err error) {
	next := a.failed(a.failures[w.key], err)
	next.revision = w.revision.Source.String()
	a.failures[w.key] = next
	a.log.Warn("not installed", "slot", w.key, "artifact", w.revision.Source, "error", err, "next", next.next)
	slot, ok := a.journal.Get(w.key)
	if !ok || w.repair {
		return
	}
	slot.Next = nil
	if slot.Current == nil {
		a.journal.Delete(w.key)
		return
	}
	a.journal.Put(slot)
}
