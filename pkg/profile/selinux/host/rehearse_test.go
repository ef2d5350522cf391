//go:build !lsm_selinux

package host

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/profile/profiletest"
	"github.com/confine-dev/confine/pkg/profile/selinux"
	"github.com/confine-dev/confine/pkg/profile/selinux/host/secilc"
	"github.com/confine-dev/confine/pkg/profile/selinux/internal/policydb"
	"github.com/confine-dev/confine/pkg/reason"
)

// realCompiler skips where secilc is missing, as hosts may be without it. Under
// CI=true that is a failure.
func realCompiler(t *testing.T) *secilc.Compiler {
	t.Helper()
	c := secilc.New(secilc.Options{})
	if err := c.Supported(); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skipf("%v: apt-get install secilc", err)
	}
	return c
}

// rehearsing is a host with a policy in memory and a compiler.
func rehearsing(t *testing.T, c compiler) (*bench, *memory) {
	t.Helper()
	m := &memory{modules: map[string]module{}, types: map[string]string{}}
	b := newBench(t, m)
	b.h.compiler = c
	return b, m
}

// counting counts what the compiler was asked.
type counting struct {
	compiler
	runs int
}

func (c *counting) Compile(ctx context.Context, qualified bool, texts ...[]byte) ([]byte, error) {
	c.runs++
	return c.compiler.Compile(ctx, qualified, texts...)
}

func TestNewTextsAreCompiledTogetherAndOnce(t *testing.T) {
	c := &counting{compiler: realCompiler(t)}
	b, m := rehearsing(t, c)
	must(t, b.h.Rehearses())
	var units []profile.Unit
	for i := range 20 {
		units = append(units, unit(owner("shop", fmt.Sprintf("web-%d", i)), profiletest.First))
	}
	same := units[0]
	same.Owner = owner("shop", "same")
	units = append(units, same)
	b.install(true, units...)
	if c.runs != 2 || m.commits != 1 {
		t.Errorf("%d runs of the compiler and %d transactions, want 2 and 1", c.runs, m.commits)
	}
	b.install(false, units...)
	b.again()
	b.h.compiler = c
	b.install(false, units...)
	b.remove(true, units[0].Owner, same.Owner)
	if c.runs != 2 {
		t.Errorf("%d runs of the compiler, though nothing was new", c.runs)
	}
	b.inForce(units[1:20]...)
}

// TestTextsThatDoNotCompileAreLeftOut: they reach the store under no
// circumstances, and keep no other from it.
func TestTextsThatDoNotCompileAreLeftOut(t *testing.T) {
	b, m := rehearsing(t, realCompiler(t))
	good := unit(owner("shop", "good"), profiletest.First)
	// The closed grammar refuses them, and stands in front of every host.
	for name, c := range map[string]struct{ text, says string }{
		"twice":         {"(block confine_shop_x\n(blockinherit container)\n(blockinherit container))", "shop/bad/a.cil:3: secilc does not take it: Re-declaration of type process"},
		"no permission": {"(block confine_shop_x (blockinherit container)\n\n(allow process self (file ())))", "shop/bad/a.cil:3: secilc does not take it: Invalid syntax"},
		"no template":   {"(block confine_shop_x (allow process self (file (read))))", "shop/bad/a.cil: it is more, or less, than one block"},
		"an escape":     {"(block confine_shop_x (blockinherit container) (typepermissive process))", "shop/bad/a.cil: it is more, or less, than one block"},
		"a class of 33": {"(block confine_shop_x (blockinherit container) (allow process self (file (" + permissions(33) + "))))", "secilc does not take it: Too many permissions"},
	} {
		t.Run(name, func(t *testing.T) {
			b := &bench{t, b.p, b.h}
			bad := profile.Unit{Owner: owner("shop", "bad"), Digest: digestOf(name), Files: []profile.File{{Name: "a.cil", Data: []byte(c.text)}}}
			before := m.commits
			got := b.h.Install(t.Context(), []profile.Unit{bad, good})
			b.refused(got[0], reason.ProfileInvalid, c.says)
			if got[1].Err != nil {
				t.Error(got[1].Err)
			}
			if m.commits > before+1 {
				t.Errorf("%d transactions", m.commits-before)
			}
			b.inForce(good)
		})
	}
}

// permissions are n names.
func permissions(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "p%d ", i)
	}
	return b.String()
}

// brokenCompiler makes what it should not.
type brokenCompiler struct {
	compiler
	made func(qualified bool, texts [][]byte) ([]byte, error)
}

func (c brokenCompiler) Compile(_ context.Context, qualified bool, texts ...[]byte) ([]byte, error) {
	return c.made(qualified, texts)
}

// TestWhatComesOutIsWhatWasApproved gives the compiler other texts than those
// that were approved, as if it read them so.
func TestWhatComesOutIsWhatWasApproved(t *testing.T) {
	honest := realCompiler(t)
	web := unit(owner("shop", "web"), profiletest.Fewer)
	name := block(web.Owner, "web")
	for what, c := range map[string]struct{ more, says string }{
		"nothing more":      {"", ""},
		"a type":            {"(type evil)", `it declares the type "evil", which was not approved`},
		"a type in it":      {"(in " + name + " (type evil))", `it declares the type "` + name + `.evil"`},
		"another block":     {"(block confine_other_x (blockinherit container))", `it declares the type "confine_other_x.process"`},
		"an alias":          {"(typealias evil) (typealiasactual evil confine-t)", `it declares "evil", which stands for other types`},
		"an attribute":      {"(typeattribute evil) (typeattributeset evil (all)) (allow evil evil (tcp_socket (create)))", `it declares "evil", which stands for other types`},
		"permissive":        {"(typepermissive " + name + ".process)", `nothing is enforced for the type "` + name + `.process"`},
		"a rule":            {"(allow " + name + ".process confine-t (tcp_socket (create)))", "it is another policy"},
		"a rule on itself":  {"(allow " + name + ".socket self (tcp_socket (create)))", "it is another policy"},
		"a role":            {"(role evil)", "it is another policy"},
		"dontaudit":         {"(dontaudit " + name + ".process self (tcp_socket (create)))", "it is another policy"},
		"a constraint":      {"(constrain (tcp_socket (create)) (eq t1 t2))", "it is no policy: constraints"},
		"a boolean":         {"(boolean evil true)", "it is another policy"},
		"a transition":      {"(typetransition " + name + ".process confine-t tcp_socket confine-t)", "it is another policy"},
		"one rule less":     {"", "it is another policy"},
		"a policy of other": {"", "it is no policy"},
	} {
		t.Run(what, func(t *testing.T) {
			b, m := rehearsing(t, brokenCompiler{honest, func(qualified bool, texts [][]byte) ([]byte, error) {
				switch {
				case qualified:
				case what == "one rule less":
					texts[1] = []byte("(block " + name + " (blockinherit container))")
				case what == "a policy of other":
					return []byte("something else"), nil
				default:
					texts[1] = append(texts[1], c.more...)
				}
				return honest.Compile(t.Context(), qualified, texts...)
			}})
			got := b.h.Install(t.Context(), []profile.Unit{web})
			if c.says == "" {
				b.want(true, got)
				return
			}
			b.refused(got[0], reason.ProfileInvalid, "shop/web/web.cil: compiled, "+c.says)
			if m.commits > 0 {
				t.Error("semodule saw it")
			}
		})
	}
}

// TestCompilersThatAreEnded: nothing is installed that could not be looked at.
func TestCompilersThatAreEnded(t *testing.T) {
	for name, fails := range map[string]error{
		"by its bounds": secilc.ErrLimit, "with the call": context.Canceled, "for no reason": errors.New("no reason"),
	} {
		b, m := rehearsing(t, brokenCompiler{goodCompiler{}, func(bool, [][]byte) ([]byte, error) { return nil, fails }})
		got := b.h.Install(t.Context(), []profile.Unit{unit(owner("shop", "web"), profiletest.First)})
		b.refused(got[0], reason.InstallFailed, "")
		if !errors.Is(got[0].Err, fails) || m.commits > 0 {
			t.Errorf("%s: %+v, %d transactions", name, got, m.commits)
		}
	}
	b, _ := rehearsing(t, noCompiler{})
	if err := b.h.Rehearses(); err == nil || !strings.Contains(err.Error(), "the closed grammar and the bounds on semodule stand") {
		t.Errorf("without a compiler: %v", err)
	}
	b.install(true, unit(owner("shop", "web"), profiletest.First))
}

type goodCompiler struct{ compiler }

func (goodCompiler) Supported() error { return nil }

// TestRehearsalNamesItsTypes holds the names that are read against those that
// were written.
func TestRehearsalNamesItsTypes(t *testing.T) {
	p, err := selinux.Parse("x.cil", []byte(`(block confine_web_x (blockinherit container) (blockinherit net_container)
		(allow process self (file (read))) (allow process socket (sock_file (write))) (allow process http_port_t (tcp_socket (name_bind)))
		(allow process process (process (fork))))`))
	must(t, err)
	r, err := selinux.Rehearse(p)
	must(t, err)
	want := []string{"confine-t", "confine_web_x.process", "confine_web_x.socket", "http_port_t"}
	if diff := cmp.Diff(want, r.Types); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	made, err := realCompiler(t).Compile(t.Context(), true, r.Flat)
	must(t, err)
	got, err := policydb.Read(made)
	must(t, err)
	if diff := cmp.Diff(policydb.Policy{Types: want}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
