//go:build linux && amd64

// The first process of a test machine: it mounts the kernel's file systems,
// loads the base policy where there is one, runs one program, sends files and
// its exit status back, and switches the machine off.
package main

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/confine-dev/confine/test/vm/job"
)

func main() {
	drain := func() {}
	err := mountAll()
	if err == nil {
		drain, err = ownOutput(job.Output)
	}
	j, status := job.Job{}, job.Trouble
	if err == nil {
		j, err = readJob()
	}
	if err == nil {
		err = prepare(j)
	}
	if err == nil {
		status, err = runProgram(j)
	}
	if err == nil {
		err = sendBack(j.Keep, status)
	}
	if err != nil {
		fmt.Println("vm:", err)
		err = sendBack(nil, job.Trouble)
	}
	if err != nil {
		fmt.Println("vm:", err)
	}
	drain()
	unix.Sync()
	// QEMU takes a restart for its end.
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
	select {}
}
