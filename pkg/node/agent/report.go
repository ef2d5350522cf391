package agent

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/confine-dev/confine/pkg/node/intent"
	"github.com/confine-dev/confine/pkg/node/journal"
	"github.com/confine-dev/confine/pkg/node/status"
	"github.com/confine-dev/confine/pkg/node/unit"
	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/reason"
	"github.com/confine-dev/confine/pkg/version"
)

// writeReport says what is, where that means something else than before.
func (a *Agent) writeReport(ctx context.Context, p *pass) {
	a.report = a.makeReport(ctx, p)
	defer func() { a.opts.Reported(a.report, a.pulling() || len(a.queue) > 0) }()
	if _, err := a.status.Write(a.report); err != nil {
		a.log.Error("the status cannot be written; a later pass tries again", "error", err)
		a.report.Problems = append(a.report.Problems, problemOf(status.FileName, err))
	}
}

func (a *Agent) makeReport(ctx context.Context, p *pass) status.Report {
	report := status.Report{Version: version.String(), Kinds: a.hostKinds(p), Profiles: []status.Profile{}}
	named := map[profile.Owner]bool{}
	for _, owner := range p.claims.Owners {
		named[owner] = true
		for _, want := range p.claims.Held[owner] {
			report.Profiles = append(report.Profiles, a.describeHeld(ctx, p, want))
		}
	}
	for _, c := range p.claims.Conflicts {
		described := describeWanted(c.Profile)
		described.Set(falseFor(status.Verified, c.Err))
		described.Set(falseFor(status.Ready, c.Err))
		described.Set(status.Condition{Type: status.Degraded, Status: status.False, Reason: status.AsWanted})
		report.Profiles = append(report.Profiles, described)
	}
	for _, problem := range a.inputs.desired.Invalid {
		report.Problems = append(report.Problems, problemOf(problem.Origin, problem.Err))
		if problem.Owner != (profile.Owner{}) && !named[problem.Owner] {
			named[problem.Owner] = true
			report.Profiles = append(report.Profiles, a.describeUnreadable(p, problem))
		}
	}
	for _, slot := range a.journal.Slots() {
		if !named[slot.Owner] {
			named[slot.Owner] = true
			report.Profiles = append(report.Profiles, a.describeUnwanted(p, slot.Owner))
		}
	}
	for origin, err := range map[string]error{"manifests": a.inputs.desiredErr, "trust": a.inputs.trustErr, "hold": a.holdErr(), "journal": p.journalErr} {
		if err != nil {
			report.Problems = append(report.Problems, problemOf(origin, err))
		}
	}
	slices.SortStableFunc(report.Profiles, func(x, y status.Profile) int {
		return cmp.Or(x.Owner.Compare(y.Owner), strings.Compare(x.Origin, y.Origin))
	})
	slices.SortStableFunc(report.Problems, func(x, y status.Problem) int { return strings.Compare(x.Origin, y.Origin) })
	return report
}

// holdErr is nil where nothing is held, unlike the typed nil.
func (a *Agent) holdErr() error {
	if a.inputs.hold == nil {
		return nil
	}
	return a.inputs.hold
}

func (a *Agent) hostKinds(p *pass) []status.HostKind {
	var found []status.HostKind
	for _, h := range a.opts.Hosts {
		kind := status.HostKind{Name: h.Kind()}
		if view := p.hosts[kind.Name]; view != nil && view.supported != nil {
			kind.Reason, kind.Message = status.Describe(view.supported)
		}
		found = append(found, kind)
	}
	// Those that are installed or wanted, and that no host serves here.
	others := map[string]bool{}
	for _, slot := range a.journal.Slots() {
		others[slot.Kind] = true
	}
	for _, kinds := range p.unsupported {
		for kind := range kinds {
			others[kind] = true
		}
	}
	for kind := range others {
		if p.hosts[kind] == nil {
			why, message := status.Describe(noHost(kind))
			found = append(found, status.HostKind{Name: kind, Reason: why, Message: message})
		}
	}
	slices.SortFunc(found, func(x, y status.HostKind) int { return strings.Compare(x.Name, y.Name) })
	return found
}

func problemOf(origin string, err error) status.Problem {
	r, message := status.Describe(err)
	return status.Problem{Origin: origin, Reason: r, Message: message}
}

func falseFor(t status.ConditionType, err error) status.Condition {
	r, message := status.Describe(err)
	return status.Condition{Type: t, Status: status.False, Reason: r, Message: message}
}

func describeWanted(want intent.Profile) status.Profile {
	return status.Profile{
		Owner: want.Owner, Origin: want.Origin, UID: want.UID,
		Artifact: want.Artifact.String(), WantedDigest: want.Artifact.Digest,
	}
}

// goingMessage says what becomes of what nobody wants.
func (a *Agent) goingMessage(p *pass, described status.Profile) string {
	switch {
	case !a.inputs.desired.Complete:
		return "nothing readable wants it; nothing is removed before all that is wanted can be read"
	case slices.ContainsFunc(described.Kinds, func(k status.Kind) bool { return p.hosts[k.Name] == nil }):
		return "nobody wants it; it is removed once the agent's --kinds have all its kinds again, or by confine node purge"
	case a.inputs.desired.NeedsRelease && !described.RemoveAt.IsZero() && !p.now.Before(described.RemoveAt):
		return "nobody wants it; it is removed once the controller releases it, which waits for pods of this node that name it"
	}
	return "nobody wants it; it is removed after the removal delay"
}

// policiesOf is the fingerprint of the policies that a profile is judged by,
// cut short; empty where none match or they cannot be told.
func (a *Agent) policiesOf(want intent.Profile) string {
	key, err := a.keyOf(want.Owner, unit.Source{Repository: want.Artifact.Repository, Digest: want.Artifact.Digest})
	if err != nil {
		return ""
	}
	encoded := key.policies.Encoded()
	return encoded[:min(len(encoded), shownPolicies)]
}

// shownPolicies is how many hex digits of a fingerprint are reported.
const shownPolicies = 16

// describeHeld describes a profile that has its name.
func (a *Agent) describeHeld(ctx context.Context, p *pass, want intent.Profile) status.Profile {
	described := describeWanted(want)
	verdict := p.judged[claimantOf(want)]
	described.Policies = a.policiesOf(want)
	a.addInstalled(p, &described)
	a.addMissing(p, &described, verdict)
	described.Set(verifiedOf(verdict))
	described.Set(a.readyOf(p, &described, verdict))
	described.Set(a.degradedOf(ctx, want.Owner))
	return described
}

// describeUnreadable describes a profile whose manifest cannot be used: what
// is installed for it stays.
func (a *Agent) describeUnreadable(p *pass, problem intent.Problem) status.Profile {
	described := status.Profile{Owner: problem.Owner, Origin: problem.Origin}
	a.addInstalled(p, &described)
	described.Set(status.Condition{Type: status.Verified, Status: status.Unknown, Reason: problem.Err.Reason})
	described.Set(falseFor(status.Ready, problem.Err))
	described.Set(a.brokenOf(problem.Owner))
	return described
}

// describeUnwanted describes what is installed and nobody wants any more.
func (a *Agent) describeUnwanted(p *pass, owner profile.Owner) status.Profile {
	described := status.Profile{Owner: owner}
	a.addInstalled(p, &described)
	for _, kind := range described.Kinds {
		if described.RemoveAt.IsZero() || kind.RemoveAt.Before(described.RemoveAt) {
			described.RemoveAt = kind.RemoveAt
		}
	}
	described.Set(status.Condition{Type: status.Verified, Status: status.Unknown, Reason: status.NotObserved})
	described.Set(status.Condition{Type: status.Ready, Status: status.False, Reason: status.Pending, Message: a.goingMessage(p, described)})
	described.Set(a.brokenOf(owner))
	return described
}

// addInstalled adds what is in force.
func (a *Agent) addInstalled(p *pass, described *status.Profile) {
	same := true
	for _, slot := range a.journal.Of(described.Owner) {
		kind := status.Kind{Name: slot.Kind, RemoveAt: slot.RemoveAt}
		if slot.Current != nil {
			kind.InstalledDigest = slot.Current.Source.Digest
			same = same && (described.InstalledDigest == "" || described.InstalledDigest == kind.InstalledDigest)
			described.InstalledDigest = kind.InstalledDigest
			if slot.Since.After(described.Since) {
				described.Since = slot.Since
			}
		}
		if view := p.hosts[slot.Kind]; view != nil {
			kind.References = view.installed[slot.Owner].References
			described.References = append(described.References, kind.References...)
		} else {
			kind.Reason, kind.Message = status.Describe(noHost(slot.Kind))
		}
		if failed := a.failures[slot.Key]; failed != nil {
			kind.Reason, kind.Message = status.Describe(failed.err)
		}
		described.Kinds = append(described.Kinds, kind)
	}
	if !same {
		described.InstalledDigest = ""
	}
	described.Removal = a.removalOf(p, described.Owner)
}

// removalOf is what goes next of one owner: of all slots and dropped files that
// wait for their removal, those that are due first. It is nil where a host
// cannot say how workloads name them: then nobody could tell whether they do.
func (a *Agent) removalOf(p *pass, owner profile.Owner) *status.Removal {
	var next *status.Removal
	add := func(at time.Time, references []string) {
		switch {
		case at.IsZero() || next != nil && at.After(next.At):
		case next != nil && at.Equal(next.At):
			next.References = append(next.References, references...)
		default:
			next = &status.Removal{At: at, References: slices.Clone(references)}
		}
	}
	for _, slot := range a.journal.Of(owner) {
		view := p.hosts[slot.Kind]
		if slot.Current == nil {
			continue
		}
		if view == nil || !view.known {
			if !slot.RemoveAt.IsZero() || len(slot.Current.Retained) > 0 {
				return nil
			}
			continue
		}
		found := view.installed[owner]
		if !slot.RemoveAt.IsZero() {
			add(slot.RemoveAt, found.References)
			continue
		}
		for _, kept := range slot.Current.Retained {
			i := slices.IndexFunc(found.Files, func(f profile.InstalledFile) bool { return f.Name == kept.Name })
			if i >= 0 {
				add(kept.Due, found.Files[i].References)
			}
		}
	}
	if next != nil {
		slices.Sort(next.References)
	}
	return next
}

// addMissing adds the kinds that are wanted and not installed, and why.
func (a *Agent) addMissing(p *pass, described *status.Profile, verdict judgement) {
	if verdict.content == nil {
		return
	}
	for _, name := range slices.Sorted(maps.Keys(verdict.content.files)) {
		i := slices.IndexFunc(described.Kinds, func(k status.Kind) bool { return k.Name == name })
		if i < 0 {
			described.Kinds = append(described.Kinds, status.Kind{Name: name})
			i = len(described.Kinds) - 1
		}
		kind := &described.Kinds[i]
		if err := p.unsupported[described.Owner][name]; err != nil {
			kind.Reason, kind.Message = status.Describe(err)
		} else if failed := a.failures[journal.Key{Kind: name, Owner: described.Owner}]; failed != nil {
			kind.Reason, kind.Message = status.Describe(failed.err)
		}
	}
	slices.SortFunc(described.Kinds, func(x, y status.Kind) int { return strings.Compare(x.Name, y.Name) })
}

func verifiedOf(verdict judgement) status.Condition {
	switch {
	case verdict.content != nil:
		return status.Condition{Type: status.Verified, Status: status.True, Reason: status.Signed}
	case verdict.err == nil:
		return status.Condition{Type: status.Verified, Status: status.Unknown, Reason: status.Pending, Message: "it is being pulled"}
	}
	c := falseFor(status.Verified, verdict.err)
	if verdict.err.Reason.Fate() == reason.Retry || status.CannotTell(verdict.err.Reason) {
		c.Status = status.Unknown // it cannot be told now
	}
	return c
}

// readyOf says whether what is wanted is in force.
func (a *Agent) readyOf(p *pass, described *status.Profile, verdict judgement) status.Condition {
	ready := status.Condition{Type: status.Ready, Status: status.True, Reason: status.Installed}
	if verdict.content == nil {
		switch {
		case described.InstalledDigest == described.WantedDigest:
			ready.Message = "it stays in force; see Verified"
			return ready
		case verdict.err == nil:
			return status.Condition{Type: status.Ready, Status: status.Unknown, Reason: status.Pending, Message: "it is being pulled"}
		}
		return falseFor(status.Ready, verdict.err)
	}
	installed := 0
	unsupported := p.unsupported[described.Owner]
	for _, kind := range described.Kinds {
		if _, wanted := verdict.content.files[kind.Name]; !wanted || unsupported[kind.Name] != nil {
			continue
		}
		if kind.InstalledDigest == described.WantedDigest {
			installed++
			continue
		}
		if kind.Reason == "" {
			return requiredOr(unsupported, status.Condition{Type: status.Ready, Status: status.Unknown, Reason: status.Pending, Message: "it is being installed"})
		}
		return status.Condition{Type: status.Ready, Status: status.False, Reason: kind.Reason, Message: kind.Message}
	}
	target := p.wanted[described.Owner]
	if len(unsupported) > 0 && (installed == 0 || target != nil && target.RequireAll) {
		return requiredOr(unsupported, ready)
	}
	if len(unsupported) > 0 {
		ready.Message = "not supported on this node, and not required: " + strings.Join(slices.Sorted(maps.Keys(unsupported)), ", ")
	}
	return ready
}

// requiredOr is false for the first unsupported kind, or otherwise where all
// are supported.
func requiredOr(unsupported map[string]error, otherwise status.Condition) status.Condition {
	for _, kind := range slices.Sorted(maps.Keys(unsupported)) {
		return falseFor(status.Ready, unsupported[kind])
	}
	return otherwise
}

// degradedOf says whether something is in force that should not be.
func (a *Agent) degradedOf(ctx context.Context, owner profile.Owner) status.Condition {
	judged := map[unit.Source]bool{}
	for _, slot := range a.journal.Of(owner) {
		if slot.Current == nil {
			continue
		}
		for _, source := range slot.Current.Sources() {
			if judged[source] || !source.Known() {
				continue
			}
			judged[source] = true
			verdict := a.judgeKept(ctx, owner, source)
			if verdict.err != nil && errors.Is(verdict.err, reason.Revoked) {
				c := falseFor(status.Degraded, verdict.err)
				c.Status = status.True
				c.Message = status.Clip("revoked and still in force: " + c.Message)
				return c
			}
		}
	}
	return a.brokenOf(owner)
}

// brokenOf says whether what is in force could not be replaced, repaired or
// removed.
func (a *Agent) brokenOf(owner profile.Owner) status.Condition {
	for _, slot := range a.journal.Of(owner) {
		failed := a.failures[slot.Key]
		if failed == nil || slot.Current == nil {
			continue
		}
		c := falseFor(status.Degraded, failed.err)
		c.Status = status.True
		return c
	}
	return status.Condition{Type: status.Degraded, Status: status.False, Reason: status.AsWanted}
}
