package selinux

import (
	"slices"
	"strings"

	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/profile/selinux/internal/cil"
)

// model is what a module says, without order and spelling.
type model struct {
	// block is the name of the one block the module is; empty for other
	// modules, whose statements are all in others.
	block     string
	templates map[string]*cil.Node
	rules     map[access]map[string]*cil.Node // permissions
	repeated  []repetition
	others    []string // statements that are none of these, as normal text, sorted
}

// access is what permissions are about.
type access struct{ target, class string }

func (a access) String() string { return a.target + " " + a.class }

type repetition struct {
	access     access
	permission *cil.Node
}

func modelOf(statements []*cil.Node) model {
	m := model{templates: map[string]*cil.Node{}, rules: map[access]map[string]*cil.Node{}}
	first := statements[0]
	if len(statements) == 1 && first.Items[0].IsSymbol("block") && len(first.Items) > 1 && isPlain(first.Items[1]) {
		m.block = first.Items[1].Text
		statements = first.Items[2:]
	}
	for _, s := range statements {
		if m.block == "" || !m.take(s) {
			m.others = append(m.others, s.String())
		}
	}
	slices.Sort(m.others)
	return m
}

// take adds a statement that is of the closed grammar's shape.
func (m *model) take(s *cil.Node) bool {
	head := s.Head()
	switch {
	case head == nil:
		return false
	case head.IsSymbol("blockinherit") && len(s.Items) == 2 && isPlain(s.Items[1]):
		m.templates[s.Items[1].Text] = s.Items[1]
		return true
	case head.IsSymbol("allow"):
		return m.takeRule(s)
	default:
		return false
	}
}

func (m *model) takeRule(s *cil.Node) bool {
	if len(s.Items) != 4 || !s.Items[1].IsSymbol(processName) || !isPlain(s.Items[2]) {
		return false
	}
	rule := s.Items[3]
	if !rule.List || len(rule.Items) != 2 || !isPlain(rule.Items[0]) || !rule.Items[1].List {
		return false
	}
	permissions := rule.Items[1].Items
	if slices.ContainsFunc(permissions, func(n *cil.Node) bool { return !isPlain(n) || keyword(n.Text) }) {
		return false
	}
	at := access{s.Items[2].Text, rule.Items[0].Text}
	if at.target == processName {
		at.target = "self" // the source is that type
	}
	if m.rules[at] == nil && len(permissions) > 0 {
		m.rules[at] = map[string]*cil.Node{}
	}
	for _, p := range permissions {
		if m.rules[at][p.Text] != nil {
			m.repeated = append(m.repeated, repetition{at, p})
			continue
		}
		m.rules[at][p.Text] = p
	}
	return true
}

func isPlain(n *cil.Node) bool { return !n.List && !n.Quoted && plainName(n.Text) }

// maxFindings bounds what a reviewer is shown.
const maxFindings = 100

// review collects what a reviewer should see, in the order of the text.
func (p *Profile) review() []profile.Finding {
	var found []located
	add := func(n *cil.Node, text string) { found = append(found, located{n, text}) }
	for name, n := range p.model.templates {
		if t, known := findTemplate(name); known && t.reaches != "" {
			add(n, "the template "+name+" "+t.reaches)
		}
	}
	first := map[string]*cil.Node{}
	for at, permissions := range p.model.rules {
		for name, n := range permissions {
			if why := risk(at.class, name); why != "" {
				add(n, at.class+" "+name+": "+why)
			}
			if earliest := first[at.target]; earliest == nil || n.Offset < earliest.Offset {
				first[at.target] = n
			}
		}
	}
	for target, n := range first {
		if target != "self" && target != socketName {
			add(n, "the type "+clip(target)+" is not of this profile: every matching policy has to list it in allowedTypes")
		}
	}
	for _, r := range p.model.repeated {
		add(r.permission, r.access.String()+" "+r.permission.Text+" is allowed already above")
	}
	slices.SortFunc(found, func(a, b located) int {
		if a.at.Offset != b.at.Offset {
			return a.at.Offset - b.at.Offset
		}
		return strings.Compare(a.text, b.text)
	})
	var out []profile.Finding
	for _, f := range found[:min(len(found), maxFindings)] {
		out = append(out, profile.Finding{Position: p.positionOf(f.at), Message: f.text})
	}
	if more := len(found) - maxFindings; more > 0 {
		out = append(out, profile.Finding{Message: "and more of these: the list ends here"})
	}
	return out
}

type located struct {
	at   *cil.Node
	text string
}

// risk says what a permission outside of the default is good for in an attack.
func risk(class, permission string) string {
	if why := neverPermitted(class, permission); why != "" {
		return why
	}
	switch {
	case permission == "execmem" || permission == "execstack" || permission == "execheap" || permission == "execmod":
		return "memory that was written can be executed"
	case permission == "ptrace":
		return "other processes can be read and changed"
	case permission == "mounton":
		return "what stands there can be covered by something else"
	case class == "capability2" || class == "cap_userns" || class == "cap2_userns" || class == "user_namespace" || class == "bpf":
		return "it opens kernel interfaces that containers do not have by default"
	default:
		return ""
	}
}
