package cli

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestWorkThatHangsIsNotWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		defer close(release)
		start := time.Now()
		_, err := within(time.Minute, func() (int, error) { <-release; return 1, nil })
		if !errors.Is(err, errTooSlow) || time.Since(start) != time.Minute {
			t.Errorf("error %v after %s", err, time.Since(start))
		}
	})
}

func TestWorkInTimeGivesItsResult(t *testing.T) {
	cause := errors.New("cause")
	if value, err := within(time.Minute, func() (int, error) { return 1, cause }); value != 1 || !errors.Is(err, cause) {
		t.Errorf("%d, %v", value, err)
	}
}

// TestLintJudgesNamesForANamespace: without a namespace any that is well formed
// will do, since a file does not say where it goes.
func TestLintJudgesNamesForANamespace(t *testing.T) {
	files := []string{example(t, "nginx.json"), example(t, "nginx.aa"), example(t, "nginx.cil")}
	b := newBench(t)
	for name, tc := range map[string]struct {
		args      []string
		code      int
		forbidden int
	}{
		"any namespace":     {nil, ExitOK, 0},
		"its own":           {[]string{"--namespace", "web"}, ExitOK, 0},
		"its own, short":    {[]string{"-n", "web"}, ExitOK, 0},
		"another":           {[]string{"-n", "shop"}, ExitRefused, 2},
		"an empty one":      {[]string{"-n", ""}, ExitRefused, 2},
		"no namespace, a *": {[]string{"-n", "*"}, ExitRefused, 2},
	} {
		r := b.confine(append(append([]string{"lint", "--strict", "-o", "json"}, files...), tc.args...)...)
		var found []linted
		if err := json.Unmarshal([]byte(r.out), &found); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		forbidden := 0
		for _, l := range found {
			if strings.Contains(l.Forbidden, "belongs to the namespace web") {
				forbidden++
			}
		}
		if r.code != tc.code || forbidden != tc.forbidden || len(found) != len(files) {
			t.Errorf("%s: exit %d, %d of %d are of another namespace", name, r.code, forbidden, len(found))
		}
	}
}
