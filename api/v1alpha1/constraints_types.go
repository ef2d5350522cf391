package v1alpha1

// AppArmorConstraints bound AppArmor profiles. Each field relaxes the safe
// default: profiles called confine.NAMESPACE.NAME for the namespace of their
// SecurityProfile, which attach to nothing, enforce, and reach no further than
// a container should.
type AppArmorConstraints struct {
	// allowedNames are names that profiles may have besides
	// confine.NAMESPACE.NAME. "*" stands for any run of letters, digits, dots,
	// hyphens and underscores, and not before the fourth character. Names that
	// begin with "confine" belong to the namespace that they say, and those of
	// runtimes' default profiles to the runtimes: neither can be allowed.
	//
	// +kubebuilder:validation:MaxItems=512
	// +kubebuilder:validation:items:MinLength=3
	// +kubebuilder:validation:items:MaxLength=253
	// +kubebuilder:validation:items:XValidation:rule=`self.matches('^[A-Za-z0-9][A-Za-z0-9._-]{2}[A-Za-z0-9._*-]*$')`,message="a pattern of names is letters, digits, dots, hyphens and underscores, with '*' after the first three characters, since it would match every name otherwise"
	// +kubebuilder:validation:items:XValidation:rule=`!self.matches('^(?i:confine)')`,message="a name that begins with confine belongs to the namespace that it says, and no policy gives it to another: remove the pattern"
	// +listType=set
	// +optional
	AllowedNames []string `json:"allowedNames,omitempty"`

	// allowedFlags are flags that profiles may have besides
	// attach_disconnected and mediate_deleted.
	//
	// +kubebuilder:validation:MaxItems=32
	// +listType=set
	// +optional
	AllowedFlags []AppArmorFlag `json:"allowedFlags,omitempty"`

	// allowedCapabilities may be allowed besides those that runtimes give to
	// containers: lower case, without CAP_.
	//
	// +kubebuilder:validation:MaxItems=64
	// +listType=set
	// +optional
	AllowedCapabilities []AppArmorCapability `json:"allowedCapabilities,omitempty"`

	// allowedRules are classes of rules that the safe default forbids.
	//
	// +kubebuilder:validation:MaxItems=32
	// +listType=set
	// +optional
	AllowedRules []AppArmorRuleClass `json:"allowedRules,omitempty"`
}

// AppArmorFlag is a flag of a profile.
//
// +kubebuilder:validation:Enum=attach_disconnected;attach_disconnected.ipc;attach_disconnected.path;audit;chroot_attach;chroot_no_attach;chroot_relative;complain;debug;default_allow;delegate_deleted;enforce;error;hat;interruptible;kill;kill.signal;mediate_deleted;namespace_relative;no_attach_disconnected;path;prompt;unconfined
type AppArmorFlag string

// AppArmorCapability is a capability as AppArmor names it.
//
// +kubebuilder:validation:Enum=audit_control;audit_read;audit_write;block_suspend;bpf;checkpoint_restore;chown;dac_override;dac_read_search;fowner;fsetid;ipc_lock;ipc_owner;kill;lease;linux_immutable;mac_admin;mac_override;mknod;net_admin;net_bind_service;net_broadcast;net_raw;perfmon;setfcap;setgid;setpcap;setuid;sys_admin;sys_boot;sys_chroot;sys_module;sys_nice;sys_pacct;sys_ptrace;sys_rawio;sys_resource;sys_time;sys_tty_config;syslog;wake_alarm
type AppArmorCapability string

// AppArmorRuleClass is one thing that the safe default forbids, by its name.
//
// +kubebuilder:validation:Enum=alias;all;attachment;capability;change_profile;exec-other;exec-unconfined;include;io_uring;kernel-interface;mount;pivot_root;priority;prompt;ptrace;remount;umount;userns
type AppArmorRuleClass string

// SELinuxConstraints bound SELinux modules. Each field relaxes the safe
// default: one block called confine_NAMESPACE_NAME for the namespace of its
// SecurityProfile, which inherits templates for containers and allows itself
// what containers are allowed anyway.
type SELinuxConstraints struct {
	// allowedBlocks are names that the block may have besides
	// confine_NAMESPACE_NAME. "*" stands for any ending, after at least three
	// characters. Names that begin with "confine" belong to the namespace that
	// they say, and cannot be allowed.
	//
	// +kubebuilder:validation:MaxItems=512
	// +kubebuilder:validation:items:MinLength=3
	// +kubebuilder:validation:items:MaxLength=240
	// +kubebuilder:validation:items:XValidation:rule=`self.matches('^[a-z][a-z0-9_]{2,}[*]?$')`,message="a pattern of blocks is at least three lower-case letters, digits and underscores, with '*' at the end alone, since it would match every block otherwise"
	// +kubebuilder:validation:items:XValidation:rule=`!self.startsWith('confine')`,message="a block that begins with confine belongs to the namespace that it says, and no policy gives it to another: remove the pattern"
	// +kubebuilder:validation:items:XValidation:rule=`!self.endsWith('_t')`,message="a block that ends with _t reads like a type of the host's policy: name it otherwise"
	// +listType=set
	// +optional
	AllowedBlocks []string `json:"allowedBlocks,omitempty"`

	// allowedTemplates are blocks that may be inherited besides those that
	// reach no file and no service of the host.
	//
	// +kubebuilder:validation:MaxItems=512
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=128
	// +kubebuilder:validation:items:XValidation:rule=`self.matches('^[A-Za-z][A-Za-z0-9_]*$') && !(self in ['self', 'notself', 'other', 'all', 'and', 'or', 'not', 'xor', 'eq', 'neq', 'range', 'dom', 'domby', 'incomp', 'any'])`,message="a template is named plainly, with letters, digits and underscores, and no keyword of CIL"
	// +listType=set
	// +optional
	AllowedTemplates []string `json:"allowedTemplates,omitempty"`

	// allowedTypes are targets of allow rules besides the profile's own. An
	// attribute of the host's policy stands for every type in it.
	//
	// +kubebuilder:validation:MaxItems=512
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=128
	// +kubebuilder:validation:items:XValidation:rule=`self.matches('^[A-Za-z][A-Za-z0-9_]*$') && !(self in ['self', 'notself', 'other', 'all', 'and', 'or', 'not', 'xor', 'eq', 'neq', 'range', 'dom', 'domby', 'incomp', 'any'])`,message="a type is named plainly, with letters, digits and underscores, and no keyword of CIL: no dot, no star"
	// +listType=set
	// +optional
	AllowedTypes []string `json:"allowedTypes,omitempty"`

	// allowedPermissions may be allowed, on whatever target is allowed, besides
	// those that containers have anyway.
	//
	// +kubebuilder:validation:MaxItems=128
	// +listType=map
	// +listMapKey=class
	// +optional
	AllowedPermissions []SELinuxPermissions `json:"allowedPermissions,omitempty"`
}

// SELinuxPermissions are permissions of one class of the kernel.
//
// +kubebuilder:validation:XValidation:rule="!(self.class in ['security', 'kernel_service', 'process2', 'memprotect']) && !self.permissions.exists(p, p in ['relabelfrom', 'relabelto', 'entrypoint']) && !(self.class == 'process' && self.permissions.exists(p, p in ['transition', 'dyntransition', 'setcurrent'])) && !(self.class in ['capability2', 'cap2_userns'] && self.permissions.exists(p, p in ['mac_admin', 'mac_override'])) && !(self.class in ['capability', 'cap_userns'] && self.permissions.exists(p, p == 'sys_module')) && !(self.class == 'system' && self.permissions.exists(p, p == 'module_load'))",message="no policy can allow what ends or rewrites the confinement itself: leaving the type, changing labels, SELinux's own controls, loading code into the kernel"
type SELinuxPermissions struct {
	// class is a class of the kernel, such as process.
	//
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	// +kubebuilder:validation:XValidation:rule=`self.matches('^[A-Za-z][A-Za-z0-9_]*$') && !(self in ['self', 'notself', 'other', 'all', 'and', 'or', 'not', 'xor', 'eq', 'neq', 'range', 'dom', 'domby', 'incomp', 'any'])`,message="a class is named plainly, with letters, digits and underscores, and no keyword of CIL"
	// +required
	Class string `json:"class,omitempty"`

	// permissions of the class, such as execmem.
	//
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=128
	// +kubebuilder:validation:items:XValidation:rule=`self.matches('^[A-Za-z][A-Za-z0-9_]*$') && !(self in ['self', 'notself', 'other', 'all', 'and', 'or', 'not', 'xor', 'eq', 'neq', 'range', 'dom', 'domby', 'incomp', 'any'])`,message="a permission is named plainly, with letters, digits and underscores, and no keyword of CIL"
	// +listType=set
	// +required
	Permissions []string `json:"permissions,omitempty"`
}
