package corpus

// Harmless are usual profiles of containers, called as Confine's are. The safe
// default admits them, and programs run under them.
func Harmless() map[string]string {
	const kernel = `  deny @{PROC}/* w,
  deny @{PROC}/{[^1-9],[^1-9][^0-9],[^1-9s][^0-9y][^0-9s],[^1-9][^0-9][^0-9][^0-9]*}/** w,
  deny @{PROC}/sys/** wklx,
  deny @{PROC}/{sysrq-trigger,kcore,kmem,mem} rwklx,
  deny @{PROC}/** wl,
  deny /sys/** wklx,
  deny /dev/{mem,kmem,port} rwklx,
`
	return map[string]string{
		"everything but the kernel's interfaces": preamble + `profile confine.web.default flags=(attach_disconnected, mediate_deleted) {
  include <abstractions/base>
  network,
  capability chown dac_override fowner fsetid kill mknod net_bind_service net_raw setfcap setgid setpcap setuid sys_chroot audit_write,
  file,
  signal (receive) peer=unconfined,
  signal (send, receive) peer=@{profile_name},
  ptrace (trace, read, tracedby, readby) peer=@{profile_name},
` + kernel + "}\n",
		"a web server": preamble + `profile confine.web.nginx flags=(attach_disconnected, mediate_deleted) {
  include <abstractions/base>
  include <abstractions/nameservice>
  network inet stream,
  network inet6 stream,
  capability chown setuid setgid net_bind_service,
  deny network raw,
  deny network packet,
  /usr/sbin/nginx mrix,
  /etc/nginx/** r,
  /usr/share/nginx/** r,
  /var/log/nginx/* w,
  owner /var/cache/nginx/** rw,
  /run/nginx.pid rw,
  deny /bin/** wl,
  deny /etc/** wl,
  deny /bin/{dash,sh,bash} mrwklx,
}
`,
		"a worker with a child for its helper": preamble + `@{DATA} = /srv/data /srv/more
profile confine.web.worker {
  include <abstractions/base>
  @{DATA}/** rw,
  owner /tmp/** rwk,
  /usr/bin/helper Cx -> helper,
  signal (send) set=(term, kill) peer=confine.web.worker//helper,
  set rlimit nofile <= 1024,
  profile helper {
    include <abstractions/base>
    /usr/bin/helper mr,
    @{DATA}/** r,
    signal (receive) peer=confine.web.worker,
  }
}
`,
		"hats": preamble + `profile confine.web.apache {
  include <abstractions/base>
  /srv/htdocs/** r,
  ^upload {
    owner /srv/upload/** rw,
  }
}
`,
		"what AppArmor 3 does not know": preamble + `profile confine.web.new {
  include <abstractions/base>
  mqueue (create, read, write) type=posix /jobs,
  unix (connect, send, receive) type=stream peer=(addr="@/tmp/x*"),
  link subset /srv/a -> /srv/b,
  deny userns,
  deny all,
}
`,
	}
}

// NewerHarmless are those of Harmless that the parser of AppArmor 3.0 refuses.
func NewerHarmless() []string { return []string{"what AppArmor 3 does not know"} }
