package interop_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"

	"github.com/confine-dev/confine/pkg/reason"
)

// commandTimeout ends a program that hangs; it decides no test that passes.
const commandTimeout = 2 * time.Minute

// password is that of all private keys here.
const password = "correct horse"

// namespace is the one that all policies and requests here are for.
const namespace = "web"

// desk is one test's place of work: a folder, and an environment in which
// programs find nothing of the machine's user and reach loopback alone.
type desk struct {
	t   *testing.T
	dir string
	env []string
}

// newDesk returns an empty desk. What its programs ask of the world outside of
// loopback is refused, and fails the test at its end.
func newDesk(t *testing.T) *desk {
	t.Helper()
	d := &desk{t: t, dir: t.TempDir()}
	gate := newGate(t, nil)
	d.env = []string{
		"PATH=/usr/bin:/bin", "HOME=" + d.path("home"), "COSIGN_PASSWORD=" + password,
		"HTTPS_PROXY=" + gate.URL, "HTTP_PROXY=" + gate.URL,
	}
	if err := os.Mkdir(d.path("home"), 0o700); err != nil {
		t.Fatal(err)
	}
	return d
}

// with returns the same desk with more environment.
func (d *desk) with(env ...string) *desk {
	c := *d
	c.env = append(slices.Clone(d.env), env...)
	return &c
}

// in returns the same desk for another test, usually a sub-test.
func (d *desk) in(t *testing.T) *desk {
	t.Helper()
	c := *d
	c.t = t
	return &c
}

func (d *desk) path(name string) string { return filepath.Join(d.dir, name) }

func (d *desk) write(name string, data []byte) string {
	d.t.Helper()
	if err := os.WriteFile(d.path(name), data, 0o600); err != nil {
		d.t.Fatal(err)
	}
	return d.path(name)
}

func (d *desk) read(name string) []byte {
	d.t.Helper()
	data, err := os.ReadFile(filepath.Join(d.dir, name))
	if err != nil {
		d.t.Fatal(err)
	}
	return data
}

// example copies profiles from examples/ onto the desk, and returns their
// names: oras takes relative paths alone.
func (d *desk) example(names ...string) []string {
	d.t.Helper()
	for _, name := range names {
		data, err := os.ReadFile(examples(d.t, "profiles", name))
		if err != nil {
			d.t.Fatal(err)
		}
		d.write(name, data)
	}
	return names
}

// outcome is how a program ended.
type outcome struct {
	stdout, stderr string
	code           int
}

// try runs a program of the lab on the desk.
func (d *desk) try(program string, args ...string) outcome {
	d.t.Helper()
	return d.start(lab(d.t, program), args...)
}

func (d *desk) start(program string, args ...string) outcome {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(d.t.Context(), commandTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir, cmd.Env = d.dir, d.env
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		d.t.Fatalf("%s: %v", program, err)
	}
	return outcome{stdout: stdout.String(), stderr: stderr.String(), code: cmd.ProcessState.ExitCode()}
}

// run is try for what must succeed; it returns standard output without the
// last newline.
func (d *desk) run(program string, args ...string) string {
	d.t.Helper()
	return d.succeeded(d.try(program, args...), program, args)
}

func (d *desk) succeeded(got outcome, program string, args []string) string {
	d.t.Helper()
	if got.code != 0 {
		d.t.Fatalf("%s %s: exit code %d\n%s%s", filepath.Base(program), strings.Join(args, " "), got.code, got.stdout, got.stderr)
	}
	return strings.TrimSuffix(got.stdout, "\n")
}

// trusting says whom a policy trusts for what.
type trusting struct {
	repositories []string
	keys         []string // public key files on the desk
	threshold    int      // 0 means 1
	kinds        []string // nil means seccomp
}

// policy writes a TrustPolicy and returns its file.
func (d *desk) policy(want trusting) string {
	d.t.Helper()
	signers := make([]map[string]any, 0, len(want.keys))
	for _, file := range want.keys {
		signers = append(signers, map[string]any{
			"name": strings.TrimSuffix(file, ".pub"),
			"key":  map[string]any{"pem": string(d.read(file))},
		})
	}
	if want.kinds == nil {
		want.kinds = []string{"seccomp"}
	}
	data, err := yaml.Marshal(map[string]any{
		"apiVersion": "confine.dev/v1alpha1",
		"kind":       "TrustPolicy",
		"metadata":   map[string]any{"name": "web"},
		"spec": map[string]any{
			"repositories": want.repositories,
			"namespaces":   []string{namespace},
			"threshold":    max(want.threshold, 1),
			"allowedKinds": want.kinds,
			"signers":      signers,
		},
	})
	if err != nil {
		d.t.Fatal(err)
	}
	f, err := os.CreateTemp(d.dir, "policy-*.yaml")
	if err != nil {
		d.t.Fatal(err)
	}
	_, err = f.Write(data)
	if err := errors.Join(err, f.Close()); err != nil {
		d.t.Fatal(err)
	}
	return f.Name()
}

// verified is what `confine verify -o json` prints, as far as it is looked at.
type verified struct {
	Annotations map[string]string `json:"annotations"`
	Signatures  []struct {
		Signers []string `json:"signers"`
		Form    string   `json:"form"`
	} `json:"signatures"`
	Profiles []struct {
		File string `json:"file"`
		Kind string `json:"kind"`
	} `json:"profiles"`
}

// accepts holds that confine verifies ref under the policy, and pulls exactly
// the files of the desk that are named.
func (d *desk) accepts(ref, policy string, files ...string) verified {
	d.t.Helper()
	var got verified
	out := d.run("confine", "verify", ref, "--policy", policy, "--namespace", namespace, "-o", "json")
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		d.t.Fatalf("confine verify -o json: %v\n%s", err, out)
	}
	into := d.freshFolder()
	d.run("confine", "pull", ref, "--policy", policy, "--namespace", namespace, "-o", into)
	d.holds(into, files...)
	return got
}

// holds compares a folder with files of the desk: these and no others, byte by byte.
func (d *desk) holds(folder string, files ...string) {
	d.t.Helper()
	want, got := map[string]string{}, map[string]string{}
	for _, file := range files {
		want[file] = string(d.read(file))
	}
	entries, err := os.ReadDir(folder)
	if err != nil {
		d.t.Fatal(err)
	}
	for _, entry := range entries {
		data, err := os.ReadFile(filepath.Join(folder, entry.Name()))
		if err != nil {
			d.t.Fatal(err)
		}
		got[entry.Name()] = string(data)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		d.t.Errorf("files in the folder, -want +got:\n%s", diff)
	}
}

// freshFolder names a folder that does not exist yet.
func (d *desk) freshFolder() string {
	d.t.Helper()
	parent, err := os.MkdirTemp(d.dir, "out-")
	if err != nil {
		d.t.Fatal(err)
	}
	return filepath.Join(parent, "profiles")
}

// refuses holds that neither verify nor pull accept ref, both for the reason
// and with its exit code, and that pull leaves nothing on disk. It returns
// what verify said.
func (d *desk) refuses(why reason.Reason, ref, policy string, flags ...string) string {
	d.t.Helper()
	into := d.freshFolder()
	flags = append([]string{ref, "--policy", policy, "--namespace", namespace}, flags...)
	said := d.isRefusal(why, d.try("confine", append([]string{"verify"}, flags...)...))
	d.isRefusal(why, d.try("confine", append([]string{"pull", "-o", into}, flags...)...))
	if _, err := os.Lstat(into); !errors.Is(err, os.ErrNotExist) {
		d.t.Errorf("the refused pull left %s behind (%v)", into, err)
	}
	return said
}

// isRefusal holds that a confine command refused for the reason, said what to
// do, and ended with the exit code that `confine --help` documents.
func (d *desk) isRefusal(why reason.Reason, got outcome) string {
	d.t.Helper()
	wantCode := 1
	if why.Fate() == reason.Retry {
		wantCode = 3
	}
	if got.code != wantCode {
		d.t.Errorf("exit code %d, want %d\n%s%s", got.code, wantCode, got.stdout, got.stderr)
	}
	if !strings.HasPrefix(got.stderr, "error: "+string(why)+": ") {
		d.t.Errorf("the reason is not %s:\n%s", why, got.stderr)
	}
	if !strings.Contains(got.stderr, "\nwhat to do: ") {
		d.t.Errorf("it is not said what to do:\n%s", got.stderr)
	}
	if got.stdout != "" {
		d.t.Errorf("a refusal printed a result:\n%s", got.stdout)
	}
	return got.stderr
}
