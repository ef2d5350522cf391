package agent

import (
	"os"
	"syscall"
)

// flock takes the file for this process; the kernel gives it back when the
// process ends, however it ends.
func flock(f *os.File) error {
	return syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
}
