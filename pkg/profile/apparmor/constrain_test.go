package apparmor_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/profile/apparmor"
	"github.com/confine-dev/confine/pkg/reason"
)

func TestWhatTheDefaultAllows(t *testing.T) {
	k := apparmor.NewKind()
	for name, rules := range map[string]string{
		"files":                     "/etc/** r,\nowner /var/lib/x/** rwkl,\n/usr/lib/** mr,",
		"ix":                        "/bin/* rix,",
		"its own child":             "/bin/sh Cx -> shell,\nprofile shell {\n  /bin/sh r,\n}",
		"its own profile":           "/bin/sh Px -> confine.web.nginx,",
		"its own hat":               "/bin/sh px -> confine.web.nginx//h,\n^h {\n}",
		"cix":                       "/bin/sh Cix,",
		"runtimes' capabilities":    "capability chown setuid net_bind_service,",
		"network":                   "network inet stream,\nnetwork unix,",
		"signals":                   "signal (send, receive) peer=confine.web.nginx,",
		"unix and dbus":             "unix (send) type=stream,\ndbus send bus=session,",
		"being traced":              "ptrace (readby, tracedby),",
		"tracing itself":            "ptrace (read) peer=@{profile_name},\nptrace (trace) peer=confine.web.nginx,",
		"limits":                    "set rlimit nofile <= 1024,",
		"queues":                    "mqueue (read) type=posix /q,",
		"abstractions":              "include <abstractions/base>\ninclude if exists <abstractions/web.d/x>",
		"denying everything":        "deny /** rwklx,\ndeny capability,\ndeny mount,\naudit deny ptrace,\ndeny userns,\ndeny change_profile,",
		"a denied priority":         "priority=5 deny /** w,",
		"its own control groups":    "/sys/fs/cgroup/** r,\n/sys/fs/cgroup/x/memory.max w,",
		"its own score":             "owner @{PROC}/@{pid}/oom_score_adj w,",
		"shared memory":             "/proc/sys/kernel/shmmax w,",
		"terminals and devices":     "/dev/{null,zero,full,tty,pts/*} rw,\n/dev/shm/** rw,",
		"reading the kernel":        "/sys/** r,\n@{PROC}/** r,",
		"everything but the kernel": "file,\ndeny /proc/** w,\ndeny /sys/** w,\ndeny /dev/{mem,kmem,port} w,",
		"its own part of /proc": "/** rw,\ndeny /proc/[^0-9]** w,\ndeny /proc/[0-9]*/{,task/*/}{attr/**,mem,*map,setgroups} w,\n" +
			"deny /sys/** w,\ndeny /dev/[^stn]** w,",
		"paths by variables": "@{HOME}/** rw,\n@{HOME}/@{XDG_DOWNLOAD_DIR}/** w,\n@{run}/x.pid w,",
	} {
		t.Run(name, func(t *testing.T) {
			if err := k.Constrain(parse(t, body(rules)), profile.ForAnyone(), nil); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestRelaxations(t *testing.T) {
	k := apparmor.NewKind()
	for name, tc := range map[string]struct {
		text, allows, short string
	}{
		"a name":             {"profile web.front {\n}\n", `{"allowedNames":["web.*"]}`, `{"allowedNames":["web"]}`},
		"flags":              {"profile confine.a.b flags=(complain,audit) {\n}\n", `{"allowedFlags":["complain","audit"]}`, `{"allowedFlags":["complain"]}`},
		"capabilities":       {body("capability sys_admin bpf,"), `{"allowedCapabilities":["sys_admin","bpf"]}`, `{"allowedCapabilities":["bpf"],"allowedRules":["capability"]}`},
		"all capabilities":   {body("capability,"), `{"allowedRules":["capability"]}`, `{"allowedCapabilities":["sys_admin"]}`},
		"mounts":             {body("mount,", "umount,"), `{"allowedRules":["mount","umount"]}`, `{"allowedRules":["mount"]}`},
		"an attachment":      {"profile confine.a.b /bin/x {\n}\n", `{"allowedRules":["attachment"]}`, `{"allowedRules":["alias"]}`},
		"local includes":     {body("include if exists <local/x>"), `{"allowedRules":["include"]}`, `{}`},
		"the kernel":         {body("/proc/sys/** w,"), `{"allowedRules":["kernel-interface"]}`, `null`},
		"no profile at all":  {body("/x ux,"), `{"allowedRules":["exec-unconfined"]}`, `{"allowedRules":["exec-other"]}`},
		"profiles of others": {body("/x px -> other,"), `{"allowedRules":["exec-other"]}`, `{"allowedRules":["exec-unconfined"]}`},
		"change_profile":     {body("change_profile -> x,"), `{"allowedRules":["change_profile"]}`, `{"allowedRules":[]}`},
		"everything": {everything, `{"allowedFlags":["complain"],"allowedRules":["alias","all","attachment","capability","change_profile","exec-other",` +
			`"exec-unconfined","include","io_uring","kernel-interface","mount","pivot_root","priority","prompt","ptrace","remount","umount","userns"]}`,
			`{"allowedFlags":["complain"]}`},
	} {
		t.Run(name, func(t *testing.T) {
			p := parse(t, tc.text)
			if err := k.Constrain(p, profile.ForAnyone(), raw(tc.allows)); err != nil {
				t.Errorf("with %s: %v", tc.allows, err)
			}
			for text, limits := range map[string][]profile.Limits{
				"the default": nil, "too little": raw(tc.short), "one of two policies": append(raw(tc.allows), nil),
				"the other of two": append(raw(tc.short), raw(tc.allows)...),
			} {
				if err := k.Constrain(p, profile.ForAnyone(), limits); !errors.Is(err, reason.ProfileForbidden) {
					t.Errorf("with %s: %v", text, err)
				}
			}
		})
	}
}

// TestNeverAllowed: no TrustPolicy gives these away.
func TestNeverAllowed(t *testing.T) {
	var classes []string
	for _, class := range apparmor.RuleClasses() {
		classes = append(classes, `"`+string(class)+`"`)
	}
	most := `{"allowedNames":["doc*","unc*","cri*","con*","snap*","usr*"],"allowedRules":[` + strings.Join(classes, ",") + `]}`
	for name, text := range map[string]string{
		"docker-default": "profile docker-default {\n}\n", "unconfined": "profile unconfined {\n}\n",
		"containerd's":  "profile cri-containerd.apparmor.d {\n}\n",
		"a path":        "/usr/bin/x {\n}\n",
		"a namespace":   "profile :x:confine.a.b {\n}\n",
		"a glob":        "profile confine.a.* {\n}\n",
		"another child": "profile confine.a.b//c {\n}\n",
		"a snap":        "profile snap.firefox.firefox {\n}\n",
		"stacking":      body("/x px -> &confine.web.nginx,"),
		"a file":        body(`include "/etc/passwd"`),
		"climbing":      body(`include <abstractions/../../passwd>`),
		"a feature set": "abi <tunables/home>,\nprofile confine.a.b {\n}\n",
	} {
		if err := apparmor.NewKind().Constrain(parse(t, text), profile.ForAnyone(), raw(most)); !errors.Is(err, reason.ProfileForbidden) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestUnreadableLimits(t *testing.T) {
	p := parse(t, nginx)
	for name, limits := range map[string]string{
		"an unknown class":      `{"allowedRules":["everything"]}`,
		"an unknown flag":       `{"allowedFlags":["quiet"]}`,
		"an unknown capability": `{"allowedCapabilities":["CAP_SYS_ADMIN"]}`,
		"every name":            `{"allowedNames":["*"]}`,
		"Confine's own names":   `{"allowedNames":["confine.*"]}`,
		"a tenant's name":       `{"allowedNames":["confine.shop.web"]}`,
		"names like Confine's":  `{"allowedNames":["Confined-*"]}`,
		"nearly every name":     `{"allowedNames":["u*"]}`,
		"a path":                `{"allowedNames":["/usr/bin/*"]}`,
		"an expression":         `{"allowedNames":["web(.*)"]}`,
		"a field twice":         `{"allowedRules":[],"allowedRules":["mount"]}`,
		"a field in capitals":   `{"AllowedRules":["mount"]}`,
		"no list":               `{"allowedRules":"mount"}`,
		"null in a list":        `{"allowedRules":[null]}`,
		"numbers":               `{"allowedNames":[1]}`,
		"something after it":    `{} {}`,
		"too many items":        `{"allowedFlags":[` + strings.Repeat(`"audit",`, 600) + `"audit"]}`,
	} {
		if err := apparmor.NewKind().Constrain(p, profile.ForAnyone(), raw(limits)); !errors.Is(err, reason.TrustPolicyInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestTangledTextIsForbidden: what cannot be judged within its budget is not
// admitted, however much of it there is.
func TestTangledTextIsForbidden(t *testing.T) {
	k := apparmor.NewKind()
	set := strings.Repeat("[ab]", 30)
	texts := map[string]string{
		"globs that explode": body("/** w,\ndeny /** w,\ndeny /**a"+set+" w,", "deny /**b"+set+" w,", "deny /**a*b"+set+" w,"),
		"many globs":         body(strings.Repeat("/**/a*b*c** w,\n", 6000), "deny /** w,", strings.Repeat("deny /**/d*[^e]** w,\n", 6000)),
	}
	for name, text := range texts {
		t.Run(name, func(t *testing.T) {
			p := parse(t, text)
			if err := k.Constrain(p, profile.ForAnyone(), nil); !errors.Is(err, reason.ProfileForbidden) {
				t.Errorf("got %v", err)
			}
			found := apparmor.Violations(p.(*apparmor.Profile))
			if !slices.ContainsFunc(found, func(v apparmor.Violation) bool { return v.Class == "too-complicated" }) {
				t.Error("it was judged to its end: the test shows nothing")
			}
		})
	}
	values := strings.Repeat(" /proc/x", 500)
	var nested strings.Builder
	nested.WriteString("@{V0} =" + values + "\n")
	for _, n := range []string{"1", "2", "3", "4", "5"} {
		nested.WriteString("@{V" + n + "} = @{V0}@{V0}@{V0}@{V0}\n")
	}
	if err := k.Constrain(parse(t, nested.String()+"profile confine.a.b {\n@{V5} w,\n}\n"), profile.ForAnyone(), nil); !errors.Is(err, reason.ProfileForbidden) {
		t.Errorf("variables that explode: %v", err)
	}
	if err := k.Constrain(parse(t, "@{A} = @{B}\n@{B} = @{A}\nprofile confine.a.b {\n@{A} w,\n}\n"), profile.ForAnyone(), nil); !errors.Is(err, reason.ProfileForbidden) {
		t.Errorf("variables that hold themselves: %v", err)
	}
}
