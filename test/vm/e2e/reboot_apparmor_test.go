//go:build reboot && lsm_apparmor

package e2e_test

import "testing"

// TestRebootOfAppArmor: the kernel has lost the profile, and the agent brings it
// back.
func TestRebootOfAppArmor(t *testing.T) {
	k := appArmor()
	reboot(t, k, nil, func() {
		if k.loaded(t) {
			t.Error("the kernel has the profile, so this is no other boot")
		}
	})
}
