package cli

import (
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/util/duration"

	"github.com/confine-dev/confine/pkg/node/status"
)

func (a *app) statusCommand() *cobra.Command {
	var o outputFlag
	var f clusterFlags
	var root string
	cmd := &cobra.Command{
		Use:   "status [PROFILE | --root DIR]",
		Short: "Show how profiles are: in the cluster, on its nodes, or on this machine",
		Long: `Status shows how far the SecurityProfiles of a namespace are: the digest that
nodes are given, how many of them have it, and one word. With the name of a
profile, or NAMESPACE/NAME, it shows that one on each node.

With --root it shows what the agent of this machine, without a cluster, has
installed, or why not. It reads what the agent wrote, and asks nobody.`,
		Example: `  confine status -A
  confine status nginx -n web
  confine status nodes
  confine status --root /var/lib/confine`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: a.completeProfiles(&f),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.check(); err != nil {
				return err
			}
			switch {
			case root != "":
				return a.standaloneStatus(cmd, root, o, args)
			case len(args) == 1 && f.all:
				return usagef("-A: a profile is named, so name its namespace: NAMESPACE/%s", args[0])
			case len(args) == 1:
				return orNode(a.profileStatus(cmd.Context(), args[0], f, o))
			default:
				return orNode(a.fleetStatus(cmd.Context(), f, o))
			}
		},
	}
	cmd.Flags().StringVar(&root, "root", "", "the state folder of a standalone agent on this machine, its --root")
	f.add(cmd)
	f.addNamespace(cmd)
	f.addAll(cmd)
	o.add(cmd, "wide", "name")
	cmd.AddCommand(a.statusNodesCommand())
	return cmd
}

// standaloneStatus shows what the agent of this machine wrote.
func (a *app) standaloneStatus(cmd *cobra.Command, root string, o outputFlag, args []string) error {
	for _, flag := range []string{"kubeconfig", "context", "namespace", "all-namespaces"} {
		if cmd.Flags().Changed(flag) {
			return usagef("--root is about this machine, and --%s about a cluster", flag)
		}
	}
	if len(args) > 0 {
		return usagef("--root shows all profiles of this machine: %s cannot be picked", args[0])
	}
	if o.format == "wide" || o.format == "name" {
		return usagef("-o %s: with --root choose one of json, yaml", o.format)
	}
	report, err := status.Read(root)
	if err != nil {
		return err
	}
	return a.print(o, report, func() { a.printStatus(report, time.Now()) })
}

func (a *app) printStatus(report status.Report, now time.Time) {
	if len(report.Profiles) == 0 && len(report.Problems) == 0 {
		a.errorf("No SecurityProfiles found.\n")
		return
	}
	rows := [][]string{{"NAMESPACE", "NAME", "INSTALLED", "VERIFIED", "READY", "REASON", "AGE"}}
	for _, p := range report.Profiles {
		rows = append(rows, []string{
			p.Owner.Namespace, p.Owner.Name, orDash(shortDigest(p.InstalledDigest.String())),
			string(p.Condition(status.Verified).Status), string(p.Condition(status.Ready).Status),
			string(worst(p).Reason), age(p.Since, now),
		})
	}
	a.table(rows)
	told := map[string]bool{}
	for _, p := range report.Profiles {
		told[p.Origin] = !p.AsWanted()
		if c := worst(p); c.Message != "" && !p.AsWanted() {
			a.printf("%s: %s: %s\n", p.Owner, c.Reason, oneLine(c.Message))
			continue
		}
		for _, k := range p.Kinds {
			if k.Reason != "" {
				a.printf("%s: %s: %s: %s\n", p.Owner, k.Name, k.Reason, oneLine(k.Message))
			}
		}
	}
	for _, p := range report.Problems {
		if told[p.Origin] {
			continue // its profile's line says so
		}
		a.printf("%s: %s: %s\n", oneLine(p.Origin), p.Reason, oneLine(p.Message))
	}
}

// worst is the condition that a person should look at first.
func worst(p status.Profile) status.Condition {
	if c := p.Condition(status.Degraded); c.Status == status.True {
		return c
	}
	for _, t := range []status.ConditionType{status.Ready, status.Verified} {
		if c := p.Condition(t); c.Status != status.True {
			return c
		}
	}
	return p.Condition(status.Ready)
}

func age(since, now time.Time) string {
	if since.IsZero() {
		return "-"
	}
	return duration.HumanDuration(now.Sub(since))
}
