package main

import (
	"os"
	"testing"
)

// agentEnv makes this test binary the agent itself, with whatever arguments.
const agentEnv = "CONFINE_TEST_AGENT"

// TestMain lets agents that share the tests' process start the test binary as
// their fetch child, as an agent starts itself.
func TestMain(m *testing.M) {
	if os.Getenv(agentEnv) != "" || len(os.Args) > 1 && os.Args[1] == "fetch" {
		main()
		return
	}
	os.Exit(m.Run())
}
