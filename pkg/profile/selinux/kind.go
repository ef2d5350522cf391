package selinux

import (
	"bytes"
	"regexp"
	"unicode/utf8"

	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/profile/selinux/internal/cil"
	"github.com/confine-dev/confine/pkg/reason"
)

// Name is the kind's word in resources, status and commands.
const Name = "selinux"

// Kind reads, judges and compares SELinux modules. It implements profile.Kind
// and profile.Differ. The zero value works.
type Kind struct{}

// NewKind returns the SELinux kind.
func NewKind() *Kind { return &Kind{} }

// Name returns "selinux".
func (k *Kind) Name() string { return Name }

// Format says how SELinux payloads are labelled in artifacts.
func (k *Kind) Format() profile.Format {
	return profile.Format{
		MediaType:   "application/vnd.confine.selinux.cil.v1",
		Extensions:  []string{".cil"},
		DefaultFile: "profile.cil",
	}
}

// Sniff reports whether data begins like a CIL module.
func (k *Kind) Sniff(data []byte) bool {
	return utf8.Valid(data) && bytes.IndexByte(data, 0) < 0 && statement().Match(data)
}

// statement matches the first statement of a CIL module: comments, then one of
// the statements a container policy begins with
// (https://github.com/SELinuxProject/selinux/tree/main/secilc/docs).
func statement() *regexp.Regexp {
	return regexp.MustCompile(`\A(?:\s|;[^\n]*\n)*\([ \t]*(?:block|blockinherit|type|typeattribute|typeattributeset|allow|in|optional|macro|call)[\s"]`)
}

// Parse reads any CIL within the bounds, whether or not the closed grammar
// admits it; see the package for what is ProfileInvalid.
func (k *Kind) Parse(file string, data []byte) (profile.Profile, error) {
	p, err := Parse(file, data)
	if err != nil {
		return nil, err
	}
	return p, nil
}

// Profile is one parsed module.
type Profile struct {
	file       string
	statements []*cil.Node
	lines      []int // where each line begins
	model      model
	findings   []profile.Finding
}

// Kind returns "selinux".
func (p *Profile) Kind() string { return Name }

// Findings are what a reviewer should see though it is no error.
func (p *Profile) Findings() []profile.Finding {
	return append([]profile.Finding(nil), p.findings...)
}

// Names returns the name of the profile's block, and the process type that
// pods put into seLinuxOptions.type. Both are empty where the module is not
// one plain block, which Constrain never admits.
func (p *Profile) Names() (block, processType string) {
	if p.model.block == "" {
		return "", ""
	}
	return p.model.block, ProcessType(p.model.block)
}

// Parse reads a module; see Kind.Parse.
func Parse(file string, data []byte) (*Profile, error) {
	if len(data) > profile.MaxPayloadBytes {
		return nil, reason.New(reason.TooLarge, file, "a profile of %d bytes is larger than the %d allowed",
			len(data), profile.MaxPayloadBytes)
	}
	statements, err := cil.Parse(data)
	if err == nil {
		err = wellFormed(statements)
	}
	if err != nil {
		object := file
		if at, ok := err.(*cil.Error); ok { //nolint:errorlint // cil returns it bare
			object = file + ":" + cil.Position(data, at.Offset)
		}
		return nil, reason.New(reason.ProfileInvalid, object, "%w", err)
	}
	p := &Profile{file: file, statements: statements, lines: lineStarts(data)}
	p.model = modelOf(statements)
	p.findings = p.review()
	return p, nil
}

// wellFormed refuses what no policy of any shape can hold.
func wellFormed(statements []*cil.Node) error {
	if len(statements) == 0 {
		return &cil.Error{Detail: "there is no statement"}
	}
	blocks := map[string]bool{}
	for _, s := range statements {
		head := s.Head()
		if head == nil {
			return &cil.Error{Offset: s.Offset, Detail: "a statement begins with its keyword"}
		}
		if head.Text != "block" || len(s.Items) < 2 || s.Items[1].List {
			continue
		}
		name := s.Items[1]
		if blocks[name.Text] {
			return &cil.Error{Offset: name.Offset, Detail: "the block " + clip(name.Text) + " is declared twice"}
		}
		blocks[name.Text] = true
	}
	return nil
}

// lineStarts remembers enough of the text to name places in it later.
func lineStarts(data []byte) []int {
	starts := []int{0}
	for i, c := range data {
		if c == '\n' {
			starts = append(starts, i+1)
		}
	}
	return starts
}
