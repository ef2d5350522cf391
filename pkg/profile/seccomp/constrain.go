package seccomp

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/reason"
)

const (
	// maxErrno is the kernel's MAX_ERRNO: seccomp(2) clips larger values, and 0
	// would report success for a syscall that never ran.
	maxErrno = 4095
	// shownProblems is how many objections one refusal spells out.
	shownProblems = 5
)

// Constrain judges p against every policy's limits by itself; p must pass all.
// Without limits, or with nil ones, p may allow at most what containerd's
// default profile allows without capabilities, on every architecture where its
// rules can take effect. For whom makes no difference: a seccomp profile has no
// name of its own.
func (k *Kind) Constrain(p profile.Profile, _ profile.Scope, all []profile.Limits) error {
	sp, ok := p.(*Profile)
	if !ok || sp == nil {
		return reason.New(reason.ProfileForbidden, "", "this is not a seccomp profile")
	}
	if len(all) == 0 {
		all = []profile.Limits{nil}
	}
	judged := make([]limits, 0, len(all))
	for _, raw := range all {
		l, err := k.readLimits(raw)
		if err != nil {
			return err
		}
		judged = append(judged, l)
	}
	v := &verdict{}
	reaches := sp.neverAllowed(v)
	if len(v.problems) > 0 {
		return v.refusal(sp)
	}
	for _, l := range judged {
		c := &check{kind: k, profile: sp, limits: l, reaches: reaches, denied: expand(l.denied, k.knows), verdict: v}
		c.allowRules()
		if !sp.DefaultAction.Denies() {
			c.openDefault()
		}
		if len(v.problems) > 0 {
			return v.refusal(sp)
		}
	}
	return nil
}

// verdict collects objections.
type verdict struct {
	problems []string
	position string // of the first
}

func (v *verdict) object(position, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if slices.Contains(v.problems, text) {
		return
	}
	if len(v.problems) == 0 {
		v.position = position
	}
	v.problems = append(v.problems, text)
}

func (v *verdict) refusal(p *Profile) error {
	object := p.file
	if v.position != "" && object != "" {
		object += ":" + v.position
	}
	shown := v.problems
	more := ""
	if len(shown) > shownProblems {
		more = fmt.Sprintf("; and %d more", len(shown)-shownProblems)
		shown = shown[:shownProblems]
	}
	return reason.New(reason.ProfileForbidden, object, "%s%s", strings.Join(shown, "; "), more)
}

// neverAllowed objects to what no policy can admit, and returns the
// architectures the profile reaches. It also covers profiles that Parse did
// not make.
func (p *Profile) neverAllowed(v *verdict) []archFacts {
	if p.ListenerPath != "" || p.ListenerMetadata != "" {
		v.object("", "listenerPath and listenerMetadata hand syscalls to an agent outside the profile")
	}
	reaches, ok := reached(p.Architectures)
	if !ok {
		v.object("", "an architecture is unknown")
	}
	for _, f := range p.Flags {
		if !slices.Contains(Flags(), f) {
			v.object("", "the flag %q is unknown", f)
		}
	}
	neverAction(v, "", p.DefaultAction, p.DefaultErrnoRet)
	for _, s := range p.Syscalls {
		neverAction(v, s.position, s.Action, s.ErrnoRet)
		for _, name := range s.Names {
			if !plausibleName(name) {
				v.object(s.position, "%q is no syscall name", name)
			}
		}
		for _, a := range s.Args {
			if a.Index > maxIndex || !slices.Contains(Operators(), a.Op) {
				v.object(s.position, "an argument's index or operator is unknown")
			}
		}
	}
	return reaches
}

func neverAction(v *verdict, position string, a Action, errno *uint32) {
	switch {
	case !slices.Contains(Actions(), a):
		v.object(position, "the action %q is unknown", a)
	case a == ActNotify || a == ActTrace:
		v.object(position, "%s leaves the decision to another process", a)
	}
	if errno != nil && (*errno < 1 || *errno > maxErrno) {
		v.object(position, "the errno %d is not between 1 and %d", *errno, maxErrno)
	}
}

// check is one policy's limits held against one profile.
type check struct {
	kind    *Kind
	profile *Profile
	limits  limits
	reaches []archFacts
	denied  map[string]string // name to the policy's word that denies it
	verdict *verdict
}

// allowRules objects to rules that let through what may not be.
func (c *check) allowRules() {
	if !c.limits.unbounded && !c.profile.DefaultAction.Denies() {
		c.verdict.object("", "the default action %s does not deny, as %s requires",
			c.profile.DefaultAction, BaselineRuntimeDefault)
	}
	_, guarded := c.denied[namespaceGuard]
	opened, mixed := c.openedMultiplexers(), c.profile.mixed()
	for _, s := range c.profile.Syscalls {
		if s.Action.Denies() {
			continue
		}
		for i, name := range s.Names {
			at := s.PositionOf(i)
			if because, denied := c.denied[name]; denied {
				c.verdict.object(at, "%s", deniedText(name, because))
				continue
			}
			if multiplexer, opens := opened[name]; opens {
				c.verdict.object(at, "%s is denied by policy, and on the architectures named libseccomp lets it through for %s", multiplexer, name)
			}
			free := c.limits.unbounded || c.limits.allowed[name]
			if free && (!guarded || name != "clone") {
				continue
			}
			c.withinBaseline(at, name, s.Args)
			if mixed[name] && !c.allowedAnyway(name) {
				c.verdict.object(at, "%s is allowed under conditions, and another rule denies it with another effect than the default "+
					"action: libseccomp can let through more than both say; leave the denying rule out", name)
			}
		}
	}
}

// mixed are the syscalls that some rule denies with another effect than the
// default action, which denies too. Where further rules for one syscall have
// conditions, libseccomp 2.5.4 merges them into filters that let through what
// none of them allows; a test in package compile shows one. Rules that do what
// the default does are left out of the filter and do no harm.
func (p *Profile) mixed() map[string]bool {
	names := map[string]bool{}
	for _, s := range p.Syscalls {
		if !s.Action.Denies() || sameEffect(s.Action, s.ErrnoRet, p.DefaultAction, p.DefaultErrnoRet) {
			continue
		}
		for _, name := range s.Names {
			names[name] = true
		}
	}
	return names
}

// allowedAnyway reports whether the baseline allows name with any arguments
// wherever the profile reaches.
func (c *check) allowedAnyway(name string) bool {
	return !slices.ContainsFunc(c.reaches, func(f archFacts) bool {
		_, ok := withinOne(f, name, nil)
		return !ok && !theBaseline().lacks(f, name)
	})
}

// openedMultiplexers maps syscalls to the denied multiplexer that a rule for
// them lets through too: libseccomp makes a second rule of it, without the
// condition on the first argument (libseccomp src/arch-x86.c, x86_rule_add).
// Only architectures that the profile names, or all where it names none, are
// asked: nothing in a profile keeps it from the others.
func (c *check) openedMultiplexers() map[string]string {
	opened := map[string]string{}
	for _, multiplexer := range []string{"socketcall", "ipc"} {
		having := theBaseline().tables[multiplexer]
		reached := slices.ContainsFunc(c.reaches, func(f archFacts) bool {
			named := len(c.profile.Architectures) == 0 || slices.Contains(c.profile.Architectures, f.arch)
			return named && slices.Contains(having, f.names)
		})
		if !reached || !slices.Contains(c.limits.denied, multiplexer) {
			continue
		}
		for _, part := range multiplexed(multiplexer) {
			opened[part] = multiplexer
		}
	}
	return opened
}

func deniedText(name, because string) string {
	if name == because {
		return fmt.Sprintf("%s is denied by policy", name)
	}
	return fmt.Sprintf("%s is denied by policy, since it does the work of %s", name, because)
}

// withinBaseline objects unless each of the rules implies one of the baseline
// on every architecture that the profile reaches.
func (c *check) withinBaseline(at, name string, args []Arg) {
	var failing []archFacts
	judged := 0
	for _, f := range c.reaches {
		if theBaseline().lacks(f, name) {
			continue
		}
		judged++
		if _, ok := withinOne(f, name, args); !ok {
			failing = append(failing, f)
		}
	}
	if len(failing) == 0 {
		return
	}
	where := ""
	if len(failing) < judged {
		where = on(failing[0], c.profile)
	}
	base := theBaseline().rules[failing[0].goarch][name]
	if len(base) == 0 {
		c.verdict.object(at, "%s is beyond %s%s%s", name, BaselineRuntimeDefault, where, c.hint(name))
		return
	}
	rule, _ := withinOne(failing[0], name, args)
	c.verdict.object(at, "%s is allowed %s%s, %s only when %s", name, rule.when(), where,
		BaselineRuntimeDefault, alternatives(base))
}

// withinOne returns ok when each rule of args implies one of the baseline of f,
// and otherwise the first that does not.
func withinOne(f archFacts, name string, args []Arg) (conjunction, bool) {
	base := theBaseline().rules[f.goarch][name]
	for _, rule := range conjunctions(args) {
		if !slices.ContainsFunc(base, func(d conjunction) bool { return rule.implies(d, f.narrow) }) {
			return rule, false
		}
	}
	return nil, true
}

// on names an architecture where the profile does not say that it is meant.
func on(f archFacts, p *Profile) string {
	if slices.Contains(p.Architectures, f.arch) {
		return " on " + string(f.arch)
	}
	return fmt.Sprintf(" on %s (nodes of that kind would take the profile too: name the architectures it is for)", f.arch)
}

// hint says what an unknown name may have meant, for problems that are shown.
func (c *check) hint(name string) string {
	if len(c.verdict.problems) >= shownProblems {
		return ""
	}
	return c.kind.hint(name)
}

func (c conjunction) when() string {
	if len(c) == 0 {
		return "with any arguments"
	}
	return "when " + c.String()
}

func alternatives(base []conjunction) string {
	const shown = 4
	texts := make([]string, 0, len(base))
	for _, d := range base {
		texts = append(texts, d.String())
	}
	if len(texts) > shown {
		texts = append(texts[:shown], fmt.Sprintf("%d more", len(base)-shown))
	}
	return strings.Join(texts, ", or ")
}

// openDefault judges a profile that lets through what it does not name.
func (c *check) openDefault() {
	v, resolver := c.verdict, c.kind.resolver
	if resolver == nil {
		v.object("", "the default action %s does not deny, and without libseccomp nobody can tell here "+
			"which of the denying rules would be skipped", c.profile.DefaultAction)
		return
	}
	surely, conditional := map[string]bool{}, map[string]bool{}
	for _, s := range c.profile.Syscalls {
		if !s.Action.Denies() {
			continue
		}
		for i, name := range s.Names {
			if !resolver.Resolves(name) {
				v.object(s.PositionOf(i), "the rule that denies %s would be skipped: libseccomp does not know that name%s",
					name, c.hint(name))
			}
			surely[name] = surely[name] || len(s.Args) == 0
			conditional[name] = conditional[name] || len(s.Args) > 0
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.denied)) {
		// Several rules for one syscall are merged; only one alone is sure.
		if (!surely[name] || conditional[name]) && c.mayExist(name) {
			v.object("", "%s, and no unconditional rule denies it by itself", deniedText(name, c.denied[name]))
		}
	}
	if _, guarded := c.denied[namespaceGuard]; guarded && (!surely["clone"] || conditional["clone"]) {
		v.object("", "%s is denied by policy, and clone can do its work: deny clone, or use a default action "+
			"that denies and allow clone as %s does", namespaceGuard, BaselineRuntimeDefault)
	}
}

// mayExist reports whether an architecture that the profile reaches may have
// the syscall.
func (c *check) mayExist(name string) bool {
	having := theBaseline().tables[name]
	return len(having) == 0 || slices.ContainsFunc(c.reaches, func(f archFacts) bool {
		return f.names == "" || slices.Contains(having, f.names)
	})
}
