package policy

import "strconv"

// Pos is a place in the text: both count from 1, columns in bytes.
type Pos struct {
	Line, Column int
}

// String renders "line:column".
func (p Pos) String() string { return strconv.Itoa(p.Line) + ":" + strconv.Itoa(p.Column) }

// Error is a refusal at a place in the text. Detail holds no control characters.
type Error struct {
	Pos    Pos
	Detail string
}

// Error renders "line:column: detail".
func (e *Error) Error() string { return e.Pos.String() + ": " + e.Detail }

// File is one policy text.
type File struct {
	Includes  []Include // those outside of profiles
	ABIs      []ABI     // those outside of profiles
	Variables []Assignment
	Aliases   []Alias
	Profiles  []*Profile
}

// IncludeForm says how an include names its file.
type IncludeForm string

// The forms of an include.
const (
	Searched IncludeForm = "searched" // <file>, below the policy folders
	Quoted   IncludeForm = "quoted"   // "file", from the root or the working folder
	Plain    IncludeForm = "plain"    // file, likewise
)

// Include is one include statement; the file it names is not read.
type Include struct {
	Pos      Pos
	Path     string
	Form     IncludeForm
	IfExists bool
}

// ABI is one abi statement: which features the policy was written for.
type ABI struct {
	Pos      Pos
	Path     string
	Searched bool // <path> as opposed to "path"
}

// Assignment gives values to a variable.
type Assignment struct {
	Pos    Pos
	Name   string // with its sign: "@{X}" for values, "${x}" for truth
	Op     string // "=", "+=", "?=" or ":="
	Values []string
}

// Alias makes one path stand for another in all rules.
type Alias struct {
	Pos      Pos
	From, To string
}

// Flag is one flag of a profile, such as "complain" or "attach_disconnected".
type Flag struct {
	Pos   Pos
	Name  string
	Value string // of flags that take one: name=value
}

// Profile is a profile, a child profile or a hat. Rules and children that stand
// in conditions are in the lists like all others; Rule.When tells.
type Profile struct {
	Pos        Pos
	Name       string // decoded; a path where the keyword was left out
	Keyword    bool   // "profile" or "hat" stood there
	Hat        bool
	When       string // of children in conditions
	Attachment string
	Xattrs     []Condition
	Flags      []Flag
	Includes   []Include
	ABIs       []ABI
	Rules      []*Rule
	Children   []*Profile
}

// Class is the kind of a rule: the word that begins it.
type Class string

// The classes of rules. Umount stands for "unmount" too.
const (
	FileClass     Class = "file"
	LinkClass     Class = "link"
	Capability    Class = "capability"
	Network       Class = "network"
	Mount         Class = "mount"
	Remount       Class = "remount"
	Umount        Class = "umount"
	PivotRoot     Class = "pivot_root"
	Ptrace        Class = "ptrace"
	Signal        Class = "signal"
	DBus          Class = "dbus"
	Unix          Class = "unix"
	ChangeProfile Class = "change_profile"
	Rlimit        Class = "rlimit"
	Userns        Class = "userns"
	IOUring       Class = "io_uring"
	Mqueue        Class = "mqueue"
	All           Class = "all"
)

// Rule is one rule with its qualifiers.
type Rule struct {
	Pos Pos
	// When is the condition a rule stands in, as written; empty for always.
	When     string
	Priority string // the number of priority=, empty for none
	Audit    bool
	Mode     string // "deny", "allow", "prompt" or empty, which allows
	Owner    string // "owner", "other" or empty
	Class    Class
	File     *FileRule // of FileClass and LinkClass, nil for all others
	Terms    Terms     // of all other classes
}

// Denies reports whether the rule takes away.
func (r *Rule) Denies() bool { return r.Mode == "deny" }

// FileRule is what a rule about files says.
type FileRule struct {
	// Bare is set for "file," alone: every path, and all access with "ix".
	Bare bool
	Path string // the glob, with unquoted escapes of blanks resolved
	// Access are the letters of r, w, a, l, k and m that are given, in that order.
	Access string
	// Exec is the way to execute, such as "ix", "Px" or "PUx"; "x" only in deny rules.
	Exec   string
	Safety string // "safe", "unsafe" or empty
	Subset bool   // of links
	Target string // after "->": a profile for Exec, a path for links
	// Aimless is set where a link's path stands before its access: parsers 3 and 4
	// do not look at Target then, and compare what both names allow.
	Aimless bool
}

// Terms are the parts of a rule that is not about files.
type Terms struct {
	Access     []string    // such as send, receive
	Words      []string    // in their order; for change_profile the executable
	Conditions []Condition // key=value, in their order
	Arrow      bool
	Target     string // after "->"
	Safety     string // of change_profile
}

// Condition is key=value, key=(values), key in (values) or key=(key=value ...).
type Condition struct {
	Key    string
	In     bool
	List   bool // written with parentheses
	Values []string
	Inner  []Condition // of peer=( ) and xattrs=( )
}
