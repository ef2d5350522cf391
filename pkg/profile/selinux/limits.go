package selinux

import (
	"regexp"
	"slices"
	"strings"

	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/profile/internal/jsontree"
	"github.com/confine-dev/confine/pkg/reason"
)

// Bounds on one policy's constraints.
const (
	maxLimitBytes = 256 << 10
	maxLimitItems = 512 // in one list, and classes
)

// limits are the constraints of one policy. The zero value is the safe
// default; every field relaxes it. As JSON they are
//
//	{"allowedBlocks": ["web_*"],          names of blocks besides confine_<namespace>_<rest>
//	 "allowedTemplates": ["virt_container"],
//	 "allowedTypes": ["http_port_t"],     targets of allow rules
//	 "allowedPermissions": [{"class": "process", "permissions": ["execmem"]}]}
//
// A pattern of allowedBlocks is a name, or at least three characters of it and
// a star at the end. A name in allowedTypes admits all that the permissions
// admit on that type, and where it is an attribute of the host's policy, on
// every type in it. A template must not declare what the host's policy would
// not give to any profile that inherits it: it is not looked into.
type limits struct {
	blocks      []string
	templates   []string
	types       []string
	permissions map[string][]string
}

// readLimits decodes one policy's constraints strictly.
func readLimits(raw profile.Limits) (limits, error) {
	if raw == nil {
		return limits{}, nil
	}
	var l limits
	if err := l.read(raw); err != nil {
		return limits{}, reason.New(reason.TrustPolicyInvalid, jsontree.Locate("constraints.selinux", raw, err), "%w", err)
	}
	return l, nil
}

// read decodes the object; null is an empty object or list.
func (l *limits) read(raw []byte) error {
	if len(raw) > maxLimitBytes {
		return jsontree.Errorf(0, "%d bytes are more than the %d allowed", len(raw), maxLimitBytes)
	}
	// A name takes at least four bytes, so the bytes are the tighter bound.
	root, err := jsontree.Parse(raw, jsontree.Bounds{Depth: 5, Values: maxLimitBytes / 2})
	if err != nil || root.IsNull() {
		return err
	}
	return root.Read(jsontree.Fields{
		"allowedBlocks":      names(&l.blocks, refuseBlock),
		"allowedTemplates":   names(&l.templates, refuseName),
		"allowedTypes":       names(&l.types, refuseName),
		"allowedPermissions": l.readClasses,
	}, func(key string) string { return "the field " + clip(key) + " is unknown" })
}

func (l *limits) readClasses(n *jsontree.Node) error {
	if n.IsNull() {
		return nil
	}
	l.permissions = map[string][]string{}
	return n.List(maxLimitItems, l.readClass)
}

// readClass reads {"class": NAME, "permissions": [NAME...]}, in either order.
func (l *limits) readClass(n *jsontree.Node) error {
	var class string
	var list []string
	err := n.Read(jsontree.Fields{
		"class": func(n *jsontree.Node) error {
			name, err := n.Str(maxLimitBytes)
			if text := refuseName(name); err == nil && text != "" {
				return jsontree.Errorf(n.Offset, "%s", text)
			}
			class = name
			return err
		},
		"permissions": names(&list, refuseName),
	}, func(key string) string { return "the field " + clip(key) + " is unknown" })
	if err != nil {
		return err
	}
	if class == "" || len(list) == 0 {
		return jsontree.Errorf(n.Offset, "a class and its permissions are missing: write {\"class\": \"process\", \"permissions\": [\"execmem\"]}")
	}
	if _, again := l.permissions[class]; again {
		return jsontree.Errorf(n.Offset, "the class %s stands here twice", clip(class))
	}
	for _, permission := range list {
		if why := neverPermitted(class, permission); why != "" {
			return jsontree.Errorf(n.Offset, "no policy can admit %s %s: %s", class, permission, why)
		}
	}
	l.permissions[class] = list
	return nil
}

// names reads a list of names, or null.
func names(to *[]string, refuse func(string) string) func(*jsontree.Node) error {
	return func(n *jsontree.Node) error {
		if n.IsNull() {
			return nil
		}
		return n.List(maxLimitItems, func(n *jsontree.Node) error {
			name, err := n.Str(maxLimitBytes)
			if err != nil {
				return err
			}
			if text := refuse(name); text != "" {
				return jsontree.Errorf(n.Offset, "%s", text)
			}
			*to = append(*to, name)
			return nil
		})
	}
}

// refuseName objects to what the grammar would not take as a name.
func refuseName(name string) string {
	switch {
	case !plainName(name):
		return clip(name) + " is no plain name: those are letters, digits and underscores"
	case keyword(name):
		return clip(name) + " stands for more than one name in CIL"
	default:
		return ""
	}
}

func refuseBlock(pattern string) string {
	if !blockLimitPattern().MatchString(pattern) || len(pattern) > MaxBlockBytes {
		return clip(pattern) + " is no pattern of block names: those are lower-case letters, digits and underscores, " +
			"at least three, and may end with a star"
	}
	if strings.HasPrefix(pattern, reservedPrefix) {
		return clip(pattern) + ": a block that begins with " + reservedPrefix + " belongs to the namespace that it says, and no policy gives it to another"
	}
	if why := refuseBlockName(strings.TrimSuffix(pattern, "*")); why != "" && !strings.HasSuffix(pattern, "*") {
		return why
	}
	return ""
}

func blockLimitPattern() *regexp.Regexp {
	return regexp.MustCompile(`\A[a-z][a-z0-9_]{2,}\*?\z`)
}

// refuseBlockName objects to names that belong to the host's policy, whatever
// a pattern says: those of templates, since what inherits from them would
// inherit from the profile, and those that read like types of the host.
func refuseBlockName(name string) string {
	if _, ours := NamespaceOf(name); ours {
		return ""
	}
	if _, known := findTemplate(name); known {
		return "the block " + clip(name) + " is a template of the host's policy"
	}
	if strings.HasSuffix(name, "_t") || keyword(name) || name == processName || name == socketName {
		return "the block " + clip(name) + " reads like a type or a keyword of the host's policy"
	}
	return ""
}

func (l *limits) blockAllowed(name string) bool {
	return slices.ContainsFunc(l.blocks, func(pattern string) bool {
		prefix, open := strings.CutSuffix(pattern, "*")
		return name == pattern || (open && strings.HasPrefix(name, prefix))
	})
}

func (l *limits) templateAllowed(name string) bool {
	t, _ := findTemplate(name)
	return t.byDefault || slices.Contains(l.templates, name)
}

func (l *limits) targetAllowed(name string) bool {
	return name == "self" || name == processName || name == socketName || slices.Contains(l.types, name)
}
