package selinux_test

import (
	"testing"

	"github.com/confine-dev/confine/pkg/profile/selinux"
)

const web = `; of the web server
(block web
    (blockinherit container)
    (allow process self ( tcp_socket ( create listen ))))
`

func TestSniff(t *testing.T) {
	for name, tc := range map[string]struct {
		data string
		want bool
	}{
		"a module":         {web, true},
		"one statement":    {"(type x)", true},
		"a space inside":   {"( block x)", true},
		"not a statement":  {"(lambda (x) x)", false},
		"a longer word":    {"(blocks x)", false},
		"not first":        {"hello (block x)", false},
		"AppArmor":         {"profile x {\n}\n", false},
		"JSON":             {`{"defaultAction":"SCMP_ACT_ERRNO"}`, false},
		"NUL":              {"(block x)\x00", false},
		"other than UTF-8": {"(block x)\xff", false},
		"nothing":          {"", false},
	} {
		if got := selinux.NewKind().Sniff([]byte(tc.data)); got != tc.want {
			t.Errorf("%s: got %v, want %v", name, got, tc.want)
		}
	}
}
