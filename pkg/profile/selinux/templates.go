package selinux

// The names that the base template declares in every block which inherits it:
// the type of the container's processes, and of the socket files they share.
const (
	processName  = "process"
	socketName   = "socket"
	baseTemplate = "container"
)

// template is a block that container-selinux ships for profiles to inherit
// from, in /usr/share/udica/templates
// (https://github.com/containers/container-selinux/tree/main/udica-templates,
// read at 66ae652f; the same as https://github.com/containers/udica 0.2.6).
// The file base_container.cil declares the block container; there is no block
// base_container.
type template struct {
	name string
	// byDefault is set where the template gives nothing but what every container
	// has in container-selinux's own policy: its own network and terminal. The
	// others reach files or services of the host, if only to read: a policy
	// has to list them, as it has to list types.
	byDefault bool
	// reaches says what of the host comes with it, for reviewers.
	reaches string
}

func templates() []template {
	return []template{
		{baseTemplate, true, ""},
		{"net_container", true, ""},
		{"restricted_net_container", true, ""},
		{"tty_container", true, ""},
		{"log_container", false, "reads all logs of the host, those of auditd too"},
		{"config_container", false, "reads all configuration files of the host"},
		{"tmp_container", false, "reads all temporary files of the host"},
		{"home_container", false, "reads users' home folders, with dac_override"},
		{"log_rw_container", false, "writes to the host's logs"},
		{"log_manage_container", false, "writes to and removes the host's logs"},
		{"config_rw_container", false, "writes to all configuration files of the host"},
		{"config_manage_container", false, "makes and removes all configuration files of the host"},
		{"tmp_rw_container", false, "writes to all temporary files of the host"},
		{"home_rw_container", false, "writes to users' home folders, with dac_override"},
		{"home_manage_container", false, "makes and removes files in users' home folders, with dac_override"},
		{"virt_container", false, "speaks to the host's libvirt, which can do what root can"},
		{"x_container", false, "speaks to the host's X server, which sees every key and every window"},
	}
}

func findTemplate(name string) (template, bool) {
	for _, t := range templates() {
		if t.name == name {
			return t, true
		}
	}
	return template{}, false
}
