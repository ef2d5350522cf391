// Package selinux is the kind of SELinux policy modules in CIL, which this
// version carries and verifies without reading them.
package selinux

import (
	"regexp"

	"github.com/confine-dev/confine/pkg/profile"
)

// Name is the kind's word in resources, status and commands.
const Name = "selinux"

// New returns the SELinux kind.
func New() profile.Opaque {
	return profile.Opaque{
		KindName: Name,
		Labels: profile.Format{
			MediaType:   "application/vnd.confine.selinux.cil.v1",
			Extensions:  []string{".cil"},
			DefaultFile: "profile.cil",
		},
		LooksLike: statement().Match,
	}
}

// statement matches the first statement of a CIL module: comments, then one of
// the statements a container policy begins with
// (https://github.com/SELinuxProject/selinux/tree/main/secilc/docs).
func statement() *regexp.Regexp {
	return regexp.MustCompile(`\A(?:\s|;[^\n]*\n)*\([ \t]*(?:block|blockinherit|type|typeattribute|typeattributeset|allow|in|optional|macro|call)[\s"]`)
}
