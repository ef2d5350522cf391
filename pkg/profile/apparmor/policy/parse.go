package policy

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

type parser struct {
	scanner
	file                       *File
	profiles, rules, variables int
	includes                   int
	variable                   *regexp.Regexp
}

// Parse reads one policy text. The error is an *Error with the position.
func Parse(data []byte) (*File, error) {
	if err := checkText(data); err != nil {
		return nil, err
	}
	p := &parser{scanner: scanner{src: string(data)}, file: &File{}, variable: regexp.MustCompile(`\A(@\{[A-Za-z][A-Za-z0-9_]*\}|\$\{[A-Za-z][A-Za-z0-9_]*\}|\$[A-Za-z][A-Za-z0-9_]*)`)}
	if err := p.parseFile(); err != nil {
		return nil, err
	}
	return p.file, nil
}

func (p *parser) parseFile() *Error {
	for {
		p.between()
		var err *Error
		switch word := p.nextKeyword(); {
		case p.peek() == eof:
			if len(p.file.Profiles) == 0 {
				return p.fail(p.off, "the text holds no profile")
			}
			return nil
		case p.at("#include") || word == "include":
			err = p.include(&p.file.Includes)
		case word == "abi":
			err = p.inPreamble(func() *Error { return p.abi(&p.file.ABIs) })
		case word == "alias":
			err = p.inPreamble(p.alias)
		case p.assigns():
			err = p.inPreamble(p.assignment)
		default:
			err = p.topProfile()
		}
		if err != nil {
			return err
		}
	}
}

// inPreamble refuses what may only stand before the first profile.
func (p *parser) inPreamble(parse func() *Error) *Error {
	if len(p.file.Profiles) > 0 {
		return p.fail(p.off, "abi, aliases and variables stand before the first profile")
	}
	return parse()
}

func (p *parser) include(to *[]Include) *Error {
	in := Include{Pos: p.pos(p.off)}
	if p.includes++; p.includes > MaxIncludes {
		return p.fail(p.off, "more includes than the %d allowed", MaxIncludes)
	}
	start := p.off
	if p.peek() == '#' {
		p.off++
	}
	p.off += len("include")
	if c := p.peek(); !isBlank(c) && (c != '<' || p.src[start] != '#') {
		return p.fail(start, "a line that begins with #include is an include for apparmor_parser: put white space after the word")
	}
	p.blanks()
	if p.nextKeyword() == "if" {
		p.off += len("if")
		p.blanks()
		if p.nextKeyword() != "exists" {
			return p.fail(p.off, `expected "exists" after "include if"`)
		}
		p.off += len("exists")
		p.blanks()
		in.IfExists = true
	}
	path, form, err := p.fileName()
	if err != nil {
		return err
	}
	in.Path, in.Form = path, form
	*to = append(*to, in)
	return nil
}

// fileName reads the name of a file to include: <name>, "name" or name.
func (p *parser) fileName() (string, IncludeForm, *Error) {
	start := p.off
	switch {
	case p.peek() == '<':
		end := strings.IndexAny(p.src[p.off:], ">\n")
		if end < 0 || p.src[p.off+end] != '>' {
			return "", "", p.fail(start, "the file's name does not end with > on its line")
		}
		name := p.src[start+1 : start+end]
		p.off += end + 1
		if c := p.peek(); c != eof && !isSpace(c) && c != ',' {
			return "", "", p.fail(p.off, "put white space after the file's name")
		}
		if name == "" || strings.ContainsAny(name, " \t\"<\\") || len(name) > MaxWordBytes {
			return "", "", p.fail(start, "%s is no name of a file: neither blanks, quotes nor backslashes may stand in it", quote(name))
		}
		return name, Searched, nil
	case p.peek() == '"':
		name, err := p.quoted()
		return name, Quoted, err
	case p.peek() == eof || isSpace(p.peek()):
		return "", "", p.fail(start, "expected the name of a file, found %s", p.found())
	default:
		name, err := p.word(false)
		if err == nil && strings.ContainsAny(name, "<>") {
			err = p.fail(start, "%s is no name of a file", quote(name))
		}
		return name, Plain, err
	}
}

func (p *parser) abi(to *[]ABI) *Error {
	abi := ABI{Pos: p.pos(p.off)}
	if p.includes++; p.includes > MaxIncludes {
		return p.fail(p.off, "more includes than the %d allowed", MaxIncludes)
	}
	p.off += len("abi")
	if err := p.within(); err != nil {
		return err
	}
	path, form, err := p.fileName()
	if err != nil {
		return err
	}
	abi.Path, abi.Searched = path, form == Searched
	*to = append(*to, abi)
	return p.comma()
}

func (p *parser) alias() *Error {
	alias := Alias{Pos: p.pos(p.off)}
	p.off += len("alias")
	err := p.within()
	if err != nil {
		return err
	}
	if alias.From, err = p.path(); err != nil {
		return err
	}
	arrow, err := p.arrow()
	if err != nil {
		return err
	}
	if !arrow {
		return p.fail(p.off, "expected -> in the alias, found %s", p.found())
	}
	if alias.To, err = p.path(); err != nil {
		return err
	}
	if len(p.file.Aliases) >= MaxVariables {
		return p.fail(p.off, "more aliases than the %d allowed", MaxVariables)
	}
	p.file.Aliases = append(p.file.Aliases, alias)
	return p.comma()
}

// path reads a glob that begins with a slash or a variable.
func (p *parser) path() (string, *Error) {
	start := p.off
	text, err := p.text(false)
	if err != nil {
		return "", err
	}
	if !isPath(text) {
		return "", p.fail(start, "expected a path that begins with / or @{VARIABLE}, found %s", quote(text))
	}
	return text, nil
}

func isPath(text string) bool { return strings.HasPrefix(text, "/") || strings.HasPrefix(text, "@{") }

// assigns reports whether a variable stands next that is given values.
func (p *parser) assigns() bool {
	name := p.variable.FindString(p.src[p.off:min(len(p.src), p.off+MaxWordBytes)])
	if name == "" {
		return false
	}
	rest := strings.TrimLeft(p.src[p.off+len(name):], " \t")
	return name[0] == '$' || operator(rest) != ""
}

func operator(text string) string {
	for _, op := range []string{"=", "+=", "?=", ":="} {
		if strings.HasPrefix(text, op) {
			return op
		}
	}
	return ""
}

func (p *parser) assignment() *Error {
	a := Assignment{Pos: p.pos(p.off)}
	if p.variables++; p.variables > MaxVariables {
		return p.fail(p.off, "more variables than the %d allowed", MaxVariables)
	}
	a.Name = p.variable.FindString(p.src[p.off:min(len(p.src), p.off+MaxWordBytes)])
	p.off += len(a.Name)
	p.blanks()
	a.Op = operator(p.src[p.off:])
	if a.Op == "" {
		return p.fail(p.off, "expected = or += after the variable, found %s", p.found())
	}
	p.off += len(a.Op)
	values, err := p.values()
	if err != nil {
		return err
	}
	a.Values = values
	if a.Name[0] == '$' {
		a.Name = "${" + strings.Trim(a.Name, "${}") + "}"
		if len(values) != 1 || (values[0] != "true" && values[0] != "false") {
			return p.fail(p.off, "%s is true or false", a.Name)
		}
	}
	p.file.Variables = append(p.file.Variables, a)
	return nil
}

// values reads the values of a variable: to the end of the line, which a
// backslash at its very end moves on.
func (p *parser) values() ([]string, *Error) {
	var values []string
	for {
		p.blanks()
		switch c := p.peek(); {
		case p.at("\\\n"):
			p.off += 2
		case c == eof || c == '\n' || c == '#':
			if p.at("#include") {
				return nil, p.fail(p.off, "an include may not stand behind the values of a variable")
			}
			if len(values) == 0 {
				return nil, p.fail(p.off, "a variable needs a value")
			}
			p.line()
			return values, nil
		case len(values) >= MaxValues:
			return nil, p.fail(p.off, "more values than the %d allowed", MaxValues)
		case p.at(`""`):
			p.off += 2
			values = append(values, "")
		default:
			value, err := p.text(false)
			if err != nil {
				return nil, err
			}
			if p.peek() == ',' {
				return nil, p.fail(p.off, "no comma stands between or after the values of a variable")
			}
			values = append(values, value)
		}
	}
}

func (p *parser) topProfile() *Error {
	profile := &Profile{Pos: p.pos(p.off)}
	word, start := p.nextKeyword(), p.off
	switch c := p.peek(); {
	case word == "profile" || word == "hat":
		p.off += len(word)
		profile.Keyword, profile.Hat = true, word == "hat"
	case c == '^':
		p.off++
		profile.Keyword, profile.Hat = true, true
	case c != '/' && c != '"' && c != ':' && !p.at("@{"):
		return p.fail(start, "expected a profile, found %s", p.found())
	}
	if err := p.profile(profile, 0); err != nil {
		return err
	}
	if !profile.Keyword && !strings.HasPrefix(profile.Name, "/") && !strings.HasPrefix(profile.Name, "@{") && !strings.HasPrefix(profile.Name, ":") {
		return &Error{profile.Pos, "a profile needs the keyword \"profile\" before its name"}
	}
	if err := p.onlyOnce(p.file.Profiles, profile); err != nil {
		return err
	}
	p.file.Profiles = append(p.file.Profiles, profile)
	return nil
}

func (p *parser) onlyOnce(siblings []*Profile, profile *Profile) *Error {
	if p.profiles++; p.profiles > MaxProfiles {
		return &Error{profile.Pos, fmt.Sprintf("more profiles than the %d allowed", MaxProfiles)}
	}
	same := func(o *Profile) bool { return o.Name == profile.Name && o.When == profile.When }
	if slices.ContainsFunc(siblings, same) {
		return &Error{profile.Pos, "the profile " + quote(profile.Name) + " stands here twice"}
	}
	return nil
}

// profile reads a profile from behind its keyword.
func (p *parser) profile(to *Profile, depth int) *Error {
	if depth >= MaxDepth {
		return p.fail(p.off, "profiles are nested more than %d deep", MaxDepth)
	}
	if to.Keyword && p.src[p.off-1] != '^' && !isBlank(p.peek()) {
		return p.fail(p.off, "expected the profile's name on the same line, found %s", p.found())
	}
	p.blanks()
	if isSpace(p.peek()) {
		return p.fail(p.off, "expected the profile's name on the same line, found %s", p.found())
	}
	name, err := p.headerText("the profile's name")
	if err != nil {
		return err
	}
	to.Name = name
	if err := p.header(to); err != nil {
		return err
	}
	if c := p.peek(); c != eof && !isSpace(c) && c != '}' && c != '#' {
		return p.fail(p.off, "put white space after the opening brace")
	}
	return p.body(to, "", depth)
}

func (p *parser) headerText(what string) (string, *Error) {
	start := p.off
	text, err := p.text(false)
	if err != nil {
		return "", err
	}
	if p.peek() == ',' || strings.HasPrefix(text, "{") || strings.HasPrefix(text, "(") {
		return "", p.fail(start, "expected %s, found %s", what, p.wordFrom(start))
	}
	return text, nil
}

// header reads what stands between a profile's name and its opening brace.
func (p *parser) header(to *Profile) *Error {
	if err := p.within(); err != nil {
		return err
	}
	if c := p.peek(); c == '/' || c == '"' || p.at("@{") {
		start := p.off
		attachment, err := p.headerText("an attachment")
		if err != nil {
			return err
		}
		if !isPath(attachment) {
			return p.fail(start, "an attachment begins with / or @{VARIABLE}")
		}
		to.Attachment = attachment
	}
	if err := p.within(); err != nil {
		return err
	}
	if p.nextKeyword() == "xattrs" {
		xattrs, err := p.condition("xattrs", nil)
		if err != nil {
			return err
		}
		to.Xattrs = xattrs.Inner
	}
	if err := p.within(); err != nil {
		return err
	}
	if p.nextKeyword() == "flags" {
		p.off += len("flags")
		p.blanks()
		if err := p.expect('=', "after flags"); err != nil {
			return err
		}
		if err := p.within(); err != nil {
			return err
		}
		if p.peek() != '(' {
			return p.fail(p.off, "expected ( after flags=, found %s", p.found())
		}
	}
	if p.peek() == '(' {
		if err := p.flags(to); err != nil {
			return err
		}
	}
	return p.expect('{', "to open the profile")
}

func (p *parser) flags(to *Profile) *Error {
	p.off++
	items, err := p.list(func() (item, *Error) {
		start := p.off
		text, err := p.text(true)
		return item{start, text}, err
	})
	if err != nil {
		return err
	}
	for _, it := range items {
		flag := Flag{Pos: p.pos(it.off)}
		flag.Name, flag.Value, _ = strings.Cut(it.text, "=")
		if takes, known := knownFlags()[flag.Name]; !known || takes != (flag.Value != "") {
			return p.fail(it.off, "%s is no flag of a profile", quote(it.text))
		}
		if i := slices.IndexFunc(to.Flags, func(f Flag) bool { return f.Name == flag.Name }); i < 0 {
			to.Flags = append(to.Flags, flag)
		} else if to.Flags[i].Value != flag.Value { // Debian's own profiles repeat flags
			return p.fail(it.off, "the flag %s stands here twice, with different values", flag.Name)
		}
	}
	if len(to.Flags) == 0 {
		return p.fail(p.off, "a list of flags may not be empty")
	}
	return nil
}

type item struct {
	off  int
	text string
}

// list reads items that blanks and commas part, and the closing parenthesis.
func (p *parser) list(read func() (item, *Error)) ([]item, *Error) {
	var items []item
	for {
		for isSpace(p.peek()) || p.peek() == ',' {
			p.off++
		}
		switch {
		case p.peek() == ')':
			p.off++
			return items, nil
		case p.peek() == eof:
			return nil, p.fail(p.off, "expected a closing parenthesis, found the end of the text")
		case p.peek() == '#':
			return nil, p.fail(p.off, "a comment may not stand inside of a statement: write it before or after")
		case len(items) >= MaxValues:
			return nil, p.fail(p.off, "more values than the %d allowed", MaxValues)
		}
		it, err := read()
		if err != nil {
			return nil, err
		}
		items = append(items, it)
	}
}

// knownFlags maps each flag to whether it takes a value (AppArmor 4.1).
func knownFlags() map[string]bool {
	return map[string]bool{
		"enforce": false, "complain": false, "kill": false, "unconfined": false, "default_allow": false, "prompt": false,
		"audit": false, "hat": false, "debug": false, "mediate_deleted": false, "delegate_deleted": false,
		"attach_disconnected": false, "no_attach_disconnected": false, "attach_disconnected.path": true,
		"attach_disconnected.ipc": false, "chroot_attach": false, "chroot_no_attach": false, "chroot_relative": false,
		"namespace_relative": false, "interruptible": false, "kill.signal": true, "error": true, "path": true,
	}
}

// IsFlag reports whether name is a flag of profiles that this reader knows.
func IsFlag(name string) bool {
	_, known := knownFlags()[name]
	return known
}
