package cli

import (
	"context"
	"strings"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/confine-dev/confine/cmd/confine/internal/fleet"
	"github.com/confine-dev/confine/cmd/confine/internal/kube"
)

func (a *app) whyCommand() *cobra.Command {
	var o outputFlag
	var f clusterFlags
	cmd := &cobra.Command{
		Use:   "why PROFILE [NODE]",
		Short: "Say where a SecurityProfile is stuck on its way to the kernel, and what to do",
		Long: `Why follows a SecurityProfile from the resource to the kernel: who selects and
trusts it, how far the rollout is, and on one node what it is given, whether its
agent works, what it thinks of the digest, what is in force, and how the pods are
that name it. Without a NODE it takes the one that a person should look at first.

It exits 0 where the profile is in force, 1 where somebody has to do something,
and 3 where it goes on by itself.`,
		Example: `  confine why web/nginx
  confine why nginx node-1 -n web -o json`,
		Args:              cobra.RangeArgs(1, 2),
		ValidArgsFunction: a.completeProfiles(&f),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.check(); err != nil {
				return err
			}
			client, key, err := a.openProfile(args[0], f)
			if err != nil {
				return err
			}
			node := ""
			if len(args) == 2 {
				node = args[1]
				if len(validation.IsDNS1123Subdomain(node)) > 0 {
					return usagef("%q: that is no name of a node", node)
				}
			}
			ctx, cancel := a.within(cmd.Context())
			defer cancel()
			found, err := investigate(ctx, client, key, node)
			if err != nil {
				return err
			}
			chain := fleet.Explain(found)
			if err := a.print(o, chain, func() { a.printChain(chain, found.Others) }); err != nil {
				return err
			}
			return hangs(chain)
		},
	}
	f.add(cmd)
	f.addNamespace(cmd)
	o.add(cmd)
	return cmd
}

func hangs(c fleet.Chain) error {
	switch c.Mark {
	case fleet.Stuck:
		return &exitError{code: ExitRefused}
	case fleet.Wait:
		return &exitError{code: ExitRetry}
	default:
		return nil
	}
}

// investigate asks the API server for all that the chain is about. What the user
// may not read is part of the answer; only without the profile there is none.
func investigate(ctx context.Context, client *kube.Client, key types.NamespacedName, node string) (fleet.Case, error) {
	c := fleet.Case{Key: key, NodeName: node, Asked: node != "", Now: time.Now()}
	object, err := client.Profile(ctx, key)
	switch {
	case err == nil:
		c.Profile = object
	case !kube.IsNotFound(err):
		return c, err
	}
	c.Policies, c.PoliciesErr = client.TrustPolicies(ctx)
	if err := findNode(ctx, client, &c); err != nil {
		return c, err
	}
	if c.NodeName != "" {
		c.Machine, c.MachineErr = client.Machine(ctx, c.NodeName)
		if kube.IsNotFound(c.MachineErr) {
			c.Machine, c.MachineErr = nil, nil
		} else if c.MachineErr != nil {
			c.Machine = nil
		}
		agents := kube.PodQuery{Node: c.NodeName, Labels: map[string]string{
			"app.kubernetes.io/name": "confine", "app.kubernetes.io/component": "agent",
		}}
		c.AgentErr = client.EachPod(ctx, agents, func(p *corev1.Pod) { c.Agents = append(c.Agents, *p) })
	}
	pods := kube.PodQuery{Namespace: key.Namespace}
	if c.Asked {
		pods.Node = c.NodeName
	}
	c.PodsErr = client.EachPod(ctx, pods, func(p *corev1.Pod) { c.Pods = append(c.Pods, *p) })
	return c, ctx.Err()
}

// findNode reads the node that was named, or picks the one to look at first.
func findNode(ctx context.Context, client *kube.Client, c *fleet.Case) error {
	if c.Asked {
		c.Node, c.NodeErr = client.Node(ctx, c.NodeName)
		if c.NodeErr != nil {
			c.Node = nil
		}
		if kube.IsNotFound(c.NodeErr) {
			c.NodeErr = nil
		}
		return nil
	}
	picker := fleet.NewPicker(c.Key)
	err := client.EachNode(ctx, picker.Add)
	switch {
	case err == nil:
		c.Node, c.Others = picker.Worst(), picker.Others()
		if c.Node != nil {
			c.NodeName = c.Node.Name
		}
		return nil
	case !kube.IsForbidden(err):
		return err
	}
	c.NodeErr = err
	if c.Profile != nil && c.Profile.Status != nil && len(c.Profile.Status.Failures) > 0 {
		c.NodeName = c.Profile.Status.Failures[0].Node
	}
	return nil
}

func (a *app) printChain(c fleet.Chain, others string) {
	title := c.Profile
	if c.Digest != "" {
		title += " " + shortDigest(c.Digest)
	}
	if c.Node != "" {
		title += " on " + c.Node
	}
	a.printf("%s\n", oneLine(title))
	if others != "" {
		a.printf("%s\n", oneLine(others))
	}
	a.printf("\n")
	width := 0
	for _, s := range c.Steps {
		width = max(width, len(s.Link))
	}
	for _, s := range c.Steps {
		a.printf("%s  %-*s  %s\n", a.marked(s.Mark), width, s.Link, oneLine(s.Message))
		// The advice of the link that it hangs on comes last, and agents put theirs
		// into the message.
		if s.Advice != "" && s.Advice != c.Advice && s.Mark != fleet.OK && !strings.Contains(s.Message, s.Advice) {
			a.printf("%s%s\n", strings.Repeat(" ", markWidth+2+width+2), oneLine(s.Advice))
		}
	}
	a.printf("\n")
	switch c.Mark {
	case fleet.Stuck, fleet.Wait:
		a.printf("%s at %s: %s\n", c.Mark, c.At, oneLine(c.Message))
		if c.Advice != "" {
			a.printf("what to do: %s\n", oneLine(c.Advice))
		}
	default:
		a.printf("nothing is in the way\n")
	}
}

const markWidth = len(fleet.Wait)

// marked is a mark in a column of its own, in color where that is wanted.
func (a *app) marked(m fleet.Mark) string {
	text := string(m) + strings.Repeat(" ", markWidth-len(m))
	color := map[fleet.Mark]string{fleet.OK: "32", fleet.Wait: "33", fleet.Stuck: "31"}[m]
	if !a.Color || color == "" {
		return text
	}
	return "\x1b[" + color + "m" + text + "\x1b[0m"
}
