package fetch

import (
	"path/filepath"
	"runtime"
	"testing"

	"github.com/confine-dev/confine/pkg/artifact"
	"github.com/confine-dev/confine/pkg/node/agent"
	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/profile/kinds"
)

// BenchmarkPull pulls and verifies one signed artifact from a registry on
// loopback, in this process and through a child: one after another, and eight at
// one time.
func BenchmarkPull(b *testing.B) {
	m := newMachine(b)
	d := m.wants(b, profileText)
	puller := artifact.NewPuller(artifact.PullerOptions{Kinds: kinds.All(nil)})
	folders := agent.Folders{Manifests: filepath.Join(m.dir, "manifests"), TrustDir: filepath.Join(m.dir, "trust"), Puller: puller}
	trusted, err := folders.Trust()
	if err != nil {
		b.Fatal(err)
	}
	request := artifact.Request{Repository: m.repo, Digest: d, Owner: profile.Owner{Namespace: "web", Name: "nginx"}}
	r := start(b)
	for _, bench := range []struct {
		name string
		from artifact.Fetcher
	}{{"here", m.client}, {"child", r}} {
		pull := func(b *testing.B) {
			if _, err := trusted.Pull(b.Context(), bench.from, request); err != nil {
				b.Error(err)
			}
		}
		b.Run(bench.name+"/one", func(b *testing.B) {
			for b.Loop() {
				pull(b)
			}
		})
		b.Run(bench.name+"/eight", func(b *testing.B) {
			b.SetParallelism(max(1, 8/runtime.GOMAXPROCS(0)))
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					pull(b)
				}
			})
		})
	}
}

// BenchmarkManifest is the way to the child and back with one small manifest,
// beside what the registry takes.
func BenchmarkManifest(b *testing.B) {
	m := newMachine(b)
	d := m.wants(b, profileText)
	r := start(b)
	for _, bench := range []struct {
		name string
		from artifact.Fetcher
	}{{"here", m.client}, {"child", r}} {
		b.Run(bench.name, func(b *testing.B) {
			for b.Loop() {
				if _, err := bench.from.Manifest(b.Context(), m.repo, d); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
