package profile

import (
	"bytes"
	"unicode/utf8"

	"github.com/confine-dev/confine/pkg/reason"
)

// Opaque is a Kind whose payloads are carried and verified, but not read by
// this version: they can be packed, pulled and kept, and nothing is installed
// from them. All fields are required.
type Opaque struct {
	KindName string
	Labels   Format
	// LooksLike is Sniff for UTF-8 text without NUL; other data is not asked for.
	LooksLike func(data []byte) bool
}

// Name returns the kind's name.
func (o Opaque) Name() string { return o.KindName }

// Format returns the kind's labels.
func (o Opaque) Format() Format { return o.Labels }

// Sniff reports whether text data looks like the kind.
func (o Opaque) Sniff(data []byte) bool {
	return utf8.Valid(data) && bytes.IndexByte(data, 0) < 0 && o.LooksLike(data)
}

// Parse refuses: KindUnsupported, or TooLarge for what no kind accepts.
func (o Opaque) Parse(file string, data []byte) (Profile, error) {
	if len(data) > MaxPayloadBytes {
		return nil, reason.New(reason.TooLarge, file, "a profile of %d bytes is larger than the %d allowed",
			len(data), MaxPayloadBytes)
	}
	return nil, o.unsupported(file)
}

// Constrain refuses with KindUnsupported: what is not read cannot be judged.
func (o Opaque) Constrain(Profile, []Limits) error { return o.unsupported("") }

func (o Opaque) unsupported(file string) error {
	return reason.New(reason.KindUnsupported, file, "%s profiles are carried and verified, not read by this version", o.KindName).
		WithAdvice("use a later version of Confine, or install %s profiles by other means", o.KindName)
}
