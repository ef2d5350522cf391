package fetch

import (
	"net"
	"os"
	"runtime/debug"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/confine-dev/confine/pkg/reason"
	"github.com/confine-dev/confine/pkg/sandbox"
)

// What a fetch child may take. Eight artifacts of the largest size that are
// fetched at one time are 16 MiB.
const (
	childFiles     = 1024
	childProcesses = 256 // threads, of a user of its own
	childMemory    = 512 << 20
	childHeap      = 48 << 20 // what the garbage collector aims at
	childGCPercent = 40
)

// Confine takes from this process, before it has done anything else, what a
// fetch child has no use for: all capabilities, changing files, starting
// programs, reaching other processes. It executes the program anew, with the
// same arguments and descriptors. The error is a *reason.Error, and then the
// caller must end.
//
// It refuses root: what belongs to root, the agent's state among it, would
// still be root's.
func Confine() error {
	if os.Getuid() == 0 || os.Geteuid() == 0 || os.Getgid() == 0 && os.Getegid() == 0 {
		return reason.New(reason.InstallFailed, "fetch child", "it runs as root").
			WithAdvice("run it as a user of its own, such as %d: it needs no privilege", DefaultUID)
	}
	entered, err := sandbox.Enter(sandbox.Walls{ReadOnly: true})
	if err != nil {
		return err
	}
	if entered.Permitted != 0 || slices.Contains(entered.UID[:], 0) {
		return reason.New(reason.InstallFailed, "fetch child", "it still has privileges: %s", entered.Permitted)
	}
	debug.SetGCPercent(childGCPercent)
	debug.SetMemoryLimit(childHeap)
	if err := sandbox.Limit(limitsOf(os.Stderr)); err != nil {
		return err
	}
	return sandbox.Restrict(sandbox.Fetch)
}

// limitsOf are the child's limits. Where somebody keeps its log in a file, that
// has to go on.
func limitsOf(stderr *os.File) sandbox.Limits {
	limits := sandbox.Limits{Files: childFiles, Memory: childMemory}
	if !raceDetector {
		limits.FileSize = 1
	}
	if info, err := stderr.Stat(); err == nil && info.Mode().IsRegular() {
		limits.FileSize = 0
	}
	if raceDetector { // its shadow is counted as memory
		limits.Memory = 0
	}
	return limits
}

// limitProcesses bounds the child's threads where its user is its own: then
// the one at the other end of control is another.
func limitProcesses(control *net.UnixConn) error {
	peer, err := peerOf(control)
	if err != nil {
		return err
	}
	if int(peer.Uid) == os.Getuid() {
		return nil
	}
	return sandbox.Limit(sandbox.Limits{Processes: childProcesses})
}

// peerOf returns who is at the other end.
func peerOf(control *net.UnixConn) (*unix.Ucred, error) {
	raw, err := control.SyscallConn()
	if err != nil {
		return nil, err
	}
	var peer *unix.Ucred
	var asked error
	err = raw.Control(func(fd uintptr) {
		peer, asked = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err == nil {
		err = asked
	}
	return peer, err
}
