package policy

import (
	"regexp"
	"slices"
	"strings"
)

// grammar says what may stand in a rule that is not about files.
type grammar struct {
	access []string // words before all others, also in parentheses
	keys   []string // of key=value
	inner  []string // of peer=( )
	words  int      // how many free words at most
	word   string   // what a free word matches
	arrow  bool
}

func grammars() map[Class]grammar {
	rw := []string{"r", "w", "rw", "wr", "read", "write"}
	sockets := append([]string{"create", "bind", "listen", "accept", "connect", "shutdown", "getattr", "setattr", "getopt", "setopt", "send", "receive"}, rw...)
	mount := grammar{keys: []string{"fstype", "vfstype", "options", "option"}, words: 1, word: `.*`}
	arrow := mount
	arrow.arrow = true
	return map[Class]grammar{
		Capability:    {words: 64, word: `[a-z_]+`},
		Network:       {access: sockets, keys: []string{"ip", "port", "interface"}, inner: []string{"ip", "port"}, words: 3, word: `[a-z0-9_-]+`},
		Mount:         arrow,
		Remount:       mount,
		Umount:        mount,
		PivotRoot:     {keys: []string{"oldroot"}, words: 1, word: `[/@].*`, arrow: true},
		Ptrace:        {access: append([]string{"trace", "tracedby", "readby"}, rw...), keys: []string{"peer"}},
		Signal:        {access: append([]string{"send", "receive"}, rw...), keys: []string{"set", "peer"}},
		DBus:          {access: append([]string{"send", "receive", "bind", "eavesdrop"}, rw...), keys: []string{"bus", "path", "interface", "member", "name", "label"}, inner: []string{"name", "label"}},
		Unix:          {access: sockets, keys: []string{"type", "protocol", "addr", "label", "attr", "opt"}, inner: []string{"addr", "label"}},
		ChangeProfile: {words: 1, word: `[/@].*`, arrow: true},
		Userns:        {access: []string{"create"}},
		IOUring:       {access: []string{"override_creds", "sqpoll"}, keys: []string{"label"}},
		Mqueue:        {access: append([]string{"create", "open", "delete", "getattr", "setattr"}, rw...), keys: []string{"type", "label"}, words: 1, word: `(/.*|[0-9*?].*)`},
		All:           {},
	}
}

func capabilities() []string {
	return strings.Fields(`audit_control audit_read audit_write block_suspend bpf checkpoint_restore chown dac_override
		dac_read_search fowner fsetid ipc_lock ipc_owner kill lease linux_immutable mac_admin mac_override mknod net_admin
		net_bind_service net_broadcast net_raw perfmon setfcap setgid setpcap setuid sys_admin sys_boot sys_chroot sys_module
		sys_nice sys_pacct sys_ptrace sys_rawio sys_resource sys_time sys_tty_config syslog wake_alarm`)
}

// IsCapability reports whether name is a capability, in lower case without CAP_.
func IsCapability(name string) bool { return slices.Contains(capabilities(), name) }

func rlimits() []string {
	return strings.Fields("cpu fsize data stack core rss nofile ofile as nproc memlock locks sigpending msgqueue nice rtprio rttime")
}

func rlimitPattern() *regexp.Regexp {
	return regexp.MustCompile(`\Aset[ \t]+rlimit[ \t]+([a-z]+)[ \t]*<=[ \t]*(-?[0-9]{1,19}|infinity)[ \t]*([A-Za-z]{1,12})?`)
}

// terms reads what stands behind the keyword of a rule, up to its comma.
func (p *parser) terms(r *Rule) *Error {
	g, t := grammars()[r.Class], &r.Terms
	free := regexp.MustCompile(`\A(` + g.word + `)\z`)
	for {
		if err := p.within(); err != nil {
			return err
		}
		start := p.off
		var err *Error
		switch word := p.nextKeyword(); {
		case p.peek() == ',':
			return p.complete(r, start)
		case p.peek() == eof:
			return p.fail(start, "expected a comma at the end of the rule, found the end of the text")
		case p.atCondition():
			err = p.oneCondition(g, t)
		case p.at("->"):
			err = p.termsTarget(g, t)
		case t.Arrow:
			err = p.fail(start, "expected a comma at the end of the rule, found %s", p.found())
		case p.peek() == '(':
			err = p.accessList(g, t)
		case r.Class == ChangeProfile && len(t.Words) == 0 && t.Safety == "" && (word == "safe" || word == "unsafe"):
			t.Safety = word
			p.off += len(word)
		case slices.Contains(g.access, word) && len(t.Access)+len(t.Words)+len(t.Conditions) == 0:
			t.Access = []string{word}
			p.off += len(word)
		default:
			err = p.freeWord(g, t, free)
		}
		if err != nil {
			return err
		}
	}
}

// complete holds the parts of a rule against each other.
func (p *parser) complete(r *Rule, at int) *Error {
	t := &r.Terms
	switch r.Class {
	case Capability:
		for _, name := range t.Words {
			if !IsCapability(name) {
				return p.fail(at, "%s is no capability", quote(name))
			}
		}
	case ChangeProfile:
		if t.Safety != "" && len(t.Words) == 0 {
			return p.fail(at, "%q needs an executable", t.Safety)
		}
	}
	return nil
}

func (p *parser) termsTarget(g grammar, t *Terms) *Error {
	start := p.off
	if !g.arrow || t.Arrow {
		return p.fail(start, "-> may not stand here")
	}
	if _, err := p.arrow(); err != nil {
		return err
	}
	target, err := p.text(false)
	t.Arrow, t.Target = true, target
	return err
}

func (p *parser) freeWord(g grammar, t *Terms, free *regexp.Regexp) *Error {
	start := p.off
	isQuoted := p.peek() == '"'
	word, err := p.text(false)
	if err != nil {
		return err
	}
	if len(t.Words) >= g.words || !free.MatchString(word) {
		return p.fail(start, "%s may not stand here", quote(word))
	}
	if !isQuoted && !isPath(word) && strings.ContainsAny(word, "=()&#") {
		return p.fail(start, "%s needs quotes around it", quote(word))
	}
	t.Words = append(t.Words, word)
	return nil
}

func (p *parser) accessList(g grammar, t *Terms) *Error {
	start := p.off
	if len(g.access) == 0 || len(t.Access)+len(t.Words)+len(t.Conditions) > 0 {
		return p.fail(start, "a list may not stand here")
	}
	p.off++
	items, err := p.list(p.listText)
	if err != nil {
		return err
	}
	for _, it := range items {
		if !slices.Contains(g.access, it.text) {
			return p.fail(it.off, "%s is no access for this rule", quote(it.text))
		}
		t.Access = append(t.Access, it.text)
	}
	if len(items) == 0 {
		return p.fail(start, "a list of access may not be empty")
	}
	return nil
}

func (p *parser) listText() (item, *Error) {
	start := p.off
	text, err := p.text(true)
	return item{start, text}, err
}

// atCondition reports whether key= or "key in (" stands next.
func (p *parser) atCondition() bool {
	rest := p.src[p.off:]
	n := 0
	for n < len(rest) && isNameByte(rest[n]) {
		n++
	}
	if n == 0 || !isNameStart(rest[0]) {
		return false
	}
	after := strings.TrimLeft(rest[n:], " \t")
	if strings.HasPrefix(after, "=") {
		return true
	}
	in, found := strings.CutPrefix(after, "in")
	return found && len(after) < len(rest)-n && strings.HasPrefix(strings.TrimLeft(in, " \t"), "(")
}

func (p *parser) oneCondition(g grammar, t *Terms) *Error {
	if t.Arrow {
		return p.fail(p.off, "conditions stand before ->")
	}
	if len(t.Conditions) >= MaxValues {
		return p.fail(p.off, "more conditions than the %d allowed", MaxValues)
	}
	start := p.off
	end := p.off
	for end < len(p.src) && isNameByte(p.src[end]) {
		end++
	}
	key := p.src[start:end]
	if !slices.Contains(g.keys, key) && (key != "peer" || len(g.inner) == 0) {
		return p.fail(start, "%s is no condition of this rule", quote(key))
	}
	c, err := p.condition(key, g.inner)
	if err != nil {
		return err
	}
	t.Conditions = append(t.Conditions, c)
	return nil
}

// condition reads key=value, key=(values) or key in (values); where inner is
// given, or for xattrs, peer=(key=value ...).
func (p *parser) condition(key string, inner []string) (Condition, *Error) {
	c := Condition{Key: key}
	start := p.off
	p.off += len(key)
	p.blanks()
	nested := key == "xattrs" || key == "peer" && len(inner) > 0
	switch {
	case p.peek() == '=':
		p.off++
	case p.at("in") && !nested:
		p.off += len("in")
		c.In = true
	default:
		return c, p.fail(p.off, "expected = after %q, found %s", key, p.found())
	}
	p.blanks()
	switch {
	case p.peek() == '(' && nested:
		return c, p.innerConditions(&c, inner)
	case p.peek() == '(':
		p.off++
		items, err := p.list(p.listText)
		if err != nil {
			return c, err
		}
		if len(items) == 0 {
			return c, p.fail(start, "%s has no values", key)
		}
		c.List = true
		for _, it := range items {
			c.Values = append(c.Values, it.text)
		}
		return c, nil
	case nested || c.In:
		return c, p.fail(p.off, "expected ( after %q, found %s", key, p.found())
	}
	value, err := p.value()
	c.Values = []string{value}
	return c, err
}

func (p *parser) value() (string, *Error) {
	start := p.off
	if isSpace(p.peek()) {
		return "", p.fail(start, "expected a value on the same line, found %s", p.found())
	}
	isQuoted := p.peek() == '"'
	value, err := p.text(false)
	if err == nil && !isQuoted && strings.ContainsAny(value, "()=") {
		err = p.fail(start, "%s needs quotes around it", quote(value))
	}
	return value, err
}

func (p *parser) innerConditions(to *Condition, keys []string) *Error {
	p.off++
	to.List = true
	_, err := p.list(func() (item, *Error) {
		start := p.off
		end := start
		for end < len(p.src) && strings.IndexByte("=,() \t\n\"", p.src[end]) < 0 {
			end++
		}
		key := p.src[start:end]
		if key == "" || keys != nil && !slices.Contains(keys, key) {
			return item{}, p.fail(start, "%s is no condition here", p.found())
		}
		p.off = end
		p.blanks()
		if p.peek() != '=' {
			return item{}, p.fail(p.off, "expected = after %s, found %s", quote(key), p.found())
		}
		p.off++
		p.blanks()
		if isSpace(p.peek()) {
			return item{}, p.fail(p.off, "expected a value on the same line, found %s", p.found())
		}
		value, err := p.text(true)
		to.Inner = append(to.Inner, Condition{Key: key, Values: []string{value}})
		return item{start, key}, err
	})
	if err == nil && len(to.Inner) == 0 {
		return p.fail(p.off-1, "%s has no conditions", to.Key)
	}
	return err
}
