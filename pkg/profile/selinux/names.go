package selinux

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

const (
	// blockPrefix begins the names of all blocks that need no relaxation.
	blockPrefix = "confine_"
	// reservedPrefix begins names that no policy can list, look-alikes too.
	reservedPrefix = "confine"
	// MaxBlockBytes bounds a block's name: the process type stands in security
	// contexts, which workloads, audit records and file attributes carry.
	MaxBlockBytes = 240
	maxNamespace  = 63 // a DNS label
	maxWordBytes  = 128
)

// ProcessType returns the type that the processes of a block run as, which is
// what pods put into seLinuxOptions.type: types of a block are named after it
// (https://github.com/SELinuxProject/selinux/blob/main/secilc/docs/cil_reference_guide.md).
func ProcessType(block string) string { return block + "." + processName }

// BlockName returns the name that the block of a profile has by default, and
// its process type. namespace is a DNS label; each hyphen in it is written as
// two underscores, so that two namespaces never share a name:
// BlockName("shop-eu", "web") is confine_shop__eu_web. rest begins with a
// lower-case letter or digit and may hold underscores.
func BlockName(namespace, rest string) (block, processType string, err error) {
	if len(namespace) > maxNamespace || !dnsLabel().MatchString(namespace) {
		return "", "", fmt.Errorf("%q is no DNS label", namespace)
	}
	block = blockPrefix + strings.ReplaceAll(namespace, "-", "__") + "_" + rest
	if len(block) > MaxBlockBytes {
		return "", "", fmt.Errorf("the block's name would be %d bytes long; at most %d are allowed", len(block), MaxBlockBytes)
	}
	if got, ok := NamespaceOf(block); !ok || got != namespace {
		return "", "", fmt.Errorf("%q is no name in a block's name: those are lower-case letters, digits and underscores, not first", rest)
	}
	return block, ProcessType(block), nil
}

// NamespaceOf returns the namespace that a block is named for, and false for a
// name that BlockName does not make.
func NamespaceOf(block string) (string, bool) {
	after, ok := strings.CutPrefix(block, blockPrefix)
	if !ok || len(block) > MaxBlockBytes || !blockPattern().MatchString(block) {
		return "", false
	}
	var namespace strings.Builder
	for after != "" {
		word := len(after) - len(strings.TrimLeft(after, lowerAndDigits))
		namespace.WriteString(after[:word])
		after = after[word:]
		run := len(after) - len(strings.TrimLeft(after, "_"))
		after = after[run:]
		switch {
		case word == 0 || after == "":
			return "", false
		case run == 1:
			return namespace.String(), namespace.Len() <= maxNamespace
		case run%2 != 0:
			return "", false
		}
		namespace.WriteString(strings.Repeat("-", run/2))
	}
	return "", false
}

const lowerAndDigits = "abcdefghijklmnopqrstuvwxyz0123456789"

func dnsLabel() *regexp.Regexp {
	return regexp.MustCompile(`\A[a-z0-9]([-a-z0-9]*[a-z0-9])?\z`)
}

func blockPattern() *regexp.Regexp { return regexp.MustCompile(`\A[a-z][a-z0-9_]*\z`) }

// plainName is how types, templates, classes and permissions are named in
// reference policies. CIL takes hyphens and, in references, dots too: a dot
// looks a name up in another block.
func plainName(name string) bool {
	if name == "" || len(name) > maxWordBytes || !isLetter(name[0]) {
		return false
	}
	for i := range len(name) {
		if c := name[i]; !isLetter(c) && c != '_' && (c < '0' || c > '9') {
			return false
		}
	}
	return true
}

func isLetter(c byte) bool { return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' }

// keyword reports words that CIL does not look up as names where the grammar
// has a name: operators of sets, and targets that stand for many types
// (https://github.com/SELinuxProject/selinux/blob/main/secilc/docs/cil_access_vector_rules.md).
func keyword(name string) bool {
	return slices.Contains([]string{
		"self", "notself", "other", "all", "and", "or", "not", "xor", "eq", "neq", "range", "dom", "domby", "incomp", "any",
	}, name)
}

// clip quotes text of a payload, shortened where it is long.
func clip(text string) string {
	const shown = 64
	if len(text) > shown {
		return strconv.Quote(text[:shown]) + "..."
	}
	return strconv.Quote(text)
}
