package cli

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/confine-dev/confine/api/v1alpha1"
	"github.com/confine-dev/confine/cmd/confine/internal/fleet"
	"github.com/confine-dev/confine/cmd/confine/internal/kube"
)

// What `-o name` calls the objects, as kubectl does.
const (
	profileResource = "securityprofile.confine.dev/"
	nodeResource    = "profilenode.confine.dev/"
)

// fleetStatus shows the profiles of a namespace, or of all.
func (a *app) fleetStatus(ctx context.Context, f clusterFlags, o outputFlag) error {
	client, err := a.cluster(f)
	if err != nil {
		return err
	}
	namespace := client.Namespace()
	if f.all {
		namespace = metav1.NamespaceAll
	}
	ctx, cancel := a.within(ctx)
	defer cancel()
	profiles := []fleet.Profile{}
	err = client.EachProfile(ctx, namespace, func(p *v1alpha1.SecurityProfile) {
		profiles = append(profiles, fleet.ProfileOf(p))
	})
	if err != nil {
		return err
	}
	out := struct {
		Profiles []fleet.Profile `json:"profiles"`
	}{profiles}
	return a.print(o, out, func() { a.printProfiles(profiles, namespace, f.all, o, time.Now()) })
}

func (a *app) printProfiles(profiles []fleet.Profile, namespace string, all bool, o outputFlag, now time.Time) {
	if o.format == "name" {
		for _, p := range profiles {
			a.printf("%s%s\n", profileResource, p.Name)
		}
		return
	}
	if len(profiles) == 0 {
		if all {
			a.errorf("No SecurityProfiles found.\n")
			return
		}
		a.errorf("No SecurityProfiles found in namespace %s; -A shows all namespaces.\n", namespace)
		return
	}
	a.table(profileRows(profiles, all, o.format == "wide", now))
}

// profileRows has the name first, the namespace before it where it differs, and
// the age last.
func profileRows(profiles []fleet.Profile, all, wide bool, now time.Time) [][]string {
	head := []string{"NAME", "DIGEST", "UPDATED", "READY", "FAILED", "TOTAL", "STATUS", "AGE"}
	if wide {
		head = []string{"NAME", "DIGEST", "UPDATED", "READY", "FAILED", "UNAVAILABLE", "TOTAL", "VERIFIED", "STATUS", "AGE", "ARTIFACT", "MESSAGE"}
	}
	if all {
		head = append([]string{"NAMESPACE"}, head...)
	}
	rows := [][]string{head}
	for _, p := range profiles {
		n := p.Nodes
		row := []string{p.Name, orDash(shortDigest(p.Digest)), fmt.Sprint(n.Updated), fmt.Sprint(n.Ready), fmt.Sprint(n.Failed)}
		if wide {
			row = append(row, fmt.Sprint(n.Unavailable), fmt.Sprint(n.Total), p.Verified, p.Status, age(p.CreatedAt.Time, now), p.Artifact, orDash(p.Message))
		} else {
			row = append(row, fmt.Sprint(n.Total), p.Status, age(p.CreatedAt.Time, now))
		}
		if all {
			row = append([]string{p.Namespace}, row...)
		}
		rows = append(rows, row)
	}
	return rows
}

func (a *app) statusNodesCommand() *cobra.Command {
	var o outputFlag
	var f clusterFlags
	cmd := &cobra.Command{
		Use:   "nodes",
		Short: "Show how the nodes are: what they are given, what they have, and what keeps them from it",
		Long: `Nodes shows, for each node of the cluster, how many profiles the controller gives
it, how many its agent installed and how many failed, which kinds of profile it
supports, and the reasons of what keeps it from working as a whole.`,
		Example: `  confine status nodes
  confine status nodes -o wide`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.check(); err != nil {
				return err
			}
			return orNode(a.nodesStatus(cmd.Context(), f, o))
		},
	}
	f.add(cmd)
	o.add(cmd, "wide", "name")
	return cmd
}

func (a *app) nodesStatus(ctx context.Context, f clusterFlags, o outputFlag) error {
	client, err := a.cluster(f)
	if err != nil {
		return err
	}
	ctx, cancel := a.within(ctx)
	defer cancel()
	nodes := []fleet.Node{}
	err = client.EachNode(ctx, func(n *v1alpha1.ProfileNode) { nodes = append(nodes, fleet.NodeOf(n)) })
	if err != nil {
		return err
	}
	out := struct {
		Nodes []fleet.Node `json:"nodes"`
	}{nodes}
	return a.print(o, out, func() { a.printNodes(nodes, o, time.Now()) })
}

func (a *app) printNodes(nodes []fleet.Node, o outputFlag, now time.Time) {
	if o.format == "name" {
		for _, n := range nodes {
			a.printf("%s%s\n", nodeResource, n.Name)
		}
		return
	}
	if len(nodes) == 0 {
		a.errorf("No ProfileNodes found: the controller makes one for each Linux node.\n")
		return
	}
	wide := o.format == "wide"
	head := []string{"NAME", "ASSIGNED", "INSTALLED", "FAILED", "KINDS", "AGENT", "PROBLEMS", "AGE"}
	if wide {
		head = append(head, "UNSUPPORTED", "MESSAGE")
	}
	rows := [][]string{head}
	for _, n := range nodes {
		row := []string{
			n.Name, fmt.Sprint(n.Assigned), fmt.Sprint(n.Installed), fmt.Sprint(n.Failed), orDash(strings.Join(n.SupportedKinds(), ",")),
			orDash(n.AgentVersion), orDash(n.ProblemsLine()), age(n.CreatedAt.Time, now),
		}
		if wide {
			row = append(row, nodeDetails(n)...)
		}
		rows = append(rows, row)
	}
	a.table(rows)
}

// nodeDetails are which kinds are not supported and why, and the problems.
func nodeDetails(n fleet.Node) []string {
	var unsupported, problems []string
	for _, k := range n.Kinds {
		if !k.Supported {
			unsupported = append(unsupported, strings.TrimSuffix(k.Name+": "+k.Message, ": "))
		}
	}
	for _, p := range n.Problems {
		problems = append(problems, strings.TrimSuffix(p.Reason+": "+p.Message, ": "))
	}
	return []string{orDash(strings.Join(unsupported, "; ")), orDash(strings.Join(problems, "; "))}
}

// profileStatus shows one profile on each node.
func (a *app) profileStatus(ctx context.Context, arg string, f clusterFlags, o outputFlag) error {
	client, key, err := a.openProfile(arg, f)
	if err != nil {
		return err
	}
	ctx, cancel := a.within(ctx)
	defer cancel()
	object, err := client.Profile(ctx, key)
	if err != nil {
		return err
	}
	shares := []fleet.Share{}
	err = client.EachNode(ctx, func(n *v1alpha1.ProfileNode) {
		if share, ok := fleet.ShareOf(n, key); ok {
			shares = append(shares, share)
		}
	})
	if kube.IsForbidden(err) {
		a.errorf("warning: %s; these are the failures that the SecurityProfile itself lists\n", oneLine(err.Error()))
		shares, err = fleet.Sample(object), nil
	}
	if err != nil {
		return err
	}
	profile := fleet.ProfileOf(object)
	out := struct {
		Profile fleet.Profile `json:"profile"`
		Nodes   []fleet.Share `json:"nodes"`
	}{profile, shares}
	return a.print(o, out, func() { a.printShares(profile, shares, o, time.Now()) })
}

func (a *app) printShares(p fleet.Profile, shares []fleet.Share, o outputFlag, now time.Time) {
	if o.format == "name" {
		for _, s := range shares {
			a.printf("%s%s\n", nodeResource, s.Node)
		}
		return
	}
	a.printf("%s/%s: %s: %d of %d nodes ready\n", p.Namespace, p.Name, p.Status, p.Nodes.Ready, p.Nodes.Total)
	if p.Message != "" {
		a.printf("%s\n", oneLine(p.Message))
	}
	for _, r := range p.References {
		a.printf("%s: %s\n", oneLine(r.Kind), oneLine(r.Name))
	}
	a.printEffects(fleet.KindsOf(p.References))
	if len(shares) == 0 {
		a.errorf("No node has it, and none is given it.\n")
		return
	}
	wide := o.format == "wide"
	head := []string{"NODE", "ASSIGNED", "INSTALLED", "STATE", "VERIFIED", "REASON", "AGE"}
	if wide {
		head = append(head, "MESSAGE")
	}
	rows := [][]string{head}
	for _, s := range shares {
		row := []string{
			s.Node, orDash(shortDigest(s.AssignedDigest)), orDash(shortDigest(s.InstalledDigest)), s.State, s.Verified,
			orDash(s.Reason), age(s.Since.Time, now),
		}
		if wide {
			row = append(row, cmp.Or(s.Message, "-"))
		}
		rows = append(rows, row)
	}
	a.table(rows)
}
