package host

import (
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/profile/selinux/host/semodule"
)

// survey is what the policy store has at Confine's priority.
type survey struct {
	units map[profile.Owner]*record
	// listed are all modules by name.
	listed map[string]semodule.Listed
	// foreign are the modules that are no unit's, with the blocks in them.
	foreign map[string][]string
}

// survey reads the store. An error means that it could not be read.
func (h *Host) survey(ctx context.Context) (*survey, error) {
	listed, err := h.store.List(ctx)
	if err != nil {
		return nil, err
	}
	if err := h.unpack(ctx, listed); err != nil {
		return nil, err
	}
	s := &survey{units: map[profile.Owner]*record{}, listed: map[string]semodule.Listed{}, foreign: map[string][]string{}}
	for _, l := range listed {
		s.listed[l.Name] = l
		data := h.read[keyOf(l)]
		r, err := decode(l.Name, data)
		if err != nil || checksumOf(data) != l.Checksum {
			s.foreign[l.Name] = declaredBlocks(data)
			continue
		}
		s.units[r.Owner] = r
	}
	resolve(s.units)
	return s, nil
}

// unpack makes sure that h.read has exactly the modules that are listed.
func (h *Host) unpack(ctx context.Context, listed []semodule.Listed) error {
	read := map[semodule.Listed][]byte{}
	var names []string
	for _, l := range listed {
		if data, ok := h.read[keyOf(l)]; ok {
			read[keyOf(l)] = data
		} else if strings.HasPrefix(l.Name, namePrefix) { // others may be in other languages
			names = append(names, l.Name)
		}
	}
	found, err := h.store.Extract(ctx, names)
	if err != nil {
		return err
	}
	for _, l := range listed {
		if data, ok := found[l.Name]; ok {
			read[keyOf(l)] = data
		}
	}
	h.read = read
	return nil
}

// keyOf is what the bytes of a module depend on.
func keyOf(l semodule.Listed) semodule.Listed {
	return semodule.Listed{Name: l.Name, Checksum: l.Checksum}
}

// as reports whether the store has a module with these bytes in the policy.
func (s *survey) as(name string, data []byte) bool {
	l, there := s.listed[name]
	return there && !l.Disabled && l.Checksum == checksumOf(data)
}

func checksumOf(data []byte) string { return "sha256:" + sumOf(data) }

// blocksOf are those of an owner's module, whether it is whole or damaged.
func (s *survey) blocksOf(o profile.Owner) []string {
	if r := s.units[o]; r != nil {
		return r.blocks()
	}
	return s.foreign[moduleName(o)]
}

// holder returns another owner that has a block, or nil.
func holder(units map[profile.Owner]*record, o profile.Owner, block string) *record {
	for _, other := range units {
		if _, has := other.text(block); has && other.Owner != o {
			return other
		}
	}
	return nil
}

func sortedKeys[V any](m map[string]V) []string {
	return slices.SortedFunc(maps.Keys(m), strings.Compare)
}
