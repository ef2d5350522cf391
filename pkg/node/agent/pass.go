package agent

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/confine-dev/confine/pkg/durable"
	"github.com/confine-dev/confine/pkg/node/intent"
	"github.com/confine-dev/confine/pkg/node/journal"
	"github.com/confine-dev/confine/pkg/node/plan"
	"github.com/confine-dev/confine/pkg/node/store"
	"github.com/confine-dev/confine/pkg/node/unit"
	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/reason"
)

// pass is one look at everything, and what it led to.
type pass struct {
	now time.Time
	// network allows new pulls; repair compares every installed byte.
	network, repair bool

	hosts map[string]*hostView
	// claims and judged say who has which name, and with which artifact.
	claims plan.Claims
	judged map[claimant]judgement
	// wanted is what is to be installed by owner; see plan.Input.
	wanted      map[profile.Owner]*plan.Target
	unsupported map[profile.Owner]map[string]error
	// seen are the keys that were judged; attempts at others are forgotten.
	seen map[judgeKey]bool
	// again asks for another pass at once.
	again bool
	// changed is set where a host was changed.
	changed bool
	// journalErr says that the journal could not be written.
	journalErr error
}

// claimant names one profile among all, also where names collide.
type claimant struct {
	owner       profile.Owner
	uid, origin string
}

func claimantOf(p intent.Profile) claimant { return claimant{p.Owner, p.UID, p.Origin} }

// hostView is what one host says about itself.
type hostView struct {
	host profile.Host
	// supported is why the kind cannot be installed here; nil where it can.
	supported error
	// installed by owner; known is false where it could not be read.
	installed map[profile.Owner]profile.Installed
	known     bool
}

// run makes one pass. It never fails as a whole: what went wrong stands in the
// report, beside all that went well.
func (a *Agent) run(ctx context.Context, network, repair bool) *pass {
	p := &pass{
		now: a.opts.Now(), network: network, repair: repair,
		hosts: map[string]*hostView{}, judged: map[claimant]judgement{},
		wanted: map[profile.Owner]*plan.Target{}, seen: map[judgeKey]bool{},
	}
	began := time.Now()
	defer func() { a.lastPass = time.Since(began) }()
	a.queue = nil
	clear(a.fetched)
	a.look(ctx, p)
	a.adopt(ctx, p)
	a.claim(ctx, p)
	a.pump(ctx)
	a.install(ctx, p)
	a.remove(ctx, p)
	a.save(p)
	a.collect(p)
	if p.changed {
		a.look(ctx, p) // references for the report
	}
	a.writeReport(ctx, p)
	a.forget(p)
	return p
}

// read asks Source anew. What it said before stays where it cannot say.
func (a *Agent) read() {
	desired, err := a.opts.Source.Profiles()
	a.inputs.desiredErr = err
	if err == nil {
		a.inputs.desired = desired
	} else {
		a.log.Warn("what is wanted cannot be read; nothing is removed", "error", err)
		a.inputs.desired.Complete = false
	}
	a.inputs.prints = map[printPlace]fingerprint{}
	a.inputs.hold = nil
	a.inputs.trust, a.inputs.trustErr = a.opts.Source.Trust()
	if held, ok := a.inputs.trust.(Held); ok && a.inputs.trustErr == nil {
		a.inputs.hold = held.Hold()
	}
	if a.inputs.trustErr != nil {
		a.log.Warn("who is trusted cannot be read; what is installed stays", "error", a.inputs.trustErr)
	}
}

// look asks every host what it has.
func (a *Agent) look(ctx context.Context, p *pass) {
	for _, h := range a.opts.Hosts {
		view := &hostView{host: h, installed: map[profile.Owner]profile.Installed{}}
		p.hosts[h.Kind()] = view
		var installed []profile.Installed
		var err error
		a.during(func() { // a host may have to wait for others who change policy
			view.supported = h.Supported(ctx)
			installed, err = h.Installed(ctx)
		})
		if err != nil {
			if view.supported == nil {
				a.log.Warn("what is installed cannot be read", "kind", h.Kind(), "error", err)
			}
			continue
		}
		view.known = true
		for _, found := range installed {
			view.installed[found.Owner] = found
		}
	}
}

// adopt compares the journal with each host, once, as soon as the host can be
// read: an earlier process may have been killed, or the journal lost.
func (a *Agent) adopt(ctx context.Context, p *pass) {
	for kind, view := range p.hosts {
		if a.adopted[kind] || !view.known {
			continue
		}
		var installed []profile.Installed
		var err error
		a.during(func() { installed, err = view.host.Installed(ctx) })
		if err != nil {
			continue
		}
		a.adopted[kind] = true
		if a.journal.Adopt(kind, installed, a.describe) {
			a.log.Info("the journal was brought in line with what is installed", "kind", kind)
		}
	}
}

// describe says what a unit found on a host is made of, from the store.
func (a *Agent) describe(kind string, found profile.Installed) (unit.Revision, bool) {
	if r, err := a.store.Unit(found.Digest); err == nil {
		return r, true
	}
	for _, want := range a.inputs.desired.Profiles {
		if want.Owner != found.Owner || want.Artifact.Digest != found.Digest {
			continue
		}
		source := unit.Source{Repository: want.Artifact.Repository, Digest: found.Digest}
		if record, err := a.store.Record(source); err == nil {
			return record.Revision(kind), true
		}
	}
	record, err := a.store.Find(found.Digest)
	if err != nil {
		return unit.Revision{}, false
	}
	return record.Revision(kind), true
}

// claim settles who has which name and judges what they want.
func (a *Agent) claim(ctx context.Context, p *pass) {
	p.claims = plan.Resolve(a.inputs.desired.Profiles, a.holders)
	for _, owner := range p.claims.Owners {
		p.wanted[owner] = nil
		for _, want := range p.claims.Held[owner] {
			source := unit.Source{Repository: want.Artifact.Repository, Digest: want.Artifact.Digest}
			verdict := a.judge(ctx, p, owner, source)
			p.judged[claimantOf(want)] = verdict
			if p.wanted[owner] == nil && verdict.content != nil && a.inputs.hold == nil {
				// The holder says whether all kinds are required; whoever
				// shares the digest may be the one whose source is trusted.
				p.wanted[owner] = verdict.content.target(source, p.claims.Held[owner][0].RequireAllKinds)
			}
		}
	}
	// What cannot be read but says whose it is: wanted, and not known how.
	for _, problem := range a.inputs.desired.Invalid {
		if _, ok := p.wanted[problem.Owner]; !ok && problem.Owner != (profile.Owner{}) {
			p.wanted[problem.Owner] = nil
		}
	}
}

func (a *Agent) holders(owner profile.Owner) []journal.Claim {
	for _, slot := range a.journal.Of(owner) {
		if len(slot.Claims) > 0 {
			return slot.Claims
		}
	}
	return nil
}

func claimsOf(held []intent.Profile) []journal.Claim {
	var claims []journal.Claim
	for _, p := range held[:min(len(held), journal.MaxClaims)] {
		claims = append(claims, journal.Claim{UID: p.UID, Origin: p.Origin})
	}
	return claims
}

// plan asks the pure part what to do.
func (a *Agent) plan(p *pass) plan.Plan {
	hosts := map[string]error{}
	for kind, view := range p.hosts {
		hosts[kind] = view.supported
	}
	made := plan.Make(plan.Input{
		Now: p.now, Delay: a.opts.RemovalDelay, Complete: a.inputs.desired.Complete, Released: a.released(p),
		Wanted: p.wanted, Slots: a.journal.Slots(), Hosts: hosts, NoHost: noHost,
	})
	p.unsupported = made.Unsupported
	return made
}

// released says what may be removed; nil where nothing needs a release.
func (a *Agent) released(p *pass) func(journal.Key, time.Time) bool {
	if !a.inputs.desired.NeedsRelease {
		return nil
	}
	return func(key journal.Key, due time.Time) bool {
		if view := p.hosts[key.Kind]; view != nil && view.known {
			if found, there := view.installed[key.Owner]; !there || len(found.References) == 0 {
				return true // nothing is in force that a workload could name
			}
		}
		return a.inputs.desired.Released(key.Owner, due)
	}
}

func noHost(kind string) error {
	return reason.New(reason.KindUnsupported, kind, "this agent installs no %s profiles; what was installed before stays as it is", kind).
		WithAdvice("add %s to the --kinds of the agent, where the node supports it", kind)
}

// save writes the journal; what could not be written is written by a later pass.
func (a *Agent) save(p *pass) {
	err := a.file.Save(a.journal)
	if err != nil {
		a.log.Error("the journal cannot be written; it is tried again", "error", err)
		err = durable.Explain(a.opts.Root, err)
	}
	p.journalErr = err
}

// collect takes from the store what nothing needs. It runs only when all that
// is wanted is known, and the journal on the disk names all that is installed;
// and once after many pulls, because it reads all that is kept.
func (a *Agent) collect(p *pass) {
	a.litter = a.litter || p.changed || p.repair
	if !a.litter || a.pulling() || !a.inputs.desired.Complete || p.journalErr != nil || !a.adoptedAll() {
		return
	}
	a.litter = false
	live := store.Live{Sources: a.journal.Sources()}
	for source := range a.inflight {
		live.Sources = append(live.Sources, source)
	}
	for _, want := range a.inputs.desired.Profiles {
		live.Sources = append(live.Sources, unit.Source{Repository: want.Artifact.Repository, Digest: want.Artifact.Digest})
	}
	for _, slot := range a.journal.Slots() {
		for _, r := range []*unit.Revision{slot.Current, slot.Next} {
			if r != nil && len(r.Retained) > 0 {
				live.Units = append(live.Units, r.Digest())
			}
		}
	}
	removed, err := a.store.Collect(live)
	if err != nil {
		a.log.Warn("the store cannot be cleaned now", "error", err)
	}
	if removed > 0 {
		a.log.Info("the store was cleaned", "entries", removed)
	}
}

// adoptedAll is false while some host's units may be missing in the journal.
func (a *Agent) adoptedAll() bool {
	for _, h := range a.opts.Hosts {
		if !a.adopted[h.Kind()] {
			return false
		}
	}
	return true
}

// forget drops what was learned about things nobody wants any more.
func (a *Agent) forget(p *pass) {
	for key := range a.attempts {
		if !p.seen[key] {
			delete(a.attempts, key)
		}
	}
	live := map[unit.Source]bool{}
	for key := range p.seen {
		live[key.source] = true
	}
	for _, source := range a.journal.Sources() {
		live[source] = true
	}
	for _, want := range a.inputs.desired.Profiles {
		live[unit.Source{Repository: want.Artifact.Repository, Digest: want.Artifact.Digest}] = true
	}
	a.forgetVerdicts(live)
	for key := range a.failures {
		if _, ok := a.journal.Get(key); !ok && p.wanted[key.Owner] == nil {
			delete(a.failures, key)
		}
	}
}

// forgetVerdicts drops those of sources that nobody needs, and of policies that
// are no longer the current ones.
func (a *Agent) forgetVerdicts(live map[unit.Source]bool) {
	current := map[judgePlace]digest.Digest{}
	for _, key := range slices.AppendSeq(slices.Collect(maps.Keys(a.memo)), maps.Keys(a.refusals)) {
		place := judgePlace{key.owner, key.source}
		if _, known := current[place]; !known {
			now, err := a.keyOf(key.owner, key.source)
			if err != nil && !errors.Is(err, reason.NoTrustPolicy) {
				return // policies that cannot be read now may be the same later
			}
			current[place] = now.policies
		}
		if !live[key.source] || current[place] != key.policies {
			delete(a.memo, key)
			delete(a.refusals, key)
		}
	}
}

type judgePlace struct {
	owner  profile.Owner
	source unit.Source
}

// wake returns when the next pass is due, at the latest at the given time.
// What was due in this pass was done, has a new time, or waits for an event.
func (a *Agent) wake(p *pass, latest time.Time) time.Time {
	if p.again {
		return p.now
	}
	sooner := func(t time.Time) {
		if t.After(p.now) && t.Before(latest) {
			latest = t
		}
	}
	if p.journalErr != nil {
		sooner(p.now.Add(paceOf(reason.Retry).first))
	}
	for _, tried := range a.attempts {
		sooner(tried.next)
	}
	for _, tried := range a.failures {
		sooner(tried.next)
	}
	for _, known := range a.memo {
		sooner(known.until)
	}
	for _, slot := range a.journal.Slots() {
		sooner(slot.RemoveAt)
		if slot.Current == nil {
			continue
		}
		for _, kept := range slot.Current.Retained {
			sooner(kept.Due)
		}
	}
	return latest
}
