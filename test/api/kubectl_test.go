package api_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/confine-dev/confine/api/v1alpha1"
	"github.com/confine-dev/confine/test/kube/apitest"
)

// kubectl runs kubectl as an administrator and returns what it prints.
func kubectl(t *testing.T, args ...string) string {
	t.Helper()
	config, err := apitest.Kubeconfig(server.Config())
	if err != nil {
		t.Fatal(err)
	}
	home := t.TempDir()
	file := filepath.Join(home, "config")
	if err := os.WriteFile(file, config, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), server.Kubectl(), args...)
	cmd.Env = []string{"KUBECONFIG=" + file, "HOME=" + home}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("kubectl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// columns splits a table into the words of its rows; no cell here has two.
func columns(table string) [][]string {
	var rows [][]string
	for line := range strings.Lines(table) {
		rows = append(rows, strings.Fields(line))
	}
	return rows
}

func TestKubectlGet(t *testing.T) {
	profile := create(t, named(toUnstructured(t, securityProfile()), "printed"))
	whole := toUnstructured(t, securityProfile())
	set(t, whole.Object, keysOf(t, "status.conditions"), []any{
		condition(v1alpha1.ConditionVerified, v1alpha1.ReasonVerified), condition(v1alpha1.ConditionProgressing, v1alpha1.ReasonRolloutComplete),
	})
	profile.Object["status"] = whole.Object["status"]
	node := create(t, named(toUnstructured(t, profileNode()), "printed"))
	node.Object["status"] = toUnstructured(t, profileNode()).Object["status"]
	set(t, node.Object, keysOf(t, "status.problems[0].message"), "mend")
	policy := create(t, named(toUnstructured(t, trustPolicy()), "printed"))
	if _, err := resourceOf(t, profile).UpdateStatus(t.Context(), profile, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := resourceOf(t, node).UpdateStatus(t.Context(), node, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		args []string
		want [][]string
	}{
		"secprof": {[]string{"secprof", profile.GetName()}, [][]string{
			{"NAME", "VERIFIED", "UPDATED", "READY", "FAILED", "TOTAL", "STATUS", "AGE"},
			{"printed", "True", "3", "2", "1", "4", "RolloutComplete"},
		}},
		"secprof -o wide": {[]string{"secprof", profile.GetName(), "-o", "wide"}, [][]string{
			{"NAME", "VERIFIED", "UPDATED", "READY", "FAILED", "TOTAL", "STATUS", "REASON", "UNAVAILABLE", "ARTIFACT", "AGE"},
			{"printed", "True", "3", "2", "1", "4", "RolloutComplete", "SignatureMissing", "1", artifact},
		}},
		"profnode": {[]string{"profnode", node.GetName()}, [][]string{
			{"NAME", "ASSIGNED", "INSTALLED", "FAILED", "PROBLEM", "AGE"},
			{"printed", "1", "1", "0", "TrustPolicyInvalid"},
		}},
		"profnode -o wide": {[]string{"profnode", node.GetName(), "-o", "wide"}, [][]string{
			{"NAME", "ASSIGNED", "INSTALLED", "FAILED", "PROBLEM", "AGENT", "MESSAGE", "AGE"},
			{"printed", "1", "1", "0", "TrustPolicyInvalid", "v0.3.0", "mend"},
		}},
		"trustpol": {[]string{"trustpol", policy.GetName()}, [][]string{
			{"NAME", "REPOSITORIES", "NAMESPACES", "THRESHOLD", "AGE"},
			{"printed", `["registry.example.com/profiles/**"]`, `["web"]`, "1"},
		}},
		"trustpol -o wide": {[]string{"trustpol", policy.GetName(), "-o", "wide"}, [][]string{
			{"NAME", "REPOSITORIES", "NAMESPACES", "THRESHOLD", "KINDS", "AGE"},
			{"printed", `["registry.example.com/profiles/**"]`, `["web"]`, "1", `["seccomp"]`},
		}},
	} {
		t.Run(name, func(t *testing.T) {
			rows := columns(kubectl(t, append([]string{"get"}, tc.args...)...))
			for i := range rows[1:] {
				rows[i+1] = rows[i+1][:len(rows[i+1])-1] // the age
			}
			if diff := cmp.Diff(tc.want, rows); diff != "" {
				t.Error(diff)
			}
		})
	}
	t.Run("category", func(t *testing.T) {
		var names []string
		for _, row := range columns(kubectl(t, "get", "confine", "-A", "-o", "name")) {
			names = append(names, row...)
		}
		for _, want := range []string{"securityprofile.confine.dev/printed", "profilenode.confine.dev/printed", "trustpolicy.confine.dev/printed"} {
			if !slices.Contains(names, want) {
				t.Errorf("%v lacks %s", names, want)
			}
		}
	})
}

func condition(kind, reason string) map[string]any {
	return map[string]any{
		"type": kind, "status": "True", "reason": reason, "message": "", "lastTransitionTime": "2026-11-23T12:00:00Z",
	}
}

// A person meets the API in kubectl explain: kinds say what they are for, and
// fields what to write.
func TestKubectlExplain(t *testing.T) {
	for resource, want := range map[string][]string{
		"securityprofile":               {"KIND: SecurityProfile", "GROUP: confine.dev", "pins one artifact of security profiles by digest"},
		"securityprofile.spec":          {"artifact <string> -required-", "REPOSITORY@sha256:HEX", "kinds <string>", "enum: Supported, Required"},
		"securityprofile.spec.rollout":  {"maxConcurrent <Object>", "25% is the default", "onFailure <string>", "enum: Pause, Rollback"},
		"trustpolicy.spec.signers":      {"name <string> -required-", "key <Object>"},
		"profilenode.status.profiles":   {"state <string> -required-", "Installed, Pending, Failed or Removing"},
		"trustpolicy.spec.requireName":  {"FIELD: requireName <boolean>", "NAMESPACE/NAME of the SecurityProfile"},
		"trustpolicy.spec.repositories": {"FIELD: repositories <[]string>", "The host and the first path segment are literal."},
	} {
		t.Run(resource, func(t *testing.T) {
			text := strings.Join(strings.Fields(kubectl(t, "explain", resource)), " ")
			for _, part := range want {
				if !strings.Contains(text, part) {
					t.Errorf("lacks %q:\n%s", part, text)
				}
			}
		})
	}
}
