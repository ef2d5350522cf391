package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestCommandLine(t *testing.T) {
	for name, test := range map[string]struct {
		args []string
		code int
		want string
	}{
		"help":               {[]string{"--help"}, exitOK, "--agent-selector"},
		"version":            {[]string{"--version"}, exitOK, "confine-controller version"},
		"unknown flag":       {[]string{"--nodes"}, exitUsage, "unknown flag"},
		"arguments":          {[]string{"now"}, exitUsage, "unknown command"},
		"log format":         {[]string{"--log-format", "xml"}, exitUsage, "only text and json"},
		"log level":          {[]string{"--log-level", "loud"}, exitUsage, "only debug, info"},
		"selector":           {[]string{"--agent-selector", "a b"}, exitUsage, "--agent-selector"},
		"every pod an agent": {[]string{"--agent-selector", ""}, exitUsage, "selects every pod"},
		"lease":              {[]string{"--lease-duration", "1ms"}, exitUsage, "less than a second"},
		"no cluster":         {[]string{"--kubeconfig", filepath.Join(t.TempDir(), "none")}, exitFailed, "give --kubeconfig"},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			code := run(t.Context(), test.args, process{out: &out, err: &out, lookupEnv: os.LookupEnv})
			if code != test.code || !strings.Contains(out.String(), test.want) {
				t.Errorf("exit %d, want %d and %q:\n%s", code, test.code, test.want, &out)
			}
		})
	}
}

func TestNamespace(t *testing.T) {
	for name, test := range map[string]struct{ flag, environment, want string }{
		"neither":         {want: ""},
		"of the pod":      {environment: "pods", want: "pods"},
		"the flag's wins": {flag: "flags", environment: "pods", want: "flags"},
	} {
		t.Run(name, func(t *testing.T) {
			f := flags{namespace: test.flag, agents: "a=b", leaseDuration: 1 << 40}
			opts, err := f.options(process{lookupEnv: func(key string) (string, bool) {
				return test.environment, key == "POD_NAMESPACE" && test.environment != ""
			}}, nil)
			if err != nil || opts.Namespace != test.want {
				t.Errorf("%q, %v", opts.Namespace, err)
			}
		})
	}
}
