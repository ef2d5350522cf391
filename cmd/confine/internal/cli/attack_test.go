package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestVersionsThatNoFloorAcceptsAreNotPushed(t *testing.T) {
	file := example(t, "nginx.json")
	b := newBench(t)
	for flag, value := range map[string]string{"--artifact-version": "v1.4.0", "--name": "Web/nginx"} {
		r := b.confine("push", b.repo("web")+":v1.4.0", file, flag, value)
		if r.code != ExitRefused || !strings.Contains(r.err, "what to do:") {
			t.Errorf("%s %s: exit %d\n%s%s", flag, value, r.code, r.out, r.err)
		}
	}
	if r := b.confine("resolve", b.repo("web")+":v1.4.0"); r.code == ExitOK {
		t.Errorf("it was pushed: %s", r.out)
	}
}

func TestNoTimeIsWrongUsage(t *testing.T) {
	b := newBench(t)
	for _, value := range []string{"0", "0s", "-1s"} {
		r := b.confine("resolve", b.repo("web")+":x", "--timeout", value)
		if r.code != ExitUsage || !strings.Contains(r.err, "--timeout") {
			t.Errorf("--timeout %s: exit %d\n%s", value, r.code, r.err)
		}
	}
}

func TestPullIntoWrongPlaces(t *testing.T) {
	file := example(t, "nginx.json")
	b := newBench(t)
	b.must("keygen")
	ref := lastLine(b.must("push", b.repo("web")+":1", file, "--key", "cosign.key"))
	pull := func(dir string) result { return b.confine("pull", ref, "--policy", b.policy(), "-n", "web", "-o", dir) }

	if err := os.WriteFile("afile", []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := pull("afile")
	if data, _ := os.ReadFile("afile"); r.code != ExitUsage || string(data) != "mine" {
		t.Errorf("into a file: exit %d, %q\n%s", r.code, data, r.err)
	}
	for _, format := range []string{"json", "yaml"} {
		if r := pull(format); r.code != ExitUsage || !strings.Contains(r.err, "./"+format) {
			t.Errorf("-o %s: exit %d\n%s%s", format, r.code, r.out, r.err)
		}
		if exists(format) {
			t.Errorf("the folder %s was made", format)
		}
	}
	// A link under the payload's name is replaced, not followed.
	if err := os.MkdirAll("out", 0o755); err != nil {
		t.Fatal(err)
	}
	victim := filepath.Join(b.dir, "victim")
	if err := os.WriteFile(victim, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(victim, "out/nginx.json"); err != nil {
		t.Fatal(err)
	}
	r = pull("out")
	if data, _ := os.ReadFile(victim); r.code != ExitOK || string(data) != "mine" {
		t.Errorf("over a link: exit %d, %q\n%s", r.code, data, r.err)
	}
	if info, err := os.Lstat("out/nginx.json"); err != nil || !info.Mode().IsRegular() {
		t.Errorf("over a link: %v %v", info, err)
	}
}

func TestOutputDoesNotDrawOnTheTerminal(t *testing.T) {
	file := example(t, "nginx.json")
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	b := newBench(t)
	odd := "a\x1b[31m\u202eb.json"
	warned := strings.Replace(string(data), `"names": [`, `"names": ["no_such_call", `, 1)
	if err := os.WriteFile(odd, []byte(warned), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"push", b.repo("web") + ":1", odd}, {"lint", odd}, {"diff", odd, file}, {"diff", odd, "missing\x1b[2J"}, {"inspect", b.repo("web") + ":1\x1b[2J"}, {"pull", odd, "--policy", odd, "-o", odd}} {
		r := b.confine(args...)
		if strings.ContainsAny(r.out+r.err, "\x1b\u202e") {
			t.Errorf("%q prints %q%q", args, r.out, r.err)
		}
	}
}

func TestRunTakesTheCommandsOwnFlags(t *testing.T) {
	file := example(t, "nginx.json")
	b := newBench(t)
	r := b.confine("run", "--seccomp", file, "no-such-command-here", "-la", "--seccomp", "other")
	if r.code == ExitUsage {
		t.Errorf("exit %d\n%s", r.code, r.err)
	}
}

func TestPasswordsInNamesAreNotRepeated(t *testing.T) {
	file := example(t, "nginx.json")
	b := newBench(t)
	const name = "https://user:pa55word@registry.example.com/profiles/web:1"
	for _, args := range [][]string{
		{"diff", name, file}, {"resolve", name}, {"inspect", name}, {"push", name, file},
		{"verify", name, "--policy", file}, {"pull", name, "--policy", file, "-o", "out"},
	} {
		if r := b.confine(args...); r.code == ExitOK || strings.Contains(r.out+r.err, "pa55word") {
			t.Errorf("%q: exit %d, prints %s%s", args, r.code, r.out, r.err)
		}
	}
}
