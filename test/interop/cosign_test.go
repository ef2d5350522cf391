package interop_test

import (
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"os"
	"strings"
	"testing"

	"github.com/confine-dev/confine/pkg/artifact/trust"
)

// signing is one way to sign with the cosign program. docs/trust.md lists the
// same flags.
type signing struct {
	line  string // program of the lab
	env   []string
	flags []string
	form  trust.Form
}

// signings are the four ways: each line's default and what else 2.6 can do.
func signings(t *testing.T) map[string]signing {
	t.Helper()
	return map[string]signing{
		"cosign 2.6 legacy tag": {
			line: cosign2, form: trust.FormSimpleSigning,
			flags: []string{"--tlog-upload=false"},
		},
		"cosign 2.6 oci-1-1 referrer": {
			line: cosign2, form: trust.FormSimpleSigning,
			env:   []string{"COSIGN_EXPERIMENTAL=1"},
			flags: []string{"--tlog-upload=false", "--registry-referrers-mode=oci-1-1"},
		},
		"cosign 2.6 bundle": {
			line: cosign2, form: trust.FormBundle,
			flags: []string{"--tlog-upload=false", "--new-bundle-format"},
		},
		"cosign 3.1": {
			line: cosign3, form: trust.FormBundle,
			flags: cosign3Flags(t),
		},
	}
}

// cosign3Flags make cosign 3 sign with a key alone, and contact no service.
func cosign3Flags(t *testing.T) []string {
	t.Helper()
	return []string{"--signing-config", lab(t, "signing-config.json"), "--trusted-root", lab(t, "trusted-root.json")}
}

// keys puts a key pair of the lab onto the desk as NAME.key and NAME.pub.
func (d *desk) keys(pair, name string) {
	d.t.Helper()
	for _, ext := range []string{".key", ".pub"} {
		data, err := os.ReadFile(lab(d.t, pair+ext))
		if err != nil {
			d.t.Fatal(err)
		}
		d.write(name+ext, data)
	}
}

// keyOf is the key pair that a line of cosign made.
func keyOf(line string) string {
	if line == cosign2 {
		return cosign2Key
	}
	return cosign3Key
}

// importKey encrypts a private key with a line of cosign: NAME.key and NAME.pub.
func (d *desk) importKey(line, name string, key crypto.PrivateKey) {
	d.t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		d.t.Fatal(err)
	}
	file := d.write(name+".pem", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	d.run(line, "import-key-pair", "--key", file, "--output-key-prefix", name)
}

func (d *desk) trySign(how signing, key, ref string) outcome {
	d.t.Helper()
	args := append([]string{"sign", "--yes", "--key", key + ".key"}, how.flags...)
	return d.with(how.env...).try(how.line, append(args, ref)...)
}

// sign signs ref, which has a digest, with key NAME.key.
func (d *desk) sign(how signing, key, ref string) {
	d.t.Helper()
	d.succeeded(d.trySign(how, key, ref), how.line, []string{"sign", ref})
}

// tryCosignVerify asks a line of cosign whether a bundle by the key is attached.
func (d *desk) tryCosignVerify(line, key, ref string) outcome {
	d.t.Helper()
	args := []string{"verify", "--key", key + ".pub", "--insecure-ignore-tlog"}
	if line == cosign2 {
		args = append(args, "--new-bundle-format", "--trusted-root", lab(d.t, "trusted-root.json"))
	}
	return d.try(line, append(args, ref)...)
}

// attest attaches an attestation by the key, which is no signature.
func (d *desk) attest(how signing, key, ref string) {
	d.t.Helper()
	d.write("predicate.json", []byte(`{"looks":"good"}`))
	args := append([]string{"attest", "--yes", "--key", key + ".key", "--type", "custom", "--predicate", "predicate.json"}, how.flags...)
	d.with(how.env...).run(how.line, append(args, ref)...)
}

// The media types of docs/artifact-format.md, as a user would write them.
const (
	typeBundle  = "application/vnd.confine.profiles.v1"
	typeSeccomp = "application/vnd.confine.seccomp.v1+json"
	typeKEP     = "application/vnd.cncf.seccomp-profile.config.v1+json"
)

// orasPush pushes to repo:tag with oras and returns REPO@DIGEST.
func (d *desk) orasPush(repo, tag string, args ...string) string {
	d.t.Helper()
	args = append([]string{"push", "--format", "go-template={{.digest}}"}, args...)
	// The reference comes before the files and after the flags.
	at := 3
	for at < len(args) && strings.HasPrefix(args[at], "--") {
		at += 2
	}
	args = append(args[:at:at], append([]string{repo + ":" + tag}, args[at:]...)...)
	return repo + "@" + d.run("oras", args...)
}

// orasPushProfile pushes one seccomp profile as a typed bundle.
func (d *desk) orasPushProfile(repo, tag, file string) string {
	d.t.Helper()
	return d.orasPush(repo, tag, "--artifact-type", typeBundle, file+":"+typeSeccomp)
}

// confinePush pushes and signs with confine and returns REPO@DIGEST.
func (d *desk) confinePush(repo, tag, key string, files ...string) string {
	d.t.Helper()
	out := d.run("confine", append([]string{"push", "--key", key + ".key", repo + ":" + tag}, files...)...)
	return out[strings.LastIndexByte(out, '\n')+1:]
}

func digestOf(ref string) string { return ref[strings.LastIndexByte(ref, '@')+1:] }

// tagOf is the digest as tags have it: sha256-HEX.
func tagOf(ref string) string { return strings.Replace(digestOf(ref), ":", "-", 1) }
