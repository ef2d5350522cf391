package selinux_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/profile/selinux"
	"github.com/confine-dev/confine/pkg/reason"
)

// TestNoEscapeIsAdmitted holds every row of the corpus against the default.
func TestNoEscapeIsAdmitted(t *testing.T) {
	if len(corpus()) < 225 {
		t.Errorf("the corpus has only %d escapes", len(corpus()))
	}
	for name, e := range corpus() {
		t.Run(name, func(t *testing.T) {
			k := selinux.NewKind()
			p, err := k.Parse("x.cil", []byte(e.text))
			if e.invalid {
				if !errors.Is(err, reason.ProfileInvalid) {
					t.Fatalf("got %v, want ProfileInvalid: %s", err, e.why)
				}
				return
			}
			if err != nil {
				t.Fatalf("Parse refuses what lint should explain: %v", err)
			}
			for _, limits := range [][]profile.Limits{nil, {nil}, {profile.Limits(`{}`)}, {profile.Limits(relaxed), nil}} {
				err := k.Constrain(p, profile.ForAnyone(), limits)
				if !errors.Is(err, reason.ProfileForbidden) {
					t.Fatalf("got %v under %q, want ProfileForbidden: %s", err, limits, e.why)
				}
				if at, _ := reason.Of(err); !strings.HasPrefix(at.Object, "x.cil:") {
					t.Errorf("it points at %q", at.Object)
				}
			}
		})
	}
}

// relaxed is a policy that would admit some rows, beside one that does not.
const relaxed = `{"allowedBlocks":["web","hos*"],"allowedTypes":["secret_t"],"allowedTemplates":["secrets_container"],
	"allowedPermissions":[{"class":"process","permissions":["ptrace"]}]}`

// TestEscapesAreReal shows with secilc that the rows do what they are said to:
// a corpus of texts that could do no harm would prove nothing.
func TestEscapesAreReal(t *testing.T) {
	c := newCompiler(t)
	harmless := c.conf(block(""))
	if said, ok := c.compiles(block(""), true); !ok {
		t.Fatalf("secilc refuses a harmless profile:\n%s", said)
	}
	for name, e := range corpus() {
		t.Run(name, func(t *testing.T) {
			inner := *c
			inner.t = t
			inner.demonstrate(e, harmless)
		})
	}
}

func (c *compiler) demonstrate(e escape, harmless string) {
	c.t.Helper()
	switch e.proof {
	case breach:
		open, compiled := c.compiles(e.text, false)
		guarded, held := c.compiles(e.text, true)
		if !compiled || held || !strings.Contains(guarded, "neverallow") {
			c.t.Errorf("it breaks no guard; without guards (%v):\n%s\nwith (%v):\n%s", compiled, open, held, guarded)
		}
	case shows:
		if said, compiled := c.compiles(e.text, false); !compiled {
			c.t.Fatalf("secilc refuses it:\n%s", said)
		}
		if conf := c.conf(e.text); !strings.Contains(conf, e.line) || strings.Contains(harmless, e.line) {
			c.t.Errorf("%q does not tell it from a harmless profile:\n%s", e.line, grep(conf, strings.Fields(e.line)[0]))
		}
	case hides:
		if conf := c.conf(e.text); strings.Contains(conf, e.line) || !strings.Contains(harmless, e.line) {
			c.t.Errorf("%q is not what it takes away:\n%s", e.line, grep(conf, strings.Fields(e.line)[1]))
		}
	case levels:
		conf, plain := c.conf(e.text, "-M", "true"), c.conf(block(""), "-M", "true")
		if !strings.Contains(conf, e.line) || strings.Contains(plain, e.line) {
			c.t.Errorf("%q does not tell it from a harmless profile:\n%s", e.line, grep(conf, strings.Fields(e.line)[0]))
		}
	case contexts:
		if said := c.fileContexts(e.text); !strings.Contains(said, e.line) {
			c.t.Errorf("%q is not among the labels of files:\n%s", e.line, said)
		}
	case users:
		if said, compiled := c.compiles(e.text, false); !compiled {
			c.t.Errorf("secilc refuses it:\n%s", said)
		}
	case breaks:
		if _, held := c.compiles(e.text, true); held {
			c.t.Error("secilc compiles it with all guards")
		}
	case refused:
		if _, compiled := c.compiles(e.text, false); compiled {
			c.t.Error("secilc compiles it: find out what it does")
		}
	case newer:
		// Where secilc knows it, it must not turn out to be harmless.
		if _, compiled := c.compiles(e.text, false); compiled && c.conf(e.text) == harmless {
			c.t.Error("secilc compiles it to the policy of a harmless profile")
		}
	default:
		c.t.Errorf("the proof %q is unknown", e.proof)
	}
}

// grep returns the lines of text with a word in them.
func grep(text, word string) string {
	var found []string
	for line := range strings.Lines(text) {
		if strings.Contains(line, word) && len(found) < 20 {
			found = append(found, line)
		}
	}
	return strings.Join(found, "")
}
