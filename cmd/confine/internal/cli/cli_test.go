package cli

import (
	"bytes"
	"encoding/json"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/registry"
)

const examples = "../../../../examples/profiles"

// bench is one user's folder, a registry on loopback, and what a user types.
type bench struct {
	t    *testing.T
	dir  string
	host string
	env  map[string]string
}

func newBench(t *testing.T) *bench {
	t.Helper()
	server := httptest.NewServer(registry.New(registry.WithReferrersSupport(true), registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(server.Close)
	b := &bench{t: t, dir: t.TempDir(), host: strings.TrimPrefix(server.URL, "http://"), env: map[string]string{"COSIGN_PASSWORD": "hunter2secret"}}
	t.Chdir(b.dir)
	return b
}

type result struct {
	code     int
	out, err string
}

// confine runs one command line. Whatever it prints, the password is not in it.
func (b *bench) confine(args ...string) result {
	b.t.Helper()
	var out, errs bytes.Buffer
	code := Run(b.t.Context(), append([]string{"confine"}, args...), Streams{
		In: strings.NewReader(""), Out: &out, Err: &errs,
		LookupEnv: func(name string) (string, bool) { v, ok := b.env[name]; return v, ok },
	})
	r := result{code: code, out: out.String(), err: errs.String()}
	if password := b.env["COSIGN_PASSWORD"]; password != "" && strings.Contains(r.out+r.err, password) {
		b.t.Errorf("confine %s prints the password:\n%s%s", strings.Join(args, " "), r.out, r.err)
	}
	return r
}

func (b *bench) must(args ...string) string {
	b.t.Helper()
	r := b.confine(args...)
	if r.code != ExitOK {
		b.t.Fatalf("confine %s: exit %d\n%s%s", strings.Join(args, " "), r.code, r.out, r.err)
	}
	return r.out
}

func (b *bench) repo(name string) string { return b.host + "/profiles/" + name }

func lastLine(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return lines[len(lines)-1]
}

func example(t *testing.T, name string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join(examples, name))
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// policy writes a TrustPolicy that trusts cosign.pub.
func (b *bench) policy() string {
	b.t.Helper()
	pub, err := os.ReadFile("cosign.pub")
	if err != nil {
		b.t.Fatal(err)
	}
	text := `apiVersion: confine.dev/v1alpha1
kind: TrustPolicy
metadata: {name: web}
spec:
  repositories: ["` + b.host + `/profiles/*"]
  namespaces: [web, shop]
  threshold: 1
  allowedKinds: [seccomp, apparmor, selinux]
  signers:
  - name: team
    key:
      pem: |
        ` + strings.ReplaceAll(strings.TrimSpace(string(pub)), "\n", "\n        ") + "\n"
	if err := os.WriteFile("trust.yaml", []byte(text), 0o600); err != nil {
		b.t.Fatal(err)
	}
	return "trust.yaml"
}

func TestPushVerifyPull(t *testing.T) {
	file := example(t, "nginx.json") // before the folder changes
	bundle := []string{example(t, "nginx.aa"), example(t, "nginx.cil")}
	b := newBench(t)
	b.must("keygen")
	first := lastLine(b.must("push", b.repo("web")+":1.0.0", file, "--key", "cosign.key"))
	again := lastLine(b.must("push", b.repo("web")+":again", file, "--key", "cosign.key"))
	if first != again || !strings.HasPrefix(first, b.repo("web")+"@sha256:") {
		t.Errorf("pushed %s, then %s", first, again)
	}
	if got := strings.TrimSpace(b.must("resolve", b.repo("web")+":1.0.0")); got != first {
		t.Errorf("resolved %s", got)
	}
	policy := b.policy()
	if out := b.must("verify", first, "--policy", policy, "-n", "web"); !strings.Contains(out, "web/team") || !strings.Contains(out, "nginx.json") {
		t.Errorf("verify printed\n%s", out)
	}
	b.must("pull", first, "--policy", policy, "-n", "web", "-o", "out")
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile("out/nginx.json")
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("pulled other bytes (%v)", err)
	}

	all := lastLine(b.must(append([]string{"push", b.repo("all") + ":1.0.0", file, "--key", "cosign.key"}, bundle...)...))
	var verified struct{ Profiles []payload }
	if err := json.Unmarshal([]byte(b.must("verify", all, "--policy", policy, "-n", "web", "-o", "json")), &verified); err != nil {
		t.Fatal(err)
	}
	var kinds []string
	for _, p := range verified.Profiles {
		kinds = append(kinds, p.Kind)
	}
	if diff := cmp.Diff([]string{"apparmor", "selinux", "seccomp"}, kinds); diff != "" {
		t.Error(diff)
	}
	// The names of the profiles say web: no other namespace may have them.
	for name, file := range map[string]string{"AppArmor": bundle[0], "SELinux": bundle[1]} {
		one := lastLine(b.must("push", b.repo(strings.ToLower(name))+":1.0.0", file, "--key", "cosign.key"))
		b.must("verify", one, "--policy", policy, "-n", "web")
		r := b.confine("verify", one, "--policy", policy, "-n", "shop")
		if r.code != ExitRefused || !strings.Contains(r.err, "ProfileForbidden") || !strings.Contains(r.err, "the namespace web") {
			t.Errorf("%s for another namespace: exit %d\n%s", name, r.code, r.err)
		}
	}
	if out := b.must("inspect", all); !strings.Contains(out, "not verified") || !strings.Contains(out, "signature sha256:") || !strings.Contains(out, "nginx.cil") {
		t.Errorf("inspect printed\n%s", out)
	}
}

func TestRefusalsSayReasonAndWhatToDo(t *testing.T) {
	file, tight := example(t, "nginx.json"), example(t, "worker.json")
	b := newBench(t)
	b.must("keygen")
	policy := b.policy()
	signed := lastLine(b.must("push", b.repo("web")+":1.0.0", file, "--key", "cosign.key"))
	unsigned := lastLine(b.must("push", b.repo("unsigned")+":1.0.0", tight))
	if err := os.WriteFile("bad.json", []byte("{\n  \"defaultAction\": \"SCMP_ACT_DENY\"\n}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile("broken.yaml", []byte("kind: ["), 0o600); err != nil {
		t.Fatal(err)
	}
	absent := b.repo("web") + "@sha256:" + strings.Repeat("0", 64)
	for name, tc := range map[string]struct {
		args []string
		code int
		want []string
	}{
		"unsigned":          {[]string{"verify", unsigned, "--policy", policy, "-n", "web"}, ExitRefused, []string{"SignatureMissing", "confine push --key"}},
		"another namespace": {[]string{"verify", signed, "--policy", policy, "-n", "db"}, ExitRefused, []string{"NoTrustPolicy", "TrustPolicy"}},
		"no digest":         {[]string{"verify", b.repo("web") + ":1.0.0", "--policy", policy}, ExitRefused, []string{"digest", "confine resolve"}},
		"absent":            {[]string{"verify", absent, "--policy", policy, "-n", "web"}, ExitRefused, []string{"ArtifactNotFound"}},
		"broken policy":     {[]string{"verify", signed, "--policy", "broken.yaml"}, ExitRefused, []string{"TrustPolicyInvalid", "broken.yaml"}},
		"policy not there":  {[]string{"verify", signed, "--policy", "nowhere.yaml"}, ExitRefused, []string{"TrustPolicyInvalid", "nowhere.yaml"}},
		"bad profile":       {[]string{"push", b.repo("bad") + ":1", "bad.json"}, ExitRefused, []string{"ProfileInvalid", "bad.json:2:"}},
		"unreachable":       {[]string{"resolve", "127.0.0.1:1/profiles/web:1"}, ExitRetry, []string{"RegistryUnavailable"}},
		"existing keys":     {[]string{"keygen"}, ExitRefused, []string{"exists already"}},
		"unknown command":   {[]string{"psuh"}, ExitUsage, []string{"psuh", "--help"}},
		"unknown flag":      {[]string{"push", "--kye", "x"}, ExitUsage, []string{"--kye", "usage:"}},
		"no policy":         {[]string{"verify", signed}, ExitUsage, []string{"policy"}},
		"no tag":            {[]string{"push", b.repo("web"), file}, ExitUsage, []string{"REPOSITORY:TAG"}},
		"no file":           {[]string{"push", b.repo("web") + ":1"}, ExitUsage, []string{"usage:"}},
		"file not there":    {[]string{"push", b.repo("web") + ":1", "nowhere.json"}, ExitRefused, []string{"nowhere.json"}},
		"unknown output":    {[]string{"verify", signed, "--policy", policy, "-o", "xml"}, ExitUsage, []string{"xml", "json, yaml"}},
		"scheme":            {[]string{"resolve", "https://" + b.host + "/a/b:1"}, ExitRefused, []string{"https://"}},
	} {
		t.Run(name, func(t *testing.T) {
			r := b.confine(tc.args...)
			if r.code != tc.code {
				t.Errorf("exit %d, want %d\n%s%s", r.code, tc.code, r.out, r.err)
			}
			for _, want := range tc.want {
				if !strings.Contains(r.err, want) {
					t.Errorf("stderr lacks %q:\n%s", want, r.err)
				}
			}
		})
	}
}

func TestWrongPasswordsOpenNothing(t *testing.T) {
	file := example(t, "nginx.json")
	b := newBench(t)
	b.must("keygen")
	b.env["COSIGN_PASSWORD"] = "notthepassword"
	r := b.confine("push", b.repo("web")+":1", file, "--key", "cosign.key")
	if r.code != ExitRefused || !strings.Contains(r.err, "COSIGN_PASSWORD") {
		t.Errorf("exit %d: %s", r.code, r.err)
	}
	delete(b.env, "COSIGN_PASSWORD")
	r = b.confine("push", b.repo("web")+":1", file, "--key", "cosign.key")
	if r.code != ExitRefused || !strings.Contains(r.err, "set COSIGN_PASSWORD") {
		t.Errorf("exit %d: %s", r.code, r.err)
	}
	if r := b.confine("resolve", b.repo("web")+":1"); r.code == ExitOK {
		t.Error("something was pushed without its signature")
	}
}

func TestKeygenKeepsThePrivateKeyPrivate(t *testing.T) {
	b := newBench(t)
	b.must("keygen", "--output-key-prefix", "k")
	info, err := os.Stat("k.key")
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, error %v", info.Mode(), err)
	}
}

func TestLint(t *testing.T) {
	good := example(t, "nginx.json")
	b := newBench(t)
	for name, data := range map[string]string{
		"open.json":    `{"defaultAction":"SCMP_ACT_ALLOW"}`,
		"twice.json":   `{"defaultAction":"SCMP_ACT_ERRNO","defaultAction":"SCMP_ACT_ALLOW"}`,
		"dialect.json": `{"defaultAction":"SCMP_ACT_ERRNO","archMap":[]}`,
		"deny.aa":      "profile confine.web.x {\n  mount,\n}\n",
		"broken.aa":    "profile confine.web.x {\n  frobnicate,\n}\n",
		"type.cil":     "(block confine_web_x (blockinherit container) (type y))\n",
		"broken.cil":   "(block confine_web_x\n",
		"typo.json":    `{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["opneat"],"action":"SCMP_ACT_ALLOW"}]}`,
	} {
		if err := os.WriteFile(name, []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, tc := range map[string]struct {
		args []string
		code int
		want string
	}{
		"good":              {[]string{good}, ExitOK, "valid seccomp profile"},
		"forbidden":         {[]string{"open.json"}, ExitOK, "forbidden by the default constraints"},
		"strict":            {[]string{"open.json", "--strict"}, ExitRefused, "forbidden by the default constraints"},
		"repeated key":      {[]string{good, "twice.json"}, ExitRefused, "twice.json:1:"},
		"dialect":           {[]string{"dialect.json"}, ExitRefused, "--flatten"},
		"unknown name":      {[]string{"typo.json"}, ExitOK, "openat"},
		"as JSON":           {[]string{"twice.json", "-o", "json"}, ExitRefused, `"reason": "ProfileInvalid"`},
		"AppArmor":          {[]string{"deny.aa"}, ExitOK, "mount"},
		"AppArmor, strict":  {[]string{"deny.aa", "--strict"}, ExitRefused, "forbidden by the default constraints"},
		"AppArmor, invalid": {[]string{"broken.aa"}, ExitRefused, "broken.aa:2:"},
		"SELinux, strict":   {[]string{"type.cil", "--strict"}, ExitRefused, "type.cil:1:"},
		"SELinux, invalid":  {[]string{"broken.cil"}, ExitRefused, "broken.cil:1:"},
		"not there":         {[]string{"nowhere.json"}, ExitRefused, "nowhere.json"},
		"no extension":      {[]string{"cosign"}, ExitRefused, "cosign"},
		"many and YAML":     {[]string{good, "typo.json", "-o", "yaml"}, ExitOK, "valid: true"},
	} {
		t.Run(name, func(t *testing.T) {
			r := b.confine(append([]string{"lint"}, tc.args...)...)
			if r.code != tc.code || !strings.Contains(r.out, tc.want) {
				t.Errorf("exit %d, want %d and %q:\n%s%s", r.code, tc.code, tc.want, r.out, r.err)
			}
		})
	}
}

func TestDiff(t *testing.T) {
	v1, v2 := example(t, "nginx.json"), example(t, "nginx-unprivileged.json")
	b := newBench(t)
	pushed := lastLine(b.must("push", b.repo("web")+":1.0.0", v1))
	for name, args := range map[string][]string{
		"files":              {v1, v2},
		"reference and file": {pushed, v2},
		"tag and file":       {b.repo("web") + ":1.0.0", v2},
	} {
		t.Run(name, func(t *testing.T) {
			r := b.confine(append([]string{"diff"}, args...)...)
			if r.code != ExitRefused || !strings.Contains(r.out, "- ") || !strings.Contains(r.out, "mkdir") || r.err != "" {
				t.Errorf("exit %d\n%s%s", r.code, r.out, r.err)
			}
		})
	}
	if out := b.must("diff", v1, pushed); !strings.Contains(out, "both allow the same") {
		t.Errorf("diff printed %s", out)
	}
	if out := b.must("diff", v1, v1, "-o", "json"); strings.TrimSpace(out) != "[]" {
		t.Errorf("diff printed %s", out)
	}
}

func TestCredentialHelpersAreWarnedOf(t *testing.T) {
	b := newBench(t)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Www-Authenticate", `Basic realm="registry"`)
		w.WriteHeader(http.StatusUnauthorized)
	}))
	t.Cleanup(server.Close)
	if err := os.WriteFile("config.json", []byte(`{"credsStore":"desktop"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	r := b.confine("resolve", strings.TrimPrefix(server.URL, "http://")+"/profiles/web:1", "--docker-config", "config.json")
	if r.code != ExitRefused || !strings.Contains(r.err, "Unauthorized") || !strings.Contains(r.err, "warning: the docker config file leaves credentials to a helper") {
		t.Errorf("exit %d\n%s", r.code, r.err)
	}
}

func TestEveryCommandExplainsItself(t *testing.T) {
	b := newBench(t)
	help := b.must("--help")
	for _, command := range []string{"push", "pull", "verify", "inspect", "resolve", "lint", "diff", "run", "status", "rollout", "why", "node", "keygen", "completion", "version"} {
		if !strings.Contains(help, "\n  "+command+" ") {
			t.Errorf("--help does not list %s", command)
		}
		if out := b.must(command, "--help"); !strings.Contains(out, "Usage:") {
			t.Errorf("%s --help printed %s", command, out)
		}
	}
	if !strings.Contains(help, "Exit codes") {
		t.Error("--help does not list the exit codes")
	}
	b.must("completion", "bash")
	b.must("version", "-o", "json")
}
