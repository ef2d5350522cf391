package artifact

import (
	"context"

	"github.com/opencontainers/go-digest"

	"github.com/confine-dev/confine/pkg/artifact/pack"
	"github.com/confine-dev/confine/pkg/artifact/reference"
	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/reason"
)

// ReadUnverified returns an artifact's payloads by digest without asking who
// signed them, for showing them to a person. Nodes never call it.
func ReadUnverified(ctx context.Context, from Fetcher, kinds profile.Set, repo reference.Repository, d digest.Digest) ([]pack.Input, error) {
	raw, err := fetchManifest(ctx, from, repo, d)
	if err != nil {
		return nil, err
	}
	manifest, err := pack.Parse(raw, kinds)
	if err != nil {
		return nil, named(objectOf(repo, d), err)
	}
	if manifest.IsIndex() {
		return nil, reason.New(reason.UnsupportedArtifact, objectOf(repo, d), "it is an index of several artifacts").
			WithAdvice("name one of its children by digest: confine inspect lists them")
	}
	layers, data, err := fetchLayers(ctx, from, repo, objectOf(repo, d), manifest, kinds)
	if err != nil {
		return nil, err
	}
	inputs := make([]pack.Input, 0, len(layers))
	for i, layer := range layers {
		inputs = append(inputs, pack.Input{File: layer.File, Kind: layer.Kind, Data: data[i]})
	}
	return inputs, nil
}
