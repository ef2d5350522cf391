package pack

import (
	"strings"

	"github.com/confine-dev/confine/pkg/profile"
)

// maxFileBytes bounds an installed file's name. File systems allow 255; half
// of that leaves room for what programs append.
const maxFileBytes = 128

// SanitizeTitle turns a layer's title, or the name of a file to be packed, into
// the bare file name it is installed under. A title is a label, never a path:
// only what follows the last slash or backslash counts, every run of other
// characters than ASCII letters, digits, dot, hyphen and underscore becomes one
// underscore, and dots and hyphens at the beginning and dots at the end go.
// The result is empty where nothing is left or more than 128 bytes are. It is
// idempotent.
func SanitizeTitle(title string) string {
	base := title[strings.LastIndexAny(title, `/\`)+1:]
	var b strings.Builder
	replaced := false
	for _, r := range base {
		if isFileRune(r) {
			b.WriteRune(r)
			replaced = false
		} else if !replaced {
			b.WriteByte('_')
			replaced = true
		}
		if b.Len() > 2*maxFileBytes {
			return ""
		}
	}
	name := strings.TrimRight(strings.TrimLeft(b.String(), ".-"), ".")
	if len(name) > maxFileBytes || strings.Trim(name, "_") == "" {
		return ""
	}
	return name
}

func isFileRune(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' || r == '-' || r == '_'
}

// fileFor returns the file name that a payload of kind with that title gets.
func fileFor(title string, kind profile.Kind) string {
	if name := SanitizeTitle(title); name != "" {
		return name
	}
	return kind.Format().DefaultFile
}

// checkUnique refuses two payloads that would be installed under one name,
// also on a file system that ignores case. They are not renamed: which of the
// two a workload means by the name must not depend on their order.
func checkUnique(layers []Layer) error {
	seen := make(map[string]int, len(layers))
	for i, l := range layers {
		if l.File == "" {
			continue
		}
		folded := strings.ToLower(l.File)
		if first, dup := seen[folded]; dup {
			return refuse("layers %d and %d would both be installed as %q", first+1, i+1, l.File).
				WithAdvice("give every file its own name; names that differ by case alone, or by characters other than A-Z a-z 0-9 . - _, count as the same")
		}
		seen[folded] = i
	}
	return nil
}
