package selinux_test

import (
	"testing"

	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/profile/profiletest"
	"github.com/confine-dev/confine/pkg/profile/seccomp"
	"github.com/confine-dev/confine/pkg/profile/selinux"
)

const web = `; of the web server
(block web
    (blockinherit container)
    (allow process self ( tcp_socket ( create listen ))))
`

func TestConformance(t *testing.T) {
	profiletest.RunKind(t, selinux.New(), profiletest.KindCase{
		Others: []profile.Kind{seccomp.New(seccomp.Options{})},
		Bad:    map[string]profiletest.Payload{"any": {Data: web}},
	})
}

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
		if got := selinux.New().Sniff([]byte(tc.data)); got != tc.want {
			t.Errorf("%s: got %v, want %v", name, got, tc.want)
		}
	}
}
