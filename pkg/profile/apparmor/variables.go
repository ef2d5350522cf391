package apparmor

import (
	"regexp"
	"slices"
	"strings"

	"github.com/confine-dev/confine/pkg/profile/apparmor/internal/glob"
	"github.com/confine-dev/confine/pkg/profile/apparmor/policy"
)

const (
	maxExpansions    = 128  // globs that one path may stand for
	maxExpandedBytes = 1024 // of each
)

// variables are what a text says of its variables, and what the tunables of a
// host usually say.
type variables struct {
	// values are, for Most, all that a variable may stand for, whoever says it; and
	// for Least those that it surely stands for.
	values  map[glob.Side]map[string][]string
	pattern *regexp.Regexp
	// expanded holds what is known already; nil is for what cannot be told.
	expanded map[glob.Side]map[string][]string
}

// variablesOf collects the values. A text that gives a variable its first value does
// not have the tunables': it does not include them, or apparmor_parser would take
// it for a second declaration. What ?= and := make of it depends on the host.
func variablesOf(f *policy.File) *variables {
	v := &variables{
		values:   map[glob.Side]map[string][]string{glob.Most: tunables(), glob.Least: tunables()},
		pattern:  regexp.MustCompile(`@\{([A-Za-z][A-Za-z0-9_]*)\}`),
		expanded: map[glob.Side]map[string][]string{glob.Most: {}, glob.Least: {}},
	}
	most, least := v.values[glob.Most], v.values[glob.Least]
	unsure := map[string]bool{}
	for _, a := range f.Variables {
		if a.Op != "+=" {
			name := strings.Trim(a.Name, "@{}")
			delete(least, name)
			unsure[name] = unsure[name] || a.Op != "="
		}
	}
	for _, a := range f.Variables {
		name := strings.Trim(a.Name, "@{}")
		most[name] = append(most[name], a.Values...)
		if !unsure[name] {
			least[name] = append(least[name], a.Values...)
		}
	}
	return v
}

// tunables are the variables of Debian's and Ubuntu's <tunables/...> that say
// where the kernel's interfaces are, and those that surely are not there.
func tunables() map[string][]string {
	process := []string{"{[1-9],[1-9][0-9],[1-9][0-9][0-9],[1-9][0-9][0-9][0-9],[1-9][0-9][0-9][0-9][0-9]," +
		"[1-9][0-9][0-9][0-9][0-9][0-9],[1-9][0-9][0-9][0-9][0-9][0-9][0-9]}"}
	return map[string][]string{
		"PROC": {"/proc/"}, "sys": {"/sys/"}, "securityfs": {"/sys/kernel/security/"},
		"pid": process, "pids": process, "tid": process, "tids": process,
		"HOME": {"/home/*/", "/root/"}, "HOMEDIRS": {"/home/"}, "run": {"/run/", "/var/run/"},
		"multiarch": {"*-linux-gnu*"}, "etc_ro": {"/etc/", "/usr/etc/"}, "etc_rw": {"/etc/"},
	}
}

// expand returns the globs that path stands for with its variables replaced.
// What cannot be told is everything for Most, and makes it nothing for Least.
func (v *variables) expand(path string, side glob.Side) []string {
	expanded := v.replace(path, side, false)
	if expanded == nil && side == glob.Most {
		expanded = []string{"**"}
	}
	if side == glob.Least {
		expanded = slices.DeleteFunc(expanded, isNowhere)
	}
	for i := range expanded {
		expanded[i] = collapse(expanded[i])
	}
	return expanded
}

// of returns what a variable stands for; nil where that cannot be told: it is
// unknown, it holds itself, or it is too much.
func (v *variables) of(name string, side glob.Side) []string {
	if known, done := v.expanded[side][name]; done {
		return known
	}
	v.expanded[side][name] = nil // while it is being expanded, and if it holds itself
	var all []string
	for _, value := range v.values[side][name] {
		more := v.replace(value, side, true)
		if more == nil || len(all)+len(more) > maxExpansions {
			return nil
		}
		all = append(all, more...)
	}
	v.expanded[side][name] = all
	return all
}

// replace returns text with all variables replaced, or nil. For Most, a
// variable that cannot be told ends the text with what matches everything, unless
// all of the text has to be told.
func (v *variables) replace(text string, side glob.Side, all bool) []string {
	out := []string{""}
	for text != "" {
		m := v.pattern.FindStringSubmatchIndex(text)
		if m == nil {
			return product(out, []string{text})
		}
		out = product(out, []string{text[:m[0]]})
		values := v.of(text[m[2]:m[3]], side)
		if values == nil && side == glob.Most && !all {
			return product(out, []string{"**"})
		}
		if out = product(out, values); out == nil {
			return nil
		}
		text = text[m[1]:]
	}
	return out
}

// product joins each of heads with each of tails; nil where that is too much.
func product(heads, tails []string) []string {
	if len(heads)*len(tails) > maxExpansions {
		return nil
	}
	var out []string
	for _, head := range heads {
		for _, tail := range tails {
			if len(head)+len(tail) > maxExpandedBytes {
				return nil
			}
			out = append(out, head+tail)
		}
	}
	return out
}

// isNowhere reports paths that begin with exactly two slashes. apparmor_parser leaves
// these as they are (filter_slashes in its parser_regex.c), and no file has such a path.
func isNowhere(path string) bool {
	return strings.HasPrefix(path, "//") && !strings.HasPrefix(path, "///")
}

// collapse makes one slash of several, as apparmor_parser does but for isNowhere.
func collapse(path string) string {
	for strings.Contains(path, "//") {
		path = strings.ReplaceAll(path, "//", "/")
	}
	return path
}
