//go:build linux

package apparmor_test

import (
	"testing"

	"github.com/confine-dev/confine/pkg/profile/apparmor"
)

// newer is what AppArmor 4.0 and 4.1 brought to the language (apparmor.d(5) of
// 4.1), and what the safe default says of it: a class that forbids it, "" for what
// it admits, "unread" where the reader refuses it on purpose.
func newer() map[string]string {
	return map[string]string{
		"userns,": "userns", "userns create,": "userns", "audit allow userns,": "userns", "deny userns,": "",
		"mqueue,": "", "mqueue (create, open, delete, read, write) type=posix /jobs,": "", "mqueue r type=sysv 12,": "",
		"mqueue (getattr, setattr) label=confine.web.other /jobs,": "",
		"io_uring,": "io_uring", "io_uring sqpoll,": "io_uring", "io_uring override_creds label=x,": "io_uring",
		"all,": "all", "allow all,": "all", "audit allow all,": "all", "/x r,\ndeny all,": "",
		"prompt /x r,": "prompt", "prompt mqueue,": "prompt",
		"priority=5 /x r,": "priority", "priority=-5 allow /x r,": "priority", "priority=5 deny /x r,": "", "priority=5 audit deny capability sys_admin,": "",
		"network inet stream ip=127.0.0.1 port=80,": "", "network (send, receive) inet dgram ip=::1 peer=(ip=10.0.0.1 port=53),": "",
		"/x ix,": "", "file rw /x,": "",
	}
}

// TestNewerSyntaxIsKnown: what the parser of 4.1 takes is refused or admitted
// knowingly.
func TestNewerSyntaxIsKnown(t *testing.T) {
	for rule, want := range newer() {
		text := "abi <abi/4.0>,\nprofile confine.web.nginx {\n" + rule + "\n}\n"
		if _, err := trixie().parser(t, text, "-S"); err != nil {
			t.Errorf("%s: the parser of 4.1 refuses it: %v", rule, err)
		}
		p, err := apparmor.NewKind().Parse("p.aa", []byte(text))
		got := "unread"
		if err == nil {
			got = ""
			if found := apparmor.Violations(p.(*apparmor.Profile)); len(found) > 0 {
				got = string(found[0].Class)
			}
		}
		if got != want {
			t.Errorf("%s: got %q, want %q (%v)", rule, got, want, err)
		}
	}
}

// TestNewerFlagsAreKnown: no flag of 4.1 is admitted by default.
func TestNewerFlagsAreKnown(t *testing.T) {
	for _, flag := range []string{
		"unconfined", "default_allow", "prompt", "kill", "interruptible", "kill.signal=term", "error=EPERM", "attach_disconnected.path=/dead",
		"complain", "enforce", "debug", "audit", "chroot_relative", "namespace_relative", "no_attach_disconnected", "chroot_no_attach",
	} {
		text := "abi <abi/4.0>,\nprofile confine.web.nginx flags=(" + flag + ") {\n  /x r,\n}\n"
		_, refused := trixie().parser(t, text, "-S")
		found := apparmor.Violations(parse(t, text).(*apparmor.Profile))
		if refused != nil || len(found) != 1 || found[0].Class != apparmor.FlagClass {
			t.Errorf("%s: the parser says %v, and found is %v", flag, refused, found)
		}
	}
}
