package interop_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/confine-dev/confine/pkg/node/intent"
	"github.com/confine-dev/confine/pkg/podref"
)

// Every file of examples/ is read by what it is for. A file of another kind is
// not passed over: this test must learn what it is for first.
func TestEveryExampleIsRead(t *testing.T) {
	root := examples(t)
	readers := map[string]func(t *testing.T, path string){
		"profiles":  lintsClean,
		"trust":     readsAsPolicy,
		"manifests": readsAsProfile,
		"cluster":   appliesToAClusterOrExplains,
		"ci":        parsesAsShell,
		".":         namesWhatIsThere,
	}
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		name, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		t.Run(name, func(t *testing.T) {
			read, ok := readers[filepath.Dir(name)]
			if !ok {
				t.Fatal("no test knows what this file is for")
			}
			read(t, path)
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func lintsClean(t *testing.T, path string) {
	t.Helper()
	d := newDesk(t)
	var results []struct {
		Kind, Forbidden string
		Valid           bool
		Findings        []struct{ Message string }
	}
	d.decode(&results, d.run("confine", "lint", "--strict", "--namespace", "web", "-o", "json", path))
	kinds := map[string]string{".json": "seccomp", ".aa": "apparmor", ".cil": "selinux"}
	if len(results) != 1 || results[0].Kind != kinds[filepath.Ext(path)] || !results[0].Valid || results[0].Forbidden != "" {
		t.Fatalf("lint says %+v", results)
	}
	for _, finding := range results[0].Findings {
		t.Errorf("lint warns: %s", finding.Message)
	}
}

func readsAsPolicy(t *testing.T, path string) {
	t.Helper()
	if _, err := intent.ReadPolicyFile(path); err != nil {
		t.Error(err)
	}
}

func readsAsProfile(t *testing.T, path string) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	desired := intent.DecodeProfiles(path, data)
	if !desired.Complete || len(desired.Invalid) > 0 || len(desired.Profiles) == 0 {
		t.Errorf("decoded as %+v", desired)
	}
}

// appliesToAClusterOrExplains reads the manifests by their names. That an API
// server takes them is tested in test/deploy and test/api.
func appliesToAClusterOrExplains(t *testing.T, path string) {
	t.Helper()
	switch name := filepath.Base(path); {
	case strings.HasSuffix(name, "-trust.yaml"):
		readsAsPolicy(t, path)
	case strings.HasSuffix(name, "-profile.yaml"):
		readsAsProfile(t, path)
	case strings.HasSuffix(name, "-namespace.yaml"):
		readsAs(t, path, &corev1.Namespace{})
	case strings.HasSuffix(name, "-deployment.yaml"):
		var deployment appsv1.Deployment
		readsAs(t, path, &deployment)
		if len(podref.References(&deployment.Spec.Template.Spec, deployment.Spec.Template.Annotations)) == 0 {
			t.Error("its pods name no profile")
		}
	case name == "README.md":
		namesItsFolder(t, path)
	default:
		t.Error("no test knows what this file is for")
	}
}

func readsAs(t *testing.T, path string, object any) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.UnmarshalStrict(data, object); err != nil {
		t.Error(err)
	}
}

// namesItsFolder holds a README to the files beside it.
func namesItsFolder(t *testing.T, path string) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		if entry.Name() != filepath.Base(path) && !strings.Contains(string(data), entry.Name()) {
			t.Errorf("%s does not name %s", path, entry.Name())
		}
	}
}

func parsesAsShell(t *testing.T, path string) {
	t.Helper()
	d := newDesk(t)
	d.succeeded(d.start("/bin/sh", "-n", path), path, nil)
	data, err := os.ReadFile("read_test.go")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(data), `d.script("`+filepath.Base(path)+`"`) {
		t.Errorf("TestExampleScripts does not run %s", filepath.Base(path))
	}
}

// namesWhatIsThere holds the folder's README to its profiles and folders.
func namesWhatIsThere(t *testing.T, path string) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, folder := range []string{"", "profiles"} {
		entries, err := os.ReadDir(filepath.Join(filepath.Dir(path), folder))
		if err != nil {
			t.Fatal(err)
		}
		for _, entry := range entries {
			if entry.Name() != filepath.Base(path) && !strings.Contains(string(data), entry.Name()) {
				t.Errorf("%s does not name %s", filepath.Base(path), entry.Name())
			}
		}
	}
}

// docs/trust.md gives the flags that the tests here sign with.
func TestTrustDocumentHasTheFlagsThatAreTested(t *testing.T) {
	data, err := os.ReadFile(filepath.Join("..", "..", "docs", "trust.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, section, found := strings.Cut(string(data), "\n## Signing with cosign\n")
	section, _, _ = strings.Cut(section, "\n## ")
	if !found {
		t.Fatal("docs/trust.md has no section on signing with cosign")
	}
	for way, how := range signings(t) {
		for _, word := range append(how.env, how.flags...) {
			if word = filepath.Base(word); !strings.Contains(section, word) {
				t.Errorf("%s: docs/trust.md does not name %s", way, word)
			}
		}
	}
	for kind := range importedKeys() {
		if name, _, _ := strings.Cut(kind, " "); !strings.Contains(section, name) {
			t.Errorf("docs/trust.md does not name %s keys", name)
		}
	}
}
