package selinux_test

import (
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/profile/selinux"
)

// guardedPermissions are those of the kernel's that no default admits. The
// test's policy holds that nothing but the host itself may have them.
func guardedPermissions() map[string]string {
	return map[string]string{
		"process":     "ptrace execmem execstack execheap setexec setfscreate setkeycreate setsockcreate setcurrent dyntransition",
		"process2":    "nnp_transition nosuid_transition",
		"file":        "entrypoint execmod mounton quotaon relabelfrom relabelto",
		"dir":         "mounton relabelfrom relabelto",
		"chr_file":    "create relabelto",
		"blk_file":    "read write open",
		"capability":  "sys_admin sys_module sys_ptrace net_admin",
		"capability2": "mac_admin mac_override bpf",
		"security":    "load_policy setenforce",
		"tcp_socket":  "relabelto",
		"bpf":         "prog_load",
	}
}

// basePolicy is testdata/base.cil between its classes and its guards: the
// classes hold what a profile may allow by default and what it may not.
func basePolicy(t *testing.T) string {
	t.Helper()
	rest, err := os.ReadFile("testdata/base.cil")
	if err != nil {
		t.Fatal(err)
	}
	classes := map[string]string{}
	for class, permissions := range selinux.DefaultPermissions() {
		classes[class] = strings.Join(permissions, " ")
	}
	var guards strings.Builder
	for class, permissions := range guardedPermissions() {
		classes[class] = strings.TrimSpace(classes[class] + " " + permissions)
		fmt.Fprintf(&guards, "(neverallow confined all_types (%s (%s)))\n", class, permissions)
	}
	classes["process"] += " transition" // which the runtime needs
	guards.WriteString("(neverallow confined all_types (process (transition)))\n")
	var b strings.Builder
	for _, class := range slices.Sorted(maps.Keys(classes)) {
		fmt.Fprintf(&b, "(class %s (%s))\n", class, classes[class])
		fmt.Fprintf(&guards, "(classmapping anything do (%s (all)))\n", class)
	}
	guards.WriteString("(classmap anything (do))\n(neverallow confined hosts (anything (do)))\n(neverallow stranger tenant (anything (do)))\n")
	fmt.Fprintf(&b, "(classorder (unordered %s))\n", strings.Join(slices.Sorted(maps.Keys(classes)), " "))
	return b.String() + string(rest) + guards.String()
}

// compiler runs the programs of Debian's secilc against the base policy.
type compiler struct {
	t    *testing.T
	dir  string
	base string
}

// newCompiler skips where secilc is missing: CIL is compiled by the host alone,
// and nothing of Confine needs it. Under CI=true that is a failure.
func newCompiler(t *testing.T) *compiler {
	t.Helper()
	for _, tool := range []string{"secilc", "secil2conf", "secil2tree"} {
		if _, err := exec.LookPath(tool); err != nil {
			message := tool + " is missing, so no escape can be shown to be one: apt-get install secilc"
			if os.Getenv("CI") == "true" {
				t.Fatal(message)
			}
			t.Skip(message)
		}
	}
	c := &compiler{t: t, dir: t.TempDir()}
	c.base = filepath.Join(c.dir, "base.cil")
	c.write(c.base, basePolicy(t))
	return c
}

func (c *compiler) write(file, text string) {
	c.t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		c.t.Fatal(err)
	}
}

// run gives the module, with the base if there is one, to a program; it returns what the
// program wrote into its output file, its messages, and whether it succeeded.
func (c *compiler) run(module, program string, args ...string) (output, messages string, ok bool) {
	c.t.Helper()
	dir, err := os.MkdirTemp(c.dir, "run")
	if err != nil {
		c.t.Fatal(err)
	}
	file, out := filepath.Join(dir, "module.cil"), filepath.Join(dir, "out")
	c.write(file, module)
	ctx, cancel := context.WithTimeout(c.t.Context(), time.Minute)
	defer cancel()
	args = append(args, "-o", out)
	if c.base != "" {
		args = append(args, c.base)
	}
	cmd := exec.CommandContext(ctx, program, append(args, file)...)
	cmd.Dir = dir
	said, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		c.t.Fatalf("%s: %v", program, ctx.Err())
	}
	made, _ := os.ReadFile(out)
	return string(made), string(said), err == nil
}

// compiles compiles the module; without its guards the policy admits anything.
func (c *compiler) compiles(module string, guarded bool) (string, bool) {
	c.t.Helper()
	args := []string{"-f", os.DevNull}
	if !guarded {
		args = append(args, "-N")
	}
	_, said, ok := c.run(module, "secilc", args...)
	return said, ok
}

// conf is the policy with the module in the language of checkpolicy.
func (c *compiler) conf(module string, args ...string) string {
	c.t.Helper()
	made, said, ok := c.run(module, "secil2conf", args...)
	if !ok {
		c.t.Fatalf("secil2conf: %s", said)
	}
	return made
}

// fileContexts are the labels of files that come with the module.
func (c *compiler) fileContexts(module string) string {
	c.t.Helper()
	// They are written after the policy, which is of no interest here.
	file := filepath.Join(c.t.TempDir(), "contexts")
	if _, said, ok := c.run(module, "secilc", "-N", "-f", file); !ok {
		c.t.Fatalf("secilc: %s", said)
	}
	labels, err := os.ReadFile(file)
	if err != nil {
		c.t.Fatal(err)
	}
	return string(labels)
}

// TestAdmittedProfilesStayWithinTheGuards compiles, for each target, all that
// the default admits.
func TestAdmittedProfilesStayWithinTheGuards(t *testing.T) {
	c := newCompiler(t)
	for name, text := range admitted() {
		t.Run(name, func(t *testing.T) {
			p := parse(t, text)
			if err := selinux.NewKind().Constrain(p, profile.ForAnyone(), nil); err != nil {
				t.Fatalf("refused: %v", err)
			}
			inner := *c
			inner.t = t
			if said, ok := inner.compiles(text, true); !ok {
				t.Errorf("secilc refuses it:\n%s", said)
			}
		})
	}
}

// admitted are profiles that pass by default, all permissions on all targets
// and templates among them.
func admitted() map[string]string {
	all := map[string]string{"nothing but the template": block(""), "comments": "; \"(\n" + block("; )\n") + "; end"}
	for _, target := range []string{"self", "process", "socket"} {
		var rules strings.Builder
		for class, permissions := range selinux.DefaultPermissions() {
			fmt.Fprintf(&rules, "(allow process %s (%s (%s)))\n", target, class, strings.Join(permissions, " "))
		}
		all["everything on "+target] = block(rules.String())
	}
	for _, name := range []string{"net_container", "restricted_net_container"} {
		all[name] = block("(blockinherit " + name + ")")
	}
	return all
}

func block(body string) string {
	return "(block confine_web_x\n(blockinherit container)\n" + body + ")\n"
}

func parse(t *testing.T, text string) *selinux.Profile {
	t.Helper()
	p, err := selinux.Parse("x.cil", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return p
}
