package cli

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/opencontainers/go-digest"
	"github.com/spf13/cobra"

	"github.com/confine-dev/confine/pkg/artifact"
	"github.com/confine-dev/confine/pkg/artifact/pack"
	"github.com/confine-dev/confine/pkg/artifact/reference"
	"github.com/confine-dev/confine/pkg/artifact/registry"
)

func (a *app) resolveCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "resolve REPOSITORY:TAG",
		Short: "Print REPOSITORY@DIGEST for a tag",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ref, err := reference.Parse(args[0])
			if err != nil {
				return err
			}
			client, err := a.client()
			if err != nil {
				return err
			}
			ctx, cancel := a.within(cmd.Context())
			defer cancel()
			pinned, err := a.pin(ctx, client, ref)
			if err != nil {
				return err
			}
			a.printf("%s\n", pinned.Repository.Pinned(pinned.Digest))
			return nil
		},
	}
}

// pin turns a tag into a digest by asking the registry; a digest stays.
func (a *app) pin(ctx context.Context, client *registry.Client, ref reference.Reference) (reference.Reference, error) {
	if ref.Digest != "" {
		return ref, nil
	}
	if ref.Tag == "" {
		return reference.Reference{}, usagef("%s: give a tag or a digest", ref)
	}
	desc, err := client.Resolve(ctx, ref)
	if err != nil {
		return reference.Reference{}, err
	}
	ref.Digest = desc.Digest
	return ref, nil
}

func (a *app) inspectCommand() *cobra.Command {
	var o outputFlag
	cmd := &cobra.Command{
		Use:   "inspect REFERENCE",
		Short: "Show what a registry says an artifact holds, and who may have signed it",
		Long: `Inspect shows an artifact's form, layers, annotations and attached signatures.
Nothing it shows is verified: use verify for that.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.check(); err != nil {
				return err
			}
			ref, err := reference.Parse(args[0])
			if err != nil {
				return err
			}
			ctx, cancel := a.within(cmd.Context())
			defer cancel()
			out, err := a.inspect(ctx, ref)
			if err != nil {
				return err
			}
			return a.print(o, out, func() { a.printInspected(out) })
		},
	}
	o.add(cmd)
	return cmd
}

type inspected struct {
	Reference   string               `json:"reference"`
	Form        string               `json:"form"`
	Annotations map[string]string    `json:"annotations,omitempty"`
	Layers      []inspectedLayer     `json:"layers,omitempty"`
	Children    []inspectedChild     `json:"children,omitempty"`
	Signatures  []inspectedSignature `json:"signatures"`
	// MoreSignatures is set where only the first ones were listed.
	MoreSignatures bool `json:"moreSignatures,omitempty"`
}

type inspectedLayer struct {
	File      string `json:"file,omitempty"`
	Kind      string `json:"kind,omitempty"`
	MediaType string `json:"mediaType"`
	Digest    string `json:"digest"`
	Size      int64  `json:"size"`
}

type inspectedChild struct {
	Platform string `json:"platform"`
	Digest   string `json:"digest"`
}

type inspectedSignature struct {
	ID    string `json:"id,omitempty"`
	Form  string `json:"form,omitempty"`
	Error string `json:"error,omitempty"`
}

func (a *app) inspect(ctx context.Context, ref reference.Reference) (inspected, error) {
	client, err := a.client()
	if err != nil {
		return inspected{}, err
	}
	if ref, err = a.pin(ctx, client, ref); err != nil {
		return inspected{}, err
	}
	raw, err := client.Manifest(ctx, ref.Repository, ref.Digest)
	if err != nil {
		return inspected{}, err
	}
	manifest, err := pack.Parse(raw, knownKinds())
	if err != nil {
		return inspected{}, err
	}
	out := inspected{Reference: ref.Repository.Pinned(ref.Digest).String(), Form: string(manifest.Form), Annotations: manifest.Annotations}
	for _, l := range manifest.Layers {
		out.Layers = append(out.Layers, inspectedLayer{
			File: l.File, Kind: l.Kind, MediaType: l.Descriptor.MediaType, Digest: l.Descriptor.Digest.String(), Size: l.Descriptor.Size,
		})
	}
	for _, c := range manifest.Children {
		child := inspectedChild{Digest: c.Digest.String()}
		if c.Platform != nil {
			child.Platform = c.Platform.OS + "/" + c.Platform.Architecture
		}
		out.Children = append(out.Children, child)
	}
	out.Signatures, out.MoreSignatures = listSignatures(ctx, client, ref)
	return out, nil
}

// listSignatures lists as many signatures as one pass would try.
func listSignatures(ctx context.Context, from artifact.Fetcher, ref reference.Reference) (found []inspectedSignature, more bool) {
	found = []inspectedSignature{}
	walk := from.Signatures(ctx, ref.Repository, ref.Digest, func(digest.Digest) bool { return false })
	for len(found) < artifact.CandidatesPerPass {
		candidate, err := walk.Next(ctx)
		if errors.Is(err, io.EOF) {
			return found, false
		}
		var skipped *artifact.SkippedError
		switch {
		case errors.As(err, &skipped):
			found = append(found, inspectedSignature{ID: skipped.ID.String(), Error: oneLine(skipped.Error())})
		case err != nil:
			return append(found, inspectedSignature{Error: oneLine(err.Error())}), true
		default:
			found = append(found, inspectedSignature{ID: candidate.ID.String(), Form: string(candidate.Form)})
		}
	}
	return found, true
}

func (a *app) printInspected(out inspected) {
	a.printf("%s (%s, not verified)\n", out.Reference, out.Form)
	for _, key := range sortedKeys(out.Annotations) {
		a.printf("annotation %s=%s\n", oneLine(key), oneLine(out.Annotations[key]))
	}
	rows := [][]string{{"FILE", "KIND", "SIZE", "DIGEST"}}
	for _, l := range out.Layers {
		rows = append(rows, []string{orDash(l.File), orDash(l.Kind), fmt.Sprintf("%d B", l.Size), shortDigest(l.Digest)})
	}
	for _, c := range out.Children {
		rows = append(rows, []string{orDash(c.Platform), "manifest", "-", shortDigest(c.Digest)})
	}
	a.table(rows)
	for _, s := range out.Signatures {
		if s.Error != "" {
			a.printf("signature not read: %s\n", s.Error)
			continue
		}
		a.printf("signature %s (%s)\n", shortDigest(s.ID), s.Form)
	}
	switch {
	case len(out.Signatures) == 0:
		a.printf("no signatures\n")
	case out.MoreSignatures:
		a.printf("more signatures are attached than the %d listed\n", len(out.Signatures))
	}
}
