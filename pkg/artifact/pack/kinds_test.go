package pack_test

import (
	"bytes"

	"github.com/confine-dev/confine/pkg/profile"
)

// testKind is a kind that carries bytes without reading them. What Sniff looks
// for is crude on purpose, so that one payload can be taken for two kinds.
type testKind struct {
	name   string
	format profile.Format
	marks  []byte
}

func (k testKind) Name() string                                                     { return k.name }
func (k testKind) Format() profile.Format                                           { return k.format }
func (k testKind) Sniff(data []byte) bool                                           { return bytes.Contains(data, k.marks) }
func (k testKind) Parse(string, []byte) (profile.Profile, error)                    { return nil, nil }
func (k testKind) Constrain(profile.Profile, profile.Scope, []profile.Limits) error { return nil }

const (
	seccompType  = "application/vnd.confine.seccomp.v1+json"
	apparmorType = "application/vnd.confine.apparmor.v1"
	cilType      = "application/vnd.confine.selinux.cil.v1"
)

func testKinds() profile.Set {
	return profile.NewSet(
		testKind{"seccomp", profile.Format{MediaType: seccompType, Extensions: []string{".json"}, DefaultFile: "profile.json"}, []byte(`"defaultAction"`)},
		testKind{"apparmor", profile.Format{MediaType: apparmorType, Extensions: []string{".aa", ".apparmor"}, DefaultFile: "profile.aa"}, []byte("profile ")},
		testKind{"selinux", profile.Format{MediaType: cilType, Extensions: []string{".cil"}, DefaultFile: "profile.cil"}, []byte("(")},
	)
}

// Payloads that the test kinds recognize.
const (
	seccompData  = `{"defaultAction":"SCMP_ACT_ERRNO"}` + "\n"
	apparmorData = "profile confine.default.web {\n}\n"
	cilData      = "(block web)\n"
)
