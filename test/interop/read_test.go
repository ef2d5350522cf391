package interop_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/confine-dev/confine/pkg/reason"
)

// CI without confine: oras and cosign alone are enough, in each way to sign
// and with each kind of registry.
func TestConfineReadsWhatOrasPushedAndCosignSigned(t *testing.T) {
	for kind, start := range kinds() {
		for name, how := range signings(t) {
			t.Run(kind+"/"+name, func(t *testing.T) {
				t.Parallel()
				d, s := newDesk(t), start(t)
				file := d.example("nginx.json")[0]
				d.keys(keyOf(how.line), "ci")
				policy := d.policy(trusting{repositories: []string{s.host + "/profiles/*"}, keys: []string{"ci.pub"}})
				ref := d.orasPushProfile(s.repo("web"), "1.0.0", file)

				d.refuses(reason.SignatureMissing, ref, policy)
				d.sign(how, "ci", ref)

				got := d.accepts(ref, policy, file)
				if len(got.Signatures) != 1 || got.Signatures[0].Form != string(how.form) {
					t.Errorf("signatures %+v, want one of form %s", got.Signatures, how.form)
				}
			})
		}
	}
}

// The scripts of examples/ci as they stand.
func TestExampleScripts(t *testing.T) {
	for kind, start := range kinds() {
		for name, how := range signings(t) {
			t.Run("oras-and-cosign.sh/"+kind+"/"+name, func(t *testing.T) {
				t.Parallel()
				d, s := newDesk(t), start(t)
				d.keys(keyOf(how.line), "cosign")
				env := append([]string{"COSIGN_FLAGS=" + strings.Join(how.flags, " ")}, how.env...)
				ref := d.script("oras-and-cosign.sh", how.line, s, d.example("nginx.json")[0], env...)
				policy := d.policy(trusting{repositories: []string{s.host + "/profiles/*"}, keys: []string{"cosign.pub"}})
				got := d.accepts(ref, policy, "nginx.json")
				if version := got.Annotations["dev.confine.version"]; version != "1.0.0" {
					t.Errorf("signed version %q, want 1.0.0", version)
				}
			})
		}
		t.Run("confine.sh/"+kind, func(t *testing.T) {
			t.Parallel()
			d, s := newDesk(t), start(t)
			d.keys(confineKey, "cosign")
			file := d.example("nginx.json")[0]
			ref := d.script("confine.sh", cosign3, s, file)
			policy := d.policy(trusting{repositories: []string{s.host + "/profiles/*"}, keys: []string{"cosign.pub"}})
			d.accepts(ref, policy, file)
			if again := d.script("confine.sh", cosign3, s, file); again != ref {
				t.Errorf("the same input made %s and then %s", ref, again)
			}
		})
	}
}

// A script that failed must not look as if it had pushed and signed.
func TestExampleScriptsFailAloud(t *testing.T) {
	d, s := newDesk(t), startReferrersAPI(t)
	d.keys(confineKey, "cosign")
	file := d.example("nginx.json")[0]
	for _, name := range []string{"oras-and-cosign.sh", "confine.sh"} {
		t.Run(name, func(t *testing.T) {
			d := d.in(t).with("COSIGN_PASSWORD=not the right one", "COSIGN_FLAGS="+strings.Join(cosign3Flags(t), " "))
			got := d.tryScript(name, cosign3, s, file)
			if got.code == 0 || strings.Contains(got.stdout, "@sha256:") {
				t.Errorf("exit code %d with the wrong password\n%s", got.code, got.stdout)
			}
		})
	}
}

// script runs one of examples/ci and returns the reference that it prints.
func (d *desk) script(name, cosignLine string, s *site, profile string, env ...string) string {
	d.t.Helper()
	ref := d.succeeded(d.tryScript(name, cosignLine, s, profile, env...), name, nil)
	if !strings.HasPrefix(ref, s.repo("web")+"@sha256:") || strings.Contains(ref, "\n") {
		d.t.Fatalf("%s printed no reference:\n%s", name, ref)
	}
	return ref
}

// tryScript runs one of examples/ci on a profile with cosign.key, as its head says.
func (d *desk) tryScript(name, cosignLine string, s *site, profile string, env ...string) outcome {
	d.t.Helper()
	bin := d.path("bin")
	if err := os.MkdirAll(bin, 0o700); err != nil {
		d.t.Fatal(err)
	}
	for as, program := range map[string]string{"confine": "confine", "oras": "oras", "cosign": cosignLine} {
		if err := os.Symlink(lab(d.t, program), filepath.Join(bin, as)); err != nil && !os.IsExist(err) {
			d.t.Fatal(err)
		}
	}
	env = append(env, "PATH="+bin+":/usr/bin:/bin", "REPOSITORY="+s.repo("web"), "TAG=1.0.0")
	return d.with(env...).start("/bin/sh", examples(d.t, "ci", name), profile, "cosign.key")
}

// The three forms of docs/artifact-format.md, each made by oras.
func TestFormsMadeByOras(t *testing.T) {
	bare := []string{"nginx.json", "nginx.aa", "nginx.cil"}
	cases := map[string]struct {
		form  string
		args  []string
		files []string
	}{
		"KEP-6061": {
			form:  "kep6061",
			args:  []string{"--artifact-type", typeKEP, "--config", "config.json:" + typeKEP, "nginx.json:application/json"},
			files: []string{"nginx.json"},
		},
		"KEP-6061 without a type for the file": {
			form:  "kep6061",
			args:  []string{"--artifact-type", typeKEP, "--config", "config.json:" + typeKEP, "nginx.json"},
			files: []string{"nginx.json"},
		},
		"KEP-6061 with an empty config": {
			form:  "kep6061",
			args:  []string{"--artifact-type", typeKEP, "nginx.json"},
			files: []string{"nginx.json"},
		},
		"bundle": {
			form: "bundle",
			args: []string{"--artifact-type", typeBundle, "nginx.json:" + typeSeccomp,
				"nginx.aa:application/vnd.confine.apparmor.v1", "nginx.cil:application/vnd.confine.selinux.cil.v1"},
			files: bare,
		},
		"bare": {form: "bare", args: bare, files: bare},
	}
	for kind, start := range kinds() {
		for name, c := range cases {
			t.Run(kind+"/"+name, func(t *testing.T) {
				t.Parallel()
				d, s := newDesk(t), start(t)
				d.example(bare...)
				d.write("config.json", []byte("{}"))
				d.keys(keyOf(cosign3), "ci")
				ref := d.orasPush(s.repo("web"), "1.0.0", c.args...)
				d.sign(signings(t)["cosign 3.1"], "ci", ref)

				var inspected struct{ Form string }
				d.decode(&inspected, d.run("confine", "inspect", ref, "-o", "json"))
				if inspected.Form != c.form {
					t.Errorf("form %q, want %q", inspected.Form, c.form)
				}
				all := []string{"seccomp", "apparmor", "selinux"}
				repositories := []string{s.host + "/profiles/*"}
				got := d.accepts(ref, d.policy(trusting{repositories: repositories, keys: []string{"ci.pub"}, kinds: all}), c.files...)
				if len(got.Profiles) != len(c.files) {
					t.Errorf("judged %+v, want %q", got.Profiles, c.files)
				}
				if len(c.files) > 1 {
					d.refuses(reason.ProfileForbidden, ref, d.policy(trusting{repositories: repositories, keys: []string{"ci.pub"}}))
				}
			})
		}
	}
}

// oras can make the KEP-6061 form that confine makes, but for the time that
// oras always records.
func TestKEP6061IsTheSameByOrasAndConfine(t *testing.T) {
	d, s := newDesk(t), startDistribution(t, "")
	file := d.example("nginx.json")[0]
	d.write("config.json", []byte("{}"))
	byOras := d.orasPush(s.repo("oras"), "1", "--artifact-type", typeKEP, "--config", "config.json:"+typeKEP, file+":application/json")
	d.keys(confineKey, "ci")
	byConfine := d.confinePush(s.repo("confine"), "1", "ci", file)
	manifests := map[string]map[string]any{byOras: {}, byConfine: {}}
	for ref, manifest := range manifests {
		d.decode(&manifest, d.run("oras", "manifest", "fetch", ref))
	}
	annotations, _ := manifests[byOras]["annotations"].(map[string]any)
	if _, ok := annotations["org.opencontainers.image.created"]; !ok || len(annotations) != 1 {
		t.Errorf("oras wrote annotations %v, want the time alone", annotations)
	}
	delete(manifests[byOras], "annotations")
	if diff := cmp.Diff(manifests[byOras], manifests[byConfine]); diff != "" {
		t.Errorf("manifests, -oras +confine:\n%s", diff)
	}
}

// An index of one artifact a platform, made and signed with oras and cosign:
// the index is what is signed, and the child for this machine what is read.
func TestIndexMadeByOras(t *testing.T) {
	for kind, start := range kinds() {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			d, s := newDesk(t), start(t)
			d.keys(cosign3Key, "ci")
			ours, theirs := d.example("nginx.json")[0], d.example("worker.json")[0]
			other := map[string]string{"amd64": "arm64"}[runtime.GOARCH]
			if other == "" {
				other = "amd64"
			}
			for arch, file := range map[string]string{runtime.GOARCH: ours, other: theirs} {
				d.orasPush(s.repo("web"), arch, "--artifact-platform", "linux/"+arch, "--artifact-type", typeBundle, file+":"+typeSeccomp)
			}
			d.run("oras", "manifest", "index", "create", s.repo("web")+":1", "amd64", "arm64")
			ref := d.run("confine", "resolve", s.repo("web")+":1")
			policy := d.policy(trusting{repositories: []string{s.host + "/profiles/*"}, keys: []string{"ci.pub"}})

			// A signature of the child says nothing about the index.
			d.sign(signings(t)["cosign 3.1"], "ci", d.run("confine", "resolve", s.repo("web")+":"+runtime.GOARCH))
			d.refuses(reason.SignatureMissing, ref, policy)
			d.sign(signings(t)["cosign 3.1"], "ci", ref)
			d.accepts(ref, policy, ours)
		})
	}
}

func (d *desk) decode(into any, text string) {
	d.t.Helper()
	if err := json.Unmarshal([]byte(text), into); err != nil {
		d.t.Fatalf("no JSON: %v\n%s", err, text)
	}
}
