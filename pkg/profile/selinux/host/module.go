package host

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/profile/internal/hostcheck"
	"github.com/confine-dev/confine/pkg/profile/selinux"
	"github.com/confine-dev/confine/pkg/reason"
)

// A module is the texts of one unit, each below a comment that says what it is:
//
//	; confine 1
//	; owner shop/web
//	; digest sha256:...
//	; file web.cil confine_shop_web <sum> <bytes> here
//	(block confine_shop_web ...)
//
// A policy has each block once. Where owners share a text, it stands in the
// module of the first of them, and the others say "elsewhere".
const (
	firstLine  = "; confine 1"
	here       = "here"
	elsewhere  = "elsewhere"
	namePrefix = "confine-"
	shownName  = 80 // bytes of an owner in a module's name
	nameSum    = 32 // hexadecimal digits that make it unique
)

// record is one unit as the policy store has it.
type record struct {
	Owner  profile.Owner
	Digest digest.Digest
	Files  []text // sorted by name
}

type text struct {
	Name  string
	Block string
	Sum   string // hexadecimal SHA-256 of the text
	// Data is nil where the text stands elsewhere and was not found there.
	Data []byte
}

// newRecord reads the files of a unit.
func newRecord(u profile.Unit) (*record, error) {
	r := &record{Owner: u.Owner, Digest: u.Digest}
	seen := map[string]string{}
	for _, f := range hostcheck.Sorted(u.Files) {
		label := u.Owner.String() + "/" + f.Name
		p, err := selinux.Parse(label, f.Data)
		if err != nil {
			return nil, err
		}
		block, _ := p.Names()
		if block == "" {
			return nil, reason.New(reason.ProfileInvalid, label, "it is not one plain block, whose process type a pod could name")
		}
		if other, twice := seen[block]; twice {
			return nil, reason.New(reason.ProfileInvalid, label, "the block %s is in %s, too", block, other)
		}
		seen[block] = f.Name
		data := append([]byte{}, f.Data...)
		r.Files = append(r.Files, text{Name: f.Name, Block: block, Sum: sumOf(data), Data: data})
	}
	return r, nil
}

func sumOf(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// blocks are the names of all blocks of a unit.
func (r *record) blocks() []string {
	if r == nil {
		return nil
	}
	names := make([]string, 0, len(r.Files))
	for _, t := range r.Files {
		names = append(names, t.Block)
	}
	return names
}

// text returns the text that has a block, and false where none has.
func (r *record) text(block string) (text, bool) {
	if r == nil {
		return text{}, false
	}
	i := slices.IndexFunc(r.Files, func(t text) bool { return t.Block == block })
	if i < 0 {
		return text{}, false
	}
	return r.Files[i], true
}

// same reports whether both are the same unit, text by text.
func (r *record) same(other *record) bool {
	return r != nil && r.Digest == other.Digest && slices.EqualFunc(r.Files, other.Files, func(a, b text) bool {
		return a.Name == b.Name && a.Block == b.Block && a.Sum == b.Sum
	})
}

// whole reports whether all texts were found.
func (r *record) whole() bool {
	return !slices.ContainsFunc(r.Files, func(t text) bool { return t.Data == nil })
}

// moduleName is the name of an owner's module, which says roughly whose it is.
func moduleName(o profile.Owner) string {
	readable := strings.ReplaceAll(o.Namespace+"-"+o.Name, ".", "_")
	return namePrefix + readable[:min(len(readable), shownName)] + "-" + sumOf([]byte(o.String()))[:nameSum]
}

// render makes the modules of all units, by name. The same units make the same
// bytes, whatever was there before.
func render(units map[profile.Owner]*record) map[string][]byte {
	modules, declared := map[string][]byte{}, map[string]bool{}
	for _, o := range slices.SortedFunc(maps.Keys(units), profile.Owner.Compare) {
		r := units[o]
		var b bytes.Buffer
		fmt.Fprintf(&b, "%s\n; owner %s\n; digest %s\n", firstLine, o, r.Digest)
		for _, t := range r.Files {
			if declared[t.Block] || t.Data == nil {
				fmt.Fprintf(&b, "; file %s %s %s 0 %s\n", t.Name, t.Block, t.Sum, elsewhere)
				continue
			}
			declared[t.Block] = true
			fmt.Fprintf(&b, "; file %s %s %s %d %s\n%s\n", t.Name, t.Block, t.Sum, len(t.Data), here, t.Data)
		}
		modules[moduleName(o)] = b.Bytes()
	}
	return modules
}

var errModule = errors.New("no module of an owner")

// decode reads what render made, strictly: other bytes, even comments, are
// damage. Texts that stand elsewhere have no data yet.
func decode(name string, data []byte) (*record, error) {
	rest := data
	line := func(prefix string) (string, error) {
		found, after, ok := bytes.Cut(rest, []byte("\n"))
		rest = after
		value, fits := strings.CutPrefix(string(found), prefix)
		if !ok || !fits {
			return "", fmt.Errorf("%w: no %q", errModule, prefix)
		}
		return value, nil
	}
	begin, err := line(firstLine)
	if err != nil || begin != "" {
		return nil, fmt.Errorf("%w: it begins otherwise", errModule)
	}
	owner, err := line("; owner ")
	if err != nil {
		return nil, err
	}
	dgst, err := line("; digest ")
	if err != nil {
		return nil, err
	}
	r := &record{Digest: digest.Digest(dgst)}
	r.Owner.Namespace, r.Owner.Name, _ = strings.Cut(owner, "/")
	if hostcheck.Owner(r.Owner) != nil || moduleName(r.Owner) != name {
		return nil, fmt.Errorf("%w: its owner is another", errModule)
	}
	files := []profile.File{}
	for len(rest) > 0 {
		says, err := line("; file ")
		if err != nil {
			return nil, err
		}
		t, after, err := decodeText(says, rest)
		if err != nil {
			return nil, err
		}
		rest = after
		r.Files, files = append(r.Files, t), append(files, profile.File{Name: t.Name, Data: t.Data})
	}
	sorted := slices.IsSortedFunc(files, func(a, b profile.File) int { return strings.Compare(a.Name, b.Name) })
	if err := hostcheck.Unit(profile.Unit{Owner: r.Owner, Digest: r.Digest, Files: files}); err != nil || !sorted {
		return nil, fmt.Errorf("%w: not a unit's files: %w", errModule, err)
	}
	return r, nil
}

// decodeText reads one text after the line that says what it is.
func decodeText(says string, rest []byte) (text, []byte, error) {
	fields := strings.Split(says, " ")
	if len(fields) != 5 {
		return text{}, nil, fmt.Errorf("%w: a file of %d words", errModule, len(fields))
	}
	t := text{Name: fields[0], Block: fields[1], Sum: fields[2]}
	if fields[4] == elsewhere {
		return t, rest, nil
	}
	length, err := strconv.Atoi(fields[3])
	if err != nil || fields[4] != here || length < 0 || length >= len(rest) || rest[length] != '\n' {
		return text{}, nil, fmt.Errorf("%w: %s is not where it should be", errModule, t.Name)
	}
	if t.Data = rest[:length]; sumOf(t.Data) != t.Sum {
		return text{}, nil, fmt.Errorf("%w: %s has other bytes", errModule, t.Name)
	}
	return t, rest[length+1:], nil
}

// resolve fills in the texts that stand elsewhere.
func resolve(units map[profile.Owner]*record) {
	found := map[string][]byte{}
	for _, r := range units {
		for _, t := range r.Files {
			if t.Data != nil {
				found[t.Block+" "+t.Sum] = t.Data
			}
		}
	}
	for _, r := range units {
		for i, t := range r.Files {
			r.Files[i].Data = found[t.Block+" "+t.Sum]
		}
	}
}

// declaredBlocks finds the blocks of a module that was damaged, as well as can
// be told.
func declaredBlocks(data []byte) []string {
	var names []string
	for _, m := range regexp.MustCompile(`\(\s*block\s+([A-Za-z0-9_]+)`).FindAllSubmatch(data, -1) {
		names = append(names, string(m[1]))
	}
	return names
}
