package apparmor

import (
	"slices"
	"strings"

	"github.com/confine-dev/confine/pkg/profile/apparmor/internal/glob"
	"github.com/confine-dev/confine/pkg/profile/apparmor/policy"
)

// Bounds of judging what the profiles of one text may write.
const (
	searchBudget = 4_000_000 // states visited, about a second
	maxDenyNodes = 100_000   // of automata of deny rules; further ones do not count
)

// kernelPaths are the interfaces of the kernel that a confined process has no
// business to write: they change the machine (sysctls, sysrq, devices and
// firmware under /sys, raw memory), the confinement itself (AppArmor's own
// files, /proc/*/attr), or other processes (/proc/*/mem). They are what
// runtimes mask or mount read-only and their default profiles deny, and a
// container with hostPath mounts or its own /proc can reach past the masks.
func kernelPaths() []string {
	return []string{
		"/proc/sys/**", "/proc/{sysrq-trigger,kcore,kmem,mem,mtrr,timer_list,sched_debug,keys,key-users,latency_stats}",
		"/proc/{acpi,bus,driver,dynamic_debug,fs,irq,scsi,tty}/**",
		"/proc/{[0-9]*,self,thread-self}/{,task/*/}attr/**",
		"/proc/{[0-9]*,self,thread-self}/{,task/*/}{mem,uid_map,gid_map,setgroups,projid_map}",
		"/sys/**", "/dev/{mem,kmem,port}",
	}
}

// harmlessPaths are exceptions: the container's own control groups and its own
// System V shared memory, which default profiles of runtimes leave writable.
func harmlessPaths() []string { return []string{"/sys/fs/cgroup/**", "/proc/sys/kernel/shm*"} }

// cgroupPaths start programs on the host, or lift limits: no exception covers them.
func cgroupPaths() []string {
	return []string{"/sys/fs/cgroup/**/release_agent", "/sys/fs/cgroup/release_agent", "/sys/fs/cgroup/**/devices.{allow,deny}"}
}

// kernelWrites judges what all rules of a profile together let it write. A
// deny rule counts where it holds always: without owner, condition or priority.
func (j *judge) kernelWrites(p *policy.Profile) {
	if slices.Contains(j.rules, KernelInterface) {
		return
	}
	denied, covered := &glob.Set{}, &glob.Set{}
	for _, r := range p.Rules {
		if !takesWriting(r) {
			continue
		}
		for _, path := range j.globs(r.File, glob.Least) {
			if reachesKernel(path) && denied.Size() < maxDenyNodes {
				denied.Add(path, glob.Least)
				covered.Add(path, glob.Least)
			}
		}
	}
	for _, path := range harmlessPaths() {
		covered.Add(path, glob.Least)
	}
	among, cgroups := setOf(kernelPaths()), setOf(cgroupPaths())
	for _, r := range p.Rules {
		j.linked(r, among)
		if !writes(r) {
			continue
		}
		for _, path := range j.globs(r.File, glob.Most) {
			if reachesKernel(path) && !(j.mayWrite(r, path, among, covered) && j.mayWrite(r, path, cgroups, denied)) {
				break
			}
		}
	}
}

// linked judges what a rule may give another name to. Under that the file is
// what the rules for the name say, and no deny rule for the file holds; but for
// links that the kernel compares. No link is made to /proc or /sys, so
// what is found are devices.
func (j *judge) linked(r *policy.Rule, among *glob.Set) {
	if r.Denies() || r.File == nil || r.File.Target == "" || r.File.Exec != "" || r.File.Subset || r.File.Aimless {
		return
	}
	for _, path := range j.globs(&policy.FileRule{Path: r.File.Target}, glob.Most) {
		if reachesKernel(path) && !j.mayWrite(r, path, among, &glob.Set{}) {
			return
		}
	}
}

// takesWriting reports whether a rule surely denies to write.
func takesWriting(r *policy.Rule) bool {
	return r.Denies() && r.Class == policy.FileClass && r.Owner == "" && r.When == "" && r.Priority == "" &&
		(r.File.Bare || strings.Contains(r.File.Access, "w"))
}

func writes(r *policy.Rule) bool {
	return r.Class == policy.FileClass && !r.Denies() && (r.File.Bare || strings.ContainsAny(r.File.Access, "wa"))
}

func (j *judge) globs(f *policy.FileRule, side glob.Side) []string {
	if f.Bare {
		return []string{"/**"}
	}
	if j.budget < 0 {
		if side == glob.Least {
			return nil
		}
		return []string{"/**"} // for which mayWrite says that nothing is judged any more
	}
	globs := j.variables.expand(f.Path, side)
	for _, g := range globs {
		j.budget -= 1 + len(g)/8
	}
	return globs
}

func setOf(globs []string) *glob.Set {
	s := &glob.Set{}
	for _, g := range globs {
		s.Add(g, glob.Least)
	}
	return s
}

// mayWrite notes a path that r allows, and reports whether there is none.
func (j *judge) mayWrite(r *policy.Rule, path string, among, except *glob.Set) bool {
	allowed := &glob.Set{}
	allowed.Add(path, glob.Most)
	example, found := glob.Search(allowed, among, except, &j.budget)
	switch found {
	case glob.Found:
		j.object(r.Pos, KernelInterface, "%s allows to write to the kernel's interface %s", shown(r.String()), shown(example))
	case glob.Unknown:
		j.object(r.Pos, Tangled, "what %s and the deny rules allow to write is too complicated to be judged", shown(r.String()))
	case glob.None:
		return true
	}
	return false
}

// reachesKernel reports whether a glob can match anything below the folders
// that hold the kernel's interfaces, by its literal beginning.
func reachesKernel(path string) bool {
	literal := path
	if i := strings.IndexAny(path, `*?[{\`); i >= 0 {
		literal = path[:i]
	}
	for _, folder := range []string{"/proc/", "/sys/", "/dev/"} {
		if strings.HasPrefix(literal, folder) || strings.HasPrefix(folder, literal) {
			return true
		}
	}
	return false
}

// isPowerful reports abstractions of Debian, Ubuntu and upstream that hold
// rules which a profile may not have by default. A test reads Debian's and
// holds that the list is complete for them.
func isPowerful(abstraction string) bool {
	return slices.ContainsFunc(powerful(), func(p string) bool {
		return abstraction == p || strings.HasPrefix(abstraction, p+"/")
	})
}

func powerful() []string {
	return []string{
		"apache2-common", "apparmor_api/change_profile", "authentication", "devices-usb", "libvirt-lxc", "libvirt-qemu", "lxc", "nvidia", "opencl", "opencl-nvidia",
		"snap_browsers", "ubuntu-bittorrent-clients", "ubuntu-browsers", "ubuntu-browsers.d", "ubuntu-console-browsers",
		"ubuntu-console-email", "ubuntu-email", "ubuntu-feed-readers", "ubuntu-gnome-terminal", "ubuntu-helpers",
		"ubuntu-konsole", "ubuntu-media-players", "ubuntu-unity7-base", "ubuntu-unity7-launcher", "ubuntu-unity7-messaging", "ubuntu-xterm",
	}
}
