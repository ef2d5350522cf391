// Package hostroot is what the chart lets an agent see and do of its host where a
// kind of profile needs more than a folder: the mounts below its --host-root and
// its capabilities. The tests of the chart compare it with what is rendered; the
// tests in virtual machines install profiles with this and nothing else.
package hostroot

import "github.com/confine-dev/confine/pkg/sandbox"

// At is the agent's --host-root.
const At = "/host/root"

// Mount is one folder or file of the host, mounted at the same path below At.
type Mount struct {
	Path string
	// ReadOnly is of the mount itself. What is mounted below it stays as it is.
	ReadOnly bool
	// Empty covers the host's folder with an empty one.
	Empty bool
}

// Kind is what one kind of profile needs beside Common.
type Kind struct {
	Mounts       []Mount
	Capabilities []sandbox.Capability
}

// Common is what both need: the host's programs, and to run them in the host's
// root as nobody.
func Common() Kind {
	return Kind{
		Mounts:       []Mount{{Path: "/usr", ReadOnly: true}, {Path: "/proc", ReadOnly: true}},
		Capabilities: []sandbox.Capability{sandbox.CapKill, sandbox.CapSetgid, sandbox.CapSetuid, sandbox.CapSysChroot},
	}
}

// AppArmor needs what profiles include, and the kernel's policy.
func AppArmor() Kind {
	return Kind{
		Mounts:       []Mount{{Path: "/etc/apparmor.d", ReadOnly: true}, {Path: "/sys/kernel/security"}},
		Capabilities: []sandbox.Capability{sandbox.CapMACAdmin},
	}
}

// SELinux needs the policy store in both of its places, what tells the homes of
// users, the kernel's policy, and what tells whether containers are labelled.
func SELinux() Kind {
	return Kind{Mounts: []Mount{
		{Path: "/etc/selinux"}, {Path: "/var/lib/selinux"},
		{Path: "/etc/passwd", ReadOnly: true}, {Path: "/etc/group", ReadOnly: true},
		{Path: "/etc/containerd", ReadOnly: true},
		{Path: "/run", Empty: true},
		{Path: "/sys/fs", ReadOnly: true},
		{Path: "/sys/fs/cgroup", ReadOnly: true, Empty: true}, {Path: "/sys/fs/bpf", ReadOnly: true, Empty: true},
	}}
}

// Links are in the image: where /bin and others lead that are not mounted.
func Links() map[string]string {
	return map[string]string{"bin": "usr/bin", "lib": "usr/lib", "lib64": "usr/lib64", "sbin": "usr/sbin"}
}
