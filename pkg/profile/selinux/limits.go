package selinux

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/profile/selinux/internal/cil"
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
//	 "allowedPermissions": {"process": ["execmem"]}}
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
	if len(raw) > maxLimitBytes {
		return limits{}, reason.New(reason.TrustPolicyInvalid, limitsObject,
			"%d bytes are more than the %d allowed", len(raw), maxLimitBytes)
	}
	r := &limitsReader{dec: json.NewDecoder(bytes.NewReader(raw))}
	err := errors.New("neither NUL nor invalid UTF-8 may stand here")
	if utf8.Valid(raw) && bytes.IndexByte(raw, 0) < 0 {
		err = r.document()
	}
	if err != nil {
		object := limitsObject + ":" + cil.Position(raw, int(r.dec.InputOffset()))
		return limits{}, reason.New(reason.TrustPolicyInvalid, object, "%w", err)
	}
	return r.limits, nil
}

const limitsObject = "constraints.selinux"

type limitsReader struct {
	dec    *json.Decoder
	limits limits
}

func (r *limitsReader) document() error {
	first, err := r.token()
	if err != nil {
		return err
	}
	if first != nil {
		if first != json.Delim('{') {
			return errors.New("expected an object")
		}
		if err := r.object(r.field); err != nil {
			return err
		}
	}
	if _, err := r.dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("only one JSON document may stand here")
	}
	return nil
}

func (r *limitsReader) field(name string) error {
	switch name {
	case "allowedBlocks":
		return r.list(&r.limits.blocks, refuseBlock)
	case "allowedTemplates":
		return r.list(&r.limits.templates, refuseName)
	case "allowedTypes":
		return r.list(&r.limits.types, refuseName)
	case "allowedPermissions":
		return r.classes()
	default:
		return fmt.Errorf("the field %s is unknown", clip(name))
	}
}

func (r *limitsReader) classes() error {
	first, err := r.token()
	if err != nil || first == nil {
		return err
	}
	if first != json.Delim('{') {
		return errors.New("expected an object of classes")
	}
	r.limits.permissions = map[string][]string{}
	return r.object(func(class string) error {
		if text := refuseName(class); text != "" {
			return errors.New(text)
		}
		if len(r.limits.permissions) >= maxLimitItems {
			return fmt.Errorf("more than %d classes", maxLimitItems)
		}
		var list []string
		err := r.list(&list, func(permission string) string {
			if why := neverPermitted(class, permission); why != "" {
				return fmt.Sprintf("no policy can admit %s %s: %s", class, permission, why)
			}
			return refuseName(permission)
		})
		r.limits.permissions[class] = list
		return err
	})
}

// object hands the rest of an object, key by key, to member. A key twice, also
// in another case, is refused.
func (r *limitsReader) object(member func(key string) error) error {
	var seen []string
	for r.dec.More() {
		token, err := r.token()
		if err != nil {
			return err
		}
		key, ok := token.(string)
		if !ok {
			return errors.New("a key must be a string")
		}
		if slices.ContainsFunc(seen, func(s string) bool { return strings.EqualFold(s, key) }) {
			return fmt.Errorf("the key %s stands here twice", clip(key))
		}
		if len(seen) > maxLimitItems {
			return fmt.Errorf("more than %d keys", maxLimitItems)
		}
		seen = append(seen, key)
		if err := member(key); err != nil {
			return err
		}
	}
	_, err := r.token()
	return err
}

// list reads an array of strings, or null.
func (r *limitsReader) list(to *[]string, refuse func(string) string) error {
	first, err := r.token()
	if err != nil || first == nil {
		return err
	}
	if first != json.Delim('[') {
		return errors.New("expected a list of names")
	}
	for r.dec.More() {
		token, err := r.token()
		if err != nil {
			return err
		}
		name, ok := token.(string)
		if !ok {
			return errors.New("a name must be a string")
		}
		if text := refuse(name); text != "" {
			return errors.New(text)
		}
		if len(*to) >= maxLimitItems {
			return fmt.Errorf("a list of more than %d names", maxLimitItems)
		}
		*to = append(*to, name)
	}
	_, err = r.token()
	return err
}

func (r *limitsReader) token() (json.Token, error) {
	token, err := r.dec.Token()
	if err != nil {
		return nil, errors.New("this is not JSON, or ends too early")
	}
	return token, nil
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
	if _, ok := NamespaceOf(name); ok {
		return true
	}
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
