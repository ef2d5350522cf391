//go:build lsm_apparmor

package host

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/confine-dev/confine/pkg/durable"
	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/profile/profiletest"
	"github.com/confine-dev/confine/pkg/reason"
)

// TestHostOnRealKernel runs the suite on this kernel, each machine in a policy
// namespace of its own. A text is compiled once, by the real parser.
func TestHostOnRealKernel(t *testing.T) {
	var machines atomic.Int64
	once := &rememberingCompiler{parser: realParser(), compiled: map[string][]byte{}}
	profiletest.RunHost(t, profiletest.HostCase{
		Machine: func(t *testing.T) profiletest.Machine {
			folder := filepath.Join(policyFolder, "namespaces", fmt.Sprintf("machine-%d", machines.Add(1)))
			must(t, os.Mkdir(folder, 0o755))
			t.Cleanup(func() {
				if err := os.Remove(folder); err != nil {
					t.Error(err)
				}
			})
			return machine(t, securityfs{folder}, once)
		},
		FilesFor: files, FewerCrashes: true,
	})
}

func realParser() parser { return parser{time: time.Minute, memory: defaultParseMemory} }

type rememberingCompiler struct {
	parser
	compiled map[string][]byte
}

func (c *rememberingCompiler) compile(ctx context.Context, f profile.File) ([]byte, error) {
	if made, ok := c.compiled[string(f.Data)]; ok {
		return made, nil
	}
	made, err := c.parser.compile(ctx, f)
	if err == nil {
		c.compiled[string(f.Data)] = made
	}
	return made, err
}

// confined runs a shell under a profile, entered at exec as runc does, which
// answers each line with what the command in it came to.
type confined struct {
	t   *testing.T
	in  io.Writer
	out *bufio.Reader
	end func()
}

func underProfile(t *testing.T, name string) *confined {
	t.Helper()
	cmd := exec.Command("sh", "-c", `echo exec "$0" > /proc/self/attr/apparmor/exec && exec sh -c 'while read -r line; do eval "$line" 2>/dev/null && echo yes || echo no; done'`, name)
	in, err := cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	cmd.Stderr = os.Stderr
	must(t, cmd.Start())
	return &confined{t, in, bufio.NewReader(out), func() {
		_ = in.Close()
		_ = cmd.Wait()
	}}
}

func (c *confined) may(command string) bool {
	c.t.Helper()
	_, err := fmt.Fprintln(c.in, command)
	must(c.t, err)
	answer, err := c.out.ReadString('\n')
	must(c.t, err)
	return answer == "yes\n"
}

// ofText is a unit with one text for each string.
func ofText(name string, texts ...string) profile.Unit {
	u := profile.Unit{Owner: profile.Owner{Namespace: "shop", Name: name}, Digest: digestOf(strings.Join(texts, "\x00"))}
	for i, text := range texts {
		u.Files = append(u.Files, profile.File{Name: fmt.Sprintf("%d.aa", i), Data: []byte(text)})
	}
	return u
}

func realHost(t *testing.T, o Options) *Host {
	t.Helper()
	o.Root = filepath.Join(fastDir(t), "apparmor")
	h, err := New(o)
	must(t, err)
	must(t, h.Supported(t.Context()))
	t.Cleanup(func() {
		in, err := h.Installed(context.Background())
		must(t, err)
		for _, i := range in {
			must(t, h.Remove(context.Background(), []profile.Owner{i.Owner})[0].Err)
		}
	})
	return h
}

func TestProcessesAreConfined(t *testing.T) {
	for name, o := range map[string]Options{"on the host": {}, "in the root of another": {HostRoot: "/proc/1/root"}} {
		t.Run(name, func(t *testing.T) {
			h := realHost(t, o)
			const strict = "abi <abi/3.0>,\n#include <tunables/global>\nprofile confine.shop.web flags=(attach_disconnected) {\n#include <abstractions/base>\nfile,\ndeny /srv/** w,\n}\n"
			loose := strings.Replace(strict, "deny /srv/** w,", "", 1)
			must(t, h.Install(t.Context(), []profile.Unit{ofText("web", strict)})[0].Err)
			in, err := h.Installed(t.Context())
			must(t, err)
			if len(in) != 1 || !slices.Equal(in[0].References, []string{"confine.shop.web"}) {
				t.Fatalf("installed: %+v", in)
			}
			p := underProfile(t, in[0].References[0])
			defer func() { p.end() }()
			if p.may("echo x > /srv/file") || !p.may("echo x > /tmp/file") {
				t.Error("the profile is not what confines")
			}
			must(t, h.Install(t.Context(), []profile.Unit{ofText("web", loose)})[0].Err)
			if !p.may("echo x > /srv/file") {
				t.Error("the update does not reach the running process")
			}
			must(t, h.Install(t.Context(), []profile.Unit{ofText("web", strict)})[0].Err)
			if p.may("echo x > /srv/file") {
				t.Error("going back does not reach the running process")
			}
			got := h.Remove(t.Context(), []profile.Owner{{Namespace: "shop", Name: "web"}})[0]
			if !errors.Is(got.Err, reason.InstallFailed) || got.Changed {
				t.Errorf("removed under a process: %+v", got)
			}
			p.end()
			if got := h.Remove(t.Context(), []profile.Owner{{Namespace: "shop", Name: "web"}})[0]; got.Err != nil || !got.Changed {
				t.Errorf("removed after its end: %+v", got)
			}
			loaded, err := h.Loaded(t.Context())
			must(t, err)
			if len(loaded) > 0 {
				t.Errorf("left: %v", loaded)
			}
		})
	}
}

func TestRealConflictsAndDrift(t *testing.T) {
	h := realHost(t, Options{})
	byHand := func(op, text string) {
		t.Helper()
		cmd := exec.Command("apparmor_parser", append(strings.Fields(op), "-K", "-q")...)
		cmd.Stdin = strings.NewReader(text)
		if said, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, said)
		}
	}
	const theirs = "profile confine.shop.web {\n  capability,\n}\n"
	byHand("-a", theirs)
	mine := ofText("web", "profile confine.shop.web {\n  file,\n}\n")
	if got := h.Install(t.Context(), []profile.Unit{mine})[0]; !errors.Is(got.Err, reason.NameConflict) {
		t.Errorf("over the host's: %+v", got)
	}
	byHand("-R", theirs)
	must(t, h.Install(t.Context(), []profile.Unit{mine})[0].Err)
	for _, op := range []string{"-R", "-r", "-r -C"} {
		byHand(op, theirs)
		if got := h.Install(t.Context(), []profile.Unit{mine})[0]; got.Err != nil || !got.Changed {
			t.Errorf("after apparmor_parser %s: %+v", op, got)
		}
		if got := h.Install(t.Context(), []profile.Unit{mine})[0]; got.Err != nil || got.Changed {
			t.Errorf("again after apparmor_parser %s: %+v", op, got)
		}
	}
	loaded, err := h.Loaded(t.Context())
	must(t, err)
	if len(loaded) != 1 || loaded[0].Name != "confine.shop.web" || loaded[0].Mode != "enforce" {
		t.Errorf("loaded: %+v", loaded)
	}
}

func TestManyUnitsAndOneBroken(t *testing.T) {
	h := realHost(t, Options{})
	var units []profile.Unit
	for i := range 10 {
		units = append(units, ofText(fmt.Sprintf("u%d", i), fmt.Sprintf("profile confine.shop.u%d {\n  file,\n}\n", i)))
	}
	// Our reader lets it pass, and the host's parser does not: the abstraction is of
	// a later version.
	units[3] = ofText("u3", "#include <tunables/global>\nprofile confine.shop.u3 {\n  #include <abstractions/no-such-one>\n}\n")
	start := time.Now()
	for i, o := range h.Install(t.Context(), units) {
		failed, ok := errors.AsType[*ParserError](o.Err)
		switch {
		case i == 3 && (!ok || !errors.Is(o.Err, reason.ProfileInvalid) || !strings.Contains(failed.Log, "no-such-one")):
			t.Errorf("the broken one: %v", o.Err)
		case i != 3 && o.Err != nil:
			t.Errorf("%d: %v", i, o.Err)
		}
	}
	t.Logf("%d units took %s", len(units), time.Since(start))
}

func TestProfilesThatCostTooMuch(t *testing.T) {
	var rules strings.Builder
	for i := range 60 {
		fmt.Fprintf(&rules, "  /**%c**%c**%c**%d** r,\n", 'a'+i%26, 'a'+i*7%26, 'a'+i*11%26, i)
	}
	text := "profile confine.shop.web {\n" + rules.String() + "}\n"
	for name, o := range map[string]Options{
		"time":   {ParserTime: 2 * time.Second, ParserMemory: 4 << 30},
		"memory": {ParserTime: time.Minute, ParserMemory: 24 << 20},
	} {
		t.Run(name, func(t *testing.T) {
			h := realHost(t, o)
			start := time.Now()
			got := h.Install(t.Context(), []profile.Unit{ofText("web", text)})[0]
			if got.Err == nil || got.Changed {
				t.Errorf("installed: %+v", got)
			}
			t.Logf("after %s: %v", time.Since(start), got.Err)
			must(t, h.Install(t.Context(), []profile.Unit{ofText("db", "profile confine.shop.db {\n  file,\n}\n")})[0].Err)
		})
	}
}

func TestIncludesReadNothingOfTheHost(t *testing.T) {
	must(t, os.WriteFile("/srv/secret", []byte("root-only-secret\n"), 0o600))
	h := realHost(t, Options{})
	for _, include := range []string{"include \"/srv/secret\"", "#include \"/srv/secret\"", "include <../../srv/secret>"} {
		text := "profile confine.shop.web {\n  " + include + "\n}\n"
		got := h.Install(t.Context(), []profile.Unit{ofText("web", text)})[0]
		if got.Err == nil || strings.Contains(got.Err.Error(), "root-only-secret") {
			t.Errorf("%s: %+v", include, got)
		}
		if failed, ok := errors.AsType[*ParserError](got.Err); ok && strings.Contains(failed.Log, "root-only-secret") {
			t.Errorf("%s: the log says %s", include, failed.Log)
		}
	}
}

func TestEveryStepIsAnnounced(t *testing.T) {
	var steps []string
	h := realHost(t, Options{Before: func(s durable.Step) error {
		if s.Op == OpLoad || s.Op == OpUnload {
			steps = append(steps, s.Op+" "+s.Name)
		}
		return nil
	}})
	u := ofText("web", "profile confine.shop.web {\n  file,\n  profile kid {\n    file,\n  }\n}\n")
	must(t, h.Install(t.Context(), []profile.Unit{u})[0].Err)
	must(t, h.Remove(t.Context(), []profile.Owner{u.Owner})[0].Err)
	want := []string{"load shop/web", "unload confine.shop.web//kid", "unload confine.shop.web"}
	if !slices.Equal(steps, want) {
		t.Errorf("steps %q, want %q", steps, want)
	}
}

// TestForeignProfilesDoNotStandInTheWay loads what this host would never load.
func TestForeignProfilesDoNotStandInTheWay(t *testing.T) {
	for _, text := range []string{"profile theirs /usr/bin/theirs {\n  file,\n  ^hat {\n    file,\n  }\n}\n", "profile :theirs:theirs {\n  file,\n}\n"} {
		cmd := exec.Command("apparmor_parser", "-a", "-K", "-q")
		cmd.Stdin = strings.NewReader(text)
		if said, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, said)
		}
	}
	t.Cleanup(func() {
		must(t, securityfs{policyFolder}.remove("theirs"))
		must(t, os.Remove(filepath.Join(policyFolder, "namespaces", "theirs")))
	})
	h := realHost(t, Options{})
	u := ofText("web", "profile confine.shop.web {\n  file,\n}\n")
	for _, changed := range []bool{true, false} {
		if got := h.Install(t.Context(), []profile.Unit{u})[0]; got.Err != nil || got.Changed != changed {
			t.Errorf("%+v, want changed %v", got, changed)
		}
	}
	loaded, err := h.Loaded(t.Context())
	must(t, err)
	var names []string
	for _, l := range loaded {
		names = append(names, l.Name+" "+l.Mode)
	}
	if want := []string{"confine.shop.web enforce", "theirs enforce", "theirs//hat enforce"}; !slices.Equal(names, want) {
		t.Errorf("loaded %q, want %q", names, want)
	}
}
