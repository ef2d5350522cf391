package host

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/profile/profiletest"
	"github.com/confine-dev/confine/pkg/profile/selinux/host/semodule"
)

// policy is a policy store with its kernel, in memory or real, and what others
// than Confine do to them.
type policy interface {
	store
	kernel
	// commitUnloaded changes the store and leaves the kernel as it is.
	commitUnloaded(ctx context.Context, c semodule.Change) error
	disable(ctx context.Context, name string) error
	// hostModule adds a block to the host's own policy.
	hostModule(ctx context.Context, block string) error
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func owner(namespace, name string) profile.Owner {
	return profile.Owner{Namespace: namespace, Name: name}
}

// block is the name of the block in an owner's file.
func block(o profile.Owner, file string) string {
	return "confine_shop_" + sumOf([]byte(o.String()))[:8] + "_" + file
}

func blockWith(name, rules string) []byte {
	return fmt.Appendf(nil, "; a text\n(block %s\n  (blockinherit container)\n  %s)", name, rules)
}

// files are two texts whose blocks are named for their owner.
func files(o profile.Owner, v profiletest.Variant) []profile.File {
	rules := "(allow process self (tcp_socket (create)))"
	if v == profiletest.Second {
		rules = "(blockinherit net_container)"
	}
	web := profile.File{Name: "web.cil", Data: blockWith(block(o, "web"), rules)}
	worker := profile.File{Name: "worker.cil", Data: blockWith(block(o, "worker"), rules)}
	if v == profiletest.Fewer {
		return []profile.File{web}
	}
	return []profile.File{web, worker}
}

func unit(o profile.Owner, v profiletest.Variant) profile.Unit {
	return profile.Unit{Owner: o, Digest: digestOf(string(v) + o.String()), Files: files(o, v)}
}

func digestOf(text string) digest.Digest { return digest.FromString(text) }

// initAlone is a machine's /proc with no process but the first.
const initAlone = "testdata/proc"

func open(o Options, p policy) (*Host, error) {
	h, err := New(o)
	if err != nil {
		return nil, err
	}
	h.store, h.kernel = p, p
	if _, ok := p.(*memory); ok {
		h.proc = initAlone
		h.compiler = noCompiler{}
	}
	return h, nil
}

// noCompiler is a host without one. What rehearsals do is tested with the real
// one.
type noCompiler struct{}

func (noCompiler) Supported() error { return exec.ErrNotFound }

func (noCompiler) Compile(context.Context, bool, ...[]byte) ([]byte, error) {
	return nil, exec.ErrNotFound
}

// drifts are what others do to the module or the kernel, by what it is.
func drifts(p policy) map[string]func(profile.Installed) error {
	ctx := context.Background()
	edit := func(change func(cil []byte) []byte) func(profile.Installed) error {
		return func(in profile.Installed) error {
			name := moduleName(in.Owner)
			found, err := p.Extract(ctx, []string{name})
			if err != nil {
				return err
			}
			return p.Commit(ctx, semodule.Change{Install: []semodule.Module{{Name: name, CIL: change(found[name])}}})
		}
	}
	removed := func(in profile.Installed) semodule.Change {
		return semodule.Change{Remove: []string{moduleName(in.Owner)}}
	}
	return map[string]func(profile.Installed) error{
		"a module that was removed": func(in profile.Installed) error { return p.Commit(ctx, removed(in)) },
		"a module that only the kernel has": func(in profile.Installed) error {
			return p.commitUnloaded(ctx, removed(in))
		},
		"a module that only the store has": func(in profile.Installed) error {
			name := moduleName(in.Owner)
			found, err := p.Extract(ctx, []string{name})
			if err != nil {
				return err
			}
			install := semodule.Change{Install: []semodule.Module{{Name: name, CIL: found[name]}}}
			return errors.Join(p.commitUnloaded(ctx, removed(in)), p.Reload(ctx), p.commitUnloaded(ctx, install))
		},
		"a disabled module": func(in profile.Installed) error { return p.disable(ctx, moduleName(in.Owner)) },
		"another rule":      edit(func(cil []byte) []byte { return replace(cil, "self (tcp_socket (create", "self (tcp_socket (listen") }),
		"another digest":    edit(func(cil []byte) []byte { return replace(cil, "; digest sha256:", "; digest sha256:0") }),
		"another owner":     edit(func(cil []byte) []byte { return replace(cil, "; owner shop/", "; owner shap/") }),
		"one more comment":  edit(func(cil []byte) []byte { return append(cil, "; more\n"...) }),
		"a text without comments": edit(func([]byte) []byte {
			return blockWith(block(owner("shop", "web"), "web"), "")
		}),
		"nothing but a comment": edit(func([]byte) []byte { return []byte("; nothing\n") }),
	}
}

func replace(cil []byte, old, replacement string) []byte {
	return bytes.Replace(cil, []byte(old), []byte(replacement), 1)
}
