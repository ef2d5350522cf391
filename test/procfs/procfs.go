// Package procfs reads what a process has used, for benchmarks: proc(5).
package procfs

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// Peak is the largest resident set that a process had, in MiB.
func Peak(pid int) (float64, error) { return mebibytes(pid, "VmHWM:") }

// Resident is the resident set of a process, in MiB.
func Resident(pid int) (float64, error) { return mebibytes(pid, "VmRSS:") }

// mebibytes reads one line of /proc/PID/status, which is in kB.
func mebibytes(pid int, field string) (float64, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, field); ok {
			kb, err := strconv.ParseFloat(strings.Fields(rest)[0], 64)
			return kb / 1024, err
		}
	}
	return 0, fmt.Errorf("no %s of process %d", field, pid)
}

// ProcessorTime is utime and stime together, which the kernel gives in ticks of
// 10 ms.
func ProcessorTime(pid int) (time.Duration, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(data), ") ")
	fields := strings.Fields(rest)
	if len(fields) < 13 {
		return 0, fmt.Errorf("/proc/%d/stat has %d fields", pid, len(fields))
	}
	user, err := strconv.Atoi(fields[11])
	system, err2 := strconv.Atoi(fields[12])
	return time.Duration(user+system) * 10 * time.Millisecond, errors.Join(err, err2)
}
