package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/opencontainers/go-digest"

	"github.com/confine-dev/confine/pkg/artifact"
	"github.com/confine-dev/confine/pkg/artifact/pack"
	"github.com/confine-dev/confine/pkg/artifact/reference"
	client "github.com/confine-dev/confine/pkg/artifact/registry"
	"github.com/confine-dev/confine/pkg/artifact/sign"
	"github.com/confine-dev/confine/pkg/profile/kinds"
	"github.com/confine-dev/confine/pkg/profile/seccomp/compile"
)

// pushed is one artifact in the registry, with what the floor needs of it.
type pushed struct {
	ref       reference.Reference
	payload   []byte
	layer     digest.Digest
	signature digest.Digest // the referrer's manifest
	bundle    digest.Digest
}

// site is the registry on loopback, what was pushed to it, and who signed.
type site struct {
	dir       string
	host      string
	server    *http.Server
	requests  atomic.Int64
	referrers bool
	key       *sign.Key
	artifacts []pushed
	run       int
}

func newSite(ctx context.Context, dir string, n int) (*site, error) {
	s, err := newRegistry(dir, true)
	if err != nil {
		return nil, err
	}
	fmt.Printf("pushing and signing %d artifacts ...\n", n)
	return s, s.fill(ctx, n)
}

func newRegistry(dir string, referrers bool) (*site, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &site{dir: dir, host: listener.Addr().String(), referrers: referrers}
	backend := registry.New(registry.WithReferrersSupport(referrers), registry.Logger(log.New(io.Discard, "", 0)))
	s.server = &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.requests.Add(1)
		backend.ServeHTTP(w, r)
	})}
	go func() { _ = s.server.Serve(listener) }()
	return s, nil
}

func (s *site) close() { _ = s.server.Close() }

// fill pushes n artifacts, each of other bytes, and signs them with one key.
func (s *site) fill(ctx context.Context, n int) error {
	password := func() ([]byte, error) { return nil, nil }
	private, public, err := sign.GenerateKeyPair(password)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(s.dir, "cosign.pub"), public, 0o600); err != nil {
		return err
	}
	if s.key, err = sign.LoadKey(private, password); err != nil {
		return err
	}
	to, err := client.New(client.Options{})
	if err != nil {
		return err
	}
	base, err := os.ReadFile("examples/profiles/nginx.json")
	if err != nil {
		return err
	}
	for i := range n {
		payload := append([]byte(nil), base...)
		payload = append(payload, fmt.Sprintf("%*s\n", i+1, "")...) // white space: same meaning, other digest
		one, err := s.push(ctx, to, i, payload)
		if err != nil {
			return err
		}
		s.artifacts = append(s.artifacts, one)
	}
	return nil
}

func (s *site) push(ctx context.Context, to *client.Client, i int, payload []byte) (pushed, error) {
	ref, err := reference.Parse(fmt.Sprintf("%s/profiles/web-%d:1", s.host, i))
	if err != nil {
		return pushed{}, err
	}
	done, err := artifact.Push(ctx, to, kinds.All(compile.Resolver()), artifact.PushRequest{
		Reference: ref, Inputs: []pack.Input{{File: "nginx.json", Data: payload}}, Signer: s.key,
	})
	if err != nil {
		return pushed{}, err
	}
	raw, err := to.Manifest(ctx, ref.Repository, done.Signature)
	if err != nil {
		return pushed{}, err
	}
	var manifest struct {
		Layers []struct{ Digest digest.Digest }
	}
	if err := json.Unmarshal(raw, &manifest); err != nil {
		return pushed{}, err
	}
	ref.Digest = done.Digest
	return pushed{
		ref: ref, payload: payload, layer: digest.FromBytes(payload),
		signature: done.Signature, bundle: manifest.Layers[0].Digest,
	}, nil
}

// folder returns a new folder with an empty folder of manifests, and the policy
// that trusts the signer. Folders stay until the end: a file system may make
// files slowly where many were removed just before, which is nobody's work here.
func (s *site) folder() (string, error) {
	s.run++
	dir := filepath.Join(s.dir, fmt.Sprintf("run-%d", s.run))
	for _, sub := range []string{"manifests", "trust"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
			return "", err
		}
	}
	policy := fmt.Sprintf(`apiVersion: confine.dev/v1alpha1
kind: TrustPolicy
metadata: {name: bench}
spec:
  repositories: ["%s/profiles/*"]
  namespaces: [bench]
  threshold: 1
  allowedKinds: [seccomp]
  signers:
  - name: bench
    key:
      pem: |
        %s
`, s.host, strings.ReplaceAll(strings.TrimSpace(string(s.key.PublicPEM())), "\n", "\n        "))
	return dir, os.WriteFile(filepath.Join(dir, "trust", "bench.yaml"), []byte(policy), 0o600)
}

// want writes the manifests of the first n artifacts.
func (s *site) want(dir string, n int) error {
	var manifests strings.Builder
	for i, a := range s.artifacts[:n] {
		fmt.Fprintf(&manifests, "---\napiVersion: confine.dev/v1alpha1\nkind: SecurityProfile\nmetadata: {namespace: bench, name: web-%d}\nspec: {artifact: %q}\n", i, a.ref)
	}
	return os.WriteFile(filepath.Join(dir, "manifests", "all.yaml"), []byte(manifests.String()), 0o600)
}
