package policy

import (
	"slices"
	"strings"
)

// String writes the file in one canonical way. Comments are gone, conditions
// are written as rules of their own, and reading it again gives the same.
func (f *File) String() string {
	w := &writer{}
	for _, a := range f.ABIs {
		w.line("abi ", a.name(), ",")
	}
	for _, in := range f.Includes {
		w.line(in.String())
	}
	for _, a := range f.Variables {
		w.line(a.String())
	}
	for _, a := range f.Aliases {
		w.line(a.String())
	}
	for _, p := range f.Profiles {
		w.profile(p)
	}
	return w.text.String()
}

type writer struct {
	text   strings.Builder
	indent int
}

func (w *writer) line(parts ...string) {
	w.text.WriteString(strings.Repeat("  ", w.indent))
	for _, part := range parts {
		w.text.WriteString(part)
	}
	w.text.WriteByte('\n')
}

func (w *writer) profile(p *Profile) {
	w.line(p.Header(), " {")
	w.indent++
	for _, a := range p.ABIs {
		w.line("abi ", a.name(), ",")
	}
	for _, in := range p.Includes {
		w.line(in.String())
	}
	for _, r := range p.Rules {
		w.line(r.String())
	}
	for _, c := range p.Children {
		w.profile(c)
	}
	w.indent--
	w.line("}")
}

// Header renders what stands before the opening brace.
func (p *Profile) Header() string {
	parts := []string{}
	switch {
	case p.Hat:
		parts = append(parts, "hat")
	case p.Keyword:
		parts = append(parts, "profile")
	}
	parts = append(parts, written(p.Name))
	if p.Attachment != "" {
		parts = append(parts, written(p.Attachment))
	}
	if len(p.Xattrs) > 0 {
		parts = append(parts, Condition{Key: "xattrs", List: true, Inner: p.Xattrs}.String())
	}
	if len(p.Flags) > 0 {
		var flags []string
		for _, f := range p.Flags {
			flags = append(flags, f.String())
		}
		parts = append(parts, "flags=("+strings.Join(flags, ",")+")")
	}
	return strings.Join(parts, " ")
}

// String renders a flag, with its value where it has one.
func (f Flag) String() string {
	if f.Value == "" {
		return f.Name
	}
	return written(f.Name + "=" + f.Value)
}

// String renders the include without the old "#".
func (in Include) String() string {
	text := "include "
	if in.IfExists {
		text += "if exists "
	}
	switch in.Form {
	case Searched:
		return text + "<" + in.Path + ">"
	default:
		return text + `"` + in.Path + `"`
	}
}

func (a ABI) name() string {
	if a.Searched {
		return "<" + a.Path + ">"
	}
	return `"` + a.Path + `"`
}

// String renders the statement.
func (a ABI) String() string { return "abi " + a.name() }

// String renders the assignment.
func (a Assignment) String() string {
	return a.Name + " " + a.Op + " " + strings.Join(allWritten(a.Values), " ")
}

// String renders the alias.
func (a Alias) String() string { return "alias " + written(a.From) + " -> " + written(a.To) + "," }

// String renders the rule in one canonical way, without When.
func (r *Rule) String() string {
	var parts []string
	if r.Priority != "" {
		parts = append(parts, "priority="+r.Priority)
	}
	if r.Audit {
		parts = append(parts, "audit")
	}
	for _, qualifier := range []string{r.Mode, r.Owner} {
		if qualifier != "" {
			parts = append(parts, qualifier)
		}
	}
	return strings.Join(append(parts, r.Object()), " ") + ","
}

// Object renders the rule without its qualifiers and comma.
func (r *Rule) Object() string {
	switch r.Class {
	case FileClass:
		return r.File.text()
	case LinkClass:
		parts := []string{"link"}
		if r.File.Subset {
			parts = append(parts, "subset")
		}
		return strings.Join(append(parts, written(r.File.Path), "->", written(r.File.Target)), " ")
	case Rlimit:
		return "set rlimit " + r.Terms.Words[0] + " <= " + strings.Join(r.Terms.Words[1:], " ")
	default:
		return strings.Join(append([]string{string(r.Class)}, r.Terms.parts()...), " ")
	}
}

func (f *FileRule) text() string {
	if f.Bare {
		return "file"
	}
	var parts []string
	if f.Safety != "" {
		parts = append(parts, f.Safety)
	}
	links := f.Target != "" && strings.Contains(f.Access, "l") && !f.Aimless
	switch {
	case f.Subset:
		parts = append(parts, f.Access+f.Exec, "subset", writtenPath(f.Path))
	case links:
		parts = append(parts, f.Access+f.Exec, writtenPath(f.Path))
	default:
		parts = append(parts, writtenPath(f.Path), f.Access+f.Exec)
	}
	if f.Target != "" {
		parts = append(parts, "->", written(f.Target))
	}
	return strings.Join(parts, " ")
}

func (t *Terms) parts() []string {
	var parts []string
	if len(t.Access) == 1 {
		parts = append(parts, t.Access[0])
	} else if len(t.Access) > 1 {
		sorted := slices.Compact(slices.Sorted(slices.Values(t.Access)))
		parts = append(parts, "("+strings.Join(sorted, ", ")+")")
	}
	if t.Safety != "" {
		parts = append(parts, t.Safety)
	}
	for _, c := range t.Conditions {
		parts = append(parts, c.String())
	}
	parts = append(parts, allWritten(t.Words)...)
	if t.Arrow {
		parts = append(parts, "->", written(t.Target))
	}
	return parts
}

// String renders the condition.
func (c Condition) String() string {
	if len(c.Inner) > 0 {
		inner := make([]string, 0, len(c.Inner))
		for _, in := range c.Inner {
			inner = append(inner, in.String())
		}
		return c.Key + "=(" + strings.Join(inner, ", ") + ")"
	}
	values := strings.Join(allWritten(c.Values), ", ")
	switch {
	case c.In:
		return c.Key + " in (" + values + ")"
	case c.List:
		return c.Key + "=(" + values + ")"
	default:
		return c.Key + "=" + values
	}
}

func allWritten(texts []string) []string {
	out := make([]string, 0, len(texts))
	for _, text := range texts {
		out = append(out, written(text))
	}
	return out
}

// writtenPath renders a path outside of a list, where a comma between braces is
// a part of a word.
func writtenPath(path string) string {
	s := scanner{src: path + " "}
	if text, err := s.word(false); err == nil && text == path && isPath(path) && s.off == len(path) && !strings.ContainsAny(path, " \t") {
		return path
	}
	return written(path)
}

// written renders a text with quotes where its reader needs them.
func written(text string) string {
	if strings.ContainsAny(text, " \t!,#()=&") || text == "" {
		return `"` + text + `"`
	}
	return text
}
