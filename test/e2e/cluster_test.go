//go:build e2e

package e2e_test

import (
	"context"
	"errors"
	"flag"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/confine-dev/confine/test/e2e/lab"
)

// keep leaves the cluster up, for a look at it: go test ... -args -keep. Then
// cluster -name e2e (test/kube/cmd/cluster) reaches it.
var keep = flag.Bool("keep", false, "leave the cluster up")

const (
	labName = "e2e"
	nodes   = 3
	// removalDelay is short, since each scenario waits for it.
	removalDelay = time.Second
	// nodeGrace is a little more than the 10 s between two signs of life.
	nodeGrace = 16 * time.Second
)

// scenarios in their order. Each starts in an installed, empty cluster and
// leaves one behind.
func scenarios() []scenario {
	return []scenario{
		{"a pod is denied the syscall", podIsDenied},
		{"the examples work", examplesWork},
		{"processes may do little", processesMayDoLittle},
		{"the fetch process is killed", fetchIsKilled},
		{"one artifact with three kinds", oneArtifactWithThreeKinds},
		{"kinds switched on and off", kindsSwitchedOnAndOff},
		{"a new digest goes out in waves", newDigestInWaves},
		{"a failed canary pauses the rollout", failedCanaryPauses},
		{"a failed canary rolls back", failedCanaryRollsBack},
		{"unsigned reaches no disk", unsignedReachesNoDisk},
		{"pods name no foreign profile", foreignProfilesAreRefused},
		{"deleted while pods run", deletedWhilePodsRun},
		{"powered off in mid-install", poweredOffInMidInstall},
		{"registry down at boot", registryDownAtBoot},
		{"API server restarts", apiServerRestarts},
		{"agents killed again and again", agentsKilledAgainAndAgain},
		{"uninstall keeps files", uninstallKeepsFiles},
	}
}

type scenario struct {
	name string
	run  func(*scene)
}

// TestCluster boots one cluster for all scenarios. Without root, namespaces or
// cgroups it fails: then nothing here can be tested.
func TestCluster(t *testing.T) {
	l := newLab(t)
	for _, s := range scenarios() {
		t.Run(s.name, func(t *testing.T) { s.run(newScene(t, l)) })
	}
}

func newLab(t *testing.T) *lab.Lab {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("these tests need root: their nodes mount, set up networks and make cgroups")
	}
	lockMachine(t)
	options := lab.Options{
		Root: filepath.Join("..", ".."), Name: labName, Nodes: nodes, NodeGrace: nodeGrace, RemovalDelay: removalDelay,
		Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
	// What a run left that was killed.
	if err := lab.Remove(t.Context(), options); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	l, err := lab.Up(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d nodes up after %.1f s", nodes, time.Since(began).Seconds())
	t.Cleanup(func() {
		if *keep {
			return
		}
		// The test's context has ended.
		if err := l.Down(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return l
}

// lockMachine waits until no other run of these tests is under way: there is
// one cluster of this name on a machine.
func lockMachine(t *testing.T) {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(os.TempDir(), "confine-e2e.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() }) // which releases it
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX)
		if !errors.Is(err, syscall.EINTR) {
			if err != nil {
				t.Fatal(err)
			}
			return
		}
	}
}
