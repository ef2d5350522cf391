package host

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/confine-dev/confine/pkg/durable"
	"github.com/confine-dev/confine/pkg/profile"
)

func unitOf(name, d, data string) profile.Unit {
	return profile.Unit{Owner: profile.Owner{Namespace: "shop", Name: name}, Digest: digest.FromString(d),
		Files: []profile.File{{Name: "p.json", Data: []byte(data)}}}
}

// TestOneCallIsAsManyCalls installs lists of units in one call and one by one:
// staging them together must not show.
func TestOneCallIsAsManyCalls(t *testing.T) {
	long := make([]profile.Unit, 0, 300)
	for i := range 300 {
		long = append(long, unitOf(fmt.Sprintf("n%d", i), fmt.Sprint(i), fmt.Sprint(i)))
	}
	for name, units := range map[string][]profile.Unit{
		"a digest shared":                     {unitOf("a", "1", "x"), unitOf("b", "1", "x")},
		"a digest with other files":           {unitOf("a", "1", "x"), unitOf("b", "1", "y"), unitOf("c", "1", "x")},
		"an owner twice":                      {unitOf("a", "1", "x"), unitOf("a", "2", "y")},
		"an owner there and back":             {unitOf("a", "1", "x"), unitOf("a", "2", "y"), unitOf("a", "1", "x")},
		"an owner with other files":           {unitOf("a", "1", "x"), unitOf("a", "1", "y")},
		"the same unit twice":                 {unitOf("a", "1", "x"), unitOf("a", "1", "x")},
		"one refused in between":              {unitOf("a", "1", "x"), unitOf("B", "2", "y"), unitOf("c", "3", "z")},
		"what is installed, beside new ones":  {unitOf("kept", "kept", "k"), unitOf("new", "1", "x")},
		"another digest for what is there":    {unitOf("kept", "1", "x"), unitOf("new", "1", "x")},
		"a folder where the link is":          {unitOf("folder", "1", "x"), unitOf("a", "1", "x")},
		"a folder where the artifact is":      {unitOf("a", "damaged", "x"), unitOf("b", "damaged", "x")},
		"more than are brought there at once": long,
	} {
		t.Run(name, func(t *testing.T) {
			prepared := func() (*Host, string) {
				root := filepath.Join(fastDir(t), "seccomp")
				h := newHost(t, root)
				must(t, h.Install(t.Context(), []profile.Unit{unitOf("kept", "kept", "k")})[0].Err)
				must(t, os.MkdirAll(filepath.Join(root, base, "shop/folder/deep"), 0o750))
				must(t, os.MkdirAll(filepath.Join(root, artifacts, folderName(digest.FromString("damaged")), "deep"), 0o750))
				return h, root
			}
			together, root1 := prepared()
			apart, root2 := prepared()
			got := together.Install(t.Context(), units)
			want := make([]profile.Outcome, 0, len(units))
			for _, u := range units {
				want = append(want, apart.Install(t.Context(), []profile.Unit{u})...)
			}
			for i := range units {
				if fmt.Sprint(want[i].Err) != fmt.Sprint(got[i].Err) {
					t.Errorf("unit %d: %v, alone %v", i, got[i].Err, want[i].Err)
				}
				if want[i].Changed && !got[i].Changed {
					t.Errorf("unit %d was changed and does not say so", i)
				}
			}
			one, err := snapshot(root1)
			must(t, err)
			many, err := snapshot(root2)
			must(t, err)
			if diff := cmp.Diff(many, one); diff != "" {
				t.Errorf("(-one by one +together):\n%s", diff)
			}
		})
	}
}

// TestLinksComeAfterTheirFolders: in every order of steps a link is made visible
// only after the folder it names was flushed where it is.
func TestLinksComeAfterTheirFolders(t *testing.T) {
	var steps []durable.Step
	h, err := New(Options{Root: filepath.Join(fastDir(t), "seccomp"), Before: func(s durable.Step) error {
		steps = append(steps, s)
		return nil
	}})
	must(t, err)
	flushed, shown := map[string]bool{}, 0
	units := []profile.Unit{unitOf("a", "1", "x"), unitOf("b", "2", "y"), unitOf("c", "1", "x")}
	for _, o := range h.Install(t.Context(), units) {
		must(t, o.Err)
	}
	renamed, fsyncs := map[string]bool{}, 0
	for _, s := range steps {
		switch {
		case s.Op == durable.OpFsyncDir && s.Name == artifacts:
			for name := range renamed {
				flushed[name] = true
			}
			fsyncs++
		case s.Op == durable.OpRename && filepath.Dir(s.Name) == artifacts:
			renamed[s.Name] = true
		case s.Op == durable.OpRename && filepath.Dir(s.Name) == base+"/shop":
			shown++
			if len(flushed) != 2 {
				t.Errorf("%s is renamed while %v are flushed", s.Name, flushed)
			}
		}
	}
	if shown != len(units) || fsyncs != 1 {
		t.Errorf("%d links, and %d flushes of the artifacts' folder", shown, fsyncs)
	}
}
