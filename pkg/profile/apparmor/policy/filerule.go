package policy

import (
	"slices"
	"strings"
)

// fileRule reads a rule about files: path first or access first.
func (p *parser) fileRule(r *Rule) *Error {
	f := &FileRule{}
	r.Class, r.File = FileClass, f
	if word := p.nextKeyword(); word == "safe" || word == "unsafe" {
		f.Safety = word
		p.off += len(word)
		if err := p.within(); err != nil {
			return err
		}
	}
	start := p.off
	pathFirst := p.peek() == '/' || p.peek() == '"' || p.at("@{")
	var err *Error
	if pathFirst {
		err = p.both(func() *Error { return p.filePath(f) }, func() *Error { return p.access(r) })
	} else {
		err = p.both(func() *Error { return p.access(r) }, func() *Error { return p.subset(f) }, func() *Error { return p.filePath(f) })
	}
	if err != nil {
		return err
	}
	if err := p.target(f); err != nil {
		return err
	}
	f.Aimless = pathFirst && f.Target != "" && f.Exec == ""
	return p.agrees(r, start)
}

// both reads parts one after the other, white space between them.
func (p *parser) both(parts ...func() *Error) *Error {
	for i, part := range parts {
		if i > 0 {
			if err := p.within(); err != nil {
				return err
			}
		}
		if err := part(); err != nil {
			return err
		}
	}
	return nil
}

func (p *parser) filePath(f *FileRule) (err *Error) {
	f.Path, err = p.path()
	return err
}

func (p *parser) subset(f *FileRule) *Error {
	switch {
	case p.nextKeyword() == "subset":
		p.off += len("subset")
	case p.at("<="):
		p.off += len("<=")
	default:
		return nil
	}
	f.Subset = true
	return nil
}

func (p *parser) target(f *FileRule) *Error {
	arrow, err := p.arrow()
	if err != nil || !arrow {
		return err
	}
	start := p.off
	if f.Target, err = p.text(false); err != nil {
		return err
	}
	if strings.HasPrefix(f.Target, ",") {
		return p.fail(start, "expected a name after ->")
	}
	return nil
}

// agrees holds the parts of a file rule against each other.
func (p *parser) agrees(r *Rule, start int) *Error {
	f := r.File
	links := strings.Contains(f.Access, "l")
	switch {
	case f.Subset && (f.Access != "l" || f.Exec != ""):
		return p.fail(start, "subset is for links only")
	case f.Safety != "" && f.Exec == "":
		return p.fail(start, "%q needs a way to execute, such as px", f.Safety)
	case f.Exec == "x" && !r.Denies():
		return p.fail(start, "x alone is for deny rules only: say how to execute, such as ix or px")
	case f.Exec != "" && f.Exec != "x" && r.Denies():
		return p.fail(start, "a deny rule takes x alone, not %s", f.Exec)
	case f.Target != "" && f.Exec == "" && !links:
		return p.fail(start, "-> needs a way to execute or a link")
	case f.Target != "" && f.Exec != "" && links:
		return p.fail(start, "-> after both l and %s cannot be told apart", f.Exec)
	case f.Target != "" && links && !isPath(f.Target):
		return p.fail(start, "the target of a link is a path")
	case f.Target != "" && strings.EqualFold(f.Exec, "ix"):
		return p.fail(start, "ix has no target")
	}
	return nil
}

// access reads the letters of a file rule.
func (p *parser) access(r *Rule) *Error {
	start := p.off
	word := p.nextKeyword()
	if !isAccess(word) {
		return p.fail(start, "expected access to files such as rw, found %s", p.found())
	}
	p.off += len(word)
	letters, exec := splitAccess(word)
	if exec == "?" {
		return p.fail(start, "%s names two ways to execute", quote(word))
	}
	if strings.Contains(letters, "a") && strings.Contains(letters, "w") {
		return p.fail(start, "%s holds a and w, which exclude each other", quote(word))
	}
	r.File.Access, r.File.Exec = letters, exec
	return nil
}

// isAccess reports whether word consists of letters of access alone.
func isAccess(word string) bool {
	if word == "" || len(word) > 32 {
		return false
	}
	for rest := word; rest != ""; {
		n := accessPart(rest)
		if n == 0 {
			return false
		}
		rest = rest[n:]
	}
	return true
}

// accessPart returns how many letters of text are one kind of access. Upper
// case is for ways to execute only.
func accessPart(text string) int {
	if strings.IndexByte("rwalkmx", text[0]) >= 0 {
		return 1
	}
	for _, way := range execWays() {
		if strings.HasPrefix(text, way) {
			return len(way)
		}
	}
	return 0
}

// execWays are the ways to execute, longer ones first.
func execWays() []string {
	return []string{
		"pix", "Pix", "cix", "Cix", "pux", "Pux", "PUx", "pUx", "cux", "Cux", "CUx", "cUx",
		"ix", "ux", "Ux", "px", "Px", "cx", "Cx",
	}
}

// splitAccess returns the letters in their order, each once, and the way to
// execute; "?" for two different ones.
func splitAccess(word string) (letters, exec string) {
	has := map[string]bool{}
	for word != "" {
		n := accessPart(word)
		part := word[:n]
		word = word[n:]
		switch {
		case n == 1 && part != "x":
			has[part] = true
		case exec != "" && exec != part:
			return "", "?"
		default:
			exec = part
		}
	}
	for _, letter := range []string{"r", "w", "a", "l", "k", "m"} {
		if has[letter] {
			letters += letter
		}
	}
	return letters, exec
}

func (p *parser) linkRule(r *Rule) *Error {
	f := &FileRule{Access: "l"}
	r.Class, r.File = LinkClass, f
	p.off += len("link")
	err := p.both(func() *Error { return nil }, func() *Error { return p.subset(f) }, func() *Error { return p.filePath(f) })
	if err != nil {
		return err
	}
	start := p.off
	if err := p.target(f); err != nil {
		return err
	}
	if !isPath(f.Target) {
		return p.fail(start, "a link rule needs -> and a path")
	}
	return nil
}

// rlimit reads "set rlimit NAME <= VALUE [UNIT]" up to its comma.
func (p *parser) rlimit(r *Rule) *Error {
	start := p.off
	if r.Audit || r.Mode != "" || r.Owner != "" || r.Priority != "" {
		return p.fail(start, "a limit on resources takes no qualifiers")
	}
	rest := p.src[p.off:min(len(p.src), p.off+256)]
	m := rlimitPattern().FindStringSubmatch(rest)
	if m == nil || !slices.Contains(rlimits(), m[1]) {
		return p.fail(start, "expected set rlimit NAME <= VALUE, found %s", p.found())
	}
	p.off += len(m[0])
	r.Class = Rlimit
	r.Terms.Words = []string{m[1], m[2]}
	if m[3] != "" {
		r.Terms.Words = append(r.Terms.Words, m[3])
	}
	return nil
}
