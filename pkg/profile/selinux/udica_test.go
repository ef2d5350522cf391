package selinux_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/profile/selinux"
	"github.com/confine-dev/confine/pkg/reason"
)

// udica is what its options write, after the words of its own tests
// (https://github.com/containers/udica/tree/main/tests): each body stands in
// (block confine_web_x (blockinherit container) ...).
func udica() map[string]struct {
	body string
	// needs are the limits that admit it; empty where the default does, "never"
	// where no limits do.
	needs string
} {
	const capabilities = "    (allow process process ( capability ( chown dac_override fowner fsetid kill net_bind_service setfcap setgid setpcap setuid sys_chroot ))) \n\n"
	return map[string]struct{ body, needs string }{
		"by default":       {capabilities, ""},
		"full network":     {"    (blockinherit net_container)\n" + capabilities, ""},
		"a terminal":       {"    (blockinherit tty_container)\n" + capabilities, ""},
		"reading logs":     {capabilities + "    (blockinherit log_container)\n", `{"allowedTemplates":["log_container"]}`},
		"writing logs":     {capabilities + "    (blockinherit log_rw_container)\n", `{"allowedTemplates":["log_rw_container"]}`},
		"reading settings": {"    (blockinherit config_container)\n" + capabilities, `{"allowedTemplates":["config_container"]}`},
		"reading homes":    {"    (blockinherit home_container)\n" + capabilities, `{"allowedTemplates":["home_container"]}`},
		// A template of udica that container-selinux does not ship.
		"Kerberos":         {"    (blockinherit kerberos_container)\n" + capabilities, `{"allowedTemplates":["kerberos_container"]}`},
		"libvirt":          {"    (blockinherit virt_container)\n" + capabilities, `{"allowedTemplates":["virt_container"]}`},
		"X":                {"    (blockinherit x_container)\n" + capabilities, `{"allowedTemplates":["x_container"]}`},
		"a port":           {"    (blockinherit restricted_net_container)\n" + capabilities + "    (allow process mysqld_port_t ( tcp_socket (  name_bind ))) \n", `{"allowedTypes":["mysqld_port_t"]}`},
		"a folder to read": {capabilities + "    (allow process etc_t ( dir ( getattr ioctl lock open read search ))) \n    (allow process etc_t ( file ( getattr ioctl lock open read ))) \n    (allow process etc_t ( fifo_file ( getattr open read lock ioctl ))) \n    (allow process etc_t ( sock_file ( getattr open read ))) \n", `{"allowedTypes":["etc_t"]}`},
		"a device": {capabilities + "    (allow process framebuf_device_t ( blk_file ( getattr read write append ioctl lock open ))) \n    (allow process framebuf_device_t ( chr_file ( getattr read write append ioctl lock open ))) \n",
			`{"allowedTypes":["framebuf_device_t"],"allowedPermissions":[{"class":"blk_file","permissions":["getattr","read","write","append","ioctl","lock","open"]}]}`},
		"another container's socket": {"    (allow process network_container.process ( unix_stream_socket ( connectto ))) \n    (allow process network_container.socket ( sock_file ( getattr write open append ))) \n" + capabilities, "never"},
		"a denial on itself":         {capabilities + "    (allow process process ( netlink_route_socket ( nlmsg_write ))) \n", `{"allowedPermissions":[{"class":"netlink_route_socket","permissions":["nlmsg_write"]}]}`},
	}
}

func TestWhatUdicaWrites(t *testing.T) {
	admitted := 0
	for name, tc := range udica() {
		t.Run(name, func(t *testing.T) {
			k, p := selinux.NewKind(), parse(t, "(block confine_web_x\n    (blockinherit container)\n"+tc.body+")")
			err := k.Constrain(p, profile.ForAnyone(), nil)
			if tc.needs == "" {
				if err != nil {
					t.Error(err)
				}
				admitted++
				return
			}
			if !errors.Is(err, reason.ProfileForbidden) {
				t.Errorf("by default: %v", err)
			}
			if tc.needs == "never" {
				return
			}
			if err := k.Constrain(p, profile.ForAnyone(), []profile.Limits{profile.Limits(tc.needs)}); err != nil {
				t.Errorf("relaxed: %v", err)
			}
			if err := k.Constrain(p, profile.ForAnyone(), []profile.Limits{profile.Limits(tc.needs), nil}); !errors.Is(err, reason.ProfileForbidden) {
				t.Errorf("with one policy that says nothing: %v", err)
			}
		})
	}
	t.Logf("%d of %d are admitted by default", admitted, len(udica()))
}

// TestRefusalsSayWhatIsWrong: the message is what a person has to go by.
func TestRefusalsSayWhatIsWrong(t *testing.T) {
	for name, tc := range map[string]struct{ text, object, says string }{
		"a type":       {block("(allow process secret_t (file (read)))"), "x.cil:3:16", `the target "secret_t" is neither self, process nor socket, nor in allowedTypes`},
		"a permission": {block("(allow process self (process (fork ptrace)))"), "x.cil:3:36", `process "ptrace" may not be allowed`},
		"never":        {block("(allow process self (security (setenforce)))"), "x.cil:3:22", "by no policy either: it controls SELinux itself"},
		"a template":   {block("(blockinherit virt_container)"), "x.cil:3:15", "the template virt_container is not in allowedTemplates: it speaks to the host's libvirt"},
		"a statement":  {block("(typepermissive process)"), "x.cil:3:1", "(typepermissive process) may not stand in a profile: it changes how the type is enforced"},
		"the block":    {"\n(block web (blockinherit container))", "x.cil:2:8", `the block "web" is not named confine_NAMESPACE_NAME`},
		"no template":  {"(block confine_web_x)", "x.cil:1:1", "does not inherit container"},
		"a second":     {block("") + "(block confine_web_y)", "x.cil:4:1", "(block confine_web_y) is a second statement at the top"},
		"a rule first": {"(allow a b (c (d)))" + block(""), "x.cil:1:1", "(allow a b (c (d))) stands at the top"},
		"two at once":  {block("(allow process a (file (read))) (allow process b (file (read)))"), "x.cil:3:16", `"b"`},
		"many":         {block(strings.Repeat("(allow process a (file (read))) (allow process b (file (read)))(frob)(grob)(hob)(rob)(lob)", 3)), "x.cil:3:16", "; the list ends here"},
		"a long one":   {block(fmt.Sprintf("(macro m %s)", strings.Repeat("a ", 1000))), "x.cil:3:1", "..."},
	} {
		err := selinux.NewKind().Constrain(parse(t, tc.text), profile.ForAnyone(), nil)
		refusal, ok := reason.Of(err)
		if !ok || refusal.Object != tc.object || !strings.Contains(refusal.Detail, tc.says) || len(refusal.Detail) > 1024 {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// TestTheMessageForLineEndingsNamesTheCause: editors that write them do not
// show them.
func TestTheMessageForLineEndingsNamesTheCause(t *testing.T) {
	_, err := selinux.Parse("x.cil", []byte("(block a)\r\n"))
	if err == nil || !strings.Contains(err.Error(), "lines end with a newline alone") {
		t.Error(err)
	}
}
