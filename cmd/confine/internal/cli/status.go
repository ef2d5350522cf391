package cli

import (
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/util/duration"

	"github.com/confine-dev/confine/pkg/node/status"
)

func (a *app) statusCommand() *cobra.Command {
	var o outputFlag
	var root string
	cmd := &cobra.Command{
		Use:   "status --root DIR",
		Short: "Show what this node's agent has installed, or why not",
		Long: `Status shows, for each SecurityProfile, the digest that is in force on this
node, whether it is the wanted one, and the reason where it is not. It reads
what the agent wrote, and asks nobody.`,
		Example: `  confine status --root /var/lib/confine
  confine status --root /var/lib/confine -o json`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if err := o.check(); err != nil {
				return err
			}
			report, err := status.Read(root)
			if err != nil {
				return err
			}
			return a.print(o, report, func() { a.printStatus(report, time.Now()) })
		},
	}
	cmd.Flags().StringVar(&root, "root", "/var/lib/confine", "the agent's state folder, its --root")
	o.add(cmd)
	return cmd
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
