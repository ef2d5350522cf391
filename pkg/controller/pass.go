package controller

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"
)

// runner passes over everything, again and again.
type runner struct {
	world   *world
	writer  *writer
	tell    *teller
	metrics *metrics
	log     *slog.Logger
	now     func() time.Time
}

// pass computes what differs and writes it. It returns when to look again
// though nothing changes; zero means never.
func (r *runner) pass(ctx context.Context) (time.Time, error) {
	began := time.Now()
	p, unread := r.plan(ctx, planOptions{now: r.now()})
	r.metrics.observe(p, time.Since(began))
	frozen, early := r.writeStatuses(ctx, p.statuses, true)
	if len(frozen) > 0 {
		// What could not be written down is not acted upon.
		p, unread = r.plan(ctx, planOptions{now: r.now(), frozen: frozen})
	}
	shares := summed(inParallel(ctx, p.shares, r.writer.share))
	_, late := r.writeStatuses(ctx, p.statuses, false)
	if len(p.shares)+len(p.statuses) > 0 {
		r.log.Debug("passed", "nodes", len(p.shares), "profiles", len(p.statuses), "took", time.Since(began))
	}
	return p.next, errors.Join(unread, early, shares, late)
}

// plan makes a plan that takes nothing from a node because SecurityProfiles
// cannot be read: that of all profiles that are gone, only as long as there is
// a resource to be gone from. The error says that this cannot be told; the plan
// is good all the same.
func (r *runner) plan(ctx context.Context, o planOptions) (*plan, error) {
	p := r.world.makePlan(o)
	if !p.orphans {
		return p, nil
	}
	served, err := r.writer.profilesAreServed(ctx)
	if served {
		return p, nil
	}
	if err != nil {
		err = fmt.Errorf("SecurityProfiles are gone, and whether their CustomResourceDefinition %s is cannot be read; nodes keep them: %w", profileCRD, err)
	} else {
		r.log.Warn("SecurityProfiles are gone because their CustomResourceDefinition is: nodes keep what they have", "definition", profileCRD)
	}
	o.keepOrphans = true
	return r.world.makePlan(o), err
}

// writeStatuses writes those that are durable, or the others. It returns the
// keys of profiles for which that failed.
func (r *runner) writeStatuses(ctx context.Context, statuses []statusWrite, durable bool) (map[string]bool, error) {
	var todo []statusWrite
	for _, s := range statuses {
		if s.durable == durable {
			todo = append(todo, s)
		}
	}
	errs := inParallel(ctx, todo, r.writer.status)
	failed := map[string]bool{}
	for i, err := range errs {
		s := todo[i]
		if err == nil {
			r.tell.changed(s.profile.object, s.status)
			r.metrics.changed(s.profile.object.Status, s.status)
			continue
		}
		// Also that it is gone is tried again: a server that is starting says so
		// of all that it does not serve yet, and then no event follows.
		failed[s.profile.key] = true
	}
	return failed, summed(errs)
}
