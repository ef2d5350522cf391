package host

import (
	"context"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/confine-dev/confine/pkg/profile/selinux"
	"github.com/confine-dev/confine/pkg/profile/selinux/host/semodule"
)

// runPolicy is what the Host builds on: the policy in memory and the real one
// pass it alike. fresh returns one without modules of Confine.
func runPolicy(t *testing.T, fresh func(t *testing.T) policy) {
	t.Helper()
	plain := func(name, block string) semodule.Module {
		return semodule.Module{Name: name, CIL: blockWith(block, "")}
	}
	for name, run := range map[string]func(t *testing.T, p policy){
		"install, replace, remove":         policyLifecycle,
		"what was installed comes out":     policyExtract,
		"a disabled module":                policyDisabled,
		"a store ahead of the kernel":      policyUnloaded,
		"a module of comments":             policyComments,
		"a block of the host stays known":  policyHostBlock,
		"an ended context changes nothing": policyCancelled,
		"a refused change changes nothing": func(t *testing.T, p policy) {
			must(t, p.Commit(t.Context(), semodule.Change{Install: []semodule.Module{plain("confine-a", "confine_shop_a")}}))
			for name, bad := range map[string]string{
				"a block twice": "(block confine_shop_a (blockinherit container))", "no CIL": "(block",
				"no such template": "(block confine_shop_b (blockinherit nosuch))",
				"no such type":     "(block confine_shop_b (blockinherit container) (allow process nosuch_t (file (read))))",
			} {
				change := semodule.Change{Install: []semodule.Module{{Name: "confine-bad", CIL: []byte(bad)}}, Remove: []string{"confine-never"}}
				err := p.Commit(t.Context(), change)
				if _, said := errors.AsType[*semodule.Error](err); !said || !isRefusal(err) || !logNames(err, "confine-bad") {
					t.Errorf("%s: %v", name, err)
				}
				wantModules(t, p, plain("confine-a", "confine_shop_a"))
				wantKnown(t, p, "confine_shop_a", true)
				wantKnown(t, p, "confine_shop_b", false)
			}
		},
	} {
		t.Run(name, func(t *testing.T) { run(t, fresh(t)) })
	}
}

func wantModules(t *testing.T, p policy, want ...semodule.Module) {
	t.Helper()
	listed, err := p.List(t.Context())
	must(t, err)
	var wanted []semodule.Listed
	for _, m := range want {
		wanted = append(wanted, semodule.Listed{Name: m.Name, Checksum: checksumOf(m.CIL)})
	}
	if diff := cmp.Diff(wanted, listed); diff != "" {
		t.Errorf("modules (-want +got):\n%s", diff)
	}
}

func wantKnown(t *testing.T, p policy, block string, want bool) {
	t.Helper()
	got, err := p.known(selinux.ProcessType(block))
	must(t, err)
	if got != want {
		t.Errorf("the kernel knows the type of %s: %v, want %v", block, got, want)
	}
}

func policyLifecycle(t *testing.T, p policy) {
	a := semodule.Module{Name: "confine-a", CIL: blockWith("confine_shop_a", "")}
	b := semodule.Module{Name: "confine-b", CIL: blockWith("confine_shop_b", "")}
	other := semodule.Module{Name: "confine-a", CIL: blockWith("confine_shop_c", "")}
	wantModules(t, p)
	must(t, p.Commit(t.Context(), semodule.Change{Install: []semodule.Module{b, a}}))
	wantModules(t, p, a, b)
	// One module gives up the name that another takes.
	taken := semodule.Module{Name: "confine-b", CIL: blockWith("confine_shop_a", "")}
	must(t, p.Commit(t.Context(), semodule.Change{Install: []semodule.Module{taken, other}}))
	wantModules(t, p, other, taken)
	wantKnown(t, p, "confine_shop_a", true)
	wantKnown(t, p, "confine_shop_b", false)
	wantKnown(t, p, "confine_shop_c", true)
	must(t, p.Commit(t.Context(), semodule.Change{Remove: []string{"confine-a", "confine-never"}}))
	wantModules(t, p, taken)
	wantKnown(t, p, "confine_shop_c", false)
}

func policyExtract(t *testing.T, p policy) {
	a := semodule.Module{Name: "confine-a", CIL: append(blockWith("confine_shop_a", ""), "\n; é \t end"...)}
	b := semodule.Module{Name: "confine-b_1-x", CIL: blockWith("confine_shop_b", "")}
	must(t, p.Commit(t.Context(), semodule.Change{Install: []semodule.Module{a, b}}))
	found, err := p.Extract(t.Context(), []string{a.Name, b.Name})
	must(t, err)
	if diff := cmp.Diff(map[string][]byte{a.Name: a.CIL, b.Name: b.CIL}, found); diff != "" {
		t.Errorf("extracted (-want +got):\n%s", diff)
	}
	if _, err := p.Extract(t.Context(), []string{a.Name, "confine-never"}); err == nil {
		t.Error("a module that is not there came out")
	}
	if found, err := p.Extract(t.Context(), nil); err != nil || len(found) > 0 {
		t.Errorf("of nothing: %q, %v", found, err)
	}
}

func policyDisabled(t *testing.T, p policy) {
	a := semodule.Module{Name: "confine-a", CIL: blockWith("confine_shop_a", "")}
	must(t, p.Commit(t.Context(), semodule.Change{Install: []semodule.Module{a}}))
	must(t, p.disable(t.Context(), a.Name))
	wantKnown(t, p, "confine_shop_a", false)
	listed, err := p.List(t.Context())
	must(t, err)
	if diff := cmp.Diff([]semodule.Listed{{Name: a.Name, Checksum: checksumOf(a.CIL), Disabled: true}}, listed); diff != "" {
		t.Errorf("modules (-want +got):\n%s", diff)
	}
	must(t, p.Commit(t.Context(), semodule.Change{Install: []semodule.Module{a}}))
	wantKnown(t, p, "confine_shop_a", false)
	must(t, p.Commit(t.Context(), semodule.Change{Install: []semodule.Module{a}, Enable: []string{a.Name}}))
	wantKnown(t, p, "confine_shop_a", true)
	wantModules(t, p, a)
}

func policyUnloaded(t *testing.T, p policy) {
	a := semodule.Module{Name: "confine-a", CIL: blockWith("confine_shop_a", "")}
	must(t, p.commitUnloaded(t.Context(), semodule.Change{Install: []semodule.Module{a}}))
	wantModules(t, p, a)
	wantKnown(t, p, "confine_shop_a", false)
	must(t, p.Reload(t.Context()))
	wantKnown(t, p, "confine_shop_a", true)
	must(t, p.commitUnloaded(t.Context(), semodule.Change{Remove: []string{a.Name}}))
	wantModules(t, p)
	wantKnown(t, p, "confine_shop_a", true)
	must(t, p.Reload(t.Context()))
	wantKnown(t, p, "confine_shop_a", false)
}

func policyComments(t *testing.T, p policy) {
	a := semodule.Module{Name: "confine-a", CIL: []byte("; one\n; two\n")}
	must(t, p.Commit(t.Context(), semodule.Change{Install: []semodule.Module{a}}))
	wantModules(t, p, a)
}

func policyHostBlock(t *testing.T, p policy) {
	must(t, p.hostModule(t.Context(), "confine_shop_host"))
	wantModules(t, p)
	wantKnown(t, p, "confine_shop_host", true)
	a := semodule.Module{Name: "confine-a", CIL: blockWith("confine_shop_host", "")}
	if err := p.Commit(t.Context(), semodule.Change{Install: []semodule.Module{a}}); !isRefusal(err) {
		t.Errorf("the host's block is taken: %v", err)
	}
	must(t, p.Commit(t.Context(), semodule.Change{Install: []semodule.Module{{Name: "confine-a", CIL: blockWith("confine_shop_a", "")}}}))
	wantKnown(t, p, "confine_shop_host", true)
}

func policyCancelled(t *testing.T, p policy) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	a := semodule.Module{Name: "confine-a", CIL: blockWith("confine_shop_a", "")}
	_, listErr := p.List(ctx)
	_, extractErr := p.Extract(ctx, []string{a.Name})
	for name, err := range map[string]error{
		"list": listErr, "extract": extractErr, "reload": p.Reload(ctx),
		"commit": p.Commit(ctx, semodule.Change{Install: []semodule.Module{a}}),
	} {
		if !errors.Is(err, context.Canceled) && !(name == "extract" && err != nil) {
			t.Errorf("%s: %v", name, err)
		}
	}
	wantModules(t, p)
}
