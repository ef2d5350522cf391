package cli

import (
	"os"
	"strings"
	"testing"
)

// Under such a profile the program could not even say why it ends.
func TestRunSaysThatNothingCanStart(t *testing.T) {
	b := newBench(t)
	for action, code := range map[string]int{"SCMP_ACT_ERRNO": ExitRefused, "SCMP_ACT_KILL_PROCESS": ExitRefused} {
		if err := os.WriteFile("tight.json", []byte(`{"defaultAction":"`+action+`"}`), 0o600); err != nil {
			t.Fatal(err)
		}
		r := b.confine("run", "--seccomp", "tight.json", "--", "true")
		if r.code != code || !strings.Contains(r.err, "execve") {
			t.Errorf("%s: exit %d\n%s", action, r.code, r.err)
		}
	}
}
