package selinux_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/profile/apparmor"
	"github.com/confine-dev/confine/pkg/profile/profiletest"
	"github.com/confine-dev/confine/pkg/profile/seccomp"
	"github.com/confine-dev/confine/pkg/profile/selinux"
	"github.com/confine-dev/confine/pkg/reason"
)

const (
	serving = `; a web server
(block confine_shop__eu_web
    (blockinherit container)
    (blockinherit restricted_net_container)
    (allow process self (tcp_socket (accept listen)))
    (allow process process ( capability ( chown setgid setuid )))
    (allow process socket (sock_file (create unlink)))
)
`
	// reaching is of the shape that udica writes for a container with a port
	// and a mounted folder.
	reaching = `(block my_container
    (blockinherit container)
    (blockinherit restricted_net_container)
    (allow process process ( capability ( audit_write chown dac_override fowner fsetid kill mknod net_bind_service net_raw setfcap setgid setpcap setuid sys_chroot ))) 

    (allow process mysqld_port_t ( tcp_socket (  name_bind ))) 
    (blockinherit home_rw_container)
    (allow process var_spool_t ( dir ( add_name create getattr ioctl lock open read remove_name rmdir search setattr write ))) 
    (allow process var_spool_t ( file ( append create getattr ioctl lock map open read rename setattr unlink write ))) 
    (allow process var_spool_t ( fifo_file ( getattr read write append ioctl lock open ))) 
    (allow process var_spool_t ( sock_file ( append getattr open read write ))) 
)`
	foreign = `(block a (type t) (optional o (allow t self (file (all))))) (typepermissive a.t) ("quoted" "text; (")`
)

func good() map[string]profiletest.Payload {
	return map[string]profiletest.Payload{
		"serving": {Data: serving}, "reaching": {Data: reaching}, "foreign": {Data: foreign},
		"no newline":   {Data: "(block confine_web_x (blockinherit container))"},
		"tight":        {Data: ";;\n\t(block confine_web_x(blockinherit container)(allow process self(fd(use))));"},
		"as deep":      {Data: "(block a " + strings.Repeat("(", 63) + strings.Repeat(")", 63) + ")"},
		"a bad nested": {Data: "(block a () (()) (block a) (block a))"},
	}
}

func bad() map[string]profiletest.Payload {
	return map[string]profiletest.Payload{
		"nothing":                 {Data: "", Position: "1:1"},
		"comments alone":          {Data: "; a\n;b", Position: "1:1"},
		"a symbol at the top":     {Data: "(a)\n b", Position: "2:2"},
		"a string at the top":     {Data: `"a"`, Position: "1:1"},
		"not closed":              {Data: "(block a\n  (b)", Position: "1:1"},
		"not closed inside":       {Data: "(block a\n  (b", Position: "2:3"},
		"closed too often":        {Data: "(block a))", Position: "1:10"},
		"closed by a comment":     {Data: "(block a ; )", Position: "1:1"},
		"closed by a string":      {Data: `(block a ")"`, Position: "1:1"},
		"a string not closed":     {Data: "(block \"a\n\")", Position: "1:8"},
		"a string not closed end": {Data: `(block "a)`, Position: "1:8"},
		"no keyword":              {Data: "(block a)\n()", Position: "2:1"},
		"a list as the keyword":   {Data: "((block a))", Position: "1:1"},
		"a block twice":           {Data: "(block a)\n(block a)", Position: "2:8"},
		"a block twice, quoted":   {Data: "(block a)\n(block \"a\")", Position: "2:8"},
		"a foreign character":     {Data: "(block a\\b)", Position: "1:9"},
		"a letter of Greek":       {Data: "(block α)", Position: "1:8"},
		"a carriage return":       {Data: "(block a)\r\n", Position: "1:10"},
		"a form feed":             {Data: "(block\fa)", Position: "1:7"},
		"DEL":                     {Data: "(block a\x7f)", Position: "1:9"},
		"a control of C1":         {Data: "; \u0085\n(block a)", Position: "1:3"},
		"a line separator":        {Data: "; \u2028(block b)\n(block a)", Position: "1:3"},
		"right to left":           {Data: "; \u202e\n(block a)", Position: "1:3"},
		"a line mark":             {Data: "(block a)\n;;* lme\n", Position: "2:1"},
		"a line mark later":       {Data: "(block a) ;;* lme\n", Position: "1:11"},
		"too deep":                {Data: "(block a " + strings.Repeat("(", 64) + strings.Repeat(")", 64) + ")", Position: "1:73"},
		"a long symbol":           {Data: "(block " + strings.Repeat("a", 257) + ")", Position: "1:8"},
		"a long string":           {Data: `(block "` + strings.Repeat("a", 4097) + `")`, Position: "1:8"},
		"too many elements":       {Data: "(block a)\n" + strings.Repeat("(b)", 1<<15), Position: "2:98300"},
		"JSON":                    {Data: `{"defaultAction":"SCMP_ACT_ERRNO"}`, Position: "1:1"},
		"half UTF-8":              {Data: "(block a) ; \xe2\x82", Position: "1:13"},
	}
}

func TestKindConformance(t *testing.T) {
	profiletest.RunKind(t, selinux.NewKind(), profiletest.KindCase{
		Others: []profile.Kind{seccomp.New(seccomp.Options{}), apparmor.NewKind()},
		Good:   good(), Bad: bad(), Safe: "serving", Unsafe: "reaching", Namespace: "shop-eu",
	})
}

// TestNestingIsRefusedAtOnce holds that a megabyte of parentheses costs
// nothing: no recursion, nothing built beyond the bound.
func TestNestingIsRefusedAtOnce(t *testing.T) {
	for name, text := range map[string]string{
		"open":   strings.Repeat("(", profile.MaxPayloadBytes),
		"nested": strings.Repeat("(", profile.MaxPayloadBytes/2) + strings.Repeat(")", profile.MaxPayloadBytes/2),
		"pairs":  strings.Repeat("(a)", profile.MaxPayloadBytes/3),
		"block":  "(block a " + strings.Repeat("(a)", 1<<18) + ")",
	} {
		began := time.Now()
		_, err := selinux.Parse("x", []byte(text))
		if !errors.Is(err, reason.ProfileInvalid) {
			t.Errorf("%s: %v", name, err)
		}
		// It takes a few milliseconds; the bound is far off, for slow machines.
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("%s: %v", name, took)
		}
	}
	_, err := selinux.Parse("x", []byte(strings.Repeat(" ", profile.MaxPayloadBytes+1)))
	if !errors.Is(err, reason.TooLarge) {
		t.Errorf("too large: %v", err)
	}
}

func TestNamesOfOtherModulesAreEmpty(t *testing.T) {
	for _, text := range []string{foreign, "(block a)(block b)", `(block "a")`, "(block a.b)", "(block)", "(type a)"} {
		if block, processType := parse(t, text).Names(); block != "" || processType != "" {
			t.Errorf("%s: %s, %s", text, block, processType)
		}
	}
}

func TestFindings(t *testing.T) {
	text := `(block my_container
  (blockinherit container) (blockinherit virt_container)
  (allow process self (process (fork execmem)))
  (allow process process (process (fork)))
  (allow process var_t (dir (search)))
  (allow process var_t (file (read relabelto))))`
	want := []profile.Finding{
		{Position: "2:42", Message: "the template virt_container speaks to the host's libvirt, which can do what root can"},
		{Position: "3:38", Message: "process execmem: memory that was written can be executed"},
		{Position: "4:36", Message: "self process fork is allowed already above"},
		{Position: "5:30", Message: `the type "var_t" is not of this profile: every matching policy has to list it in allowedTypes`},
		{Position: "6:36", Message: "file relabelto: it changes what other rules mean, by changing labels"},
	}
	if diff := cmp.Diff(want, parse(t, text).Findings()); diff != "" {
		t.Error(diff)
	}
	many := parse(t, "(block a (allow process self (file ("+strings.Repeat("read ", 1000)+"))))")
	if got := many.Findings(); len(got) != 101 {
		t.Errorf("%d findings", len(got))
	}
}
