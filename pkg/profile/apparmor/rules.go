package apparmor

import (
	"slices"
	"strings"

	"github.com/confine-dev/confine/pkg/profile/apparmor/policy"
)

// rule judges one rule that allows something. What a file rule may write is
// judged for the whole profile at once, with its deny rules.
func (j *judge) rule(name string, p *policy.Profile, r *policy.Rule) {
	if r.Priority != "" {
		j.object(r.Pos, Priority, "a priority can put %s above deny rules", shown(r.Object()))
	}
	if r.Mode == "prompt" {
		j.object(r.Pos, Prompt, "%s leaves the decision to somebody else", shown(r.String()))
	}
	switch r.Class {
	case policy.FileClass:
		j.exec(p, r)
	case policy.Capability:
		j.capability(r)
	case policy.Ptrace:
		if !isPassive(r.Terms.Access) && !isOwnPeer(r.Terms.Conditions, name) {
			j.object(r.Pos, Ptrace, "%s allows to trace or read processes of other profiles", shown(r.String()))
		}
	case policy.LinkClass, policy.Network, policy.Signal, policy.DBus, policy.Unix, policy.Rlimit, policy.Mqueue:
		// These reach no further than namespaces, file rules and the peers' own profiles allow.
	default:
		// RuleClass and policy.Class share the words of all other classes.
		j.object(r.Pos, RuleClass(r.Class), "%s is forbidden by default", shown(r.String()))
	}
}

// isPassive reports whether others do what a ptrace rule allows.
func isPassive(access []string) bool {
	return len(access) > 0 && !slices.ContainsFunc(access, func(w string) bool { return w != "readby" && w != "tracedby" })
}

// isOwnPeer reports whether a rule is about processes of the same profile only,
// as abstractions/base and the defaults of runtimes have it.
func isOwnPeer(conditions []policy.Condition, name string) bool {
	if len(conditions) != 1 || conditions[0].Key != "peer" || len(conditions[0].Values) != 1 {
		return false
	}
	peer := conditions[0].Values[0]
	return peer == "@{profile_name}" || peer == name
}

// runtimeCapabilities are what containerd and Docker give to every container.
func runtimeCapabilities() []string {
	return strings.Fields("audit_write chown dac_override fowner fsetid kill mknod net_bind_service net_raw setfcap setgid setpcap setuid sys_chroot")
}

func (j *judge) capability(r *policy.Rule) {
	if len(r.Terms.Words) == 0 {
		j.object(r.Pos, AnyCapability, "a capability rule without names allows all capabilities")
	}
	for _, name := range r.Terms.Words {
		if !slices.Contains(runtimeCapabilities(), name) && !slices.Contains(j.capabilities, name) {
			j.object(r.Pos, Capabilities, "the capability %s is not among those that runtimes give to containers", name)
		}
	}
}

// exec judges how a rule executes. ix stays in the profile; everything else
// leaves it, and may only go to a profile of the same text.
func (j *judge) exec(p *policy.Profile, r *policy.Rule) {
	f := r.File
	way := strings.ToLower(f.Exec)
	switch {
	case way == "" || way == "ix":
		return
	case strings.Contains(way, "u"):
		j.object(r.Pos, ExecUnconfined, "%s executes without any profile", shown(r.String()))
		if way == "ux" {
			return
		}
	}
	if f.Target == "" {
		if way[0] == 'p' {
			j.object(r.Pos, ExecOther, "%s changes to whatever profile of the host attaches to the path", shown(r.String()))
		}
		return
	}
	if strings.ContainsAny(f.Target, "&:@*?[]{}\\^ ") {
		j.object(r.Pos, Stacking, "the target of %s is no plain name of a profile", shown(r.String()))
		return
	}
	known := way[0] == 'p' && j.names[f.Target] ||
		way[0] == 'c' && slices.ContainsFunc(p.Children, func(c *policy.Profile) bool { return c.Name == f.Target && c.When == "" })
	if !known {
		j.object(r.Pos, ExecOther, "the target of %s is no profile of this text", shown(r.String()))
	}
}
