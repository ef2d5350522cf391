package host

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/confine-dev/confine/pkg/durable"
	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/profile/internal/hostcheck"
)

const (
	recordMode   fs.FileMode = 0o600
	recordSuffix             = ".json"
	// maxRecord holds two units of the most that one artifact may hold, 8 MiB,
	// in base64, with the names of what is in them.
	maxRecord = 64 << 20
)

// record is what one owner has on this host. It is written before the kernel
// changes and again afterwards, so that a killed process leaves no profile
// loaded that nobody owns.
type record struct {
	Owner profile.Owner `json:"owner"`
	// Current is in force; nil where nothing is.
	Current *installed `json:"current,omitempty"`
	// Next is about to be loaded: some or all of its names may be there.
	Next *installed `json:"next,omitempty"`
	// Drop are names that are about to be taken away.
	Drop []string `json:"drop,omitempty"`
}

// installed is one unit, text included: it is loaded again from here after a
// reboot, when there is no network yet.
type installed struct {
	Digest digest.Digest `json:"digest"`
	Files  []text        `json:"files"` // sorted by name
}

type text struct {
	Name     string   `json:"name"`
	Data     []byte   `json:"data"`
	Profiles []loaded `json:"profiles"` // sorted by name
}

// loaded is one profile of a text, as it was compiled last.
type loaded struct {
	Name string `json:"name"`
	Sum  string `json:"sum"` // see compiled
}

// names are those of all profiles, children too.
func (in *installed) names() []string {
	var names []string
	if in == nil {
		return nil
	}
	for _, t := range in.Files {
		for _, p := range t.Profiles {
			names = append(names, p.Name)
		}
	}
	return names
}

func (in *installed) files() []profile.File {
	if in == nil {
		return nil
	}
	files := make([]profile.File, 0, len(in.Files))
	for _, t := range in.Files {
		files = append(files, profile.File{Name: t.Name, Data: t.Data})
	}
	return files
}

// text returns the text that has a profile of that name, and false where none has.
func (in *installed) text(name string) (text, bool) {
	if in == nil {
		return text{}, false
	}
	i := slices.IndexFunc(in.Files, func(t text) bool {
		return slices.ContainsFunc(t.Profiles, func(p loaded) bool { return p.Name == name })
	})
	if i < 0 {
		return text{}, false
	}
	return in.Files[i], true
}

// is reports whether in is the unit, file by file.
func (in *installed) is(u profile.Unit) bool {
	return in != nil && in.Digest == u.Digest && hostcheck.SameFiles(in.files(), u.Files)
}

// same reports whether both are the same unit, compiled to the same.
func (in *installed) same(other *installed) bool {
	return in != nil && in.Digest == other.Digest && slices.EqualFunc(in.Files, other.Files, func(a, b text) bool {
		return a.Name == b.Name && bytes.Equal(a.Data, b.Data) && slices.Equal(a.Profiles, b.Profiles)
	})
}

// names are all that the owner may have in the kernel.
func (r *record) names() []string {
	if r == nil {
		return nil
	}
	all := slices.Concat(r.Current.names(), r.Next.names(), r.Drop)
	slices.Sort(all)
	return slices.Compact(all)
}

// settled reports that nothing was begun and not finished.
func (r *record) settled() bool { return r.Next == nil && len(r.Drop) == 0 }

// fileOf is the name of an owner's record: names of owners can be longer than
// names of files.
func fileOf(o profile.Owner) string {
	sum := sha256.Sum256([]byte(o.String()))
	return hex.EncodeToString(sum[:]) + recordSuffix
}

// readRecords returns all records by owner, and the files that are none: damaged
// ones, and what others put there.
func readRecords(d *durable.Dir) (map[profile.Owner]*record, []string, error) {
	entries, err := d.ReadDir(".")
	if err != nil {
		return nil, nil, err
	}
	found, foreign := map[profile.Owner]*record{}, []string(nil)
	for _, e := range entries {
		r, err := readRecord(d, e.Name())
		if errors.Is(err, errRecord) || errors.Is(err, durable.ErrNotRegular) || errors.Is(err, durable.ErrTooLarge) {
			foreign = append(foreign, e.Name())
			continue
		}
		if err != nil {
			return nil, nil, err
		}
		found[r.Owner] = r
	}
	return found, foreign, nil
}

var errRecord = errors.New("no record of an owner")

func readRecord(d *durable.Dir, name string) (*record, error) {
	if path.Ext(name) != recordSuffix {
		return nil, errRecord
	}
	data, err := d.ReadFile(name, maxRecord)
	if err != nil {
		return nil, err
	}
	r := &record{}
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(r); err != nil {
		return nil, fmt.Errorf("%w: %w", errRecord, err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%w: more than one", errRecord)
	}
	if hostcheck.Owner(r.Owner) != nil || fileOf(r.Owner) != name {
		return nil, fmt.Errorf("%w: its owner is another", errRecord)
	}
	for _, in := range []*installed{r.Current, r.Next} {
		if in == nil {
			continue
		}
		unit := profile.Unit{Owner: r.Owner, Digest: in.Digest, Files: in.files()}
		if err := hostcheck.Unit(unit); err != nil {
			return nil, fmt.Errorf("%w: %w", errRecord, err)
		}
	}
	return r, nil
}

func writeRecord(d *durable.Dir, r *record) error {
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return d.WriteFile(fileOf(r.Owner), append(data, '\n'), recordMode)
}

// listed renders what is in force, with the references that the kernel has.
func (r *record) listed(kernel map[string]Loaded) profile.Installed {
	in := profile.Installed{Owner: r.Owner, Digest: r.Current.Digest}
	for _, t := range r.Current.Files {
		file := profile.InstalledFile{Name: t.Name}
		for _, p := range t.Profiles {
			// A pod names a profile; children are entered by rules alone.
			if _, there := kernel[p.Name]; there && !strings.Contains(p.Name, "//") {
				file.References = append(file.References, p.Name)
			}
		}
		in.Files = append(in.Files, file)
		in.References = append(in.References, file.References...)
	}
	slices.Sort(in.References)
	return in
}
