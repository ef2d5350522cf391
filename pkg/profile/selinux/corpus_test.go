package selinux_test

import "strings"

// proof says how an escape is shown to be one.
type proof string

const (
	// breach: secilc compiles it, and the base policy's neverallow rules are
	// what it breaks.
	breach proof = "breach"
	// shows: secilc compiles it, and the policy then holds a line that it does
	// not hold with a harmless profile.
	shows proof = "shows"
	// breaks: with it the whole policy of the host no longer compiles, so that
	// no other module could be installed either.
	breaks proof = "breaks"
	// refused: secilc 3.4 refuses it too, for this module alone; Confine does
	// not lean on that.
	refused proof = "refused"
	// newer: libsepol 3.4 does not know it, later versions do.
	newer proof = "newer"
	// hides: secilc compiles it, and the policy then lacks a line that it has with
	// a harmless profile.
	hides proof = "hides"
	// levels: as shows, on a host whose policy has levels, as all that run
	// containers have.
	levels proof = "levels"
	// contexts: secilc compiles it, and the labels of files then hold a line.
	contexts proof = "contexts"
	// users: secilc compiles it; what it does stands in the file of logins that
	// semodule alone writes (TestEscapesAreRealInTheKernel).
	users proof = "users"
)

// escape is a module that must never be admitted by default.
type escape struct {
	text  string
	why   string
	proof proof
	// line is what a "shows" is shown by: a part of policy.conf.
	line string
	// invalid is set where Parse already refuses.
	invalid bool
}

// corpus is every escape by name.
func corpus() map[string]escape {
	all := map[string]escape{}
	for _, part := range []map[string]escape{names(), odd(), blocks(), inner(), sets(), rules(), labels(), logins(), settings(), hidden(), texts()} {
		for name, e := range part {
			if _, twice := all[name]; twice {
				panic("the escape " + name + " stands in the corpus twice")
			}
			all[name] = e
		}
	}
	return all
}

const readSecret = "(file (read open))"

func names() map[string]escape {
	return map[string]escape{
		"type of the host":            {block("(allow process secret_t " + readSecret + ")"), "a host's type is a target", breach, "", false},
		"alias of the host":           {block("(allow process the_secret " + readSecret + ")"), "another name of a host's type", breach, "", false},
		"alias of its own":            {block("(typealias mine) (typealiasactual mine secret_t) (allow process mine " + readSecret + ")"), "names a host's type as its own", breach, "", false},
		"alias called socket":         {"(block confine_web_x (type process) (typealias socket) (typealiasactual socket secret_t) (allow process socket " + readSecret + "))", "the name of an inherited type for a host's one", breach, "", false},
		"alias called process":        {"(block confine_web_x (typealias process) (typealiasactual process admin_t) (allow process confine_shop_other.process (process (sigkill))))", "the source is a domain of the host", shows, "allow admin_t confine_shop_other.process", false},
		"alias called self":           {block("(typealias self) (typealiasactual self secret_t) (allow process self " + readSecret + ")"), "self could be a name", refused, "", false},
		"type called self":            {block("(type self) (allow process self " + readSecret + ")"), "self could be a name", refused, "", false},
		"dots to a type":              {block("(allow process host.secret " + readSecret + ")"), "a dot reaches into a block of the host", breach, "", false},
		"dots to a tenant":            {block("(allow process confine_shop_other.process (process (sigkill)))"), "a dot reaches into another tenant's block", breach, "", false},
		"a leading dot":               {block("(allow process .secret_t " + readSecret + ")"), "a leading dot means the global namespace", breach, "", false},
		"a dot in the source":         {block("(allow confine_shop_other.process secret_t " + readSecret + ")"), "rules for another tenant's processes", breach, "", false},
		"a dot to a template":         {block("(allow process container.socket (sock_file (write)))"), "a type of the template itself", shows, "allow confine_web_x.process container.socket", false},
		"source of the host":          {block("(allow kernel_t process (process (dyntransition)))"), "a domain of the host can be led into the profile", breach, "", false},
		"source self":                 {block("(allow self secret_t " + readSecret + ")"), "the source is not process", refused, "", false},
		"source an attribute":         {block("(allow container_domain secret_t " + readSecret + ")"), "rules for all containers of the host", breach, "", false},
		"source socket":               {block("(allow socket secret_t " + readSecret + ")"), "rules for files that act", breach, "", false},
		"target an attribute":         {block("(allow process file_type " + readSecret + ")"), "all files of the host at once", breach, "", false},
		"target domain":               {block("(allow process domain (process (ptrace)))"), "all processes of the host at once", breach, "", false},
		"target notself":              {block("(allow process notself " + readSecret + ")"), "all types but its own (libsepol 3.6)", newer, "", false},
		"target other":                {block("(allow process other " + readSecret + ")"), "the other types of a source (libsepol 3.6)", newer, "", false},
		"no template":                 {"(block confine_web_x (allow process secret_t " + readSecret + "))\n(type process)", "process is looked up outside of the block", breach, "", false},
		"a type of its own":           {block("(type evil) (allow evil secret_t " + readSecret + ")"), "a domain that no template constrains", breach, "", false},
		"process declared by hand":    {"(block confine_web_x (type process) (allow process self " + readSecret + "))", "a process type outside of container_domain", shows, "typeattribute confine_web_x.process all_types, confined, stranger;", false},
		"a host's block":              {"(block host (blockinherit container))", "a block of the host's name", breaks, "", false},
		"a template's block":          {"(block container (type process))", "a block of the template's name", breaks, "", false},
		"a block named as a type":     {"(block secret_t (blockinherit container))", "reads like a type of the host", shows, "type secret_t.process;", false},
		"a block of no namespace":     {"(block web (blockinherit container))", "takes a name that is nobody's", shows, "type web.process;", false},
		"a block in capitals":         {"(block Confine_web_x (blockinherit container))", "differs from another by its case alone", shows, "type Confine_web_x.process;", false},
		"a type looked up by a block": {"(type process) " + block(""), "a global type beside the block", shows, "type process;", false},
	}
}

func blocks() map[string]escape {
	return map[string]escape{
		"two blocks":              {block("") + "(block confine_web_y (blockinherit container))", "judged by one name, installed with two", shows, "type confine_web_y.process;", false},
		"a rule beside":           {block("") + "(allow confine_web_x.process secret_t " + readSecret + ")", "a rule outside of the block", breach, "", false},
		"a rule before":           {"(allow container_domain secret_t " + readSecret + ")" + block(""), "a rule outside of the block", breach, "", false},
		"the block twice":         {block("") + block(""), "which of the two was judged?", breaks, "", true},
		"a nested block":          {block("(block inner (type process) (allow process secret_t " + readSecret + "))"), "names in it hide those outside", breach, "", false},
		"a nested template":       {block("(block net_container (allow process secret_t " + readSecret + ")) (blockinherit net_container)"), "hides the template of the host", breach, "", false},
		"a nested abstract":       {block("(block t (blockabstract t) (allow process secret_t " + readSecret + ")) (blockinherit t)"), "a template of its own", breach, "", false},
		"the abstract":            {"(block confine_web_x (blockabstract confine_web_x) (blockinherit container)) (block y (blockinherit confine_web_x))", "a template for whoever inherits", shows, "type y.process;", false},
		"in a template":           {block("") + "(in container (allow process secret_t " + readSecret + "))", "adds to every container of the host", breach, "", false},
		"in a tenant":             {block("") + "(in confine_shop_other (allow process secret_t " + readSecret + "))", "adds to another tenant", breach, "", false},
		"in, inside":              {block("(in .host (allow secret secret_t " + readSecret + "))"), "adds to a block of the host", breach, "", false},
		"a template unlisted":     {block("(blockinherit secrets_container)"), "a template that grants what no rule may", breach, "", false},
		"a block as a template":   {block("(blockinherit host)"), "copies a block of the host", shows, "type confine_web_x.secret;", false},
		"a tenant as a template":  {"(block confine_web_x (blockinherit confine_shop_other))", "copies another tenant's rules", shows, "allow confine_web_x.process etc_t : file", false},
		"the template twice":      {block("(blockinherit container)"), "declared twice, and by which?", refused, "", false},
		"a macro called":          {block("(call reads_secrets (process))"), "what it puts in its place is not seen", breach, "", false},
		"a macro with a dot":      {block("(call host.reads (process))"), "what it puts in its place is not seen", breach, "", false},
		"a macro of its own":      {block("(macro m ((type a)) (allow a secret_t " + readSecret + ")) (call m (process))"), "hides the rule behind a call", breach, "", false},
		"an optional":             {block("(optional o (allow process secret_t " + readSecret + "))"), "a rule inside a rule", breach, "", false},
		"optionals that vanish":   {block("(optional o (allow process secret_t " + readSecret + ") (optional p (allow process no_such_t (file (read)))))"), "the outer stays when the inner vanishes", breach, "", false},
		"blockinherit of many":    {block("(blockinherit net_container config_container)"), "a second template behind the first", refused, "", false},
		"an inherited expression": {block("(blockinherit (and net_container config_container))"), "a set of templates", refused, "", false},
	}
}

// inner are statements whose names hide those of the host, or that take them.
func inner() map[string]escape {
	shadow := "(macro reads ((type a)) (allow a secret_t " + readSecret + "))"
	return map[string]escape{
		"a macro that hides one":        {block("(macro reads_secrets ((type a)) (allow a secret_t " + readSecret + ")) (call reads_secrets (process))"), "named like a macro of the host", breach, "", false},
		"a macro beside":                {shadow + block("(call reads (process))"), "a macro for all modules", breach, "", false},
		"a macro whose parameter hides": {block("(macro m ((type process)) (allow process confine_shop_other.process (process (sigkill)))) (call m (admin_t))"), "process is what the caller says", shows, "allow admin_t confine_shop_other.process", false},
		"a boolean that hides one":      {block("(boolean host_setting true) (booleanif host_setting (true (allow process secret_t " + readSecret + ")))"), "named like a boolean of the host", breach, "", false},
		"a tunable of the host":         {block("(tunableif host_tunable (false (allow process secret_t " + readSecret + ")))"), "a rule inside a condition", breach, "", false},
		"a type that hides one":         {block("(type etc_t) (allow process etc_t " + readSecret + ")"), "named like a type of the host", shows, "type confine_web_x.etc_t;", false},
		"an attribute that hides one":   {block("(typeattribute file_type) (typeattributeset file_type (secret_t)) (allow process file_type " + readSecret + ")"), "named like an attribute of the host", breach, "", false},
		"in, before inheriting":         {"(in before container (allow process secret_t " + readSecret + "))" + block(""), "adds to every container of the host", breach, "", false},
		"in, after inheriting":          {"(in after container (allow process secret_t " + readSecret + "))" + block(""), "adds to the template alone", breach, "", false},
		"an optional beside":            {"(optional o (allow container_domain secret_t " + readSecret + "))" + block(""), "a rule outside of the block", breach, "", false},
		"an optional that takes":        {block("(optional o (typeattributeset trusted (process)))"), "joins the host's own domains", shows, "typeattribute confine_web_x.process all_types, domain, container_domain, trusted", false},
		"itself as a template":          {"(block confine_web_x (blockinherit confine_web_x))", "a loop", refused, "", false},
		"the host's block made nothing": {block("(blockabstract host)"), "takes a block of the host out of the policy", hides, "type host.secret;", false},
		"a tenant made nothing":         {block("") + "(blockabstract confine_shop_other)", "takes another tenant out of the policy", hides, "type confine_shop_other.process;", false},
	}
}

// odd are names with characters that some take and others do not.
func odd() map[string]escape {
	all := map[string]escape{
		"a hyphen": {"(block confine-web-x (blockinherit container))", "reads like another's name", shows, "type confine-web-x.process;", false},
	}
	for what, name := range map[string]string{
		"brackets": "confine_web_x[]", "a dollar": "confine_web$x", "a dot": "confine_web.x", "a tilde": "~", "a slash": "confine_web/x", "a star": "confine_web_*",
		"an at sign": "confine_web@x", "a bar": "confine_web|x", "an apostrophe": "confine_web'x", "a comma": "confine_web,x", "a digit first": "1confine_web_x",
	} {
		all["a block with "+what] = escape{"(block " + name + " (blockinherit container))", "a name that is none", refused, "", false}
		all["a target with "+what] = escape{block("(allow process " + name + " " + readSecret + ")"), "a name that is none", refused, "", false}
	}
	return all
}

func sets() map[string]escape {
	return map[string]escape{
		"into an attribute":        {block("(typeattributeset trusted (process))"), "joins the host's own domains", shows, "typeattribute confine_web_x.process all_types, domain, container_domain, trusted", false},
		"the host into its own":    {block("(typeattribute mine) (typeattributeset mine (secret_t)) (allow process mine " + readSecret + ")"), "an attribute with the host's types in it", breach, "", false},
		"all into its own":         {block("(typeattribute mine) (typeattributeset mine (all)) (allow process mine " + readSecret + ")"), "an attribute of all types", breach, "", false},
		"not into its own":         {block("(typeattribute mine) (typeattributeset mine (not (process))) (allow process mine " + readSecret + ")"), "an attribute of all others", breach, "", false},
		"self as an attribute":     {block("(typeattribute socket2) (typeattributeset socket2 (xor (all) (process))) (allow process socket2 " + readSecret + ")"), "sets by operators", breach, "", false},
		"a set as the target":      {block("(allow process (secret_t) " + readSecret + ")"), "an expression where a name stands", refused, "", false},
		"a set as the source":      {block("(allow (process) self " + readSecret + ")"), "an expression where a name stands", refused, "", false},
		"all permissions":          {block("(allow process self (capability (all)))"), "all of a class, sys_admin too", breach, "", false},
		"all but one":              {block("(allow process self (capability (not (chown))))"), "all of a class but one", breach, "", false},
		"an inner set":             {block("(allow process self (process ((fork) (ptrace))))"), "permissions in an inner set", breach, "", false},
		"an and of permissions":    {block("(allow process self (process (and (all) (all))))"), "sets by operators", breach, "", false},
		"a xor of permissions":     {block("(allow process self (process (xor (all) (fork))))"), "sets by operators", breach, "", false},
		"a class map":              {block("(allow process secret_t (everything (use)))"), "a class that stands for others", breach, "", false},
		"a class map on self":      {block("(allow process self (everything (use)))"), "a class that stands for others", breach, "", false},
		"a permission set by name": {block("(allow process secret_t read_files)"), "the class and permissions are elsewhere", breach, "", false},
		"a class map of its own":   {block("(classmap fd (use)) (classmapping fd use (process (ptrace))) (allow process self (fd (use)))"), "hides a class of the kernel", breach, "", false},
		"permission sets of its own": {block("(classpermission c) (classpermissionset c (process (ptrace))) (allow process self c)"),
			"permissions by a name of its own", breach, "", false},
	}
}

func rules() map[string]escape {
	all := map[string]escape{
		"no permission":      {block("(allow process self (file ()))"), "a rule of nothing", refused, "", false},
		"a fifth element":    {block("(allow process self (file (read)) (process (ptrace)))"), "a second class behind the first (libsepol 3.9)", newer, "", false},
		"two classes":        {block("(allow process self (file (read) process (ptrace)))"), "a second class inside the first", refused, "", false},
		"an extended rule":   {block("(allowx process self (ioctl file (0x1)))"), "another kind of rule", shows, "allowxperm confine_web_x.process", false},
		"auditallow":         {block("(auditallow process self (file (read)))"), "fills the audit log", shows, "auditallow confine_web_x.process", false},
		"dontaudit":          {block("(dontaudit process secret_t (file (read)))"), "hides what is tried", shows, "dontaudit confine_web_x.process secret_t", false},
		"a neverallow":       {block("") + "(neverallow admin_t secret_t (file (read)))", "makes the rules of the host an error", breaks, "", false},
		"a neverallow on it": {block("(neverallow .container_domain .proc_t (file (read)))"), "makes the templates an error", breaks, "", false},
		"a deny":             {block("(deny admin_t secret_t (file (read)))"), "takes away rules of the host (libsepol 3.6)", newer, "", false},
		"typebounds":         {block("(typebounds confine_shop_other.process process)"), "binds what another tenant may do", shows, "typebounds confine_shop_other.process", false},
	}
	for class, permissions := range guardedPermissions() {
		for permission := range strings.FieldsSeq(permissions) {
			all[class+" "+permission] = escape{block("(allow process self (" + class + " (" + permission + ")))"), "beyond what a container may have", breach, "", false}
		}
	}
	all["process transition"] = escape{block("(allow process confine_shop_other.process (process (transition)))"), "leaves its own type", breach, "", false}
	return all
}

func labels() map[string]escape {
	return map[string]escape{
		"a type transition":       {block("(typetransition admin_t etc_t file secret_t)"), "labels what the host makes", shows, "type_transition admin_t etc_t : file secret_t", false},
		"a named one":             {block(`(typetransition admin_t etc_t file "shadow" secret_t)`), "labels what the host makes, by name", shows, `"shadow"`, false},
		"a type change":           {block("(typechange admin_t etc_t file secret_t)"), "labels what the host relabels", shows, "type_change admin_t", false},
		"a type member":           {block("(typemember admin_t etc_t file secret_t)"), "labels what the host makes", shows, "type_member admin_t", false},
		"a sid's context":         {block("") + "(sidcontext file kernel_c)", "labels all files without a label", breaks, "", false},
		"a context":               {block("(context c (system_u system_r process low_low))") + `(genfscon cgroup "/" confine_web_x.c)`, "labels files of the host", shows, "genfscon cgroup", false},
		"a port's context":        {block("") + "(portcon tcp 443 secret_c)", "labels ports of the host", shows, "portcon tcp 443", false},
		"a file system":           {block("") + "(fsuse xattr btrfs secret_c)", "labels file systems of the host", shows, "fs_use_xattr btrfs", false},
		"a path of a file system": {block("") + `(genfscon proc "/" secret_c)`, "labels proc of the host", shows, "genfscon proc", false},
		"a node's context":        {block("") + "(nodecon (127.0.0.1) (255.0.0.0) secret_c)", "labels addresses of the host", shows, "nodecon 127.0.0.1", false},
		"a role for a type":       {block("(roletype admin_r process)"), "lets another role run it", shows, "role admin_r types { admin_t confine_web_x.process", false},
		"a role":                  {block("") + "(role evil_r) (roletype evil_r kernel_t)", "a role for a domain of the host", shows, "role evil_r", false},
		"a role's way":            {block("") + "(roleallow admin_r system_r)", "lets a role become another", shows, "allow admin_r system_r", false},
		"a role transition":       {block("") + "(roletransition admin_r etc_t process system_r)", "changes the role of what runs", shows, "role_transition admin_r", false},
		"a user's role":           {block("") + "(user evil_u) (userrole evil_u admin_r) (userlevel evil_u low) (userrange evil_u low_low)", "a user of its own", shows, "user evil_u", false},
	}
}

// logins are statements about who logs in, and with which levels.
func logins() map[string]escape {
	return map[string]escape{
		"a login":             {block("") + "(selinuxuser root system_u low_low)", "decides as whom root logs in", users, "", false},
		"all other logins":    {block("") + "(selinuxuserdefault system_u low_low)", "decides as whom others log in", users, "", false},
		"a user's prefix":     {block("") + "(userprefix system_u staff)", "decides how home folders are labelled", users, "", false},
		"an attribute's role": {block("") + "(roleattribute ra) (roleattributeset ra (admin_r)) (roletype ra confine_web_x.process)", "lets another role run it, by an attribute", shows, "role admin_r types { admin_t confine_web_x.process", false},
		"a role bound":        {block("") + "(role e_r) (rolebounds admin_r e_r)", "roles of its own", shows, "role e_r", false},
		"a range":             {block("") + "(rangetransition container_runtime_t etc_t process low_low)", "decides levels of what the host starts", levels, "range_transition container_runtime_t etc_t", false},
		"a level's limits":    {block("") + "(mlsconstrain (file (read)) (dom h1 h2))", "takes reading away from all others", levels, "mlsconstrain file", false},
		"a level's way":       {block("") + "(mlsvalidatetrans file (dom h1 h2))", "takes relabelling away from all others", levels, "mlsvalidatetrans file", false},
		"a default user":      {block("") + "(defaultuser file target)", "changes labels for the whole host", shows, "default_user { file } target", false},
		"a default role":      {block("") + "(defaultrole file target)", "changes labels for the whole host", shows, "default_role { file } target", false},
		"a default range":     {block("") + "(defaultrange file target low)", "changes labels for the whole host", levels, "default_range { file } target", false},
		"files of a path":     {block(`(filecon "/etc(/.*)?" any secret_c)`), "labels files of the host", contexts, "/etc(/.*)?", false},
		"a sid":               {block("") + "(sid evil) (sidorder (kernel file evil)) (sidcontext evil kernel_c)", "a label of the kernel's own", shows, "sid evil", false},
		"a network interface": {block("") + "(netifcon eth0 secret_c secret_c)", "labels devices of the host", shows, "netifcon eth0", false},
		"a partition key":     {block("") + "(ibpkeycon fe80:: (0 10) secret_c)", "labels networks of the host", shows, "ibpkeycon fe80::", false},
		"device memory":       {block("") + "(iomemcon (0 255) secret_c)", "labels memory of the host", shows, "iomemcon", false},
		"a domain's way":      {block("(typetransition container_runtime_t etc_t process kernel_t)"), "decides what the host's programs run as", shows, "type_transition container_runtime_t etc_t : process kernel_t", false},
	}
}

// hidden are rules that show in no allow rule.
func hidden() map[string]escape {
	return map[string]escape{
		"a set of ioctls":          {block("(permissionx px (ioctl file (0x1))) (allowx process self px)"), "extended permissions by name", shows, "allowxperm confine_web_x.process", false},
		"ioctls unaudited":         {block("(dontauditx process self (ioctl file (0x1)))"), "hides what is tried", shows, "dontauditxperm confine_web_x.process", false},
		"ioctls audited":           {block("(auditallowx process self (ioctl file (0x1)))"), "fills the audit log", shows, "auditallowxperm confine_web_x.process", false},
		"ioctls of the host":       {block("(allowx admin_t secret_t (ioctl file (0x1)))"), "takes all other ioctls from a domain of the host", shows, "allowxperm admin_t secret_t", false},
		"ioctls forbidden":         {block("(neverallowx admin_t secret_t (ioctl file (0x1)))"), "would make the host's own rules fail", shows, "neverallowxperm admin_t", false},
		"an attribute expanded":    {block("(expandtypeattribute container_domain true)"), "changes how the host's policy is compiled", hides, "typeattribute container.process all_types, domain, container_domain, confined", false},
		"a common of the host":     {block("") + "(common evilc (zap)) (classcommon file evilc)", "changes the numbers of permissions", shows, "class file inherits evilc", false},
		"a default of a process":   {block("(defaulttype .process source)"), "changes labels for the whole host", shows, "default_type { process } source", false},
		"a mark as a statement":    {block("") + "(<src_info> cil 1 x (typepermissive kernel_t))", "libsepol's own statement, which holds others", shows, "permissive kernel_t", false},
		"a mark inside":            {block("(<src_info> cil 1 x (typepermissive process))"), "libsepol's own statement, which holds others", shows, "permissive confine_web_x.process", false},
		"a file of attributes":     {block("(typeattributeset file_type (process))") + "(allow admin_t file_type (file (write)))", "becomes what others write to", shows, "allow admin_t file_type : file { write }", false},
		"levels of its own":        {block("") + "(sensitivity s9) (sensitivityorder (s0 s9)) (level high9 (s9))", "changes the order of levels", levels, "sensitivity s9", false},
		"a category of its own":    {block("") + "(category evilcat) (categoryorder (c0 evilcat))", "changes the numbers of categories", levels, "category evilcat", false},
		"a named one without name": {block(`(typetransition admin_t etc_t file "*" secret_t)`), "labels what the host makes", shows, "type_transition admin_t etc_t : file secret_t", false},
	}
}

func settings() map[string]escape {
	return map[string]escape{
		"permissive":                 {block("(typepermissive process)"), "nothing is enforced for the type", shows, "permissive confine_web_x.process", false},
		"permissive host":            {block("(typepermissive .admin_t)"), "nothing is enforced for a type of the host", shows, "permissive admin_t", false},
		"a boolean of the host":      {block("(booleanif host_setting (true (allow process secret_t " + readSecret + ")))"), "a rule that waits for a setting", breach, "", false},
		"a boolean of its own":       {block("(boolean b true) (booleanif b (true (allow process secret_t " + readSecret + ")))"), "a rule inside a condition", breach, "", false},
		"a tunable":                  {block("(tunable b true) (tunableif b (true (allow process secret_t " + readSecret + ")))"), "a rule inside a condition", breach, "", false},
		"a constraint":               {block("") + "(constrain (file (read)) (eq t1 kernel_t))", "takes reading away from all others", shows, "constrain file", false},
		"validatetrans":              {block("") + "(validatetrans file (eq t3 kernel_t))", "takes relabelling away from all others", shows, "validatetrans file", false},
		"a capability of the policy": {block("") + "(policycap network_peer_controls)", "changes checks for the whole host", shows, "policycap network_peer_controls", false},
		"a default type":             {block("") + "(defaulttype file target)", "changes labels for the whole host", shows, "default_type { file } target", false},
		"a class":                    {block("") + "(class evil (read)) (classorder (unordered evil))", "changes the numbers of classes", shows, "class evil", false},
		"unknown is allowed":         {block("") + "(handleunknown allow)", "unknown classes are allowed", breaks, "", false},
		"levels are off":             {block("") + "(mls true)", "changes the policy of levels", breaks, "", false},
		"an unknown statement":       {block("(frobnicate process)"), "later versions may know it", refused, "", false},
	}
}

func texts() map[string]escape {
	return map[string]escape{
		"a quoted target":           {block(`(allow process "secret_t" ` + readSecret + `)`), "secilc takes a string for a name", breach, "", false},
		"a quoted source":           {block(`(allow "process" self ` + readSecret + `)`), "secilc takes a string for a name", shows, "allow confine_web_x.process self : file", false},
		"a quoted keyword":          {block(`("typepermissive" process)`), "secilc takes a string for a keyword", shows, "permissive confine_web_x.process", false},
		"a quoted block":            {`(block "confine_web_z" (blockinherit container))`, "secilc takes a string for a name", shows, "type confine_web_z.process;", false},
		"a quoted permission":       {block(`(allow process self (process ("ptrace")))`), "secilc takes a string for a name", breach, "", false},
		"a quoted class":            {block(`(allow process self ("process" (ptrace)))`), "secilc takes a string for a name", breach, "", false},
		"a quoted template":         {block(`(blockinherit "secrets_container")`), "secilc takes a string for a name", breach, "", false},
		"a Cyrillic o":              {block("(allow pr\u043ecess self " + readSecret + ")"), "looks like process and is not", refused, "", true},
		"a Cyrillic e in the block": {"(block confin\u0435_web_x (blockinherit container))", "looks like a name of ours and is not", refused, "", true},
		"text that runs backwards":  {block("; \u202e(file (read))\n(typepermissive process)"), "shows otherwise than it is read", shows, "permissive confine_web_x.process", true},
		"a joiner of no width":      {block("(allow process sel\u200df " + readSecret + ")"), "looks like self and is not", refused, "", true},
		"a carriage return":         {block("; nothing to see\r(typepermissive process)\n"), "a comment ends there for secilc", shows, "permissive confine_web_x.process", true},
		"a return in a string":      {block("; \"\r(typepermissive process)\n"), "a comment ends there for secilc", shows, "permissive confine_web_x.process", true},
		"a line mark":               {"(block confine_web_x (blockinherit container)\n;;* lms 1 x\n)\n;;* lme\n(typepermissive confine_web_x.process)\n", "closes nodes without a parenthesis", shows, "permissive confine_web_x.process", true},
		"NUL":                       {block("") + "\x00(typepermissive container)", "ends the text for programs in C", refused, "", true},
		"a byte order mark":         {"\ufeff" + block(""), "is text for some and none for others", refused, "", true},
		"a vertical tab":            {block("(allow\vprocess self (file (read)))"), "is space for some and none for others", refused, "", true},
		"a non-breaking space":      {block("(allow process\u00a0self (file (read)))"), "looks like two words and is one", refused, "", true},
	}
}
