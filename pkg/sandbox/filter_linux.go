//go:build amd64 || arm64

package sandbox

import (
	"errors"
	"fmt"
	"slices"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// check holds where the argument, masked, is the value. The kernel looks at the
// lower 32 bits alone of an argument that is an int.
type check struct {
	arg         int
	mask, value uint64
}

// call is a system call that is allowed where all checks hold. Several of one
// number are alternatives.
type call struct {
	number uintptr
	when   []check
}

// Offsets in struct seccomp_data, seccomp(2).
const (
	offsetNumber = 0
	offsetArch   = 4
	offsetArgs   = 16
)

// What a filter answers.
const (
	allow    = unix.SECCOMP_RET_ALLOW
	refuse   = unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)
	unknown  = unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)
	kill     = unix.SECCOMP_RET_KILL_PROCESS
	maxSkip  = 255
	maxInstr = 4096
)

// newest is the newest call that these lists know of. Later ones do not exist,
// and who asks for one falls back to an older one. Numbers from 424 on are the same
// everywhere.
const newest = unix.SYS_RSEQ_SLICE_YIELD

// assemble makes the filter that allows these calls. Calls through another
// architecture's entrance end the process: its numbers mean other calls.
func assemble(calls []call, absent []uintptr) ([]bpf.Instruction, error) {
	program := []bpf.Instruction{
		bpf.LoadAbsolute{Off: offsetArch, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: auditArch, SkipTrue: 1},
		bpf.RetConstant{Val: kill},
		bpf.LoadAbsolute{Off: offsetNumber, Size: 4},
	}
	for _, number := range absent {
		program = append(program, bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: uint32(number), SkipTrue: 1}, bpf.RetConstant{Val: unknown})
	}
	byNumber := map[uintptr][][]check{}
	var numbers []uintptr
	for _, c := range calls {
		if _, seen := byNumber[c.number]; !seen {
			numbers = append(numbers, c.number)
		}
		byNumber[c.number] = append(byNumber[c.number], c.when)
	}
	slices.Sort(numbers)
	for _, number := range numbers {
		answer := decide(byNumber[number])
		if len(answer) > maxSkip {
			return nil, fmt.Errorf("call %d has too many conditions", number)
		}
		program = append(program, bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: uint32(number), SkipTrue: uint8(len(answer))})
		program = append(program, answer...)
	}
	// The numbers of the x32 entrance are far beyond the newest, too.
	program = append(program,
		bpf.JumpIf{Cond: bpf.JumpGreaterThan, Val: newest, SkipFalse: 1},
		bpf.RetConstant{Val: unknown},
		bpf.RetConstant{Val: refuse})
	if len(program) > maxInstr {
		return nil, fmt.Errorf("a filter of %d instructions", len(program))
	}
	return program, nil
}

// decide answers for one call: allowed where all checks of one alternative hold.
func decide(alternatives [][]check) []bpf.Instruction {
	var program []bpf.Instruction
	for _, checks := range alternatives {
		if len(checks) == 0 {
			return []bpf.Instruction{bpf.RetConstant{Val: allow}}
		}
		var parts [][]bpf.Instruction
		for _, c := range checks {
			// Both architectures are little endian: the low word comes first.
			offset := uint32(offsetArgs + 8*c.arg)
			parts = append(parts, word(offset, uint32(c.mask), uint32(c.value)), word(offset+4, uint32(c.mask>>32), uint32(c.value>>32)))
		}
		left := 1 // the answer behind the checks
		for _, part := range slices.Backward(parts) {
			if len(part) > 0 {
				part[len(part)-1] = bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: part[len(part)-1].(bpf.JumpIf).Val, SkipTrue: uint8(left)}
			}
			left += len(part)
		}
		program = append(program, slices.Concat(parts...)...)
		program = append(program, bpf.RetConstant{Val: allow})
	}
	return append(program, bpf.RetConstant{Val: refuse})
}

// word compares one half of an argument; where the jump at its end leads is left open.
func word(offset, mask, value uint32) []bpf.Instruction {
	if mask == 0 {
		return nil
	}
	return []bpf.Instruction{
		bpf.LoadAbsolute{Off: offset, Size: 4},
		bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: mask},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: value},
	}
}

// install puts a filter on the calling thread, or with SECCOMP_FILTER_FLAG_TSYNC
// on all, together with no_new_privs.
func install(f Filter, flags uintptr) error {
	calls, absent, err := f.calls()
	if err != nil {
		return err
	}
	program, err := assemble(calls, absent)
	if err != nil {
		return fmt.Errorf("%s: %w", f, err)
	}
	raw, err := bpf.Assemble(program)
	if err != nil {
		return fmt.Errorf("%s: %w", f, err)
	}
	code := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		code[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("no_new_privs: %w", err)
	}
	fprog := unix.SockFprog{Len: uint16(len(code)), Filter: &code[0]}
	thread, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, uintptr(unsafe.Pointer(&fprog)))
	switch {
	case errno == unix.ENOSYS || errno == unix.EINVAL:
		return fmt.Errorf("the kernel was built without CONFIG_SECCOMP_FILTER: %w", errors.Join(errno, errors.ErrUnsupported))
	case errno != 0:
		return fmt.Errorf("seccomp filter %s: %w", f, errno)
	case thread != 0:
		return fmt.Errorf("seccomp filter %s: thread %d has one of its own", f, thread)
	}
	return nil
}
