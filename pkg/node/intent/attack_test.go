package intent_test

import (
	"errors"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/confine-dev/confine/pkg/node/intent"
	"github.com/confine-dev/confine/pkg/reason"
)

// policyNamed is a whole policy; what stands in its spec besides is more.
func policyNamed(name string, more ...string) string {
	return `apiVersion: confine.dev/v1alpha1
kind: TrustPolicy
metadata: {name: ` + name + `}
spec:
  repositories: [registry.example.com/profiles/*]
  namespaces: [web]
  threshold: 1
  allowedKinds: [seccomp]
  signers:
  - name: team
    key:
      pem: x
` + strings.Join(more, "")
}

// A file may hold several documents. One that was not seen would be a policy
// that was left out, so that the others suffice.
func TestNoDocumentOfAFileIsPassedOver(t *testing.T) {
	const second = `{"apiVersion":"confine.dev/v1alpha1","kind":"TrustPolicy","metadata":{"name":"b"},"spec":{}}`
	first := policyNamed("a")
	for name, data := range map[string]string{
		"after a document's end":    first + "...\n" + policyNamed("b"),
		"after an end with remark":  first + "... # end\n" + policyNamed("b"),
		"carriage returns alone":    strings.ReplaceAll(first+"---\n"+policyNamed("b"), "\n", "\r"),
		"a line separator":          first + "# remark\u2028---\u2028" + second + "\n",
		"a paragraph separator":     first + "# remark\u2029---\u2029" + second + "\n",
		"a next line character":     first + "# remark\u0085---\u0085" + second + "\n",
		"two JSON objects":          second + "\n" + second,
		"two JSON objects, a comma": second + ",\n" + second,
		"UTF-16":                    utf16le(first + "---\n" + policyNamed("b")),
		"end, then a separator":     first + "...\n---\n" + policyNamed("b"),
	} {
		t.Run(name, func(t *testing.T) {
			policies, err := intent.DecodePolicies("trust.yaml", []byte(data))
			if err == nil && len(policies) != 2 {
				t.Errorf("%d of 2 policies were read, and nothing was said", len(policies))
			}
			if err != nil && !errors.Is(err, reason.TrustPolicyInvalid) {
				t.Errorf("error %v", err)
			}
		})
	}
}

func utf16le(s string) string {
	b := []byte{0xff, 0xfe}
	for _, u := range utf16.Encode([]rune(s)) {
		b = append(b, byte(u), byte(u>>8))
	}
	return string(b)
}

func TestOneDocumentMayEndOrBeginWithMarks(t *testing.T) {
	for name, data := range map[string]string{
		"end":             policyNamed("a") + "...\n",
		"separator first": "---\n" + policyNamed("a"),
		"separator last":  policyNamed("a") + "---\n",
		"windows lines":   strings.ReplaceAll("---\n"+policyNamed("a")+"---\n", "\n", "\r\n"),
		"byte order mark": "\ufeff" + policyNamed("a"),
		"remark first":    "# who is trusted\n---\n" + policyNamed("a"),
	} {
		t.Run(name, func(t *testing.T) {
			policies, err := intent.DecodePolicies("trust.yaml", []byte(data))
			if err != nil || len(policies) != 1 {
				t.Errorf("%d policies, %v", len(policies), err)
			}
		})
	}
}

// A field without a value is what a template leaves whose variable is not set.
// Read as absent, it would drop a bound.
func TestFieldsWithoutAValueAreRefused(t *testing.T) {
	for name, more := range map[string]string{
		"validity":         "      notAfter:\n",
		"revoked":          "  revoked:\n",
		"revoked digests":  "  revoked: {digests: null}\n",
		"floor":            "  floor: ~\n",
		"requireName":      "  requireName:\n",
		"denied syscalls":  "  constraints: {seccomp: {deniedSyscalls: }}\n",
		"a denied syscall": "  constraints: {seccomp: {deniedSyscalls: [~]}}\n",
	} {
		t.Run(name, func(t *testing.T) {
			policies, err := intent.DecodePolicies("trust.yaml", []byte(policyNamed("a", more)))
			if !errors.Is(err, reason.TrustPolicyInvalid) {
				t.Errorf("%+v, %v", policies, err)
			}
		})
	}
	generated := strings.Replace(policyNamed("a"), "metadata: {", "metadata: {creationTimestamp: null, ", 1)
	if _, err := intent.DecodePolicies("trust.yaml", []byte(generated)); err != nil {
		t.Errorf("what kubectl generates: %v", err)
	}
}

func TestAliasesDoNotMultiplyBytes(t *testing.T) {
	for name, data := range map[string]string{
		// 5 GiB of JSON, which the reader's own bound on aliases admits: it counts nodes.
		"long":    "a: &x " + strings.Repeat("x", 1<<18) + "\nb: [*x" + strings.Repeat(",*x", 20000) + "]\n",
		"endless": "a: &x [*x]\n",
	} {
		t.Run(name, func(t *testing.T) {
			got := intent.DecodeProfiles("a.yaml", []byte(data))
			if len(got.Invalid) != 1 || got.Complete || !strings.Contains(got.Invalid[0].Err.Error(), "alias") {
				t.Errorf("%+v", got.Invalid)
			}
		})
	}
	aliased := strings.Replace(profile1, "metadata: {", "metadata: {annotations: {a: &team web, b: *team}, ", 1)
	if got := intent.DecodeProfiles("a.yaml", []byte(aliased)); len(got.Profiles) != 1 {
		t.Errorf("an alias that grows nothing: %+v", got.Invalid)
	}
}

// A profile that was not seen would be removed from the node.
func TestAProfilePassedOverNeverLooksRemoved(t *testing.T) {
	got := intent.DecodeProfiles("a.yaml", []byte(profile1+"...\n"+strings.Replace(profile1, "nginx", "other", 1)))
	if got.Complete || len(got.Invalid) != 1 {
		t.Errorf("%d of 2 profiles, complete %v, invalid %v", len(got.Profiles), got.Complete, got.Invalid)
	}
}
