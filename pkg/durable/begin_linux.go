package durable

import (
	"os"
	"syscall"
)

// syncFileRangeWrite is SYNC_FILE_RANGE_WRITE of sync_file_range(2).
const syncFileRangeWrite = 2

// beginWrite asks the kernel to begin writing a file that is flushed soon, so
// that many files are on their way before the first flush waits. It is a hint:
// it promises nothing, so its error does not matter.
func beginWrite(f *os.File) {
	raw, err := f.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		_ = syscall.SyncFileRange(int(fd), 0, 0, syncFileRangeWrite)
	})
}
