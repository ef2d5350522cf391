package selinux

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/profile/selinux/internal/cil"
	"github.com/confine-dev/confine/pkg/reason"
)

// shownProblems is how many objections one refusal spells out.
const shownProblems = 5

// Constrain judges p by the closed grammar, once with each policy's limits; p
// must pass all of them, so that a relaxation counts only where every policy
// states it. A block that begins with "confine" is named confine_NAMESPACE_NAME
// with the namespace of by, as NamespaceOf reads it: no policy gives it to
// anybody else.
func (k *Kind) Constrain(p profile.Profile, by profile.Scope, all []profile.Limits) error {
	sp, ok := p.(*Profile)
	if !ok || sp == nil {
		return reason.New(reason.ProfileForbidden, "", "this is not an SELinux profile")
	}
	if len(all) == 0 {
		all = []profile.Limits{nil}
	}
	judged := make([]limits, 0, len(all))
	for _, raw := range all {
		l, err := readLimits(raw)
		if err != nil {
			return err
		}
		judged = append(judged, l)
	}
	for _, l := range judged {
		c := &check{profile: sp, by: by, limits: l, permitted: defaultPermissions(), inherited: map[string]bool{}}
		for class, permissions := range l.permissions {
			c.permitted[class] = append(c.permitted[class], permissions...)
		}
		c.module()
		if len(c.problems) > 0 {
			return c.refusal()
		}
	}
	return nil
}

// check is one policy's limits held against one profile.
type check struct {
	profile   *Profile
	by        profile.Scope
	limits    limits
	permitted map[string][]string
	inherited map[string]bool
	problems  []string
	position  string // of the first
}

func (c *check) object(n *cil.Node, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if slices.Contains(c.problems, text) {
		return
	}
	if len(c.problems) == 0 {
		c.position = c.profile.positionOf(n)
	}
	c.problems = append(c.problems, text)
}

// full reports that more objections would not be shown, so that judging ends.
func (c *check) full() bool { return len(c.problems) >= shownProblems }

func (c *check) refusal() error {
	object := c.profile.file
	if object != "" {
		object += ":" + c.position
	}
	problems := c.problems
	more := ""
	if c.full() {
		problems, more = problems[:shownProblems], "; the list ends here"
	}
	return reason.New(reason.ProfileForbidden, object, "%s%s", strings.Join(problems, "; "), more)
}

// positionOf renders where a node of the profile stands.
func (p *Profile) positionOf(n *cil.Node) string {
	line, exact := slices.BinarySearch(p.lines, n.Offset)
	if exact {
		line++
	}
	return strconv.Itoa(line) + ":" + strconv.Itoa(n.Offset-p.lines[line-1]+1)
}

// module judges the whole.
func (c *check) module() {
	for i, form := range c.profile.statements {
		switch {
		case c.full():
			return
		case i > 0:
			c.object(form, "%s is a second statement at the top, where only one block may stand", shown(form))
		case !form.Items[0].IsSymbol("block"):
			c.object(form, "%s stands at the top, where only a block may stand", shown(form))
		default:
			c.block(form)
		}
	}
}

func (c *check) block(form *cil.Node) {
	if len(form.Items) < 2 || !c.plain(form.Items[1], "a block's name") {
		if len(form.Items) < 2 {
			c.object(form, "the block has no name")
		}
		return
	}
	name := form.Items[1]
	c.blockName(name)
	for _, s := range form.Items[2:] {
		head := s.Head()
		switch {
		case c.full():
			return
		case head == nil:
			c.object(s, "only statements may stand in the block")
		case head.IsSymbol("blockinherit"):
			c.inherit(s)
		case head.IsSymbol("allow"):
			c.allow(s)
		default:
			c.object(s, "%s may not stand in a profile: %s", shown(s), whyNot(head))
		}
	}
	if !c.inherited[baseTemplate] {
		c.object(form, "the block does not inherit %s, which declares the type process: the name would be looked up elsewhere", baseTemplate)
	}
}

func (c *check) blockName(n *cil.Node) {
	name := n.Text
	namespace, own := NamespaceOf(name)
	switch {
	case len(name) > MaxBlockBytes || !blockPattern().MatchString(name):
		c.object(n, "the block's name %s is not made of at most %d lower-case letters, digits and underscores", clip(name), MaxBlockBytes)
	case refuseBlockName(name) != "":
		c.object(n, "%s", refuseBlockName(name))
	case slices.Contains(c.limits.templates, name):
		c.object(n, "the block %s is a template that the policy lists", clip(name))
	case own && !c.by.Holds(namespace):
		c.object(n, "the block %s belongs to the namespace %s: name it %s, or create the SecurityProfile there", clip(name), namespace, blockNameFor(c.by))
	case own:
	case strings.HasPrefix(name, reservedPrefix):
		c.object(n, "the block %s is not named %s (hyphens of the namespace as two underscores)", clip(name), blockNameFor(c.by))
	case !c.limits.blockAllowed(name):
		c.object(n, "the block %s is not named %s (hyphens of the namespace as two underscores), nor as allowedBlocks says", clip(name), blockNameFor(c.by))
	}
}

// blockNameFor shows how blocks are named for a scope.
func blockNameFor(by profile.Scope) string {
	return blockPrefix + strings.ReplaceAll(by.Namespace(), "-", "__") + "_NAME"
}

// inherit judges (blockinherit TEMPLATE).
func (c *check) inherit(s *cil.Node) {
	if len(s.Items) != 2 {
		c.object(s, "blockinherit takes one template")
		return
	}
	n := s.Items[1]
	if !c.plain(n, "a template's name") {
		return
	}
	switch {
	case c.inherited[n.Text]:
		c.object(n, "the template %s is inherited twice", clip(n.Text))
	case !c.limits.templateAllowed(n.Text):
		t, known := findTemplate(n.Text)
		if !known {
			c.object(n, "the template %s is not known, and not in allowedTemplates", clip(n.Text))
			break
		}
		c.object(n, "the template %s is not in allowedTemplates: it %s", n.Text, t.reaches)
	}
	c.inherited[n.Text] = true
}

// allow judges (allow process TARGET (CLASS (PERMISSION...))).
func (c *check) allow(s *cil.Node) {
	if len(s.Items) != 4 {
		c.object(s, "%s is not (allow process TARGET (CLASS (PERMISSION...)))", shown(s))
		return
	}
	source, target, rule := s.Items[1], s.Items[2], s.Items[3]
	if !source.IsSymbol(processName) {
		c.object(source, "the source %s is not literally process", shown(source))
	}
	if c.plain(target, "a target") && !c.limits.targetAllowed(target.Text) {
		c.object(target, "the target %s is neither self, process nor socket, nor in allowedTypes", clip(target.Text))
	}
	if !rule.List || len(rule.Items) != 2 || rule.Items[0].List || !rule.Items[1].List {
		c.object(rule, "%s is not (CLASS (PERMISSION...)): names and sets of permissions may not stand here", shown(rule))
		return
	}
	class, permissions := rule.Items[0], rule.Items[1]
	if !c.plain(class, "a class") {
		return
	}
	if len(permissions.Items) == 0 {
		c.object(permissions, "the rule has no permission")
	}
	allowed, known := c.permitted[class.Text]
	if !known {
		c.object(class, "no permission of the class %s may be allowed%s", clip(class.Text), because(class.Text, ""))
		return
	}
	for _, p := range permissions.Items {
		if c.full() {
			return
		}
		if c.plain(p, "a permission") && !slices.Contains(allowed, p.Text) {
			c.object(p, "%s %s may not be allowed%s", class.Text, clip(p.Text), because(class.Text, p.Text))
		}
	}
}

func because(class, permission string) string {
	if why := neverPermitted(class, permission); why != "" {
		return ", by no policy either: " + why
	}
	return ""
}

// plain objects unless n is a bare name.
func (c *check) plain(n *cil.Node, what string) bool {
	switch {
	case n.List:
		c.object(n, "%s must be one name, not the expression %s", what, shown(n))
	case n.Quoted:
		c.object(n, "%s must not be quoted: %s", what, clip(n.Text))
	case strings.Contains(n.Text, "."):
		c.object(n, "%s must not have a dot, which looks it up in another block: %s", what, clip(n.Text))
	case !plainName(n.Text):
		c.object(n, "%s is made of letters, digits and underscores: %s", what, clip(n.Text))
	default:
		return true
	}
	return false
}

// shown renders the beginning of a node.
func shown(n *cil.Node) string {
	const limit = 64
	text := n.String()
	if len(text) > limit {
		text = strings.ToValidUTF8(text[:limit], "") + "..."
	}
	return text
}

// whyNot says what a statement outside of the grammar could do.
func whyNot(head *cil.Node) string {
	if head.Quoted {
		return "a keyword must not be quoted"
	}
	because := map[string]string{
		"type typealias typealiasactual":      "a name of its own could stand for a type of the host, or hide one",
		"typeattribute typeattributeset":      "attributes carry the rules of the host's policy for all types in them",
		"block blockabstract":                 "names in an inner block hide those outside of it",
		"in":                                  "it adds to a block of the host",
		"macro call":                          "what a call puts in its place cannot be seen here",
		"optional":                            "parts that may vanish make rules that cannot be judged",
		"booleanif tunableif boolean tunable": "the rules would depend on settings of the host",
		"typetransition typechange typemember rangetransition":                        "it decides labels of what others make",
		"typepermissive typebounds expandtypeattribute":                               "it changes how the type is enforced",
		"role roletype roleattribute roleattributeset roleallow roletransition":       "roles belong to the host's policy",
		"user userrole userlevel userrange userprefix selinuxuser userattribute":      "users belong to the host's policy",
		"context sid sidcontext filecon genfscon fsuse portcon nodecon netifcon":      "labels of the host's objects belong to its policy",
		"class common classmap classmapping classpermission classpermissionset":       "a class of its own could hide one of the kernel",
		"neverallow neverallowx deny":                                                 "it would make the host's own rules fail or vanish",
		"constrain mlsconstrain validatetrans mlsvalidatetrans defaulttype policycap": "it changes the policy for all types",
		"allowx permissionx auditallow auditallowx dontaudit dontauditx":              "only plain allow rules are judged; hiding or filling the audit log is not for a profile",
	}
	for words, why := range because {
		if slices.Contains(strings.Fields(words), head.Text) {
			return why
		}
	}
	return "only blockinherit and allow may"
}
