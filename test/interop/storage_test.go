package interop_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/confine-dev/confine/pkg/reason"
)

// What becomes of bytes on the registry's own disk, behind its back: somebody
// who can write there can only withhold, and a broken signature never settles
// anything for good.
func TestStorageBehindTheRegistrysBack(t *testing.T) {
	harms := map[string]func([]byte) []byte{
		"a byte changed": changeOneByte,
		"truncated":      func(b []byte) []byte { return b[:len(b)/2] },
		"empty":          func([]byte) []byte { return nil },
		"lengthened":     func(b []byte) []byte { return append(b, b...) },
		"removed":        nil,
	}
	// Distribution parses manifests and answers 500 for one that is no JSON.
	victims := map[string]struct{ changed, cut, removed reason.Reason }{
		"manifest":           {reason.DigestMismatch, reason.RegistryUnavailable, reason.ArtifactNotFound},
		"payload":            {reason.DigestMismatch, reason.DigestMismatch, reason.ArtifactNotFound},
		"signature manifest": {reason.RegistryUnavailable, reason.RegistryUnavailable, reason.SignatureMissing},
		"signature":          {reason.RegistryUnavailable, reason.RegistryUnavailable, reason.SignatureMissing},
	}
	for harm, do := range harms {
		for victim, wants := range victims {
			want := wants.cut
			switch harm {
			case "a byte changed":
				want = wants.changed
			case "removed":
				want = wants.removed
			}
			t.Run(victim+"/"+harm, func(t *testing.T) {
				t.Parallel()
				d, s := newDesk(t), startDistribution(t, "")
				d.keys(confineKey, "ci")
				file := d.example("nginx.json")[0]
				policy := d.policy(trusting{repositories: []string{s.host + "/profiles/*"}, keys: []string{"ci.pub"}})
				ref := d.confinePush(s.repo("web"), "1", "ci", file)
				d.accepts(ref, policy, file)
				rewrite(t, s.blobFile(d.victim(victim, ref)), do)
				d.refuses(want, ref, policy)
			})
		}
	}
}

// changeOneByte changes one inside a string, so that JSON stays JSON.
func changeOneByte(data []byte) []byte {
	at := max(bytes.LastIndex(data, []byte("application/")), bytes.LastIndex(data, []byte("SCMP_ACT_ERRNO")))
	data[at] ^= 1
	return data
}

// victim returns the digest of one part of a signed artifact.
func (d *desk) victim(part, ref string) string {
	d.t.Helper()
	type manifest struct{ Layers []struct{ Digest string } }
	layerOf := func(ref string) string {
		var m manifest
		d.decode(&m, d.run("oras", "manifest", "fetch", ref))
		return m.Layers[0].Digest
	}
	var found struct{ Referrers []struct{ Digest string } }
	d.decode(&found, d.run("oras", "discover", "--format", "json", ref))
	signature := found.Referrers[0].Digest
	switch part {
	case "manifest":
		return digestOf(ref)
	case "payload":
		return layerOf(ref)
	case "signature manifest":
		return signature
	default:
		return layerOf(repoOf(ref) + "@" + signature)
	}
}

// blobFile is where distribution keeps a blob.
func (s *site) blobFile(digest string) string {
	hex := strings.TrimPrefix(digest, "sha256:")
	return filepath.Join(s.storage, "docker", "registry", "v2", "blobs", "sha256", hex[:2], hex, "data")
}

// rewrite changes a file, or removes it.
func rewrite(t *testing.T, file string, change func([]byte) []byte) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if change == nil {
		err = os.Remove(file)
	} else {
		err = os.WriteFile(file, change(data), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// A registry that is gone, and one that accepts connections and says nothing.
func TestRegistryGoneOrSilent(t *testing.T) {
	signals := map[string]syscall.Signal{"gone": syscall.SIGKILL, "silent": syscall.SIGSTOP}
	for name, signal := range signals {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d, s := newDesk(t), startDistribution(t, "")
			d.keys(confineKey, "ci")
			file := d.example("nginx.json")[0]
			policy := d.policy(trusting{repositories: []string{s.host + "/profiles/*"}, keys: []string{"ci.pub"}})
			ref := d.confinePush(s.repo("web"), "1", "ci", file)
			if err := s.process.Signal(signal); err != nil {
				t.Fatal(err)
			}
			d.refuses(reason.RegistryUnavailable, ref, policy, "--timeout", "2s")
			d.isRefusal(reason.RegistryUnavailable, d.try("confine", "push", "--timeout", "2s", "--key", "ci.key", s.repo("web")+":2", file))
		})
	}
}
