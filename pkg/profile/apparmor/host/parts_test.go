//go:build !lsm_apparmor

package host

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/profile/profiletest"
	"github.com/confine-dev/confine/pkg/reason"
	"github.com/confine-dev/confine/pkg/sandbox"
)

// stand is a program in place of apparmor_parser.
func stand(t *testing.T, script string) parser {
	t.Helper()
	dir, err := os.MkdirTemp("", "confine-parser-") //nolint:usetesting // the child is another user
	must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	must(t, os.Chmod(dir, 0o755))
	file := filepath.Join(dir, "apparmor_parser")
	must(t, os.WriteFile(file, []byte("#!/bin/sh\n"+script), 0o755))
	return parser{path: file, time: 10 * time.Second, memory: 256 << 20}
}

func TestParserIsBounded(t *testing.T) {
	for name, c := range map[string]struct {
		script  string
		time    time.Duration
		want    error
		summary string // of the log, in the message
	}{
		"a syntax error": {script: "echo 'some warning' >&2; echo 'AppArmor parser error at line 2: syntax error' >&2; exit 1",
			want: reason.ProfileInvalid, summary: "AppArmor parser error at line 2: syntax error"},
		"no word":               {script: "exit 1", want: reason.ProfileInvalid, summary: "it gave no reason"},
		"a bell":                {script: `printf 'error: \007\033[2J' >&2; exit 1`, want: reason.ProfileInvalid, summary: "error: ??[2J"},
		"time without end":      {script: "exec sleep 1000", time: 200 * time.Millisecond, want: reason.InstallFailed, summary: "had not compiled it"},
		"children":              {script: "sleep 1000 & sleep 1000 & wait", want: reason.ProfileInvalid, summary: "fork"},
		"processor without end": {script: "while :; do :; done", time: 200 * time.Millisecond, want: reason.InstallFailed, summary: "had not compiled it"},
		"memory without end":    {script: "a=xxxxxxxxxxxxxxxx; while :; do a=$a$a; done", want: reason.ProfileInvalid},
		"output without end":    {script: "exec cat /dev/zero", want: reason.ProfileInvalid, summary: "larger than"},
		"log without end":       {script: "i=0; while [ $i -lt 30000 ]; do echo " + strings.Repeat("x", 100) + "; i=$((i+1)); done >&2; exit 1", want: reason.ProfileInvalid, summary: "xxxx"},
		"a file":                {script: "echo x > /tmp/confine-parser-wrote || exit 1", want: reason.ProfileInvalid},
		"a dump of its memory":  {script: "kill -SEGV $$", want: reason.ProfileInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			p := stand(t, c.script)
			if c.time > 0 {
				p.time = c.time
			}
			start := time.Now()
			_, err := p.compile(t.Context(), profile.File{Name: "web.aa", Data: []byte("profile x {}\n")})
			if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.summary) {
				t.Errorf("error %v, want %v with %q", err, c.want, c.summary)
			}
			if len(err.Error()) > 600 {
				t.Errorf("a message of %d bytes", len(err.Error()))
			}
			if spent := time.Since(start); spent > p.time+5*time.Second {
				t.Errorf("it took %s", spent)
			}
		})
	}
}

func TestParserGetsTheTextAndNothingElse(t *testing.T) {
	t.Setenv("CONFINE_SECRET", "secret")
	p := stand(t, "while read -r line; do echo \"$line\"; done; export; ulimit -v; ulimit -c; while read -r line; do case $line in Uid:*) echo \"$line\";; esac; done < /proc/self/status")
	out, err := p.compile(t.Context(), profile.File{Name: "web.aa", Data: []byte("the text\n")})
	must(t, err)
	if !strings.HasPrefix(string(out), "the text\n") || strings.Contains(string(out), "secret") {
		t.Errorf("output %q", out)
	}
	if !strings.Contains(string(out), "\n262144\n0\nUid:") {
		t.Errorf("limits: %q", out)
	}
	if os.Geteuid() == 0 && !strings.Contains(string(out), fmt.Sprintf("\nUid:\t%[1]d\t%[1]d\t", sandbox.Nobody)) {
		t.Errorf("it is not nobody: %q", out)
	}
}

func TestParserErrorHoldsTheLog(t *testing.T) {
	p := stand(t, "echo first >&2; echo 'error: second' >&2; exit 3")
	_, err := p.compile(t.Context(), profile.File{Name: "web.aa"})
	failed, ok := errors.AsType[*ParserError](err)
	if !ok || failed.Log != "first\nerror: second\n" || failed.Summary != "error: second" {
		t.Errorf("%#v in %v", failed, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := p.compile(ctx, profile.File{Name: "web.aa"}); !errors.Is(err, context.Canceled) {
		t.Errorf("with an ended context: %v", err)
	}
	if _, err := (parser{path: "/none"}).compile(t.Context(), profile.File{}); !errors.Is(err, reason.KindUnsupported) {
		t.Errorf("without a parser: %v", err)
	}
}

func TestNamesOf(t *testing.T) {
	for label, want := range map[string][]string{
		"unconfined\n":                       nil,
		"":                                   nil,
		"docker-default (enforce)\n":         {"docker-default"},
		"a//&b//c (complain)\n":              {"a", "b//c"},
		":ns://a (enforce)":                  {"a"},
		":ns:a//&:other://b (mixed)":         {"a", "b"},
		"a (unconfined)\x00":                 {"a"},
		"/usr/bin/man//man_filter (enforce)": {"/usr/bin/man//man_filter"},
	} {
		if diff := cmp.Diff(want, namesOf(label)); diff != "" {
			t.Errorf("%q (-want +got):\n%s", label, diff)
		}
	}
}

func TestRemovalWaitsForProcesses(t *testing.T) {
	k, root, proc := newMemoryKernel(), fastDir(t), t.TempDir()
	h, err := open(Options{Root: root}, k, memoryCompiler{})
	must(t, err)
	h.proc = proc
	web := profile.Owner{Namespace: "shop", Name: "web"}
	must(t, h.Install(t.Context(), []profile.Unit{unit(web, profiletest.First)})[0].Err)
	attr := filepath.Join(proc, "42", "task", "43", "attr", "apparmor")
	must(t, errors.Join(os.MkdirAll(attr, 0o755), os.Mkdir(filepath.Join(proc, "1"), 0o755)))
	must(t, os.WriteFile(filepath.Join(attr, "current"), []byte("confine.shop.web.worker//child (enforce)\n"), 0o600))
	before, err := state(root, k)
	must(t, err)
	for name, act := range map[string]func() profile.Outcome{
		"remove": func() profile.Outcome { return h.Remove(t.Context(), []profile.Owner{web})[0] },
		"an update that drops it": func() profile.Outcome {
			return h.Install(t.Context(), []profile.Unit{unit(web, profiletest.Fewer)})[0]
		},
	} {
		got := act()
		if !errors.Is(got.Err, reason.InstallFailed) || got.Changed || !strings.Contains(got.Err.Error(), "process 42") {
			t.Errorf("%s: %+v", name, got)
		}
		wantSame(t, before, root, k)
	}
	h.proc = filepath.Join(proc, "none")
	if got := h.Remove(t.Context(), []profile.Owner{web})[0]; got.Err == nil {
		t.Error("removed without knowing who uses it")
	}
	must(t, os.RemoveAll(filepath.Join(proc, "42")))
	h.proc = proc
	if got := h.Remove(t.Context(), []profile.Owner{web})[0]; got.Err != nil || !got.Changed {
		t.Errorf("once the process ended: %+v", got)
	}
}

func FuzzReadCompiled(f *testing.F) {
	f.Add(binaryOf("confine.shop.web", []byte("rules")))
	f.Add([]byte("\x04\x08\x00version\x00\x02\x07\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, data []byte) {
		profiles, err := readCompiled(data)
		if err == nil && len(profiles) == 0 {
			t.Error("no error and nothing found")
		}
		for _, p := range profiles {
			if err == nil && (p.name == "" || strings.ContainsRune(p.name, 0)) {
				t.Errorf("the name %q", p.name)
			}
		}
	})
}
