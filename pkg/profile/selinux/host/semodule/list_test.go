package semodule

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/confine-dev/confine/pkg/sandbox"
)

func TestList(t *testing.T) {
	const sum = "sha256:" + "0123456789abcdef"
	for name, c := range map[string]struct {
		out  string
		want []Listed
		bad  bool
	}{
		"nothing":       {},
		"no priority":   {out: "confine-a cil " + sum + "\n", bad: true},
		"of others":     {out: "100 base pp " + sum + "\n400 mine cil\n"},
		"ours":          {out: "350 confine-b cil " + sum + "\n100 base pp " + sum + "\n350 confine-a cil disabled " + sum + "\n", want: []Listed{{"confine-a", sum, true}, {"confine-b", sum, false}}},
		"without a sum": {out: "350 confine-a cil\n", bad: true},
		"another order": {out: "350 confine-a " + sum + " cil\n", bad: true},
		"its name":      {out: "350\n", bad: true},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := New(Options{}).listed([]byte(c.out))
			if diff := cmp.Diff(c.want, got); diff != "" || (err != nil) != c.bad {
				t.Errorf("%v\n%s", err, diff)
			}
		})
	}
}

// TestLowPrioritiesHaveZerosInFront as semodule prints them.
func TestLowPrioritiesHaveZerosInFront(t *testing.T) {
	got, err := New(Options{Priority: 50}).listed([]byte("050 confine-a cil sha256:00\n500 confine-b cil sha256:00\n"))
	if diff := cmp.Diff([]Listed{{Name: "confine-a", Checksum: "sha256:00"}}, got); diff != "" || err != nil {
		t.Errorf("%v\n%s", err, diff)
	}
}

// TestAListThatIsCutIsNone: what is missing in it would count as removed.
func TestAListThatIsCutIsNone(t *testing.T) {
	for _, size := range []int{10, 11} {
		out := &sandbox.Output{Max: 10}
		if _, err := out.Write([]byte(strings.Repeat("x", size))); err != nil {
			t.Fatal(err)
		}
		if got, err := whole(out); (err != nil) != (size > 10) {
			t.Errorf("%d bytes: %q, %v", size, got, err)
		}
	}
}

func TestRootsAreNamedInOneWay(t *testing.T) {
	for given, want := range map[string]string{"": "", "/": "", "//": "", "/host/root": "/host/root", "/host/root/": "/host/root", "/host//root/.": "/host/root"} {
		if got := New(Options{HostRoot: given}).opts.HostRoot; got != want {
			t.Errorf("%q is %q", given, got)
		}
	}
}
