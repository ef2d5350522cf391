//go:build amd64 || arm64

package sandbox

import (
	"os/exec"
	"testing"
)

// BenchmarkStart compares starting a program with starting it in a sandbox.
func BenchmarkStart(b *testing.B) {
	b.Run("plain", func(b *testing.B) {
		for b.Loop() {
			if err := exec.CommandContext(b.Context(), "/bin/true").Run(); err != nil {
				b.Fatal(err)
			}
		}
	})
	for _, f := range []Filter{Compiler, Tool} {
		b.Run(f.String(), func(b *testing.B) {
			for b.Loop() {
				if err := Run(b.Context(), Program{Path: "/bin/true", Filter: f}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkAssemble is part of each start.
func BenchmarkAssemble(b *testing.B) {
	for _, f := range []Filter{Compiler, Tool, Agent, Fetch, Converter} {
		b.Run(f.String(), func(b *testing.B) {
			n := 0
			for b.Loop() {
				calls, absent, err := f.calls()
				if err != nil {
					b.Fatal(err)
				}
				program, err := assemble(calls, absent)
				if err != nil {
					b.Fatal(err)
				}
				n = len(program)
			}
			b.ReportMetric(float64(n), "instructions")
		})
	}
}
