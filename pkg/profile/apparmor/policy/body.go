package policy

import (
	"regexp"
	"strings"
)

// body reads rules up to the closing brace. when is the condition they are in.
func (p *parser) body(to *Profile, when string, depth int) *Error {
	for {
		p.between()
		word := p.nextKeyword()
		var err *Error
		switch {
		case p.peek() == eof:
			return p.fail(p.off, "the profile %s has no closing brace", quote(to.Name))
		case p.peek() == '}':
			p.off++
			if c := p.peek(); c != eof && !isSpace(c) && c != '}' && c != '#' {
				return p.fail(p.off, "put white space after the closing brace")
			}
			return nil
		case p.at("#include") || word == "include":
			err = p.include(&to.Includes)
		case word == "abi":
			err = p.abi(&to.ABIs)
		case word == "if":
			err = p.conditional(to, when, depth)
		case word == "profile" || word == "hat" || p.peek() == '^':
			err = p.child(to, when, depth, word)
		default:
			err = p.rule(to, when)
		}
		if err != nil {
			return err
		}
	}
}

func (p *parser) child(to *Profile, when string, depth int, word string) *Error {
	child := &Profile{Pos: p.pos(p.off), Keyword: true, Hat: word != "profile", When: when}
	p.off += max(len(word), 1)
	if err := p.profile(child, depth+1); err != nil {
		return err
	}
	if err := p.onlyOnce(to.Children, child); err != nil {
		return err
	}
	to.Children = append(to.Children, child)
	return nil
}

// conditional reads if, else if and else. The rules of every branch are kept:
// which one holds depends on variables of the host.
func (p *parser) conditional(to *Profile, when string, depth int) *Error {
	if depth >= MaxDepth {
		return p.fail(p.off, "conditions are nested more than %d deep", MaxDepth)
	}
	start := p.off
	p.off += len("if")
	condition, err := p.expression()
	if err != nil {
		return err
	}
	if when != "" {
		when += " and "
	}
	if len(when)+len(condition) > MaxWordBytes {
		return p.fail(start, "a condition is longer than the %d bytes allowed", MaxWordBytes)
	}
	if err := p.body(to, when+"if "+condition, depth+1); err != nil {
		return err
	}
	p.between()
	if p.nextKeyword() != "else" {
		return nil
	}
	p.off += len("else")
	if err := p.within(); err != nil {
		return err
	}
	when += "unless " + condition
	if p.nextKeyword() == "if" {
		return p.conditional(to, when, depth+1)
	}
	if err := p.expect('{', "after else"); err != nil {
		return err
	}
	return p.body(to, when, depth+1)
}

// expression reads a condition and its opening brace.
func (p *parser) expression() (string, *Error) {
	known := regexp.MustCompile(`\A([A-Za-z0-9_./-]+|@\{[A-Za-z][A-Za-z0-9_]*\}|\$\{[A-Za-z][A-Za-z0-9_]*\}|\$[A-Za-z][A-Za-z0-9_]*|==|!=|<=|>=|<|>|\(|\))`)
	var words []string
	for depth := 0; ; {
		if err := p.within(); err != nil {
			return "", err
		}
		word := known.FindString(p.src[p.off:min(len(p.src), p.off+MaxWordBytes)])
		switch {
		case p.peek() == '{' && len(words) > 0 && depth == 0:
			p.off++
			return strings.Join(words, " "), nil
		case word == "" || len(words) >= MaxValues:
			return "", p.fail(p.off, "this condition cannot be read at %s", p.found())
		case word == "(":
			depth++
		case word == ")":
			depth--
		}
		if depth < 0 || depth > MaxDepth {
			return "", p.fail(p.off, "the parentheses of this condition do not match")
		}
		words = append(words, word)
		p.off += len(word)
	}
}

// rule reads the qualifiers of a rule and the rule itself.
func (p *parser) rule(to *Profile, when string) *Error {
	if p.rules++; p.rules > MaxRules {
		return p.fail(p.off, "more rules than the %d allowed", MaxRules)
	}
	r := &Rule{Pos: p.pos(p.off), When: when}
	if err := p.qualifiers(r); err != nil {
		return err
	}
	if err := p.class(r); err != nil {
		return err
	}
	to.Rules = append(to.Rules, r)
	return p.comma()
}

// qualifiers reads priority, audit, mode and owner, which stand in this order.
func (p *parser) qualifiers(r *Rule) *Error {
	for stage := 0; ; {
		word, start := p.nextKeyword(), p.off
		place := map[string]int{"priority": 1, "audit": 2, "deny": 3, "allow": 3, "prompt": 3, "owner": 4, "other": 4}[word]
		if place == 0 {
			return nil
		}
		if place <= stage {
			return p.fail(start, "%q stands too late: the order is priority, audit, deny or allow, owner", word)
		}
		stage = place
		p.off += len(word)
		switch place {
		case 1:
			if err := p.priority(r); err != nil {
				return err
			}
		case 2:
			r.Audit = true
		case 3:
			r.Mode = word
		case 4:
			r.Owner = word
		}
		if !isSpace(p.peek()) {
			return p.fail(p.off, "put white space after the qualifier %q", word)
		}
		if err := p.within(); err != nil {
			return err
		}
		if p.peek() == '{' {
			return p.fail(p.off, "a block of rules may not have qualifiers: parsers apply them to some of its rules only, write them before each rule")
		}
	}
}

func (p *parser) priority(r *Rule) *Error {
	p.blanks()
	if err := p.expect('=', "after priority"); err != nil {
		return err
	}
	p.blanks()
	start := p.off
	number := regexp.MustCompile(`\A[+-]?[0-9]{1,4}`).FindString(p.src[p.off:min(len(p.src), p.off+8)])
	if number == "" {
		return p.fail(start, "a priority is a number")
	}
	p.off += len(number)
	r.Priority = number
	return nil
}

// class reads a rule from behind its qualifiers.
func (p *parser) class(r *Rule) *Error {
	start := p.off
	if c := p.peek(); c == '/' || c == '"' || p.at("@{") {
		return p.fileRule(r)
	}
	word := p.nextKeyword()
	switch word {
	case "file":
		p.off += len(word)
		if err := p.within(); err != nil {
			return err
		}
		if p.peek() == ',' {
			r.Class, r.File = FileClass, &FileRule{Bare: true}
			return nil
		}
		return p.fileRule(r)
	case "safe", "unsafe":
		return p.fileRule(r)
	case "link":
		return p.linkRule(r)
	case "set":
		return p.rlimit(r)
	case "unmount":
		word = string(Umount)
	}
	if isAccess(word) && Class(word) != All {
		return p.fileRule(r)
	}
	if _, known := grammars()[Class(word)]; !known {
		return p.fail(start, "expected a rule, found %s", p.found())
	}
	r.Class = Class(word)
	if r.Owner != "" {
		return p.fail(start, "owner is for rules about files only")
	}
	if _, err := p.keyword(); err != nil {
		return err
	}
	return p.terms(r)
}
