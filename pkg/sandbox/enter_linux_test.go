//go:build amd64 || arm64

package sandbox

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// entering runs a role that enters, and reads what it saw.
func entering(t *testing.T, name string, attr *syscall.SysProcAttr, env ...string) (seen, int, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe")
	cmd.Args = []string{"agent-under-test"}
	cmd.Env = append(os.Environ(), append(env, role+"="+name)...)
	log := &Output{Max: 1 << 16}
	cmd.Stderr, cmd.SysProcAttr, cmd.Dir = log, attr, "/"
	out, err := cmd.Output()
	if err != nil {
		return seen{}, 0, fmt.Errorf("%w: %s", err, log)
	}
	var s seen
	must(t, json.Unmarshal(out, &s))
	return s, cmd.Process.Pid, nil
}

func asRoot(t *testing.T) Status {
	t.Helper()
	s, err := StatusOf(0)
	must(t, err)
	if os.Geteuid() != 0 || !s.Effective.Has(CapSetpcap) {
		t.Skip("the kernel lets only root with CAP_SETPCAP drop the bounding set")
	}
	return s
}

func TestEnterAsRoot(t *testing.T) {
	t.Parallel()
	before := asRoot(t)
	got, pid, err := entering(t, "enter", nil)
	must(t, err)
	keep := SetOf(kept()...)
	want := before
	want.Permitted, want.Effective, want.Bounding = before.Permitted&keep, before.Effective&keep, before.Bounding&keep
	want.Inheritable, want.Ambient, want.NoNewPrivs = 0, 0, true
	if diff := cmp.Diff(seen{Entered: Entered{Status: want}, Program: filtered(want), PID: pid, Comm: "agent-under-tes", Writable: true}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// filtered is the status of a program that this one starts as a tool.
func filtered(s Status) Status {
	s.Filtered = true
	return s
}

// TestEnterWithoutSetpcap cannot drop what is in the bounding set, and what it
// starts does not get it either.
func TestEnterWithoutSetpcap(t *testing.T) {
	t.Parallel()
	before := asRoot(t)
	got, _, err := entering(t, "less", nil)
	must(t, err)
	if !got.Bounding.Has(CapSysChroot) {
		t.Error("it could be dropped: this shows nothing")
	}
	keep := SetOf(kept()...) & before.Permitted
	for what, s := range map[string]Status{"process": got.Status, "program": got.Program} {
		if s.UID[0] != 0 || s.Permitted != keep || s.Effective != keep || !s.NoNewPrivs {
			t.Errorf("%s: %+v", what, s)
		}
	}
}

func TestEnterAsAnotherUser(t *testing.T) {
	t.Parallel()
	asRoot(t)
	attr := func(ambient ...uintptr) *syscall.SysProcAttr {
		return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: Nobody, Gid: Nobody}, AmbientCaps: ambient}
	}
	for name, test := range map[string]struct {
		attr *syscall.SysProcAttr
	}{
		"without capabilities":              {attr()},
		"with one that could be handed on":  {attr(unix.CAP_NET_RAW)},
		"with one to keep, to be handed on": {attr(unix.CAP_KILL)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, _, err := entering(t, "enter", test.attr)
			must(t, err)
			for what, s := range map[string]Status{"process": got.Status, "program": got.Program} {
				if s.UID[0] != Nobody || s.Permitted|s.Effective|s.Inheritable|s.Ambient != 0 || !s.NoNewPrivs {
					t.Errorf("%s: %+v", what, s)
				}
			}
		})
	}
}

func TestEnterReadOnly(t *testing.T) {
	t.Parallel()
	abi, err := landlockABI()
	must(t, err)
	got, _, err := entering(t, "close", nil)
	must(t, err)
	if got.Landlock != abi || got.Writable != (abi == 0) {
		t.Errorf("Landlock %d, the kernel has %d; files can be written to: %v", got.Landlock, abi, got.Writable)
	}
	if abi == 0 {
		t.Skip("the kernel has no Landlock")
	}
}

// TestEnterBelievesNothing gives the variable that only an exec of its own sets.
func TestEnterBelievesNothing(t *testing.T) {
	t.Parallel()
	asRoot(t)
	for _, name := range []string{"enter", "close"} {
		for _, said := range []string{"", "0", "1", "7", "99"} {
			if got, _, err := entering(t, name, nil, entered+"="+said); err == nil {
				t.Errorf("%s, %q: %+v", name, said, got)
			}
		}
	}
}

func TestAgentWorks(t *testing.T) {
	t.Parallel()
	if out, err := as(t, "agent"); err != nil || out != "works" {
		t.Errorf("%q, %v", out, err)
	}
}

func TestFetchWorks(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte(strings.Repeat("x", 1<<20)))
	}))
	defer server.Close()
	if out, err := as(t, "fetch", "CONFINE_TEST_SERVER="+server.Listener.Addr().String()); err != nil || out != "works" {
		t.Errorf("%q, %v", out, err)
	}
}

// TestFilterIsInForce makes the dangerous calls with and without the filter: what
// the kernel took a look at before, it refuses at once.
func TestFilterIsInForce(t *testing.T) {
	t.Parallel()
	probed := func(env ...string) map[string]int {
		out, err := as(t, "probe", env...)
		must(t, err)
		found := map[string]int{}
		must(t, json.Unmarshal([]byte(out), &found))
		return found
	}
	without, with := probed(), probed("CONFINE_TEST_FILTER=agent")
	shown := 0
	for name, errno := range with {
		want := unix.EPERM
		if name == "clone3" {
			want = unix.ENOSYS
		}
		if unix.Errno(errno) != want {
			t.Errorf("%s: %v", name, unix.Errno(errno))
		}
		if without[name] != errno {
			shown++
		}
	}
	t.Logf("%d of %d calls are refused for another reason without the filter", shown, len(with))
	if shown < 20 {
		t.Errorf("only %d calls show that the filter is in force", shown)
	}
}

func TestLimit(t *testing.T) {
	t.Parallel()
	out, err := as(t, "limits")
	must(t, err)
	for what, want := range map[string]string{"open files": "200", "processes": "300", "data size": "1073741824", "file size": "1", "core file size": "0"} {
		if line := limitLine(out, what); len(line) < 2 || line[0] != want || line[1] != want {
			t.Errorf("%s: %q, want %s", what, line, want)
		}
	}
}

func TestParseStatus(t *testing.T) {
	data, err := os.ReadFile("/proc/self/status")
	must(t, err)
	_, err = parseStatus(string(data))
	must(t, err)
	for _, key := range []string{"Uid", "CapBnd", "NoNewPrivs", "Seccomp"} {
		if s, err := parseStatus(strings.Replace(string(data), "\n"+key+":", "\nOther:", 1)); err == nil {
			t.Errorf("without %s: %+v", key, s)
		}
	}
	if s, err := parseStatus(strings.Replace(string(data), "CapEff:\t", "CapEff:\tz", 1)); err == nil {
		t.Errorf("damaged: %+v", s)
	}
}

func TestNames(t *testing.T) {
	for want, set := range map[string]Capabilities{"none": 0, "CAP_KILL,CAP_MAC_ADMIN": SetOf(CapMACAdmin, CapKill), "CAP_40": 1 << 40} {
		if set.String() != want {
			t.Errorf("%s, want %s", set, want)
		}
	}
	if got := (Status{Permitted: SetOf(CapKill)}).Missing(CapKill, CapSetuid); len(got) != 1 || got[0] != CapSetuid {
		t.Errorf("%v", got)
	}
}
