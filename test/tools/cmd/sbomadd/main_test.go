package main

import (
	"bytes"
	"strings"
	"testing"
)

func TestRun(t *testing.T) {
	const in = `{"metadata":{"a":1},"components":[{"name":"m"}]}`
	tests := map[string]struct {
		in        string
		libraries []string
		want      string // in the output; empty: an error
	}{
		"added after the modules": {
			in: in, libraries: []string{"libseccomp=2.5.4-1+deb12u1"},
			want: `"purl": "pkg:deb/debian/libseccomp@2.5.4-1%2Bdeb12u1"`,
		},
		"nothing to add":     {in: in, want: `"name": "m"`},
		"version is missing": {in: in, libraries: []string{"libseccomp="}},
		"no SBOM":            {in: "not JSON"},
		"no components":      {in: `{"metadata":{}}`},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			err := run(strings.NewReader(tc.in), &out, tc.libraries)
			if wantErr := tc.want == ""; (err != nil) != wantErr {
				t.Fatalf("error %v, want one: %t", err, wantErr)
			}
			if !strings.Contains(out.String(), tc.want) {
				t.Errorf("%q is missing in:\n%s", tc.want, out.String())
			}
		})
	}
}
