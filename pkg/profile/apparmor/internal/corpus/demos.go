package corpus

import (
	"maps"
	"strings"
)

const (
	corePattern = "/proc/sys/kernel/core_pattern=|/srv/handler"
	admin       = "capability sys_admin,\n"
	adminLimits = `{"allowedCapabilities":["sys_admin"]}`
)

// DemoOf returns how an escape is shown, or why it is not.
func DemoOf(e Escape) (Demo, bool) {
	all := map[string]Demo{}
	for _, some := range []map[string]Demo{nameDemos(), headerDemos(), fileDemos(), kernelDemos(), ruleDemos(), includeDemos()} {
		maps.Copy(all, some)
	}
	d, known := all[e.Name]
	if d.Under == "" && d.Unshown == "" {
		d.Under = "confine.web.nginx"
		if e.Text != "" {
			d.Under = "confine.web.x"
		}
	}
	if d.Want == "" {
		d.Want = "unconfined"
	}
	return d, known
}

// DemoNames are the names of all escapes that a demonstration is for.
func DemoNames() map[string]bool {
	names := map[string]bool{}
	for _, some := range []map[string]Demo{nameDemos(), headerDemos(), fileDemos(), kernelDemos(), ruleDemos(), includeDemos()} {
		for name := range some {
			names[name] = true
		}
	}
	return names
}

// takes: a process under the name may read what it could not read before.
func takes(name string) Demo { return Demo{Do: Read, On: "/x", Under: name, Takes: true} }

func loads(name string) Demo { return Demo{Do: Loads, On: name} }

func unshown(why string) Demo { return Demo{Unshown: why} }

// onHost is a profile of the host's, with the rules that programs of the test need.
func onHost(header string, rules ...string) string {
	return preamble + header + " {\n" + HarnessRules + strings.Join(rules, "\n") + "}\n"
}

// HarnessRules are what programs of the test need to run at all. The safe default
// admits them.
const HarnessRules = "  /{confine-vm/*,bin/sh,home/0/x,usr/sbin/sshd} mr,\n  /proc/[0-9]*/attr/{,apparmor/}current r,\n"

func nameDemos() map[string]Demo {
	return map[string]Demo{
		"a runtime's default":                 takes("docker-default"),
		"another runtime's default":           takes("cri-containerd.apparmor.d"),
		"CRI-O's default":                     takes("crio-default"),
		"a quoted default":                    takes("docker-default"),
		"unconfined":                          takes("unconfined"),
		"a path as name":                      takes("/usr/sbin/sshd"),
		"no keyword":                          takes("/usr/sbin/sshd"),
		"no keyword, quoted":                  takes("/usr/sbin/sshd"),
		"a variable as name":                  unshown("parsers refuse it, or expand it to what the host says"),
		"a variable in the name":              takes("confine.web.docker-default"),
		"a namespace of policy":               takes(":other:confine.web.x"),
		"no keyword, a namespace":             takes(":other:confine.web.x"),
		"a glob as name":                      loads("confine.web.*"),
		"alternatives as name":                loads("confine.web.{a,b}"),
		"a child from outside":                {Do: Read, On: "/x", Under: "confine.web.x//y", Takes: true, Host: onHost("profile confine.web.x")},
		"a child of the host's profile":       {Do: Read, On: "/x", Under: "firefox//lpr", Takes: true, Host: onHost("profile firefox")},
		"a hat at the top":                    takes("confine.web.x"),
		"other letters":                       takes("Confine.web.x"),
		"a look-alike":                        takes("confine.web.ngin\u0445"),
		"a blank in the name":                 takes("confine.web.x y"),
		"a name that ends like a mode":        loads("confine.web.x (enforce)"),
		"a dot at the end":                    takes("confine.web."),
		"no name behind the namespace":        takes("confine.web"),
		"a dot that climbs":                   takes("confine..x"),
		"flags as a part of the name":         loads("confine.web.x(complain)"),
		"a stack as name":                     unshown("this kernel finds no parent for it, and does not load it"),
		"a mode as name":                      takes("complain"),
		"a child of a child, from its parent": unshown("this kernel finds no parent for it, and does not load it"),
		"a child with a blank":                loads("confine.web.nginx//a b"),
		"a hat with a variable":               loads("confine.web.x//a"),
		"a child in a namespace":              loads(":other:confine.web.nginx"),
		"a second profile":                    takes("docker-default"),
		"a comment hides nothing":             loads("docker-default"),
	}
}

func headerDemos() map[string]Demo {
	catches := func(program string) Demo { return Demo{Do: Catches, On: program, Want: "confine.web.x"} }
	loose := Demo{Do: Write, On: "/srv/out"}
	in := func(child string) Demo { return Demo{Do: Write, On: "/srv/out", Under: "confine.web.nginx//" + child} }
	return map[string]Demo{
		"an attachment":               catches("/usr/sbin/sshd"),
		"an attachment by glob":       catches("/usr/sbin/sshd"),
		"an attachment by variable":   catches("/home/0/x"),
		"an attachment by attributes": catches("/usr/sbin/sshd"),
		"a child that attaches":       unshown("what a child attaches to is asked by cx rules of its own text alone"),
		"complain mode":               loose,
		"complain mode, old form":     loose,
		"complain mode, spaced":       loose,
		"a complaining child":         in("x"),
		"a complaining hat":           in("x"),
		"unconfined mode":             loose,
		"allow by default":            loose,
		"killing":                     {Do: Killed, On: "/srv/out"},
		"paths in the chroot":         {Do: ChrootRead, On: "/x", With: "capability sys_chroot,\n"},
		"audit":                       {Do: Noise, On: "/x", With: "/x r,\n"},
	}
}

func fileDemos() map[string]Demo {
	sh := Demo{Do: Leave, On: "/bin/sh"}
	in := func(child string) Demo { return Demo{Do: Leave, On: "/bin/sh", Under: "confine.web.nginx//" + child} }
	to := func(want, header string) Demo {
		return Demo{Do: Leave, On: "/bin/sh", Want: want, Host: onHost(header)}
	}
	demos := map[string]Demo{
		"in a hat": in("x"), "in a child": in("x"), "in a hat's other form": in("x"),
		"in a false condition":            unshown("the text itself makes the condition false; another text, or a host's tunables, would not"),
		"in an else":                      unshown("the text itself makes the condition true; another text, or a host's tunables, would not"),
		"PUx to a profile of the text":    unshown("the profile is there, as long as nobody takes it away"),
		"cux":                             unshown("the child is there, as long as nobody takes it away"),
		"px by path":                      to("host-sh", "profile host-sh /bin/sh"),
		"Pix by path":                     to("host-sh", "profile host-sh /bin/sh"),
		"px to another's profile":         to("confine.db.postgres", "profile confine.db.postgres"),
		"px to a runtime's default":       to("docker-default", "profile docker-default"),
		"px into a namespace of policy":   to("x", "profile :other:x"),
		"stacking":                        unshown("this kernel refuses to execute it"),
		"stacking of two":                 {Do: Leave, On: "/bin/sh", Want: "confine.web.nginx//&unconfined"},
		"cx to what is no child":          to("confine.web.nginx//other", "profile confine.web.nginx//other"),
		"cix to what is no child":         to("confine.web.nginx//other", "profile confine.web.nginx//other"),
		"change_profile into a namespace": {Do: Change, On: ":other:x", Want: "x", Host: onHost("profile :other:x")},
		"change_profile to any":           {Do: Change, On: "unconfined"},
		"change_profile":                  {Do: Change, On: "unconfined"},
		"change_profile to one":           {Do: Change, On: "unconfined"},
		"change_profile on exec":          {Do: ChangeExec, On: "unconfined"},
		"px to a variable":                unshown("these parsers leave the variable as it stands, and no profile is called so"),
		"an alias":                        {Do: Write, On: corePattern, With: "  /srv/kernel/core_pattern w,\n"},
	}
	for _, name := range strings.Split("ux/Ux/access first/with file/with owner/with allow/pux/over two lines/after a rule on the line/"+
		"after an include on the line/a quoted path/px to unconfined/an exchanged comma/px, access first/px with file/px from every program", "/") {
		demos[name] = sh
	}
	return demos
}

func kernelDemos() map[string]Demo {
	demos := map[string]Demo{
		"sysctls, appended":                {Do: Append, On: "/proc/sys/kernel/core_pattern"},
		"a variable of the host":           unshown("parsers refuse a variable that the host does not know"),
		"a deny by an unknown variable":    unshown("parsers refuse a variable that the host does not know"),
		"a deny for owners":                unshown("sysctls belong to root, and the kernel lets root alone write them"),
		"sysrq":                            {Do: Write, On: "/proc/sysrq-trigger=h"},
		"its own attributes":               {Do: Write, On: "/proc/self/attr/current"},
		"its own attributes by process":    {Do: Write, On: "/proc/self/attr/apparmor/exec"},
		"its own attributes by thread":     {Do: Write, On: "/proc/thread-self/attr/current"},
		"another's memory":                 {Do: Write, On: "/proc/self/mem"},
		"maps of users":                    {Do: Write, On: "/proc/self/uid_map"},
		"AppArmor's own files":             {Do: Write, On: "/sys/kernel/security/apparmor/.remove"},
		"AppArmor's own files by variable": {Do: Write, On: "/sys/kernel/security/apparmor/.remove"},
		"a device's files":                 {Do: Write, On: "/sys/devices/virtual/mem/null/uevent=change"},
		"a release agent":                  {Do: Write, On: "/sys/fs/cgroup/old/release_agent=/srv/handler", With: admin, Relaxed: adminLimits},
		"the machine's memory":             {Do: Write, On: "/dev/mem", With: "capability sys_rawio,\n", Relaxed: `{"allowedCapabilities":["sys_rawio"]}`},
		"the machine's memory by a glob":   {Do: Write, On: "/dev/mem", With: "capability sys_rawio,\n", Relaxed: `{"allowedCapabilities":["sys_rawio"]}`},
	}
	for _, name := range []string{"a link to the machine's memory", "a link to any device"} {
		demos[name] = Demo{Do: LinkedWrite, On: "/dev/mem=/dev/x", With: "capability sys_rawio,\n", Relaxed: `{"allowedCapabilities":["sys_rawio"]}`}
	}
	for _, e := range kernelEscapes() {
		if _, other := demos[e.Name]; !other {
			demos[e.Name] = Demo{Do: Write, On: corePattern}
		}
	}
	return demos
}

func ruleDemos() map[string]Demo {
	as := func(do Act, on string) Demo { return Demo{Do: do, On: on, With: admin, Relaxed: adminLimits} }
	return map[string]Demo{
		"every capability":          {Do: Hostname},
		"every capability, audited": {Do: Hostname},
		"a strong capability":       {Do: Hostname},
		"a strong one among others": {Do: Unload, On: "victim", Host: onHost("profile victim"),
			With: "/sys/kernel/security/apparmor/.remove w,\n", Relaxed: `{"allowedRules":["kernel-interface"]}`},
		"mount":                        as(Mount, "/mnt"),
		"bind mount":                   as(Bind, "/proc/sys"),
		"remount":                      as(Remount, "/"),
		"umount":                       as(Umount, "/proc/sys"),
		"umount's other name":          as(Umount, "/proc/sys"),
		"pivot_root":                   as(PivotRoot, ""),
		"ptrace":                       {Do: Trace, On: "unconfined"},
		"ptrace of its own by a glob":  {Do: PeerEnviron, On: "confine.web.ngina", With: "/proc/** r,\n", Host: onHost("profile confine.web.ngina", "ptrace (readby),\n")},
		"ptrace with access":           {Do: Trace, On: "unconfined"},
		"ptrace in short":              {Do: Trace, On: "unconfined"},
		"user namespaces":              {Do: Userns, With: "  /confine-vm/program ix,\n"},
		"user namespaces, spelt out":   {Do: Userns, With: "  /confine-vm/program ix,\n"},
		"everything":                   {Do: Write, On: corePattern},
		"everything, allowed":          {Do: Write, On: corePattern},
		"credentials through io_uring": unshown("it needs a ring, and nothing else of the kernel does"),
		"asking somebody":              unshown("no kernel has prompts yet but Ubuntu's"),
		"a priority":                   unshown("the deny rules above which it is stand in abstractions"),
		"a block":                      unshown("AppArmor 3.0 drops the rule with the block, and 4.0 refuses it"),
		"a denying block":              unshown("AppArmor 3.0 refuses it, and 4.0 dropped the qualifier"),
		"a deny too late":              unshown("parsers refuse it"),
	}
}

func includeDemos() map[string]Demo {
	sysctl := Demo{Do: Write, On: corePattern}
	const missing = "parsers refuse what the file holds, and say so with a line of it"
	return map[string]Demo{
		"by absolute path": unshown(missing), "by absolute path, no quotes": unshown(missing),
		"by relative path": unshown(missing), "the old form": unshown(missing),
		"if it exists": sysctl, "the old form, if it exists": sysctl, "climbing": sysctl, "a path that does nothing": sysctl,
		"an absolute path in brackets": sysctl, "the local folder": sysctl, "another profile": sysctl,
		"a folder":                unshown("it is every abstraction that the host has, and takes long to compile"),
		"a comment that includes": unshown("the file that it names is empty"),
		"a comment that includes, spelt like prose": unshown("parsers look for a file that is not there"),
		"quotes in brackets":                        unshown("it is the abstraction that it seems to be, for these parsers"),
		"blanks in brackets":                        unshown("it is the abstraction that it seems to be, for these parsers"),
		"a word glued to an include":                {Do: Leave, On: "/x"},
		"an abstraction for containers' managers":   unshown("hosts without LXC do not have it"),
		"an abstraction with ux":                    loads("confine.web.nginx//sanitized_helper"),
		"a feature set that is another file":        {Do: Signal, On: "unconfined"},
		"a feature set by path":                     {Do: Signal, On: "unconfined"},
		"an old kernel's features":                  unshown("it names all that these kernels enforce for containers"),
	}
}
