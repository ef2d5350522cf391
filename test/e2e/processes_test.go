//go:build e2e

package e2e_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/google/go-cmp/cmp"

	"github.com/confine-dev/confine/api/v1alpha1"
	"github.com/confine-dev/confine/test/e2e/lab"
	"github.com/confine-dev/confine/test/kube/cluster"
	"github.com/confine-dev/confine/test/procfs"
)

// Who runs the agent's processes, by the chart's defaults.
const (
	agentUser = 65527
	fetchUser = 65526
)

// Capabilities as bits of what /proc shows (include/uapi/linux/capability.h):
// KILL, SETGID, SETUID, SYS_CHROOT and MAC_ADMIN.
const kindsCapabilities = 1<<5 | 1<<6 | 1<<7 | 1<<18 | 1<<33

// tokenFolder is where the kubelet mounts tokens.
const tokenFolder = "/var/run/secrets/kubernetes.io"

// processesMayDoLittle looks at the agent's two processes on every node: what
// they run as, what the kernel lets them do, and what is mounted for them.
func processesMayDoLittle(s *scene) {
	for n := 1; n <= nodes; n++ {
		s.holdAgent(n, agentUser, 0)
		s.holdFetch(n)
	}
}

// fetchIsKilled kills the process that speaks to registries on all nodes. It
// comes back by itself, and the agents go on.
func fetchIsKilled(s *scene) {
	s.trustTeam()
	before, after := s.push("web", lab.Team, denyMkdir()), s.push("web", lab.Team, denyChmod())
	s.want("web", before, allAtOnce())
	s.ready("web", before, nodes)
	agents := map[int]int{}
	for n := 1; n <= nodes; n++ {
		agents[n] = s.process(n, agentRole)
		s.must(syscall.Kill(s.process(n, fetchRole), syscall.SIGKILL))
	}
	s.change("web", func(spec *v1alpha1.SecurityProfileSpec) { spec.Artifact = after })
	s.ready("web", after, nodes)
	s.tellMemory(1)
	s.logsKeepThePassword()
	for n := 1; n <= nodes; n++ {
		if now := s.process(n, agentRole); now != agents[n] {
			s.t.Errorf("%s: the agent is process %d, and was %d: it did not outlive its fetch process", cluster.NodeName(n), now, agents[n])
		}
	}
}

// tellMemory says what the processes on node n took at most.
func (s *scene) tellMemory(n int) {
	s.t.Helper()
	for _, does := range []role{agentRole, fetchRole} {
		peak, err := procfs.Peak(s.process(n, does))
		s.must(err)
		s.t.Logf("the %s process took %.0f MiB at most", does, peak)
	}
}

// logsKeepThePassword holds that no container of the agents says it.
func (s *scene) logsKeepThePassword() {
	s.t.Helper()
	out, err := s.Kubectl(s.ctx(), "logs", "--namespace="+lab.Namespace, "--selector=app.kubernetes.io/component=agent", "--all-containers", "--tail=-1")
	s.must(err)
	if !strings.Contains(out, "fetch child") {
		s.t.Errorf("that is not what agents log:\n%s", out)
	}
	if strings.Contains(out, s.Registry.Password) {
		s.t.Error("the password of the registry is in the log")
	}
}

// role is what a process of confine-agent does.
type role string

const (
	agentRole role = "agent"
	fetchRole role = "fetch"
)

// roles returns the processes of confine-agent on node n that do something.
func (s *scene) roles(n int, want role) ([]int, error) {
	all, err := s.Cluster.Processes()
	var found []int
	for _, p := range all {
		if p.Where != cluster.NodeName(n) || p.Program != agentProgram {
			continue
		}
		arguments, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", p.PID))
		if err != nil {
			continue // it has ended
		}
		does := agentRole
		if words := bytes.Split(arguments, []byte{0}); len(words) > 1 && string(words[1]) == string(fetchRole) {
			does = fetchRole
		}
		if does == want {
			found = append(found, p.PID)
		}
	}
	return found, err
}

// process waits for the one process on node n that does something.
func (s *scene) process(n int, does role) int {
	s.t.Helper()
	var found []int
	s.eventually(fmt.Sprintf("the %s process of %s", does, cluster.NodeName(n)), func() (err error) {
		if found, err = s.roles(n, does); err == nil && len(found) != 1 {
			err = fmt.Errorf("%d processes", len(found))
		}
		return err
	})
	return found[0]
}

// holdAgent holds what the process on node n may do that installs profiles.
func (s *scene) holdAgent(n, user int, capabilities uint64) {
	s.t.Helper()
	pid := s.process(n, agentRole)
	s.holdStatus(pid, user, capabilities)
	for _, path := range s.mounted(pid) {
		if strings.HasPrefix(path, "/etc/confine") {
			s.t.Errorf("%s: %s is mounted for the agent", cluster.NodeName(n), path)
		}
	}
	if _, err := os.Stat(inside(pid, tokenFolder+"/serviceaccount/token")); err != nil {
		s.t.Errorf("%s: the agent has no token: %v", cluster.NodeName(n), err)
	}
}

// holdFetch holds what the process on node n may do that speaks to registries.
func (s *scene) holdFetch(n int) {
	s.t.Helper()
	node, pid := cluster.NodeName(n), s.process(n, fetchRole)
	s.holdStatus(pid, fetchUser, 0)
	for _, file := range []string{"/etc/confine/credentials/config.json", "/etc/confine/ca/ca.crt"} {
		if _, err := os.Stat(inside(pid, file)); err != nil {
			s.t.Errorf("%s: the fetch process has no %s: %v", node, file, err)
		}
	}
	for _, path := range s.mounted(pid) {
		if strings.Contains(path, "secrets") || strings.HasPrefix(path, "/host") {
			s.t.Errorf("%s: %s is mounted for the fetch process", node, path)
		}
	}
	if _, err := os.Stat(inside(pid, tokenFolder)); !errors.Is(err, fs.ErrNotExist) {
		s.t.Errorf("%s: the fetch process has %s: %v", node, tokenFolder, err)
	}
	// The kubelet gives every container a file to say why it ended.
	if diff := cmp.Diff([]string{"/dev/termination-log"}, s.writable(pid, fetchUser)); diff != "" {
		s.t.Errorf("%s: what the fetch process can write (-want +got):\n%s", node, diff)
	}
	s.holdLimits(pid)
}

// holdStatus compares what the kernel says of each thread of a process
// (proc_pid_status(5)).
func (s *scene) holdStatus(pid, user int, capabilities uint64) {
	s.t.Helper()
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	s.must(err)
	if len(tasks) < 2 {
		s.t.Errorf("process %d has %d threads: it is no Go program, or has ended", pid, len(tasks))
	}
	id := strings.TrimSuffix(strings.Repeat(fmt.Sprintf("%d ", user), 4), " ")
	set := fmt.Sprintf("%016x", capabilities)
	want := map[string]string{
		"Uid": id, "Gid": id, "CapInh": fmt.Sprintf("%016x", 0), "CapPrm": set, "CapEff": set, "CapBnd": set, "CapAmb": fmt.Sprintf("%016x", 0),
		"NoNewPrivs": "1", "Seccomp": "2",
	}
	for _, task := range tasks {
		data, err := os.ReadFile(task)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
			continue // a thread that has ended
		}
		s.must(err)
		got, all := map[string]string{}, map[string]string{}
		for line := range strings.Lines(string(data)) {
			key, value, _ := strings.Cut(line, ":")
			all[key] = squeeze(value)
			if _, ok := want[key]; ok {
				got[key] = all[key]
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			s.t.Errorf("%s (-want +got):\n%s", task, diff)
		}
		// One filter is the runtime's; its own comes on top.
		if filters, err := strconv.Atoi(all["Seccomp_filters"]); err != nil || filters < 2 {
			s.t.Errorf("%s: %s seccomp filters, want the runtime's and its own", task, all["Seccomp_filters"])
		}
	}
}

// holdLimits holds that the process is bounded (proc_pid_limits(5)).
func (s *scene) holdLimits(pid int) {
	s.t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", pid))
	s.must(err)
	got := map[string]string{}
	for line := range strings.Lines(string(data)) {
		if len(line) > 48 {
			// Name, soft and hard limit stand in columns.
			got[strings.TrimSpace(line[:26])] = squeeze(line[26:47])
		}
	}
	for _, name := range []string{"Max core file size", "Max open files", "Max processes", "Max data size", "Max file size"} {
		if soft, _, _ := strings.Cut(got[name], " "); soft == "" || soft == "unlimited" {
			s.t.Errorf("process %d: %s is %q", pid, name, got[name])
		}
	}
	if !strings.HasPrefix(got["Max core file size"], "0") {
		s.t.Errorf("process %d leaves core dumps: %q", pid, got["Max core file size"])
	}
}

// inside is a path as a process sees it.
func inside(pid int, path string) string { return fmt.Sprintf("/proc/%d/root%s", pid, path) }

// mounted are the paths at which something is mounted for a process
// (proc_pid_mountinfo(5)).
func (s *scene) mounted(pid int) []string {
	s.t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", pid))
	s.must(err)
	var paths []string
	for line := range strings.Lines(string(data)) {
		if fields := strings.Fields(line); len(fields) > 5 {
			paths = append(paths, fields[4])
		}
	}
	if len(paths) < 3 {
		s.t.Errorf("process %d has %d mounts", pid, len(paths))
	}
	slices.Sort(paths)
	return slices.Compact(paths)
}

// writable are the files and folders that a process can write: those on mounts
// that are not read-only, whose modes let its user. /proc holds its own and
// devices are no storage.
func (s *scene) writable(pid, user int) []string {
	s.t.Helper()
	var found []string
	for _, mount := range s.mounted(pid) {
		if mount == "/proc" || strings.HasPrefix(mount, "/proc/") {
			continue
		}
		root := inside(pid, mount)
		s.must(filepath.WalkDir(root, func(file string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			var on syscall.Statfs_t
			if err := syscall.Statfs(file, &on); err != nil {
				return err
			}
			const readOnly = 1 // ST_RDONLY, statfs(2)
			if on.Flags&readOnly != 0 {
				if d.IsDir() {
					return fs.SkipDir // what is mounted below has a turn of its own
				}
				return nil
			}
			info, err := d.Info()
			if err != nil {
				return err
			}
			if letsWrite(info, user) {
				found = append(found, strings.TrimPrefix(file, inside(pid, "")))
			}
			return nil
		}))
	}
	slices.Sort(found)
	return slices.Compact(found)
}

// letsWrite reports whether a file or folder can be changed by a user whose only
// group has the same number.
func letsWrite(info fs.FileInfo, user int) bool {
	if !info.IsDir() && !info.Mode().IsRegular() {
		return false
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return true
	}
	const owner, group, others = 0o200, 0o020, 0o002
	switch mode := info.Mode().Perm(); {
	case int(stat.Uid) == user:
		return mode&owner != 0
	case int(stat.Gid) == user:
		return mode&group != 0
	default:
		return mode&others != 0
	}
}
