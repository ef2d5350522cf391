// Package trust judges signatures under trust policies. It takes bytes and
// gives verdicts: it speaks to no registry, no sigstore service and no
// Kubernetes, and reads no file and no clock.
//
// Compile turns policies into Policies, Matching finds those for one source
// repository and namespace, and Begin starts a Session, which is offered
// signatures one after another until all matching policies are met:
//
//	policies, err := trust.Compile(all)            // TrustPolicyInvalid
//	matched, err := policies.Matching(repo, ns)    // NoTrustPolicy: contact nothing
//	session := matched.Begin(subject, time.Now())
//	for !session.Met() { session.Offer(ctx, next) }
//	verdict, err := session.Verdict()
//
// The default is to deny: no policy, no signature, a policy that cannot be
// read and anything that is not understood are refusals, each with its reason.
//
// Repository patterns, as in Policy.Repositories, begin with a literal host
// and a literal first path segment. "*" is one whole path segment, "**" is one
// or more and stands only at the end:
//
//	registry.example.com/profiles/web      one repository
//	registry.example.com/profiles/*        every repository directly below
//	registry.example.com/profiles/**       every repository below
//
// Registry-wide patterns (registry.example.com/**) are refused.
package trust
