package agent

import (
	"context"
	"time"

	"github.com/confine-dev/confine/pkg/node/journal"
	"github.com/confine-dev/confine/pkg/node/plan"
	"github.com/confine-dev/confine/pkg/profile"
)

// remove plans again, now that what is new is in force, and takes away what
// nobody has wanted for the whole delay.
func (a *Agent) remove(ctx context.Context, p *pass) {
	due := map[string][]profile.Owner{}
	for _, action := range a.plan(p).Actions {
		slot, ok := a.journal.Get(action.Key)
		switch {
		case !ok:
		case action.Verb == plan.RemoveNow:
			due[action.Key.Kind] = append(due[action.Key.Kind], action.Key.Owner)
		case action.Verb == plan.RemoveLater:
			if slot.RemoveAt.IsZero() && !action.Due.IsZero() {
				a.log.Info("nobody wants it any more; it is removed later", "slot", action.Key, "at", action.Due)
				p.again = p.again || !p.now.Before(action.Due)
			}
			slot.RemoveAt = action.Due
			a.journal.Put(slot)
		default:
			slot.RemoveAt = time.Time{}
			if held := p.claims.Held[action.Key.Owner]; len(held) > 0 {
				slot.Claims = claimsOf(held)
			}
			a.journal.Put(slot)
		}
	}
	for kind, owners := range due {
		a.removeKind(ctx, p, kind, owners)
	}
}

func (a *Agent) removeKind(ctx context.Context, p *pass, kind string, owners []profile.Owner) {
	view := p.hosts[kind]
	if view == nil || view.supported != nil || !a.adopted[kind] {
		return // it cannot be asked now; the removal goes on waiting
	}
	var ready []profile.Owner
	for _, owner := range owners {
		failed := a.failures[journal.Key{Kind: kind, Owner: owner}]
		if failed == nil || !p.now.Before(failed.next) {
			ready = append(ready, owner)
		}
	}
	if len(ready) == 0 {
		return
	}
	var outcomes []profile.Outcome
	a.during(func() { outcomes = view.host.Remove(ctx, ready) })
	for i, owner := range ready {
		key := journal.Key{Kind: kind, Owner: owner}
		outcome := outcomeAt(outcomes, i)
		p.changed = p.changed || outcome.Changed
		if outcome.Err != nil {
			a.failures[key] = a.failed(a.failures[key], outcome.Err)
			a.log.Warn("not removed", "slot", key, "error", outcome.Err)
			continue
		}
		p.changed = true
		delete(a.failures, key)
		a.journal.Delete(key)
		a.log.Info("removed", "slot", key)
	}
}
