package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/confine-dev/confine/test/kube/cluster"
)

func run(args []string) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	flags := flag.NewFlagSet("cluster", flag.ContinueOnError)
	var o cluster.Options
	flags.StringVar(&o.Name, "name", "", "which cluster (confine)")
	flags.StringVar(&o.Dir, "dir", "", "where clusters keep their state ($"+cluster.DirEnv+")")
	flags.DurationVar(&o.NodeGrace, "node-grace", 0, "up: how long a silent node counts as ready (40s)")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() == 0 {
		return errors.New("say what to do: up, status, kubectl, exec, node, import, node-kill, node-boot, apiserver-restart or down")
	}
	o.Log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	name, rest := flags.Arg(0), flags.Args()[1:]
	if name == "up" {
		return up(ctx, o, rest)
	}
	c, err := cluster.Open(o)
	if err != nil {
		return err
	}
	verb, ok := verbs()[name]
	if !ok {
		return fmt.Errorf("%q is nothing it does", name)
	}
	return verb(ctx, c, rest)
}

type verb func(ctx context.Context, c *cluster.Cluster, args []string) error

func verbs() map[string]verb {
	return map[string]verb{
		"status": status,
		"down":   func(ctx context.Context, c *cluster.Cluster, _ []string) error { return c.Down(ctx) },
		"kubectl": func(ctx context.Context, c *cluster.Cluster, args []string) error {
			return attach(c.Kubectl(ctx, args...))
		},
		"node-kill": withNode((*cluster.Cluster).KillNode),
		"node-boot": withNode(func(c *cluster.Cluster, ctx context.Context, n int) error {
			return errors.Join(c.BootNode(ctx, n), c.WaitForNode(ctx, n))
		}),
		"apiserver-restart": func(ctx context.Context, c *cluster.Cluster, _ []string) error { return c.RestartAPIServer(ctx) },
		"exec": func(ctx context.Context, c *cluster.Cluster, args []string) error {
			if len(args) == 0 {
				return errors.New("exec: name a command")
			}
			return attach(c.Command(ctx, args[0], args[1:]...))
		},
		"node": func(ctx context.Context, c *cluster.Cluster, args []string) error {
			if len(args) < 2 {
				return errors.New("node: give the number of a node and a command")
			}
			n, err := strconv.Atoi(args[0])
			if err != nil {
				return err
			}
			cmd, err := c.NodeCommand(ctx, n, args[1], args[2:]...)
			if err != nil {
				return err
			}
			return attach(cmd)
		},
		"import": func(ctx context.Context, c *cluster.Cluster, args []string) error {
			for _, archive := range args {
				if err := c.Import(ctx, archive); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

func up(ctx context.Context, o cluster.Options, args []string) error {
	if len(args) != 1 {
		return errors.New("up: say how many nodes")
	}
	var err error
	if o.Nodes, err = strconv.Atoi(args[0]); err != nil {
		return err
	}
	began := time.Now()
	c, err := cluster.Up(ctx, o)
	if err != nil {
		return err
	}
	fmt.Printf("up after %.1f s, in %s\n", time.Since(began).Seconds(), c.Dir())
	return nil
}

// withNode makes a verb of a method that takes the number of a node.
func withNode(method func(*cluster.Cluster, context.Context, int) error) verb {
	return func(ctx context.Context, c *cluster.Cluster, args []string) error {
		if len(args) != 1 {
			return errors.New("give the number of a node")
		}
		n, err := strconv.Atoi(args[0])
		if err != nil {
			return err
		}
		return method(c, ctx, n)
	}
}

func status(_ context.Context, c *cluster.Cluster, _ []string) error {
	processes, err := c.Processes()
	if err != nil {
		return err
	}
	table := tabwriter.NewWriter(os.Stdout, 0, 0, 3, ' ', 0)
	fmt.Fprintln(table, "WHERE\tPROGRAM\tPID\tMEMORY")
	for _, p := range processes {
		fmt.Fprintf(table, "%s\t%s\t%d\t%d MiB\n", p.Where, p.Program, p.PID, p.Memory>>20)
	}
	return table.Flush()
}

// attach runs a command on this one's terminal.
func attach(cmd *exec.Cmd) error {
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	return cmd.Run()
}
