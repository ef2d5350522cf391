package apparmor_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/profile/apparmor"
	"github.com/confine-dev/confine/pkg/profile/profiletest"
	"github.com/confine-dev/confine/pkg/profile/seccomp"
	"github.com/confine-dev/confine/pkg/profile/selinux"
	"github.com/confine-dev/confine/pkg/reason"
)

// body wraps rules into a profile that the safe default admits.
func body(lines ...string) string {
	return "abi <abi/3.0>,\ninclude <tunables/global>\nprofile confine.web.nginx {\n" + strings.Join(lines, "\n") + "\n}\n"
}

// everything uses each part of the language once; most of it is forbidden.
const everything = `# policy
abi <abi/4.0>,
include <tunables/global>
@{LOGS} = /var/log/web "/var/log/my web" \
  /srv/log
@{LOGS} += /opt/log # and more
${debugging} = true
alias /usr/ -> /mnt/usr/,

profile confine.web.all /usr/bin/{a,b} xattrs=(security.x="y") flags=(attach_disconnected, complain) {
  include if exists <abstractions/base.d>
  #include <abstractions/base>
  priority=5 audit allow owner /a rw,
  /b Px -> confine.web.all//child,
  rwk "/with blank/**",
  deny /c\ d wx,
  file,
  file /e r,
  unsafe /f px,
  link subset /g -> /h,
  rl /i -> /j,
  capability chown setuid,
  capability,
  network inet stream,
  network,
  mount options=(rw, bind) fstype=ext4 /dev/x -> /mnt/,
  remount options in (ro) /mnt/,
  umount /mnt/,
  pivot_root oldroot=/mnt/old/ /mnt/ -> confine.web.all,
  ptrace (read, trace) peer=@{profile_name},
  signal (send) set=(term, kill) peer=confine.web.*,
  dbus send bus=system path=/org/x{,/**} interface=org.x member=Get peer=(name=org.x, label=unconfined),
  unix (create, connect) type=stream addr="@/tmp/x*" peer=(addr=none),
  change_profile unsafe /k -> confine.web.all,
  set rlimit nofile <= 1024,
  set rlimit cpu <= 10 minutes,
  userns create,
  io_uring (sqpoll) label=x,
  mqueue (read, write) type=posix /queue,
  all,
  if defined @{LOGS} and not ${debugging} {
    @{LOGS}/** w,
  } else if ${debugging} {
    /l r,
  } else {
    deny /m r,
  }
  ^hat {
    /n r,
  }
  hat other flags=(complain) {
  }
  profile child {
    /o ix,
  }
}
`

func conformance() profiletest.KindCase {
	return profiletest.KindCase{
		Others: []profile.Kind{seccomp.New(seccomp.Options{}), selinux.NewKind()},
		Good: map[string]profiletest.Payload{
			"tight":      {Data: nginx},
			"everything": {Data: everything},
			"two":        {Data: "profile confine.a.b {\n  /x r,\n}\nprofile confine.a.c {\n}\n"},
			"by path":    {Data: "\"/usr/bin/my app\" (complain) {\n  /x r,\n}\n"},
		},
		Bad: map[string]profiletest.Payload{
			"no profile":                   {Data: "include <tunables/global>\n", Position: "2:1"},
			"no end":                       {Data: "profile x {\n  /a r,\n", Position: "3:1"},
			"no comma":                     {Data: body("/a r"), Position: "5:1"},
			"no name":                      {Data: "profile {\n}\n", Position: "1:9"},
			"a brace glued to the name":    {Data: "profile x{\n}\n", Position: "1:9"},
			"an unknown rule":              {Data: body("  frobnicate,"), Position: "4:3"},
			"an unknown access":            {Data: body("/a rz,"), Position: "4:4"},
			"upper case access":            {Data: body("/a RW,"), Position: "4:4"},
			"a and w":                      {Data: body("/a aw,"), Position: "4:4"},
			"two ways to execute":          {Data: body("/a ixpx,"), Position: "4:4"},
			"x alone":                      {Data: body("/a x,"), Position: "4:1"},
			"an unknown capability":        {Data: body("capability chown mount,"), Position: "4:23"},
			"an unknown flag":              {Data: "profile x flags=(quiet) {\n}\n", Position: "1:18"},
			"no flags":                     {Data: "profile x flags=() {\n}\n", Position: "1:19"},
			"an unknown condition":         {Data: body("signal colour=red,"), Position: "4:8"},
			"an unknown limit":             {Data: body("set rlimit sleep <= 3,"), Position: "4:1"},
			"deny and audit exchanged":     {Data: body("deny audit /a r,"), Position: "4:6"},
			"a qualified block":            {Data: body("deny {", "/a r,", "}"), Position: "4:6"},
			"an octal escape":              {Data: body(`/\141 r,`), Position: "4:2"},
			"a quote in a word":            {Data: body(`/a"b" r,`), Position: "4:3"},
			"an escaped quote":             {Data: body(`"/a\"" r,`), Position: "4:4"},
			"a quote over lines":           {Data: body("\"/a", "b\" r,"), Position: "4:1"},
			"a comma in a word":            {Data: body("/a,b r,"), Position: "4:3"},
			"a comment in a rule":          {Data: body("/a # why", " r,"), Position: "4:4"},
			"a comment that is no one":     {Data: body("#included for reasons"), Position: "4:1"},
			"a variable in a profile":      {Data: body("@{X} = /a"), Position: "4:6"},
			"a variable after a profile":   {Data: "profile x {\n}\n@{X} = y\n", Position: "3:1"},
			"commas between values":        {Data: "@{X} = /a, /b\nprofile x {\n}\n", Position: "1:10"},
			"a control character":          {Data: body("/a\v r,"), Position: "4:3"},
			"a carriage return":            {Data: body("/a\rr,"), Position: "4:3"},
			"lines as Windows ends them":   {Data: "profile x {\r\n}\r\n", Position: "1:12"},
			"text from right to left":      {Data: body("/a\u202e r,"), Position: "4:3"},
			"a blank that is none":         {Data: body("/a\u00a0r,"), Position: "4:3"},
			"braces that do not match":     {Data: body("/{a r,"), Position: "4:1"},
			"the same profile twice":       {Data: "profile x {\n}\nprofile x {\n}\n", Position: "3:1"},
			"the same child twice":         {Data: body("profile a {", "}", "hat a {", "}"), Position: "6:1"},
			"nested too deeply":            {Data: strings.Repeat("profile a {\n", 9) + strings.Repeat("}\n", 9), Position: "9:8"},
			"conditions too deep":          {Data: body(strings.Repeat("if $x {\n", 9) + strings.Repeat("}\n", 9)), Position: "12:1"},
			"too many rules":               {Data: body(strings.Repeat("/a r,\n", 20_001)), Position: "20004:1"},
			"a long word":                  {Data: body("/" + strings.Repeat("a", 5000) + " r,"), Position: "4:1"},
			"a priority that is no number": {Data: body("priority=high /a r,"), Position: "4:10"},
			"owner of a capability":        {Data: body("owner capability chown,"), Position: "4:7"},
			"no keyword":                   {Data: "x {\n}\n", Position: "1:1"},
			"a rule outside":               {Data: "/a r,\n", Position: "1:4"},
		},
		Safe: "tight", Unsafe: "everything", Namespace: "web",
	}
}

func TestKindConformance(t *testing.T) {
	profiletest.RunKind(t, apparmor.NewKind(), conformance())
}

func parse(t testing.TB, text string) profile.Profile {
	t.Helper()
	p, err := apparmor.NewKind().Parse("p.aa", []byte(text))
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return p
}

func TestNames(t *testing.T) {
	want := []string{"confine.web.all", "confine.web.all//child", "confine.web.all//hat", "confine.web.all//other"}
	if diff := cmp.Diff(want, apparmor.Names(parse(t, everything))); diff != "" {
		t.Error(diff)
	}
	if got := apparmor.Names(nil); got != nil {
		t.Errorf("no profile has the names %q", got)
	}
}

func TestTheExamplesPass(t *testing.T) {
	files, err := filepath.Glob("../../../examples/profiles/*.aa")
	if err != nil || len(files) == 0 {
		t.Fatalf("no examples: %v", err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		p := parse(t, string(data))
		if err := apparmor.NewKind().Constrain(p, profile.ForAnyone(), nil); err != nil {
			t.Errorf("%s: %v", file, err)
		}
		for _, f := range p.Findings() {
			t.Errorf("%s:%s: %s", file, f.Position, f.Message)
		}
	}
}

func TestTooLarge(t *testing.T) {
	_, err := apparmor.NewKind().Parse("p", make([]byte, profile.MaxPayloadBytes+1))
	if !errors.Is(err, reason.TooLarge) {
		t.Errorf("got %v", err)
	}
}
