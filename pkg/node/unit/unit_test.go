package unit_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/confine-dev/confine/pkg/artifact/reference"
	"github.com/confine-dev/confine/pkg/node/unit"
)

func source(s string) unit.Source {
	return unit.Source{Repository: reference.Repository{Host: "registry.example.com", Path: "web"}, Digest: digest.FromString(s)}
}

func file(name string) unit.File {
	return unit.File{Name: name, Digest: digest.FromString(name), Size: 1}
}

func at(minutes int) time.Time {
	return time.Unix(1e9, 0).UTC().Add(time.Duration(minutes) * time.Minute)
}

// render shows what a unit holds, dropped files with their due minute.
func render(r unit.Revision) string {
	var parts []string
	for _, f := range r.Files {
		parts = append(parts, f.Name)
	}
	for _, k := range r.Retained {
		parts = append(parts, fmt.Sprintf("%s@%v", k.Name, k.Due.Sub(at(0)).Minutes()))
	}
	return strings.Join(parts, " ")
}

func TestFollow(t *testing.T) {
	files := func(names string) []unit.File {
		var found []unit.File
		for name := range strings.FieldsSeq(names) {
			found = append(found, file(name))
		}
		return found
	}
	kept := func(name string, due int) unit.Retained {
		return unit.Retained{File: file(name), From: source("older"), Due: at(due)}
	}
	for name, c := range map[string]struct {
		current *unit.Revision
		files   string
		now     int
		keepDue bool
		want    string
	}{
		"first":                    {nil, "b a", 0, false, "a b"},
		"same files":               {&unit.Revision{Source: source("old"), Files: files("a b")}, "a b", 0, false, "a b"},
		"one is dropped":           {&unit.Revision{Source: source("old"), Files: files("a b")}, "a", 5, false, "a b@65"},
		"dropped before":           {&unit.Revision{Source: source("new"), Files: files("a"), Retained: []unit.Retained{kept("b", 30)}}, "a", 5, false, "a b@30"},
		"due":                      {&unit.Revision{Source: source("new"), Files: files("a"), Retained: []unit.Retained{kept("b", 30)}}, "a", 30, false, "a"},
		"due, but not all is read": {&unit.Revision{Source: source("new"), Files: files("a"), Retained: []unit.Retained{kept("b", 30)}}, "a", 30, true, "a b@30"},
		"back again":               {&unit.Revision{Source: source("new"), Files: files("a"), Retained: []unit.Retained{kept("b", 30)}}, "a b", 5, false, "a b"},
		"dropped twice":            {&unit.Revision{Source: source("old"), Files: files("a b"), Retained: []unit.Retained{kept("c", 30)}}, "a", 5, false, "a b@65 c@30"},
		"the clock was set back":   {&unit.Revision{Source: source("new"), Files: files("a"), Retained: []unit.Retained{kept("b", 900)}}, "a", 0, false, "a b@60"},
	} {
		t.Run(name, func(t *testing.T) {
			terms := unit.Terms{Now: at(c.now), Delay: time.Hour}
			if c.keepDue {
				terms.Goes = func(time.Time) bool { return false }
			}
			got := unit.Follow(c.current, source("new"), files(c.files), terms)
			if render(got) != c.want {
				t.Errorf("got %q, want %q", render(got), c.want)
			}
			if err := got.Check(); err != nil {
				t.Error(err)
			}
			again := unit.Follow(&got, source("new"), files(c.files), terms)
			if !again.Equal(got) {
				t.Errorf("following again changes it to %q", render(again))
			}
		})
	}
}

func TestDigestIsTheArtifactsUnlessFilesAreRetained(t *testing.T) {
	r := unit.Revision{Source: source("one"), Files: []unit.File{file("a")}}
	if r.Digest() != source("one").Digest {
		t.Error("the digest is not the artifact's")
	}
	r.Retained = []unit.Retained{{File: file("b"), From: source("two"), Due: at(0)}}
	first := r.Digest()
	if first == source("one").Digest {
		t.Error("a unit with other files has the artifact's digest")
	}
	r.Retained[0].Digest = digest.FromString("other bytes")
	if r.Digest() == first {
		t.Error("other bytes have the same digest")
	}
	if diff := cmp.Diff([]unit.Source{source("one"), source("two")}, r.Sources()); diff != "" {
		t.Error(diff)
	}
}

func TestCheckRefuses(t *testing.T) {
	for name, change := range map[string]func(r *unit.Revision){
		"a path":              func(r *unit.Revision) { r.Files[0].Name = "../x" },
		"a hidden file":       func(r *unit.Revision) { r.Files[0].Name = ".x" },
		"the same name twice": func(r *unit.Revision) { r.Retained[0].Name = "a" },
		"a size":              func(r *unit.Revision) { r.Files[0].Size = 2 << 20 },
		"a digest":            func(r *unit.Revision) { r.Files[0].Digest = "sha256:x" },
		"a source":            func(r *unit.Revision) { r.Source.Digest = "" },
		"a spelling":          func(r *unit.Revision) { r.Source.Repository.Host = "Registry.example.com" },
		"a due time":          func(r *unit.Revision) { r.Retained[0].Due = time.Time{} },
		"too many": func(r *unit.Revision) {
			for i := range unit.MaxFiles {
				r.Files = append(r.Files, file(fmt.Sprintf("b%03d", i)))
			}
		},
		"no order": func(r *unit.Revision) { r.Files = append([]unit.File{file("z")}, r.Files...) },
	} {
		t.Run(name, func(t *testing.T) {
			r := unit.Revision{Source: source("x"), Files: []unit.File{file("a")}, Retained: []unit.Retained{{File: file("c"), From: source("y"), Due: at(0)}}}
			if err := r.Check(); err != nil {
				t.Fatal(err)
			}
			change(&r)
			if err := r.Check(); err == nil {
				t.Error("it was accepted")
			}
		})
	}
}

func FuzzDecode(f *testing.F) {
	r := unit.Revision{Source: source("x"), Files: []unit.File{file("a")}, Retained: []unit.Retained{{File: file("c"), From: source("y"), Due: at(0)}}}
	f.Add(r.Encode())
	f.Add(unit.Revision{Source: unit.Source{Digest: digest.FromString("")}}.Encode())
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := unit.Decode(data)
		if err != nil {
			return
		}
		if string(r.Encode()) != string(data) {
			t.Errorf("%s is not what Encode writes", data)
		}
	})
}

// TestFollowWaitsForRelease drops a file under terms that need a release.
func TestFollowWaitsForRelease(t *testing.T) {
	files := []unit.File{file("a"), file("b")}
	old := unit.Revision{Source: source("old"), Files: files}
	var released []int
	terms := func(now int) unit.Terms {
		return unit.Terms{Now: at(now), Delay: time.Hour, Goes: func(due time.Time) bool {
			for _, m := range released {
				if at(m).Equal(due) {
					return true
				}
			}
			return false
		}}
	}
	step := func(from unit.Revision, now int, want string) unit.Revision {
		t.Helper()
		next := unit.Follow(&from, source("new"), files[:1], terms(now))
		if render(next) != want {
			t.Errorf("at %d it is %q, want %q", now, render(next), want)
		}
		return next
	}
	dropped := step(old, 0, "a b@60")
	released = []int{59, 61}
	dropped = step(dropped, 600, "a b@60")
	released = []int{60}
	step(dropped, 59, "a b@60")
	step(dropped, 60, "a")
	step(dropped, 600, "a")
	// What is dropped under a release that is there already gets another time.
	due := terms(0).Due()
	if !due.After(at(60)) || due.After(at(61)) {
		t.Errorf("it is due at %v", due)
	}
	again := unit.Follow(&old, source("new"), files[:1], terms(0))
	if again = unit.Follow(&again, source("new"), files[:1], terms(0)); !again.Retained[0].Due.Equal(due) {
		t.Errorf("following again moves it to %v", again.Retained[0].Due)
	}
}
