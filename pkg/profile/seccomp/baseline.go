package seccomp

import (
	_ "embed"
	"encoding/json"
	"slices"
	"sync"
)

// baselineJSON holds facts of containerd and golang.org/x/sys; its first line
// names the versions. A test compares it with those modules.
//
//go:generate go -C internal/gen run . -o ../../baseline.json
//go:embed baseline.json
var baselineJSON []byte

// baseline is what containerd's default profile allows without capabilities,
// and which architectures have which syscall.
type baseline struct {
	// rules maps GOARCH and syscall to the conditions under which it is
	// allowed; an empty conjunction is unconditional.
	rules map[string]map[string][]conjunction
	// special are the syscalls that only some architectures' rules name.
	special map[string]bool
	// tables maps a syscall to the GOARCHes that have it.
	tables map[string][]string
	// errnos maps names to numbers, as most architectures have them.
	errnos map[string]uint32
}

// theBaseline decodes baselineJSON once. Were it unreadable, it would be empty
// and so allow nothing; a test holds that it is not.
func theBaseline() *baseline { return decodedBaseline() }

var decodedBaseline = sync.OnceValue(decodeBaseline)

func decodeBaseline() *baseline {
	b := &baseline{rules: map[string]map[string][]conjunction{}, special: map[string]bool{}, tables: map[string][]string{}}
	var doc struct {
		Everywhere []Syscall            `json:"everywhere"`
		Profiles   map[string][]Syscall `json:"profiles"`
		Tables     []string             `json:"tables"`
		Syscalls   map[string][]int     `json:"syscalls"`
		Errnos     map[string]uint32    `json:"errnos"`
	}
	if json.Unmarshal(baselineJSON, &doc) != nil {
		return b
	}
	b.errnos = doc.Errnos
	shared := map[string]bool{}
	for _, s := range doc.Everywhere {
		for _, name := range s.Names {
			shared[name] = true
		}
	}
	for goarch, own := range doc.Profiles {
		rules := map[string][]conjunction{}
		for _, s := range append(slices.Clone(doc.Everywhere), own...) {
			for _, name := range s.Names {
				b.special[name] = !shared[name]
				if !s.Action.Denies() {
					rules[name] = append(rules[name], conjunctions(s.Args)...)
				}
			}
		}
		b.rules[goarch] = rules
	}
	for name, indexes := range doc.Syscalls {
		for _, i := range indexes {
			if i >= 0 && i < len(doc.Tables) {
				b.tables[name] = append(b.tables[name], doc.Tables[i])
			}
		}
	}
	return b
}

// lacks reports whether an architecture surely has no syscall of that name,
// so that rules on it have no effect there. Only the names that containerd
// itself gives to single architectures are asked for: for them the tables, or
// their being private to the others, settle it. modify_ldt has a number on
// PowerPC and MIPS too, which Linux never filled: sys_ni_syscall in
// arch/{powerpc,mips}/kernel/syscalls.
func (b *baseline) lacks(f archFacts, name string) bool {
	if !b.special[name] || f.names == "" {
		return false
	}
	return !slices.Contains(b.tables[name], f.names) || (name == "modify_ldt" && f.goarch != "amd64")
}

// known reports whether some architecture has, or containerd knows, the name.
func (b *baseline) known(name string) bool {
	if len(b.tables[name]) > 0 {
		return true
	}
	for _, rules := range b.rules {
		if len(rules[name]) > 0 {
			return true
		}
	}
	return false
}
