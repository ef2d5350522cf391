package reason_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/confine-dev/confine/pkg/reason"
)

// row is one line of the table in docs/reasons.md.
type row struct {
	Reason                reason.Reason
	Meaning, Fate, Advice string
}

// documented reads the table.
func documented(t *testing.T) []row {
	t.Helper()
	text, err := os.ReadFile("../../docs/reasons.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, found := strings.Cut(string(text), "|---|---|---|---|\n")
	if !found {
		t.Fatal("docs/reasons.md has no table of four columns")
	}
	var rows []row
	for line := range strings.Lines(table) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		if len(cells) != 4 {
			t.Fatalf("not four cells: %s", line)
		}
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		rows = append(rows, row{reason.Reason(cells[0]), cells[1], cells[2], cells[3]})
	}
	return rows
}

func TestDocumentListsTheClosedSet(t *testing.T) {
	t.Parallel()
	type fate struct {
		Reason reason.Reason
		Fate   string
	}
	var want, got []fate
	for _, r := range reason.All() {
		want = append(want, fate{r, string(r.Fate())})
	}
	for _, r := range documented(t) {
		got = append(got, fate{r.Reason, r.Fate})
		for _, sentence := range []string{r.Meaning, r.Advice} {
			if !strings.HasSuffix(sentence, ".") {
				t.Errorf("%s: %q is no sentence", r.Reason, sentence)
			}
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("docs/reasons.md differs from reason.All(): -code +document:\n%s", diff)
	}
}

func TestEveryReasonIsComplete(t *testing.T) {
	t.Parallel()
	// Conditions' reasons must fit the pattern of Kubernetes
	// (metav1.Condition.Reason).
	pattern := regexp.MustCompile(`^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$`)
	seen := map[reason.Reason]bool{}
	for _, r := range reason.All() {
		switch {
		case seen[r]:
			t.Errorf("%s stands twice in the set", r)
		case !r.Valid():
			t.Errorf("%s is not valid", r)
		case !pattern.MatchString(string(r)):
			t.Errorf("%s does not fit a condition's reason", r)
		case r.Advice() == "" || strings.HasSuffix(r.Advice(), "."):
			t.Errorf("%s: advice %q", r, r.Advice())
		}
		switch r.Fate() {
		case reason.Retry, reason.Wait, reason.Stalled:
		default:
			t.Errorf("%s: fate %q", r, r.Fate())
		}
		seen[r] = true
	}
	if len(seen) == 0 {
		t.Error("the set is empty")
	}
}

func TestAReasonOutsideTheSet(t *testing.T) {
	t.Parallel()
	r := reason.Reason("Whatever")
	if r.Valid() || r.Advice() != "" || r.Fate() != reason.Retry {
		t.Errorf("valid %t, advice %q, fate %s", r.Valid(), r.Advice(), r.Fate())
	}
}

func TestAllReturnsACopy(t *testing.T) {
	t.Parallel()
	reason.All()[0] = "Changed"
	if got := reason.All()[0]; got != reason.NoTrustPolicy {
		t.Errorf("the set can be changed from outside: %s", got)
	}
}

func TestErrorIs(t *testing.T) {
	t.Parallel()
	err := fmt.Errorf("pulling: %w", reason.New(reason.Revoked, "registry.example/web", "by hand: %w", io.ErrUnexpectedEOF))
	cases := map[string]struct {
		target error
		want   bool
	}{
		"its reason":     {reason.Revoked, true},
		"another reason": {reason.TooLarge, false},
		"its cause":      {io.ErrUnexpectedEOF, true},
		"another error":  {io.EOF, false},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := errors.Is(err, tc.target); got != tc.want {
				t.Errorf("errors.Is(%v, %v) = %t", err, tc.target, got)
			}
		})
	}
	if errors.Is(err, &reason.Error{Reason: reason.Revoked}) {
		t.Error("two errors of one reason are not the same error")
	}
	if !errors.Is(reason.Revoked, reason.Revoked) {
		t.Error("a bare reason is itself")
	}
}

func TestNewKeepsTheCause(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		err  *reason.Error
		text string
		want error
	}{
		"with a cause":    {reason.New(reason.NoSpace, "store", "writing %s: %w", "a", io.ErrShortWrite), "NoSpace: store: writing a: short write", io.ErrShortWrite},
		"without a cause": {reason.New(reason.NoSpace, "store", "writing %s", "a"), "NoSpace: store: writing a", nil},
		"without object":  {reason.New(reason.NoSpace, "", "full"), "NoSpace: full", nil},
		"nothing at all":  {&reason.Error{Reason: reason.NoSpace}, "NoSpace", nil},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if tc.err.Error() != tc.text {
				t.Errorf("renders %q, want %q", tc.err, tc.text)
			}
			if got := errors.Unwrap(tc.err); !errors.Is(got, tc.want) || (got == nil) != (tc.want == nil) {
				t.Errorf("cause %v, want %v", got, tc.want)
			}
		})
	}
}

func TestWithAdviceLeavesTheOriginal(t *testing.T) {
	t.Parallel()
	general := reason.New(reason.TooLarge, "web", "64 layers")
	general.RetryAfter = time.Second
	exact := general.WithAdvice("use %d", 3)
	if exact.WhatToDo() != "use 3" || exact.RetryAfter != time.Second || exact.Error() != general.Error() {
		t.Errorf("not a copy with other advice: %+v", exact)
	}
	if general.WhatToDo() != reason.TooLarge.Advice() {
		t.Errorf("the original now says %q", general.WhatToDo())
	}
}

func TestOf(t *testing.T) {
	t.Parallel()
	inner := reason.New(reason.RateLimited, "inner", "429")
	outer := reason.New(reason.RegistryUnavailable, "outer", "all mirrors failed: %w", inner)
	got, ok := reason.Of(fmt.Errorf("pulling: %w", outer))
	if !ok || got != outer {
		t.Errorf("Of = %v, %t; want the outermost", got, ok)
	}
	if !errors.Is(got, reason.RateLimited) {
		t.Error("the inner reason is lost")
	}
	for name, err := range map[string]error{"nil": nil, "foreign": io.EOF, "a bare reason": reason.Revoked} {
		if got, ok := reason.Of(err); ok {
			t.Errorf("%s: Of = %v", name, got)
		}
	}
}
