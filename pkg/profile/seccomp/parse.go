package seccomp

import (
	"fmt"
	"slices"

	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/profile/internal/jsontree"
	"github.com/confine-dev/confine/pkg/reason"
)

// Bounds on one profile. MaxEntries is KEP-6061's; the kernel itself ends at
// 4,096 BPF instructions, which far fewer names reach.
const (
	MaxEntries       = 128  // entries under syscalls
	MaxNames         = 2048 // names in all entries together
	MaxArgs          = 32   // conditions in one entry
	maxNameBytes     = 64
	maxListenerBytes = 4096
	maxWordBytes     = 64
	maxIndex         = 5 // a Linux syscall has six arguments

	treeDepth  = 8
	treeValues = 1 << 16
)

// Parse reads runtime-spec JSON strictly; see Kind.Parse.
func Parse(file string, data []byte) (*Profile, error) {
	root, err := readTree(file, data)
	if err != nil {
		return nil, err
	}
	r := &profileReader{data: data}
	if err := r.profile(root); err != nil {
		return nil, invalid(file, data, err)
	}
	r.p.file = file
	return r.p, nil
}

func readTree(file string, data []byte) (*jsontree.Node, error) {
	if len(data) > profile.MaxPayloadBytes {
		return nil, reason.New(reason.TooLarge, file, "a profile of %d bytes is larger than the %d allowed",
			len(data), profile.MaxPayloadBytes)
	}
	root, err := jsontree.Parse(data, jsontree.Bounds{Depth: treeDepth, Values: treeValues})
	if err != nil {
		return nil, invalid(file, data, err)
	}
	return root, nil
}

// invalid turns an error of the tree into ProfileInvalid at file:line:column.
func invalid(file string, data []byte, err error) error {
	return reason.New(reason.ProfileInvalid, jsontree.Locate(file, data, err), "%w", err)
}

type profileReader struct {
	data  []byte
	p     *Profile
	names int
}

func (r *profileReader) profile(root *jsontree.Node) error {
	r.p = &Profile{}
	fields := r.profileFields(MaxEntries, func(n *jsontree.Node) error {
		s, err := r.syscall(n, r.syscallFields, foreignField)
		r.p.Syscalls = append(r.p.Syscalls, s)
		return err
	})
	if err := root.Read(fields, foreignField); err != nil {
		return err
	}
	return r.wholeProfile(root)
}

// profileFields reads the runtime-spec's fields of a profile into r.p.
func (r *profileReader) profileFields(entries int, entry func(*jsontree.Node) error) jsontree.Fields {
	return jsontree.Fields{
		"defaultAction":    word(&r.p.DefaultAction, Actions()),
		"defaultErrnoRet":  errnoRet(&r.p.DefaultErrnoRet),
		"architectures":    words(&r.p.Architectures, Arches()),
		"flags":            words(&r.p.Flags, Flags()),
		"listenerPath":     text(&r.p.ListenerPath),
		"listenerMetadata": text(&r.p.ListenerMetadata),
		"syscalls":         orNull(func(n *jsontree.Node) error { return n.List(entries, entry) }),
	}
}

// wholeProfile holds what no single field can tell.
func (r *profileReader) wholeProfile(root *jsontree.Node) error {
	if r.p.DefaultAction == "" {
		return jsontree.Errorf(root.Offset, "defaultAction is missing: runtimes would take the profile for none at all")
	}
	if r.p.DefaultErrnoRet != nil && !r.p.DefaultAction.takesErrno() {
		return jsontree.Errorf(root.At("defaultErrnoRet"), "%s takes no errno", r.p.DefaultAction)
	}
	if r.p.ListenerMetadata != "" && r.p.ListenerPath == "" {
		return jsontree.Errorf(root.At("listenerMetadata"), "listenerMetadata must not stand without listenerPath")
	}
	return nil
}

// syscallFields reads the runtime-spec's fields of an entry into s.
func (r *profileReader) syscallFields(s *Syscall) jsontree.Fields {
	return jsontree.Fields{
		"names":    func(n *jsontree.Node) error { return r.readNames(n, s) },
		"action":   word(&s.Action, Actions()),
		"errnoRet": errnoRet(&s.ErrnoRet),
		"args": orNull(func(n *jsontree.Node) error {
			return n.List(MaxArgs, func(n *jsontree.Node) error { return readArg(n, s) })
		}),
	}
}

func (r *profileReader) syscall(n *jsontree.Node, fields func(*Syscall) jsontree.Fields, unknown func(string) string) (Syscall, error) {
	s := Syscall{position: jsontree.Position(r.data, n.Offset)}
	if err := n.Read(fields(&s), unknown); err != nil {
		return s, err
	}
	switch {
	case len(s.Names) == 0:
		return s, jsontree.Errorf(n.Offset, "names is missing or empty: an entry must name at least one syscall")
	case s.Action == "":
		return s, jsontree.Errorf(n.Offset, "action is missing")
	case s.ErrnoRet != nil && !s.Action.takesErrno():
		return s, jsontree.Errorf(n.At("errnoRet"), "%s takes no errno", s.Action)
	}
	return s, nil
}

func (r *profileReader) readNames(n *jsontree.Node, s *Syscall) error {
	return n.List(MaxNames, func(n *jsontree.Node) error { return r.readName(n, s) })
}

func (r *profileReader) readName(n *jsontree.Node, s *Syscall) error {
	if r.names++; r.names > MaxNames {
		return jsontree.Errorf(n.Offset, "the profile names more than %d syscalls", MaxNames)
	}
	name, err := n.Str(maxNameBytes)
	if err != nil {
		return err
	}
	if !plausibleName(name) {
		return jsontree.Errorf(n.Offset,
			"%q is no syscall name: those are lower-case letters, digits and underscores; runtimes would skip it silently", name)
	}
	s.Names = append(s.Names, name)
	s.positions = append(s.positions, jsontree.Position(r.data, n.Offset))
	return nil
}

// plausibleName reports whether name is written as syscalls are.
func plausibleName(name string) bool {
	for _, c := range []byte(name) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '_' {
			return false
		}
	}
	return name != "" && len(name) <= maxNameBytes
}

func readArg(n *jsontree.Node, s *Syscall) error {
	var a Arg
	var hasIndex, hasValue bool
	err := n.Read(jsontree.Fields{
		"index": func(n *jsontree.Node) error {
			v, err := n.Uint(32)
			if err == nil && v > maxIndex {
				err = jsontree.Errorf(n.Offset, "a syscall has six arguments: index must be 0 to %d, not %d", maxIndex, v)
			}
			a.Index, hasIndex = uint32(v), true //nolint:gosec // Uint(32) read it
			return err
		},
		"value": func(n *jsontree.Node) (err error) {
			hasValue = true
			a.Value, err = n.Uint(64)
			return err
		},
		"valueTwo": func(n *jsontree.Node) (err error) { a.ValueTwo, err = n.Uint(64); return err },
		"op":       word(&a.Op, Operators()),
	}, foreignField)
	if err != nil {
		return err
	}
	if !hasIndex || !hasValue || a.Op == "" {
		return jsontree.Errorf(n.Offset, "an argument needs index, value and op")
	}
	s.Args = append(s.Args, a)
	return nil
}

// word reads a string that must be one of the given words.
func word[T ~string](to *T, allowed []T) func(*jsontree.Node) error {
	return func(n *jsontree.Node) error {
		v, err := n.Str(maxWordBytes)
		if err != nil {
			return err
		}
		if !slices.Contains(allowed, T(v)) {
			return jsontree.Errorf(n.Offset, "%q is unknown; known are %s", v, list(allowed))
		}
		*to = T(v)
		return nil
	}
}

// words reads a list of such strings.
func words[T ~string](to *[]T, allowed []T) func(*jsontree.Node) error {
	return orNull(func(n *jsontree.Node) error {
		*to = []T{}
		return n.List(2*len(allowed), func(n *jsontree.Node) error {
			var one T
			if err := word(&one, allowed)(n); err != nil {
				return err
			}
			*to = append(*to, one)
			return nil
		})
	})
}

// errnoRet reads the JSON schema's uint32.
func errnoRet(to **uint32) func(*jsontree.Node) error {
	return orNull(func(n *jsontree.Node) error {
		v, err := n.Uint(32)
		if err != nil {
			return err
		}
		errno := uint32(v) //nolint:gosec // Uint(32) read it
		*to = &errno
		return nil
	})
}

// orNull takes null for an absent optional field, as every runtime does.
func orNull(read func(*jsontree.Node) error) func(*jsontree.Node) error {
	return func(n *jsontree.Node) error {
		if n.IsNull() {
			return nil
		}
		return read(n)
	}
}

func text(to *string) func(*jsontree.Node) error {
	return func(n *jsontree.Node) (err error) {
		*to, err = n.Str(maxListenerBytes)
		return err
	}
}

// foreignField words the refusal of a field outside the runtime-spec.
func foreignField(key string) string {
	if slices.Contains(dialectFields(), key) {
		return fmt.Sprintf("the field %q is of the moby and containers-common dialect, which nodes would ignore "+
			"silently: make plain runtime-spec JSON with confine push --flatten", key)
	}
	return fmt.Sprintf("the field %q is not of the runtime-spec, and nodes would ignore it silently", key)
}

// dialectFields are the fields of the moby and containers-common dialect
// (github.com/moby/profiles/seccomp seccomp.go, go.podman.io/common
// pkg/seccomp/types.go) beyond the runtime-spec.
func dialectFields() []string {
	return []string{"archMap", "includes", "excludes", "minKernel", "name", "comment", "errno", "defaultErrno",
		"caps", "arches", "architecture", "subArchitectures"}
}

func list[T ~string](all []T) string {
	var out []byte
	for i, v := range all {
		if i > 0 {
			out = append(out, ", "...)
		}
		out = append(out, v...)
	}
	return string(out)
}
