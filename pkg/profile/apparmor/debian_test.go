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
)

// debian is what Debian's packages hold, unpacked and not installed.
type debian struct {
	root string
	err  error
}

// testRoot is where packages are unpacked; TestMain removes it.
var testRoot = sync.OnceValues(func() (string, error) { return os.MkdirTemp("", "confine-apparmor-") })

// unpack downloads and unpacks once for all tests.
var unpack = sync.OnceValue(func() debian {
	root, err := testRoot()
	if err == nil {
		err = unpackInto(root)
	}
	return debian{root, err}
})

func TestMain(m *testing.M) {
	code := m.Run()
	if root, err := testRoot(); err == nil {
		_ = os.RemoveAll(root)
	}
	os.Exit(code)
}

func unpackInto(root string) error {
	download := func() ([]byte, error) {
		cmd := exec.Command("apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", "apparmor", "apparmor-profiles", "apparmor-profiles-extra")
		cmd.Dir = root
		return cmd.CombinedOutput()
	}
	out, err := download()
	if err != nil { // package lists may be missing or old
		if update, updateErr := exec.Command("apt-get", "-q", "update").CombinedOutput(); updateErr != nil {
			return fmt.Errorf("apt-get download: %w: %s\napt-get update: %w: %s", err, out, updateErr, update)
		}
		if out, err = download(); err != nil {
			return fmt.Errorf("apt-get download: %w: %s", err, out)
		}
	}
	packages, err := filepath.Glob(filepath.Join(root, "*.deb"))
	if err != nil || len(packages) != 3 {
		return fmt.Errorf("apt-get download left %q: %w", packages, err)
	}
	for _, p := range packages {
		if out, err := exec.Command("dpkg-deb", "-x", p, root).CombinedOutput(); err != nil {
			return fmt.Errorf("dpkg-deb -x %s: %w: %s", p, err, out)
		}
	}
	return nil
}

// debianRoot returns the unpacked packages. Where they cannot be had, the test
// fails: real profiles are what the reader is for.
func debianRoot(t *testing.T) string {
	t.Helper()
	d := unpack()
	if d.err != nil {
		t.Fatalf("the Debian packages that hold real profiles cannot be had here (Debian or Ubuntu with apt, and its mirror): %v", d.err)
	}
	return d.root
}

// realParser runs Debian's own apparmor_parser, which needs no kernel for that.
func realParser(t *testing.T, text string, args ...string) (string, error) {
	t.Helper()
	root := debianRoot(t)
	etc := filepath.Join(root, "etc", "apparmor.d")
	args = append([]string{"--config-file", "/dev/null", "-Q", "-K", "-I", etc, "-M", filepath.Join(etc, "abi", "3.0")}, args...)
	cmd := exec.CommandContext(t.Context(), filepath.Join(root, "sbin", "apparmor_parser"), args...)
	cmd.Stdin = strings.NewReader(text)
	var out, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%w: %s", err, stderr.String())
	}
	return out.String(), nil
}

// TestEscapesAreReal: Debian's parser takes each escape that its version can
// read. A corpus of texts that no parser takes would show nothing.
func TestEscapesAreReal(t *testing.T) {
	taken := 0
	for _, e := range corpus.Escapes() {
		_, err := realParser(t, e.Policy(), "-S")
		if (err == nil) == e.Newer {
			t.Errorf("%s: newer is %v, the parser says %v", e.Name, e.Newer, err)
		}
		if err == nil {
			taken++
		}
	}
	t.Logf("%d of %d escapes are taken by Debian's apparmor_parser", taken, len(corpus.Escapes()))
}

// TestNamesAreTheParsers: what is approved is what is loaded.
func TestNamesAreTheParsers(t *testing.T) {
	texts := map[string]string{"nginx": nginx, "sibling": nginx + sibling}
	maps.Copy(texts, debianProfiles(t))
	for name, text := range texts {
		out, err := realParser(t, text, "-N")
		if err != nil {
			t.Logf("%s: Debian's parser refuses its own profile: %v", name, err)
			continue
		}
		want := strings.Fields(out)
		slices.Sort(want)
		var got []string
		for _, n := range apparmor.Names(parse(t, text)) {
			got = append(got, strings.Fields(n)...)
		}
		slices.Sort(got)
		if diff := gocmp.Diff(slices.Compact(want), slices.Compact(got)); diff != "" {
			t.Errorf("%s (-parser +here):\n%s", name, diff)
		}
	}
}

// debianProfiles are all profiles of the packages, by their path.
func debianProfiles(t *testing.T) map[string]string {
	t.Helper()
	root := debianRoot(t)
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
	if len(all) < 100 {
		t.Fatalf("only %d profiles in the packages", len(all))
	}
	return all
}

// TestRealProfiles: every profile of Debian's packages is read, and most are
// forbidden by default, as they attach to programs of the host.
func TestRealProfiles(t *testing.T) {
	k := apparmor.NewKind()
	all, forbidden, by := debianProfiles(t), 0, map[apparmor.RuleClass]int{}
	for name, text := range all {
		p, err := k.Parse(name, []byte(text))
		if err != nil {
			t.Errorf("%v", err)
			continue
		}
		readAgain(t, p.(*apparmor.Profile))
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
	root := filepath.Join(debianRoot(t), "etc", "apparmor.d", "abstractions")
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
	if err != nil || read < 50 || powerful < 5 {
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
		if _, err := realParser(t, text, "-S"); err != nil {
			t.Errorf("%s: the parser says %v", module, err)
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
	texts := map[string]string{"nginx": nginx}
	all := debianProfiles(t)
	for i, name := range slices.Sorted(maps.Keys(all)) {
		if i%4 == 0 { // all of them take the compiler a quarter of a minute
			texts[name] = all[name]
		}
	}
	for _, e := range corpus.Escapes() {
		if !e.Newer && e.Class != "" {
			texts[e.Name] = e.Policy()
		}
	}
	compared := 0
	for _, name := range slices.Sorted(maps.Keys(texts)) {
		p := parse(t, texts[name]).(*apparmor.Profile)
		if conditional(p) {
			continue // written without its conditions
		}
		want, err := realParser(t, texts[name], "-S")
		if err != nil {
			continue // of its own packages, the local files are missing
		}
		got, err := realParser(t, p.Policy.String(), "-S")
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
