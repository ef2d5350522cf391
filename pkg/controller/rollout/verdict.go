package rollout

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/confine-dev/confine/api/v1alpha1"
	"github.com/confine-dev/confine/pkg/reason"
)

// Verdict is what a node's report means for a rollout.
type Verdict uint8

// The verdicts. The zero value is Pending: no news is no verdict.
const (
	// Pending: under way, not reported yet, or not to be judged now.
	Pending Verdict = iota
	// Ready: verified and in force.
	Ready
	// Bad: refused. It counts against the rollout.
	Bad
)

// Judge says what a report about the assigned digest means.
func Judge(state v1alpha1.ReportState, verified metav1.ConditionStatus, why string) Verdict {
	switch state {
	case v1alpha1.StateInstalled:
		switch verified {
		case metav1.ConditionTrue:
			return Ready
		case metav1.ConditionFalse:
			return judgeReason(why)
		}
	case v1alpha1.StateFailed:
		return judgeReason(why)
	}
	return Pending
}

// judgeReason returns Bad for a reason that says something about the digest,
// and for one that this version does not know: a newer agent refuses for it.
func judgeReason(why string) Verdict {
	if notTheDigest()[reason.Reason(why)] {
		return Pending
	}
	return Bad
}

// notTheDigest are the reasons that say nothing about the digest: a network, a
// credential, a disk or a policy is not as it should be, now. The same digest
// may be good in a minute, so these alone never stop a rollout; that it makes
// no progress until its deadline does.
func notTheDigest() map[reason.Reason]bool {
	return map[reason.Reason]bool{
		// Policies reach nodes after profiles when both are applied at once.
		reason.NoTrustPolicy:      true,
		reason.TrustPolicyInvalid: true,
		reason.TrustRootExpired:   true,

		reason.Unauthorized:        true,
		reason.RegistryUnavailable: true,
		reason.RateLimited:         true,

		reason.InstallFailed: true,
		reason.NoSpace:       true,
	}
}
