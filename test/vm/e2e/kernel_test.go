//go:build lsm_apparmor || lsm_selinux

package e2e_test

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
)

var errGone = errors.New("the status has no such profile")

// version is one version of the profiles, which each kernel reads alike: under
// the first, data can be read, and under the second settings, too. Secrets never.
type version struct{ appArmor, seLinux string }

const (
	data     = "/srv/data"
	settings = "/srv/settings"
	secret   = "/srv/secret"
)

func underFirst() map[string]bool {
	return map[string]bool{data: true, settings: false, secret: false}
}

func underSecond() map[string]bool {
	return map[string]bool{data: true, settings: true, secret: false}
}

func first() version {
	return version{
		appArmor: `abi <abi/3.0>,
include <tunables/global>
profile confine.shop.web flags=(attach_disconnected) {
  include <abstractions/base>
  /bin/busybox mrix,
  /srv/data r,
}
`,
		seLinux: "(block confine_shop_web\n  (blockinherit container))\n",
	}
}

func second() version {
	return version{
		appArmor: strings.Replace(first().appArmor, "/srv/data r,", "/srv/data r,\n  /srv/settings r,", 1),
		seLinux:  strings.Replace(first().seLinux, "(blockinherit container)", "(blockinherit container)\n  (blockinherit config_container)", 1),
	}
}

// otherwise says the same in other bytes, so that it is another artifact.
func otherwise(v version) version {
	return version{appArmor: "# again\n" + v.appArmor, seLinux: "; again\n" + v.seLinux}
}

// kernel is what the tests have to know of this machine's.
type kernel struct {
	// kind is the one it enforces, and other the one it does not have.
	kind, other string
	// reference is how a pod names the profile.
	reference string
	// enter is the attribute's file and what runc writes to it; label is what the
	// process is under then.
	enter, label string
	// arrange makes the files and what they are labelled with.
	arrange func(t *testing.T)
	// loaded reports whether the kernel has the profile.
	loaded func(t *testing.T) bool
	// forget takes the profile away, and loosen gives it another content, by hand.
	forget, loosen func(t *testing.T)
	// more is what is tested on this kernel alone.
	more []scenario
}

func writeFiles(t *testing.T) {
	t.Helper()
	for _, file := range []string{data, settings, secret} {
		must(t, os.WriteFile(file, []byte("text\n"), 0o644))
	}
}

// byHand runs a program of the host's administrator.
func byHand(t *testing.T, input, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Stdin = strings.NewReader(input)
	said, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v: %s", name, args, err, said)
	}
	return string(said)
}
