package selinux_test

import (
	"errors"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/confine-dev/confine/pkg/profile/selinux/internal/cil"
)

// outline writes a tree as secil2tree does, a token a line. It does not quote
// strings, since that program only quotes some.
func outline(n *cil.Node, to []string) []string {
	if !n.List {
		return append(to, n.Text)
	}
	if len(n.Items) == 0 {
		return append(to, "()")
	}
	to = append(to, "(")
	for _, item := range n.Items {
		to = outline(item, to)
	}
	return append(to, ")")
}

// agrees holds that what our reader accepts is for libsepol the same tree.
// It reports whether our reader accepts it.
func (c *compiler) agrees(name, text string) bool {
	c.t.Helper()
	forms, err := cil.Parse([]byte(text))
	if err != nil {
		return false
	}
	var want []string
	for _, form := range forms {
		want = outline(form, want)
	}
	out, said, ok := c.parseTree(text)
	if !ok {
		c.t.Errorf("%s: secil2tree refuses what is accepted here: %s\n%q", name, said, text)
		return true
	}
	if diff := cmp.Diff(want, out); diff != "" {
		c.t.Errorf("%s: read otherwise by secil2tree:\n%s\n%q", name, diff, text)
	}
	return true
}

// parseTree is what libsepol's parser makes of the module alone.
func (c *compiler) parseTree(text string) (lines []string, said string, ok bool) {
	c.t.Helper()
	alone := *c
	alone.base = ""
	out, said, ok := alone.run(text, "secil2tree", "-A", "parse")
	for line := range strings.Lines(out) {
		line = strings.Trim(line, " \n")
		if len(line) > 1 && line[0] == '"' {
			line = strings.Trim(line, `"`)
		}
		lines = append(lines, line)
	}
	// One list around all, which begins with the name of the file.
	const head = 5
	if !ok || len(lines) < head+1 {
		return nil, said, false
	}
	return lines[head : len(lines)-1], said, true
}

// TestTheReaderAgreesWithLibsepol: a text that two readers split differently
// would be judged by one meaning and installed with another.
func TestTheReaderAgreesWithLibsepol(t *testing.T) {
	c := newCompiler(t)
	for name, p := range good() {
		if !c.agrees(name, p.Data) {
			t.Errorf("%s is refused", name)
		}
	}
	for name, e := range corpus() {
		c.agrees(name, e.text)
	}
	tokens := []string{"(", "(", "(", ")", ")", ")", " ", " ", "\n", "\t", "a", "block", "x.y", "[]'`{}", "0", "#", "-", "\"", "\"a b\"", "\"(\"", ";", "; \"", ";;", "'", "\\"}
	random := rand.New(rand.NewPCG(1, 2)) // a fixed seed: the same texts each time
	accepted := 0
	for range 4000 {
		var b strings.Builder
		b.WriteString("(a")
		for range 1 + random.IntN(8) {
			b.WriteString(tokens[random.IntN(len(tokens))])
		}
		b.WriteString(")")
		if accepted < 300 && c.agrees("random", b.String()) {
			accepted++
		}
	}
	if accepted < 200 {
		t.Errorf("only %d of the random texts are CIL: too few to tell", accepted)
	}
}

func TestPositionsAreOfTheFirstByte(t *testing.T) {
	text := "; ä\n\t(a \"b c\"\n  d)"
	forms, err := cil.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, n := range append([]*cil.Node{forms[0]}, forms[0].Items...) {
		got = append(got, cil.Position([]byte(text), n.Offset)+" "+n.String())
	}
	if diff := cmp.Diff([]string{`2:2 (a "b c" d)`, "2:3 a", `2:5 "b c"`, "3:3 d"}, got); diff != "" {
		t.Error(diff)
	}
	_, err = cil.Parse([]byte("(a"))
	if at, ok := errors.AsType[*cil.Error](err); !ok || at.Offset != 0 {
		t.Errorf("got %v", err)
	}
}
