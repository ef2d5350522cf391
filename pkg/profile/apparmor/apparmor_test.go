package apparmor_test

import (
	"testing"

	"github.com/confine-dev/confine/pkg/profile/apparmor"
)

const nginx = `#include <tunables/global>

profile confine.web.nginx flags=(attach_disconnected,mediate_deleted) {
  #include <abstractions/base>
  /usr/sbin/nginx mr,
}
`

func TestSniff(t *testing.T) {
	for name, tc := range map[string]struct {
		data string
		want bool
	}{
		"a profile":             {nginx, true},
		"by path":               {"/usr/bin/man {\n}\n", true},
		"by path with flags":    {"/usr/bin/man flags=(complain) {\n}\n", true},
		"attached":              {"profile man /usr/bin/man {\n}\n", true},
		"quoted":                {"\"/opt/my app\" {\n}\n", true},
		"windows line ends":     {"profile x {\r\n}\r\n", true},
		"JSON":                  {`{"defaultAction": "SCMP_ACT_ERRNO"}`, false},
		"indented JSON":         {"{\n  \"defaultAction\": {\n}}", false},
		"CIL":                   {"(block x\n (allow process self (file (read))))\n", false},
		"prose":                 {"the profile of a user is {x}\n", false},
		"NUL":                   {"profile x {\n}\n\x00", false},
		"other than UTF-8":      {"profile x {\n}\n\xff", false},
		"nothing":               {"", false},
		"a comment on profiles": {"# profile x {\n", false},
	} {
		if got := apparmor.NewKind().Sniff([]byte(tc.data)); got != tc.want {
			t.Errorf("%s: got %v, want %v", name, got, tc.want)
		}
	}
}
