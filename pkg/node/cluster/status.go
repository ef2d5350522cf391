package cluster

import (
	"encoding/json"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/opencontainers/go-digest"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/confine-dev/confine/api/v1alpha1"
	"github.com/confine-dev/confine/pkg/node/status"
	"github.com/confine-dev/confine/pkg/reason"
)

// Bounds of a status. One that breaks a bound of the API would be refused as a
// whole, and the node would say nothing.
const (
	// MaxStatusBytes bounds the encoded status.
	MaxStatusBytes = 900_000

	maxReports    = 500
	maxProblems   = 8
	maxKinds      = 16
	maxReferences = 64
	// maxRemoving is more than a profile can have of all kinds: 64 files of each,
	// and 16 names in one of AppArmor's. What could not be named in full would
	// never be released.
	maxRemoving  = 2048
	maxShort     = 64
	maxName      = 63
	maxReference = 512
	maxMessage   = 512
)

// StatusOf says a node's report in the terms of the API. nodeUID is the
// metadata.uid of the Node.
func StatusOf(r status.Report, nodeUID string) v1alpha1.ProfileNodeStatus {
	s := v1alpha1.ProfileNodeStatus{
		NodeUID: short(nodeUID, maxShort), AgentVersion: short(r.Version, maxShort),
		Kinds: nodeKinds(r.Kinds), Problems: nodeProblems(r.Problems),
	}
	for _, p := range r.Profiles {
		if !namedAsInACluster(p) {
			continue
		}
		s.Profiles = append(s.Profiles, reportOf(p))
	}
	s.Profiles = mostWanted(s.Profiles)
	s.Summary = summaryOf(s.Profiles)
	return s
}

func summaryOf(reports []v1alpha1.ProfileReport) *v1alpha1.NodeSummary {
	var sum v1alpha1.NodeSummary
	for _, r := range reports {
		if r.State != v1alpha1.StateRemoving {
			sum.Assigned++
		}
		switch r.State {
		case v1alpha1.StateInstalled:
			sum.Installed++
		case v1alpha1.StateFailed:
			sum.Failed++
		case v1alpha1.StatePending, v1alpha1.StateRemoving:
		}
	}
	return &sum
}

// namedAsInACluster is false for what an agent without a cluster installed
// under a name that no SecurityProfile of a cluster can have.
func namedAsInACluster(p status.Profile) bool {
	return len(validation.IsDNS1123Label(p.Owner.Namespace)) == 0 && len(validation.IsDNS1123Label(p.Owner.Name)) == 0
}

// mostWanted keeps as many reports as there may be, those of what is assigned
// first, in their order.
func mostWanted(reports []v1alpha1.ProfileReport) []v1alpha1.ProfileReport {
	excess := len(reports) - maxReports
	for i := len(reports) - 1; i >= 0 && excess > 0; i-- {
		if reports[i].State == v1alpha1.StateRemoving {
			reports, excess = slices.Delete(reports, i, i+1), excess-1
		}
	}
	return reports[:min(len(reports), maxReports)]
}

func nodeKinds(kinds []status.HostKind) []v1alpha1.NodeKind {
	var found []v1alpha1.NodeKind
	for _, k := range kinds[:min(len(kinds), maxKinds)] {
		found = append(found, v1alpha1.NodeKind{Name: k.Name, Supported: k.Reason == "", Message: status.Clip(k.Message)})
	}
	return found
}

// nodeProblems keeps those that concern all profiles before those of one.
func nodeProblems(problems []status.Problem) []v1alpha1.NodeProblem {
	sorted := slices.Clone(problems)
	slices.SortStableFunc(sorted, func(a, b status.Problem) int { return problemRank(a) - problemRank(b) })
	var found []v1alpha1.NodeProblem
	for _, p := range sorted[:min(len(sorted), maxProblems)] {
		message := p.Message
		if p.Origin != "" {
			message = p.Origin + ": " + p.Message
		}
		found = append(found, v1alpha1.NodeProblem{Reason: string(word(p.Reason)), Message: short(message, maxMessage)})
	}
	return found
}

func problemRank(p status.Problem) int {
	if strings.HasPrefix(p.Origin, v1alpha1.KindSecurityProfile) {
		return 1
	}
	return 0
}

// reportOf says what became of one profile.
func reportOf(p status.Profile) v1alpha1.ProfileReport {
	report := v1alpha1.ProfileReport{
		Namespace: p.Owner.Namespace, Name: p.Owner.Name,
		UID: short(p.UID, maxShort), WantedDigest: sha256Of(p.WantedDigest),
		InstalledDigest: sha256Of(p.InstalledDigest),
		State:           v1alpha1.ReportState(p.Outcome()), Verified: metav1.ConditionStatus(p.Condition(status.Verified).Status),
		Degraded: p.Condition(status.Degraded).Status == status.True,
		Policies: short(p.Policies, maxShort), Kinds: kindReports(p.Kinds),
	}
	why := p.Cause()
	if why.Reason.Valid() {
		report.Reason = string(why.Reason)
	}
	report.Message = status.Clip(why.Message)
	if !p.Since.IsZero() {
		report.Since = metav1.NewTime(p.Since.UTC())
	}
	// Only what can be named in full may be offered for removal: who releases it
	// looks whether a pod names it.
	if r := p.Removal; r != nil && len(r.References) > 0 && len(references(r.References, maxRemoving)) == len(r.References) {
		report.Removing, report.RemoveAt = r.References, metav1.NewTime(r.At.UTC())
	}
	return report
}

// references are those that the API takes, at most limit.
func references(all []string, limit int) []string {
	found := slices.DeleteFunc(slices.Clone(all), func(r string) bool { return r == "" || len(r) > maxReference })
	return found[:min(len(found), limit)]
}

// sha256Of is the digest where it is one of the API's.
func sha256Of(d digest.Digest) string {
	if d.Validate() != nil || d.Algorithm() != digest.SHA256 {
		return ""
	}
	return d.String()
}

func kindReports(kinds []status.Kind) []v1alpha1.KindReport {
	var found []v1alpha1.KindReport
	for _, k := range kinds[:min(len(kinds), maxKinds)] {
		report := v1alpha1.KindReport{Name: short(k.Name, maxName), References: references(k.References, maxReferences)}
		if k.Reason.Valid() {
			report.Reason = string(k.Reason)
		}
		found = append(found, report)
	}
	return found
}

// word is a reason of the closed set.
func word(r reason.Reason) reason.Reason {
	if r.Valid() {
		return r
	}
	return reason.InstallFailed
}

// short cuts a text at a number of bytes, which is never less than the
// characters that the API counts.
func short(text string, limit int) string {
	if len(text) <= limit {
		return text
	}
	for limit > 0 && !utf8.RuneStart(text[limit]) {
		limit--
	}
	return text[:limit]
}

// Encode returns the status' one encoding within MaxStatusBytes. What has to go
// for that goes from the end: how pods name the files, then messages, then what
// is offered for removal, which then waits.
func Encode(s v1alpha1.ProfileNodeStatus) ([]byte, error) {
	data, err := json.Marshal(s)
	if err != nil || len(data) <= MaxStatusBytes {
		return data, err
	}
	s.Profiles = slices.Clone(s.Profiles)
	for _, drop := range []func(*v1alpha1.ProfileReport){
		func(r *v1alpha1.ProfileReport) {
			r.Kinds = slices.Clone(r.Kinds)
			for i := range r.Kinds {
				r.Kinds[i].References = nil
			}
		},
		func(r *v1alpha1.ProfileReport) { r.Message = "" },
		func(r *v1alpha1.ProfileReport) { r.Removing, r.RemoveAt = nil, metav1.Time{} },
	} {
		excess := len(data) - MaxStatusBytes
		for i := len(s.Profiles) - 1; i >= 0 && excess > 0; i-- {
			before := size(s.Profiles[i])
			drop(&s.Profiles[i])
			excess -= before - size(s.Profiles[i])
		}
		if data, err = json.Marshal(s); err != nil || len(data) <= MaxStatusBytes {
			return data, err
		}
	}
	return data, nil
}

func size(r v1alpha1.ProfileReport) int {
	data, err := json.Marshal(r)
	if err != nil {
		return 0
	}
	return len(data)
}
