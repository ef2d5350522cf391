package arch

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// minReason is the least number of words that can be a reason.
const minReason = 4

// DirectRequires returns the modules that a go.mod requires without the mark
// "// indirect", and the packages of its tool lines, sorted.
func DirectRequires(gomod string) []string {
	var found []string
	block := ""
	for line := range strings.Lines(gomod) {
		fields := strings.Fields(line)
		switch {
		case len(fields) == 0 || strings.HasPrefix(fields[0], "//"):
		case fields[0] == ")":
			block = ""
		case len(fields) == 2 && fields[1] == "(":
			block = fields[0]
		case block == "require" && !strings.Contains(line, "// indirect"):
			found = append(found, fields[0])
		case block == "" && fields[0] == "require" && !strings.Contains(line, "// indirect"):
			found = append(found, fields[1])
		case block == "tool":
			found = append(found, fields[0])
		case block == "" && fields[0] == "tool":
			found = append(found, fields[1])
		}
	}
	slices.Sort(found)
	return found
}

// tableRow matches a row "| `path` | reason |" of a Markdown table.
func tableRow() *regexp.Regexp { return regexp.MustCompile("(?m)^\\| `([^`]+)` \\|(.*)\\|$") }

// CheckDependencies compares the tables of docs/dependencies.md with what the
// go.mod files require: each module stands there once, with a reason.
func CheckDependencies(document string, required []string) []Violation {
	const place = "docs/dependencies.md"
	var found []Violation
	documented := map[string]bool{}
	for _, row := range tableRow().FindAllStringSubmatch(document, -1) {
		module, reason := row[1], strings.TrimSpace(row[2])
		if documented[module] {
			found = append(found, Violation{Place: place, Message: module + " stands there twice"})
		}
		documented[module] = true
		if len(strings.Fields(reason)) < minReason {
			found = append(found, Violation{Place: place, Message: fmt.Sprintf("%s has no reason, only %q", module, reason)})
		}
		if !slices.Contains(required, module) {
			found = append(found, Violation{Place: place, Message: module + " is required by no go.mod"})
		}
	}
	for _, module := range required {
		if !documented[module] {
			found = append(found, Violation{Place: place, Message: module + " is required and has no reason here"})
		}
	}
	return found
}
