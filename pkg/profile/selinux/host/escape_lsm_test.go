//go:build lsm_selinux

package host

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/profile/selinux"
	"github.com/confine-dev/confine/pkg/reason"
)

// The blocks of the scene: who tries to escape, and another tenant.
const (
	escapes = "confine_shop_escape"
	tenant  = "confine_other_tenant"
)

// scene is a machine with files of several labels and two tenants.
type scene struct {
	t *testing.T
	p ownPolicy
	// last is the module that is installed beside the other tenant's.
	last string
}

func newScene(t *testing.T) *scene {
	t.Helper()
	p := onThisMachine(t).(ownPolicy)
	for file, label := range map[string]string{"/srv/settings": "etc_t", "/srv/secret": "secret_t", "/srv/data": "container_file_t"} {
		must(t, os.WriteFile(file, []byte("text\n"), 0o644))
		must(t, unix.Setxattr(file, "security.selinux", []byte("system_u:object_r:"+label+":s0\x00"), 0))
	}
	s := &scene{t: t, p: p}
	must(t, s.plain(tenant, "(block "+tenant+" (blockinherit container))"))
	return s
}

// plain installs a text as an administrator would, in place of the last one.
func (s *scene) plain(name, text string) error {
	file := filepath.Join(s.t.TempDir(), name+".cil")
	must(s.t, os.WriteFile(file, []byte(text), 0o600))
	args := []string{"--priority=" + adminPriority}
	if s.last != "" {
		args = append(args, "--remove="+s.last)
	}
	err := program(context.Background(), "", append(args, "--install="+file)...)
	if err == nil && name != tenant {
		s.last = name
	}
	return err
}

// can runs one command in a process of a block, and says whether it worked.
func (s *scene) can(block, command string) bool {
	s.t.Helper()
	p := runAs(s.t, selinux.ProcessType(block))
	defer p.end()
	return p.can(command)
}

func (s *scene) reads(block, file string) bool { return s.can(block, "read -r x < "+file) }

// breakout is a module that Confine refuses, and what comes of it.
type breakout struct {
	text string
	// did reports whether what must not happen happened.
	did func(s *scene) bool
}

func inBlock(body string) string {
	return "(block " + escapes + " (blockinherit container)\n" + body + ")\n"
}

const mayRead = "(file (open read getattr))"

// readers are modules with a way to a file that no container may read.
func readers() map[string]string {
	return map[string]string{
		"a type of the host":      inBlock("(allow process secret_t " + mayRead + ")"),
		"an attribute":            inBlock("(allow process file_type " + mayRead + ")"),
		"an alias":                inBlock("(typealias mine) (typealiasactual mine secret_t) (allow process mine " + mayRead + ")"),
		"a set":                   inBlock("(typeattribute mine) (typeattributeset mine (not (process))) (allow process mine " + mayRead + ")"),
		"a leading dot":           inBlock("(allow process .secret_t " + mayRead + ")"),
		"a nested block":          inBlock("(block socket (type process)) (allow process secret_t " + mayRead + ")"),
		"a template of its own":   inBlock("(block net_container (blockabstract net_container) (allow process secret_t " + mayRead + ")) (blockinherit net_container)"),
		"a macro":                 inBlock("(macro m ((type a)) (allow a secret_t " + mayRead + ")) (call m (process))"),
		"an optional":             inBlock("(optional o (allow process secret_t " + mayRead + "))"),
		"a boolean":               inBlock("(boolean b true) (booleanif b (true (allow process secret_t " + mayRead + ")))"),
		"a tunable":               inBlock("(tunable b true) (tunableif b (true (allow process secret_t " + mayRead + ")))"),
		"a class map":             inBlock("(classmap anything (do)) (classmapping anything do " + mayRead + ") (allow process secret_t (anything (do)))"),
		"a set of permissions":    inBlock("(classpermission c) (classpermissionset c " + mayRead + ") (allow process secret_t c)"),
		"all permissions":         inBlock("(allow process secret_t (file (all)))"),
		"a quoted target":         inBlock(`(allow process "secret_t" ` + mayRead + ")"),
		"a rule beside":           inBlock("") + "(allow " + escapes + ".process secret_t " + mayRead + ")",
		"permissive":              inBlock("(typepermissive process)"),
		"permissive, quoted":      inBlock(`("typepermissive" process)`),
		"permissive, by a mark":   inBlock("(<src_info> cil 1 x (typepermissive process))"),
		"permissive, by a line":   "(block " + escapes + " (blockinherit container)\n;;* lms 1 x\n)\n;;* lme\n(typepermissive " + escapes + ".process)\n",
		"permissive, by a return": inBlock("; nothing to see\r(typepermissive process)\n"),
	}
}

// others are what a module does to the host and to other tenants.
func others() map[string]breakout {
	return map[string]breakout{
		"switches SELinux off": {
			inBlock("(allow process security_t (dir (search))) (allow process security_t (file (open write))) (allow process security_t (security (setenforce)))"),
			func(s *scene) bool {
				did := s.can(escapes, "echo 0 > /sys/fs/selinux/enforce")
				must(s.t, os.WriteFile("/sys/fs/selinux/enforce", []byte("1"), 0))
				return did
			},
		},
		"gives another tenant a secret":    {inBlock("") + "(in " + tenant + " (allow process secret_t " + mayRead + "))", func(s *scene) bool { return s.reads(tenant, "/srv/secret") }},
		"adds to the template":             {inBlock("") + "(in container (allow process secret_t " + mayRead + "))", func(s *scene) bool { return s.reads(tenant, "/srv/secret") }},
		"gives all containers a secret":    {inBlock("(allow .container_domain .secret_t " + mayRead + ")"), func(s *scene) bool { return s.reads(tenant, "/srv/secret") }},
		"takes its files from a tenant":    {inBlock("") + "(constrain (file (append)) (neq t1 " + tenant + ".process))", func(s *scene) bool { return !s.can(tenant, "echo more >> /srv/data") }},
		"signals another tenant":           {inBlock("(allow process " + tenant + ".process (process (signull)))"), func(s *scene) bool { return s.signals(escapes, tenant) }},
		"is signalled by another tenant":   {inBlock("(allow " + tenant + ".process process (process (signull)))"), func(s *scene) bool { return s.signals(tenant, escapes) }},
		"decides labels of the host":       {inBlock("(typetransition kernel_t tmp_t file secret_t)"), func(s *scene) bool { return strings.Contains(s.labelOfNew(), "secret_t") }},
		"decides labels of the host later": {inBlock(`(filecon "/srv/other" any .etc_c)`) + "(context etc_c (system_u object_r secret_t low_low))", fileHolds("contexts/files/file_contexts", "/srv/other")},
		"decides as whom root logs in":     {inBlock("") + "(selinuxuser shopkeeper system_u low_low)", fileHolds("seusers", "shopkeeper:system_u")},
		"connects to the network":          {inBlock("(allow process self (tcp_socket (all))) (allow process port_type (tcp_socket (name_connect)))"), func(s *scene) bool { return s.connects(escapes) }},
	}
}

// signals reports whether a process of one block may signal one of another.
func (s *scene) signals(from, to string) bool {
	target := runAs(s.t, selinux.ProcessType(to))
	defer target.end()
	if !target.can("true") { // its answer shows that it runs as its type by now
		s.t.Fatal("the other process does nothing")
	}
	return s.can(from, fmt.Sprintf("kill -0 %d", target.pid))
}

// labelOfNew is that of a file which the host makes.
func (s *scene) labelOfNew() string {
	file := filepath.Join("/run", "made-by-the-host")
	must(s.t, os.WriteFile(file, nil, 0o600))
	defer func() { must(s.t, os.Remove(file)) }()
	label := make([]byte, 256)
	n, err := unix.Getxattr(file, "security.selinux", label)
	must(s.t, err)
	return string(label[:n])
}

// connects reports whether a process of a block may connect to this machine.
func (s *scene) connects(block string) bool {
	s.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(s.t, err)
	defer func() { _ = l.Close() }()
	go func() {
		for c, err := l.Accept(); err == nil; c, err = l.Accept() {
			_ = c.Close()
		}
	}()
	_, port, err := net.SplitHostPort(l.Addr().String())
	must(s.t, err)
	return s.can(block, "/bin/busybox nc -w 5 127.0.0.1 "+port+" < /dev/null")
}

// fileHolds looks into the policy that is in force on disk.
func fileHolds(name, what string) func(*scene) bool {
	return func(s *scene) bool {
		text, err := os.ReadFile("/etc/selinux/tiny/" + name)
		if errors.Is(err, os.ErrNotExist) {
			return false
		}
		must(s.t, err)
		return strings.Contains(string(text), what)
	}
}

// wantRefused holds that Confine refuses a text, even before it looks at names.
func wantRefused(t *testing.T, text string) {
	t.Helper()
	k := selinux.NewKind()
	p, err := k.Parse("x.cil", []byte(text))
	if err == nil {
		err = k.Constrain(p, profile.ForAnyone(), nil)
	}
	if !errors.Is(err, reason.ProfileForbidden) && !errors.Is(err, reason.ProfileInvalid) {
		t.Fatalf("Confine admits it: %v", err)
	}
}

// TestReadersAreRealInTheKernel installs with plain semodule what Confine
// refuses, all in one transaction, and reads: neither semodule nor the kernel
// stands in front of it.
func TestReadersAreRealInTheKernel(t *testing.T) {
	s := newScene(t)
	if !s.reads(tenant, "/srv/data") || s.reads(tenant, "/srv/secret") {
		t.Fatal("a container may read its own files and no secret")
	}
	dir, args, blocks := t.TempDir(), []string{"--priority=" + adminPriority}, map[string]string{}
	for name, text := range readers() {
		blocks[name] = fmt.Sprintf("%s_%d", escapes, len(blocks))
		text = strings.ReplaceAll(text, escapes, blocks[name])
		file := filepath.Join(dir, blocks[name]+".cil")
		must(t, os.WriteFile(file, []byte(text), 0o600))
		args = append(args, "--install="+file)
		t.Run("refused: "+name, func(t *testing.T) { wantRefused(t, text) })
	}
	must(t, program(t.Context(), "", args...))
	for name, block := range blocks {
		t.Run("reads: "+name, func(t *testing.T) {
			inner := *s
			inner.t = t
			if !inner.reads(block, "/srv/secret") {
				t.Error("it does not: it is no escape")
			}
		})
	}
	if s.reads(tenant, "/srv/secret") {
		t.Error("another tenant can, too: which of them does it?")
	}
}

// TestEscapesAreRealInTheKernel is the same for what a module does to others, one
// after the other.
func TestEscapesAreRealInTheKernel(t *testing.T) {
	s := newScene(t)
	must(t, s.plain(escapes, inBlock("")))
	for name, b := range others() {
		if b.did(s) {
			t.Errorf("%s: happens with a harmless module", name)
		}
	}
	for name, b := range others() {
		t.Run(name, func(t *testing.T) {
			inner := *s
			inner.t = t
			defer func() { s.last = inner.last }()
			wantRefused(t, b.text)
			if err := inner.plain(escapes, b.text); err != nil {
				t.Fatalf("semodule does not take it, so it proves nothing: %v", err)
			}
			if !b.did(&inner) {
				t.Error("it does not happen: it is no escape")
			}
		})
	}
}
