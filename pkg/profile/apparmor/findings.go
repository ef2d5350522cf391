package apparmor

import (
	"fmt"
	"slices"
	"strings"

	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/profile/apparmor/policy"
)

const maxFindings = 200

// finder collects what a reviewer should see.
type finder struct {
	found []profile.Finding
	more  int
}

func (f *finder) add(at policy.Pos, format string, args ...any) {
	if len(f.found) >= maxFindings {
		f.more++
		return
	}
	f.found = append(f.found, profile.Finding{Position: at.String(), Message: fmt.Sprintf(format, args...)})
}

// Findings are what a reviewer should see though the text is valid: what is
// not enforced, what is wider than it looks, and what is likely a mistake.
func (p *Profile) Findings() []profile.Finding {
	f := &finder{}
	if len(p.Policy.ABIs) == 0 {
		f.add(policy.Pos{Line: 1, Column: 1}, "no abi is stated: network, unix and newer rules may not be enforced, state abi <abi/3.0>,")
	}
	assigned := map[string]bool{}
	for _, a := range p.Policy.Variables {
		if a.Op == "+=" && !assigned[a.Name] {
			f.add(a.Pos, "%s is added to, so that its meaning depends on the host's tunables", a.Name)
		}
		assigned[a.Name] = true
	}
	walk(p.Policy, f.profile)
	if f.more > 0 {
		f.found = append(f.found, profile.Finding{Message: fmt.Sprintf("and %d more", f.more)})
	}
	return f.found
}

func (f *finder) profile(name string, p *policy.Profile) {
	for _, flag := range p.Flags {
		switch flag.Name {
		case "complain":
			f.add(flag.Pos, "the profile %s is in complain mode: nothing is enforced", shown(name))
		case "unconfined", "default_allow":
			f.add(flag.Pos, "the profile %s allows everything that no rule denies", shown(name))
		}
	}
	for _, in := range p.Includes {
		if in.IfExists {
			f.add(in.Pos, "%s: what the profile allows depends on a file that the host may have", in)
		}
	}
	if len(p.Rules)+len(p.Includes)+len(p.Children) == 0 {
		f.add(p.Pos, "the profile %s has no rules: nothing is allowed", shown(name))
	}
	seen := map[string]bool{}
	for _, r := range p.Rules {
		if text := r.When + r.String(); seen[text] {
			f.add(r.Pos, "%s stands here twice", shown(r.String()))
		} else {
			seen[text] = true
		}
		if !r.Denies() {
			f.rule(r)
		}
	}
}

func (f *finder) rule(r *policy.Rule) {
	t := &r.Terms
	switch r.Class {
	case policy.FileClass:
		f.file(r)
	case policy.Capability:
		for _, name := range t.Words {
			if slices.Contains([]string{"sys_admin", "sys_module", "sys_ptrace", "sys_rawio", "mac_admin", "mac_override", "bpf", "dac_read_search"}, name) {
				f.add(r.Pos, "the capability %s is nearly as much as root on the host", name)
			}
		}
	case policy.Network:
		if len(t.Words) == 0 && len(t.Conditions) == 0 {
			f.add(r.Pos, "network without a family allows raw and packet sockets too")
		}
	case policy.Signal, policy.Unix, policy.DBus, policy.Ptrace:
		if len(t.Conditions) == 0 {
			f.add(r.Pos, "%s is for every peer", shown(r.String()))
		}
		for _, c := range t.Conditions {
			if slices.Contains(c.Values, "unconfined") || slices.ContainsFunc(c.Inner, func(in policy.Condition) bool { return slices.Contains(in.Values, "unconfined") }) {
				f.add(r.Pos, "%s reaches unconfined processes", shown(r.String()))
			}
		}
	}
	if r.When != "" {
		f.add(r.Pos, "%s holds only %s, which the host's variables decide", shown(r.String()), shown(r.When))
	}
}

func (f *finder) file(r *policy.Rule) {
	file := r.File
	if file.Aimless {
		f.add(r.Pos, "%s links to any file: parsers look at the target only where the access stands before the path", shown(r.String()))
	}
	writable := strings.ContainsAny(file.Access, "wa")
	switch {
	case file.Bare:
		f.add(r.Pos, "file, allows to read, write and execute every file")
	case writable && (strings.HasPrefix(file.Path, "/**") || strings.HasPrefix(file.Path, "/{**")):
		f.add(r.Pos, "%s allows to write every file", shown(r.String()))
	case writable && (file.Exec != "" || strings.Contains(file.Access, "m")):
		f.add(r.Pos, "%s allows to write what it allows to execute or map", shown(r.String()))
	}
	if strings.HasPrefix(file.Exec, "p") || strings.HasPrefix(file.Exec, "c") || file.Safety == "unsafe" {
		f.add(r.Pos, "%s keeps variables such as LD_PRELOAD for the program executed: Px and Cx clear them", shown(r.String()))
	}
}
