package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/confine-dev/confine/pkg/artifact"
	"github.com/confine-dev/confine/pkg/artifact/reference"
	"github.com/confine-dev/confine/pkg/durable"
	"github.com/confine-dev/confine/pkg/node/intent"
	"github.com/confine-dev/confine/pkg/profile"
)

// maxPasses bounds how often verification goes on with untried signatures:
// all that a registry may list.
const maxPasses = artifact.MaxReferrers/artifact.CandidatesPerPass + 1

// trustFlags say under which policy, and as which SecurityProfile, to judge.
type trustFlags struct {
	policy    string
	namespace string
	name      string
}

func (f *trustFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.policy, "policy", "", "TrustPolicy file to judge by (required)")
	flags.StringVarP(&f.namespace, "namespace", "n", "default", "namespace of the SecurityProfile to judge for")
	flags.StringVar(&f.name, "name", "", "name of the SecurityProfile to judge for, where a policy has requireName")
	_ = cmd.MarkFlagRequired("policy")
}

func (a *app) verifyCommand() *cobra.Command {
	var f trustFlags
	var o outputFlag
	cmd := &cobra.Command{
		Use:   "verify REPOSITORY@DIGEST --policy FILE",
		Short: "Judge an artifact as a node would, and install nothing",
		Long: `Verify pulls the artifact, verifies its signatures against the TrustPolicy and
judges its profiles by the policy's constraints, exactly as a node does. It
prints who signed and what the artifact holds, or the reason for the refusal.`,
		Example: `  confine verify registry.example.com/profiles/web@sha256:... --policy trust.yaml --namespace web`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.check(); err != nil {
				return err
			}
			art, err := a.judge(cmd.Context(), args[0], f)
			if err != nil {
				return err
			}
			out := verifiedOf(art)
			return a.print(o, out, func() { a.printVerified(out) })
		},
	}
	f.add(cmd)
	o.add(cmd)
	return cmd
}

func (a *app) pullCommand() *cobra.Command {
	var f trustFlags
	var dir string
	cmd := &cobra.Command{
		Use:   "pull REPOSITORY@DIGEST --policy FILE -o DIR",
		Short: "Verify an artifact and write its profiles into a folder",
		Long: `Pull does what verify does, and then writes the profiles into DIR. Nothing is
written unless the whole artifact was verified. A file of the same name in DIR
is replaced.`,
		Example: `  confine pull registry.example.com/profiles/web@sha256:... --policy trust.yaml -o profiles/`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkFolder(dir); err != nil {
				return err
			}
			art, err := a.judge(cmd.Context(), args[0], f)
			if err != nil {
				return err
			}
			return a.writePayloads(dir, art)
		},
	}
	f.add(cmd)
	cmd.Flags().StringVarP(&dir, "output", "o", "", "folder to write the profiles into (required)")
	_ = cmd.MarkFlagRequired("output")
	return cmd
}

// judge pulls the artifact under the policies of a file, in as many passes as
// its signatures need.
func (a *app) judge(ctx context.Context, arg string, f trustFlags) (*artifact.Artifact, error) {
	ref, err := reference.ParsePinned(arg)
	if err != nil {
		return nil, err
	}
	policies, err := intent.ReadPolicyFile(f.policy)
	if err != nil {
		return nil, err
	}
	client, err := a.client()
	if err != nil {
		return nil, err
	}
	ctx, cancel := a.within(ctx)
	defer cancel()
	puller := artifact.NewPuller(artifact.PullerOptions{Kinds: knownKinds()})
	request := artifact.Request{
		Repository: ref.Repository, Digest: ref.Digest,
		Owner: profile.Owner{Namespace: f.namespace, Name: f.name},
	}
	done := func() {}
	for n := 1; ; n++ {
		done()
		done = a.progress("verifying %s", ref)
		art, err := puller.Pull(ctx, client, policies, request)
		if err == nil || !errors.Is(err, artifact.ErrMoreSignatures) || n == maxPasses {
			done()
			return art, err
		}
	}
}

type verified struct {
	Reference   string            `json:"reference"`
	Annotations map[string]string `json:"annotations,omitempty"`
	Signatures  []signature       `json:"signatures"`
	Profiles    []payload         `json:"profiles"`
}

type signature struct {
	Credential string   `json:"credential"`
	Signers    []string `json:"signers"`
	Form       string   `json:"form"`
}

type payload struct {
	File   string `json:"file"`
	Kind   string `json:"kind"`
	Digest string `json:"digest"`
	Size   int    `json:"size"`
}

func verifiedOf(art *artifact.Artifact) verified {
	out := verified{Reference: art.Request.Object(), Annotations: art.Annotations}
	for _, c := range art.Verdict.Credentials {
		out.Signatures = append(out.Signatures, signature{Credential: c.ID, Signers: c.Signers, Form: string(c.Form)})
	}
	for _, p := range art.Payloads {
		out.Profiles = append(out.Profiles, payload{
			File: p.File, Kind: p.Kind, Digest: p.Digest.String(), Size: len(p.Data),
		})
	}
	return out
}

func (a *app) printVerified(out verified) {
	a.printf("%s verified\n", out.Reference)
	for _, s := range out.Signatures {
		a.printf("signed by %s (%s)\n", strings.Join(s.Signers, ", "), shortDigest(s.Credential))
	}
	rows := [][]string{{"FILE", "KIND", "SIZE"}}
	for _, p := range out.Profiles {
		rows = append(rows, []string{p.File, p.Kind, fmt.Sprintf("%d B", p.Size)})
	}
	a.table(rows)
}

// checkFolder refuses an -o that cannot be meant as a folder: a file, and the
// formats that -o takes in other commands.
func checkFolder(dir string) error {
	if dir == "json" || dir == "yaml" {
		return usagef("-o %s: pull's -o is a folder; write ./%s if that is its name", dir, dir)
	}
	info, err := os.Stat(dir)
	if err == nil && !info.IsDir() {
		return usagef("-o %s: it is a file, and pull's -o is a folder", dir)
	}
	return nil
}

func (a *app) writePayloads(dir string, art *artifact.Artifact) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return durable.Explain(dir, err)
	}
	target, err := durable.Open(dir, durable.Options{})
	if err != nil {
		return err
	}
	defer func() { _ = target.Close() }()
	for _, p := range art.Payloads {
		if err := target.WriteFile(p.File, p.Data, 0o644); err != nil {
			return durable.Explain(filepath.Join(dir, p.File), err)
		}
		a.printf("%s written\n", filepath.Join(dir, p.File))
	}
	return nil
}
