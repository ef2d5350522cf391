//go:build e2e

package e2e_test

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/confine-dev/confine/api/v1alpha1"
	"github.com/confine-dev/confine/test/e2e/lab"
	"github.com/confine-dev/confine/test/kube/cluster"
)

// poweredOffInMidInstall cuts a node's power while it pulls. The others go on
// without it, and it catches up when it is back.
func poweredOffInMidInstall(s *scene) {
	const victim = 2
	s.trustTeam()
	before, after := s.push("web", lab.Team, denyMkdir()), s.push("web", lab.Team, denyChmod())
	s.want("web", before, allAtOnce())
	s.ready("web", before, nodes)
	s.run(victim, podName(victim), "web")
	s.sees(podName(victim), mkdirDenied)

	s.must(s.Registry.Freeze())
	s.t.Cleanup(func() { _ = s.Registry.Thaw() }) // where the test failed before it did
	s.change("web", func(spec *v1alpha1.SecurityProfileSpec) { spec.Artifact = after })
	s.eventually("the node to ask the registry", func() error { return s.hasAsked(victim) })
	s.must(s.Cluster.KillNode(s.ctx(), victim))
	s.t.Cleanup(func() { s.powerOn(victim) })
	s.must(s.Registry.Thaw())

	s.until("the others to go on", "web", func(status *v1alpha1.SecurityProfileStatus) error {
		if status.Nodes.Ready != nodes-1 || status.Nodes.Unavailable != 1 {
			return fmt.Errorf("nodes %+v", status.Nodes)
		}
		return progressing(status, v1alpha1.ReasonRolloutComplete)
	})
	s.powerOn(victim)
	s.ready("web", after, nodes)
	s.run(victim, "new-"+podName(victim), "web")
	s.sees("new-"+podName(victim), chmodDenied)
}

// powerOn boots a node unless it is up.
func (s *scene) powerOn(n int) {
	up, err := s.isUp(n)
	if err == nil && !up {
		began := time.Now()
		// Also after the test's end.
		err = errors.Join(s.Cluster.BootNode(s.lasting(), n), s.Cluster.WaitForNode(s.lasting(), n))
		s.t.Logf("%s booted after %.1f s", cluster.NodeName(n), time.Since(began).Seconds())
	}
	if err != nil {
		s.t.Errorf("%s: %v", cluster.NodeName(n), err)
	}
}

func (s *scene) isUp(n int) (bool, error) {
	all, err := s.Cluster.Processes()
	return slices.ContainsFunc(all, func(p cluster.Process) bool { return p.Where == cluster.NodeName(n) }), err
}

// hasAsked says nothing where the node has sent the frozen registry something
// that lies there unread (proc_pid_net(5), tcp: local and remote address, state,
// and bytes in the two queues, all in hexadecimal).
func (s *scene) hasAsked(n int) error {
	table, err := s.Cluster.Command(s.ctx(), "cat", "/proc/net/tcp").Output()
	if err != nil {
		return err
	}
	_, port, _ := strings.Cut(s.Registry.Host, ":")
	for line := range strings.Lines(string(table)) {
		fields := strings.Fields(line)
		if len(fields) < 5 {
			continue
		}
		_, unread, _ := strings.Cut(fields[4], ":")
		if strings.HasPrefix(fields[2], addressInTable(cluster.NodeAddress(n))+":") &&
			strings.HasSuffix(fields[1], ":"+portInTable(port)) && strings.Trim(unread, "0") != "" {
			return nil
		}
	}
	return fmt.Errorf("nothing unread of %s in\n%s", cluster.NodeAddress(n), table)
}

// addressInTable is how the kernel writes an IPv4 address there on a
// little-endian machine.
func addressInTable(address string) string {
	octets := netip.MustParseAddr(address).As4()
	slices.Reverse(octets[:])
	return strings.ToUpper(hex.EncodeToString(octets[:]))
}

func portInTable(port string) string {
	n, _ := strconv.Atoi(port) // of a constant
	return fmt.Sprintf("%04X", n)
}

// registryDownAtBoot boots a node while nobody serves artifacts: what was
// installed is there, and pods start under it.
func registryDownAtBoot(s *scene) {
	const victim = 1
	s.trustTeam()
	artifact := s.push("web", lab.Team, denyMkdir())
	s.want("web", artifact, nil)
	s.ready("web", artifact, nodes)
	s.run(victim, podName(victim), "web")
	s.sees(podName(victim), mkdirDenied)

	s.must(s.Registry.Stop())
	s.t.Cleanup(func() { s.report(s.Registry.Start(s.lasting())) })
	s.must(s.Cluster.KillNode(s.ctx(), victim))
	s.t.Cleanup(func() { s.powerOn(victim) })
	s.hasFile(victim, "web")
	s.powerOn(victim)
	s.run(victim, "new-"+podName(victim), "web")
	s.sees("new-"+podName(victim), mkdirDenied)
	s.sees(podName(victim), mkdirDenied)
	s.ready("web", artifact, nodes)
}

// hasFile holds that the profile's file on a node's disk is there and not empty.
func (s *scene) hasFile(n int, profile string) {
	s.t.Helper()
	file := filepath.Join(s.profilesRoot(n), s.namespace, profile, lab.ProfileFile)
	if info, err := os.Stat(file); err != nil || info.Size() == 0 {
		s.t.Errorf("%s: %s: %v", cluster.NodeName(n), file, err)
	}
}

// apiServerRestarts takes the API server away. Agents that start meanwhile repair
// what was damaged, from what they know; afterwards all goes on.
func apiServerRestarts(s *scene) {
	s.trustTeam()
	before, after := s.push("web", lab.Team, denyMkdir()), s.push("web", lab.Team, denyChmod())
	s.want("web", before, nil)
	s.ready("web", before, nodes)
	s.run(1, podName(1), "web")
	s.sees(podName(1), mkdirDenied)

	s.must(s.Cluster.StopAPIServer(s.ctx()))
	s.t.Cleanup(func() { s.apiServerRuns() })
	for n := 1; n <= nodes; n++ {
		s.must(os.Remove(filepath.Join(s.profilesRoot(n), s.namespace, "web")))
		s.must(s.killAgent(n))
	}
	for n := 1; n <= nodes; n++ {
		s.eventually("the agent to repair without an API server", func() error {
			_, err := os.Stat(filepath.Join(s.profilesRoot(n), s.namespace, "web", lab.ProfileFile))
			return err
		})
	}
	s.apiServerRuns()
	s.sees(podName(1), mkdirDenied)
	s.change("web", func(spec *v1alpha1.SecurityProfileSpec) { spec.Artifact = after })
	s.ready("web", after, nodes)
	s.run(1, "new-"+podName(1), "web")
	s.sees("new-"+podName(1), chmodDenied)
}

func (s *scene) apiServerRuns() {
	all, err := s.Cluster.Processes()
	if !slices.ContainsFunc(all, func(p cluster.Process) bool { return p.Program == "kube-apiserver" }) {
		err = errors.Join(err, s.Cluster.StartAPIServer(s.lasting()))
	}
	s.report(err)
}

// agentProgram is what the agent's processes are called.
const agentProgram = "confine-agent"

// killAgent kills the processes of the agent's pod on node n, the one that
// speaks to registries too. It is an error if no agent is there.
func (s *scene) killAgent(n int) error {
	found, err := s.roles(n, agentRole)
	if err == nil && len(found) == 0 {
		err = fmt.Errorf("no agent runs on %s", cluster.NodeName(n))
	}
	others, err2 := s.roles(n, fetchRole)
	err = errors.Join(err, err2)
	for _, pid := range append(found, others...) {
		// One may have ended with the one before.
		if e := syscall.Kill(pid, syscall.SIGKILL); !errors.Is(e, syscall.ESRCH) {
			err = errors.Join(err, e)
		}
	}
	return err
}

// agentsKilledAgainAndAgain kills every agent in the midst of each of several
// rollouts. All arrive, and what else was installed is there all the time.
func agentsKilledAgainAndAgain(s *scene) {
	const rollouts = 4
	s.trustTeam()
	artifacts := []string{s.push("web", lab.Team, denyMkdir()), s.push("web", lab.Team, denyChmod())}
	for _, name := range []string{"web", "steady"} {
		s.want(name, artifacts[0], allAtOnce())
	}
	for _, name := range []string{"web", "steady"} {
		s.ready(name, artifacts[0], nodes)
	}
	for i := 1; i <= rollouts; i++ {
		h := s.follow("web")
		target := artifacts[i%len(artifacts)]
		s.change("web", func(spec *v1alpha1.SecurityProfileSpec) { spec.Artifact = target })
		s.eventually("the rollout to begin", func() error {
			if len(h.of(target)) == 0 {
				return errors.New("no node is given it")
			}
			return nil
		})
		for n := 1; n <= nodes; n++ {
			s.eventually("an agent to kill", func() error { return s.killAgent(n) })
			s.hasFile(n, "steady")
			s.hasFile(n, "web")
		}
		s.eventually("the digest to be everywhere", func() error {
			for n := 1; n <= nodes; n++ {
				if err := s.links(n, "web", target); err != nil {
					return err
				}
			}
			return nil
		})
	}
	last := artifacts[rollouts%len(artifacts)]
	s.ready("web", last, nodes)
	s.ready("steady", artifacts[0], nodes)
}

// links says nothing where the profile on a node's disk is that of the artifact.
func (s *scene) links(n int, profile, artifact string) error {
	link := filepath.Join(s.profilesRoot(n), s.namespace, profile)
	target, err := os.Readlink(link)
	if errors.Is(err, fs.ErrNotExist) {
		s.t.Fatalf("%s: %s is lost", cluster.NodeName(n), link)
	}
	if err == nil && !strings.Contains(target, strings.TrimPrefix(digestOf(artifact), "sha256:")) {
		err = fmt.Errorf("%s: %s is %s, not yet %s", cluster.NodeName(n), link, target, digestOf(artifact))
	}
	return err
}
