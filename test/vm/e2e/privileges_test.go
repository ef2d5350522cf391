//go:build lsm_apparmor || lsm_selinux

package e2e_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/confine-dev/confine/pkg/node/fetch"
	"github.com/confine-dev/confine/pkg/sandbox"
)

// privileges holds what the agent's processes have left, of all that root had
// who started it: each thread is asked.
func privileges(n *node) {
	n.start()
	n.installed(n.want(n.push(first(), n.key), ""))
	agent := n.agent.Process.Pid
	n.threads(agent, sandbox.Status{
		Permitted: agentCapabilities(), Effective: agentCapabilities(), Bounding: agentCapabilities(), NoNewPrivs: true, Filtered: true,
	})
	child := n.child(agent)
	n.threads(child, sandbox.Status{
		UID: [4]int{fetch.DefaultUID, fetch.DefaultUID, fetch.DefaultUID, fetch.DefaultUID},
		GID: [4]int{fetch.DefaultUID, fetch.DefaultUID, fetch.DefaultUID, fetch.DefaultUID}, NoNewPrivs: true, Filtered: true,
		// What its parent had bounded. Taking that away needs a capability, and
		// with no_new_privs nothing can be had of it.
		Bounding: agentCapabilities(),
	})
	if got := field(n, child, "status", "Groups:"); got != "" {
		n.t.Errorf("the fetch child has the groups %s", got)
	}
	for _, pid := range []int{agent, child} {
		if got := field(n, pid, "limits", "Max core file size"); !strings.HasPrefix(got, "0 ") {
			n.t.Errorf("process %d may write core files: %s", pid, got)
		}
	}
	// Whoever ends the child ends nothing else.
	process, err := os.FindProcess(child)
	must(n.t, err)
	must(n.t, process.Kill())
	n.installed(n.want(n.push(second(), n.key), ""))
	if again := n.child(agent); again == child {
		n.t.Error("the fetch child was not ended")
	}
}

// agentCapabilities are those that the hosts of AppArmor and SELinux need, and
// starting a child of another user.
func agentCapabilities() sandbox.Capabilities {
	return sandbox.SetOf(sandbox.CapKill, sandbox.CapSetgid, sandbox.CapSetuid, sandbox.CapSysChroot, sandbox.CapMACAdmin)
}

// threads expects the same of each thread of a process.
func (n *node) threads(pid int, want sandbox.Status) {
	n.t.Helper()
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	must(n.t, err)
	for _, task := range tasks {
		thread, err := strconv.Atoi(task.Name())
		must(n.t, err)
		got, err := sandbox.StatusOf(thread)
		if os.IsNotExist(err) {
			continue // it ended
		}
		must(n.t, err)
		if got != want {
			n.t.Errorf("thread %d of process %d (%s):\ngot  %+v\nwant %+v", thread, pid, commandLine(pid), got, want)
			return
		}
	}
}

// child is the agent's only child.
func (n *node) child(agent int) int {
	n.t.Helper()
	var found int
	n.eventually("the agent has a fetch child", func() error {
		found = 0
		processes, err := filepath.Glob("/proc/[0-9]*/status")
		if err != nil {
			return err
		}
		for _, file := range processes {
			pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
			if err != nil {
				return err
			}
			if text, err := os.ReadFile(file); err != nil || !strings.Contains(string(text), fmt.Sprintf("\nPPid:\t%d\n", agent)) {
				continue
			}
			if strings.Contains(commandLine(pid), " fetch ") {
				found = pid
			}
		}
		if found == 0 {
			return fmt.Errorf("process %d has none", agent)
		}
		// It confines itself first.
		if s, err := sandbox.StatusOf(found); err != nil || !s.Filtered {
			return fmt.Errorf("it is not confined yet: %+v, %w", s, err)
		}
		return nil
	})
	return found
}

func commandLine(pid int) string {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)) // empty where it ended
	return string(bytes.ReplaceAll(text, []byte{0}, []byte{' '}))
}

// field is what a file of /proc says after a word at the start of a line.
func field(n *node, pid int, file, word string) string {
	n.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, file))
	must(n.t, err)
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, word); ok {
			return strings.TrimSpace(value)
		}
	}
	n.t.Fatalf("/proc/%d/%s does not speak of %s", pid, file, word)
	return ""
}
