package cli

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestNodePurge(t *testing.T) {
	dir := t.TempDir()
	state, kubelet := filepath.Join(dir, "state"), filepath.Join(dir, "kubelet")
	artifact := filepath.Join(kubelet, "seccomp/confine/.artifacts/sha256-"+strings.Repeat("a", 64))
	namespace := filepath.Join(kubelet, "seccomp/confine/web")
	for _, folder := range []string{artifact, namespace, filepath.Join(state, "store")} {
		if err := os.MkdirAll(folder, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, data := range map[string]string{
		filepath.Join(artifact, "nginx.json"): "{}", filepath.Join(state, "journal.json"): "{}", filepath.Join(kubelet, "seccomp/mine.json"): "{}",
		filepath.Join(state, "odd\x1b[2J"): "",
	} {
		if err := os.WriteFile(name, []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("../.artifacts/sha256-"+strings.Repeat("a", 64), filepath.Join(namespace, "nginx")); err != nil {
		t.Fatal(err)
	}
	purge := func(args ...string) result {
		return typed(t.Context(), append([]string{"node", "purge", "--root", state, "--kubelet-root", kubelet}, args...)...)
	}
	r := purge()
	r.expect(t, ExitOK, "would remove "+filepath.Join(namespace, "nginx")+" (profile web/nginx, sha256:aaaa", "would remove "+filepath.Join(state, "journal.json"),
		"kept "+filepath.Join(state, "odd"), "Nothing was removed: --yes removes it.", "keep the seccomp filter they started with")
	if strings.Contains(r.out, "\x1b") {
		t.Errorf("it draws on the terminal: %q", r.out)
	}
	var plan struct {
		Removed  bool
		Profiles int
		Remove   []struct{ Path, What string }
		Keep     []struct{ Path, What string }
	}
	if err := json.Unmarshal([]byte(purge("-o", "json").out), &plan); err != nil || plan.Removed || plan.Profiles != 1 || len(plan.Keep) != 1 {
		t.Errorf("%v: %+v", err, plan)
	}
	if !exists(artifact) {
		t.Fatal("a list removed something")
	}
	purge("--yes").expect(t, ExitOK, "removed "+filepath.Join(namespace, "nginx"))
	if exists(filepath.Join(kubelet, "seccomp/confine")) || exists(filepath.Join(state, "journal.json")) || !exists(filepath.Join(kubelet, "seccomp/mine.json")) {
		t.Error("something is left, or too much is gone")
	}
	purge("--root", "").expect(t, ExitUsage, "--root")
	purge("here").expect(t, ExitUsage, "usage:")
}
