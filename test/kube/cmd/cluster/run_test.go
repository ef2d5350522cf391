package main

import (
	"strings"
	"testing"
)

func TestRunRefuses(t *testing.T) {
	dir := t.TempDir()
	tests := map[string]struct {
		args []string
		want string
	}{
		"nothing to do":        {nil, "say what to do"},
		"unknown verb":         {[]string{"fly"}, `"fly" is nothing it does`},
		"up without a number":  {[]string{"up"}, "how many nodes"},
		"up with a word":       {[]string{"up", "three"}, "three"},
		"kill without a node":  {[]string{"node-kill"}, "number of a node"},
		"boot of no node":      {[]string{"node-boot", "7"}, "node7 was never made"},
		"command without node": {[]string{"node"}, "number of a node and a command"},
		"command on no node":   {[]string{"node", "7", "true"}, "node7 is not up"},
		"exec of nothing":      {[]string{"exec"}, "name a command"},
		"bad name":             {[]string{"-name", "../x", "status"}, "a name is"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			err := run(append([]string{"-dir", dir}, tc.args...))
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v does not tell about %q", err, tc.want)
			}
		})
	}
}
