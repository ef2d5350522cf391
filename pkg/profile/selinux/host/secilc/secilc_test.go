package secilc_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/profile/selinux"
	"github.com/confine-dev/confine/pkg/profile/selinux/host/secilc"
	"github.com/confine-dev/confine/pkg/profile/selinux/internal/policydb"
	"github.com/confine-dev/confine/pkg/sandbox"
)

// installed is the machine's compiler; hosts may be without it. Under CI=true that is
// a failure.
func installed(t *testing.T, o secilc.Options) *secilc.Compiler {
	t.Helper()
	c := secilc.New(o)
	if err := c.Supported(); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skipf("%v: apt-get install secilc", err)
	}
	return c
}

// base is the least policy that compiles.
func base(t *testing.T) []byte {
	t.Helper()
	p, err := selinux.Parse("x.cil", []byte("(block confine_web_x (blockinherit container))"))
	if err != nil {
		t.Fatal(err)
	}
	r, err := selinux.Rehearse(p)
	if err != nil {
		t.Fatal(err)
	}
	return r.Base
}

func TestCompiles(t *testing.T) {
	c := installed(t, secilc.Options{})
	made, err := c.Compile(t.Context(), false, base(t), []byte("(type one)"), []byte("(type two)"))
	if err != nil {
		t.Fatal(err)
	}
	if p, err := policydb.Read(made); err != nil || strings.Join(p.Types, " ") != "confine-t one two" {
		t.Errorf("%+v, %v", p, err)
	}
	if _, err := c.Compile(t.Context(), true, base(t)); err == nil {
		t.Error("with qualified names there are no blocks")
	}
	again, err := c.Compile(t.Context(), false, base(t), []byte("(type one)"), []byte("(type two)"))
	if err != nil || !bytes.Equal(made, again) {
		t.Errorf("the same texts make another policy: %v", err)
	}
}

func TestRefusalsSayWhere(t *testing.T) {
	c := installed(t, secilc.Options{})
	for name, tc := range map[string]struct {
		text, says string
		line       int
	}{
		"a rule":             {"\n\n(allow confine-t nosuch_t (confine-class (confine-permission)))", "Failed to resolve allow statement", 3},
		"a block twice":      {"(block a)\n(block a)", "Re-declaration of block a", 2},
		"a type of the base": {"(type confine-t)\n", "Re-declaration of type confine-t", 1},
		"not closed":         {"(block a\n", "Open parenthesis without matching close", 2},
		"a character":        {"\n(block \\a)", `Invalid token '\'`, 2},
		"a keyword":          {"(frobnicate)", "Error: Unknown keyword frobnicate", 0},
		"deep":               {strings.Repeat("(", profile.MaxPayloadBytes), "Number of open parenthesis exceeds limit of 4096", 1},
		"nothing closed":     {strings.Repeat("(", 4000), "Open parenthesis without matching close", 1},
		"a long name":        {"(type " + strings.Repeat("a", 1<<20) + ")", "Name length greater than max name length", 1},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := c.Compile(t.Context(), false, base(t), []byte(tc.text))
			refused, said := errors.AsType[*secilc.Error](err)
			if !said {
				t.Fatalf("got %v", err)
			}
			if !strings.HasPrefix(refused.Summary, tc.says) || len(refused.Summary) > 200 || len(refused.Log) > 64<<10 ||
				strings.Contains(refused.Summary, "/proc") {
				t.Errorf("it says %q", refused.Summary)
			}
			if got := refused.Line(1); got != tc.line {
				t.Errorf("line %d, want %d, of %q", got, tc.line, refused.Log[:min(len(refused.Log), 500)])
			}
			if at := refused.Line(7); at != 0 {
				t.Errorf("line %d of a text that there is not", at)
			}
		})
	}
}

func TestNotThere(t *testing.T) {
	c := secilc.New(secilc.Options{HostRoot: t.TempDir()})
	if err := c.Supported(); !errors.Is(err, exec.ErrNotFound) {
		t.Errorf("supported: %v", err)
	}
	if _, err := c.Compile(t.Context(), false); !errors.Is(err, exec.ErrNotFound) {
		t.Errorf("compile: %v", err)
	}
}

func TestEnded(t *testing.T) {
	c := installed(t, secilc.Options{Time: time.Nanosecond})
	if _, err := c.Compile(t.Context(), false, base(t)); !errors.Is(err, secilc.ErrLimit) {
		t.Errorf("out of time: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Compile(ctx, false, base(t)); !errors.Is(err, context.Canceled) || errors.Is(err, secilc.ErrLimit) {
		t.Errorf("cancelled: %v", err)
	}
}

// TestWhatItMayTake puts programs into the compiler's place that want more than
// there is for them.
func TestWhatItMayTake(t *testing.T) {
	for name, tc := range map[string]struct {
		script string
		limit  bool
	}{
		"forever":        {"while :; do :; done", true},
		"asleep":         {"read -r x < /proc/self/fd/1", true},
		"endless policy": {"while :; do printf %65536s x; done", true},
		"endless log":    {"while :; do printf %65536s x >&2; done", true},
		"its own end":    {"kill -9 $$", false},
		"a file":         {"echo x > /tmp/made-by-the-compiler; exit 1", false},
		"a program":      {"/bin/true && exit 0; exit 1", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bound := time.Minute // which a slow machine must not need
			if tc.limit {
				bound = 2 * time.Second
			}
			c := secilc.WithProgram(secilc.New(secilc.Options{Time: bound}), script(t, tc.script))
			made, err := c.Compile(t.Context(), false, base(t))
			if err == nil || len(made) > 0 {
				t.Fatalf("it made %d bytes", len(made))
			}
			if errors.Is(err, secilc.ErrLimit) != tc.limit {
				t.Errorf("got %v", err)
			}
			// Without Landlock it can make one, and put nothing into it.
			if info, err := os.Stat("/tmp/made-by-the-compiler"); err == nil {
				if info.Size() > 0 {
					t.Error("it wrote a file")
				}
				_ = os.Remove("/tmp/made-by-the-compiler")
			}
		})
	}
}

// TestItIsNobody holds what the child is: another user where this one is root, with no
// capability, no new privileges, a filter, no environment and no other file.
func TestItIsNobody(t *testing.T) {
	c := secilc.WithProgram(secilc.New(secilc.Options{}), script(t, "while read -r line; do echo \"$line\"; done < /proc/self/status; echo PATH=$PATH HOME=$HOME; echo /proc/self/fd/*"))
	made, err := c.Compile(t.Context(), false, base(t))
	if err != nil {
		t.Fatal(err)
	}
	said := strings.Join(strings.Fields(string(made)), " ")
	want := []string{"NoNewPrivs: 1", "Seccomp: 2", "HOME= ", "CapEff: 0000000000000000", "CapPrm: 0000000000000000"}
	if os.Geteuid() == 0 {
		id := strconv.Itoa(sandbox.Nobody)
		want = append(want, "Uid: "+id+" "+id+" "+id, "Groups: NStgid")
	}
	for _, w := range want {
		if !strings.Contains(said, w) {
			t.Errorf("no %q in %s", w, said)
		}
	}
}

// script is a program that everybody may run.
func script(t *testing.T, text string) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "confine-secilc-") //nolint:usetesting // the folders above t.TempDir are closed to other users
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	name := filepath.Join(dir, "secilc")
	if err := errors.Join(os.Chmod(dir, 0o755), os.WriteFile(name, []byte("#!/bin/sh\n"+text+"\n"), 0o755)); err != nil {
		t.Fatal(err)
	}
	return name
}
