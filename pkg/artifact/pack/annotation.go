package pack

import (
	"regexp"
	"slices"
	"strings"

	"golang.org/x/mod/semver"
)

const (
	maxVersionBytes = 64
	// Names as Kubernetes has them: a namespace is an RFC 1123 label, an
	// object's name a subdomain, which is labels with dots between them.
	maxLabelBytes     = 63
	maxSubdomainBytes = 253
)

var labelRegexp = regexp.MustCompile(`\A[a-z0-9](?:[a-z0-9-]*[a-z0-9])?\z`)

// ParseVersion accepts a whole semantic version without a leading v
// (https://semver.org/spec/v2.0.0.html), of at most 64 bytes, and returns it
// as golang.org/x/mod/semver compares it.
func ParseVersion(text string) (canonical string, ok bool) {
	v := "v" + text
	if len(text) > maxVersionBytes || !semver.IsValid(v) {
		return "", false
	}
	// Shorthands such as 1.4 are valid to x/mod, but no semantic versions.
	return v, semver.Canonical(v)+semver.Build(v) == v
}

// checkSigned refuses values of the signed annotations that no policy would
// ever accept: the artifact would be signed, rolled out and then refused.
func checkSigned(annotations map[string]string) error {
	if version, given := annotations[AnnotationVersion]; given {
		if _, ok := ParseVersion(version); !ok {
			return refuse("the version %q is no semantic version, and no floor of a policy would accept it", clip(version)).
				WithAdvice("write it in full and without a leading v, such as 1.4.0")
		}
	}
	if name, given := annotations[AnnotationName]; given {
		if !isObjectName(name) {
			return refuse("the name %q is not NAMESPACE/NAME of a SecurityProfile, and requireName would refuse it", clip(name)).
				WithAdvice("write namespace and name as Kubernetes does, such as web/nginx")
		}
	}
	return nil
}

// isObjectName reports whether name is NAMESPACE/NAME.
func isObjectName(name string) bool {
	namespace, object, _ := strings.Cut(name, "/")
	isLabel := func(s string) bool { return len(s) <= maxLabelBytes && labelRegexp.MatchString(s) }
	return isLabel(namespace) && len(object) <= maxSubdomainBytes &&
		!slices.ContainsFunc(strings.Split(object, "."), func(s string) bool { return !isLabel(s) })
}
