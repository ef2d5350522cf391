//go:build lsm_apparmor

package corpus

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/profile/apparmor"
	"github.com/confine-dev/confine/pkg/reason"
)

const policyFolder = "/sys/kernel/security/apparmor/policy"

// furnish makes the machine one on which escapes have something to reach.
func furnish() error {
	var errs []error
	link := func(name string) { // the same program, wherever a text looks for one
		_ = os.Remove(name)
		errs = append(errs, os.MkdirAll(filepath.Dir(name), 0o755), os.Link("/confine-vm/program", name))
	}
	for _, name := range []string{"/bin/sh", "/usr/sbin/sshd", "/home/0/x", "/x", "/srv/x"} {
		link(name)
	}
	errs = append(errs, unix.Setxattr("/usr/sbin/sshd", "security.tag", []byte("x"), 0))
	for _, name := range []string{"/srv/out", "/etc/hostname"} {
		errs = append(errs, os.WriteFile(name, []byte("vm\n"), 0o644))
	}
	for _, name := range []string{"/etc/hostname.none", "/etc/apparmor.d/abstractions/none", "/etc/apparmor.d/local/none",
		"/etc/apparmor.d/usr.bin.none", "/etc/none", "/etc/apparmor.d/etc/none"} {
		errs = append(errs, os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, []byte("/proc/sys/** w,\n"), 0o644))
	}
	errs = append(errs, os.MkdirAll("/sys/fs/cgroup/old", 0o755), unix.Mount("none", "/sys/fs/cgroup/old", "cgroup", 0, "none,name=old"),
		unix.Mount("/proc/sys", "/proc/sys", "", unix.MS_BIND, ""),
		os.WriteFile("/proc/sys/kernel/yama/ptrace_scope", []byte("0"), 0),
		os.WriteFile("/proc/sys/kernel/printk_ratelimit", []byte("0"), 0))
	return errors.Join(errs...)
}

// compiler remembers what the parser made.

type compiler map[string][]byte

// load hands a text to the kernel, with nobody's judgement but the parser's.
func (c compiler) load(t *testing.T, text string) {
	t.Helper()
	if c[text] == nil {
		cmd := exec.Command("apparmor_parser", "-Q", "-K", "-S", "-q")
		cmd.Stdin = strings.NewReader(text)
		out, err := cmd.Output()
		if failed, ok := errors.AsType[*exec.ExitError](err); ok {
			t.Fatalf("the parser: %v: %s\n%s", err, failed.Stderr, text)
		}
		c[text] = out
	}
	if err := os.WriteFile(filepath.Join(policyFolder, "..", ".replace"), c[text], 0); err != nil {
		t.Fatalf("loading: %v\n%s", err, text)
	}
}

// loadWith loads a text and what the host has: before it, where the text takes
// the host's place, else after it.
func (c compiler) loadWith(t *testing.T, d Demo, text string) {
	t.Helper()
	texts := []string{text, d.Host}
	if d.Takes {
		texts = []string{d.Host, text}
	}
	for _, text := range texts {
		if text != "" {
			c.load(t, text)
		}
	}
}

// loadedNames are all profiles that the kernel has, those of namespaces too.
func loadedNames(t *testing.T) []string {
	t.Helper()
	data, err := os.ReadFile("/sys/kernel/security/apparmor/profiles")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for line := range strings.Lines(string(data)) {
		names = append(names, line[:strings.LastIndex(line, " (")])
	}
	return names
}

func unloadAll(t *testing.T) {
	t.Helper()
	for _, name := range loadedNames(t) {
		err := os.WriteFile("/sys/kernel/security/apparmor/.remove", append([]byte(name), 0), 0)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("removing %q: %v", name, err)
		}
	}
	spaces, err := os.ReadDir(filepath.Join(policyFolder, "namespaces"))
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range spaces {
		if err := os.Remove(filepath.Join(policyFolder, "namespaces", s.Name())); err != nil {
			t.Error(err)
		}
	}
}

// actor is this program as another process.
func actor(do Act, on, under string, env ...string) *exec.Cmd {
	cmd := exec.Command("/confine-vm/program")
	cmd.Env = append(env, onEnv+"="+on)
	if under == "" {
		cmd.Env = append(cmd.Env, actEnv+"="+string(do))
	} else {
		cmd.Env = append(cmd.Env, actEnv+"="+string(enter), underEnv+"="+under, "CONFINE_TEST_THEN="+string(do))
	}
	return cmd
}

// victim starts a process under a profile, and returns its ID.
func victim(t *testing.T, under string) string {
	t.Helper()
	if under == "unconfined" {
		under = ""
	}
	cmd := actor(sleep, "", under)
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	if said, err := bufio.NewReader(out).ReadString('\n'); err != nil || said != "ready\n" {
		t.Fatalf("the victim under %q said %q, %v", under, said, err)
	}
	return fmt.Sprint(cmd.Process.Pid)
}

// works does what a demonstration is about, and reports whether it came about,
// with what was said.
func works(t *testing.T, d Demo) (bool, string) {
	t.Helper()
	path, text, _ := strings.Cut(d.On, "=")
	switch d.Do {
	case Loads:
		for _, name := range loadedNames(t) {
			if name == d.On {
				return true, "the kernel has it"
			}
		}
		return false, fmt.Sprintf("%q", loadedNames(t))
	case Catches:
		return labelled(d, actor(label, "", ""))
	case Leave, Change, ChangeExec:
		return labelled(d, actor(d.Do, d.On, d.Under))
	case Trace, PeerEnviron, Signal:
		return done(actor(d.Do, d.On, d.Under, victimEnv+"="+victim(t, d.On)))
	case Killed:
		_, said := done(actor(d.Do, d.On, d.Under))
		return strings.Contains(said, "signal: killed"), said
	case LinkedWrite:
		defer func() { _ = os.Remove(text) }()
	case Noise:
		if yes, said := done(actor(d.Do, d.On, d.Under)); !yes {
			t.Fatalf("reading: %s", said)
		}
		return inKernelLog(t, `apparmor="AUDIT"`)
	case Write, Append:
		before, _ := os.ReadFile(path)
		yes, said := done(actor(d.Do, d.On, d.Under))
		if strings.HasPrefix(path, "/proc/sys/") && text != "" {
			after, err := os.ReadFile(path)
			if err != nil || strings.Contains(string(after), text) != yes {
				t.Errorf("%s holds %q, %v, and the process says %s", path, after, err, said)
			}
			if err := os.WriteFile(path, before, 0); err != nil {
				t.Error(err)
			}
		}
		return yes, said
	}
	return done(actor(d.Do, d.On, d.Under))
}

func done(cmd *exec.Cmd) (bool, string) {
	out, err := cmd.CombinedOutput()
	return err == nil && strings.HasSuffix(string(out), "yes\n"), fmt.Sprintf("%s (%v)", out, err)
}

func labelled(d Demo, cmd *exec.Cmd) (bool, string) {
	if d.Do == Catches {
		cmd.Path = d.On
	}
	_, said := done(cmd)
	return strings.Contains(said, "label "+d.Want+"\n"), said
}

// inKernelLog looks for a line since the last look.
func inKernelLog(t *testing.T, text string) (bool, string) {
	t.Helper()
	buffer := make([]byte, 1<<20)
	const readAndClear = 4
	n, err := unix.Klogctl(readAndClear, buffer)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Contains(string(buffer[:n]), text), "the kernel's log"
}

// TestEscapesAreRealOnTheKernel: what the parser takes and the safe default
// refuses does on a kernel what it is refused for, and its frame does not.
func TestEscapesAreRealOnTheKernel(t *testing.T) {
	compiled, start, shown, newer := compiler{}, time.Now(), 0, isNewer(t)
	for _, e := range Escapes() {
		d, _ := DemoOf(e)
		if d.Unshown != "" || !newer && e.Newer || newer && e.Refused4() {
			continue // this machine's parser does not take it
		}
		t.Run(e.Name, func(t *testing.T) {
			defer unloadAll(t)
			rules := HarnessRules + d.With
			judge(t, e, d, rules)
			if d.Do != Loads {
				compiled.loadWith(t, d, e.Harmless(d, rules))
			}
			if yes, said := works(t, d); yes {
				t.Errorf("%s %s works without the escape: %s", d.Do, d.On, said)
			}
			compiled.loadWith(t, d, e.Frame(rules))
			if yes, said := works(t, d); !yes {
				t.Errorf("%s %s does not work: %s\n%s", d.Do, d.On, said, e.Frame(rules))
			}
			if !t.Failed() {
				shown++
			}
		})
	}
	if shown < 130 {
		t.Errorf("only %d escapes were shown", shown)
	}
	t.Logf("%d of %d escapes were shown in %s", shown, len(Escapes()), time.Since(start))
}

// isNewer reports a machine with AppArmor 4.
func isNewer(t *testing.T) bool {
	t.Helper()
	said, err := exec.Command("apparmor_parser", "-V").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, said)
	}
	t.Logf("%s", said)
	return strings.Contains(string(said), "version 4.")
}

// judge holds that the safe default refuses the very text that is loaded, and
// admits it without the escape.
func judge(t *testing.T, e Escape, d Demo, rules string) {
	t.Helper()
	k := apparmor.NewKind()
	refused := func(text string) error {
		p, err := k.Parse("escape.aa", []byte(text))
		if err != nil {
			return err
		}
		var limits []profile.Limits
		if d.Relaxed != "" {
			limits = []profile.Limits{profile.Limits(d.Relaxed)}
		}
		return k.Constrain(p, profile.ForAnyone(), limits)
	}
	want := error(reason.ProfileForbidden)
	if e.Class == "" {
		want = reason.ProfileInvalid
	}
	if err := refused(e.Frame(rules)); !errors.Is(err, want) {
		t.Fatalf("not refused: %v\n%s", err, e.Frame(rules))
	}
	if !d.Takes && d.Do != Loads {
		if err := refused(e.Harmless(d, rules)); err != nil {
			t.Errorf("the frame is refused: %v\n%s", err, e.Harmless(d, rules))
		}
	}
}

// TestHarmlessProfilesRun: a program runs under each, and is kept from the
// kernel's interfaces.
func TestHarmlessProfilesRun(t *testing.T) {
	compiled := compiler{}
	for name, text := range Harmless() {
		if slices.Contains(NewerHarmless(), name) {
			continue
		}
		t.Run(name, func(t *testing.T) {
			defer unloadAll(t)
			_, header, _ := strings.Cut(text, "profile ")
			under := strings.Fields(header)[0]
			compiled.load(t, strings.ReplaceAll(text, "{\n", "{\n"+HarnessRules))
			if _, said := done(actor(label, "", under)); !strings.Contains(said, "label "+under+"\n") {
				t.Errorf("under %s: %s", under, said)
			}
			if yes, said := done(actor(Write, corePattern, under)); yes {
				t.Errorf("under %s: %s", under, said)
			}
		})
	}
}
