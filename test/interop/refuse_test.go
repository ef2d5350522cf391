package interop_test

import (
	"strings"
	"testing"

	"github.com/confine-dev/confine/pkg/reason"
)

// refusedCase is an artifact that somebody prepared badly or in bad faith with
// the ordinary tools. Each begins as a pushed profile that nobody has signed.
type refusedCase struct {
	prepare func(d *desk, ref string)
	want    reason.Reason
}

func refusedCases(t *testing.T) map[string]refusedCase {
	t.Helper()
	ways := signings(t)
	cases := map[string]refusedCase{
		"a cosign 2.6 attestation as a tag": {
			// Its tag is no place for signatures, so it is not even read.
			func(d *desk, ref string) { d.attest(ways["cosign 2.6 legacy tag"], "ci", ref) }, reason.SignatureMissing,
		},
		"a cosign 2.6 attestation under the tag of signatures": {
			func(d *desk, ref string) {
				d.attest(ways["cosign 2.6 legacy tag"], "ci", ref)
				tag := repoOf(ref) + ":" + tagOf(ref)
				d.run("oras", "cp", tag+".att", tag+".sig")
			}, reason.SignatureMissing,
		},
		"a cosign 2.6 attestation as a bundle": {
			func(d *desk, ref string) { d.attest(ways["cosign 2.6 bundle"], "ci", ref) }, reason.PredicateMismatch,
		},
		"a cosign 3.1 attestation": {
			func(d *desk, ref string) { d.attest(ways["cosign 3.1"], "ci", ref) }, reason.PredicateMismatch,
		},
		"a cosign 3.1 attestation, and a stranger's signature": {
			func(d *desk, ref string) {
				d.attest(ways["cosign 3.1"], "ci", ref)
				d.sign(ways["cosign 3.1"], "stranger", ref)
			}, reason.PredicateMismatch,
		},
		"a legacy signature moved from another artifact": {
			func(d *desk, ref string) {
				other := d.orasPushProfile(repoOf(ref), "other", d.example("worker.json")[0])
				d.sign(ways["cosign 2.6 legacy tag"], "ci", other)
				d.run("oras", "cp", repoOf(ref)+":"+tagOf(other)+".sig", repoOf(ref)+":"+tagOf(ref)+".sig")
			}, reason.DigestMismatch,
		},
		"a bundle moved from another artifact": {
			func(d *desk, ref string) {
				other := d.confinePush(repoOf(ref), "other", "ci", d.example("worker.json")...)
				d.attachBundleOf(other, ref)
			}, reason.DigestMismatch,
		},
	}
	for name, how := range ways {
		want := reason.SignatureInvalid
		if how.line == cosign3 || strings.Contains(name, "bundle") {
			want = reason.IdentityMismatch // the bundle names the key it was made with
		}
		cases["another key, "+name] = refusedCase{func(d *desk, ref string) { d.sign(how, "stranger", ref) }, want}
	}
	return cases
}

func TestRefused(t *testing.T) {
	for kind, start := range kinds() {
		for name, c := range refusedCases(t) {
			t.Run(kind+"/"+name, func(t *testing.T) {
				t.Parallel()
				d, s := newDesk(t), start(t)
				d.keys(confineKey, "ci")
				d.keys(strangerKey, "stranger")
				file := d.example("nginx.json")[0]
				policy := d.policy(trusting{repositories: []string{s.host + "/profiles/*"}, keys: []string{"ci.pub"}})
				ref := d.orasPushProfile(s.repo("web"), "1", file)
				c.prepare(d, ref)
				d.refuses(c.want, ref, policy)

				// None of it keeps a good signature from counting.
				d.sign(signings(t)["cosign 3.1"], "ci", ref)
				d.accepts(ref, policy, file)
			})
		}
	}
}

func repoOf(ref string) string { return ref[:strings.LastIndexByte(ref, '@')] }

// attachBundleOf attaches the signature bundle of one artifact to another.
func (d *desk) attachBundleOf(from, to string) {
	d.t.Helper()
	var found struct{ Referrers []struct{ Digest string } }
	d.decode(&found, d.run("oras", "discover", "--format", "json", from))
	if len(found.Referrers) != 1 {
		d.t.Fatalf("%s has %d referrers, want its one signature", from, len(found.Referrers))
	}
	var manifest struct{ Layers []struct{ Digest string } }
	d.decode(&manifest, d.run("oras", "manifest", "fetch", repoOf(from)+"@"+found.Referrers[0].Digest))
	d.run("oras", "blob", "fetch", "--output", "moved.json", repoOf(from)+"@"+manifest.Layers[0].Digest)
	d.run("oras", "attach", "--artifact-type", bundleType,
		"--annotation", "dev.sigstore.bundle.content=dsse-envelope",
		"--annotation", "dev.sigstore.bundle.predicateType=https://sigstore.dev/cosign/sign/v1",
		to, "moved.json:"+bundleType)
}

// Tags and signatures that are deleted.
func TestDeleted(t *testing.T) {
	cases := map[string]struct {
		way string
		// what returns the reference that is deleted
		what func(d *desk, ref string) string
		want reason.Reason // empty: still accepted
	}{
		"the artifact's tag": {
			// The digest is what is pinned: nobody needs the tag.
			"cosign 3.1", func(_ *desk, ref string) string { return repoOf(ref) + ":1" }, "",
		},
		"the artifact": {
			"cosign 3.1", func(_ *desk, ref string) string { return ref }, reason.ArtifactNotFound,
		},
		"the tag of a legacy signature": {
			"cosign 2.6 legacy tag", func(_ *desk, ref string) string { return repoOf(ref) + ":" + tagOf(ref) + ".sig" }, reason.SignatureMissing,
		},
		"the tag that lists the signatures": {
			"cosign 3.1", func(_ *desk, ref string) string { return repoOf(ref) + ":" + tagOf(ref) }, reason.SignatureMissing,
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d, s := newDesk(t), startDistribution(t, "")
			d.keys(confineKey, "ci")
			file := d.example("nginx.json")[0]
			policy := d.policy(trusting{repositories: []string{s.host + "/profiles/*"}, keys: []string{"ci.pub"}})
			ref := d.pushSigned(c.way, s.repo("web"), file)
			d.accepts(ref, policy, file)
			d.delete(s, c.what(d, ref))
			if c.want == "" {
				d.accepts(ref, policy, file)
				return
			}
			d.refuses(c.want, ref, policy)
		})
	}
}

// A tag is refused with the way to pin it; beside a digest it is a label.
func TestTagsAreNoDigests(t *testing.T) {
	d, s := newDesk(t), startDistribution(t, "")
	d.keys(confineKey, "ci")
	file := d.example("nginx.json")[0]
	policy := d.policy(trusting{repositories: []string{s.host + "/profiles/*"}, keys: []string{"ci.pub"}})
	ref := d.confinePush(s.repo("web"), "1", "ci", file)
	if got := d.run("confine", "resolve", s.repo("web")+":1"); got != ref {
		t.Errorf("resolve prints %s, want %s", got, ref)
	}
	said := d.refuses(reason.UnsupportedArtifact, s.repo("web")+":1", policy)
	if !strings.Contains(said, "confine resolve "+s.repo("web")+":1") {
		t.Errorf("it is not said how to pin a tag:\n%s", said)
	}
	d.accepts(s.repo("web")+":1@"+digestOf(ref), policy, file)
}
