package apparmor_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/profile/apparmor"
	"github.com/confine-dev/confine/pkg/reason"
)

// escape is a text that a reviewer, or a careless reader, may take for
// harmless, and that would let a process out or take over what is not its own.
type escape struct {
	name string
	// rules stand in a profile that is otherwise fine; text is a whole policy.
	rules, text string
	// why it is an escape.
	why string
	// class is how the safe default forbids it; empty where it is no text that
	// can be read, which is refused as ProfileInvalid.
	class apparmor.RuleClass
	// newer is set where AppArmor 3.0's own parser refuses the text already, be
	// it that only 4.0 or later reads it. All others it accepts: see debian_test.go.
	newer bool
}

const sibling = "profile confine.web.other {\n  /x r,\n}\n"

func (e escape) policy() string {
	if e.text != "" {
		return "abi <abi/3.0>,\ninclude <tunables/global>\n" + e.text + "\n"
	}
	return body(e.rules)
}

func named(header string) string { return header + " {\n  /x r,\n}" }

func nameEscapes() []escape {
	const host, runtime = "it replaces or shadows a profile of the host", "containers without a profile of their own get it"
	return []escape{
		{"a runtime's default", "", named("profile docker-default"), runtime, "name", false},
		{"another runtime's default", "", named("profile cri-containerd.apparmor.d"), runtime, "name", false},
		{"CRI-O's default", "", named("profile crio-default"), runtime, "name", false},
		{"a quoted default", "", named(`profile "docker-default"`), runtime, "name", false},
		{"unconfined", "", named("profile unconfined"), "the name stands for no confinement in peers and transitions", "name", false},
		{"a path as name", "", named("profile /usr/sbin/sshd"), host, "name", false},
		{"no keyword", "", named("/usr/sbin/sshd"), host, "name", false},
		{"no keyword, quoted", "", named(`"/usr/sbin/sshd"`), host, "name", false},
		{"a variable as name", "", named("@{PROC}/x"), "its name is decided by the host", "name", true},
		{"a variable in the name", "", "@{N} = docker-default\n" + named("profile confine.web.@{N}"), "its name is decided late", "name", false},
		{"a namespace of policy", "", named("profile :other:confine.web.x"), "it is loaded where no agent looks", "name", false},
		{"no keyword, a namespace", "", named(":other:confine.web.x"), "it is loaded where no agent looks", "name", false},
		{"a glob as name", "", named("profile confine.web.*"), "the name attaches like a path", "name", false},
		{"alternatives as name", "", named("profile confine.web.{a,b}"), "one profile gets more names than are read", "name", false},
		{"a child from outside", "", named("profile confine.web.x//y"), "it defines a child of a profile that others own", "name", false},
		{"a child of the host's profile", "", named("profile firefox//lpr"), host, "name", false},
		{"a hat at the top", "", named("hat confine.web.x"), "a hat stands for itself only in its profile", "name", false},
		{"other letters", "", named("profile Confine.web.x"), "names tell cases apart, folders of the host may not", "owner", false},
		{"a look-alike", "", named("profile confine.web.nginх"), "the last letter is Cyrillic", "name", false},
		{"a blank in the name", "", named(`profile "confine.web.x y"`), "tools split the list of loaded profiles at blanks", "name", false},
		{"a name that ends like a mode", "", named(`profile "confine.web.x (enforce)"`), "the kernel lists it like another profile", "name", false},
		{"a dot at the end", "", named("profile confine.web."), "it is no name of a namespace's object", "owner", false},
		{"no name behind the namespace", "", named("profile confine.web"), "it stands in no namespace", "owner", false},
		{"a dot that climbs", "", named("profile confine..x"), "its namespace is empty", "owner", false},
		{"flags as a part of the name", "", "profile confine.web.x(complain) {\n}", "the parenthesis belongs to the name", "name", false},
		{"a second profile", "", named("profile confine.web.x") + "\n" + named("profile docker-default"), runtime, "name", false},
		{"a comment hides nothing", "", "profile docker-default # profile confine.web.x\n{\n}", runtime, "", false},
	}
}

func headerEscapes() []escape {
	const attach = "programs of the host run under it"
	return []escape{
		{"an attachment", "", named("profile confine.web.x /usr/sbin/sshd"), attach, "attachment", false},
		{"an attachment by glob", "", named("profile confine.web.x /**"), attach, "attachment", false},
		{"an attachment by variable", "", named("profile confine.web.x @{HOME}/x"), attach, "attachment", false},
		{"an attachment by attributes", "", named("profile confine.web.x /** xattrs=(security.tag=x)"), attach, "attachment", false},
		{"a child that attaches", "profile sh /bin/sh {\n}", "", attach, "attachment", false},
		{"complain mode", "", named("profile confine.web.x flags=(complain)"), "nothing is enforced", "flag", false},
		{"complain mode, old form", "", named("profile confine.web.x (complain)"), "nothing is enforced", "flag", false},
		{"complain mode, spaced", "", "profile confine.web.x flags  =  ( attach_disconnected ,\n complain ) {\n}", "nothing is enforced", "flag", false},
		{"a complaining child", "profile x flags=(complain) {\n}", "", "nothing is enforced in it", "flag", false},
		{"a complaining hat", "^x flags=(complain) {\n}", "", "nothing is enforced in it", "flag", false},
		{"unconfined mode", "", named("profile confine.web.x flags=(unconfined)"), "nothing is enforced", "flag", false},
		{"allow by default", "", named("profile confine.web.x flags=(default_allow)"), "only deny rules are enforced", "flag", true},
		{"paths in the chroot", "", named("profile confine.web.x flags=(chroot_relative)"), "a chroot moves every path of the rules", "flag", false},
		{"audit", "", named("profile confine.web.x flags=(audit)"), "it floods the log of the host", "flag", false},
	}
}

func fileEscapes() []escape {
	const out, host = "it runs without any profile", "it goes to a profile of the host that allows more"
	return []escape{
		{"ux", "/bin/sh ux,", "", out, "exec-unconfined", false},
		{"Ux", "/bin/sh rUx,", "", out, "exec-unconfined", false},
		{"access first", "rux /bin/sh,", "", out, "exec-unconfined", false},
		{"with file", "file /bin/sh Ux,", "", out, "exec-unconfined", false},
		{"with owner", "audit owner /bin/sh ux,", "", out, "exec-unconfined", false},
		{"with allow", "allow /bin/sh ux,", "", out, "exec-unconfined", false},
		{"pux", "/bin/sh pux,", "", "the profile that is missing makes it unconfined", "exec-unconfined", false},
		{"PUx to a profile of the text", "/bin/sh PUx -> confine.web.nginx,", "", "fallback to no profile", "exec-unconfined", false},
		{"cux", "/bin/sh Cux -> a,\nprofile a {\n}", "", "fallback to no profile", "exec-unconfined", false},
		{"in a hat", "^x {\n  /bin/sh ux,\n}", "", out, "exec-unconfined", false},
		{"in a child", "profile x {\n  /bin/sh ux,\n}", "", out, "exec-unconfined", false},
		{"in a hat's other form", "hat x {\n  /bin/sh ux,\n}", "", out, "exec-unconfined", false},
		{"in a false condition", "", "${x} = false\nprofile confine.web.x {\n  if ${x} {\n    /bin/sh ux,\n  }\n}", "the host decides conditions", "exec-unconfined", false},
		{"in an else", "", "${x} = true\nprofile confine.web.x {\n  if ${x} {\n    /a r,\n  } else {\n    /bin/sh ux,\n  }\n}", "the host decides conditions", "exec-unconfined", false},
		{"over two lines", "/bin/sh\n\tux\n,", "", out, "exec-unconfined", false},
		{"after a rule on the line", "/a r, /bin/sh ux,", "", out, "exec-unconfined", false},
		{"after an include on the line", "include <abstractions/base> /bin/sh ux,", "", out, "exec-unconfined", false},
		{"a quoted path", `"/bin/sh" ux,`, "", out, "exec-unconfined", false},
		{"px by path", "/bin/sh px,", "", host, "exec-other", false},
		{"Pix by path", "/bin/sh Pix,", "", host, "exec-other", false},
		{"px to unconfined", "/bin/sh px -> unconfined,", "", out, "exec-other", false},
		{"px to another's profile", "/bin/sh Px -> confine.db.postgres,", "", "it goes to what another namespace allows", "exec-other", false},
		{"px to a runtime's default", "/bin/sh px -> docker-default,", "", host, "exec-other", false},
		{"px into a namespace of policy", "/bin/sh px -> :other:x,", "", "it goes where no agent looks", "stacking", false},
		{"stacking", "/bin/sh px -> &unconfined,", "", "what a stack means depends on the host's profiles", "stacking", false},
		{"stacking of two", "/bin/sh px -> confine.web.nginx//&unconfined,", "", "what a stack means depends on the host's profiles", "stacking", false},
		{"px to a variable", "", "@{T} = unconfined\nprofile confine.web.x {\n  /bin/sh px -> @{T},\n}", "the target is decided late", "stacking", false},
		{"cx to what is no child", "/bin/sh cx -> other,", "", "the name is looked up elsewhere", "exec-other", false},
		{"an exchanged comma", "/a r,/bin/sh ux,", "", "two rules read as one", "", false},
		{"change_profile", "change_profile,", "", "the process chooses its profile", "change_profile", false},
		{"change_profile to one", "change_profile -> unconfined,", "", "the process leaves its profile", "change_profile", false},
		{"change_profile on exec", "change_profile unsafe /bin/sh -> unconfined,", "", "the process leaves its profile", "change_profile", false},
		{"an alias", "", "alias /srv/ -> /proc/sys/,\n" + named("profile confine.web.x"), "rules about /srv/ are about sysctls", "alias", false},
	}
}

func kernelEscapes() []escape {
	const sysctl, self = "sysctls such as core_pattern run programs on the host", "writing there changes the confinement itself"
	return []escape{
		{"sysctls", "/proc/sys/** w,", "", sysctl, "kernel-interface", false},
		{"sysctls, appended", "/proc/sys/kernel/core_pattern a,", "", sysctl, "kernel-interface", false},
		{"sysctls by owner", "owner /proc/sys/** rw,", "", sysctl, "kernel-interface", false},
		{"sysctls by variable", "@{PROC}/sys/kernel/core_pattern w,", "", sysctl, "kernel-interface", false},
		{"sysctls by a variable of its own", "", "@{X} = sys\nprofile confine.web.x {\n  /proc/@{X}/** w,\n}", sysctl, "kernel-interface", false},
		{"sysctls by variables of variables", "", "@{A} = /pr\n@{B} = @{A}oc\nprofile confine.web.x {\n  @{B}/sys/** w,\n}", sysctl, "kernel-interface", false},
		{"sysctls by a value added", "", "@{HOMEDIRS} += /proc/sys/\nprofile confine.web.x {\n  @{HOMEDIRS}/** w,\n}", sysctl, "kernel-interface", false},
		{"a variable of the host", "@{exec_path}** w,", "", "its value is not known here", "kernel-interface", true},
		{"sysctls by two slashes", "/proc//sys/** w,", "", "parsers read two slashes as one", "kernel-interface", false},
		{"sysctls by alternatives", "/{proc,srv}/{sys,log}/** w,", "", sysctl, "kernel-interface", false},
		{"sysctls by a set", "/[p]ro[a-c]/sys/** w,", "", sysctl, "kernel-interface", false},
		{"sysctls by a negated set", "/[^s]roc/sys/** w,", "", sysctl, "kernel-interface", false},
		{"sysctls by stars", "/*/*/*/core_pattern w,", "", sysctl, "kernel-interface", false},
		{"sysctls by an escape", `/pr\157c/sys/** w,`, "", "parsers decode it", "", false},
		{"sysctls by a hexadecimal escape", `/pr\x6fc/sys/** w,`, "", "parsers may decode it", "", false},
		{"every file", "/** w,", "", sysctl, "kernel-interface", false},
		{"every file, braces", "/{,**} rw,", "", sysctl, "kernel-interface", false},
		{"every file, bare", "file,", "", sysctl, "kernel-interface", false},
		{"every file, allowed", "allow file,", "", sysctl, "kernel-interface", false},
		{"a deny with a hole", "/proc/sys/** w,\ndeny /proc/sys/[^k]** w,", "", "/proc/sys/kernel is left", "kernel-interface", false},
		{"a deny for owners", "/proc/sys/** w,\naudit deny owner /proc/sys/** w,", "", "other files are left", "kernel-interface", false},
		{"a deny of reading", "/proc/sys/** rw,\ndeny /proc/sys/** r,", "", "writing is left", "kernel-interface", false},
		{"a deny in a child", "/proc/sys/** w,\nprofile x {\n  deny /proc/sys/** w,\n}", "", "the parent is not denied", "kernel-interface", false},
		{"a deny on a condition", "", "${x} = false\nprofile confine.web.x {\n  /proc/sys/** w,\n  if ${x} {\n    deny /proc/sys/** w,\n  }\n}", "the host decides conditions", "kernel-interface", false},
		{"a deny that is overruled", "priority=10 /proc/sys/** w,\ndeny /proc/sys/** w,", "", "the higher priority wins", "priority", true},
		{"a deny that comes second", "/proc/sys/** w,\npriority=-10 deny /proc/sys/** w,", "", "the higher priority wins", "kernel-interface", true},
		{"a deny by an unknown variable", "/proc/sys/** w,\ndeny @{nothing}/** w,", "", "it denies nothing that is known", "kernel-interface", true},
		{"sysrq", "/proc/sysrq-trigger w,", "", "it restarts the machine", "kernel-interface", false},
		{"its own attributes", "/proc/*/attr/current w,", "", self, "kernel-interface", false},
		{"its own attributes by process", "@{PROC}/@{pid}/attr/apparmor/exec w,", "", self, "kernel-interface", false},
		{"its own attributes by thread", "owner /proc/[0-9]*/task/*/attr/** w,", "", self, "kernel-interface", false},
		{"another's memory", "/proc/[0-9]*/mem rw,", "", "it changes other processes", "kernel-interface", false},
		{"maps of users", "/proc/*/uid_map w,", "", "it prepares namespaces", "kernel-interface", false},
		{"AppArmor's own files", "/sys/kernel/security/apparmor/.remove w,", "", self, "kernel-interface", false},
		{"AppArmor's own files by variable", "@{sys}/kernel/security/** rw,", "", self, "kernel-interface", false},
		{"a device's files", "/sys/devices/** w,", "", "it changes the machine", "kernel-interface", false},
		{"a release agent", "/sys/fs/cgroup/** w,", "", "the kernel runs it on the host when a group is empty", "kernel-interface", false},
		{"the machine's memory", "/dev/mem rw,", "", "it is the whole machine", "kernel-interface", false},
		{"the machine's memory by a glob", "/dev/* rw,", "", "it is the whole machine", "kernel-interface", false},
	}
}

func ruleEscapes() []escape {
	return []escape{
		{"every capability", "capability,", "", "sys_admin and mac_admin are among them", "capability", false},
		{"every capability, audited", "audit allow capability ,", "", "sys_admin and mac_admin are among them", "capability", false},
		{"a strong capability", "capability sys_admin,", "", "nearly root on the host", "named-capability", false},
		{"a strong one among others", "capability chown\n\tmac_admin  kill,", "", "it replaces policy", "named-capability", false},
		{"mount", "mount,", "", "mounts move every path", "mount", false},
		{"bind mount", "mount options=(rw,bind) /srv/ -> /proc/sys/,", "", "mounts move every path", "mount", false},
		{"remount", "remount options=(rw) /,", "", "it makes read-only mounts writable", "remount", false},
		{"umount", "umount /proc/sys/,", "", "it uncovers what the runtime hid", "umount", false},
		{"umount's other name", "unmount,", "", "it uncovers what the runtime hid", "umount", false},
		{"pivot_root", "pivot_root,", "", "it moves every path", "pivot_root", false},
		{"ptrace", "ptrace,", "", "it changes other processes", "ptrace", false},
		{"ptrace of its own by a glob", "ptrace (read) peer=confine.web.ngin?,", "", "the glob names others too", "ptrace", false},
		{"ptrace with access", "ptrace (read, trace) peer=**,", "", "it changes other processes", "ptrace", false},
		{"ptrace in short", "ptrace rw,", "", "w means trace", "ptrace", false},
		{"user namespaces", "userns,", "", "capabilities in a namespace of its own", "userns", true},
		{"user namespaces, spelt out", "allow userns create,", "", "capabilities in a namespace of its own", "userns", true},
		{"everything", "all,", "", "it stands for every rule", "all", true},
		{"everything, allowed", "allow all,", "", "it stands for every rule", "all", true},
		{"credentials through io_uring", "io_uring override_creds,", "", "another's credentials are used", "io_uring", true},
		{"asking somebody", "prompt /x rw,", "", "who answers is not known", "prompt", true},
		{"a priority", "priority=100 /x rw,", "", "it is above every deny rule, those of abstractions too", "priority", true},
		{"a block", "audit {\n  mount,\n}", "", "parsers apply the qualifier to some rules only", "", false},
		{"a denying block", "deny {\n  capability sys_admin,\n}", "", "parsers drop deny from such rules, so that they allow", "", true},
		{"a deny too late", "owner deny /x w,", "", "readers differ in what it means", "", true},
	}
}

func includeEscapes() []escape {
	const reads, more = "text of the host that nobody signed becomes a part of it", "the abstraction allows what is forbidden here"
	return []escape{
		{"by absolute path", `include "/etc/hostname"`, "", reads, "foreign-file", true},
		{"by absolute path, no quotes", "include /etc/hostname", "", reads, "foreign-file", true},
		{"by relative path", "include secret", "", reads, "foreign-file", true},
		{"the old form", `#include "/etc/hostname"`, "", reads, "foreign-file", true},
		{"if it exists", `include if exists "/etc/hostname.none"`, "", reads, "foreign-file", false},
		{"the old form, if it exists", `#include if exists "/etc/hostname.none"`, "", reads, "foreign-file", false},
		{"climbing", "include if exists <abstractions/../local/none>", "", reads, "foreign-file", false},
		{"a path that does nothing", "include if exists <abstractions/./none>", "", "the check of the name is evaded", "foreign-file", false},
		{"an absolute path in brackets", "include if exists </etc/none>", "", reads, "foreign-file", false},
		{"the local folder", "include if exists <local/none>", "", reads, "include", false},
		{"another profile", "include if exists <usr.bin.none>", "", reads, "foreign-file", false},
		{"a folder", "include if exists <abstractions>", "", "it is every abstraction there is", "foreign-file", false},
		{"a comment that includes", "#include/dev/null", "", "parsers read it as an include of that file", "", false},
		{"a comment that includes, spelt like prose", "#included: abstractions/base", "", "parsers read it as an include of d:", "", true},
		{"quotes in brackets", `include <"abstractions/base">`, "", "the name is read in two ways", "", false},
		{"blanks in brackets", "include < abstractions/base >", "", "the name is read in two ways", "", false},
		{"a word glued to an include", "#include <abstractions/base>/x ux,", "", "the rest of the line is a rule", "", false},
		{"an abstraction for containers' managers", "include <abstractions/lxc/start-container>", "", more, "include", true},
		{"an abstraction with ux", "include <abstractions/ubuntu-helpers>", "", more, "include", false},
		{"a feature set that is another file", "abi <tunables/global>,", "", "features that it does not name are not enforced", "abi", false},
		{"a feature set by path", `abi "/etc/hostname",`, "", "features that it does not name are not enforced", "abi", false},
		{"an old kernel's features", "abi <abi/kernel-5.4-vanilla>,", "", "what that kernel did not enforce is not enforced", "abi", false},
	}
}

func escapes() []escape {
	var all []escape
	for _, some := range [][]escape{nameEscapes(), headerEscapes(), fileEscapes(), kernelEscapes(), ruleEscapes(), includeEscapes()} {
		for _, e := range some {
			if e.rules+e.text != "" {
				all = append(all, e)
			}
		}
	}
	return all
}

func TestEscapesAreRefused(t *testing.T) {
	k := apparmor.NewKind()
	all := escapes()
	if len(all) < 60 {
		t.Fatalf("only %d escapes", len(all))
	}
	seen := map[string]bool{}
	for _, e := range all {
		if seen[e.name] || e.why == "" {
			t.Errorf("%q stands here twice, or without a reason", e.name)
		}
		seen[e.name] = true
		t.Run(e.name, func(t *testing.T) {
			p, err := k.Parse("escape.aa", []byte(e.policy()))
			if e.class == "" {
				if !errors.Is(err, reason.ProfileInvalid) {
					t.Fatalf("read as %v, %v: %s\n%s", p, err, e.why, e.policy())
				}
				return
			}
			if err != nil {
				t.Fatalf("%v\n%s", err, e.policy())
			}
			found := apparmor.Violations(p.(*apparmor.Profile))
			if len(found) == 0 || found[0].Class != e.class {
				t.Fatalf("found %v, want %s: %s\n%s", found, e.class, e.why, e.policy())
			}
			err = k.Constrain(p, profile.ForAnyone(), nil)
			if !errors.Is(err, reason.ProfileForbidden) {
				t.Errorf("got %v: %s", err, e.why)
			}
			if refusal, _ := reason.Of(err); !strings.HasPrefix(refusal.Object, "escape.aa:") || refusal.Advice == "" {
				t.Errorf("%v has no position or advice", err)
			}
		})
	}
}

// TestTheFrameOfEscapesPasses: what is forbidden is the escape itself.
func TestTheFrameOfEscapesPasses(t *testing.T) {
	k := apparmor.NewKind()
	for _, text := range []string{body("/x r,"), body("^x {\n}", "hat y {\n}", "profile z {\n}"), sibling, body("deny /** w,", "deny capability,", "deny mount,", "deny ptrace,", "deny all,")} {
		if err := k.Constrain(parse(t, text), profile.ForAnyone(), nil); err != nil {
			t.Errorf("%v\n%s", err, text)
		}
	}
}
