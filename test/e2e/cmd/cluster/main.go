// Command cluster is `make cluster`: three real nodes on this machine with
// Confine installed, a registry, and examples/cluster applied. It ends and leaves
// them running. The working directory is the repository's.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"

	"github.com/confine-dev/confine/test/e2e/lab"
)

const nodes = 3

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "cluster:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	l, err := lab.Up(ctx, lab.Options{Root: ".", Nodes: nodes, Log: log})
	if err != nil {
		return err
	}
	log.Info("installing")
	if err := l.Install(ctx); err != nil {
		return fmt.Errorf("%w\nThe cluster is up for a look; make cluster-down ends it", err)
	}
	log.Info("applying", "folder", "examples/cluster")
	if err := l.ApplyExamples(ctx); err != nil {
		return err
	}
	bin, err := l.Wrappers(ctx)
	if err != nil {
		return err
	}
	fmt.Printf(usage, nodes, bin, l.Repository("mine:1"), l.KeyFile(lab.Team))
	return nil
}

const usage = `
%d nodes run, with Confine and examples/cluster in them. Use them, as root:

  export PATH=%s:$PATH     # kubectl, confine and helm of this cluster
  confine rollout status web/worker     # the canary soaks for a minute
  confine status -A
  confine why web/worker
  kubectl -n web get pods -o wide
  confine push %s examples/profiles/worker.json --key %s
  go run ./test/kube/cmd/cluster node-kill 2     # a power cut; node-boot 2 ends it

make cluster-down ends it and removes all of it.
`
