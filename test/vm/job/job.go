// Package job is what the machine's first process and its starter on the
// outside agree on.
package job

const (
	// File is where the job stands inside of the machine, as JSON.
	File = "/confine-vm/job"
	// Program is where the program stands that is run.
	Program = "/confine-vm/program"
	// Log is the serial line for the kernel's log.
	Log = "ttyS0"
	// Output is the I/O port for what the program prints. Ports need no
	// interrupts, of which an emulated serial line loses one now and then where
	// the host is busy, and is silent from then on.
	Output = 0xe9
	// Back is the one for a tar archive of what is to be kept.
	Back = 0xea
	// Status is the archive's last entry: the exit status in decimal. Without it the
	// machine did not come to its end.
	Status = "status"
	// Programs is where a machine has programs of Confine.
	Programs = "/usr/local/bin"
	// Path is where a machine looks for programs, as PATH has it.
	Path = Programs + ":/usr/sbin:/usr/bin:/sbin:/bin"
)

// Statuses beside those that programs choose, as shells have them.
const (
	// Trouble says that the program could not be run; Output says why.
	Trouble = 126
	// Killed and a signal's number say what ended the program.
	Killed = 128
)

// Job is one program to run.
type Job struct {
	// LSM is the security module that the kernel must have started.
	LSM string
	// Args are the program and its arguments.
	Args []string
	// Env is the whole environment, each NAME=VALUE.
	Env []string
	// Dir is the working directory.
	Dir string
	// Keep are folders whose files are sent back afterwards.
	Keep []string
}
