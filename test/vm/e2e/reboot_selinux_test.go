//go:build reboot && lsm_selinux

package e2e_test

import "testing"

// TestRebootOfSELinux: the policy store is on the disk, and the host loads it
// at boot.
func TestRebootOfSELinux(t *testing.T) {
	k := seLinux()
	reboot(t, k, []string{"etc/selinux", "var/lib/selinux"}, func() {
		if k.loaded(t) {
			t.Error("the kernel has the profile, so this is no other boot")
		}
		byHand(t, "", "load_policy")
		if !k.loaded(t) {
			t.Error("the host does not boot with the profile")
		}
	})
}
