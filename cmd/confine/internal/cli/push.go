package cli

import (
	"cmp"
	"fmt"
	"runtime"
	"strings"

	"github.com/spf13/cobra"

	"github.com/confine-dev/confine/pkg/artifact"
	"github.com/confine-dev/confine/pkg/artifact/pack"
	"github.com/confine-dev/confine/pkg/artifact/reference"
	"github.com/confine-dev/confine/pkg/artifact/sign"
	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/profile/seccomp"
)

type pushFlags struct {
	output  outputFlag
	key     string
	flatten flattenFlags
	pack    pack.Options
}

type flattenFlags struct {
	enabled bool
	arch    string
	caps    []string
	kernel  string
}

func (a *app) pushCommand() *cobra.Command {
	var f pushFlags
	cmd := &cobra.Command{
		Use:   "push REPOSITORY:TAG FILE...",
		Short: "Pack profiles into an artifact, push it, and sign it with --key",
		Long: `Push packs the files into one artifact, pushes it and, with --key, signs its
digest. One seccomp profile alone makes the format of KEP-6061; anything else
makes a Confine bundle. The last line printed is REPOSITORY@DIGEST, which is
what a SecurityProfile references. The same input makes the same digest.`,
		Example: `  confine push registry.example.com/profiles/web:1.4.0 nginx.json --key cosign.key
  confine push registry.example.com/profiles/web:1.4.0 nginx.json nginx.aa nginx.cil --key cosign.key
  confine push registry.example.com/profiles/web:1.4.0 moby-default.json --flatten --arch amd64`,
		Args: cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error { return a.push(cmd, args, f) },
	}
	flags := cmd.Flags()
	f.output.add(cmd)
	flags.StringVar(&f.key, "key", "", "sign with this cosign private key; its password is read from COSIGN_PASSWORD or asked for")
	flags.StringVar(&f.pack.Name, "name", "", "signed name annotation NAMESPACE/NAME, which requireName policies compare")
	flags.StringVar(&f.pack.Version, "artifact-version", "", "signed semantic version annotation, which floor policies compare")
	flags.BoolVar(&f.pack.Bundle, "bundle", false, "make a Confine bundle even of one seccomp profile")
	flags.BoolVar(&f.flatten.enabled, "flatten", false, "turn seccomp files in the moby or containers-common dialect into plain runtime-spec JSON")
	flags.StringVar(&f.flatten.arch, "arch", "", "with --flatten: architecture of the nodes, such as amd64 (default this machine's)")
	flags.StringSliceVar(&f.flatten.caps, "caps", nil, "with --flatten: capabilities that the workload has, such as CAP_SYS_ADMIN")
	flags.StringVar(&f.flatten.kernel, "min-kernel", "", "with --flatten: oldest kernel of the nodes (default 4.19)")
	return cmd
}

type pushed struct {
	Reference string `json:"reference"`
	Tag       string `json:"tag"`
	Digest    string `json:"digest"`
	Signature string `json:"signature,omitempty"`
}

func (a *app) push(cmd *cobra.Command, args []string, f pushFlags) error {
	if err := f.check(); err != nil {
		return err
	}
	ref, err := reference.Parse(args[0])
	if err != nil {
		return err
	}
	if ref.Tag == "" || ref.Digest != "" {
		return usagef("%s: push needs REPOSITORY:TAG without a digest", args[0])
	}
	kinds := knownKinds()
	inputs, err := a.pushInputs(args[1:], kinds, f.flatten)
	if err != nil {
		return err
	}
	var key *sign.Key
	if f.key != "" {
		if key, err = a.loadKey(f.key); err != nil {
			return err
		}
	}
	client, err := a.client()
	if err != nil {
		return err
	}
	ctx, cancel := a.within(cmd.Context())
	defer cancel()
	done := a.progress("pushing %s", ref)
	result, err := artifact.Push(ctx, client, kinds, artifact.PushRequest{
		Reference: ref, Inputs: inputs, Pack: f.pack, Signer: signerOrNil(key),
	})
	done()
	if err != nil {
		return err
	}
	out := pushed{
		Reference: ref.Repository.Pinned(result.Digest).String(),
		Tag:       ref.Tag,
		Digest:    result.Digest.String(),
		Signature: result.Signature.String(),
	}
	return a.print(f.output, out, func() { a.printPushed(ref, inputs, out) })
}

func (f pushFlags) check() error {
	if err := f.output.check(); err != nil {
		return err
	}
	if !f.flatten.enabled && (f.flatten.arch != "" || len(f.flatten.caps) > 0 || f.flatten.kernel != "") {
		return usagef("--arch, --caps and --min-kernel go with --flatten")
	}
	return nil
}

func (a *app) printPushed(ref reference.Reference, inputs []pack.Input, out pushed) {
	files := make([]string, 0, len(inputs))
	for _, input := range inputs {
		files = append(files, fmt.Sprintf("%s (%s)", oneLine(input.File), input.Kind))
	}
	a.printf("%s pushed: %s\n", ref, strings.Join(files, ", "))
	if out.Signature != "" {
		a.printf("signed: %s\n", out.Signature)
	} else {
		a.printf("not signed: sign it with --key, or with cosign sign, before nodes can use it\n")
	}
	a.printf("%s\n", out.Reference)
}

// pushInputs reads the files, flattens where asked, and warns of findings.
func (a *app) pushInputs(files []string, kinds profile.Set, f flattenFlags) ([]pack.Input, error) {
	inputs := make([]pack.Input, 0, len(files))
	for _, file := range files {
		input, err := readInput(file, kinds)
		if err != nil {
			return nil, err
		}
		if f.enabled && input.Kind == seccomp.Name {
			input.Data, err = seccomp.Flatten(input.Data, seccomp.FlattenOptions{Arch: cmp.Or(f.arch, runtime.GOARCH), Caps: f.caps, MinKernel: f.kernel})
			if err != nil {
				return nil, err
			}
		}
		parsed, err := parseInput(input, kinds)
		if err != nil {
			return nil, err
		}
		for _, finding := range parsed.Findings() {
			a.errorf("warning: %s:%s: %s\n", oneLine(file), finding.Position, oneLine(finding.Message))
		}
		inputs = append(inputs, input)
	}
	return inputs, nil
}
