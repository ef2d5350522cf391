//go:build lsm_apparmor

package e2e_test

import (
	"os"
	"strings"
	"testing"
)

func TestAppArmor(t *testing.T) { runScenarios(t, appArmor()) }

func appArmor() kernel {
	const name = "confine.shop.web"
	const policy = "/sys/kernel/security/apparmor"
	return kernel{
		kind: "apparmor", other: "selinux",
		reference: name, enter: "apparmor/exec exec " + name, label: name + " (enforce)",
		arrange: writeFiles,
		loaded: func(t *testing.T) bool {
			t.Helper()
			profiles, err := os.ReadFile(policy + "/profiles")
			must(t, err)
			return strings.Contains("\n"+string(profiles), "\n"+name+" ")
		},
		forget: func(t *testing.T) {
			t.Helper()
			must(t, os.WriteFile(policy+"/.remove", []byte(name), 0))
		},
		loosen: func(t *testing.T) {
			t.Helper()
			byHand(t, "profile "+name+" {\n  file,\n}\n", "apparmor_parser", "-r", "-K", "-q")
		},
	}
}
