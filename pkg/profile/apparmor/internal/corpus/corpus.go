// Package corpus holds policy texts that judge the judge: escapes, which a real
// apparmor_parser takes and the safe default must refuse, each with what it lets
// a process do, and harmless ones, which must pass. Only tests import it.
package corpus

import (
	"slices"
	"strings"

	"github.com/confine-dev/confine/pkg/profile/apparmor"
)

// Escape is a text that a reviewer, or a careless reader, may take for
// harmless, and that would let a process out or take over what is not its own.
type Escape struct {
	Name string
	// Rules stand in a profile that is otherwise fine; Text is a whole policy.
	Rules, Text string
	// Why it is an escape.
	Why string
	// Class is how the safe default forbids it; empty where it is no text that
	// can be read, which is refused as ProfileInvalid.
	Class apparmor.RuleClass
	// Newer is set where the parser of AppArmor 3.0 refuses the text already, be it
	// that only 4.0 or later reads it. All others it accepts: a test asks it.
	Newer bool
}

// Policy is the escape as a whole text.
func (e Escape) Policy() string {
	if strings.HasPrefix(e.Text, "abi ") {
		return e.Text + "\n"
	}
	if e.Text != "" {
		return e.preamble() + e.Text + "\n"
	}
	return e.preamble() + inProfile(e.Rules)
}

// preamble names the features that the text is written for: those that it does
// not name are not enforced.
func (e Escape) preamble() string {
	if e.Newer {
		return strings.Replace(preamble, "3.0", "4.0", 1)
	}
	return preamble
}

const preamble = "abi <abi/3.0>,\ninclude <tunables/global>\n"

// Body wraps rules into a profile that the safe default admits.
func Body(lines ...string) string {
	return preamble + inProfile(lines...)
}

func inProfile(lines ...string) string {
	return "profile confine.web.nginx {\n" + strings.Join(lines, "\n") + "\n}\n"
}

func named(header string) string { return header + " {\n  /x r,\n}" }

// Escapes returns all of them.
func Escapes() []Escape {
	var all []Escape
	for _, some := range [][]Escape{nameEscapes(), headerEscapes(), fileEscapes(), kernelEscapes(), ruleEscapes(), includeEscapes()} {
		for _, e := range some {
			if e.Rules+e.Text != "" {
				all = append(all, e)
			}
		}
	}
	return all
}

// Demo shows on a kernel what an escape lets a process do. The same process
// cannot do it under the profile without the escape.
type Demo struct {
	// Do is the act; the test in the virtual machine says how it is done.
	Do Act
	// On is what it is done to: a path, with =TEXT what to write there, or a name.
	On string
	// Want is the label that an act ends in; empty means "unconfined".
	Want string
	// Under is the profile the process begins in; empty means the first one.
	Under string
	// With are rules that the act needs beside the escape, and Relaxed the
	// constraints that admit them, in JSON.
	With, Relaxed string
	// Host are profiles that the host has, as a whole text.
	Host string
	// Takes is set where the escape is the name: the profile without the escape is
	// what the host had under it.
	Takes bool
	// Unshown says why there is nothing to be seen on a kernel. Nothing else is set.
	Unshown string
}

// Act is what a process does.
type Act string

// The acts. All but Catches and Loads are done under the profile.
const (
	Append      Act = "append"      // to the file On
	Bind        Act = "bind"        // mount /srv over On
	Catches     Act = "catches"     // start the host's program On, without a profile: it is under the profile Want
	Change      Act = "change"      // to the profile On
	ChangeExec  Act = "change-exec" // to the profile On, with the next program
	ChrootRead  Act = "chroot-read" // change the root to /srv and read the file On there
	Hostname    Act = "hostname"    // set the machine's
	Killed      Act = "killed"      // read the file On, and be ended for it
	Leave       Act = "leave"       // execute On, and be under the profile Want
	Loads       Act = "loads"       // nothing: the kernel has a profile On
	Mount       Act = "mount"       // a file system over On
	Noise       Act = "noise"       // read On; it stands in the kernel's log
	PeerEnviron Act = "environ"     // read the environment of a process under On
	PivotRoot   Act = "pivot_root"  // AppArmor is asked first
	Read        Act = "read"        // the file On
	Remount     Act = "remount"     // On
	Signal      Act = "signal"      // kill a process under On
	Trace       Act = "trace"       // attach to a process under On
	Umount      Act = "umount"      // On
	Unload      Act = "unload"      // take the profile On away
	Userns      Act = "userns"      // make a user namespace
	LinkedWrite Act = "link"        // link On, which is OLD=NEW, and open NEW to write
	Write       Act = "write"       // to the file On
)

// Frame is the text of an escape with rules added to all its profiles.
func (e Escape) Frame(rules string) string {
	return strings.ReplaceAll(e.Policy(), "{\n", "{\n"+rules)
}

// Harmless is the text that is left without the escape.
func (e Escape) Harmless(d Demo, rules string) string {
	if d.Takes {
		return strings.ReplaceAll(e.Frame(rules), "  /x r,\n", "")
	}
	top, child, nested := strings.Cut(d.Under, "//")
	text := "profile " + top + " {\n" + rules
	if nested {
		text += "profile " + child + " {\n" + rules + "}\n"
	}
	return e.preamble() + text + "}\n"
}

// Refused4 reports whether the parser of AppArmor 4.1 refuses the text, too.
func (e Escape) Refused4() bool {
	newest := []string{
		"allow by default", "a deny that is overruled", "a deny that comes second", "user namespaces", "user namespaces, spelt out",
		"everything", "everything, allowed", "credentials through io_uring", "asking somebody", "a priority", "a denying block",
	}
	// With all abstractions of Debian 13 a profile has more transitions than there may be.
	return e.Newer && !slices.Contains(newest, e.Name) || e.Name == "a folder"
}
