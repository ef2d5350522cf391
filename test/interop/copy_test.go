package interop_test

import (
	"testing"

	"github.com/confine-dev/confine/pkg/reason"
)

// Signatures that are referrers travel with `oras cp -r` between both kinds of
// registry. Trust does not travel: it names the source.
func TestCopyToAnotherRegistry(t *testing.T) {
	for from, startFrom := range kinds() {
		for to, startTo := range kinds() {
			for _, way := range []string{"cosign 2.6 oci-1-1 referrer", "cosign 2.6 bundle", "cosign 3.1", "confine"} {
				t.Run(from+" to "+to+"/"+way, func(t *testing.T) {
					t.Parallel()
					d, first, second := newDesk(t), startFrom(t), startTo(t)
					file := d.example("nginx.json")[0]
					d.keys(confineKey, "ci")
					ref := d.pushSigned(way, first.repo("web"), file)
					copied := second.repo("mirror") + "@" + digestOf(ref)
					d.run("oras", "cp", "-r", ref, second.repo("mirror")+":1")

					nameFirst := d.policy(trusting{repositories: []string{first.host + "/profiles/*"}, keys: []string{"ci.pub"}})
					nameSecond := d.policy(trusting{repositories: []string{second.host + "/profiles/*"}, keys: []string{"ci.pub"}})
					d.accepts(copied, nameSecond, file)
					d.accepts(ref, nameFirst, file)
					d.refusesUncontacted(second, copied, nameFirst)
					d.refusesUncontacted(first, ref, nameSecond)
				})
			}
		}
	}
}

// pushSigned pushes with oras and signs in one of signings, or does both with
// confine, and returns REPO@DIGEST.
func (d *desk) pushSigned(way, repo, file string) string {
	d.t.Helper()
	if way == "confine" {
		return d.confinePush(repo, "1", "ci", file)
	}
	how, ok := signings(d.t)[way]
	if !ok {
		d.t.Fatalf("no way to sign is called %q", way)
	}
	ref := d.orasPushProfile(repo, "1", file)
	d.sign(how, "ci", ref)
	return ref
}

// refusesUncontacted holds that no policy matches, and that the registry was
// not asked for anything.
func (d *desk) refusesUncontacted(s *site, ref, policy string) {
	d.t.Helper()
	if s.requests == nil { // distribution does not count
		d.refuses(reason.NoTrustPolicy, ref, policy)
		return
	}
	before := s.requests.Load()
	d.refuses(reason.NoTrustPolicy, ref, policy)
	if after := s.requests.Load(); after != before {
		d.t.Errorf("the registry was asked %d times without a policy for it", after-before)
	}
}

// The legacy form is a tag that nothing refers to: `oras cp -r` leaves it
// behind, and it is copied like any tag. docs/trust.md says so.
func TestCopyLeavesLegacySignaturesBehind(t *testing.T) {
	for kind, start := range kinds() {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			d, first, second := newDesk(t), start(t), start(t)
			file := d.example("nginx.json")[0]
			d.keys(confineKey, "ci")
			ref := d.pushSigned("cosign 2.6 legacy tag", first.repo("web"), file)
			policy := d.policy(trusting{repositories: []string{second.host + "/profiles/*"}, keys: []string{"ci.pub"}})
			copied := second.repo("web") + "@" + digestOf(ref)
			d.run("oras", "cp", "-r", ref, second.repo("web")+":1")
			d.refuses(reason.SignatureMissing, copied, policy)

			signature := ":" + tagOf(ref) + ".sig"
			d.run("oras", "cp", first.repo("web")+signature, second.repo("web")+signature)
			d.accepts(copied, policy, file)
		})
	}
}

// `cosign copy` carries legacy signatures, and no bundles.
func TestCosignCopy(t *testing.T) {
	cases := map[string]struct{ carried bool }{
		"cosign 2.6 legacy tag": {true},
		"cosign 3.1":            {false},
		"confine":               {false},
	}
	for way, c := range cases {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			d, first, second := newDesk(t), startDistribution(t, ""), startReferrersAPI(t)
			file := d.example("nginx.json")[0]
			d.keys(confineKey, "ci")
			ref := d.pushSigned(way, first.repo("web"), file)
			policy := d.policy(trusting{repositories: []string{second.host + "/profiles/*"}, keys: []string{"ci.pub"}})
			d.run(cosign3, "copy", ref, second.repo("web")+":1")
			copied := second.repo("web") + "@" + digestOf(ref)
			if c.carried {
				d.accepts(copied, policy, file)
				return
			}
			d.refuses(reason.SignatureMissing, copied, policy)
		})
	}
}
