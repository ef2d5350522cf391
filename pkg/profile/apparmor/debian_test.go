//go:build linux

package apparmor_test

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"text/template"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/profile/apparmor"
	"github.com/confine-dev/confine/pkg/profile/apparmor/internal/corpus"
	"github.com/confine-dev/confine/pkg/profile/apparmor/policy"
	"github.com/confine-dev/confine/pkg/reason"
	"github.com/confine-dev/confine/test/debian"
)

// release is one of Debian's, with the AppArmor it has.
type release struct {
	suite debian.Suite
	// abi is the newest feature set that it has.
	abi string
	// profiles is how many there are in its packages at least, and abstractions.
	profiles, abstractions int
}

func bookworm() release { return release{debian.Bookworm, "3.0", 140, 110} }

func trixie() release { return release{debian.Trixie, "4.0", 240, 130} }

func releases() map[string]release {
	return map[string]release{"AppArmor 3.0": bookworm(), "AppArmor 4.1": trixie()}
}

// roots remembers what was unpacked: apt takes a while to say that it is there.
var roots sync.Map

// root returns the unpacked packages. Where they cannot be had, the test fails:
// real profiles are what the reader is for.
func (r release) root(t *testing.T) string {
	t.Helper()
	if known, ok := roots.Load(r.suite); ok {
		return known.(string)
	}
	root, err := debian.Unpack(t.Context(), r.suite, "apparmor", "apparmor-profiles", "apparmor-profiles-extra", "libc6")
	if err != nil {
		t.Fatalf("the Debian packages that hold real profiles cannot be had here (Debian with apt, and its mirror): %v", err)
	}
	roots.Store(r.suite, root)
	return root
}

func (r release) policy(t *testing.T) string {
	t.Helper()
	return filepath.Join(r.root(t), "etc", "apparmor.d")
}

// parser runs the release's own apparmor_parser with its own C library. It needs
// no kernel for that.
func (r release) parser(t *testing.T, text string, args ...string) (string, error) {
	t.Helper()
	root, policy := r.root(t), r.policy(t)
	var loaders []string
	var err error
	for _, folder := range []string{"lib", "usr/lib"} {
		more, globErr := filepath.Glob(filepath.Join(root, folder, "*-linux-gnu", "ld-linux*.so.*"))
		loaders, err = append(loaders, more...), errors.Join(err, globErr)
	}
	programs, globErr := filepath.Glob(filepath.Join(root, "usr", "sbin", "apparmor_parser"))
	if len(programs) == 0 {
		programs = []string{filepath.Join(root, "sbin", "apparmor_parser")}
	}
	if len(loaders) == 0 || errors.Join(err, globErr) != nil {
		t.Fatalf("no dynamic linker in %s: %v", root, errors.Join(err, globErr))
	}
	args = append([]string{
		"--library-path", filepath.Dir(loaders[0]), programs[0],
		"--config-file", "/dev/null", "-Q", "-K", "-I", policy, "-M", filepath.Join(policy, "abi", r.abi),
	}, args...)
	cmd := exec.CommandContext(t.Context(), loaders[0], args...)
	cmd.Stdin = strings.NewReader(text)
	var out, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%w: %s", err, stderr.String())
	}
	return out.String(), nil
}

// TestEscapesAreReal: a real parser takes each escape that its version can read.
// A corpus of texts that no parser takes would show nothing.
func TestEscapesAreReal(t *testing.T) {
	for name, r := range releases() {
		taken := 0
		for _, e := range corpus.Escapes() {
			refused := e.Newer
			if r.suite == debian.Trixie {
				refused = e.Refused4()
			}
			_, err := r.parser(t, e.Policy(), "-S")
			if (err == nil) == refused {
				t.Errorf("%s: %s: the corpus says refused %v, the parser says %v", name, e.Name, refused, err)
			}
			if err == nil {
				taken++
			}
		}
		t.Logf("%s: %d of %d escapes are taken by Debian's apparmor_parser", name, taken, len(corpus.Escapes()))
	}
}

// TestHarmlessProfilesCompile: both parsers take what the safe default admits.
func TestHarmlessProfilesCompile(t *testing.T) {
	for version, r := range releases() {
		for name, text := range corpus.Harmless() {
			refused := r.suite == debian.Bookworm && slices.Contains(corpus.NewerHarmless(), name)
			if _, err := r.parser(t, text, "-S"); (err != nil) != refused {
				t.Errorf("%s: %s: %v", version, name, err)
			}
		}
	}
}

// TestNamesAreTheParsers: what is approved is what is loaded.
func TestNamesAreTheParsers(t *testing.T) {
	for _, r := range releases() {
		texts := map[string]string{"nginx": nginx, "sibling": nginx + sibling}
		maps.Copy(texts, r.texts(t))
		for name, text := range texts {
			sameNames(t, r, name, text)
		}
	}
}

func sameNames(t *testing.T, r release, name, text string) {
	t.Helper()
	out, err := r.parser(t, text, "-N")
	if err != nil {
		t.Logf("%s: Debian's parser refuses its own profile: %v", name, err)
		return
	}
	p, err := apparmor.NewKind().Parse(name, []byte(text))
	if err != nil {
		t.Errorf("%v", err)
		return
	}
	want := strings.Fields(out)
	slices.Sort(want)
	var got []string
	for _, n := range apparmor.Names(p) {
		got = append(got, strings.Fields(n)...)
	}
	slices.Sort(got)
	if diff := gocmp.Diff(slices.Compact(want), slices.Compact(got)); diff != "" {
		t.Errorf("%s (-parser +here):\n%s", name, diff)
	}
}

// texts are all profiles of the packages, by their path. A newer package that
// lacks some must be looked at.
func (r release) texts(t *testing.T) map[string]string {
	t.Helper()
	root := r.root(t)
	all := map[string]string{}
	for _, folder := range []string{"etc/apparmor.d", "usr/share/apparmor/extra-profiles"} {
		entries, err := os.ReadDir(filepath.Join(root, folder))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if e.Type().IsRegular() && e.Name() != "README" {
				data, err := os.ReadFile(filepath.Join(root, folder, e.Name()))
				if err != nil {
					t.Fatal(err)
				}
				all[folder+"/"+e.Name()] = string(data)
			}
		}
	}
	if len(all) < r.profiles {
		t.Fatalf("only %d profiles in the packages of %s", len(all), r.suite)
	}
	return all
}

// TestRealProfiles: every profile of Debian's packages is read, and most are
// forbidden by default, as they attach to programs of the host.
func TestRealProfiles(t *testing.T) {
	for name, r := range releases() {
		t.Run(name, func(t *testing.T) { readAll(t, r) })
	}
}

func readAll(t *testing.T, r release) {
	k := apparmor.NewKind()
	all, forbidden, by := r.texts(t), 0, map[apparmor.RuleClass]int{}
	for name, text := range all {
		p, err := k.Parse(name, []byte(text))
		if err != nil {
			t.Errorf("%v", err)
			continue
		}
		readAgain(t, p.(*apparmor.Profile))
		p.(*apparmor.Profile).Findings()
		classes := map[apparmor.RuleClass]bool{}
		for _, v := range apparmor.Violations(p.(*apparmor.Profile)) {
			classes[v.Class] = true
		}
		for class := range classes {
			by[class]++
		}
		err = k.Constrain(p, profile.ForAnyone(), nil)
		if err != nil {
			forbidden++
		}
		if (err != nil) != (len(classes) > 0) || err != nil && !errors.Is(err, reason.ProfileForbidden) {
			t.Errorf("%s: %v with violations %v", name, err, classes)
		}
	}
	if forbidden == 0 {
		t.Error("no profile of the host is forbidden: the test could not fail")
	}
	t.Logf("%d profiles read, %d forbidden by default; by class, of %d files: %s", len(all), forbidden, len(all), counts(by))
}

func counts(by map[apparmor.RuleClass]int) string {
	var parts []string
	for _, class := range slices.SortedFunc(maps.Keys(by), func(a, b apparmor.RuleClass) int {
		return cmp.Or(by[b]-by[a], cmp.Compare(a, b))
	}) {
		parts = append(parts, fmt.Sprintf("%s %d", class, by[class]))
	}
	return strings.Join(parts, ", ")
}

// TestPowerfulAbstractions: an abstraction that holds what is forbidden here
// is forbidden too. Debian's are read; the others of the list are Ubuntu's.
func TestPowerfulAbstractions(t *testing.T) {
	for name, r := range releases() {
		t.Run(name, func(t *testing.T) { readAbstractions(t, r) })
	}
}

func readAbstractions(t *testing.T, r release) {
	root := filepath.Join(r.policy(t), "abstractions")
	read, powerful := 0, 0
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(root, path)
		read++
		text := "abi <abi/3.0>,\nprofile confine.a.b {\n" + string(data) + "\n}\n"
		if strings.Contains(string(data), "\nprofile ") || strings.HasPrefix(string(data), "profile ") {
			text = string(data)
		}
		p, err := apparmor.NewKind().Parse(name, []byte(text))
		if err != nil {
			t.Errorf("%v", err)
			return nil
		}
		var found []string
		for _, v := range apparmor.Violations(p.(*apparmor.Profile)) {
			found = append(found, string(v.Class)+": "+v.Detail)
		}
		if len(found) > 0 && !apparmor.IsPowerful(name) {
			t.Errorf("%s is not listed as powerful, and holds %q", name, found)
		}
		if len(found) > 0 {
			powerful++
		}
		return nil
	})
	if err != nil || read < r.abstractions || powerful < 5 {
		t.Errorf("%d abstractions read, %d of them powerful: %v", read, powerful, err)
	}
}

// TestRuntimesDefaults renders the default profiles of moby and containerd.
func TestRuntimesDefaults(t *testing.T) {
	for module, file := range map[string]string{
		"github.com/moby/profiles/apparmor@v0.1.0":   "template.go",
		"github.com/containerd/containerd/v2@v2.4.2": "contrib/apparmor/template.go",
	} {
		text := rendered(t, module, file)
		p := parse(t, text)
		readAgain(t, p.(*apparmor.Profile))
		by := map[apparmor.RuleClass]int{}
		for _, v := range apparmor.Violations(p.(*apparmor.Profile)) {
			by[v.Class]++
		}
		t.Logf("%s: forbidden by default: %s", module, counts(by))
		for _, class := range []apparmor.RuleClass{"name", "capability", "umount", "kernel-interface"} {
			if by[class] == 0 {
				t.Errorf("%s: nothing is found of the class %s", module, class)
			}
		}
		limits := `{"allowedRules":["capability","umount","kernel-interface"]}`
		renamed := strings.ReplaceAll(text, "docker-default", "confine.web.default")
		if err := apparmor.NewKind().Constrain(parse(t, renamed), profile.ForAnyone(), raw(limits)); err != nil {
			t.Errorf("%s with %s: %v", module, limits, err)
		}
		for name, r := range releases() {
			if _, err := r.parser(t, text, "-S"); err != nil {
				t.Errorf("%s: %s says %v", module, name, err)
			}
		}
	}
}

// rendered fills the template that stands between backquotes in a Go file.
func rendered(t *testing.T, module, file string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "mod", "download", "-json", module)
	cmd.Dir, cmd.Env = t.TempDir(), append(os.Environ(), "GOFLAGS=-mod=mod", "GOWORK=off")
	out, err := cmd.Output()
	var m struct{ Dir, Error string }
	if jsonErr := json.Unmarshal(out, &m); err != nil || jsonErr != nil || m.Error != "" {
		t.Fatalf("go mod download %s: %v %v %s", module, err, jsonErr, m.Error)
	}
	source, err := os.ReadFile(filepath.Join(m.Dir, filepath.FromSlash(file)))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(source), "Template = `")
	body, _, found := strings.Cut(rest, "`")
	if !found {
		t.Fatalf("%s holds no template", file)
	}
	var text strings.Builder
	err = template.Must(template.New(module).Parse(body)).Execute(&text, map[string]any{
		"Name": "docker-default", "DaemonProfile": "unconfined", "Abi": "abi/3.0", "RootlessKit": "",
		"Imports": []string{"#include <tunables/global>"}, "InnerImports": []string{"#include <abstractions/base>"},
	})
	if err != nil {
		t.Fatal(err)
	}
	return text.String()
}

// TestReadingIsTheParsers: what is written from what was read compiles to the
// same binary policy as the text itself, so nothing was read otherwise.
func TestReadingIsTheParsers(t *testing.T) {
	for name, r := range releases() {
		t.Run(name, func(t *testing.T) { compareAll(t, r) })
	}
}

func compareAll(t *testing.T, r release) {
	texts := map[string]string{"nginx": nginx}
	all := r.texts(t)
	for i, name := range slices.Sorted(maps.Keys(all)) {
		if i%4 == 0 { // all of them take the compiler a quarter of a minute
			texts[name] = all[name]
		}
	}
	for _, e := range corpus.Escapes() {
		if e.Class != "" {
			texts[e.Name] = e.Policy()
		}
	}
	compared := 0
	for _, name := range slices.Sorted(maps.Keys(texts)) {
		p := parse(t, texts[name]).(*apparmor.Profile)
		if conditional(p) {
			continue // written without its conditions
		}
		want, err := r.parser(t, texts[name], "-S")
		if err != nil {
			continue // of its own packages, the local files are missing
		}
		got, err := r.parser(t, p.Policy.String(), "-S")
		if err != nil || got != want {
			t.Errorf("%s compiles to %d bytes, and written again to %d, %v:\n%s", name, len(want), len(got), err, p.Policy)
		}
		compared++
	}
	if compared < 100 {
		t.Errorf("only %d texts were compared", compared)
	}
	t.Logf("%d texts compile to the same policy when written again", compared)
}

func conditional(p *apparmor.Profile) bool {
	for _, profile := range p.Policy.Profiles {
		if slices.ContainsFunc(profile.Rules, func(r *policy.Rule) bool { return r.When != "" }) {
			return true
		}
	}
	return false
}
