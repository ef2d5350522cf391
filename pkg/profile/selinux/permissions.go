package selinux

import (
	"slices"
	"strings"
)

// defaultPermissions returns what a profile may allow without a relaxation.
// Classes and permissions are those of the kernel
// (https://github.com/torvalds/linux/blob/master/security/selinux/include/classmap.h).
// The list follows what container-selinux grants every container on itself
// (https://github.com/containers/container-selinux/blob/main/container.te,
// container_domain and container_net_domain) and what udica writes
// (https://github.com/containers/udica/blob/main/udica/perms.py), less what
// neverPermitted and the notes below leave out:
//
//   - process: no ptrace, execmem, execstack and execheap (a policy may list
//     them, for compilers at run time), none of the set*create and setexec that
//     choose labels, and nothing that only matters to a change of domain.
//   - capability: the set that runtimes give by default
//     (https://github.com/containerd/containerd/blob/main/pkg/oci/spec.go); no
//     capability2, cap_userns or user_namespace.
//   - files: no mounton, quotaon, execmod or entrypoint; no making of devices,
//     and no block devices, of which one is the whole disk.
//   - no raw, packet or netlink socket but for reading routes; no bpf,
//     perf_event, io_uring, anon_inode, filesystem, system, service of any user
//     space object manager.
func defaultPermissions() map[string][]string {
	const (
		file   = "append create getattr ioctl link lock map open read rename setattr unlink write watch watch_reads"
		socket = "accept append bind connect create getattr getopt ioctl listen lock map read recvfrom sendto setattr setopt shutdown write name_bind"
		ipc    = "associate create destroy getattr read setattr unix_read unix_write write"
	)
	all := map[string]string{
		"process": "fork getattr getcap getpgid getrlimit getsched getsession setcap setpgid setrlimit setsched " +
			"sigchld sigkill signal signull sigstop",
		"capability": "audit_write chown dac_override fowner fsetid kill mknod net_bind_service net_raw setfcap " +
			"setgid setpcap setuid sys_chroot",
		"fd":                   "use",
		"file":                 file + " execute execute_no_trans",
		"dir":                  file + " add_name remove_name reparent rmdir search",
		"lnk_file":             "create getattr ioctl link lock open read append rename setattr unlink write",
		"fifo_file":            file,
		"sock_file":            file,
		"chr_file":             "append getattr ioctl lock map open read write watch watch_reads",
		"unix_stream_socket":   socket + " connectto",
		"unix_dgram_socket":    socket,
		"tcp_socket":           socket + " name_connect node_bind",
		"udp_socket":           socket + " node_bind",
		"sctp_socket":          socket + " association name_connect node_bind",
		"icmp_socket":          socket + " node_bind",
		"netlink_route_socket": "bind connect create getattr getopt ioctl lock nlmsg_read read setattr setopt shutdown write",
		"sem":                  ipc,
		"shm":                  ipc + " lock",
		"msgq":                 ipc + " enqueue",
		"msg":                  "receive send",
		"key":                  "create link read search setattr view write",
	}
	lists := make(map[string][]string, len(all))
	for class, permissions := range all {
		lists[class] = strings.Fields(permissions)
	}
	return lists
}

// neverPermitted says why no policy can admit a permission, or nothing: what
// ends or rewrites the confinement itself is not for a profile.
func neverPermitted(class, permission string) string {
	in := func(list ...string) bool { return slices.Contains(list, permission) }
	switch {
	case class == "security":
		return "it controls SELinux itself"
	case class == "kernel_service":
		return "it acts with the kernel's own label"
	case in("relabelfrom", "relabelto"):
		return "it changes what other rules mean, by changing labels"
	case class == "process" && in("transition", "dyntransition", "setcurrent"), class == "process2":
		return "it leaves the process type"
	case in("entrypoint"):
		return "it opens a way into the process type"
	case class == "capability2" && in("mac_admin", "mac_override"), class == "cap2_userns" && in("mac_admin", "mac_override"):
		return "it is above mandatory access control"
	case (class == "capability" || class == "cap_userns") && in("sys_module"), class == "system" && in("module_load"):
		return "it loads code into the kernel"
	case class == "memprotect":
		return "it maps memory where kernel bugs turn into privileges"
	default:
		return ""
	}
}
